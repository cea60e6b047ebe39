//! Connections to upstreams: made, verified, pooled.
//!
//! In: a [`Target`] (address, transport, what is spoken). Out: an [`Upstream`] ready for one exchange, reused where possible. A
//! connection over mutual TLS is only handed out after the server's identity was found among those that may run the
//! service. Pools belong to one worker, are bounded per endpoint, last in first out, and swept while they hold anything.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use mizzen_decide::naming::PeerNames;
use mizzen_proxy_config::{Cluster, ClusterName, TransportSocket, UpstreamTls, WorkloadRef};
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};

use crate::conn::Conn;
use crate::h2io::Stream;
use crate::telemetry::{PeerId, PeerLabels, Reporter, ServiceLabels, Workload};
use crate::tls::{Alpn, ClientKind};
use crate::worker::Worker;

/// Idle connections kept per endpoint and worker.
const IDLE_LIMIT: usize = 1024;
/// How long an idle connection is kept when the cluster does not say.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// How often pools are swept while they hold anything.
const SWEEP: Duration = Duration::from_secs(20);

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

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    cluster: ClusterName,
    address: SocketAddr,
    /// Identity of the TLS settings: connections keep theirs alive, so no other can have the same address.
    tls: usize,
    speaks: Speaks,
}

impl Target {
    fn key(&self) -> Key {
        let tls = match &self.socket {
            TransportSocket::Raw => 0,
            TransportSocket::Tls(tls) => Arc::as_ptr(tls) as usize,
        };
        Key {
            cluster: self.cluster.name.clone(),
            address: self.address,
            tls,
            speaks: self.speaks,
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
    _tls: Option<Arc<UpstreamTls>>,
    idle_since: Instant,
    idle_time: Duration,
}

impl Upstream {
    /// Whether it was used before: then a failure to send may only mean that the peer closed it meanwhile.
    pub fn is_reused(&self) -> bool {
        self.requests > 0
    }
}

#[derive(Debug)]
struct Shared2 {
    sender: SendRequest<Bytes>,
    secure: bool,
    peer: PeerId,
    local: Option<SocketAddr>,
    mesh: bool,
    streams: u32,
    _tls: Option<Arc<UpstreamTls>>,
}

/// A worker's connections to upstreams.
#[derive(Debug, Default)]
pub struct Upstreams {
    idle: HashMap<Key, Vec<Upstream>>,
    h2: HashMap<Key, Shared2>,
    sweeping: bool,
}

/// Takes an idle connection, or makes one.
pub async fn acquire(worker: &Rc<Worker>, target: &Target) -> Result<Upstream, ConnectError> {
    let key = target.key();
    if target.speaks == Speaks::Http2 {
        return acquire_h2(worker, target, key).await;
    }
    if let Some(upstream) = pop(worker, &key) {
        return Ok(upstream);
    }
    dial(worker, target, key).await
}

/// Makes a connection that no other exchange has used.
pub async fn fresh(worker: &Rc<Worker>, target: &Target) -> Result<Upstream, ConnectError> {
    let key = target.key();
    if target.speaks == Speaks::Http2 {
        worker.upstreams.borrow_mut().h2.remove(&key);
        return acquire_h2(worker, target, key).await;
    }
    dial(worker, target, key).await
}

/// Takes an idle connection if there is a good one; for the path that must not wait.
pub fn take_idle(worker: &Worker, target: &Target) -> Option<Upstream> {
    if target.speaks == Speaks::Http2 {
        None
    } else {
        pop(worker, &target.key())
    }
}

fn pop(worker: &Worker, key: &Key) -> Option<Upstream> {
    let mut upstreams = worker.upstreams.borrow_mut();
    let idle = upstreams.idle.get_mut(key)?;
    while let Some(mut upstream) = idle.pop() {
        if upstream.conn.idle_ok() {
            return Some(upstream);
        }
    }
    None
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
    upstream.idle_since = Instant::now();
    let mut upstreams = worker.upstreams.borrow_mut();
    if let Some(idle) = upstreams.idle.get_mut(&upstream.key) {
        if idle.len() < IDLE_LIMIT {
            idle.push(upstream);
        }
    } else {
        upstreams.idle.insert(upstream.key.clone(), vec![upstream]);
    }
    if !upstreams.sweeping {
        upstreams.sweeping = true;
        tokio::task::spawn_local(sweep(Rc::downgrade(worker)));
    }
}

/// Closes what is idle for too long or was closed by the peer; ends with the last idle connection.
async fn sweep(worker: std::rc::Weak<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(worker) = worker.upgrade() else { return };
        let mut upstreams = worker.upstreams.borrow_mut();
        for idle in upstreams.idle.values_mut() {
            idle.retain_mut(|upstream| upstream.idle_since.elapsed() < upstream.idle_time && upstream.conn.idle_ok());
        }
        upstreams.idle.retain(|_, idle| !idle.is_empty());
        if upstreams.idle.is_empty() {
            upstreams.sweeping = false;
            return;
        }
    }
}

async fn dial(worker: &Rc<Worker>, target: &Target, key: Key) -> Result<Upstream, ConnectError> {
    let limit = target.cluster.connect_timeout;
    let conn = tokio::time::timeout(limit, connect(worker, target))
        .await
        .map_err(|_| ConnectError::Timeout)??;
    let peer = peer_of(worker, target, &conn);
    Ok(Upstream {
        address: target.address,
        local: conn.local_addr(),
        peer,
        requests: 0,
        mesh: target.is_mesh(),
        key,
        _tls: tls_of(target),
        idle_since: Instant::now(),
        idle_time: target
            .cluster
            .idle_timeout
            .filter(|time| !time.is_zero())
            .unwrap_or(IDLE_TIME),
        conn,
    })
}

fn tls_of(target: &Target) -> Option<Arc<UpstreamTls>> {
    match &target.socket {
        TransportSocket::Raw => None,
        TransportSocket::Tls(tls) => Some(tls.clone()),
    }
}

async fn acquire_h2(worker: &Rc<Worker>, target: &Target, key: Key) -> Result<Upstream, ConnectError> {
    loop {
        let known = worker
            .upstreams
            .borrow()
            .h2
            .get(&key)
            .map(|shared| shared.sender.clone());
        if let Some(sender) = known {
            // A connection that is going away says so here; waiting for a free stream is the connection's back-pressure.
            if let Ok(sender) = sender.ready().await {
                return Ok(stream_on(worker, target, key, sender));
            }
            worker.upstreams.borrow_mut().h2.remove(&key);
        }
        let limit = target.cluster.connect_timeout;
        let dialled = tokio::time::timeout(limit, async {
            let conn = connect(worker, target).await?;
            let (secure, local, peer) = (conn.is_tls(), conn.local_addr(), peer_of(worker, target, &conn));
            let (sender, driver) = h2::client::Builder::new()
                .initial_window_size(256 * 1024)
                .initial_connection_window_size(1024 * 1024)
                .handshake::<_, Bytes>(conn)
                .await
                .map_err(|error| ConnectError::Failed(io::Error::other(error)))?;
            Ok::<_, ConnectError>((sender, driver, secure, local, peer))
        });
        let (sender, driver, secure, local, peer) = dialled.await.map_err(|_| ConnectError::Timeout)??;
        let shared = Shared2 {
            sender,
            secure,
            peer,
            local,
            mesh: target.is_mesh(),
            streams: 0,
            _tls: tls_of(target),
        };
        worker.upstreams.borrow_mut().h2.insert(key.clone(), shared);
        let (gone, of) = (key.clone(), Rc::downgrade(worker));
        tokio::task::spawn_local(async move {
            let _ended = driver.await;
            // A connection that ended is not offered again; a newer one under the same key fails its own check.
            if let Some(worker) = of.upgrade() {
                worker.upstreams.borrow_mut().h2.remove(&gone);
            }
        });
    }
}

fn stream_on(worker: &Rc<Worker>, target: &Target, key: Key, sender: SendRequest<Bytes>) -> Upstream {
    let mut upstreams = worker.upstreams.borrow_mut();
    let shared = upstreams.h2.get_mut(&key);
    let (secure, peer, local, mesh, streams) = match shared {
        Some(shared) => {
            let before = shared.streams;
            shared.streams = before.saturating_add(1);
            (shared.secure, Some(shared.peer), shared.local, shared.mesh, before)
        }
        None => (target.is_mesh(), None, None, target.is_mesh(), 0),
    };
    drop(upstreams);
    let conn = Conn::from(Stream::client(sender, secure));
    Upstream {
        address: target.address,
        local,
        peer: peer.unwrap_or_else(|| peer_of(worker, target, &conn)),
        requests: streams,
        mesh,
        key,
        _tls: None,
        idle_since: Instant::now(),
        idle_time: IDLE_TIME,
        conn,
    }
}

async fn connect(worker: &Rc<Worker>, target: &Target) -> Result<Conn, ConnectError> {
    let socket = socket(target).await.map_err(ConnectError::Failed)?;
    let TransportSocket::Tls(tls) = &target.socket else {
        return Ok(Conn::from(socket));
    };
    let svid = worker.shared.svids.current().ok_or(ConnectError::NoIdentity)?;
    if !tls.is_mutual() {
        return Err(ConnectError::Unsupported(
            "TLS origination without the mesh's certificates is not supported",
        ));
    }
    let alpn = match target.speaks {
        Speaks::Http1 => Alpn::MeshHttp1,
        Speaks::Http2 => Alpn::MeshH2,
        Speaks::Tcp => Alpn::MeshTcp,
    };
    let config = svid
        .client_config(ClientKind { alpn })
        .map_err(|error| ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let name = match &tls.sni {
        Some(sni) => ServerName::try_from(sni.to_string())
            .map_err(|_| ConnectError::Unsupported("the server name of the cluster is not a DNS name"))?,
        None => ServerName::from(target.address.ip()),
    };
    let session = rustls::ClientConnection::new(config, name)
        .map_err(|error| ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let conn = Conn::handshake(socket, session.into())
        .await
        .map_err(ConnectError::Tls)?;
    let Some(peer) = &conn.peer else {
        return Err(ConnectError::Identity(Arc::from("(none)")));
    };
    let sans = tls
        .validation
        .as_ref()
        .map(|validation| &*validation.sans)
        .unwrap_or_default();
    if !mizzen_decide::naming::allowed(
        sans,
        &PeerNames {
            uris: &[&peer.spiffe],
            ..PeerNames::default()
        },
    ) {
        return Err(ConnectError::Identity(peer.spiffe.clone()));
    }
    Ok(conn)
}

async fn socket(target: &Target) -> io::Result<TcpStream> {
    let socket = if target.address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_nodelay(true)?;
    if let Some(source) = target.cluster.bind
        && source.is_ipv4() == target.address.is_ipv4()
    {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(target.address).await
}

/// Labels of the endpoint at the other end; its principal comes from its certificate.
fn peer_of(worker: &Worker, target: &Target, conn: &Conn) -> PeerId {
    let known = target.workload.as_deref().cloned().unwrap_or_default();
    let service = target
        .cluster
        .service
        .as_deref()
        .map(ServiceLabels::from)
        .unwrap_or_default();
    let peer = Workload {
        principal: conn.peer.as_ref().map(|peer| peer.spiffe.clone()).unwrap_or_default(),
        app: known.canonical_name.clone(),
        version: known.canonical_revision.clone(),
        name: known.name,
        namespace: known.namespace,
        cluster: known.cluster,
        canonical_service: known.canonical_name,
        canonical_revision: known.canonical_revision,
    };
    worker.shard.peer(PeerLabels {
        reporter: target.reporter,
        peer,
        service,
        mutual_tls: target.is_mesh(),
    })
}
