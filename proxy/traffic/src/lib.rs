//! The native sidecar and gateway: listeners, request path, TLS, pools, telemetry, lifecycle; supervises Envoy where
//! that is the data plane.
//!
//! In: captured connections, the configuration that discovery sends, the workload's identity. Out: proxied connections
//! and requests, metrics, access log. It never decides what the configuration does not say: routing, retry and balancing
//! are pure functions of `mizzen-decide`, the codec is `mizzen-http`.

pub mod buffer;
pub mod conn;
pub mod h2io;
pub mod log_writer;
pub mod settings;
pub mod svid;
pub mod telemetry;
#[doc(hidden)]
pub mod testing;
pub mod timer;
pub mod tls;
