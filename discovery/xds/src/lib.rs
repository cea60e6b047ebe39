//! Serves Envoy's xDS v3 over one aggregated stream (ADS), delta and state of the world.
//!
//! **In:** a [`View`] per stream (what its proxy may see, as encoded resources that streams share), marks of what may have
//! changed since ([`Dirty`], left in the stream's [`Mailbox`]), and the proxy's requests.
//! **Out:** responses that carry only what the proxy does not have yet, and reports of what it rejected.
//!
//! The protocol is [`Session`], a state machine without input or output: [`Session::step`] takes an event,
//! [`Session::respond`] gives the next response when there is room for one. A stream therefore holds *names that may have
//! changed*, never a queue of messages: a slow proxy gets the newest state, once. [`Ads`] moves messages between sessions and gRPC.
//!
//! **Never:** knows what a resource means, translates, talks to Kubernetes, or takes away what a proxy accepted because it
//! rejected what came after.
//!
//! Source of the protocol: <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>.

mod mailbox;
mod metrics;
mod resource;
mod service;
mod session;
pub mod wire;

pub use mailbox::{Change, Dirty, Mailbox};
pub use metrics::{Metrics, TypeLabel};
pub use resource::{Resource, ResourceSet, ResourceType, Version, View};
pub use service::{Ads, Opened, Refused, Settings, Source, StreamId, StreamStatus};
pub use session::{
    Action, Event, Limits, Nack, Nonce, Protocol, Refusal, Response, Session, SyncState, TypeStatus, TypeUrl,
};
