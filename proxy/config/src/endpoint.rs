//! Endpoints of a cluster.

use crate::name::ClusterName;
use std::net::SocketAddr;
use std::sync::Arc;

/// A cluster's endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSet {
    /// The name it is asked for by (EDS: the cluster's name).
    pub name: ClusterName,
    /// Endpoints, in the order of localities and within them as sent.
    pub endpoints: Box<[Endpoint]>,
    /// Localities; [`Endpoint::locality`] is a position here.
    pub localities: Box<[Locality]>,
    /// Percent: how many times its share a priority's healthy endpoints may carry before the next takes part.
    pub overprovisioning: u32,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub address: EndpointAddress,
    /// Weight among the endpoints of its locality; at least 1.
    pub weight: u32,
    /// State.
    pub health: Health,
    /// Position of its locality.
    pub locality: u16,
    /// 0 is tried first.
    pub priority: u8,
    /// Labels that choose the transport (`envoy.transport_socket_match`, for instance `tlsMode=istio`); sorted, shared
    /// between endpoints alike.
    pub socket_labels: Arc<[(Arc<str>, Arc<str>)]>,
    /// Host name, for authority rewrites and DNS; empty when none.
    pub hostname: Arc<str>,
    /// Whose endpoint, for metric labels.
    pub workload: Option<Arc<WorkloadRef>>,
}

impl Endpoint {
    /// It has a sidecar that ends mutual TLS (`tlsMode=istio`).
    #[must_use]
    pub fn is_meshed(&self) -> bool {
        self.socket_labels
            .iter()
            .any(|(name, value)| &**name == "tlsMode" && &**value == "istio")
    }
}

/// An endpoint's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// IP and port.
    Ip(SocketAddr),
    /// A host name (DNS clusters) and port.
    Name(Arc<str>, u16),
    /// A Unix socket.
    Pipe(Arc<str>),
}

/// An endpoint's state as discovery tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It may be chosen.
    #[default]
    Healthy,
    /// Only when too few healthy ones are left.
    Degraded,
    /// No new requests; those that run may end.
    Draining,
    /// Not to be chosen.
    Unhealthy,
}

/// A locality.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Region, may be empty.
    pub region: Arc<str>,
    /// Zone, may be empty.
    pub zone: Arc<str>,
    /// Sub-zone, may be empty.
    pub sub_zone: Arc<str>,
    /// Weight among the localities of its priority; `None`: not weighted.
    pub weight: Option<u32>,
    /// Priority of its endpoints.
    pub priority: u8,
}

/// A workload, as discovery describes it in an endpoint's metadata
/// (`<workload>;<namespace>;<canonical name>;<canonical revision>;<cluster>`); parts may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WorkloadRef {
    /// Workload (Deployment, …) name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Canonical service.
    pub canonical_name: Arc<str>,
    /// Canonical revision.
    pub canonical_revision: Arc<str>,
    /// Cluster id.
    pub cluster: Arc<str>,
}
