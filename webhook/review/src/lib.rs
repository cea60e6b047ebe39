//! Admission: what the mesh says to a pod or to a configuration object that is being created.
//!
//! In: an object as the API server sends it, and a context (injector configuration, labels of its namespace, answers to
//! questions of authorisation). Out: a decision: unchanged, changed by a patch, refused with reasons. The webhook and
//! `mizzen inject` call the same functions.
//! Never: clients, clocks, sockets.

mod annotation;
mod config;
mod decide;
mod inject;
mod manifest;
mod selector;

pub use annotation::{AnnotationError, DATA_PLANE, PROXY_CONFIG};

pub use config::{
    CONFIG_MAP_KEY, Capture, ConfigError, DataPlane, Images, InjectConfig, InterceptionMode, Policy, PullPolicy,
    Readiness, config_map_name,
};
pub use decide::{
    Because, Candidate, Decision, IGNORE_NAMESPACE, INJECT, MEMBER_OF, NAMESPACE_INJECTION, REVISION, Skip, decide,
};
pub use inject::{INIT, InjectError, Injected, SIDECAR, STATUS, Workload, inject, is_injected};
pub use manifest::{ManifestError, Outcome, Rendered, inject_manifest};
