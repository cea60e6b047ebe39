//! Admission: what the mesh says to a pod or to a configuration object that is being created.
//!
//! In: an object as the API server sends it, and what the decision depends on (injector configuration, labels of its
//! namespace, other objects, answers to questions of authorisation). Out: a decision: unchanged, changed by a patch, refused
//! with reasons. The webhook and `mizzen inject` call the same functions.
//! Never: clients, clocks, sockets.
//!
//! | what | where |
//! |---|---|
//! | does a pod get a sidecar? | [`decide`] |
//! | the pod with its sidecar | [`inject()`], for whole files [`inject_manifest`] |
//! | pods at admission | [`review_pod`] |
//! | traffic and security kinds at admission | [`review_traffic`] |
//! | control planes, rolls, members at admission | [`review_mesh`], [`review_roll`], [`review_member`], [`mutate_mesh`], [`mutate_roll`] |

mod admission;
mod annotation;
mod config;
mod decide;
mod inject;
mod manifest;
mod operator;
mod pods;
mod selector;
mod traffic;

pub use admission::{Answer, Kind, Operation, Request, Response, Review};
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
pub use operator::{
    Answers, OperatorContext, Question, Step, mutate_mesh, mutate_roll, review_member, review_mesh, review_roll,
};
pub use pods::review_pod;
pub use traffic::review_traffic;
