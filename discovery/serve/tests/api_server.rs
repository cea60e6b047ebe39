//! The whole process against a real API server, with a proxy's side of xDS spoken by the generated client.
//!
//! `MIZZEN_API_SERVER=<kubeconfig of a cluster to spoil> cargo test -p mizzen-discovery --test api_server -- --ignored`
//! Pods are only objects here: nothing runs in them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly, its helpers too"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use clap::Parser;
use envoy_types::pb::envoy::{
    config::{core::v3::Node, endpoint::v3::ClusterLoadAssignment},
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use envoy_types::pb::google::protobuf::{Struct, Value as PbValue, value::Kind as PbKind};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use mizzen_xds::ResourceType;
use prost::Message as _;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig},
};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: mizzen_discovery::Args,
}

const MESH: &str = "istio-system";
const SHOP: &str = "shop";

struct World {
    client: Client,
    address: SocketAddr,
    admin: SocketAddr,
    root: String,
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

async fn put<K>(api: &Api<K>, object: Value)
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object))
        .await
        .unwrap();
}

fn istio(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", "v1", kind));
    Api::namespaced_with(client.clone(), SHOP, &resource)
}

async fn pod(client: &Client, name: &str, app: &str, ip: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), SHOP);
    put(
        &pods,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": app, "version": "v1", "security.istio.io/tlsMode": "istio" } },
            "spec": {
                "serviceAccountName": app,
                "containers": [{ "name": "app", "image": "none" }, { "name": "istio-proxy", "image": "none" }],
            },
        }),
    )
    .await;
    let status = json!({ "status": {
        "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}

async fn slice(client: &Client, endpoints: &[(&str, &str)]) {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), SHOP);
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, pod)| {
            json!({
                "addresses": [ip],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "targetRef": { "kind": "Pod", "namespace": SHOP, "name": pod },
            })
        })
        .collect();
    put(
        &slices,
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "reviews-1", "labels": { "kubernetes.io/service-name": "reviews" } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 9080, "protocol": "TCP" }],
            "endpoints": endpoints,
        }),
    )
    .await;
}

async fn token(client: &Client, account: &str, pod: Option<&str>, audience: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SHOP);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            bound_object_ref: pod.map(|name| BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(name.to_owned()),
                uid: None,
            }),
            expiration_seconds: Some(3600),
        },
        ..TokenRequest::default()
    };
    accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .unwrap()
        .status
        .unwrap()
        .token
}

async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn http(address: SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else {
        return (0, String::new());
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    (status, text)
}

/// A proxy: acknowledges what it gets and keeps it.
struct Proxy {
    requests_tx: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: tonic::Streaming<DeltaDiscoveryResponse>,
    has: BTreeMap<(String, String), Vec<u8>>,
    removed: Vec<(String, String)>,
}

impl Proxy {
    async fn connect(world: &World, pod: &str, on_demand: bool, token: Option<&str>) -> Result<Self, Status> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&world.root))
            .domain_name(format!("istiod-basic.{MESH}.svc"));
        let channel = Channel::from_shared(format!("https://{}", world.address))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
            .map_err(|error| Status::unavailable(format!("{error:?}")))?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(16 << 20);
        let (requests_tx, mut requests) = mpsc::channel::<DeltaDiscoveryRequest>(16);
        let on_demand = PbValue {
            kind: Some(PbKind::BoolValue(on_demand)),
        };
        let node = Node {
            id: format!("sidecar~10.1.0.1~{pod}.{SHOP}~{SHOP}.svc.cluster.local"),
            metadata: Some(Struct {
                fields: [("MIZZEN_ON_DEMAND".to_owned(), on_demand)].into(),
            }),
            ..Node::default()
        };
        let first = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: ResourceType::Endpoint.type_url().into(),
            ..Default::default()
        };
        requests_tx.send(first).await.unwrap();
        let outgoing = futures::stream::poll_fn(move |cx| requests.poll_recv(cx));
        let mut request = tonic::Request::new(outgoing);
        if let Some(token) = token {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let responses = client.delta_aggregated_resources(request).await?.into_inner();
        Ok(Self {
            requests_tx,
            responses,
            has: BTreeMap::new(),
            removed: Vec::new(),
        })
    }

    async fn subscribe(&self, kind: ResourceType, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        self.requests_tx.send(request).await.unwrap();
    }

    /// Reads until the condition holds.
    async fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            let response = tokio::time::timeout(Duration::from_secs(20), self.responses.message()).await;
            let response = response
                .unwrap_or_else(|_| panic!("never: {what}; has {:?}", self.has.keys()))
                .unwrap()
                .unwrap();
            for resource in response.resources {
                let kind = response.type_url.clone();
                self.has.insert((kind, resource.name), resource.resource.unwrap().value);
            }
            for name in response.removed_resources {
                self.has.remove(&(response.type_url.clone(), name.clone()));
                self.removed.push((response.type_url.clone(), name));
            }
            let acknowledgement = DeltaDiscoveryRequest {
                type_url: response.type_url,
                response_nonce: response.nonce,
                ..Default::default()
            };
            self.requests_tx.send(acknowledgement).await.unwrap();
        }
    }

    fn find(&self, kind: ResourceType, name: &str) -> Option<&Vec<u8>> {
        self.has.get(&(kind.type_url().to_owned(), name.to_owned()))
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        let Some(body) = self.find(ResourceType::Endpoint, name) else {
            return Vec::new();
        };
        let text = format!("{:?}", ClusterLoadAssignment::decode(&body[..]).unwrap());
        text.split("address: \"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect()
    }
}

async fn start(kubeconfig: &str) -> World {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
        .await
        .unwrap();
    let client = Client::try_from(config).unwrap();

    let crds: Api<DynamicObject> = Api::all_with(
        client.clone(),
        &ApiResource::from_gvk(&GroupVersionKind::gvk(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
        )),
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/crd");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with("istio.io.yaml") {
            let text = std::fs::read_to_string(path).unwrap();
            put(&crds, serde_saphyr::from_str(&text).unwrap()).await;
        }
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for (name, labels) in [
        (MESH, json!({})),
        (SHOP, json!({ "maistra.io/member-of": MESH })),
        ("stranger", json!({})),
    ] {
        put(
            &namespaces,
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } }),
        )
        .await;
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SHOP);
    for name in ["cart", "reviews"] {
        put(
            &accounts,
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name } }),
        )
        .await;
    }
    pod(&client, "cart-1", "cart", "10.1.0.1").await;
    pod(&client, "reviews-1", "reviews", "10.1.0.2").await;
    pod(&client, "reviews-2", "reviews", "10.1.0.3").await;
    let services: Api<Service> = Api::namespaced(client.clone(), SHOP);
    put(
        &services,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "reviews" },
            "spec": { "ports": [{ "name": "http", "port": 9080, "targetPort": 9080 }] },
        }),
    )
    .await;
    slice(&client, &[("10.1.0.2", "reviews-1")]).await;

    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), MESH);
    let injector =
        json!({ "revision": "basic", "meshNamespace": MESH, "images": { "registry": "localhost/mizzen", "tag": "t" } });
    put(
        &maps,
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "istio-sidecar-injector-basic" },
            "data": { "values": injector.to_string() },
        }),
    )
    .await;

    let bundle = async || {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), MESH);
        maps.get_opt("istio-ca-root-cert")
            .await
            .unwrap()
            .and_then(|map| map.metadata.uid)
    };
    let earlier = bundle().await;
    let (address, admin) = (free(), free());
    let command = Command::parse_from([
        "test".to_owned(),
        format!("--kubeconfig={kubeconfig}"),
        format!("--secure-address={address}"),
        format!("--webhook-address={}", free()),
        format!("--http-address={admin}"),
        format!("--monitoring-address={}", free()),
    ]);
    tokio::spawn(async move { mizzen_discovery::run(command.args).await.unwrap() });
    eventually("ready", async || (http(admin, "/ready").await.0 == 200).then_some(())).await;
    let root = eventually("trust bundle", async || trust_bundle(&client).await).await;
    // A restart touches no trust bundle, not even for a moment.
    assert!(
        earlier.is_none() || earlier == bundle().await,
        "the trust bundle of an earlier run was replaced"
    );
    World {
        client,
        address,
        admin,
        root,
    }
}

async fn trust_bundle(client: &Client) -> Option<String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SHOP);
    maps.get_opt("istio-ca-root-cert")
        .await
        .unwrap()?
        .data?
        .remove("root-cert.pem")
}

const REVIEWS: &str = "outbound|9080||reviews.shop.svc.cluster.local";

// A3, C1, C8, E1, E7, G1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an API server of its own: MIZZEN_API_SERVER=<kubeconfig>"]
async fn proxies_get_what_the_api_server_holds() {
    let world = start(&std::env::var("MIZZEN_API_SERVER").expect("MIZZEN_API_SERVER names a kubeconfig")).await;
    let client = world.client.clone();

    // Who does not prove who it is gets nothing.
    let good = token(&client, "cart", Some("cart-1"), "istio-ca").await;
    let other_pod = token(&client, "reviews", Some("reviews-1"), "istio-ca").await;
    let wrong_audience = token(&client, "cart", Some("cart-1"), "vault").await;
    for (shown, code) in [
        (None, Code::Unauthenticated),
        (Some("nonsense"), Code::Unauthenticated),
        (Some(wrong_audience.as_str()), Code::Unauthenticated),
        (Some(other_pod.as_str()), Code::PermissionDenied),
    ] {
        let refused = match Proxy::connect(&world, "cart-1", false, shown).await {
            Err(status) => status,
            Ok(mut proxy) => proxy.responses.message().await.unwrap_err(),
        };
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    assert_eq!(
        http(world.address, "/").await.0,
        0,
        "plain text must not be answered at the secure port"
    );

    // As Envoy asks: all clusters and listeners, endpoints and routes by name.
    let mut envoy = Proxy::connect(&world, "cart-1", false, Some(&good)).await.unwrap();
    envoy.subscribe(ResourceType::Cluster, &[]).await;
    envoy
        .until("cluster", |p| p.find(ResourceType::Cluster, REVIEWS).is_some())
        .await;
    envoy.subscribe(ResourceType::Endpoint, &[REVIEWS]).await;
    envoy.until("endpoints", |p| p.addresses(REVIEWS) == ["10.1.0.2"]).await;
    envoy.subscribe(ResourceType::Listener, &[]).await;
    envoy
        .until("listener", |p| p.find(ResourceType::Listener, "0.0.0.0_9080").is_some())
        .await;
    envoy.subscribe(ResourceType::Route, &["9080"]).await;
    envoy
        .until("route", |p| p.find(ResourceType::Route, "9080").is_some())
        .await;

    // As the native proxy asks: on demand, also for what is not there yet.
    let mut native = Proxy::connect(&world, "cart-1", true, Some(&good)).await.unwrap();
    native
        .subscribe(ResourceType::VirtualHost, &["9080/reviews", "9080/later"])
        .await;
    native
        .until("virtual host", |p| {
            p.find(ResourceType::VirtualHost, "9080/reviews").is_some()
        })
        .await;
    native
        .until("absent", |p| p.removed.iter().any(|(_, name)| name == "9080/later"))
        .await;

    // An endpoint comes: only its cluster is pushed, at once.
    let started = Instant::now();
    slice(&client, &[("10.1.0.2", "reviews-1"), ("10.1.0.3", "reviews-2")]).await;
    envoy
        .until("second endpoint", |p| p.addresses(REVIEWS).len() == 2)
        .await;
    println!("endpoint change to proxy: {:?}", started.elapsed());

    // A route changes.
    let routes = istio(&client, "VirtualService");
    let route = |name: &str, subset: Option<&str>, timeout: &str| {
        let mut destination = json!({ "host": "reviews" });
        if let Some(subset) = subset {
            destination["subset"] = json!(subset);
        }
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": name },
            "spec": { "hosts": ["reviews"], "http": [{ "timeout": timeout, "route": [{ "destination": destination }] }] },
        })
    };
    for timeout in ["2s", "3s", "4s"] {
        let before = native.find(ResourceType::VirtualHost, "9080/reviews").cloned();
        let table = envoy.find(ResourceType::Route, "9080").cloned();
        let started = Instant::now();
        put(&routes, route("reviews", None, timeout)).await;
        native
            .until("new route", |p| {
                p.find(ResourceType::VirtualHost, "9080/reviews") != before.as_ref()
            })
            .await;
        println!("route change to proxy on demand: {:?}", started.elapsed());
        envoy
            .until("new routes", |p| p.find(ResourceType::Route, "9080") != table.as_ref())
            .await;
    }

    // Its condition tells that it is in force; an unknown subset is told with its field.
    let condition = async |reason: &str| {
        let routes = istio(&client, "VirtualService");
        let object = routes.get("reviews").await.unwrap();
        let conditions = object.data["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["reason"] == reason)
    };
    let accepted = eventually("accepted", async || condition("Accepted").await).await;
    assert_eq!(
        (accepted["type"].as_str(), accepted["status"].as_str()),
        (Some("Reconciled"), Some("True"))
    );
    put(&routes, route("reviews", Some("v9"), "1s")).await;
    let refused = eventually("subset not found", async || condition("SubsetNotFound").await).await;
    assert_eq!(refused["status"], "False");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("spec.http[0].route[0].destination.subset"),
        "{refused}"
    );

    // A service that appears reaches the one who asked for it before it was there.
    let services: Api<Service> = Api::namespaced(client.clone(), SHOP);
    let later = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "later" },
        "spec": { "ports": [{ "name": "http", "port": 9080 }] },
    });
    put(&services, later).await;
    native
        .until("later", |p| p.find(ResourceType::VirtualHost, "9080/later").is_some())
        .await;
    envoy
        .until("later's cluster", |p| {
            p.find(ResourceType::Cluster, "outbound|9080||later.shop.svc.cluster.local")
                .is_some()
        })
        .await;
    services.delete("later", &DeleteParams::default()).await.unwrap();
    native
        .until("later gone", |p| {
            p.find(ResourceType::VirtualHost, "9080/later").is_none()
        })
        .await;

    // The trust bundle is put back, and goes when the namespace leaves.
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SHOP);
    maps.delete("istio-ca-root-cert", &DeleteParams::default())
        .await
        .unwrap();
    eventually("trust bundle back", async || trust_bundle(&client).await).await;

    let (status, text) = http(world.admin, "/debug/syncz").await;
    assert_eq!(status, 200);
    assert!(text.contains("cart-1.shop") && text.contains("\"SYNCED\""), "{text}");
    let (_, metrics) = http(world.admin, "/metrics").await;
    assert!(metrics.contains("pilot_xds_pushes{type=\"cds\"}"), "{metrics}");

    let namespaces: Api<Namespace> = Api::all(client.clone());
    let leave = json!({ "metadata": { "labels": { "maistra.io/member-of": null } } });
    namespaces
        .patch(SHOP, &PatchParams::default(), &Patch::Merge(&leave))
        .await
        .unwrap();
    eventually("trust bundle gone", async || {
        trust_bundle(&client).await.is_none().then_some(())
    })
    .await;
    // Whoever is in it hears no more.
    let ended = loop {
        let next = tokio::time::timeout(Duration::from_secs(20), envoy.responses.message());
        match next.await.expect("the stream does not end") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ends without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.message().contains("no longer in the mesh"), "{ended}");
}
