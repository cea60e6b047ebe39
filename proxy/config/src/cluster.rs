//! Clusters: how to reach a service's endpoints.

use crate::endpoint::{Endpoint, EndpointSet};
use crate::name::ClusterName;
use crate::tls::UpstreamTls;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How one of them is chosen.
    pub lb: LbPolicy,
    /// Limit of making a connection, TLS included.
    pub connect_timeout: Duration,
    /// Limits at default priority.
    pub breaker: BreakerLimits,
    /// Limits at high priority.
    pub breaker_high: BreakerLimits,
    /// When endpoints are set aside; `None`: never.
    pub outlier: Option<Outlier>,
    /// Below this share (percent) of healthy endpoints all are used, healthy or not; zero: never.
    pub panic_percent: u32,
    /// Localities get requests by their weights; otherwise all endpoints of a priority are alike.
    pub locality_weighted: bool,
    /// What is spoken.
    pub protocol: UpstreamProtocol,
    /// In TLS, the request's authority is asked for (SNI).
    pub sni_from_authority: bool,
    /// In TLS, the certificate must be for the request's authority.
    pub san_from_authority: bool,
    /// Requests after which a connection is closed; `None`: no limit.
    pub max_requests_per_connection: Option<u32>,
    /// An idle connection is closed after this; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// TCP keep-alive is on.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Transports by the endpoint's labels; the first whose labels are all there wins.
    pub sockets: Box<[SocketMatch]>,
    /// The transport when none of those fits.
    pub socket: TransportSocket,
    /// Source address of connections.
    pub bind: Option<IpAddr>,
    /// The service this cluster stands for (`filter_metadata["istio"].services`, the first).
    pub service: Option<Arc<ServiceRef>>,
    /// The subset, from the metadata; empty when none.
    pub subset: Arc<str>,
}

impl Cluster {
    /// The transport for an endpoint: the first match whose labels the endpoint has, else the default.
    #[must_use]
    pub fn socket_for(&self, endpoint: &Endpoint) -> &TransportSocket {
        self.sockets
            .iter()
            .find(|candidate| {
                candidate
                    .labels
                    .iter()
                    .all(|label| endpoint.socket_labels.contains(label))
            })
            .map_or(&self.socket, |candidate| &candidate.socket)
    }
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    /// The endpoint set of this name.
    Eds(ClusterName),
    /// They are here.
    Static(Arc<EndpointSet>),
    /// Host names that are looked up; all addresses are endpoints.
    StrictDns(Arc<EndpointSet>),
    /// A host name that is looked up for each connection; the first address is used.
    LogicalDns(Arc<EndpointSet>),
    /// The connection's original destination.
    OriginalDst {
        /// With this port instead.
        port: Option<u16>,
    },
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum LbPolicy {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The least busy of `choices` that are drawn.
    LeastRequest {
        /// How many are drawn; at least 2.
        choices: u32,
    },
    /// Drawn.
    Random,
    /// Consistent hash over a ring.
    RingHash {
        /// Least entries.
        min_size: u32,
        /// Most entries.
        max_size: u32,
    },
    /// Consistent hash over Maglev's table.
    Maglev {
        /// Entries, a prime.
        table_size: u32,
    },
    /// Whatever address the connection was for.
    OriginalDst,
}

/// A cluster's limits (circuit breaker). `u32::MAX` is "no limit".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Connections.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests at once.
    pub requests: u32,
    /// Retries at once.
    pub retries: u32,
    /// Retries at once as a share of the requests; `None`: by `retries`.
    pub retry_budget: Option<RetryBudget>,
}

impl Default for BreakerLimits {
    /// Envoy's defaults.
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 1024,
            retries: 3,
            retry_budget: None,
        }
    }
}

/// Retries as a share of what is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Hundredths of a percent of the requests (pending ones included).
    pub percent_hundredths: u32,
    /// So many are always allowed.
    pub least: u32,
}

/// When endpoints are set aside (Envoy's outlier detection; what it does by success rate is not done).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Consecutive 5xx answers (or failures) that eject; `None`: not counted.
    pub consecutive_5xx: Option<u32>,
    /// Consecutive 502, 503, 504 (or failures) that eject; `None`: not counted.
    pub consecutive_gateway: Option<u32>,
    /// Failures to connect or in the transport are counted apart from answers; otherwise they count as 5xx.
    pub split_local_origin: bool,
    /// Consecutive failures to connect or in the transport that eject (only when counted apart); `None`: never.
    pub consecutive_local_origin: Option<u32>,
    /// Time between sweeps, at which ejections end and success rates would be looked at.
    pub interval: Duration,
    /// An ejection lasts this times the number of ejections so far.
    pub base_ejection_time: Duration,
    /// … but no longer than this.
    pub max_ejection_time: Duration,
    /// Most of the endpoints that may be ejected, percent; one may always be.
    pub max_ejection_percent: u32,
    /// One endpoint may be ejected whatever `max_ejection_percent` says.
    pub always_eject_one: bool,
}

/// What is spoken to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1 (or bytes).
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// As the client does.
    UseDownstream,
    /// By ALPN, HTTP/1.1 without.
    Auto,
}

/// TCP keep-alive; `None` fields are the system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes before the connection is dead.
    pub probes: Option<u32>,
    /// Time before the first.
    pub time: Option<Duration>,
    /// Time between.
    pub interval: Option<Duration>,
}

/// A transport for endpoints that have certain labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketMatch {
    /// Its name, for logs.
    pub name: Arc<str>,
    /// All of these the endpoint must have; empty: every endpoint fits.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// The transport.
    pub socket: TransportSocket,
}

/// The transport of a connection to an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TransportSocket {
    /// Plain.
    #[default]
    Raw,
    /// TLS; mutual when it has a certificate.
    Tls(Arc<UpstreamTls>),
}

/// A service, for metric labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRef {
    /// Full name (`destination_service`).
    pub host: Arc<str>,
    /// Short name (`destination_service_name`).
    pub name: Arc<str>,
    /// Namespace (`destination_service_namespace`).
    pub namespace: Arc<str>,
}
