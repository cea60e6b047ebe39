//! The control plane of one mesh as a process: discovery, certificate authority and admission webhooks.
//!
//! **In:** what Kubernetes says (watches), what proxies ask for (xDS, signing requests), what the API server asks (admission).
//! **Out:** configuration to proxies, certificates, the trust bundle in member namespaces, conditions on users' objects.
//! The way of a change: a watch event → `core` (index) → `hub` (what is encoded, and whom it concerns) → sessions of
//! `mizzen-xds` → the proxy; back come only reports, which `status` writes.
//!
//! **Never:** decides what the mesh means (`mizzen-index`), what a proxy gets (`mizzen-translate`) or who a caller is
//! (`mizzen-ca`); keeps a copy of what they know; stops serving because the API server is away.

mod admin;
mod args;
mod base;
mod core;
mod hub;
mod lease;
mod metrics;
mod root_cert;
mod run;
mod secure;
mod status;
mod watch;

pub use args::Args;
pub use run::run;
