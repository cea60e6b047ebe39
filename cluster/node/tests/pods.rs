//! A node with real pods: network namespaces, mounts and processes, on an API in this process. It runs as root or, in a user namespace,
//! as anybody; where neither is allowed it says so and does nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt as _};
use mizzen_api::user::User;
use mizzen_node::{Image, Images, NodeConfig, Outside, RunningNode, Streams, helper_main};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["helper", ..] => helper_main(&arguments[1..]),
        ["serve", port] => serve(port.parse().unwrap()),
        ["get", address] => get(address),
        ["inside"] => runtime().block_on(all()),
        ["hold", marker] => runtime().block_on(hold(marker)),
        // What the test runner asks of every test program.
        ["--list", ..] => ExitCode::SUCCESS,
        _ => outside(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// A program for pods: says what the other side sent, in capitals.
fn serve(port: u16) -> ExitCode {
    let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut text = String::new();
        // Probes connect and leave.
        if stream.read_to_string(&mut text).is_ok() {
            _ = stream.write_all(text.to_uppercase().as_bytes());
        }
    }
    ExitCode::SUCCESS
}

/// The other program: sends a word and prints the answer.
fn get(address: &str) -> ExitCode {
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return ExitCode::FAILURE;
    };
    let mut text = String::new();
    let answered = stream
        .write_all(b"word")
        .and_then(|()| stream.shutdown(std::net::Shutdown::Write))
        .and_then(|()| stream.read_to_string(&mut text));
    if answered.is_err() {
        return ExitCode::FAILURE;
    }
    println!("{text}");
    ExitCode::SUCCESS
}

/// This program again, in namespaces of its own.
fn again(more: &[&str], words: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "--propagation", "private", "--net"])
        .args(more);
    command.arg(std::env::current_exe().unwrap()).args(words);
    command
}

fn outside() -> ExitCode {
    let possible = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--net", "true"])
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: needs the program `unshare` and user namespaces, or root");
        return ExitCode::SUCCESS;
    }
    let inside = again(&[], &["inside"]).status().unwrap();
    if !inside.success() {
        return ExitCode::FAILURE;
    }
    nothing_is_left_after_kill();
    println!("ok nothing_is_left_after_kill");
    ExitCode::SUCCESS
}

/// A node that is killed takes everything along: processes by the bond to their parent, the rest with its namespaces. (N1)
fn nothing_is_left_after_kill() {
    let marker = format!("marker-{}", std::process::id());
    let mut node = again(&[], &["hold", &marker]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "runs\n");
    let found = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let of = |entry: std::fs::DirEntry| {
            let text = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            text.contains(&marker) && !text.contains("hold")
        };
        all.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
            .map(of)
            .filter(|found| *found)
            .count()
    };
    assert!(found() > 0, "the pod's program runs");
    node.kill().unwrap();
    node.wait().unwrap();
    // The output ends when the last process that holds it has ended.
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let until = std::time::Instant::now() + LIMIT;
    while found() > 0 {
        assert!(std::time::Instant::now() < until, "a program outlives its node");
        std::thread::yield_now();
    }
}

/// What of the outside the node may use: one address that answers, and one name.
struct Door;

impl Outside for Door {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, std::io::Result<TcpStream>> {
        async move {
            if to != "192.0.2.7:80".parse().unwrap() {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let near = TcpStream::connect(listener.local_addr()?).await?;
            let (mut far, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut text = String::new();
                far.read_to_string(&mut text).await.unwrap();
                far.write_all(format!("outside heard {text}").as_bytes()).await.unwrap();
            });
            Ok(near)
        }
        .boxed()
    }

    fn resolve(&self, _: Vec<u8>) -> BoxFuture<'static, std::io::Result<Vec<u8>>> {
        async { Err(std::io::ErrorKind::Unsupported.into()) }.boxed()
    }
}

struct World {
    client: Client,
    node: RunningNode,
    _state: tempfile::TempDir,
}

async fn world() -> World {
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let api = mizzen_api::Api::open(mizzen_api::Options::default()).await.unwrap();
    let client = Client::new(api.service(User::admin()), "default");
    let state = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let images = Images::default();
    images.insert(
        "shell",
        Image {
            program: "/bin/sh".into(),
            ..Image::default()
        },
    );
    for word in ["serve", "get"] {
        let image = Image {
            program: own.clone(),
            args: vec![word.into()],
            ..Image::default()
        };
        images.insert(word, image);
    }
    let config = NodeConfig {
        name: "here".into(),
        version: "v1.33.0".into(),
        address: Ipv4Addr::new(10, 199, 0, 1),
        pods: "10.244.0.0/24".parse().unwrap(),
        services: "10.96.0.0/16".parse().unwrap(),
        load_balancers: "10.97.0.0/24".parse().unwrap(),
        domain: "cluster.local".into(),
        bridge: "pods0".into(),
        state: state.path().to_owned(),
        helper: vec![own.into(), "helper".into()],
        images,
        cgroup: None,
        kubelet_port: 0,
        outside: Some(Arc::new(Door)),
    };
    let node = mizzen_node::start(client.clone(), config).await.unwrap();
    let world = World {
        client,
        node,
        _state: state,
    };
    // What controllers make in every namespace.
    world
        .create::<ServiceAccount>(json!({"metadata": {"name": "default"}}))
        .await;
    world
        .create::<ConfigMap>(json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": api.ca()}}))
        .await;
    world
}

impl World {
    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        let api: Api<K> = Api::default_namespaced(self.client.clone());
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap();
    }

    /// A pod bound to the node; `spec` is added to what every pod has.
    async fn pod(&self, name: &str, spec: Value) {
        let mut whole = json!({"nodeName": "here", "terminationGracePeriodSeconds": 10, "restartPolicy": "Never"});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let labels = json!({"app": name});
        let object =
            json!({"metadata": {"name": name, "labels": labels, "annotations": {"note": "first"}}, "spec": whole});
        self.create::<Pod>(object).await;
    }

    /// Waits until a pod is as it should be.
    async fn wait(&self, name: &str, what: impl Fn(&Pod) -> bool) -> Pod {
        let condition = |pod: Option<&Pod>| pod.is_some_and(&what);
        match tokio::time::timeout(LIMIT, await_condition(self.pods(), name, condition)).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => {
                let pod = self.pods().get(name).await.unwrap();
                panic!(
                    "{name} does not become as expected: {}",
                    serde_json::to_string(&pod.status).unwrap()
                )
            }
        }
    }

    async fn finished(&self, name: &str) -> String {
        let phase = |pod: &Pod| {
            pod.status
                .as_ref()
                .and_then(|status| status.phase.clone())
                .unwrap_or_default()
        };
        let pod = self
            .wait(name, |pod| matches!(phase(pod).as_str(), "Succeeded" | "Failed"))
            .await;
        phase(&pod)
    }

    async fn log(&self, name: &str, query: &str) -> String {
        let request = http::Request::get(format!("/?{query}")).body(()).unwrap();
        let response = self.node.streams().serve("default", name, "log", request).await;
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap()
            .to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "shell", "command": ["sh", "-c", script]})
}

async fn all() -> ExitCode {
    let world = world().await;
    files_and_environment(&world).await;
    println!("ok files_and_environment");
    init_sidecar_main_and_their_end(&world).await;
    println!("ok init_sidecar_main_and_their_end");
    failures_say_what_to_do(&world).await;
    println!("ok failures_say_what_to_do");
    services_names_and_the_outside(&world).await;
    println!("ok services_names_and_the_outside");
    programs_in_containers(&world).await;
    println!("ok programs_in_containers");
    ports_through_a_tunnel(&world).await;
    println!("ok ports_through_a_tunnel");
    unhealthy_containers_start_again(&world).await;
    println!("ok unhealthy_containers_start_again");
    ExitCode::SUCCESS
}

/// A container sees its volumes, its variables and nothing of other pods. (N1)
async fn files_and_environment(world: &World) {
    world
        .create::<ConfigMap>(json!({"metadata": {"name": "conf"}, "data": {"color": "red"}}))
        .await;
    world
        .create::<Secret>(json!({"metadata": {"name": "key"}, "stringData": {"word": "hush"}}))
        .await;
    let script = "cat /etc/new/deep/color /secret/word /info/labels /etc/hostname; echo; echo $COLOR $NAME $KUBERNETES_SERVICE_HOST; \
        test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token; head -1 /etc/resolv.conf; \
        touch /usr/x 2>/dev/null || echo sealed; touch /data/x /tmp/x && echo writable; \
        touch /secret/x 2>/dev/null || echo kept; ls $STATE 2>/dev/null | wc -l; cat /one";
    let state = world._state.path().to_str().unwrap();
    let mut container = shell("c", script);
    container.as_object_mut().unwrap().extend(
        json!({"env": [
            {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "color"}}},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "STATE", "value": state}],
        "volumeMounts": [
            {"name": "conf", "mountPath": "/etc/new/deep"}, {"name": "key", "mountPath": "/secret"},
            {"name": "info", "mountPath": "/info"}, {"name": "data", "mountPath": "/data"},
            {"name": "conf", "mountPath": "/one", "subPath": "color"}]})
        .as_object()
        .unwrap()
        .clone(),
    );
    let volumes = json!([{"name": "conf", "configMap": {"name": "conf"}}, {"name": "key", "secret": {"secretName": "key"}},
        {"name": "data", "emptyDir": {}},
        {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]);
    world
        .pod("files", json!({"containers": [container], "volumes": volumes}))
        .await;
    assert_eq!(world.finished("files").await, "Succeeded");
    let said = world.log("files", "").await;
    let expected = "redhushapp=\"files\"files\n\nred files 10.96.0.1\ntoken\n\
        search default.svc.cluster.local svc.cluster.local cluster.local\nsealed\nwritable\nkept\n0\nred";
    assert_eq!(said.trim_end(), expected);
    assert_eq!(world.log("files", "tailLines=1").await.trim_end(), "red");
}

/// Order of starts and ends, and what the status says of them. (N1)
async fn init_sidecar_main_and_their_end(world: &World) {
    let sidecar = json!({"name": "side", "image": "shell", "restartPolicy": "Always",
        "command": ["sh", "-c", "trap 'echo side ends >> /data/log; cat /data/log; exit 0' TERM; touch /data/side; while :; do sleep 0.05; done"],
        "startupProbe": {"exec": {"command": ["test", "-e", "/data/side"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let mount = json!([{"name": "data", "mountPath": "/data"}]);
    let mut first = shell("first", "echo init > /data/log");
    first["volumeMounts"] = mount.clone();
    let mut main = shell(
        "main",
        "test -e /data/side && echo main starts >> /data/log; trap 'echo main ends >> /data/log; exit 0' TERM; while :; do sleep 0.05; done",
    );
    main["volumeMounts"] = mount;
    main["lifecycle"] = json!({"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /data/log"]}}});
    main["readinessProbe"] = json!({"exec": {"command": ["grep", "main starts", "/data/log"]}, "periodSeconds": 1});
    world
        .pod(
            "order",
            json!({"initContainers": [first, sidecar], "containers": [main], "restartPolicy": "Always",
        "volumes": [{"name": "data", "emptyDir": {}}]}),
        )
        .await;
    let pod = world.wait("order", ready).await;
    let status = pod.status.unwrap();
    let inits: BTreeMap<_, _> = status
        .init_container_statuses
        .unwrap()
        .into_iter()
        .map(|one| (one.name.clone(), (one.ready, one.state.unwrap())))
        .collect();
    assert_eq!(
        inits["first"].1.terminated.as_ref().unwrap().reason.as_deref(),
        Some("Completed")
    );
    assert!(inits["side"].0 && inits["side"].1.running.is_some());
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.host_ip.as_deref(), Some("10.199.0.1"));

    let request = http::Request::get("/?container=side&follow=true").body(()).unwrap();
    let follow = world.node.streams().serve("default", "order", "log", request).await;
    world.pods().delete("order", &DeleteParams::default()).await.unwrap();
    let said = http_body_util::BodyExt::collect(follow.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(
        said, "init\nmain starts\nhook\nmain ends\nside ends\n",
        "the sidecar is the last"
    );
    let uid = pod.metadata.uid.unwrap();
    let gone = await_condition(world.pods(), "order", kube::runtime::conditions::is_deleted(&uid));
    tokio::time::timeout(LIMIT, gone)
        .await
        .expect("the object is removed")
        .unwrap();
}

/// What cannot run says why, in status and events. (N1)
async fn failures_say_what_to_do(world: &World) {
    world
        .pod(
            "noimage",
            json!({"containers": [{"name": "c", "image": "acme/shop:v1"}]}),
        )
        .await;
    let waiting = |pod: &Pod| -> Option<(String, String)> {
        let state = pod
            .status
            .as_ref()?
            .container_statuses
            .as_ref()?
            .first()?
            .state
            .clone()?
            .waiting?;
        Some((state.reason.unwrap_or_default(), state.message.unwrap_or_default()))
    };
    let pod = world
        .wait("noimage", |pod| {
            waiting(pod).is_some_and(|(reason, _)| reason == "ImagePullBackOff")
        })
        .await;
    let expected = "Back-off pulling image \"acme/shop:v1\": ErrImagePull: no program is known for image \"acme/shop:v1\" on this node; \
        name one: --image acme/shop=PATH/OF/PROGRAM";
    assert_eq!(waiting(&pod).unwrap().1, expected);

    world
        .pod(
            "noprogram",
            json!({"containers": [{"name": "c", "image": "shell", "command": ["no-such"]}]}),
        )
        .await;
    assert_eq!(world.finished("noprogram").await, "Failed");
    let status = world
        .pods()
        .get("noprogram")
        .await
        .unwrap()
        .status
        .unwrap()
        .container_statuses
        .unwrap()[0]
        .clone();
    let ended = status.state.unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (128, Some("StartError")));
    assert_eq!(
        ended.message.as_deref(),
        Some("exec: \"no-such\": executable file not found in $PATH")
    );

    let volumes = json!([{"name": "v", "configMap": {"name": "later"}}]);
    world
        .pod(
            "nomount",
            json!({"containers": [shell("c", "true")], "volumes": volumes}),
        )
        .await;
    let events: Api<Event> = Api::default_namespaced(world.client.clone());
    let fields = ListParams::default().fields("involvedObject.name=nomount,reason=FailedMount");
    let told = async {
        loop {
            if let Some(event) = events.list(&fields).await.unwrap().items.into_iter().next() {
                return event.message.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let message = tokio::time::timeout(LIMIT, told).await.expect("an event");
    assert_eq!(
        message,
        "MountVolume.SetUp failed for volume \"v\" : configmap \"later\" not found"
    );
    world.create::<ConfigMap>(json!({"metadata": {"name": "later"}})).await;
    assert_eq!(world.finished("nomount").await, "Succeeded", "it is tried again");

    world
        .pod(
            "crash",
            json!({"restartPolicy": "Always", "containers": [shell("c", "echo last > /dev/termination-log; exit 3")]}),
        )
        .await;
    let pod = world
        .wait("crash", |pod| {
            waiting(pod).is_some_and(|(reason, _)| reason == "CrashLoopBackOff")
        })
        .await;
    let status = pod.status.clone().unwrap().container_statuses.unwrap()[0].clone();
    let ended = status.last_state.unwrap().terminated.unwrap();
    assert_eq!(
        (ended.exit_code, ended.message.as_deref(), status.restart_count),
        (3, Some("last\n"), 1)
    );
    let which = format!(
        "back-off 10s restarting failed container=c pod=crash_default({})",
        pod.uid().unwrap()
    );
    assert_eq!(waiting(&pod).unwrap().1, which);
}

/// Cluster IPs, node ports, hairpin, DNS, refusal, and the way out. (N1)
async fn services_names_and_the_outside(world: &World) {
    let container = json!({"name": "c", "image": "serve", "args": ["8080"],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
    world.pod("server", json!({"containers": [container]})).await;
    let pod = world.wait("server", ready).await;
    let address = pod.status.unwrap().pod_ip.unwrap();
    let ports = json!([{"name": "tcp", "port": 80, "targetPort": 8080, "nodePort": 30080}]);
    world
        .create::<Service>(json!({"metadata": {"name": "shop"}, "spec": {"type": "LoadBalancer", "ports": ports}}))
        .await;
    world
        .create::<Service>(json!({"metadata": {"name": "empty"}, "spec": {"ports": [{"port": 80}]}}))
        .await;
    let labels = json!({"kubernetes.io/service-name": "shop"});
    world.create::<EndpointSlice>(json!({"metadata": {"name": "shop-1", "labels": labels}, "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [{"name": "tcp", "port": 8080}]})).await;
    let services: Api<Service> = Api::default_namespaced(world.client.clone());
    let balanced = |service: Option<&Service>| {
        let status = service.and_then(|service| {
            service
                .status
                .as_ref()?
                .load_balancer
                .as_ref()?
                .ingress
                .as_ref()?
                .first()?
                .ip
                .clone()
        });
        status.is_some_and(|address| address == "10.97.0.1")
    };
    tokio::time::timeout(LIMIT, await_condition(services.clone(), "shop", balanced))
        .await
        .expect("an address")
        .unwrap();
    let cluster = services.get("shop").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    // The rules follow the objects; a refused connection is tried again until they do.
    let ask = |address: String| async move {
        let attempt = async {
            loop {
                if let Ok(mut stream) = TcpStream::connect(&address).await {
                    stream.write_all(b"word").await.unwrap();
                    stream.shutdown().await.unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).await.unwrap();
                    return text;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, attempt).await.expect("an answer")
    };
    for address in [
        format!("{cluster}:80"),
        "10.199.0.1:30080".into(),
        "10.97.0.1:80".into(),
    ] {
        assert_eq!(ask(address.clone()).await, "WORD", "{address}");
    }
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["shop", "default", "svc", "cluster", "local"] {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut server = TcpStream::connect("10.244.0.1:53").await.unwrap();
    server.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
    server.write_all(&query).await.unwrap();
    let mut answer = vec![0; usize::from(server.read_u16().await.unwrap())];
    server.read_exact(&mut answer).await.unwrap();
    let own: Ipv4Addr = cluster.parse().unwrap();
    assert!(answer.ends_with(&own.octets()), "names are answered over TCP too");
    let get = |name: &str, address: &str| json!({"name": name, "image": "get", "args": [address]});
    world
        .pod(
            "client",
            json!({"containers": [get("name", "shop:80"), get("full", "shop.default.svc.cluster.local:80"),
        get("out", "192.0.2.7:80")]}),
        )
        .await;
    assert_eq!(world.finished("client").await, "Succeeded");
    for (container, answer) in [("name", "WORD"), ("full", "WORD"), ("out", "outside heard word")] {
        assert_eq!(
            world.log("client", &format!("container={container}")).await.trim_end(),
            answer
        );
    }
    world
        .pod("refused", json!({"containers": [get("empty", "empty:80")]}))
        .await;
    assert_eq!(world.finished("refused").await, "Failed");
    world
        .pod("refused-outside", json!({"containers": [get("c", "192.0.2.8:80")]}))
        .await;
    world.finished("refused-outside").await;
    assert_eq!(
        world.log("refused-outside", "").await,
        "",
        "nobody answers for an address that is refused outside"
    );
}

/// A kubelet's HTTP server.
async fn kubelet(streams: Streams) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let streams = streams.clone();
            let service = hyper::service::service_fn(move |request| {
                let streams = streams.clone();
                async move { Ok::<_, std::convert::Infallible>(streams.serve_kubelet(request).await) }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .with_upgrades(),
            );
        }
    });
    local
}

/// Exec over a WebSocket: output, exit code, stdin; and the pod's own address through a service of itself. (N1)
async fn programs_in_containers(world: &World) {
    let local = kubelet(world.node.streams()).await;
    let run = |command: &[&str], stdin: &'static [u8]| {
        let encode = |word: &&str| -> String { word.bytes().map(|byte| format!("%{byte:02x}")).collect() };
        let words: Vec<String> = command.iter().map(|word| format!("command={}", encode(word))).collect();
        let query = format!("{}&stdout=true&stderr=true&stdin=true", words.join("&"));
        async move {
            let mut request = format!("ws://{local}/exec/default/server/c?{query}")
                .into_client_request()
                .unwrap();
            request
                .headers_mut()
                .insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
            let stream = TcpStream::connect(local).await.unwrap();
            let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
            assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
            socket
                .send(Message::Binary([&[0], stdin].concat().into()))
                .await
                .unwrap();
            socket.send(Message::Binary(vec![255, 0].into())).await.unwrap();
            let mut channels: BTreeMap<u8, String> = BTreeMap::new();
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Binary(bytes) = message {
                    channels
                        .entry(bytes[0])
                        .or_default()
                        .push_str(std::str::from_utf8(&bytes[1..]).unwrap());
                }
            }
            channels
        }
    };
    let said = run(&["sh", "-c", "cat; echo oops >&2; exit 7"], b"hello").await;
    assert_eq!((said[&1].as_str(), said[&2].as_str()), ("hello", "oops\n"));
    let status: Value = serde_json::from_str(&said[&3]).unwrap();
    assert_eq!(
        status["details"]["causes"][0],
        json!({"reason": "ExitCode", "message": "7"})
    );
    let own = std::env::current_exe().unwrap();
    let said = run(
        &[
            Path::new("/usr/local/bin")
                .join(own.file_name().unwrap())
                .to_str()
                .unwrap(),
            "get",
            "shop:80",
        ],
        b"",
    )
    .await;
    assert_eq!(said[&1], "WORD\n", "a pod reaches itself through its service");
    assert_eq!(serde_json::from_str::<Value>(&said[&3]).unwrap()["status"], "Success");
}

/// A port as kubectl forwards it: SPDY frames in WebSocket messages. (N1)
async fn ports_through_a_tunnel(world: &World) {
    let local = kubelet(world.node.streams()).await;
    let mut request = format!("ws://{local}/portForward/default/server")
        .into_client_request()
        .unwrap();
    let protocol = "SPDY/3.1+portforward.k8s.io";
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol.parse().unwrap());
    let stream = TcpStream::connect(local).await.unwrap();
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    let mut compress = flate2::Compress::new(flate2::Compression::fast(), true);
    let mut frames = Vec::new();
    for (stream, kind) in [(1_u32, "error"), (3, "data")] {
        let mut plain = 3_u32.to_be_bytes().to_vec();
        for text in ["streamtype", kind, "port", "8080", "requestid", "0"] {
            plain.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(256);
        compress
            .compress_vec(&plain, &mut block, flate2::FlushCompress::Sync)
            .unwrap();
        frames.extend_from_slice(&[0x80, 3, 0, 1]);
        frames.extend_from_slice(&u32::try_from(block.len() + 10).unwrap().to_be_bytes());
        frames.extend_from_slice(&stream.to_be_bytes());
        frames.extend_from_slice(&[0; 6]);
        frames.extend_from_slice(&block);
    }
    // Data of stream 3, of which it is the last.
    frames.extend_from_slice(&[0, 0, 0, 3, 1, 0, 0, 4]);
    frames.extend_from_slice(b"word");
    // Frames need not fit messages.
    for part in frames.chunks(7) {
        socket.send(Message::Binary(part.to_vec().into())).await.unwrap();
    }
    let mut said = Vec::new();
    let answered = async {
        while !said.windows(12).any(|frame| frame == b"\0\0\0\x03\0\0\0\x04WORD") {
            if let Message::Binary(bytes) = socket.next().await.unwrap().unwrap() {
                said.extend_from_slice(&bytes);
            }
        }
    };
    tokio::time::timeout(LIMIT, answered)
        .await
        .expect("the answer on the same stream");
}

/// A liveness probe that fails ends the container, and what changes in the object is seen in its files. (N1)
async fn unhealthy_containers_start_again(world: &World) {
    let mut container = shell(
        "c",
        "trap 'exit 0' TERM; while ! grep second /info/note; do sleep 0.05; done; touch /tmp/sick; while :; do sleep 0.05; done",
    );
    container["livenessProbe"] =
        json!({"exec": {"command": ["sh", "-c", "! test -e /tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 1});
    container["volumeMounts"] = json!([{"name": "info", "mountPath": "/info"}]);
    let field = json!({"path": "note", "fieldRef": {"fieldPath": "metadata.annotations['note']"}});
    let volumes = json!([{"name": "info", "downwardAPI": {"items": [field]}}]);
    world
        .pod(
            "sick",
            json!({"restartPolicy": "Always", "containers": [container], "volumes": volumes}),
        )
        .await;
    world.wait("sick", ready).await;
    let change = json!({"metadata": {"annotations": {"note": "second"}}});
    world
        .pods()
        .patch("sick", &PatchParams::default(), &Patch::Merge(&change))
        .await
        .unwrap();
    let restarts = |pod: &Pod| {
        pod.status
            .as_ref()
            .and_then(|status| Some(status.container_statuses.as_ref()?.first()?.restart_count))
    };
    world.wait("sick", |pod| restarts(pod) >= Some(1)).await;
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    world.pods().delete("sick", &now).await.unwrap();
}

async fn hold(marker: &str) -> ExitCode {
    let world = world().await;
    let script = format!(": {marker}; sleep 1000 & sleep 1000; :");
    world.pod("held", json!({"containers": [shell("c", &script)]})).await;
    world.wait("held", ready).await;
    println!("runs");
    std::future::pending().await
}
