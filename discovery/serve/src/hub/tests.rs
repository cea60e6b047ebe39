//! Streams of different proxies while a mesh changes at random: what each proxy ends up with is what translation gives for
//! the mesh as it is then. This holds index, translation (what a change affects, who shares with whom) and hub together.

use std::collections::BTreeSet;

use mizzen_identity::{Namespace, SpiffeId, TrustDomain};
use mizzen_index::{Event, Index, Object, ObjectRef, Settings};
use mizzen_model::{Kind, MeshConfig, ObjectKey, ObjectName};
use mizzen_translate::NodeKind;
use mizzen_xds::{
    Event as SessionEvent, Limits, Protocol, Refused, Session, Source as _,
    wire::{DeltaRequest, Node, Request},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ROOT: &str = "mesh";

fn core<T: serde::de::DeserializeOwned>(json: Value) -> Box<T> {
    Box::new(serde_json::from_value(json).unwrap())
}

fn namespace(name: &str, member: bool) -> Object {
    let labels = if member {
        json!({ "maistra.io/member-of": ROOT })
    } else {
        json!({})
    };
    Object::Namespace(core(json!({ "metadata": { "name": name, "labels": labels } })))
}

fn pod(namespace: &str, name: &str, app: &str, ip: &str, labels: &Value) -> Object {
    let mut all = json!({ "app": app, "security.istio.io/tlsMode": "istio" });
    all.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
    let args = if app == "edge" {
        json!(["proxy", "router"])
    } else {
        json!([])
    };
    let uid = format!("uid-of-{name}");
    Object::Pod(core(json!({
        "metadata": { "namespace": namespace, "name": name, "uid": uid, "labels": all },
        "spec": { "serviceAccountName": app, "containers": [{ "name": "istio-proxy", "args": args }] },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] },
    })))
}

fn service(namespace: &str, name: &str, variant: u8) -> Object {
    let mut ports = vec![json!({ "name": "http", "port": 80, "targetPort": 8080 })];
    if variant % 2 == 1 {
        ports.push(json!({ "name": "tcp-db", "port": 9000 }));
    }
    let address = if variant == 2 {
        "None".to_owned()
    } else {
        format!("10.96.{}.{}", namespace.len(), name.len())
    };
    Object::Service(core(json!({
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "clusterIP": address, "clusterIPs": [address], "ports": ports, "selector": { "app": name } },
    })))
}

fn slice(namespace: &str, service: &str, count: u8) -> Object {
    let endpoints: Vec<_> = (0..count)
        .map(|n| {
            json!({
                "addresses": [format!("10.2.{}.{}", namespace.len(), n + 1)],
                "conditions": { "ready": true },
                "targetRef": { "kind": "Pod", "namespace": namespace, "name": format!("{service}-{n}") },
            })
        })
        .collect();
    Object::EndpointSlice(core(json!({
        "metadata": {
            "namespace": namespace, "name": format!("{service}-s"), "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }, { "name": "tcp-db", "port": 9000 }],
        "endpoints": endpoints,
    })))
}

fn ours(kind: &str, namespace: &str, name: &str, spec: &Value) -> Object {
    let group = if kind == "PeerAuthentication" {
        "security.istio.io"
    } else {
        "networking.istio.io"
    };
    Object::from_json(json!({
        "apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": { "namespace": namespace, "name": name }, "spec": spec,
    }))
    .unwrap()
}

fn route(namespace: &str, host: &str, variant: u8) -> Object {
    let destination = |subset: Option<&str>| match subset {
        Some(subset) => json!({ "destination": { "host": host, "subset": subset } }),
        None => json!({ "destination": { "host": host } }),
    };
    let spec = match variant {
        0 => json!({ "hosts": [host], "http": [{ "timeout": "2s", "route": [destination(None)] }] }),
        1 => json!({ "hosts": [host], "http": [{ "route": [destination(Some("v1"))] }] }),
        2 => json!({
            "hosts": [host], "gateways": ["mesh/edge", "mesh"],
            "http": [{ "match": [{ "uri": { "prefix": "/x" } }], "route": [destination(None)] }],
        }),
        3 => json!({
            "hosts": [host],
            "http": [
                { "match": [{ "sourceLabels": { "tier": "gold" } }], "timeout": "9s", "route": [destination(None)] },
                { "route": [destination(None)] },
            ],
        }),
        _ => json!({ "hosts": ["*"], "gateways": ["mesh/edge"], "http": [{ "route": [destination(None)] }] }),
    };
    ours("VirtualService", namespace, &format!("route-{host}"), &spec)
}

fn rule(namespace: &str, host: &str, variant: u8) -> Object {
    let spec = match variant {
        0 => json!({ "host": host, "subsets": [{ "name": "v1", "labels": { "version": "v1" } }] }),
        1 => json!({ "host": host, "trafficPolicy": { "tls": { "mode": "DISABLE" } } }),
        2 => json!({
            "host": host, "workloadSelector": { "matchLabels": { "tier": "gold" } },
            "trafficPolicy": { "connectionPool": { "tcp": { "connectTimeout": "3s" } } },
        }),
        _ => json!({ "host": "*.svc.cluster.local", "trafficPolicy": { "loadBalancer": { "simple": "RANDOM" } } }),
    };
    ours("DestinationRule", namespace, &format!("rule-{host}"), &spec)
}

fn policy(namespace: &str, variant: u8) -> Object {
    let spec = match variant {
        0 => json!({ "mtls": { "mode": "STRICT" } }),
        1 => json!({ "mtls": { "mode": "DISABLE" } }),
        _ => json!({
            "selector": { "matchLabels": { "app": "a" } },
            "mtls": { "mode": "STRICT" }, "portLevelMtls": { "8080": { "mode": "PERMISSIVE" } },
        }),
    };
    ours("PeerAuthentication", namespace, "policy", &spec)
}

fn gateway(variant: u8) -> Object {
    let hosts = if variant == 0 {
        json!(["*"])
    } else {
        json!(["a", "shop/b.shop.svc.cluster.local"])
    };
    let spec = json!({
        "selector": { "app": "edge" },
        "servers": [{ "port": { "number": 80, "name": "http", "protocol": "HTTP" }, "hosts": hosts }],
    });
    ours("Gateway", ROOT, "edge", &spec)
}

const NAMESPACES: [&str; 2] = ["shop", "bank1"];
const SERVICES: [&str; 2] = ["a", "bb"];

#[derive(Debug, Clone)]
struct Move {
    what: u8,
    namespace: usize,
    service: usize,
    variant: u8,
    gone: bool,
}

impl Move {
    fn event(&self) -> Event {
        let (namespace_name, name) = (NAMESPACES[self.namespace], SERVICES[self.service]);
        let object = match self.what {
            0 => service(namespace_name, name, self.variant % 3),
            1 => slice(namespace_name, name, self.variant % 4),
            2 => {
                let labels = match self.variant % 3 {
                    0 => json!({ "version": "v1" }),
                    1 => json!({ "version": "v1", "tier": "gold" }),
                    _ => json!({}),
                };
                let ip = format!("10.2.{}.{}", namespace_name.len(), self.variant % 2 + 1);
                pod(
                    namespace_name,
                    &format!("{name}-{}", self.variant % 2),
                    name,
                    &ip,
                    &labels,
                )
            }
            3 => route(namespace_name, name, self.variant),
            4 => rule(namespace_name, name, self.variant % 4),
            5 => policy(if self.service == 0 { namespace_name } else { ROOT }, self.variant % 3),
            6 => gateway(self.variant % 2),
            _ => namespace(namespace_name, self.variant > 0),
        };
        // A namespace that goes takes its objects along; leaving the mesh is what matters here.
        if self.gone && self.what < 7 {
            Event::Delete(object.reference())
        } else {
            Event::Apply(object)
        }
    }
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = (0..8u8, 0..2usize, 0..2usize, 0..5u8, prop::bool::weighted(0.25)).prop_map(
        |(what, namespace, service, variant, gone)| Move {
            what,
            namespace,
            service,
            variant,
            gone,
        },
    );
    prop::collection::vec(one, 1..25)
}

struct Proxy {
    scope: Arc<Scope>,
    session: Session,
    mailbox: Arc<Mailbox>,
    wildcards: Vec<ResourceType>,
    names: BTreeMap<ResourceType, BTreeSet<String>>,
    has: BTreeMap<(ResourceType, String), Vec<u8>>,
}

impl Proxy {
    fn open(hub: &Arc<Hub>, id: StreamId, pod: &ObjectKey, kind: NodeKind, on_demand: bool) -> Self {
        let mesh = hub.mesh().unwrap();
        let workload = mesh.workload(pod).unwrap();
        let identity = SpiffeId::new(
            TrustDomain::default(),
            pod.namespace.clone(),
            workload.service_account.clone(),
        );
        let scope = Arc::new(Scope::new(&identity, workload, kind, on_demand).unwrap());
        let mailbox = Arc::new(Mailbox::new());
        let view = hub.admit(id, &mesh, scope.clone(), workload.uid.clone(), &mailbox);
        let mut session = Session::new(
            Protocol::Delta,
            view,
            Limits {
                unacknowledged: 1_000_000,
                ..Limits::default()
            },
        );

        let mut names: BTreeMap<ResourceType, BTreeSet<String>> = BTreeMap::new();
        for namespace in NAMESPACES {
            for service in SERVICES {
                for (port, subset) in [(80, ""), (80, "v1"), (9000, "")] {
                    let cluster = format!("outbound|{port}|{subset}|{service}.{namespace}.svc.cluster.local");
                    names.entry(ResourceType::Endpoint).or_default().insert(cluster.clone());
                    if on_demand {
                        names.entry(ResourceType::Cluster).or_default().insert(cluster);
                    }
                }
                for authority in [service.to_owned(), format!("{service}.{namespace}")] {
                    names
                        .entry(ResourceType::VirtualHost)
                        .or_default()
                        .insert(format!("80/{authority}"));
                }
                let address = format!("10.96.{}.{}_9000", namespace.len(), service.len());
                names.entry(ResourceType::Listener).or_default().insert(address);
            }
        }
        for name in ["virtualInbound", "virtualOutbound", "0.0.0.0_80"] {
            names.entry(ResourceType::Listener).or_default().insert(name.to_owned());
        }
        for name in ["80", "9000", "http.80"] {
            names.entry(ResourceType::Route).or_default().insert(name.to_owned());
        }
        let mut wildcards = Vec::new();
        if !on_demand {
            wildcards = vec![ResourceType::Cluster, ResourceType::Listener];
            names.remove(&ResourceType::Listener);
            names.remove(&ResourceType::VirtualHost);
        }
        let subscribe = |kind: ResourceType, names: Vec<String>| {
            let request = DeltaRequest {
                type_url: kind.type_url().into(),
                subscribe: names,
                ..DeltaRequest::default()
            };
            SessionEvent::Request(Request::Delta(request))
        };
        for kind in &wildcards {
            session.step(subscribe(*kind, vec!["*".into()]), Instant::now());
        }
        for (kind, names) in &names {
            session.step(subscribe(*kind, names.iter().cloned().collect()), Instant::now());
        }
        Self {
            scope,
            session,
            mailbox,
            wildcards,
            names,
            has: BTreeMap::new(),
        }
    }

    fn receive(&mut self) {
        if let Some(change) = self.mailbox.take() {
            let event = SessionEvent::Changed {
                view: change.view,
                dirty: change.dirty,
                since: change.since,
            };
            self.session.step(event, Instant::now());
        }
        while let Some(response) = self.session.respond() {
            let mizzen_xds::TypeUrl::Known(kind) = *response.type_url() else {
                panic!()
            };
            for resource in response.resources() {
                self.has
                    .insert((kind, resource.name().to_string()), resource.body().to_vec());
            }
            for name in response.removed() {
                self.has.remove(&(kind, name.to_string()));
            }
        }
    }

    fn due(&self, mesh: &Mesh) -> BTreeMap<(ResourceType, String), Vec<u8>> {
        let mut all: BTreeSet<(ResourceType, String)> = BTreeSet::new();
        for kind in &self.wildcards {
            all.extend(
                mizzen_translate::names(mesh, &self.scope, type_url(*kind))
                    .into_iter()
                    .map(|name| (*kind, name)),
            );
        }
        for (kind, names) in &self.names {
            all.extend(names.iter().map(|name| (*kind, name.clone())));
        }
        all.into_iter()
            .filter_map(|(kind, name)| {
                let found = mizzen_translate::resource(mesh, &self.scope, type_url(kind), &name)?;
                Some(((kind, name), found.body.to_vec()))
            })
            .collect()
    }
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(
        Kind::Pod,
        Namespace::new(namespace).unwrap(),
        ObjectName::new(name).unwrap(),
    )
}

struct Play {
    index: Index,
    hub: Arc<Hub>,
    proxies: Vec<Proxy>,
    reports: mpsc::Receiver<StatusEvent>,
}

impl Play {
    fn new() -> Self {
        let config = MeshConfig::new(Namespace::new(ROOT).unwrap(), TrustDomain::default());
        let mut settings = Settings::new(config);
        settings.membership = mizzen_index::Membership::Labelled;
        let mut index = Index::new(settings);
        let (status_tx, reports) = mpsc::channel(1);
        let hub = Hub::new(status_tx);
        let gold = json!({ "tier": "gold", "version": "v1" });
        let plain = json!({ "version": "v1" });
        let start = [
            namespace(ROOT, false),
            namespace("shop", true),
            namespace("bank1", true),
            service("shop", "a", 1),
            service("bank1", "bb", 0),
            pod("shop", "a-0", "a", "10.2.4.1", &plain),
            pod("shop", "a-1", "a", "10.2.4.2", &plain),
            pod("bank1", "bb-0", "bb", "10.2.5.1", &gold),
            pod(ROOT, "edge-0", "edge", "10.2.9.1", &json!({})),
        ];
        let changes = index.apply_all(start.into_iter().map(Event::Apply));
        hub.publish(index.snapshot(), &changes, Instant::now());
        let open = |id, namespace: &str, pod: &str, kind, on_demand| {
            Proxy::open(&hub, id, &key(namespace, pod), kind, on_demand)
        };
        let proxies = vec![
            open(1, "shop", "a-0", NodeKind::Sidecar, false),
            open(2, "shop", "a-1", NodeKind::Sidecar, false),
            open(3, "bank1", "bb-0", NodeKind::Sidecar, true),
            open(4, "shop", "a-0", NodeKind::Sidecar, true),
            open(5, ROOT, "edge-0", NodeKind::Gateway, false),
        ];
        Self {
            index,
            hub,
            proxies,
            reports,
        }
    }

    fn step(&mut self, event: Event) {
        let changes = self.index.apply(event);
        if !changes.is_empty() {
            self.hub.publish(self.index.snapshot(), &changes, Instant::now());
        }
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let mesh = self.index.snapshot();
        for (number, proxy) in self.proxies.iter_mut().enumerate() {
            proxy.receive();
            let due = proxy.due(&mesh);
            for (key, body) in &due {
                let has = proxy.has.get(key);
                prop_assert!(
                    has == Some(body),
                    "proxy {number}: {key:?} is {}",
                    if has.is_some() { "stale" } else { "missing" }
                );
            }
            for key in proxy.has.keys() {
                prop_assert!(due.contains_key(key), "proxy {number}: {key:?} should be gone");
            }
        }
        Ok(())
    }
}

/// A case translates a whole mesh several times: few by default.
fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(40);
    ProptestConfig::with_cases(cases)
}

proptest! {
    #![proptest_config(cases())]

    // J1, J2
    #[test]
    fn every_proxy_ends_with_what_translation_gives(moves in moves(), look in prop::collection::vec(any::<bool>(), 25)) {
        let mut play = Play::new();
        play.check()?;
        for (next, look) in moves.iter().zip(look) {
            play.step(next.event());
            if look {
                play.check()?;
            }
        }
        play.check()?;
    }
}

#[test]
fn proxies_that_see_the_same_share_one_encoding_and_unused_ones_are_forgotten() {
    let play = Play::new();
    let view = |id| play.hub.streams.lock().get(&id).unwrap().view.clone();
    let (first, replica, native) = (view(1), view(2), view(3));
    let name = "outbound|80||a.shop.svc.cluster.local";
    let one = first.resource(ResourceType::Cluster, name);
    assert!(one.is_present());
    assert!(Arc::ptr_eq(&one, &replica.resource(ResourceType::Cluster, name)));
    assert!(Arc::ptr_eq(
        &first.wildcard(ResourceType::Listener),
        &replica.wildcard(ResourceType::Listener)
    ));
    let endpoints = first.resource(ResourceType::Endpoint, name);
    assert!(Arc::ptr_eq(&endpoints, &native.resource(ResourceType::Endpoint, name)));

    drop(endpoints);
    play.hub.sweep();
    play.hub.sweep();
    let again = first.resource(ResourceType::Cluster, name);
    assert!(Arc::ptr_eq(&one, &again), "still held, so still there");
}

#[test]
fn the_same_object_again_marks_nothing() {
    let mut play = Play::new();
    play.check().unwrap();
    play.step(Event::Apply(service("shop", "a", 1)));
    play.step(Event::Delete(ObjectRef {
        kind: Kind::Service,
        namespace: "shop".into(),
        name: "none".into(),
    }));
    assert!(play.proxies.iter().all(|proxy| proxy.mailbox.take().is_none()));
}

/// What a caller with that pod's token is answered when it says that it is `id`.
fn knock(hub: &Arc<Hub>, id: &str, account: &str, uid: &str) -> (Arc<Mailbox>, Result<(), Refused>) {
    let mut parts = id.split('~').nth(2).unwrap().split('.');
    let (pod, namespace) = (parts.next().unwrap(), parts.next().unwrap());
    let identity = SpiffeId::new(
        TrustDomain::default(),
        Namespace::new(namespace).unwrap(),
        mizzen_identity::ServiceAccount::new(account).unwrap(),
    );
    let caller = mizzen_ca::Caller {
        identity,
        pod: Some(mizzen_ca::Pod {
            name: pod.into(),
            uid: uid.into(),
        }),
    };
    let mut extensions = tonic::Extensions::new();
    extensions.insert(caller);
    let node = Node {
        id: id.into(),
        ..Node::default()
    };
    let mailbox = Arc::new(Mailbox::new());
    let answer = HubSource(hub.clone()).open(99, &extensions, &node, &mailbox);
    (mailbox, answer.map(|opened| drop(opened.guard)))
}

// E7
#[test]
fn a_token_of_another_pod_of_the_same_name_is_not_let_in() {
    let play = Play::new();
    let id = "sidecar~10.2.4.1~a-0.shop~shop.svc.cluster.local";
    assert!(knock(&play.hub, id, "a", "uid-of-a-0").1.is_ok());
    let (_, stale) = knock(&play.hub, id, "a", "uid-of-the-one-before");
    assert!(
        matches!(&stale, Err(Refused::NotReady(why)) if why.contains("uid-of-the-one-before")),
        "{stale:?}"
    );
    assert!(matches!(
        knock(&play.hub, id, "other", "uid-of-a-0").1,
        Err(Refused::Forbidden(_))
    ));
}

// E7
#[test]
fn only_a_pod_that_is_a_gateway_is_let_in_as_one() {
    let play = Play::new();
    let (_, sidecar) = knock(&play.hub, "router~10.2.4.1~a-0.shop~d", "a", "uid-of-a-0");
    assert!(
        matches!(&sidecar, Err(Refused::Forbidden(why)) if why.contains("no gateway")),
        "{sidecar:?}"
    );
    let (_, edge) = knock(&play.hub, "sidecar~10.2.9.1~edge-0.mesh~d", "edge", "uid-of-edge-0");
    assert!(
        matches!(&edge, Err(Refused::Forbidden(why)) if why.contains("no sidecar")),
        "{edge:?}"
    );
    assert!(
        knock(&play.hub, "router~10.2.9.1~edge-0.mesh~d", "edge", "uid-of-edge-0")
            .1
            .is_ok()
    );
}

// E7, A3
#[test]
fn a_stream_ends_when_its_pod_is_another_or_its_namespace_leaves_the_mesh() {
    let mut play = Play::new();
    let ended = |play: &Play| {
        play.proxies
            .iter()
            .map(|proxy| proxy.mailbox.ended().is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(ended(&play), [false; 5]);
    play.step(Event::Apply(namespace("bank1", false)));
    assert_eq!(ended(&play), [false, false, true, false, false]);
    let mut other = pod("shop", "a-1", "a", "10.2.4.2", &json!({ "version": "v1" }));
    if let Object::Pod(pod) = &mut other {
        pod.metadata.uid = Some("another".into());
    }
    play.step(Event::Apply(other));
    assert_eq!(ended(&play), [false, true, true, false, false]);
    play.step(Event::Delete(ObjectRef {
        kind: Kind::Pod,
        namespace: "shop".into(),
        name: "a-0".into(),
    }));
    assert_eq!(ended(&play), [true, true, true, true, false]);
}

/// Has a proxy take what is due like an Envoy that refuses a table in which a route is called bad, and tells the hub what it
/// says. Gives the names of the routes by virtual host, of what it has in the end.
fn talk(play: &mut Play, number: usize) -> BTreeMap<String, Vec<String>> {
    use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
    use prost::Message as _;
    let (id, source) = (number as StreamId + 1, HubSource(play.hub.clone()));
    let proxy = &mut play.proxies[number];
    let mut has = BTreeMap::new();
    loop {
        if let Some(change) = proxy.mailbox.take() {
            let event = SessionEvent::Changed {
                view: change.view,
                dirty: change.dirty,
                since: change.since,
            };
            proxy.session.step(event, Instant::now());
        }
        let Some(response) = proxy.session.respond() else {
            return has;
        };
        let mizzen_xds::TypeUrl::Known(kind) = *response.type_url() else {
            panic!()
        };
        let tables: Vec<_> = response
            .resources()
            .iter()
            .filter(|_| kind == ResourceType::Route)
            .map(|table| RouteConfiguration::decode(table.body()).unwrap())
            .collect();
        let routes = |host: &envoy_types::pb::envoy::config::route::v3::VirtualHost| {
            host.routes.iter().map(|route| route.name.clone()).collect::<Vec<_>>()
        };
        let bad = tables
            .iter()
            .flat_map(|table| &table.virtual_hosts)
            .any(|host| routes(host).contains(&"bad".to_owned()));
        if !bad {
            for host in tables.iter().flat_map(|table| &table.virtual_hosts) {
                has.insert(host.name.clone(), routes(host));
            }
        }
        let answer = DeltaRequest {
            type_url: kind.type_url().into(),
            response_nonce: response.nonce().to_string(),
            error_detail: bad.then(|| mizzen_xds::wire::ErrorDetail {
                code: 13,
                message: "I do not like that".into(),
            }),
            ..DeltaRequest::default()
        };
        for action in proxy
            .session
            .step(SessionEvent::Request(Request::Delta(answer)), Instant::now())
        {
            match action {
                mizzen_xds::Action::Acknowledged { kind, resources, .. } => source.accepted(id, kind, &resources),
                mizzen_xds::Action::Rejected(nack) => source.rejected(id, &nack),
                mizzen_xds::Action::Refuse(refusal) => panic!("{refusal}"),
            }
        }
    }
}

// G1, C8
#[test]
fn routes_that_an_envoy_refuses_are_left_out_for_all_and_told_on_their_virtual_service() {
    let mut play = Play::new();
    let named = |namespace: &str, host: &str, name: &str| {
        let to = json!({ "destination": { "host": host } });
        let spec = json!({ "hosts": [host], "http": [{ "name": name, "route": [to] }] });
        Event::Apply(ours("VirtualService", namespace, &format!("of-{host}"), &spec))
    };
    let (a, bb) = ("a.shop.svc.cluster.local:80", "bb.bank1.svc.cluster.local:80");
    play.step(named("shop", "a", "first"));
    play.step(named("bank1", "bb", "first"));
    let has = talk(&mut play, 0);
    assert_eq!(
        (&has[a], &has[bb]),
        (&vec!["first".to_owned()], &vec!["first".to_owned()])
    );

    play.step(named("shop", "a", "bad"));
    play.step(named("bank1", "bb", "second"));
    let has = talk(&mut play, 0);
    // That of the other namespace came in the same table, so both are tried; one is found.
    assert_eq!(
        (&has[a], &has[bb]),
        (&vec!["first".to_owned()], &vec!["second".to_owned()])
    );
    let told = play.reports.try_recv().unwrap();
    let StatusEvent::Guilty { object, message } = &told else {
        panic!("{told:?}")
    };
    assert_eq!((object.namespace.as_str(), object.name.as_str()), ("shop", "of-a"));
    assert!(message.contains("I do not like that"), "{message}");
    assert!(play.reports.try_recv().is_err(), "nobody else is told anything");
    // Its replica is not even asked to take it.
    let has = talk(&mut play, 1);
    assert_eq!(
        (&has[a], &has[bb]),
        (&vec!["first".to_owned()], &vec!["second".to_owned()])
    );

    play.step(named("shop", "a", "repaired"));
    assert!(matches!(play.reports.try_recv(), Ok(StatusEvent::Cleared(object)) if object.name.as_str() == "of-a"));
    let has = talk(&mut play, 0);
    assert_eq!(
        (&has[a], &has[bb]),
        (&vec!["repaired".to_owned()], &vec!["second".to_owned()])
    );
}

/// Prints what a storm of proxies costs: run with `--ignored --nocapture`, in release mode for figures that count.
#[test]
#[ignore = "a measurement"]
fn storm() {
    let number = |key: &str, default: u32| std::env::var(key).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (services, proxies) = (number("STORM_SERVICES", 200), number("STORM_PROXIES", 200));
    let config = MeshConfig::new(Namespace::new(ROOT).unwrap(), TrustDomain::default());
    let mut index = Index::new(Settings::new(config));
    let mut events = Vec::new();
    for n in 0..services {
        let (space, app) = (format!("ns-{}", n % 20), format!("app-{n}"));
        let ip = |k: u32| format!("10.{}.{}.{}", k, n / 250, n % 250 + 1);
        events.push(namespace(&space, false));
        let address = ip(96);
        events.push(Object::Service(core(json!({
            "metadata": { "namespace": space, "name": app },
            "spec": { "clusterIP": address, "clusterIPs": [address], "ports": [{ "name": "http", "port": 80 }] },
        }))));
        for k in 0..2 {
            events.push(pod(
                &space,
                &format!("{app}-{k}"),
                &app,
                &ip(k + 1),
                &json!({ "version": "v1" }),
            ));
        }
        let endpoints: Vec<_> = (0..2)
            .map(|k| {
                let target = json!({ "kind": "Pod", "namespace": space, "name": format!("{app}-{k}") });
                json!({ "addresses": [ip(k + 1)], "conditions": { "ready": true }, "targetRef": target })
            })
            .collect();
        events.push(Object::EndpointSlice(core(json!({
            "metadata": { "namespace": space, "name": app, "labels": { "kubernetes.io/service-name": app } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": 80 }], "endpoints": endpoints,
        }))));
    }
    let started = Instant::now();
    let changes = index.apply_all(events.into_iter().map(Event::Apply));
    println!("index: {:?}", started.elapsed());
    let (status_tx, _reports) = mpsc::channel(1);
    let hub = Hub::new(status_tx);
    hub.publish(index.snapshot(), &changes, Instant::now());
    let clusters: Vec<String> = (0..services)
        .map(|n| format!("outbound|80||app-{n}.ns-{}.svc.cluster.local", n % 20))
        .collect();
    let started = Instant::now();
    let mut sessions = Vec::new();
    let mut bytes = 0;
    for n in 0..proxies {
        let (service, replica) = (n % services, n / services % 2);
        let pod = key(&format!("ns-{}", service % 20), &format!("app-{service}-{replica}"));
        let mut proxy = Proxy::open(&hub, u64::from(n), &pod, NodeKind::Sidecar, false);
        let request = DeltaRequest {
            type_url: ResourceType::Endpoint.type_url().into(),
            subscribe: clusters.clone(),
            ..DeltaRequest::default()
        };
        proxy
            .session
            .step(SessionEvent::Request(Request::Delta(request)), Instant::now());
        while let Some(response) = proxy.session.respond() {
            bytes += response.to_bytes().len();
        }
        sessions.push(proxy);
        if (n + 1) % (proxies / 4).max(1) == 0 {
            println!(
                "{} proxies have all: {:?}, {} KiB",
                n + 1,
                started.elapsed(),
                bytes / 1024
            );
        }
    }
    for (what, event) in [
        ("endpoints", slice("ns-0", "app-0", 1)),
        ("route", route("ns-1", "app-1.ns-1.svc.cluster.local", 0)),
        ("rule", rule("ns-2", "app-2.ns-2.svc.cluster.local", 1)),
    ] {
        let started = Instant::now();
        let changes = index.apply(Event::Apply(event));
        hub.publish(index.snapshot(), &changes, Instant::now());
        let published = started.elapsed();
        let mut bytes = 0;
        for proxy in &mut sessions {
            if let Some(change) = proxy.mailbox.take() {
                let event = SessionEvent::Changed {
                    view: change.view,
                    dirty: change.dirty,
                    since: change.since,
                };
                proxy.session.step(event, Instant::now());
            }
            while let Some(response) = proxy.session.respond() {
                bytes += response.to_bytes().len();
            }
        }
        println!(
            "{what}: published {published:?}, at all proxies {:?}, {} KiB",
            started.elapsed(),
            bytes / 1024
        );
    }
}
