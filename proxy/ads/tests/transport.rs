//! The client over real connections: TLS, token, reconnects.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly; the configured exception does not cover helpers of integration tests"
)]

use envoy_types::pb::envoy::config::cluster::v3 as cluster_pb;
use envoy_types::pb::google::protobuf::Duration as PbDuration;
use mizzen_ads::{Answer, Cache, Client, Node, Settings, Status};
use mizzen_proxy_config::{Kind, Resource as Checked};
use mizzen_xds::{
    Ads, Dirty, Mailbox, Metrics, Nack, Opened, Refused, Resource, ResourceSet, ResourceType, Source, StreamId, View,
};
use parking_lot::{Mutex, RwLock};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

/// One cluster `c`, whose connect timeout is its content.
struct One(i64);

impl View for One {
    fn resource(&self, kind: ResourceType, name: &str) -> Arc<Resource> {
        if kind != ResourceType::Cluster || name != "c" {
            return Arc::new(Resource::absent(name));
        }
        let cluster = cluster_pb::Cluster {
            name: name.to_owned(),
            connect_timeout: Some(PbDuration {
                seconds: self.0,
                nanos: 0,
            }),
            ..Default::default()
        };
        Arc::new(Resource::present(kind, name, &[], &cluster.encode_to_vec()))
    }

    fn wildcard(&self, _: ResourceType) -> Arc<ResourceSet> {
        Arc::default()
    }
}

struct Discovery {
    content: Mutex<i64>,
    mailboxes: Mutex<Vec<Arc<Mailbox>>>,
    nodes: Mutex<Vec<String>>,
    nacks: Mutex<Vec<String>>,
    states: watch::Sender<u64>,
    gate: Arc<RwLock<()>>,
}

impl Discovery {
    fn new(content: i64) -> Arc<Self> {
        Arc::new(Self {
            content: Mutex::new(content),
            mailboxes: Mutex::default(),
            nodes: Mutex::default(),
            nacks: Mutex::default(),
            states: watch::channel(0).0,
            gate: Arc::default(),
        })
    }

    fn set(&self, content: i64) {
        *self.content.lock() = content;
        let mut dirty = Dirty::new();
        dirty.mark(ResourceType::Cluster, "c".into());
        for mailbox in &*self.mailboxes.lock() {
            mailbox.publish(Arc::new(One(content)), &dirty, Instant::now());
        }
    }
}

impl Source for Discovery {
    fn gate(&self) -> Arc<RwLock<()>> {
        Arc::clone(&self.gate)
    }

    fn states(&self) -> watch::Receiver<u64> {
        self.states.subscribe()
    }

    fn open(
        &self,
        _: StreamId,
        _: &tonic::Extensions,
        node: &mizzen_xds::wire::Node,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Opened, Refused> {
        self.nodes.lock().push(node.id.clone());
        self.mailboxes.lock().push(Arc::clone(mailbox));
        Ok(Opened {
            view: Arc::new(One(*self.content.lock())),
            proxy: node.id.clone(),
            guard: Box::new(()),
        })
    }

    fn accepted(&self, _: StreamId, _: ResourceType, _: &[Arc<mizzen_xds::Resource>]) {}

    fn rejected(&self, _: StreamId, nack: &Nack) {
        self.nacks.lock().push(nack.message.clone());
    }

    fn recovered(&self, _: StreamId, _: ResourceType, _: &[Arc<str>]) {}
}

struct Files {
    _folder: tempfile::TempDir,
    roots: PathBuf,
    token: PathBuf,
    identity: Identity,
}

/// A mesh root, a server certificate for `istiod-basic.istio-system.svc`, and a token.
fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "mesh root");
    let ca_key = KeyPair::generate().unwrap();
    let root = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let mut server = CertificateParams::new(vec!["istiod-basic.istio-system.svc".to_owned()]).unwrap();
    server.distinguished_name.push(DnType::CommonName, "istiod");
    let server_key = KeyPair::generate().unwrap();
    let certificate = server.signed_by(&server_key, &issuer).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    Files {
        roots: write("root-cert.pem", &root.pem()),
        token: write("istio-token", "first\n"),
        identity: Identity::from_pem(certificate.pem(), server_key.serialize_pem()),
        _folder: folder,
    }
}

/// A discovery that listens: with a runtime of its own, so that it and all its connections go at once.
struct Serving {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Serves on `address` (port 0: any); every call passes `check`.
fn serve(
    discovery: &Arc<Discovery>,
    files: &Files,
    address: SocketAddr,
    check: impl Fn(&tonic::Request<()>) -> Result<(), tonic::Status> + Clone + Send + Sync + 'static,
) -> Serving {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let ads = Ads::new(Arc::clone(discovery) as _, mizzen_xds::Settings::default(), metrics());
    let checked = tonic::service::interceptor::InterceptedService::new(ads, move |request: tonic::Request<()>| {
        check(&request).map(|()| request)
    });
    let tls = ServerTlsConfig::new().identity(files.identity.clone());
    let inside = runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener: TcpListener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().tls_config(tls).unwrap().add_service(checked);
    runtime.spawn(async move {
        server
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    drop(inside);
    Serving {
        address,
        runtime: Some(runtime),
    }
}

type Tokens = Arc<Mutex<Vec<String>>>;

fn noting(tokens: &Tokens) -> impl Fn(&tonic::Request<()>) -> Result<(), tonic::Status> + Clone + use<> {
    let tokens = Arc::clone(tokens);
    move |request| {
        let token = request
            .metadata()
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        tokens.lock().push(token.unwrap_or_default());
        Ok(())
    }
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn metrics() -> Metrics {
    Metrics::register(&mut prometheus_client::registry::Registry::default())
}

fn settings(address: SocketAddr, roots: &Path, token: &Path) -> Settings {
    let node = Node {
        id: "sidecar~10.0.0.1~pod.ns~ns.svc.cluster.local".to_owned(),
        on_demand: true,
        ..Node::default()
    };
    Settings {
        server_name: Some("istiod-basic.istio-system.svc".to_owned()),
        token: Some(token.to_owned()),
        backoff: mizzen_ads::Backoff::new(Duration::from_millis(5), Duration::from_millis(50)),
        ..Settings::new(format!("https://{address}"), roots, node)
    }
}

fn content(answer: &Answer) -> Option<u64> {
    match answer {
        Answer::Present(Checked::Cluster(cluster)) => Some(cluster.connect_timeout.as_secs()),
        _ => None,
    }
}

async fn until(cache: &Cache, wanted: u64) {
    let mut changes = cache.changes();
    let reached = async {
        while content(&cache.ask(Kind::Cluster, "c")) != Some(wanted) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached)
        .await
        .expect("the change arrives");
}

async fn status_where(status: &mut watch::Receiver<Status>, test: impl FnMut(&Status) -> bool) -> Status {
    tokio::time::timeout(Duration::from_secs(20), status.wait_for(test))
        .await
        .unwrap()
        .unwrap()
        .clone()
}

// G1, E7
#[tokio::test]
async fn resources_arrive_change_are_refused_and_survive_discovery() {
    let (files, discovery, tokens) = (files(), Discovery::new(1), Tokens::default());
    let server = serve(&discovery, &files, ANY, noting(&tokens));
    let address = server.address;
    let cache = Arc::new(Cache::default());
    let client = Client::new(settings(address, &files.roots, &files.token), Arc::clone(&cache));
    let mut status = client.status();
    let running = tokio::spawn(client.run());

    until(&cache, 1).await;
    assert_eq!(cache.answered(Kind::Cluster, "nobody").await, Answer::Absent);
    discovery.set(2);
    until(&cache, 2).await;
    discovery.set(-1);
    status_where(&mut status, |status| status.rejected == 1).await;
    assert_eq!(content(&cache.ask(Kind::Cluster, "c")), Some(2));
    while discovery.nacks.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(
        discovery.nacks.lock()[0].starts_with("c: cluster.connect_timeout: -1s"),
        "{:?}",
        discovery.nacks.lock()
    );

    // Discovery goes, and with it its connections; what is known stays.
    drop(server);
    discovery.mailboxes.lock().clear();
    let away = status_where(&mut status, |status| !status.connected).await;
    assert!(away.last_error.is_some());
    assert_eq!(content(&cache.ask(Kind::Cluster, "c")), Some(2));

    // It comes back with something new, and the token has been renewed meanwhile.
    std::fs::write(&files.token, "second\n").unwrap();
    *discovery.content.lock() = 3;
    let _server = serve(&discovery, &files, address, noting(&tokens));
    until(&cache, 3).await;
    let tokens = tokens.lock().clone();
    assert_eq!(tokens.first().map(String::as_str), Some("Bearer first"));
    assert_eq!(tokens.last().map(String::as_str), Some("Bearer second"));
    assert!(
        discovery
            .nodes
            .lock()
            .iter()
            .all(|node| node.starts_with("sidecar~10.0.0.1~pod.ns"))
    );
    running.abort();
}

// E7
#[tokio::test]
async fn a_server_that_does_not_prove_its_name_gets_no_token() {
    let (files, other, discovery) = (files(), self::files(), Discovery::new(1));
    let tokens = Tokens::default();
    let server = serve(&discovery, &files, ANY, noting(&tokens));
    let address = server.address;
    let wrong_name = Settings {
        server_name: Some("istiod-other.istio-system.svc".to_owned()),
        ..settings(address, &files.roots, &files.token)
    };
    let wrong_root = settings(address, &other.roots, &files.token);
    let no_roots = settings(address, Path::new("/does/not/exist"), &files.token);
    let no_token = settings(address, &files.roots, Path::new("/does/not/exist"));
    for (settings, words) in [
        (wrong_name, "certificate"),
        (wrong_root, "certificate"),
        (no_roots, "mounted"),
        (no_token, "mounted"),
    ] {
        let cache = Arc::new(Cache::default());
        cache.pin(Kind::Cluster, "c");
        let client = Client::new(settings, Arc::clone(&cache));
        let mut status = client.status();
        let running = tokio::spawn(client.run());
        let failed = status_where(&mut status, |status| status.last_error.is_some()).await;
        let error = failed.last_error.unwrap();
        assert!(error.contains(words), "{error}");
        assert_eq!(cache.peek(Kind::Cluster, "c"), Some(Answer::Requested));
        running.abort();
    }
    assert!(tokens.lock().is_empty());
}

// E7
#[tokio::test]
async fn a_refused_caller_is_told_why_and_tries_again() {
    let (files, discovery) = (files(), Discovery::new(1));
    let server = serve(&discovery, &files, ANY, |_| {
        Err(tonic::Status::unauthenticated("token expired"))
    });
    let client = Client::new(
        settings(server.address, &files.roots, &files.token),
        Arc::new(Cache::default()),
    );
    let mut status = client.status();
    let running = tokio::spawn(client.run());
    let failed = status_where(&mut status, |status| status.last_error.is_some()).await;
    let error = failed.last_error.unwrap();
    assert!(
        error.contains("Unauthenticated") && error.contains("token expired"),
        "{error}"
    );
    running.abort();
}
