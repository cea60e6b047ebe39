//! What is handed over to be sent.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The types of resources that are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TypeUrl {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoints,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    Route,
    /// `envoy.config.route.v3.VirtualHost` (VHDS).
    VirtualHost,
}

impl TypeUrl {
    /// All of them, in the order in which they are sent so that nothing refers to what is not there yet.
    pub const ALL: [Self; 5] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Route,
        Self::VirtualHost,
    ];

    /// As it is on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        }
    }

    /// From the wire; none if it is another type.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|url| url.as_str() == text)
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The version of a resource: a hash of its bytes. Shows as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// An encoded resource. A clone shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its type.
    pub type_url: TypeUrl,
    /// Its name, as it was asked for.
    pub name: Arc<str>,
    /// The encoded message (not wrapped in an `Any`).
    pub body: Bytes,
    /// The hash of the bytes.
    pub version: Version,
}

impl Resource {
    pub(crate) fn new(type_url: TypeUrl, name: &str, body: Vec<u8>) -> Self {
        let version = Version(xxhash_rust::xxh3::xxh3_64(&body));
        Self {
            type_url,
            name: Arc::from(name),
            body: Bytes::from(body),
            version,
        }
    }
}
