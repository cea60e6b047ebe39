#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use mizzen_proxy_config::{
    BreakerLimits, Certificate, Discovery, Kind, LbPolicy, Roots, SanMatch, SecretName, StringMatch, StringTest,
    TlsVersion, UpstreamProtocol, UpstreamTls, Validation,
};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::mesh::{Answer, Source};
use crate::settings::{ProxyArgs, Role, Settings};
use crate::svid::{Svid, SvidStore};
use crate::testing::Ca;
use crate::tls::{Alpn, ServerKind};

const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";

#[derive(Debug)]
struct Nothing(watch::Sender<u64>);

impl Source for Nothing {
    fn ask(&self, _kind: Kind, _name: &str) -> Answer {
        Answer::Absent
    }

    fn all(&self, _kind: Kind) -> Vec<mizzen_proxy_config::Resource> {
        Vec::new()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// Runs `test` on a worker whose identity `ca` issued.
fn on_worker<F: Future<Output = ()>>(ca: &Ca, test: impl FnOnce(Rc<Worker>) -> F) {
    let args = ProxyArgs {
        role: Role::Sidecar,
        domain: String::new(),
        proxy_log_level: String::new(),
        proxy_component_log_level: String::new(),
        log_output_level: String::new(),
        concurrency: Some(1),
    };
    let variable = |name: &str| match name {
        "POD_NAME" => Some("client-1".to_owned()),
        "POD_NAMESPACE" => Some("shop".to_owned()),
        _ => None,
    };
    let svids = SvidStore::new();
    svids.publish(ca.svid("spiffe://cluster.local/ns/shop/sa/client"));
    let source = Arc::new(Nothing(watch::channel(1).0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let (shared, _phase) = crate::run::shared(Settings::read(args, &variable).unwrap(), svids, source).unwrap();
        test(Worker::start(shared)).await;
    });
}

fn target(address: SocketAddr, speaks: Speaks, socket: TransportSocket) -> Target {
    let cluster = Cluster {
        name: ClusterName::new("outbound|80||server"),
        discovery: Discovery::OriginalDst { port: None },
        lb: LbPolicy::OriginalDst,
        connect_timeout: Duration::from_secs(5),
        breaker: BreakerLimits::default(),
        breaker_high: BreakerLimits::default(),
        outlier: None,
        panic_percent: 0,
        locality_weighted: false,
        protocol: UpstreamProtocol::Http1,
        sni_from_authority: false,
        san_from_authority: false,
        max_requests_per_connection: None,
        idle_timeout: None,
        tcp_keepalive: None,
        sockets: Box::default(),
        socket: socket.clone(),
        bind: None,
        service: None,
        subset: Arc::from(""),
    };
    Target {
        cluster: Arc::new(cluster),
        address,
        socket,
        speaks,
        workload: None,
        reporter: Reporter::Source,
    }
}

fn mutual_tls() -> TransportSocket {
    TransportSocket::Tls(Arc::new(UpstreamTls {
        sni: Some(Arc::from("server.shop")),
        sni_from_authority: false,
        alpn: Box::default(),
        certificate: Some(Certificate::Secret(SecretName::new("default"))),
        validation: Some(Validation {
            roots: Roots::Secret(SecretName::new("ROOTCA")),
            sans: Box::new([SanMatch::Uri(StringMatch {
                test: StringTest::Exact(Arc::from(SERVER)),
                ignore_case: false,
            })]),
        }),
        min_version: TlsVersion::V1_2,
    }))
}

/// Listens and counts connections; `serve` gets each with its number.
async fn listen<F>(serve: impl Fn(TcpStream, usize) -> F + 'static) -> (SocketAddr, Rc<AtomicUsize>)
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Rc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::task::spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            tokio::task::spawn_local(serve(socket, number));
        }
    });
    (address, count)
}

/// Holds a connection until the peer closes it.
async fn hold(mut socket: TcpStream) {
    while socket.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
}

/// Does the server's part of mutual TLS, then holds the connection.
async fn hold_tls(socket: TcpStream, svid: Arc<Svid>) {
    let kind = ServerKind {
        mutual: true,
        alpn: Alpn::MeshHttp1,
    };
    let session = rustls::ServerConnection::new(svid.server_config(kind).unwrap()).unwrap();
    let mut conn = Conn::handshake(socket, session.into()).await.unwrap();
    let _end = conn.readable().await;
}

fn spawn_all<T: 'static, F: Future<Output = T> + 'static>(
    count: usize,
    one: impl Fn() -> F,
) -> Vec<tokio::task::JoinHandle<T>> {
    (0..count).map(|_| tokio::task::spawn_local(one())).collect()
}

// C2
#[test]
fn burst_over_http2_dials_once() {
    on_worker(&Ca::new("root"), async |worker| {
        let (address, count) = listen(|socket, _| async {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_response(http::Response::new(()), true).unwrap();
            }
        })
        .await;
        let target = target(address, Speaks::Http2, TransportSocket::Raw);
        let tasks = spawn_all(40, || {
            let (worker, target) = (worker.clone(), target.clone());
            async move { acquire(&worker, &target).await.map(|upstream| upstream.requests) }
        });
        let mut streams = Vec::new();
        for task in tasks {
            streams.push(task.await.unwrap().unwrap());
        }
        streams.sort_unstable();
        assert_eq!(streams, (0..40).collect::<Vec<_>>());
        assert_eq!(count.load(Ordering::SeqCst), 1);
    });
}

// C2
#[test]
fn end_of_an_old_http2_connection_leaves_its_successor_alone() {
    on_worker(&Ca::new("root"), async |worker| {
        let (ended, _) = watch::channel(false);
        let end = ended.subscribe();
        let (address, count) = listen(move |socket, number| {
            let mut end = end.clone();
            async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                if number > 0 {
                    while connection.accept().await.is_some() {}
                    return;
                }
                // The first says that it is going while it still carries a stream, and goes when told.
                let _open = connection.accept().await.unwrap().unwrap();
                connection.graceful_shutdown();
                tokio::select! {
                    _ = async { while connection.accept().await.is_some() {} std::future::pending::<()>().await } => {}
                    _ = end.wait_for(|end| *end) => {}
                }
            }
        })
        .await;
        let target = target(address, Speaks::Http2, TransportSocket::Raw);
        let mut old = acquire(&worker, &target).await.unwrap();
        old.conn.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _new = acquire(&worker, &target).await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 2, "the first was going away");
        ended.send_replace(true);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _more = acquire(&worker, &target).await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 2, "the second is used on");
        drop(old);
    });
}

#[test]
fn peer_that_ends_http2_connections_at_once_is_not_dialled_for_ever() {
    on_worker(&Ca::new("root"), async |worker| {
        let (address, count) = listen(|socket, _| async { drop(socket) }).await;
        let target = target(address, Speaks::Http2, TransportSocket::Raw);
        // Whether a connection's end is seen before a stream is taken on it is a matter of timing; the number of dials is not.
        let _any = acquire(&worker, &target).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(count.load(Ordering::SeqCst) <= 4, "{count:?}");
    });
}

#[test]
fn who_waits_gets_the_connection_that_another_is_done_with() {
    let ca = Ca::new("root");
    let svid = Arc::new(ca.svid(SERVER));
    on_worker(&ca, async |worker| {
        // Only the first handshake ever ends.
        let (address, count) = listen(move |socket, number| {
            let svid = svid.clone();
            async move {
                if number == 0 {
                    hold_tls(socket, svid).await;
                } else {
                    hold(socket).await;
                }
            }
        })
        .await;
        let target = target(address, Speaks::Http1, mutual_tls());
        let tasks = spawn_all(300, || {
            let (worker, target) = (worker.clone(), target.clone());
            async move {
                let upstream = acquire(&worker, &target).await?;
                tokio::task::yield_now().await;
                release(&worker, upstream, None);
                Ok::<_, ConnectError>(())
            }
        });
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        let dialled = count.load(Ordering::SeqCst);
        // Sixteen at once, and one in the place of the one that ended.
        assert!(dialled <= 17, "{dialled} handshakes for a burst of 300");
    });
}

#[test]
fn connection_handed_to_who_has_just_left_goes_to_the_next() {
    on_worker(&Ca::new("root"), async |worker| {
        let (address, _) = listen(|socket, _| hold(socket)).await;
        let target = target(address, Speaks::Http1, TransportSocket::Raw);
        let first = acquire(&worker, &target).await.unwrap();
        // Its dial will need the loop to turn; the hand-over comes first.
        let mut leaving = Box::pin(acquire(&worker, &target));
        assert!(futures::poll!(&mut leaving).is_pending());
        let mut next = Box::pin(acquire(&worker, &target));
        assert!(futures::poll!(&mut next).is_pending());
        let local = first.local;
        release(&worker, first, None);
        drop(leaving);
        assert_eq!(next.await.unwrap().local, local);
    });
}

#[test]
fn dial_goes_on_without_the_request_that_caused_it() {
    on_worker(&Ca::new("root"), async |worker| {
        let (address, count) = listen(|socket, _| hold(socket)).await;
        let target = target(address, Speaks::Http1, TransportSocket::Raw);
        let mut leaving = Box::pin(acquire(&worker, &target));
        assert!(futures::poll!(&mut leaving).is_pending());
        drop(leaving);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let kept = take_idle(&worker, &target).expect("it is idle now");
        assert!(!kept.is_reused() && kept.may_be_stale());
        assert_eq!(count.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn each_of_many_hears_that_nobody_listens() {
    on_worker(&Ca::new("root"), async |worker| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        for speaks in [Speaks::Http1, Speaks::Http2, Speaks::Tcp] {
            let target = target(address, speaks, TransportSocket::Raw);
            let tasks = spawn_all(200, || {
                let (worker, target) = (worker.clone(), target.clone());
                async move { fresh(&worker, &target).await.map(drop) }
            });
            for task in tasks {
                let error = task.await.unwrap().unwrap_err();
                assert!(matches!(error, ConnectError::Failed(_)), "{error}");
            }
        }
    });
}

#[test]
fn waiting_ends_with_the_time_for_connecting() {
    on_worker(&Ca::new("root"), async |worker| {
        let (address, count) = listen(|socket, _| hold(socket)).await;
        let mut target = target(address, Speaks::Http1, mutual_tls());
        Arc::make_mut(&mut target.cluster).connect_timeout = Duration::from_millis(200);
        let begin = Instant::now();
        let tasks = spawn_all(100, || {
            let (worker, target) = (worker.clone(), target.clone());
            async move { acquire(&worker, &target).await.map(drop) }
        });
        for task in tasks {
            assert!(matches!(task.await.unwrap(), Err(ConnectError::Timeout)));
        }
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(
            count.load(Ordering::SeqCst) <= 16,
            "nothing is dialled for who has left: {count:?}"
        );
    });
}

#[test]
fn cluster_sent_again_unchanged_keeps_its_warm_connections() {
    let ca = Ca::new("root");
    let svid = Arc::new(ca.svid(SERVER));
    on_worker(&ca, async |worker| {
        let (address, count) = listen(move |socket, _| hold_tls(socket, svid.clone())).await;
        let before = target(address, Speaks::Http1, mutual_tls());
        let again = target(address, Speaks::Http1, mutual_tls());
        let upstream = acquire(&worker, &before).await.unwrap();
        release(&worker, upstream, None);
        let upstream = acquire(&worker, &again).await.unwrap();
        assert!(upstream.is_reused());
        release(&worker, upstream, None);
        let mut other = target(address, Speaks::Http1, mutual_tls());
        if let TransportSocket::Tls(tls) = &mut other.socket {
            Arc::make_mut(tls).sni = Some(Arc::from("other.shop"));
        }
        assert!(
            !acquire(&worker, &other).await.unwrap().is_reused(),
            "other settings, other connections"
        );
        assert_eq!(count.load(Ordering::SeqCst), 2);
    });
}
