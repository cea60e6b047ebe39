//! A mesh on loopback for tests: Kubernetes objects through the real index and translation, proxies of this crate, and
//! plain applications. A pod has two loopback addresses: the one that its endpoints have (where its proxy accepts for
//! it) and the one its application listens on; redirection is played by telling the proxy the original destination.
#![allow(unreachable_pub, reason = "a module of test binaries")]
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mizzen_index::{Event, Index, Object, Settings as IndexSettings};
use mizzen_model::{MeshConfig, Namespace, ServiceAccount, SpiffeId, TrustDomain};
use mizzen_proxy::capture::{self, Entrance};
use mizzen_proxy::mesh::{Answer, Source};
use mizzen_proxy::settings::{ProxyArgs, Settings};
use mizzen_proxy::svid::SvidStore;
use mizzen_proxy::testing::Ca;
use mizzen_proxy::worker::{Phase, Shared, Worker};
use mizzen_proxy_config::{Kind, Protocol, Resource};
use mizzen_translate::{NodeKind, Scope, TypeUrl};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub const SPACE: &str = "shop";

/// Every request body, header and connection that the applications of a world saw.
pub type Heard = Arc<Mutex<Vec<String>>>;

pub struct World {
    index: Mutex<Index>,
    ca: Ca,
    generation: watch::Sender<u64>,
    /// Idle timeout of HTTP connections, where a test wants another than discovery says.
    pub idle: Mutex<Option<std::time::Duration>>,
}

fn object(json: &Value) -> Object {
    let typed = |json: &Value| -> Option<Object> {
        Some(match json["kind"].as_str()? {
            "Namespace" => Object::Namespace(serde_json::from_value(json.clone()).unwrap()),
            "Service" => Object::Service(serde_json::from_value(json.clone()).unwrap()),
            "Pod" => Object::Pod(serde_json::from_value(json.clone()).unwrap()),
            "EndpointSlice" => Object::EndpointSlice(serde_json::from_value(json.clone()).unwrap()),
            _ => return None,
        })
    };
    typed(json).unwrap_or_else(|| Object::from_json(json.clone()).unwrap())
}

impl World {
    pub fn new(objects: &[Value]) -> Arc<Self> {
        let domain = TrustDomain::new("cluster.local").unwrap();
        let config = MeshConfig::new(Namespace::new("istio-system").unwrap(), domain);
        let mut index = Index::new(IndexSettings::new(config));
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}});
        index.apply_all(
            std::iter::once(&space)
                .chain(objects)
                .map(|json| Event::Apply(object(json))),
        );
        let (generation, _) = watch::channel(1);
        Arc::new(Self {
            index: Mutex::new(index),
            ca: Ca::new("mesh-root"),
            generation,
            idle: Mutex::default(),
        })
    }

    pub fn apply(&self, json: &Value) {
        self.index.lock().apply_all([Event::Apply(object(json))]);
        self.generation.send_modify(|generation| *generation += 1);
    }

    pub fn svid(&self, account: &str) -> mizzen_proxy::svid::Svid {
        self.ca.svid(&format!("spiffe://cluster.local/ns/{SPACE}/sa/{account}"))
    }

    pub fn source(self: &Arc<Self>, pod: &str, account: &str) -> Arc<dyn Source> {
        Arc::new(Discovery {
            world: self.clone(),
            pod: pod.to_owned(),
            account: account.to_owned(),
        })
    }
}

/// Discovery without a wire: the real translation behind the proxy's own interface.
struct Discovery {
    world: Arc<World>,
    pod: String,
    account: String,
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Discovery({})", self.pod)
    }
}

impl Source for Discovery {
    fn ask(&self, kind: Kind, name: &str) -> Answer {
        let mesh = self.world.index.lock().snapshot();
        let workload = mesh
            .workloads()
            .find(|w| w.key.name.as_str() == self.pod)
            .expect("pod exists");
        let identity = SpiffeId::new(
            TrustDomain::new("cluster.local").unwrap(),
            Namespace::new(SPACE).unwrap(),
            ServiceAccount::new(&self.account).unwrap(),
        );
        let scope = Scope::new(&identity, workload, NodeKind::Sidecar, true).unwrap();
        let url = match kind {
            Kind::Cluster => TypeUrl::Cluster,
            Kind::Endpoints => TypeUrl::Endpoints,
            Kind::Listener => TypeUrl::Listener,
            Kind::RouteConfig => TypeUrl::Route,
            Kind::VirtualHost => TypeUrl::VirtualHost,
        };
        let Some(sent) = mizzen_translate::resource(&mesh, &scope, url, name) else {
            return Answer::Absent;
        };
        let outcome = Resource::decode(kind, &sent.body);
        assert!(outcome.problems.is_empty(), "{kind} {name}: {}", outcome.problems);
        let mut resource = outcome.value.unwrap();
        if let (Resource::Listener(listener), Some(idle)) = (&mut resource, *self.world.idle.lock()) {
            let listener = Arc::make_mut(listener);
            for chain in listener.chains.iter_mut().chain(&mut listener.default_chain) {
                if let Protocol::Http(http) = &mut Arc::make_mut(chain).protocol {
                    Arc::make_mut(http).idle_timeout = Some(idle);
                }
            }
        }
        Answer::Present(resource)
    }

    fn all(&self, _kind: Kind) -> Vec<Resource> {
        Vec::new()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.world.generation.subscribe()
    }
}

pub fn service(name: &str, ip: &str, port_name: &str, port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": SPACE, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name},
            "ports": [{"name": port_name, "port": port, "targetPort": port, "protocol": "TCP"}]}})
}

pub fn pod(name: &str, app: &str, version: &str, ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE, "uid": name,
            "labels": {"app": app, "version": version, "security.istio.io/tlsMode": "istio"},
            "annotations": {"sidecar.istio.io/status": "{}"}},
        "spec": {"serviceAccountName": app, "nodeName": "node-a",
            "containers": [{"name": "app", "image": "x"}, {"name": "istio-proxy", "image": "y"}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}]}})
}

pub fn slice(service: &str, port_name: &str, port: u16, pods: &[(&str, &str)]) -> Value {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(pod, ip)| {
            json!({"addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "name": pod, "namespace": SPACE}, "nodeName": "node-a"})
        })
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-1"), "namespace": SPACE, "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints, "ports": [{"name": port_name, "port": port, "protocol": "TCP"}]})
}

pub fn peer_authentication(mode: &str) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": SPACE}, "spec": {"mtls": {"mode": mode}}})
}

/// A running proxy; ends when dropped.
pub struct Proxy {
    pub shared: Arc<Shared>,
    pub phase: watch::Sender<Phase>,
    pub address: SocketAddr,
    pub svids: SvidStore,
}

impl Proxy {
    /// The outbound side of `pod`'s sidecar: connections to its address count as made to `destination`.
    pub fn outbound(world: &Arc<World>, pod: &str, account: &str, destination: &str) -> Self {
        Self::start(world, pod, account, "127.0.0.1:0", Entrance::Outbound, destination)
    }

    /// The inbound side of `pod`'s sidecar at its endpoint's address; its application listens at `application`.
    pub fn inbound(world: &Arc<World>, pod: &str, account: &str, at: &str, application: &str) -> Self {
        Self::start(world, pod, account, at, Entrance::Inbound, application)
    }

    fn start(world: &Arc<World>, pod: &str, account: &str, at: &str, entrance: Entrance, destination: &str) -> Self {
        let destination: SocketAddr = destination.parse().unwrap();
        let args = ProxyArgs {
            role: mizzen_proxy::settings::Role::Sidecar,
            domain: String::new(),
            proxy_log_level: String::new(),
            proxy_component_log_level: String::new(),
            log_output_level: String::new(),
            concurrency: Some(1),
        };
        let name = pod.to_owned();
        let variable = move |variable: &str| match variable {
            "POD_NAME" => Some(name.clone()),
            "POD_NAMESPACE" => Some(SPACE.to_owned()),
            "ISTIO_META_WORKLOAD_NAME" => Some(name.rsplit_once('-').map_or(name.clone(), |(w, _)| w.to_owned())),
            _ => None,
        };
        let settings = Settings::read(args, &variable).unwrap();
        let svids = SvidStore::new();
        svids.publish(world.svid(account));
        let (shared, phase) = mizzen_proxy::run::shared(settings, svids.clone(), world.source(pod, account)).unwrap();
        let listener = std::net::TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let for_thread = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
                .unwrap();
            runtime.block_on(async move {
                let mut ended = for_thread.phase.clone();
                let worker = Worker::start(for_thread);
                let listener = TcpListener::from_std(listener).unwrap();
                let accepting = async {
                    loop {
                        let (socket, remote) = listener.accept().await.unwrap();
                        let serve = capture::serve_to(worker.clone(), socket, remote, entrance.clone(), destination);
                        tokio::task::spawn_local(serve);
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    _ = ended.wait_for(|phase| *phase == Phase::Ended) => {}
                }
            });
        });
        Self {
            shared,
            phase,
            address,
            svids,
        }
    }

    /// The metrics once they say that `count` requests were served: a request is counted after its answer was sent.
    pub async fn metrics(&self, count: u64) -> String {
        for _ in 0..200 {
            let mut text = String::new();
            self.shared.telemetry.render(&mut text);
            let lines = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
            let served: u64 = lines
                .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
                .sum();
            if served >= count {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{count} requests are never counted");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Ended);
    }
}

/// A plain HTTP/1.1 application: answers every request with what `answer` makes of its head and body, bytes as they are.
pub async fn application(at: &str, answer: impl Fn(&str, &[u8]) -> Reply + Send + Sync + 'static) -> Heard {
    let listener = TcpListener::bind(at).await.unwrap();
    let heard = Heard::default();
    let (answer, told) = (Arc::new(answer), heard.clone());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (answer, told) = (answer.clone(), told.clone());
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while let Some((head, body)) = read_message(&mut socket, &mut buffer).await {
                    told.lock().push(head.clone());
                    match answer(&head, &body) {
                        Reply::Bytes(bytes) => socket.write_all(&bytes).await.unwrap(),
                        Reply::After(pause, bytes) => {
                            tokio::time::sleep(pause).await;
                            if socket.write_all(&bytes).await.is_err() {
                                return;
                            }
                        }
                        Reply::Close => return,
                        Reply::Tunnel(bytes) => {
                            socket.write_all(&bytes).await.unwrap();
                            let mut echo = [0; 1024];
                            while let Ok(count) = socket.read(&mut echo).await {
                                if count == 0 || socket.write_all(&echo[..count]).await.is_err() {
                                    return;
                                }
                            }
                        }
                    }
                }
            });
        }
    });
    heard
}

pub enum Reply {
    Bytes(Vec<u8>),
    After(Duration, Vec<u8>),
    Close,
    Tunnel(Vec<u8>),
}

pub fn ok(body: &str) -> Reply {
    Reply::Bytes(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

pub fn status(code: u16) -> Reply {
    Reply::Bytes(format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

/// Reads one message with a length, chunks or no body; `None` at the end.
pub async fn read_message(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..head_end).collect()).unwrap();
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if let Some(length) = lower.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        let length: usize = length.trim().parse().unwrap();
        while buffer.len() < length {
            if socket.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        body = buffer.drain(..length).collect();
    } else if lower.contains("transfer-encoding: chunked") {
        let mut reader = mizzen_http::BodyReader::new(mizzen_http::Framing::Chunked);
        while !reader.is_done() {
            if buffer.is_empty() && socket.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
            let event = reader.next(buffer).unwrap();
            body.extend_from_slice(&buffer[event.consumed - event.data..event.consumed]);
            buffer.drain(..event.consumed);
        }
    }
    Some((head, body))
}

/// A client connection that sends requests and reads answers.
pub struct Client {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self {
            socket: TcpStream::connect(address).await.unwrap(),
            buffer: Vec::new(),
        }
    }

    pub async fn send(&mut self, request: &str) -> (u16, String, String) {
        self.socket.write_all(request.as_bytes()).await.unwrap();
        self.answer().await
    }

    pub async fn answer(&mut self) -> (u16, String, String) {
        let read = tokio::time::timeout(
            Duration::from_secs(10),
            read_message(&mut self.socket, &mut self.buffer),
        );
        let (head, body) = read.await.expect("an answer in time").expect("an answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, String::from_utf8(body).unwrap())
    }

    pub async fn get(&mut self, host: &str, path: &str) -> (u16, String, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
    }
}

/// Loopback addresses of a test: no two tests share a second number.
pub fn loopback(test: u8, host: u8) -> IpAddr {
    IpAddr::from([127, test, 0, host])
}
