//! The Kubernetes API server of one machine, as one service.
//!
//! In: HTTP requests, from sockets over TLS ([`Api::serve`]) or in process. Out: responses and watch streams whose bodies,
//! status codes and messages are those of Kubernetes 1.33. Objects are JSON values throughout; a schema says what may be in them.
//!
//! It runs no controller, no scheduler and no container: those are clients. It never calls out, except to the admission webhooks
//! that its objects configure.

mod admission;
mod api;
pub mod apply;
mod auth;
mod bootstrap;
mod convert;
mod defaults;
mod discovery;
mod hooks;
pub mod json;
pub mod kinds;
pub mod negotiate;
mod openapi;
pub mod patch;
mod pki;
pub mod protobuf;
pub mod rbac;
pub mod request;
mod review;
pub mod schema;
pub mod selector;
mod service;
pub mod status;
pub mod store;
mod strategy;
pub mod table;
pub mod timestamp;
mod tls;
pub mod user;
mod validate;
mod verbs;

pub use admission::{Address, Resolve};
pub use api::{Api, NodeProxy, Options, PodRequest, Service, StartError};
pub use pki::{Identity, PkiError};
