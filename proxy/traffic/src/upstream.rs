//! Connections to upstreams: made, verified, pooled.
//!
//! In: a [`Target`] (address, transport, what is spoken). Out: an [`Upstream`] ready for one exchange, reused where possible. A
//! connection over mutual TLS is only handed out after the server's identity was found among those that may run the
//! service. All of it belongs to one worker: `dial` makes connections, `pool` keeps those that carry one exchange at a time,
//! `shared` those of HTTP/2.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mizzen_proxy_config::{Cluster, ClusterName, TransportSocket, WorkloadRef};

use crate::conn::Conn;
use crate::telemetry::{PeerId, Reporter};
use crate::worker::Worker;

mod dial;
mod pool;
mod shared;
#[cfg(test)]
mod tests;

pub(crate) use dial::mark_sockets;

/// How long an idle connection is kept when the cluster does not say.
const IDLE_TIME: Duration = Duration::from_secs(300);

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
    /// Bytes.
    Tcp,
}

/// Where an exchange goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The endpoint's address.
    pub address: SocketAddr,
    /// Plain or TLS.
    pub socket: TransportSocket,
    /// What is spoken.
    pub speaks: Speaks,
    /// Whose endpoint it is.
    pub workload: Option<Arc<WorkloadRef>>,
    /// For metrics: which side we are.
    pub reporter: Reporter,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Refused, unreachable, reset.
    #[error("{0}")]
    Failed(io::Error),
    /// Took longer than the cluster allows.
    #[error("connection timeout")]
    Timeout,
    /// The TLS handshake failed.
    #[error("TLS error: {0}")]
    Tls(io::Error),
    /// The server's identity may not run this service.
    #[error("TLS error: server identity {0} is not one that may run this service")]
    Identity(Arc<str>),
    /// We have no certificate (yet).
    #[error("TLS error: this workload has no certificate yet")]
    NoIdentity,
    /// The transport cannot be used as configured.
    #[error("TLS error: {0}")]
    Unsupported(&'static str),
}

impl ConnectError {
    /// The same failure for another that waited for the same connection.
    fn copy(&self) -> Self {
        let io = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        match self {
            Self::Failed(error) => Self::Failed(io(error)),
            Self::Timeout => Self::Timeout,
            Self::Tls(error) => Self::Tls(io(error)),
            Self::Identity(name) => Self::Identity(name.clone()),
            Self::NoIdentity => Self::NoIdentity,
            Self::Unsupported(why) => Self::Unsupported(why),
        }
    }
}

/// What connections have in common that may stand for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    cluster: ClusterName,
    address: SocketAddr,
    speaks: Speaks,
    /// Compared by content (equal pointers first): a cluster that is sent again unchanged keeps its warm connections.
    socket: TransportSocket,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Without the TLS settings: those of one cluster and address seldom differ, and hashing them costs more than comparing.
        self.cluster.hash(state);
        self.address.hash(state);
        self.speaks.hash(state);
    }
}

impl Target {
    fn key(&self) -> Key {
        Key {
            cluster: self.cluster.name.clone(),
            address: self.address,
            speaks: self.speaks,
            socket: self.socket.clone(),
        }
    }

    /// Whether mutual TLS of the mesh carries it.
    pub fn is_mesh(&self) -> bool {
        matches!(&self.socket, TransportSocket::Tls(tls) if tls.is_mutual())
    }
}

/// A connection to an upstream, in use by one exchange.
#[derive(Debug)]
pub struct Upstream {
    /// The connection.
    pub conn: Conn,
    /// The endpoint's address.
    pub address: SocketAddr,
    /// Our own address on it.
    pub local: Option<SocketAddr>,
    /// Labels of the endpoint for metrics.
    pub peer: PeerId,
    /// Exchanges that it has carried.
    pub requests: u32,
    /// Mutual TLS of the mesh.
    pub mesh: bool,
    key: Key,
    /// It has been idle, used or not.
    rested: bool,
    idle_since: Instant,
    idle_time: Duration,
}

impl Upstream {
    /// Whether it carried an exchange before.
    pub fn is_reused(&self) -> bool {
        self.requests > 0
    }

    /// Whether a failure to send may only mean that the peer closed the connection before it saw the request.
    pub fn may_be_stale(&self) -> bool {
        self.requests > 0 || self.rested
    }
}

/// A worker's connections to upstreams.
#[derive(Debug, Default)]
pub struct Upstreams {
    pools: HashMap<Key, pool::Pool>,
    shared: HashMap<Key, shared::Slot>,
    /// Number of the last HTTP/2 connection.
    last: u64,
    sweeping: bool,
}

/// Takes an idle connection, or waits for one: whichever is there first, one that another exchange is done with or a new one.
pub async fn acquire(worker: &Rc<Worker>, target: &Target) -> Result<Upstream, ConnectError> {
    if target.speaks == Speaks::Http2 {
        return shared::acquire(worker, target).await;
    }
    if let Some(upstream) = take_idle(worker, target) {
        return Ok(upstream);
    }
    pool::wait(worker, target, pool::Wish::Any).await
}

/// Waits for a connection that no other exchange has used; over HTTP/2, for one that is not known to have ended.
pub async fn fresh(worker: &Rc<Worker>, target: &Target) -> Result<Upstream, ConnectError> {
    if target.speaks == Speaks::Http2 {
        return shared::acquire(worker, target).await;
    }
    pool::wait(worker, target, pool::Wish::New).await
}

/// Takes an idle connection if there is a good one; for the path that must not wait.
pub fn take_idle(worker: &Worker, target: &Target) -> Option<Upstream> {
    if target.speaks == Speaks::Http2 {
        None
    } else {
        pool::pop(worker, &target.key())
    }
}

/// Gives a connection back after an exchange that ended in order on both sides.
pub fn release(worker: &Rc<Worker>, mut upstream: Upstream, most_requests: Option<u32>) {
    if upstream.conn.is_h2() {
        return;
    }
    upstream.requests = upstream.requests.saturating_add(1);
    if most_requests.is_some_and(|most| most > 0 && upstream.requests >= most) {
        return;
    }
    pool::give(worker, upstream);
}
