//! The proxy's side of xDS: one aggregated delta stream to discovery, and the cache it fills.
//!
//! What comes in: names that the request path asks for ([`Cache::ask`]), and discovery's answers. What goes out: checked
//! resources by name, each present, absent or not yet answered; a number that moves when any answer changes
//! ([`Cache::changes`]); ACKs and NACKs back to discovery.
//!
//! * [`session`]: the protocol, as `step(event) -> actions`; no I/O, no clock.
//! * [`cache`]: what is known; forgets what nobody asks for ([`Cache::sweep`]).
//! * [`link`]: both joined.
//! * [`client`]: moves messages between the two over TLS, and reconnects.
//!
//! Never: takes a good resource away because a newer one is bad, because discovery is away, or because a connection is
//! lost. The stream carries a token and the server must prove its name; what the proxy may see follows from the token.

pub mod backoff;
pub mod cache;
pub mod client;
mod depends;
pub mod link;
pub mod node;
pub mod session;

pub use backoff::Backoff;
pub use cache::{Answer, Cache, Limits, Wishes};
pub use client::{Client, ClientError, Settings, Status};
pub use link::Link;
pub use node::Node;
pub use session::{Action, DeltaRequest, DeltaResponse, Event, Received, Session};
