//! Destination rules: subsets of a service, and how connections to it are made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::host::Host;
use crate::name::{ExportTo, Labels, ObjectKey, SubsetName, Timestamp};
use crate::route::HeaderName;
use crate::tls::ClientTls;

/// Ways to choose an endpoint that need no key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SimpleLb {
    /// The one with fewer requests in flight of two random ones: what is used if nothing is said.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The address that the application connected to.
    Passthrough,
}

/// What of a request decides its endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashKey {
    /// A header's value.
    Header(HeaderName),
    /// A cookie's value; made if absent when it has a lifetime.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Its path.
        path: Option<Arc<str>>,
        /// Its lifetime; zero lives as long as the session.
        ttl: Option<Duration>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter's value.
    Query(Arc<str>),
}

/// How a hash finds its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConsistentHash {
    /// A ring with at least that many entries.
    Ring {
        /// How many.
        minimum_size: u64,
    },
    /// A Maglev table.
    Maglev {
        /// Its size, a prime; Envoy's default if none.
        table_size: Option<u64>,
    },
}

/// How new endpoints get their share slowly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warmup {
    /// How long.
    pub duration: Duration,
    /// The least share at the start, in percent.
    pub minimum_percent: f64,
    /// How fast it grows; 1.0 is linear.
    pub aggression: f64,
}

// Percentages come from text, never NaN: the index refuses it.
impl Eq for Warmup {}

/// How localities share the load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalityLb {
    /// Whether localities count at all; as the mesh says if none.
    pub enabled: Option<bool>,
    /// From a locality, the share in percent of each locality (texts like `region/zone/*`).
    pub distribute: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
    /// From a region, where to go when it has no healthy endpoint.
    pub failover: BTreeMap<Arc<str>, Arc<str>>,
    /// Labels by which endpoints are ordered for failover.
    pub failover_priority: Vec<Arc<str>>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Without a key.
    Simple(SimpleLb),
    /// By a key of the request.
    Hash {
        /// The key.
        key: HashKey,
        /// The algorithm.
        algorithm: ConsistentHash,
    },
}

impl Default for Policy {
    fn default() -> Self {
        Self::Simple(SimpleLb::default())
    }
}

/// Load balancing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// How an endpoint is chosen.
    pub policy: Policy,
    /// How localities share.
    pub locality: Option<LocalityLb>,
    /// How new endpoints warm up.
    pub warmup: Option<Warmup>,
}

/// TCP keepalive; the operating system's values where none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes until a connection counts as dead.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between them.
    pub interval: Option<Duration>,
}

/// Limits of connections of any protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpPool {
    /// Connections to all endpoints together.
    pub max_connections: Option<u32>,
    /// How long a connection may take to open.
    pub connect_timeout: Option<Duration>,
    /// Keepalive.
    pub keepalive: Option<TcpKeepalive>,
    /// How long a connection may live.
    pub max_connection_duration: Option<Duration>,
    /// How long it may be idle, as bytes.
    pub idle_timeout: Option<Duration>,
}

/// Whether HTTP/1.1 requests go upstream as HTTP/2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum H2Upgrade {
    /// As the mesh says: no.
    #[default]
    Default,
    /// No.
    No,
    /// Yes.
    Yes,
}

/// Limits of HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpPool {
    /// Requests that may wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests in flight.
    pub max_requests: Option<u32>,
    /// Requests until a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// Retries in flight.
    pub max_retries: Option<u32>,
    /// Streams of one HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// How long a connection may have no request.
    pub idle_timeout: Option<Duration>,
    /// HTTP/2 upstream.
    pub h2_upgrade: H2Upgrade,
    /// Speak upstream what the client spoke.
    pub use_client_protocol: bool,
}

/// Limits of what is open to an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Of any protocol.
    pub tcp: TcpPool,
    /// Of HTTP.
    pub http: HttpPool,
}

/// When an endpoint gets no traffic for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Errors in a row of any 5xx; zero switches it off. Istio's default, 5, if none.
    pub consecutive_5xx: Option<u32>,
    /// Errors in a row of 502, 503 and 504.
    pub consecutive_gateway: Option<u32>,
    /// Errors in a row that the proxy itself saw (connects, resets).
    pub consecutive_local: Option<u32>,
    /// Tell those apart from what the endpoint answered.
    pub split_local_errors: bool,
    /// Time between looks.
    pub interval: Option<Duration>,
    /// The shortest ejection; it grows with each one.
    pub base_ejection_time: Option<Duration>,
    /// The most of the endpoints that may be ejected, in percent.
    pub max_ejection_percent: Option<u32>,
    /// Ejection is off while fewer than that percentage are healthy.
    pub min_health_percent: u32,
}

/// How connections to a host are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Load balancing.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection.
    pub outlier: Option<OutlierDetection>,
    /// TLS; automatic if none.
    pub tls: Option<ClientTls>,
    /// For single ports of the service; such an entry replaces all of the above for its port.
    pub ports: BTreeMap<u16, TrafficPolicy>,
}

impl TrafficPolicy {
    /// This policy with what `over` says instead where it says something (a subset's over its rule's).
    #[must_use]
    pub fn overlaid(&self, over: &TrafficPolicy) -> TrafficPolicy {
        let mut ports = self.ports.clone();
        ports.extend(over.ports.iter().map(|(port, policy)| (*port, policy.clone())));
        TrafficPolicy {
            load_balancer: over.load_balancer.clone().or_else(|| self.load_balancer.clone()),
            connection_pool: over.connection_pool.or(self.connection_pool),
            outlier: over.outlier.or(self.outlier),
            tls: over.tls.clone().or_else(|| self.tls.clone()),
            ports,
        }
    }

    /// What holds for that port of the service. What an entry for a port leaves out is the default, not what the rule
    /// says for the other ports.
    #[must_use]
    pub fn for_port(&self, port: u16) -> TrafficPolicy {
        match self.ports.get(&port) {
            Some(policy) => TrafficPolicy {
                ports: BTreeMap::new(),
                ..policy.clone()
            },
            None => TrafficPolicy {
                ports: BTreeMap::new(),
                ..self.clone()
            },
        }
    }
}

/// A named part of a service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Its name, unique in the rule.
    pub name: SubsetName,
    /// The labels that its endpoints have; all endpoints if empty.
    pub labels: Labels,
    /// What it does otherwise than the rule.
    pub policy: Option<TrafficPolicy>,
}

/// A DestinationRule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationRule {
    /// Which object.
    pub key: ObjectKey,
    /// When it was created: of several for one host in one namespace the oldest one's policy counts; subsets add up.
    pub created: Timestamp,
    /// For which host; perhaps a wildcard.
    pub host: Host,
    /// Who sees it.
    pub export_to: ExportTo,
    /// The client workloads it is for, in its namespace; all if none.
    pub workload_selector: Option<Labels>,
    /// How connections are made.
    pub policy: TrafficPolicy,
    /// Its subsets, in the order written.
    pub subsets: Vec<Subset>,
}

impl DestinationRule {
    /// The subset of that name.
    #[must_use]
    pub fn subset(&self, name: &SubsetName) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == *name)
    }
}
