//! The native sidecar and gateway: listeners, request path, TLS, pools, telemetry, lifecycle; supervises Envoy where
//! that is the data plane.
//!
//! In: captured connections, the configuration that discovery sends, the workload's identity. Out: proxied connections
//! and requests, metrics, access log. It never decides what the configuration does not say: routing, retry and balancing
//! are pure functions of `mizzen-decide`, the codec is `mizzen-http`.

pub mod agent;
pub mod balance;
pub mod buffer;
pub mod capture;
pub mod command;
pub mod conn;
pub mod detect;
pub mod envoy;
pub mod exchange;
pub mod footprint;
pub mod format;
pub mod forward;
pub mod h2io;
pub mod heads;
pub mod http1;
pub mod http2;
pub mod identity;
pub mod info;
pub mod listen;
pub mod log_writer;
pub mod mesh;
pub mod metadata;
pub mod plan;
pub mod reply;
pub mod request;
pub mod run;
pub mod settings;
pub mod svid;
pub mod tcp;
pub mod telemetry;
#[doc(hidden)]
pub mod testing;
pub mod timer;
pub mod tls;
pub mod tunnel;
pub mod upstream;
pub mod worker;
