//! What discovery really sends must convert without a problem: Kubernetes objects → index → translate → this crate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly; the configured exception does not cover helpers of integration tests"
)]

use mizzen_decide::{ConnectionFacts, Needs, chain};
use mizzen_index::{Event, Index, Object, Settings};
use mizzen_model::{Mesh, MeshConfig, Namespace, ObjectKey, ServiceAccount, SpiffeId, TrustDomain, Workload};
use mizzen_proxy_config::{
    Action, ChainTransport, Cluster, Discovery, EndpointSet, Health, Kind, Listener, PathMatch, Protocol, Resource,
    RouteConfig, RouteSource, TransportProtocol, TransportSocket, VirtualHost, XdsType,
};
use mizzen_translate::{NodeKind, Scope, TypeUrl, names, resource};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const SPACE: &str = "tutorial";

fn objects(mode: &str) -> Vec<Value> {
    let service = |name: &str, app: &str, ports: Value, ip: &str| {
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": SPACE, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "selector": {"app": app}, "ports": ports}})
    };
    let http = json!([{"name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP"}]);
    let pod = |name: &str, app: &str, version: &str, ip: &str| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": SPACE, "uid": name,
                "labels": {"app": app, "version": version, "security.istio.io/tlsMode": "istio"},
                "annotations": {"sidecar.istio.io/status": "{}"}},
            "spec": {"serviceAccountName": app, "nodeName": "node-a",
                "containers": [{"name": "app", "image": "x"}, {"name": "istio-proxy", "image": "y"}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    let slice = |service: &str, port: Value, pods: &[(&str, &str)]| {
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|(pod, ip)| {
                json!({"addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false},
                    "targetRef": {"kind": "Pod", "name": pod, "namespace": SPACE}, "nodeName": "node-a"})
            })
            .collect();
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{service}-1"), "namespace": SPACE,
                "labels": {"kubernetes.io/service-name": service}},
            "endpoints": endpoints, "ports": [port]})
    };
    let http_port = json!({"name": "http", "port": 8080, "protocol": "TCP"});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}),
        service("customer", "customer", http.clone(), "10.96.0.1"),
        service("recommendation", "recommendation", http, "10.96.0.2"),
        service(
            "guess",
            "guess",
            json!([{"name": "any", "port": 7000, "targetPort": 7000, "protocol": "TCP"}]),
            "10.96.0.3",
        ),
        service(
            "store",
            "store",
            json!([{"name": "tcp-db", "port": 5432, "targetPort": 5432, "protocol": "TCP"}]),
            "10.96.0.4",
        ),
        pod("customer-1", "customer", "v1", "10.0.0.1"),
        pod("recommendation-v1", "recommendation", "v1", "10.0.0.2"),
        pod("recommendation-v2", "recommendation", "v2", "10.0.0.3"),
        pod("guess-1", "guess", "v1", "10.0.0.4"),
        slice("customer", http_port.clone(), &[("customer-1", "10.0.0.1")]),
        slice(
            "recommendation",
            http_port,
            &[("recommendation-v1", "10.0.0.2"), ("recommendation-v2", "10.0.0.3")],
        ),
        slice(
            "guess",
            json!({"name": "any", "port": 7000, "protocol": "TCP"}),
            &[("guess-1", "10.0.0.4")],
        ),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": "recommendation", "namespace": SPACE},
            "spec": {"host": "recommendation",
                "trafficPolicy": {
                    "connectionPool": {"tcp": {"maxConnections": 7, "tcpKeepalive": {"time": "30s"}},
                        "http": {"http1MaxPendingRequests": 8, "maxRequestsPerConnection": 9}},
                    "outlierDetection": {"consecutive5xxErrors": 3, "interval": "5s", "baseEjectionTime": "10s", "maxEjectionPercent": 100},
                    "loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}},
                "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "recommendation", "namespace": SPACE},
            "spec": {"hosts": ["recommendation"], "http": [
                {"name": "canary-user", "match": [
                    {"uri": {"regex": "/v[0-9]+/.*"}, "headers": {"x-user": {"exact": "eve"}}, "queryParams": {"debug": {"exact": "1"}}},
                    {"uri": {"prefix": "/old"}, "method": {"exact": "POST"}, "withoutHeaders": {"x-skip": {}}}],
                 "rewrite": {"uri": "/new", "authority": "other"},
                 "headers": {"request": {"set": {"x-a": "1"}, "remove": ["x-b"]}, "response": {"add": {"x-c": "%RESPONSE_CODE%"}}},
                 "fault": {"delay": {"percentage": {"value": 50}, "fixedDelay": "2s"}, "abort": {"percentage": {"value": 12.5}, "httpStatus": 418}},
                 "retries": {"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx,connect-failure,retriable-status-codes"},
                 "corsPolicy": {"allowOrigins": [{"exact": "https://a.example"}], "allowMethods": ["GET"], "maxAge": "24h"},
                 "mirror": {"host": "recommendation", "subset": "v2"}, "mirrorPercentage": {"value": 10},
                 "timeout": "3s",
                 "route": [{"destination": {"host": "recommendation", "subset": "v2"}}]},
                {"match": [{"uri": {"exact": "/moved"}}], "redirect": {"uri": "/there", "authority": "else.example", "redirectCode": 302}},
                {"match": [{"uri": {"exact": "/direct"}}], "directResponse": {"status": 418, "body": {"string": "teapot"}}},
                {"match": [{"uri": {"exact": "/nowhere"}}], "route": [{"destination": {"host": "nobody.example"}}]},
                {"route": [
                    {"destination": {"host": "recommendation", "subset": "v1"}, "weight": 90},
                    {"destination": {"host": "recommendation", "subset": "v2"}, "weight": 10, "headers": {"request": {"set": {"x-canary": "yes"}}}}]}]}}),
        json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "default", "namespace": SPACE},
            "spec": {"mtls": {"mode": mode}}}),
    ]
}

fn object(json: Value) -> Object {
    let typed = |json: &Value| -> Option<Object> {
        Some(match json["kind"].as_str()? {
            "Namespace" => Object::Namespace(serde_json::from_value(json.clone()).unwrap()),
            "Service" => Object::Service(serde_json::from_value(json.clone()).unwrap()),
            "Pod" => Object::Pod(serde_json::from_value(json.clone()).unwrap()),
            "EndpointSlice" => Object::EndpointSlice(serde_json::from_value(json.clone()).unwrap()),
            _ => return None,
        })
    };
    typed(&json).unwrap_or_else(|| Object::from_json(json).unwrap())
}

struct World {
    mesh: Arc<Mesh>,
    sidecar: Scope,
    whole: Scope,
}

fn world() -> World {
    world_with("PERMISSIVE")
}

fn world_with(mode: &str) -> World {
    let domain = TrustDomain::new("cluster.local").unwrap();
    let mut index = Index::new(Settings::new(MeshConfig::new(
        Namespace::new("istio-system").unwrap(),
        domain.clone(),
    )));
    index.apply_all(objects(mode).into_iter().map(|json| Event::Apply(object(json))));
    let mesh = index.snapshot();
    let customer: &Arc<Workload> = mesh.workloads().find(|w| w.key.name.as_str() == "customer-1").unwrap();
    let space = Namespace::new(SPACE).unwrap();
    let caller = SpiffeId::new(domain, space, ServiceAccount::new("customer").unwrap());
    let _: &ObjectKey = &customer.key;
    let scope = |on_demand| Scope::new(&caller, customer, NodeKind::Sidecar, on_demand).unwrap();
    let (sidecar, whole) = (scope(true).for_native(), scope(false).for_native());
    World { mesh, sidecar, whole }
}

fn type_url(kind: Kind) -> TypeUrl {
    match kind {
        Kind::Cluster => TypeUrl::Cluster,
        Kind::Endpoints => TypeUrl::Endpoints,
        Kind::Listener => TypeUrl::Listener,
        Kind::RouteConfig => TypeUrl::Route,
        Kind::VirtualHost => TypeUrl::VirtualHost,
    }
}

fn get<T: XdsType>(world: &World, scope: &Scope, name: &str) -> T {
    let sent = resource(&world.mesh, scope, type_url(T::KIND), name).unwrap_or_else(|| panic!("{name} is not served"));
    let outcome = T::decode(&sent.body);
    assert!(outcome.problems.is_empty(), "{name}: {}", outcome.problems);
    outcome.value.unwrap()
}

#[test]
fn everything_that_discovery_sends_converts() {
    let world = world();
    for scope in [&world.sidecar, &world.whole] {
        for kind in [Kind::Cluster, Kind::Listener] {
            let all = names(&world.mesh, scope, type_url(kind));
            assert!(!all.is_empty());
            for name in all {
                let sent = resource(&world.mesh, scope, type_url(kind), &name).unwrap();
                let outcome = Resource::decode(kind, &sent.body);
                assert!(outcome.problems.is_empty(), "{kind} {name}: {}", outcome.problems);
                assert_eq!(outcome.value.unwrap().name(), name);
            }
        }
    }
}

// C1, C2, C4, D1, D2, D5
#[test]
fn a_virtual_service_becomes_routes() {
    let world = world();
    let config: RouteConfig = get(&world, &world.sidecar, "8080");
    assert!(config.vhds);
    let host: VirtualHost = get(&world, &world.sidecar, "8080/recommendation");
    assert!(
        host.domains
            .iter()
            .any(|domain| &**domain == "recommendation.tutorial.svc.cluster.local")
    );
    assert!(host.domains.iter().any(|domain| &**domain == "recommendation"));
    let first = &host.routes[0];
    assert!(matches!(first.matches.path, PathMatch::Regex(_)));
    assert!(first.fault.as_ref().unwrap().delay.is_some() && first.fault.as_ref().unwrap().abort.is_some());
    let Action::Forward(forward) = &first.action else {
        panic!("{:?}", first.action)
    };
    assert_eq!(forward.timeout, Some(std::time::Duration::from_secs(3)));
    assert_eq!(forward.retry.as_ref().unwrap().retries, 3);
    assert_eq!(forward.mirrors.len(), 1);
    assert!(
        matches!(host.routes[2].action, Action::Redirect(_)),
        "{:?}",
        host.routes[2].action
    );
    assert!(matches!(host.routes[3].action, Action::Direct(_)));
    let Action::Forward(canary) = &host.routes.last().unwrap().action else {
        panic!()
    };
    let weights: Vec<_> = canary
        .clusters
        .entries
        .iter()
        .map(|entry| (entry.cluster.as_str(), entry.weight))
        .collect();
    assert_eq!(
        weights,
        [
            ("outbound|8080|v1|recommendation.tutorial.svc.cluster.local", 90),
            ("outbound|8080|v2|recommendation.tutorial.svc.cluster.local", 10)
        ]
    );
    assert_eq!(canary.clusters.total, 100);
}

// D3, D4, E3
#[test]
fn a_destination_becomes_a_cluster_with_limits_and_mutual_tls() {
    let world = world();
    let name = "outbound|8080|v1|recommendation.tutorial.svc.cluster.local";
    let cluster: Cluster = get(&world, &world.sidecar, name);
    assert_eq!(cluster.breaker.connections, 7);
    assert_eq!(cluster.breaker.pending, 8);
    assert_eq!(cluster.max_requests_per_connection, Some(9));
    assert_eq!(cluster.outlier.unwrap().consecutive_5xx, Some(3));
    assert_eq!(cluster.panic_percent, 0);
    assert_eq!(&*cluster.service.as_ref().unwrap().name, "recommendation");
    let Discovery::Eds(set_name) = &cluster.discovery else {
        panic!()
    };
    let set: EndpointSet = get(&world, &world.sidecar, set_name);
    let [endpoint] = &*set.endpoints else { panic!("{set:?}") };
    assert_eq!(endpoint.health, Health::Healthy);
    assert!(endpoint.is_meshed());
    assert_eq!(&*endpoint.workload.as_ref().unwrap().namespace, SPACE);
    let TransportSocket::Tls(tls) = cluster.socket_for(endpoint) else {
        panic!("plain text to a meshed endpoint")
    };
    assert!(tls.is_mutual());
    let sans = format!("{:?}", tls.validation.as_ref().unwrap().sans);
    assert!(
        sans.contains("spiffe://cluster.local/ns/tutorial/sa/recommendation"),
        "{sans}"
    );
    assert!(tls.sni.is_some());
}

// E3
#[test]
fn inbound_chains_are_told_apart() {
    let world = world();
    let listener: Listener = get(&world, &world.sidecar, "virtualInbound");
    let ports: BTreeSet<_> = listener
        .chains
        .iter()
        .filter_map(|chain| chain.matches.destination_port)
        .collect();
    assert!(ports.contains(&8080) && ports.contains(&15006));
    for chain in &listener.chains {
        assert!(!matches!(chain.protocol, Protocol::Closed(_)), "{chain:?}");
        if let Protocol::Http(http) = &chain.protocol {
            assert!(matches!(http.routes, RouteSource::Inline(_)));
        }
    }
    let own: Cluster = get(&world, &world.sidecar, "inbound|8080||");
    assert_eq!(own.discovery, Discovery::OriginalDst { port: None });
    assert_eq!(own.bind, Some("127.0.0.6".parse().unwrap()));
}

/// What an inbound connection to `port` meets: `tls` or `raw`, `http` or `tcp`; `closed` when no chain wants it.
fn met(listener: &Listener, port: u16, transport: TransportProtocol, protocols: &[&[u8]]) -> String {
    let facts = ConnectionFacts {
        destination: ([10, 0, 0, 1], port).into(),
        source: [10, 0, 0, 9].into(),
        transport,
        server_name: None,
        protocols,
    };
    let Some(chain) = chain::select(listener, &facts) else {
        return "closed".to_owned();
    };
    let transport = match chain.transport {
        ChainTransport::Raw => "raw",
        ChainTransport::Tls(_) => "tls",
    };
    match chain.protocol {
        Protocol::Http(_) => format!("{transport} http"),
        Protocol::Tcp(_) => format!("{transport} tcp"),
        Protocol::Closed(_) => "closed".to_owned(),
    }
}

// E3, C5
#[test]
fn peer_authentication_decides_what_is_let_in() {
    let (tls, raw) = (TransportProtocol::Tls, TransportProtocol::Raw);
    let listener = |mode| -> Listener {
        let world = world_with(mode);
        get(&world, &world.sidecar, "virtualInbound")
    };
    let needs = |listener: &Listener, port: u16| chain::needs(listener, ([10, 0, 0, 1], port).into());

    let permissive = listener("PERMISSIVE");
    assert_eq!(met(&permissive, 8080, tls, &[b"istio-http/1.1"]), "tls http");
    assert_eq!(met(&permissive, 8080, tls, &[b"istio-h2"]), "tls http");
    assert_eq!(met(&permissive, 8080, raw, &[]), "raw http");
    assert_eq!(met(&permissive, 9999, tls, &[b"istio"]), "tls tcp");
    assert_eq!(met(&permissive, 9999, tls, &[b"h2"]), "raw tcp");
    assert_eq!(met(&permissive, 9999, raw, &[b"http/1.1"]), "raw http");
    assert_eq!(met(&permissive, 9999, raw, &[]), "raw tcp");
    assert_eq!(needs(&permissive, 8080), Needs { tls: true, http: false });
    assert_eq!(needs(&permissive, 9999), Needs { tls: true, http: true });

    let strict = listener("STRICT");
    assert_eq!(met(&strict, 8080, tls, &[]), "tls http");
    assert_eq!(met(&strict, 8080, raw, &[]), "closed");
    assert_eq!(met(&strict, 9999, tls, &[b"istio"]), "tls tcp");
    assert_eq!(met(&strict, 9999, raw, &[b"http/1.1"]), "closed");
    assert_eq!(needs(&strict, 8080), Needs { tls: true, http: false });

    let disabled = listener("DISABLE");
    assert_eq!(met(&disabled, 8080, raw, &[]), "raw http");
    assert_eq!(needs(&disabled, 8080), Needs::default());
}

// C1, C2
#[test]
fn requests_are_routed_as_the_virtual_service_says() {
    struct Get(&'static str, &'static str);
    impl mizzen_decide::Request for Get {
        fn method(&self) -> &[u8] {
            b"GET"
        }
        fn path(&self) -> &[u8] {
            self.0.as_bytes()
        }
        fn authority(&self) -> &[u8] {
            b"recommendation:8080"
        }
        fn scheme(&self) -> &[u8] {
            b"http"
        }
        fn header(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
            (name == "x-user" && !self.1.is_empty()).then(|| self.1.as_bytes().into())
        }
    }
    let world = world();
    let config: RouteConfig = get(&world, &world.sidecar, "8080");
    let name = mizzen_decide::vhds_name(&config.name, b"Recommendation:8080").unwrap();
    let host: VirtualHost = get(&world, &world.sidecar, &name);
    let mut canary = 0;
    for random in 0..1000 {
        let route = mizzen_decide::find_route(&host, &Get("/any", ""), random).unwrap();
        let Action::Forward(forward) = &route.action else {
            panic!()
        };
        let cluster = mizzen_decide::pick_cluster(&forward.clusters, random).unwrap();
        canary += u32::from(cluster.cluster.contains("|v2|"));
    }
    assert!((70..=130).contains(&canary), "{canary}");
    let route = mizzen_decide::find_route(&host, &Get("/v1/x?debug=1", "eve"), 1).unwrap();
    let Action::Forward(forward) = &route.action else {
        panic!()
    };
    assert!(forward.clusters.entries[0].cluster.contains("|v2|"));
    // Whoever the mesh does not know meets what the policy for unknown destinations says.
    let unknown = mizzen_decide::find_virtual_host(&config, b"nobody.example").unwrap();
    let route = mizzen_decide::find_route(unknown, &Get("/", ""), 1).unwrap();
    assert!(
        matches!(&route.action, Action::Forward(forward) if forward.clusters.entries[0].cluster.as_str() == "PassthroughCluster")
    );
}
