use std::sync::Arc;

use mizzen_model::{
    Change, Changes, Destination, EndpointHealth, EndpointTls, Host, Kind, MeshConfig, MtlsMode, ObjectName, Protocol,
    SubsetName, TrustDomain, Unresolved,
};
use serde_json::{Value as Json, json};

use super::*;
use crate::Severity;

const ROOT: &str = "istio-system";

fn settings() -> Settings {
    let config = MeshConfig::new(
        Namespace::new(ROOT).unwrap(),
        TrustDomain::new("cluster.local").unwrap(),
    );
    Settings {
        mesh_config_map: Some(ObjectName::new("istio-basic").unwrap()),
        ..Settings::new(config)
    }
}

fn multi_tenant() -> Settings {
    Settings {
        membership: Membership::Labelled,
        ..settings()
    }
}

/// An object from JSON, of any kind.
fn object(json: Json) -> Object {
    fn typed<T: serde::de::DeserializeOwned>(json: Json) -> Box<T> {
        Box::new(serde_json::from_value(json).unwrap())
    }
    match json["kind"].as_str().unwrap() {
        "Namespace" => Object::Namespace(typed(json)),
        "Node" => Object::Node(typed(json)),
        "Service" => Object::Service(typed(json)),
        "EndpointSlice" => Object::EndpointSlice(typed(json)),
        "Pod" => Object::Pod(typed(json)),
        "ConfigMap" => Object::ConfigMap(typed(json)),
        _ => Object::from_json(json).unwrap(),
    }
}

fn apply(index: &mut Index, json: Json) -> Changes {
    index.apply(Event::Apply(object(json)))
}

fn delete(index: &mut Index, json: Json) -> Changes {
    let reference = object(json).reference();
    index.apply(Event::Delete(reference))
}

fn namespace_object(name: &str, member: bool) -> Json {
    let labels = if member { json!({MEMBER_OF: ROOT}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn service() -> Json {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "reviews", "namespace": "tutorial", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "selector": {"app": "reviews"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "tcp-admin", "port": 90, "targetPort": 9000}],
        },
    })
}

fn pod(name: &str, ip: &str, version: &str) -> Json {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "tutorial",
            "labels": {"app": "reviews", "version": version, "pod-template-hash": "6d9c"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("reviews-{version}-6d9c"), "uid": "u", "controller": true}],
        },
        "spec": {
            "serviceAccountName": "reviewer", "nodeName": "node1",
            "containers": [
                {"name": "app", "ports": [{"name": "web", "containerPort": 8080}]},
                {"name": "istio-proxy", "ports": [{"name": "http-envoy-prom", "containerPort": 15090}]},
            ],
        },
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    })
}

fn slice(name: &str, endpoints: &[(&str, &str, bool, bool)]) -> Json {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(pod, ip, ready, terminating)| {
            json!({
                "addresses": [ip], "nodeName": "node1",
                "conditions": {"ready": ready, "serving": true, "terminating": terminating},
                "targetRef": {"kind": "Pod", "name": pod, "namespace": "tutorial"},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "tutorial", "labels": {"kubernetes.io/service-name": "reviews"}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "tcp-admin", "port": 9000, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

fn node(zone: &str) -> Json {
    let labels = json!({"topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": zone});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1", "labels": labels}})
}

fn config(kind: &str, name: &str, second: u32, spec: Json) -> Json {
    let group = if kind == "PeerAuthentication" {
        "security.istio.io"
    } else {
        "networking.istio.io"
    };
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec,
        "metadata": {
            "name": name, "namespace": "tutorial", "generation": 3,
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
        },
    })
}

fn route(name: &str, second: u32) -> Json {
    let to = json!([{"destination": {"host": "reviews", "subset": "v1"}}]);
    config(
        "VirtualService",
        name,
        second,
        json!({"hosts": ["reviews"], "http": [{"route": to}]}),
    )
}

fn rule() -> Json {
    config(
        "DestinationRule",
        "reviews",
        1,
        json!({"host": "reviews", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}),
    )
}

fn policy(mode: &str) -> Json {
    config("PeerAuthentication", "default", 1, json!({"mtls": {"mode": mode}}))
}

fn mesh_config(text: &str) -> Json {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"mesh": text},
        "metadata": {"name": "istio-basic", "namespace": ROOT},
    })
}

fn all() -> Vec<Json> {
    vec![
        namespace_object("tutorial", true),
        namespace_object(ROOT, false),
        node("z1"),
        service(),
        pod("reviews-1", "10.1.0.1", "v1"),
        pod("reviews-2", "10.1.0.2", "v2"),
        slice(
            "reviews-a",
            &[
                ("reviews-1", "10.1.0.1", true, false),
                ("reviews-2", "10.1.0.2", true, false),
            ],
        ),
        route("reviews", 5),
        rule(),
        policy("STRICT"),
        mesh_config("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}"),
    ]
}

fn host() -> Host {
    Host::new("reviews.tutorial.svc.cluster.local").unwrap()
}

/// Everything in a mesh, for comparison.
fn content(mesh: &Mesh) -> String {
    let labels: Vec<_> = mesh
        .namespaces()
        .map(|namespace| (namespace, mesh.namespace_labels(namespace)))
        .collect();
    let services: Vec<_> = mesh
        .services()
        .map(|service| (service, mesh.endpoints(&service.host)))
        .collect();
    let workloads: Vec<_> = mesh.workloads().collect();
    let routes: Vec<_> = mesh.virtual_services().collect();
    let rules: Vec<_> = mesh.destination_rules().collect();
    let gateways: Vec<_> = mesh.gateways().collect();
    let policies: Vec<_> = mesh.peer_authentications().collect();
    let config = mesh.config();
    format!("{labels:#?} {services:#?} {workloads:#?} {routes:#?} {rules:#?} {gateways:#?} {policies:#?} {config:#?}")
}

// C1, C5, E1, E3
#[test]
fn objects_become_services_endpoints_and_workloads() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    let mesh = index.snapshot();
    let service = mesh.service(&host()).unwrap();
    assert_eq!(
        service
            .ports
            .iter()
            .map(|port| (port.number, port.protocol))
            .collect::<Vec<_>>(),
        [(80, Protocol::Http), (90, Protocol::Tcp)]
    );
    let endpoints = mesh.endpoints(&host()).unwrap();
    let first = endpoints.iter().next().unwrap();
    assert_eq!(first.address.to_string(), "10.1.0.1");
    assert_eq!(first.ports, BTreeMap::from([(80, 8080), (90, 9000)]));
    assert_eq!(
        first.identity.as_ref().unwrap().to_string(),
        "spiffe://cluster.local/ns/tutorial/sa/reviewer"
    );
    assert_eq!((first.tls, first.health), (EndpointTls::Mesh, EndpointHealth::Ready));
    assert_eq!(first.locality.to_string(), "r1/z1/");
    assert_eq!(first.workload.as_ref().unwrap().as_str(), "reviews-v1");
    assert_eq!((&*first.canonical_name, &*first.canonical_revision), ("reviews", "v1"));
    assert_eq!(endpoints.len(), 2);
    let workload = mesh.workload_at("10.1.0.2".parse().unwrap()).unwrap();
    assert_eq!(workload.services[0].host, host());
    assert_eq!(workload.services[0].ports, BTreeMap::from([(80, 8080), (90, 9000)]));
    assert_eq!(workload.ports.keys().copied().collect::<Vec<_>>(), [8080]);
    assert_eq!(
        mesh.config().outbound_policy,
        mizzen_model::OutboundPolicy::RegistryOnly
    );
    assert_eq!(
        mesh.virtual_services().count() + mesh.destination_rules().count() + mesh.peer_authentications().count(),
        3
    );
}

// G2
#[test]
fn the_same_object_twice_changes_nothing() {
    let mut index = Index::new(settings());
    for json in all() {
        assert!(
            !apply(&mut index, json.clone()).is_empty() || json["kind"] == "Node",
            "{json}"
        );
    }
    let before = index.snapshot();
    for mut json in all() {
        // what the status holds is nobody's business here
        json["metadata"]["resourceVersion"] = json!("42");
        assert_eq!(apply(&mut index, json), Changes::default());
    }
    assert!(Arc::ptr_eq(&before, &index.snapshot()));
}

// G2
#[test]
fn a_change_says_just_what_changed() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    let one = |changes: Changes| changes.into_iter().collect::<Vec<_>>();
    let not_ready = slice(
        "reviews-a",
        &[
            ("reviews-1", "10.1.0.1", true, false),
            ("reviews-2", "10.1.0.2", false, true),
        ],
    );
    assert_eq!(one(apply(&mut index, not_ready)), [Change::Endpoints(host())]);
    let health: Vec<_> = index
        .mesh()
        .endpoints(&host())
        .unwrap()
        .iter()
        .map(|endpoint| endpoint.health)
        .collect();
    assert_eq!(health, [EndpointHealth::Ready, EndpointHealth::Draining]);

    let mut relabelled = pod("reviews-1", "10.1.0.1", "v1");
    relabelled["metadata"]["labels"]["extra"] = json!("x");
    let key = |kind, name| {
        ObjectKey::new(
            kind,
            Namespace::new("tutorial").unwrap(),
            ObjectName::new(name).unwrap(),
        )
    };
    assert_eq!(
        one(apply(&mut index, relabelled)),
        [Change::Endpoints(host()), Change::Workload(key(Kind::Pod, "reviews-1"))]
    );
    assert_eq!(
        one(apply(&mut index, policy("PERMISSIVE"))),
        [Change::PeerAuthentication(Namespace::new("tutorial").unwrap())]
    );
    let changes = one(apply(&mut index, node("z2")));
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert_eq!(
        one(delete(&mut index, rule())),
        [Change::Rule {
            key: key(Kind::DestinationRule, "reviews"),
            host: host()
        }]
    );
}

#[test]
fn what_is_deleted_is_gone() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    for json in all() {
        delete(&mut index, json);
    }
    assert_eq!(content(&index.snapshot()), content(&Index::new(settings()).snapshot()));
    assert!(index.slices_by_pod.is_empty() && index.slices_by_service.is_empty());
}

#[test]
fn a_list_replaces_what_was_there() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    let mut other = service();
    other["metadata"]["name"] = json!("ratings");
    let changes = index.apply(Event::Replace(Kind::Service, vec![object(other)]));
    assert!(
        changes
            .iter()
            .any(|change| matches!(change, Change::Service { host, .. } if host.as_str().starts_with("reviews")))
    );
    let hosts: Vec<_> = index
        .mesh()
        .services()
        .map(|service| service.host.to_string())
        .collect();
    assert_eq!(hosts, ["ratings.tutorial.svc.cluster.local"]);
    index.apply(Event::Replace(Kind::VirtualService, vec![]));
    index.apply(Event::Replace(Kind::Pod, vec![]));
    index.apply(Event::Replace(Kind::EndpointSlice, vec![]));
    assert_eq!(
        index.mesh().virtual_services().count() + index.mesh().workloads().count(),
        0
    );
}

// A5
#[test]
fn only_members_are_in_a_multi_tenant_mesh() {
    let mut index = Index::new(multi_tenant());
    for json in all() {
        apply(&mut index, json);
    }
    assert_eq!(
        index.members().map(ToString::to_string).collect::<Vec<_>>(),
        [ROOT, "tutorial"]
    );
    assert_eq!(index.mesh().services().count(), 1);
    let changes = apply(&mut index, namespace_object("tutorial", false));
    assert!(changes.len() >= 6, "{changes:?}");
    let mesh = index.snapshot();
    assert_eq!(
        mesh.services().count() + mesh.workloads().count() + mesh.virtual_services().count(),
        0
    );
    assert!(mesh.endpoints(&host()).is_none());
    assert!(index.diagnose().iter().all(|report| report.key.kind == Kind::ConfigMap));
    apply(&mut index, namespace_object("tutorial", true));
    let mut fresh = Index::new(multi_tenant());
    for json in all() {
        apply(&mut fresh, json);
    }
    assert_eq!(content(&index.snapshot()), content(&fresh.snapshot()));
}

// E1
#[test]
fn another_trust_domain_gives_every_endpoint_another_identity() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    let changes = apply(&mut index, mesh_config("{trustDomain: example.org}"));
    assert!(changes.iter().any(|change| *change == Change::Config));
    let identity = |index: &Index| {
        index
            .mesh()
            .endpoints(&host())
            .unwrap()
            .iter()
            .next()
            .unwrap()
            .identity
            .clone()
            .unwrap()
    };
    assert_eq!(identity(&index).trust_domain().as_str(), "example.org");
    delete(&mut index, mesh_config(""));
    assert_eq!(identity(&index).trust_domain().as_str(), "cluster.local");
}

fn report<'r>(reports: &'r [Report], kind: Kind, name: &str) -> &'r Report {
    reports
        .iter()
        .find(|report| report.key.kind == kind && report.key.name.as_str() == name)
        .unwrap()
}

fn codes(report: &Report) -> Vec<(Severity, &str, &str)> {
    report
        .diagnostics
        .iter()
        .map(|found| (found.severity, found.code, found.field.as_str()))
        .collect()
}

// F6
#[test]
fn one_bad_object_harms_no_other_and_is_reported_with_its_generation() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    let before = content(&index.snapshot());
    let bad = config(
        "VirtualService",
        "bad",
        9,
        json!({"hosts": ["reviews"], "http": [{"timeout": "x", "redirect": {"uri": "/"}}]}),
    );
    assert_eq!(apply(&mut index, bad), Changes::default());
    let unreadable = config("DestinationRule", "odd", 9, json!({"host": ["reviews"]}));
    assert_eq!(apply(&mut index, unreadable), Changes::default());
    assert_eq!(content(&index.snapshot()), before);
    let reports = index.diagnose();
    let bad = report(&reports, Kind::VirtualService, "bad");
    assert_eq!(codes(bad), [(Severity::Error, "BadDuration", "spec.http[0].timeout")]);
    assert_eq!(bad.generation, Some(3));
    let odd = report(&reports, Kind::DestinationRule, "odd");
    assert_eq!(codes(odd), [(Severity::Error, "SchemaMismatch", "spec.host")]);
    assert!(report(&reports, Kind::VirtualService, "reviews").diagnostics.is_empty());
    assert_eq!(index.diagnose(), [], "nothing is said twice");
}

// F6
#[test]
fn an_object_that_was_good_and_is_bad_now_is_no_longer_acted_on() {
    let mut index = Index::new(settings());
    apply(&mut index, route("reviews", 1));
    let bad = config(
        "VirtualService",
        "reviews",
        1,
        json!({"hosts": ["reviews"], "http": []}),
    );
    assert_eq!(apply(&mut index, bad).len(), 1);
    assert_eq!(index.mesh().virtual_services().count(), 0);
}

// E3
#[test]
fn a_policy_that_cannot_be_read_denies_plain_text() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    apply(&mut index, policy("PERMISSIVE"));
    let namespace = Namespace::new("tutorial").unwrap();
    let labels: Labels = [("app", "reviews")].into_iter().collect();
    assert_eq!(index.mesh().mtls_mode(&namespace, &labels, None), MtlsMode::Permissive);
    apply(&mut index, policy("WHATEVER"));
    assert_eq!(index.mesh().mtls_mode(&namespace, &labels, None), MtlsMode::Strict);
    let reports = index.diagnose();
    let found = codes(report(&reports, Kind::PeerAuthentication, "default"));
    assert_eq!(
        found,
        [
            (Severity::Error, "SchemaMismatch", "spec.mtls.mode"),
            (Severity::Error, "FailedClosed", "spec")
        ]
    );
}

// C1: a route to an unknown subset stays, and leads to a defined 503
#[test]
fn references_that_lead_nowhere_stay_in_the_model_and_are_reported() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    let to = json!([
        {"destination": {"host": "reviews", "subset": "v9"}, "weight": 1},
        {"destination": {"host": "nowhere"}, "weight": 1},
        {"destination": {"host": "reviews", "port": {"number": 81}}, "weight": 1},
    ]);
    let spec = json!({"hosts": ["other.example.com"], "gateways": ["gone"], "http": [{"route": to}, {"match": [{"port": 1}], "delegate": {"name": "gone"}}]});
    apply(&mut index, config("VirtualService", "lost", 2, spec));
    let reports = index.diagnose();
    let found = codes(report(&reports, Kind::VirtualService, "lost"));
    let errors: Vec<_> = found
        .iter()
        .filter(|found| found.0 == Severity::Error)
        .map(|found| (found.1, found.2))
        .collect();
    assert_eq!(
        errors,
        [
            ("SubsetNotFound", "spec.http[0].route[0].destination.subset"),
            ("HostNotFound", "spec.http[0].route[1].destination.host"),
            ("PortNotFound", "spec.http[0].route[2].destination.port.number"),
            ("DelegateNotFound", "spec.http[1].delegate"),
            ("GatewayNotFound", "spec.gateways"),
        ]
    );
    let mesh = index.snapshot();
    let destination = Destination {
        host: host(),
        subset: Some(SubsetName::new("v9").unwrap()),
        port: Some(80),
    };
    let from = Namespace::new("tutorial").unwrap();
    let resolved = mesh.resolve(&destination, &from, &Labels::default(), 80);
    assert_eq!(resolved.map(|_| ()).unwrap_err(), Unresolved::Subset);
    // and when the rule comes, all is well
    let spec = json!({"host": "reviews", "subsets": [{"name": "v9"}]});
    apply(&mut index, config("DestinationRule", "late", 3, spec));
    let reports = index.diagnose();
    let found = codes(report(&reports, Kind::VirtualService, "lost"));
    assert!(!found.iter().any(|found| found.1 == "SubsetNotFound"), "{found:?}");
}

// F6
#[test]
fn the_younger_of_two_routes_for_a_host_is_told_so() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    apply(&mut index, route("another", 4));
    let reports = index.diagnose();
    assert_eq!(codes(report(&reports, Kind::VirtualService, "another")), []);
    let found = codes(report(&reports, Kind::VirtualService, "reviews"));
    assert_eq!(found, [(Severity::Warning, "HostConflict", "spec.hosts[0]")]);
}

// E3, F6
#[test]
fn the_younger_of_two_rules_or_policies_for_the_same_is_told_so() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    let tls =
        |mode: &str| json!({"host": "reviews", "trafficPolicy": {"tls": {"mode": mode}}, "subsets": [{"name": "v1"}]});
    apply(&mut index, config("DestinationRule", "second", 2, tls("SIMPLE")));
    apply(&mut index, config("DestinationRule", "third", 3, tls("DISABLE")));
    apply(
        &mut index,
        config("PeerAuthentication", "second", 2, json!({"mtls": {"mode": "DISABLE"}})),
    );
    let workloads = json!({"selector": {"matchLabels": {"app": "a"}}, "mtls": {"mode": "DISABLE"}});
    apply(&mut index, config("PeerAuthentication", "narrow", 2, workloads));
    let reports = index.diagnose();
    let warning = Severity::Warning;
    assert_eq!(codes(report(&reports, Kind::DestinationRule, "reviews")), []);
    assert_eq!(
        codes(report(&reports, Kind::DestinationRule, "second")),
        [(warning, "SubsetConflict", "spec.subsets[0].name")]
    );
    assert_eq!(
        codes(report(&reports, Kind::DestinationRule, "third")),
        [
            (warning, "RuleConflict", "spec.trafficPolicy"),
            (warning, "SubsetConflict", "spec.subsets[0].name")
        ]
    );
    assert_eq!(
        codes(report(&reports, Kind::PeerAuthentication, "second")),
        [(Severity::Error, "PolicyConflict", "spec.selector")]
    );
    for fine in ["default", "narrow"] {
        assert_eq!(codes(report(&reports, Kind::PeerAuthentication, fine)), []);
    }
}

// C8, F6
#[test]
fn gateways_are_looked_at_together_with_routes_and_pods() {
    let mut index = Index::new(settings());
    for json in all() {
        apply(&mut index, json);
    }
    let server = |protocol: &str| json!({"port": {"number": 80, "name": "p", "protocol": protocol}, "hosts": ["./shop.example.com"]});
    let spec = |protocol: &str| json!({"selector": {"app": "reviews"}, "servers": [server(protocol)]});
    apply(&mut index, config("Gateway", "first", 1, spec("HTTP")));
    apply(&mut index, config("Gateway", "second", 2, spec("TCP")));
    apply(
        &mut index,
        config(
            "Gateway",
            "lonely",
            3,
            json!({"selector": {"app": "none"}, "servers": [server("HTTP")]}),
        ),
    );
    let mut proxys = server("HTTP");
    proxys["port"]["number"] = json!(15021);
    let proxys = json!({"selector": {"app": "reviews"}, "servers": [server("HTTP"), proxys]});
    apply(&mut index, config("Gateway", "proxys", 5, proxys));
    let bound = json!({"hosts": ["shop.example.com", "other.example.com"], "gateways": ["first"], "http": [{"redirect": {"uri": "/"}}]});
    apply(&mut index, config("VirtualService", "bound", 4, bound));
    let reports = index.diagnose();
    assert_eq!(codes(report(&reports, Kind::Gateway, "first")), []);
    assert_eq!(
        codes(report(&reports, Kind::Gateway, "second")),
        [
            (Severity::Error, "PortConflict", "spec.servers[0].port"),
            // Nor is TCP there yet.
            (Severity::Warning, "NotActedOn", "spec.servers[0].port.protocol")
        ]
    );
    assert_eq!(
        codes(report(&reports, Kind::Gateway, "proxys")),
        [(Severity::Error, "PortReserved", "spec.servers[1].port")]
    );
    assert_eq!(
        codes(report(&reports, Kind::Gateway, "lonely")),
        [(Severity::Warning, "NoWorkload", "spec.selector")]
    );
    assert_eq!(
        codes(report(&reports, Kind::VirtualService, "bound")),
        [(Severity::Warning, "HostNotServed", "spec.hosts[1]")]
    );
}

// C1
#[test]
fn a_gateway_stays_on_its_ports_while_its_service_is_missing() {
    let labels = json!({"app": "istio-ingressgateway"});
    let in_root = |kind: &str, name: &str, labels: &Json, spec: Json| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": ROOT, "labels": labels}, "spec": spec});
    let spec = json!({"selector": labels, "ports": [{"name": "http2", "port": 80, "targetPort": 8080}]});
    let service = in_root("Service", "istio-ingressgateway", &json!({}), spec.clone());
    let pod = in_root(
        "Pod",
        "gateway-1",
        &labels,
        json!({"containers": [{"name": "istio-proxy"}]}),
    );
    let text = json!({"mizzen": {"gateways": [{"metadata": {"name": "istio-ingressgateway"}, "spec": spec}]}});
    let config = mesh_config(&text.to_string());

    let mut index = Index::new(settings());
    for object in [namespace_object(ROOT, false), pod, service.clone(), config.clone()] {
        apply(&mut index, object);
    }
    let ports = |index: &mut Index| {
        let mesh = index.snapshot();
        let workload = mesh.workloads().next().unwrap();
        workload
            .services
            .iter()
            .map(|service| service.ports.clone())
            .collect::<Vec<_>>()
    };
    let open = vec![std::collections::BTreeMap::from([(80, 8080)])];
    assert_eq!(ports(&mut index), open);
    let changes = delete(&mut index, service.clone());
    assert!(
        changes.iter().all(|change| !matches!(change, Change::Workload(_))),
        "{changes:?}"
    );
    assert_eq!(ports(&mut index), open);
    // Nobody says that it should be there any more.
    apply(&mut index, mesh_config("{}"));
    assert_eq!(ports(&mut index), []);
    apply(&mut index, config);
    assert_eq!(ports(&mut index), open);
    // What is there counts more than what should be.
    let mut moved = service;
    moved["spec"]["ports"][0]["targetPort"] = 9090.into();
    apply(&mut index, moved);
    assert_eq!(ports(&mut index), [[(80, 9090)].into()]);
}

#[test]
fn services_of_every_form() {
    let mut index = Index::new(settings());
    let service = |name: &str, spec: Json| {
        let metadata =
            json!({"name": name, "namespace": "tutorial", "annotations": {"networking.istio.io/exportTo": "., other"}});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    };
    let ports = json!([{"port": 53, "name": "dns", "protocol": "UDP"}, {"port": 53, "name": "dns-tcp"}, {"port": 80, "appProtocol": "http"}]);
    apply(
        &mut index,
        service(
            "external",
            json!({"type": "ExternalName", "externalName": "example.com"}),
        ),
    );
    apply(
        &mut index,
        service(
            "headless",
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}),
        ),
    );
    let services: Vec<_> = index.mesh().services().cloned().collect();
    assert_eq!(services.len(), 1);
    let headless = &services[0];
    assert!(headless.headless() && headless.addresses.is_empty() && headless.selector.is_none());
    let found: Vec<_> = headless.ports.iter().map(|port| (port.number, port.protocol)).collect();
    assert_eq!(found, [(53, Protocol::Tcp), (80, Protocol::Http)]);
    assert!(!headless.export_to.visible_from(&Namespace::new("third").unwrap()));
}

#[test]
fn pods_of_every_form() {
    let mut index = Index::new(settings());
    let mut plain = pod("plain", "10.1.0.3", "v1");
    plain["spec"]["containers"].as_array_mut().unwrap().truncate(1);
    apply(&mut index, plain);
    let mut native = pod("native", "10.1.0.4", "v1");
    let proxy = native["spec"]["containers"].as_array_mut().unwrap().pop().unwrap();
    native["spec"]["initContainers"] = json!([proxy]);
    native["spec"]["initContainers"][0]["restartPolicy"] = json!("Always");
    native["metadata"]["labels"]["istio-locality"] = json!("r9.z9");
    apply(&mut index, native);
    let mut gateway = pod("gateway", "10.1.0.5", "v1");
    gateway["spec"]["containers"] = json!([{"name": "istio-proxy", "ports": [{"containerPort": 8443}]}]);
    gateway["metadata"]["ownerReferences"] = json!([]);
    apply(&mut index, gateway);
    let mut done = pod("done", "10.1.0.6", "v1");
    done["status"]["phase"] = json!("Succeeded");
    apply(&mut index, done);
    let mut starting = pod("starting", "10.1.0.7", "v1");
    starting["status"] = json!({"phase": "Pending"});
    apply(&mut index, starting);
    let found: Vec<_> = index
        .mesh()
        .workloads()
        .map(|workload| {
            let ports: Vec<_> = workload.ports.keys().copied().collect();
            (
                workload.key.name.to_string(),
                workload.tls,
                ports,
                workload.addresses.len(),
                workload.locality.to_string(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("gateway".into(), EndpointTls::Mesh, vec![8443], 1, "//".into()),
            ("native".into(), EndpointTls::Mesh, vec![8080], 1, "r9/z9/".into()),
            ("plain".into(), EndpointTls::Plain, vec![8080], 1, "//".into()),
            ("starting".into(), EndpointTls::Mesh, vec![8080], 0, "//".into()),
        ]
    );
}

mod random {
    use super::*;
    use proptest::prelude::*;

    /// Every object, in a state that it had before and the state that it ends in.
    fn versions() -> Vec<(Json, Json)> {
        let mut before = all();
        before[0] = namespace_object("tutorial", false);
        before[2] = node("z9");
        before[3]["spec"]["ports"] = json!([{"name": "http", "port": 81}]);
        before[4] = pod("reviews-1", "10.1.9.9", "v7");
        before[6] = slice("reviews-a", &[("reviews-2", "10.1.0.2", false, false)]);
        before[7]["spec"]["hosts"] = json!(["ratings"]);
        before[8]["spec"]["subsets"] = json!([{"name": "v1"}, {"name": "v1"}]);
        before[9] = policy("NONSENSE");
        before[10] = mesh_config("{trustDomain: example.org, mizzen: {mode: ClusterWide}}");
        before.into_iter().zip(all()).collect()
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Before,
        Delete,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // G2
        #[test]
        fn the_end_state_decides_and_not_the_way_there(
            detours in prop::collection::vec((0..11usize, prop_oneof![Just(Step::Before), Just(Step::Delete)]), 0..24),
            order in Just((0..11usize).collect::<Vec<_>>()).prop_shuffle(),
            snapshots in any::<bool>(),
        ) {
            let versions = versions();
            let mut wandering = Index::new(multi_tenant());
            for (object, step) in detours {
                match step {
                    Step::Before => apply(&mut wandering, versions[object].0.clone()),
                    Step::Delete => delete(&mut wandering, versions[object].0.clone()),
                };
                if snapshots {
                    wandering.snapshot();
                }
            }
            for object in order {
                apply(&mut wandering, versions[object].1.clone());
            }
            let mut straight = Index::new(multi_tenant());
            straight.apply_all(all().into_iter().map(|json| Event::Apply(object(json))));
            prop_assert_eq!(content(&wandering.snapshot()), content(&straight.snapshot()));
            wandering.diagnose();
            straight.diagnose();
            prop_assert_eq!(wandering.reports(), straight.reports());
        }

        // G2
        #[test]
        fn no_change_reported_means_no_change_made(detours in prop::collection::vec((0..11usize, any::<bool>()), 0..16)) {
            let versions = versions();
            let mut index = Index::new(multi_tenant());
            let mut known = content(&index.snapshot());
            for (object, before) in detours {
                let json = if before { &versions[object].0 } else { &versions[object].1 };
                let changes = apply(&mut index, json.clone());
                let now = content(&index.snapshot());
                prop_assert_eq!(changes.is_empty(), now == known, "{} {:?}", json, changes);
                known = now;
            }
        }
    }
}
