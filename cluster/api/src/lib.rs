//! The Kubernetes API server of one machine, as one service.
//!
//! In: HTTP requests, from sockets over TLS ([`Api::serve`]) or in process. Out: responses and watch streams whose bodies,
//! status codes and messages are those of Kubernetes 1.33. Objects are JSON values throughout; a schema says what may be in them.
//!
//! It runs no controller, no scheduler and no container: those are clients. It never calls out, except to the admission webhooks
//! that its objects configure.

pub mod apply;
pub mod patch;
pub mod protobuf;
pub mod rbac;
pub mod schema;
pub mod selector;
pub mod table;
