//! Makes a connection: socket, TLS, the server's identity.
//!
//! In: a target. Out: a connection that may carry exchanges with it, or why there is none. It keeps nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use mizzen_decide::naming::PeerNames;
use mizzen_proxy_config::TransportSocket;
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};

use super::{ConnectError, IDLE_TIME, Key, Speaks, Target, Upstream};
use crate::conn::Conn;
use crate::telemetry::{PeerId, PeerLabels, ServiceLabels, Workload};
use crate::tls::{Alpn, ClientKind};
use crate::worker::Worker;

/// A connection for one exchange at a time, within the cluster's limit.
pub(super) async fn dial(worker: &Rc<Worker>, target: &Target, key: Key) -> Result<Upstream, ConnectError> {
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
        rested: false,
        idle_since: Instant::now(),
        idle_time: target
            .cluster
            .idle_timeout
            .filter(|time| !time.is_zero())
            .unwrap_or(IDLE_TIME),
        conn,
    })
}

pub(super) async fn connect(worker: &Rc<Worker>, target: &Target) -> Result<Conn, ConnectError> {
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

/// How the capture rules know this process's connections where they cannot by its user.
static PRIORITY: OnceLock<u32> = OnceLock::new();

/// Gives all sockets that connect to upstreams a priority from now on. Only the first call counts.
pub(crate) fn mark_sockets(priority: u32) {
    let _ = PRIORITY.set(priority);
}

async fn socket(target: &Target) -> io::Result<TcpStream> {
    let socket = if target.address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_nodelay(true)?;
    if let Some(priority) = PRIORITY.get() {
        socket2::SockRef::from(&socket).set_priority(*priority)?;
    }
    if let Some(source) = target.cluster.bind
        && source.is_ipv4() == target.address.is_ipv4()
    {
        without_port(&socket)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(target.address).await
}

/// Lets the kernel choose the source port when it connects, not when it binds: a port bound to an address is taken for all
/// destinations, so connections from `127.0.0.6` to all of a pod's ports would share one range of ports.
fn without_port(socket: &TcpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    #[expect(clippy::cast_possible_truncation, reason = "the size of an int")]
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    #[expect(unsafe_code, reason = "neither socket2 nor rustix has this option")]
    // SAFETY: the descriptor is open while `socket` is borrowed; the value is an int of the length that is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            std::ptr::from_ref(&on).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Labels of the endpoint at the other end; its principal comes from its certificate.
pub(super) fn peer_of(worker: &Worker, target: &Target, conn: &Conn) -> PeerId {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn binding_to_an_address_takes_no_port() {
        let socket = TcpSocket::new_v4().unwrap();
        without_port(&socket).unwrap();
        socket.bind("127.0.0.6:0".parse().unwrap()).unwrap();
        assert_eq!(
            socket.local_addr().unwrap().port(),
            0,
            "a port comes with the connection"
        );
    }
}
