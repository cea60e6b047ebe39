//! The native proxy's own configuration types, and the one way into them: bytes of Envoy xDS v3 resources.
//!
//! What comes in: one encoded resource (`Listener`, `RouteConfiguration`, `VirtualHost`, `Cluster`,
//! `ClusterLoadAssignment`) as discovery sends it. What goes out: an [`Outcome`]: a checked value that the request path
//! can use without asking further questions, and every way in which the resource was wrong ([`ConfigError`], one variant
//! per way), from which the ADS client makes its NACK.
//!
//! A part that is wrong or that this proxy cannot do never disappears: a route becomes [`Action::Unavailable`] (503), a
//! filter chain becomes [`Protocol::Closed`] (the connection is closed). So what is not understood is refused, never let
//! through (fail closed).
//!
//! This crate never does I/O, reads no clock and knows neither tokio nor tonic. Values are immutable, built once, and
//! shared by `Arc`; names are `Arc<str>`.

pub mod cluster;
mod convert;
pub mod endpoint;
pub mod error;
pub mod format;
pub mod header;
pub mod listener;
pub mod matcher;
pub mod name;
pub mod resource;
pub mod route;
pub mod tls;

pub use cluster::{
    BreakerLimits, Cluster, Discovery, LbPolicy, Outlier, RetryBudget, ServiceRef, SocketMatch, TcpKeepalive,
    TransportSocket, UpstreamProtocol,
};
pub use endpoint::{Endpoint, EndpointAddress, EndpointSet, Health, Locality, WorkloadRef};
pub use error::{ConfigError, Problems};
pub use format::{Field, Format, Part};
pub use header::{HeaderAppend, HeaderOp, HeaderOps, SetHeader};
pub use listener::{
    AccessLog, AccessLogFormat, ChainMatch, ChainTransport, ClientCertDetails, Codec, Direction, FilterChain,
    ForwardClientCert, HttpConnection, Inspect, Listener, LogFilter, Protocol, RouteSource, ServerHeader, StripPort,
    TcpProxy, TransportProtocol,
};
pub use matcher::{HeaderMatch, HeaderTest, Pattern, QueryMatch, QueryTest, StringMatch, StringTest};
pub use name::{ClusterName, ListenerName, RouteConfigName, RouteName, SecretName, VirtualHostName};
pub use resource::{Kind, Outcome, Resource, XdsType};
pub use route::{
    Abort, AbortWith, Action, Cors, Delay, Direct, DomainIndex, Fault, Forward, Fraction, HashOn, HashPolicy,
    HostRewrite, Mirror, PathMatch, PathRewrite, Redirect, RetryOn, RetryPolicy, Route, RouteConfig, RouteMatch,
    Substitution, SubstitutionPart, VirtualHost, WeightedCluster, WeightedClusters,
};
pub use tls::{Certificate, DownstreamTls, Roots, SanMatch, TlsVersion, UpstreamTls, Validation};
