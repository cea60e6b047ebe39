//! The names and addresses of the pair: a client's pod `a`, a server's pod `b`, one service that leads from one to the
//! other.

use std::net::Ipv4Addr;

/// Network namespace of the client and its sidecar.
pub(crate) const CLIENT_SPACE: &str = "mzb-a";
/// Network namespace of the server and its sidecar.
pub(crate) const SERVER_SPACE: &str = "mzb-b";
/// The client's address.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 234, 0, 1);
/// The server's address.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 234, 0, 2);
/// The service's address. Nobody has it: what goes there is captured, or lost.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 234, 1, 1);
/// Port of the service and of the server.
pub(crate) const PORT: u16 = 8080;
/// The service's host name.
pub(crate) const HOST: &str = "backend.bench.svc.cluster.local";
/// What the client writes as authority, without the port.
pub(crate) const AUTHORITY: &str = "backend.bench";
/// Kubernetes namespace of both.
pub(crate) const NAMESPACE: &str = "bench";
/// The trust domain.
pub(crate) const TRUST_DOMAIN: &str = "cluster.local";
/// Where each namespace has its control plane.
pub(crate) const CONTROL: &str = "127.0.0.1:15012";
/// User and group of a sidecar, which the redirect rules leave alone.
pub(crate) const SIDECAR_USER: u32 = 1337;

/// One side of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Sends requests.
    Client,
    /// Answers them.
    Server,
}

impl Side {
    /// Both, the server first: it is there when the client's sidecar wants it.
    pub(crate) const ALL: [Self; 2] = [Self::Server, Self::Client];

    /// Its name, which is also its service account.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "backend",
        }
    }

    /// Its network namespace.
    pub(crate) fn space(self) -> &'static str {
        match self {
            Self::Client => CLIENT_SPACE,
            Self::Server => SERVER_SPACE,
        }
    }

    /// Its address.
    pub(crate) fn address(self) -> Ipv4Addr {
        match self {
            Self::Client => CLIENT,
            Self::Server => SERVER,
        }
    }

    /// Its SPIFFE id.
    pub(crate) fn identity(self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{}", self.name())
    }
}
