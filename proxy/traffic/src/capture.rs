//! From an accepted connection to the code that serves it.
//!
//! In: a socket and how it came. Out: a served connection. The original destination names the listener; first bytes are read
//! only when a filter chain depends on them, and never for longer than the listener says, so a server that speaks first is
//! not kept waiting. What no chain takes is closed.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use mizzen_decide::chain::{self, ConnectionFacts};
use mizzen_proxy_config::{
    Certificate, ChainTransport, Codec, Direction, DownstreamTls, FilterChain, HttpConnection, Listener, Protocol,
};
use rustls::server::Accepted;
use tokio::net::TcpStream;

use crate::buffer::{Input, SIZE};
use crate::conn::Conn;
use crate::detect::{self, Facts, HelloReader, Seen};
use crate::info::Info;
use crate::mesh::Lookup;
use crate::plan::OUTBOUND;
use crate::tcp;
use crate::timer::Timer;
use crate::tls::{Alpn, ServerKind};
use crate::worker::Worker;
use crate::{http1, http2};

/// Listener of everything that enters the workload.
pub const INBOUND: &str = "virtualInbound";
/// A TLS handshake must end within this time.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// The name of the secret that is our own certificate.
const OWN_SECRET: &str = "default";

/// How a connection came.
#[derive(Debug, Clone)]
pub enum Entrance {
    /// Redirected on its way out.
    Outbound,
    /// Redirected on its way in.
    Inbound,
    /// Accepted by a listener of a gateway.
    Gateway(Arc<Listener>),
}

/// Serves one accepted connection to its end.
pub async fn serve(worker: Rc<Worker>, socket: TcpStream, remote: SocketAddr, entrance: Entrance) {
    let Ok(own) = socket.local_addr() else { return };
    let destination = match &entrance {
        Entrance::Gateway(_) => own,
        Entrance::Outbound | Entrance::Inbound => {
            let destination = original_destination(&socket, own);
            if is_own_port(&worker, destination, own) {
                tracing::debug!(%remote, "connection to a capture port itself: closed");
                return;
            }
            destination
        }
    };
    serve_to(worker, socket, remote, entrance, destination).await;
}

/// Serves a connection whose original destination is known.
pub async fn serve_to(
    worker: Rc<Worker>,
    socket: TcpStream,
    remote: SocketAddr,
    entrance: Entrance,
    destination: SocketAddr,
) {
    let Some(_admission) = worker.admit() else { return };
    // Everything is written in whole messages; waiting for more would only delay them.
    let _slower = socket.set_nodelay(true);
    // Boxed: what is only needed until the protocol is known must not stay in the task of every open connection.
    let entered = Box::pin(enter(&worker, socket, remote, entrance, destination)).await;
    let entered = match entered {
        Ok(entered) => entered,
        Err(error) => {
            worker.shard.handshake_failures.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%destination, %remote, error = %error, "connection refused");
            return;
        }
    };
    let Entered {
        chain,
        conn,
        input,
        seen,
        direction,
    } = entered;
    match &chain.protocol {
        Protocol::Http(http) => {
            let found = http_version(http, &conn, seen);
            let addresses = (direction, remote, destination);
            Box::pin(on_http(&worker, http, conn, input, found, addresses)).await;
        }
        Protocol::Tcp(proxy) => {
            let client = tcp::Client {
                conn,
                input,
                direction,
                remote,
                local: destination,
            };
            Box::pin(tcp::serve(&worker, proxy, client)).await;
        }
        Protocol::Closed(reason) => {
            tracing::debug!(%destination, %remote, reason = &**reason, "connection closed by configuration");
        }
    }
}

/// A connection whose filter chain is known and whose TLS, if it ends here, is established.
struct Entered {
    chain: Arc<FilterChain>,
    conn: Conn,
    input: Input,
    seen: Seen,
    direction: Direction,
}

/// Where a redirected connection wanted to go; its local address when it was not redirected.
fn original_destination(socket: &TcpStream, own: SocketAddr) -> SocketAddr {
    let socket = socket2::SockRef::from(socket);
    let original = if own.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    original.ok().and_then(|address| address.as_socket()).unwrap_or(own)
}

/// A connection that was made to a capture port, not redirected to it, would be sent to itself for ever.
fn is_own_port(worker: &Worker, destination: SocketAddr, own: SocketAddr) -> bool {
    let ports = worker.shared.settings.ports;
    let capture = [ports.outbound, ports.inbound];
    let local =
        destination.ip() == own.ip() || destination.ip().is_loopback() || destination.ip() == worker.shared.settings.ip;
    local && capture.contains(&destination.port())
}

/// The listener for an outbound destination: its own, its port's, else the one for everything unknown.
async fn outbound_listener(worker: &Worker, destination: SocketAddr) -> Option<Arc<Listener>> {
    let port = destination.port();
    let own = format!("{}_{port}", destination.ip());
    let any = match destination.ip() {
        IpAddr::V4(_) => format!("{}_{port}", Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => format!("{}_{port}", std::net::Ipv6Addr::UNSPECIFIED),
    };
    // All are asked for before the first is waited for.
    let _asked = (
        worker.view.lookup::<Listener>(&any),
        worker.view.lookup::<Listener>(OUTBOUND),
    );
    for name in [&own, &any] {
        match worker.view.resolve::<Listener>(name).await {
            Lookup::Present(listener) => return Some(listener),
            // Without an answer a service's policy is unknown: better no connection than a wrong one.
            Lookup::Requested => return None,
            Lookup::Absent => {}
        }
    }
    worker.view.resolve::<Listener>(OUTBOUND).await.present()
}

async fn enter(
    worker: &Rc<Worker>,
    socket: TcpStream,
    remote: SocketAddr,
    entrance: Entrance,
    destination: SocketAddr,
) -> io::Result<Entered> {
    let (listener, direction) = match entrance {
        Entrance::Gateway(listener) => (Some(listener), Direction::Unspecified),
        Entrance::Inbound => (
            worker.view.resolve::<Listener>(INBOUND).await.present(),
            Direction::Inbound,
        ),
        Entrance::Outbound => (outbound_listener(worker, destination).await, Direction::Outbound),
    };
    let Some(listener) = listener else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no listener for this connection",
        ));
    };
    let listener = &*listener;
    let mut conn = Conn::from(socket);
    let mut input = Input::none();
    let needs = chain::needs(listener, destination);
    let (facts, hello) = if needs.tls || needs.http {
        let wait = Some(listener.inspect_timeout).filter(|wait| !wait.is_zero());
        match inspect(&mut conn, &mut input, needs, wait).await? {
            Some(found) => found,
            None if listener.continue_after_inspect_timeout => (Facts::unknown(), None),
            None => return Err(io::ErrorKind::TimedOut.into()),
        }
    } else {
        (Facts::unknown(), None)
    };
    let protocols: Vec<&[u8]> = facts.protocols.iter().map(Vec::as_slice).collect();
    let chosen = chain::select(
        listener,
        &ConnectionFacts {
            destination,
            source: remote.ip(),
            transport: facts.transport,
            server_name: facts.server_name.as_deref(),
            protocols: &protocols,
        },
    );
    let Some(chain) = chosen else {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "no filter chain takes this connection",
        ));
    };
    let conn = match &chain.transport {
        ChainTransport::Raw => conn,
        ChainTransport::Tls(tls) => {
            let terminated = terminate(worker, tls, conn, &mut input, hello, &facts.protocols);
            tokio::time::timeout(HANDSHAKE, terminated)
                .await
                .map_err(|_| io::ErrorKind::TimedOut)??
        }
    };
    Ok(Entered {
        chain: chain.clone(),
        conn,
        input,
        seen: facts.seen,
        direction,
    })
}

/// Reads first bytes until they say enough; `None`: they did not come in time.
async fn inspect(
    conn: &mut Conn,
    input: &mut Input,
    needs: chain::Needs,
    wait: Option<Duration>,
) -> io::Result<Option<(Facts, Option<Accepted>)>> {
    let mut timer = Timer::new();
    timer.set(wait.map(|wait| Instant::now() + wait));
    let mut hello: Option<HelloReader> = None;
    loop {
        let filled = poll_fn(|cx| match conn.poll_fill(cx, input, detect::HELLO_LIMIT + SIZE) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if timer.poll_expired(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        let Some(count) = filled else {
            // A client that began but did not go on is cut off; one that waits for the server is let through.
            return if input.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::TimedOut.into())
            };
        };
        if count? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match detect::look(input.filled(), needs.tls, needs.http) {
            Seen::More => {}
            Seen::Tls => {
                if let Some(accepted) = hello.get_or_insert_with(HelloReader::default).read(input.filled())? {
                    let facts = Facts::hello(&accepted);
                    return Ok(Some((facts, Some(accepted))));
                }
            }
            seen => return Ok(Some((Facts::plain(seen), None))),
        }
    }
}

/// Ends TLS with our own certificate.
async fn terminate(
    worker: &Worker,
    tls: &DownstreamTls,
    conn: Conn,
    input: &mut Input,
    hello: Option<Accepted>,
    offered: &[Vec<u8>],
) -> io::Result<Conn> {
    let own = matches!(&tls.certificate, Certificate::Secret(name) if &**name == OWN_SECRET);
    if !own {
        return Err(io::Error::other("this certificate cannot be served"));
    }
    let Some(svid) = worker.shared.svids.current() else {
        return Err(io::Error::other("this workload has no certificate yet"));
    };
    let Some(hello) = hello else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let alpn = detect::negotiate(tls.alpn.iter().map(|name| &**name), offered);
    let config = svid
        .server_config(ServerKind {
            mutual: tls.is_mutual(),
            alpn,
        })
        .map_err(io::Error::other)?;
    let session = hello
        .into_connection(config)
        .map_err(|(error, _alert)| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let fed = input.len();
    input.consume(fed);
    input.release();
    let socket = conn.into_plain().ok_or(io::ErrorKind::InvalidInput)?;
    let conn = Conn::handshake(socket, session.into()).await?;
    if let (true, Some(peer)) = (tls.is_mutual(), &conn.peer) {
        let sans = tls
            .validation
            .as_ref()
            .map(|validation| &*validation.sans)
            .unwrap_or_default();
        let names = mizzen_decide::naming::PeerNames {
            uris: &[&peer.spiffe],
            ..Default::default()
        };
        if !mizzen_decide::naming::allowed(sans, &names) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the client's identity is not allowed here",
            ));
        }
    } else if tls.is_mutual() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the client's certificate has no SPIFFE id",
        ));
    }
    Ok(conn)
}

/// Which HTTP is spoken, as far as it is known.
fn http_version(http: &HttpConnection, conn: &Conn, seen: Seen) -> Seen {
    match http.codec {
        Codec::Http1 => Seen::Http1,
        Codec::Http2 => Seen::Http2,
        Codec::Auto if conn.alpn.is_h2() => Seen::Http2,
        Codec::Auto if conn.alpn.is_http1() => Seen::Http1,
        Codec::Auto if conn.alpn == Alpn::None && matches!(seen, Seen::Http1 | Seen::Http2) => seen,
        Codec::Auto => Seen::More,
    }
}

async fn on_http(
    worker: &Rc<Worker>,
    http: &Arc<HttpConnection>,
    mut conn: Conn,
    mut input: Input,
    mut found: Seen,
    (direction, remote, destination): (Direction, SocketAddr, SocketAddr),
) {
    let info = Info::new(worker.clone(), http.clone(), direction, remote, destination, &conn);
    let mut timer = Timer::new();
    while found == Seen::More {
        found = detect::look(input.filled(), false, true);
        if found != Seen::More {
            break;
        }
        timer.set(Some(
            Instant::now() + http.idle_timeout.unwrap_or(Duration::from_secs(60)),
        ));
        let filled = poll_fn(|cx| match conn.poll_fill(cx, &mut input, SIZE) {
            Poll::Ready(result) => Poll::Ready(result.ok()),
            Poll::Pending if timer.poll_expired(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        if filled.is_none_or(|count| count == 0) {
            return;
        }
    }
    drop(timer);
    if found == Seen::Http2 {
        http2::serve(info, conn, input).await;
    } else {
        // What is not HTTP at all is told so by the codec.
        http1::serve(&info, conn, input).await;
    }
}
