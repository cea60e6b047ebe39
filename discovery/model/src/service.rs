//! Services, the endpoints behind them, and the workloads that the endpoints are.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use mizzen_identity::{Namespace, ServiceAccount, SpiffeId};
use serde::Serialize;

use crate::host::Host;
use crate::name::{ExportTo, Labels, ObjectKey, ObjectName, PortName, Timestamp, WorkloadName};

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2, without TLS of the application's own.
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// TLS of the application's own, HTTP inside.
    Https,
    /// TLS of the application's own, anything inside.
    Tls,
    /// Bytes.
    Tcp,
    /// MongoDB; treated as [`Protocol::Tcp`].
    Mongo,
    /// MySQL; treated as [`Protocol::Tcp`].
    Mysql,
    /// Redis; treated as [`Protocol::Tcp`].
    Redis,
    /// Datagrams: not captured, no traffic behaviour in the mesh.
    Udp,
    /// Nobody said: the first bytes decide between HTTP and bytes.
    #[default]
    Auto,
}

/// What a proxy does with the bytes of a [`Protocol`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Treatment {
    Http,
    Bytes,
    Detect,
    Nothing,
}

impl Protocol {
    fn treatment(self) -> Treatment {
        match self {
            Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb => Treatment::Http,
            Self::Https | Self::Tls | Self::Tcp | Self::Mongo | Self::Mysql | Self::Redis => Treatment::Bytes,
            Self::Auto => Treatment::Detect,
            Self::Udp => Treatment::Nothing,
        }
    }

    /// Known to be HTTP that a proxy can read.
    #[must_use]
    pub fn is_http(self) -> bool {
        self.treatment() == Treatment::Http
    }

    /// Known to be HTTP/2 that a proxy can read.
    #[must_use]
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Forwarded as bytes (also TLS of the application's own).
    #[must_use]
    pub fn is_bytes(self) -> bool {
        self.treatment() == Treatment::Bytes
    }

    /// TLS of the application's own, which can be routed by SNI.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// The first bytes decide.
    #[must_use]
    pub fn is_auto(self) -> bool {
        self.treatment() == Treatment::Detect
    }

    /// Whether the mesh carries it at all.
    #[must_use]
    pub fn is_carried(self) -> bool {
        self.treatment() != Treatment::Nothing
    }
}

/// What a service's port leads to on its pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TargetPort {
    /// The same number on every pod.
    Number(u16),
    /// The container port of this name, which may differ from pod to pod.
    Name(PortName),
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServicePort {
    /// The port that clients use.
    pub number: u16,
    /// Its name, where it has one.
    pub name: Option<PortName>,
    /// What it leads to.
    pub target: TargetPort,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// How the endpoints of a service are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Resolution {
    /// By the endpoints in the mesh; one of them is chosen per request or connection.
    #[default]
    Endpoints,
    /// The client chose an address itself (a headless service): traffic goes to the address that it connected to. Gateways,
    /// and subsets, still choose one of the endpoints.
    Headless,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is called, fully qualified.
    pub host: Host,
    /// Where it is defined.
    pub namespace: Namespace,
    /// Its short name.
    pub name: ObjectName,
    /// Its virtual addresses, sorted; none for a headless one.
    pub addresses: Vec<IpAddr>,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Its ports, by number.
    pub ports: Vec<ServicePort>,
    /// The labels of its pods; none if its endpoints are kept by hand.
    pub selector: Option<Labels>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// When it was created.
    pub created: Timestamp,
}

impl Service {
    /// The port of this number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Whether it has no virtual address.
    #[must_use]
    pub fn headless(&self) -> bool {
        self.resolution == Resolution::Headless
    }
}

/// Whether an endpoint should get traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum EndpointHealth {
    /// It should.
    #[default]
    Ready,
    /// It is going away: finishes what it has, gets nothing new while others are there.
    Draining,
    /// It is not ready: gets nothing.
    NotReady,
}

/// What an endpoint can be spoken to with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum EndpointTls {
    /// It has no sidecar: plain text.
    #[default]
    Plain,
    /// It has a sidecar, which takes the mesh's mutual TLS (label `security.istio.io/tlsMode=istio`).
    Mesh,
}

/// Where something runs. Empty text where it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[expect(missing_docs, reason = "the fields are Kubernetes' topology labels")]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub subzone: Arc<str>,
}

impl Locality {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.region, self.zone, self.subzone)
    }
}

/// One address behind a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// For each port of the service, by number, the port of this endpoint.
    pub ports: BTreeMap<u16, u16>,
    /// Whether it should get traffic.
    pub health: EndpointHealth,
    /// The pod's labels: subsets select by them.
    pub labels: Labels,
    /// Its namespace.
    pub namespace: Namespace,
    /// The identity that it must prove; none where no pod is known.
    pub identity: Option<SpiffeId>,
    /// What it can be spoken to with.
    pub tls: EndpointTls,
    /// Where it runs.
    pub locality: Locality,
    /// What owns it, for metrics.
    pub workload: Option<WorkloadName>,
    /// Its canonical service, for metrics.
    pub canonical_name: Arc<str>,
    /// Its canonical revision, for metrics.
    pub canonical_revision: Arc<str>,
}

/// All endpoints of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints(Vec<Endpoint>);

impl Endpoints {
    /// Sorts them, so that the order in which they became known does not show.
    #[must_use]
    pub fn new(mut endpoints: Vec<Endpoint>) -> Self {
        endpoints.sort();
        endpoints.dedup();
        Self(endpoints)
    }

    /// They, sorted.
    pub fn iter(&self) -> std::slice::Iter<'_, Endpoint> {
        self.0.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a Endpoints {
    type Item = &'a Endpoint;
    type IntoIter = std::slice::Iter<'a, Endpoint>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A service that a workload is behind, and which of its own ports the service's ports lead to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadService {
    /// The service.
    pub host: Host,
    /// Service port to the workload's own port, names resolved.
    pub ports: BTreeMap<u16, u16>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Which pod.
    pub key: ObjectKey,
    /// Its uid: another pod may get its name.
    pub uid: Arc<str>,
    /// Whether it is a gateway: nothing but a proxy, told to be one.
    pub gateway: bool,
    /// Its addresses, the first one being the one it is known by.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Its service account.
    pub service_account: ServiceAccount,
    /// The ports its containers declare, by number.
    pub ports: BTreeMap<u16, Option<PortName>>,
    /// Where it runs.
    pub locality: Locality,
    /// The services it is behind, by host.
    pub services: Vec<WorkloadService>,
    /// Whether it has a sidecar or is a gateway, that is, takes the mesh's mutual TLS.
    pub tls: EndpointTls,
    /// What owns it, for metrics.
    pub workload: Option<WorkloadName>,
    /// Its canonical service, for metrics.
    pub canonical_name: Arc<str>,
    /// Its canonical revision, for metrics.
    pub canonical_revision: Arc<str>,
}
