//! The HTTPS server: accept, handshake, serve, drain.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The API server keeps few connections per webhook; more than this is not an API server.
const CONNECTIONS: usize = 1024;
/// Connections of one address: a single pod must not take all of them.
const CONNECTIONS_OF_ONE: usize = 256;
/// Whoever has not finished the handshake by then is not going to.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Who connects has something to ask; a connection without is not kept for anybody.
const FIRST: Duration = Duration::from_secs(10);
/// After so long without a request a connection is closed. API servers close theirs sooner (90 s), so that they are not
/// surprised by it.
const IDLE: Duration = Duration::from_secs(120);
/// How long a connection that was told to end may take for it.
const GOODBYE: Duration = Duration::from_secs(2);
/// Requests at a time on one connection.
const STREAMS: u32 = 64;
/// A request's head comes in one packet; slower ones hold connections for nothing.
const HEAD: Duration = Duration::from_secs(10);

/// Serves until `stop`; then takes no more connections and lets requests end within `drain`.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    stop: CancellationToken,
    drain: Duration,
) {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let peers = Arc::new(Mutex::new(HashMap::new()));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener) => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Some((tcp, peer)) = accepted else { continue };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            tracing::warn!(limit = CONNECTIONS, "too many webhook connections: one is turned away");
            continue;
        };
        let Some(seat) = Seat::take(&peers, peer.ip(), CONNECTIONS_OF_ONE) else {
            tracing::warn!(peer = %peer.ip(), limit = CONNECTIONS_OF_ONE, "too many webhook connections of one address: one is turned away");
            continue;
        };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            let (_permit, _seat) = (permit, seat);
            match timeout(HANDSHAKE, acceptor.accept(tcp)).await {
                Ok(Ok(tls)) => connection(tls, router, &stop, (FIRST, IDLE)).await,
                Ok(Err(error)) => tracing::debug!(%error, "webhook handshake failed"),
                Err(_) => tracing::debug!("webhook handshake took too long"),
            }
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(drain, ended).await.is_err() {
        tracing::warn!("webhook connections did not end in time and are cut");
    }
}

/// Serves one connection until its peer ends it, nothing was asked for too long, or `stop`.
async fn connection<S>(stream: S, router: Router, stop: &CancellationToken, limits: (Duration, Duration))
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let under_way = Arc::new(watch::Sender::new(0_usize));
    let mut changes = under_way.subscribe();
    let service = tower::service_fn(move |request: axum::http::Request<hyper::body::Incoming>| {
        let counted = Counted::new(under_way.clone());
        let router = router.clone();
        async move {
            let response = router.oneshot(request.map(Body::new)).await;
            drop(counted);
            response
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = idle(&mut changes, limits) => None,
        () = stop.cancelled() => {
            // The drain's limit counts, not that of a goodbye: requests may be under way.
            connection.as_mut().graceful_shutdown();
            Some(connection.as_mut().await)
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match timeout(GOODBYE, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("idle webhook connection cut"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "webhook connection ended");
    }
}

type Peers = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One connection of an address, for as long as this lives.
struct Seat {
    peers: Peers,
    address: IpAddr,
}

impl Seat {
    fn take(peers: &Peers, address: IpAddr, limit: usize) -> Option<Self> {
        let mut held = peers.lock();
        let count = held.entry(address).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Self {
            peers: peers.clone(),
            address,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.peers.lock();
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// One request under way, for as long as this lives.
struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    fn new(under_way: Arc<watch::Sender<usize>>) -> Self {
        under_way.send_modify(|count| *count += 1);
        Self(under_way)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Returns when no request was under way for too long: `first` from the beginning, `later` after each.
async fn idle(under_way: &mut watch::Receiver<usize>, (first, later): (Duration, Duration)) {
    let mut limit = first;
    loop {
        let count = *under_way.borrow_and_update();
        let changed = if count > 0 {
            under_way.changed().await
        } else {
            match timeout(limit, under_way.changed()).await {
                Ok(changed) => changed,
                Err(_) => return,
            }
        };
        if changed.is_err() {
            // The service is gone, and the connection with it.
            return;
        }
        limit = later;
    }
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok((tcp, peer)) => {
            // Answers are one small write each: waiting for more would only delay them.
            let _ = tcp.set_nodelay(true);
            Some((tcp, peer))
        }
        Err(error) => {
            // Out of file descriptors, mostly: give others time to end.
            tracing::warn!(%error, "webhook connection not accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    async fn serve(limits: (Duration, Duration)) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
        let router = Router::new().route("/", get(|| async { "fine" })).route(
            "/slow",
            get(|| async {
                tokio::time::sleep(SHORT * 4).await;
                "slow"
            }),
        );
        let (client, server) = tokio::io::duplex(1024);
        let task = tokio::spawn(async move { connection(server, router, &CancellationToken::new(), limits).await });
        (client, task)
    }

    async fn ended(task: tokio::task::JoinHandle<()>) {
        timeout(Duration::from_secs(9), task).await.unwrap().unwrap();
    }

    // B7
    #[tokio::test]
    async fn whoever_asks_nothing_is_not_kept() {
        let (_client, task) = serve((SHORT, LONG)).await;
        ended(task).await;
        // The preface of HTTP/2 and nothing after it is nothing asked, too.
        let (mut client, task) = serve((SHORT, LONG)).await;
        client
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        ended(task).await;
    }

    // B7
    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let peers = Peers::default();
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let held: Vec<_> = (0..2).filter_map(|_| Seat::take(&peers, one, 2)).collect();
        assert_eq!(held.len(), 2);
        assert!(Seat::take(&peers, one, 2).is_none());
        assert!(Seat::take(&peers, other, 2).is_some());
        drop(held);
        assert!(peers.lock().is_empty());
        assert!(Seat::take(&peers, one, 2).is_some());
    }

    // B7
    #[tokio::test]
    async fn a_request_under_way_is_not_idle_and_what_follows_it_is() {
        let (mut client, task) = serve((SHORT, SHORT)).await;
        client
            .write_all(b"GET /slow HTTP/1.1\r\nhost: h\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        timeout(LONG, client.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.ends_with("slow"), "{answer}");
        ended(task).await;
    }
}
