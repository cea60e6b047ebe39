//! The mesh in our own words: services, endpoints, workloads, routes, policies, and [`Mesh`], the whole of it as one value.
//!
//! In: checked values, built by whoever watches something (the index converts Kubernetes objects). Out: lookups that
//! answer what a translator asks ("which destination rule decides for this host from that namespace?") and [`Changes`],
//! which say what a change may touch. Never: reads a clock, talks to anything, or fails on a lookup. A reference that
//! leads nowhere is a value ([`Unresolved`]) whose traffic behaviour is defined (503), not an error.

mod change;
mod config;
mod gateway;
mod host;
mod mesh;
mod name;
mod route;
mod rule;
mod security;
mod service;
mod tls;

pub use change::{Change, Changes};
pub use config::{AccessLog, AccessLogEncoding, DataPlane, MeshConfig, OutboundPolicy};
pub use gateway::{Gateway, NamespaceFilter, Server, ServerHost, ServerProtocol, ServerTls, ServerTlsMode};
pub use host::Host;
pub use mesh::{DestinationRules, Mesh, Resolved, Unresolved};
pub use mizzen_identity::{Namespace, ServiceAccount, SpiffeId, TrustDomain};
pub use name::{
    CredentialName, ExportTo, Kind, Labels, NameError, ObjectKey, ObjectName, PortName, SubsetName, Timestamp,
    WorkloadName,
};
pub use route::{
    Abort, AbortStatus, Body, Cors, Delay, Destination, DirectResponse, Fault, GatewayRef, HeaderMatch, HeaderName,
    HeaderOps, Headers, HttpAction, HttpMatch, HttpRoute, L4Match, Mirror, Pattern, Percent, Redirect, RedirectPort,
    RetryPolicy, Rewrite, RoutePathRewrite, StringMatch, TcpRoute, TlsRoute, VirtualService, WeightedDestination,
};
pub use rule::{
    ConnectionPool, ConsistentHash, DestinationRule, H2Upgrade, HashKey, HttpPool, LoadBalancer, LocalityLb,
    OutlierDetection, Policy, SimpleLb, Subset, TcpKeepalive, TcpPool, TrafficPolicy, Warmup,
};
pub use security::{MtlsMode, PeerAuthentication};
pub use service::{
    Endpoint, EndpointHealth, EndpointTls, Endpoints, Locality, Protocol, Resolution, Service, ServicePort, TargetPort,
    Workload, WorkloadService,
};
pub use tls::ClientTls;
