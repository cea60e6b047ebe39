//! Names of resources, and what they mean.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use mizzen_model::{Host, SubsetName};

/// The cluster for destinations that the mesh does not know.
pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";
/// The cluster without endpoints.
pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";
/// The cluster for ports of the application that no service names.
pub(crate) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// The listener that outbound traffic is redirected to.
pub(crate) const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// The listener that inbound traffic is redirected to.
pub(crate) const VIRTUAL_INBOUND: &str = "virtualInbound";

/// The name of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterName {
    /// To a service, or a subset of it.
    Outbound {
        /// The service's port.
        port: u16,
        /// The subset.
        subset: Option<SubsetName>,
        /// The service.
        host: Host,
        /// The sibling for bytes of a port whose protocol nobody said.
        bytes: bool,
    },
    /// To the application, at that port of its own.
    Inbound {
        /// The port.
        port: u16,
    },
    /// To wherever the application sent it.
    Passthrough,
    /// To nowhere.
    BlackHole,
    /// To a port of the application that no service names.
    InboundPassthrough,
}

impl ClusterName {
    /// Reads a name; none if it is not one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            PASSTHROUGH => return Some(Self::Passthrough),
            BLACK_HOLE => return Some(Self::BlackHole),
            INBOUND_PASSTHROUGH => return Some(Self::InboundPassthrough),
            _ => {}
        }
        let mut parts = text.split('|');
        let mut part = || parts.next();
        let (direction, port, subset, host) = (part()?, part()?.parse().ok()?, part()?, part()?);
        if part().is_some() {
            return None;
        }
        match direction {
            "inbound" if subset.is_empty() && host.is_empty() => Some(Self::Inbound { port }),
            "outbound" | "outbound-tcp" => Some(Self::Outbound {
                port,
                subset: if subset.is_empty() {
                    None
                } else {
                    Some(SubsetName::new(subset).ok()?)
                },
                host: Host::new(host).ok()?,
                bytes: direction == "outbound-tcp",
            }),
            _ => None,
        }
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outbound {
                port,
                subset,
                host,
                bytes,
            } => {
                let direction = if *bytes { "outbound-tcp" } else { "outbound" };
                write!(
                    f,
                    "{direction}|{port}|{}|{host}",
                    subset.as_ref().map_or("", SubsetName::as_str)
                )
            }
            Self::Inbound { port } => write!(f, "inbound|{port}||"),
            Self::Passthrough => f.write_str(PASSTHROUGH),
            Self::BlackHole => f.write_str(BLACK_HOLE),
            Self::InboundPassthrough => f.write_str(INBOUND_PASSTHROUGH),
        }
    }
}

/// `<port>/<authority>`: a virtual host that is asked for on demand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualHostName {
    /// The port of the route configuration.
    pub port: u16,
    /// The authority as the application wrote it, lower-case, without a port.
    pub authority: Arc<str>,
}

impl VirtualHostName {
    /// Reads a name; none if it has no port or no authority.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (port, authority) = text.split_once('/')?;
        let port = port.parse().ok()?;
        if authority.is_empty() {
            return None;
        }
        Some(Self {
            port,
            authority: Arc::from(authority.to_ascii_lowercase()),
        })
    }
}

impl fmt::Display for VirtualHostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.authority)
    }
}

/// `<address>_<port>`: a listener.
pub(crate) fn listener_address(name: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = name.rsplit_once('_')?;
    Some((address.parse().ok()?, port.parse().ok()?))
}
