use std::collections::BTreeMap;

use super::*;
use crate::name::{ExportTo, Kind, ObjectName, SubsetName, Timestamp};
use crate::route::Destination;
use crate::rule::{DestinationRule, LoadBalancer, Policy, SimpleLb, Subset, TrafficPolicy};
use crate::security::MtlsMode;
use crate::service::{Protocol, Resolution, ServicePort, TargetPort};
use mizzen_identity::TrustDomain;

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

fn key(kind: Kind, ns: &str, name: &str) -> ObjectKey {
    ObjectKey::new(kind, namespace(ns), ObjectName::new(name).unwrap())
}

fn mesh() -> Mesh {
    Mesh::new(MeshConfig::new(
        namespace("istio-system"),
        TrustDomain::new("cluster.local").unwrap(),
    ))
}

fn service(name: &str, ns: &str, ports: &[u16]) -> Service {
    let name = ObjectName::new(name).unwrap();
    let port = |number: &u16| ServicePort {
        number: *number,
        name: None,
        target: TargetPort::Number(*number + 1),
        protocol: Protocol::Http,
    };
    Service {
        host: Host::of_service(&name, &namespace(ns), "cluster.local").unwrap(),
        namespace: namespace(ns),
        name,
        addresses: vec!["10.0.0.7".parse().unwrap()],
        resolution: Resolution::Endpoints,
        ports: ports.iter().map(port).collect(),
        selector: None,
        export_to: ExportTo::All,
        created: Timestamp(1),
    }
}

fn rule(name: &str, ns: &str, host: &str, created: i64, lb: SimpleLb) -> DestinationRule {
    let load_balancer = Some(LoadBalancer {
        policy: Policy::Simple(lb),
        ..LoadBalancer::default()
    });
    DestinationRule {
        key: key(Kind::DestinationRule, ns, name),
        created: Timestamp(created),
        host: Host::new(host).unwrap(),
        export_to: ExportTo::All,
        workload_selector: None,
        policy: TrafficPolicy {
            load_balancer,
            ..TrafficPolicy::default()
        },
        subsets: vec![Subset {
            name: SubsetName::new(format!("of-{name}")).unwrap(),
            labels: Labels::default(),
            policy: None,
        }],
    }
}

fn authentication(name: &str, ns: &str, selector: Option<Labels>, mode: Option<MtlsMode>) -> PeerAuthentication {
    PeerAuthentication {
        key: key(Kind::PeerAuthentication, ns, name),
        created: Timestamp(3),
        selector,
        mode,
        ports: BTreeMap::new(),
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

#[test]
fn the_same_service_twice_changes_nothing() {
    let mut mesh = mesh();
    assert_eq!(mesh.insert_service(service("web", "shop", &[80])).len(), 1);
    assert!(mesh.insert_service(service("web", "shop", &[80])).is_empty());
}

#[test]
fn a_changed_service_names_old_and_new_ports() {
    let mut mesh = mesh();
    mesh.insert_service(service("web", "shop", &[80]));
    let changes = mesh.insert_service(service("web", "shop", &[81]));
    let Some(Change::Service { ports, .. }) = changes.iter().next() else {
        panic!("{changes:?}")
    };
    assert_eq!(*ports, BTreeSet::from([80, 81]));
    let shop = namespace("shop");
    assert_eq!(mesh.services_with_port(80, &shop).count(), 0);
    assert_eq!(mesh.services_with_port(81, &shop).count(), 1);
}

#[test]
fn a_snapshot_keeps_what_it_had() {
    let mut mesh = mesh();
    mesh.insert_service(service("web", "shop", &[80]));
    let snapshot = mesh.clone();
    mesh.remove_service(&service("web", "shop", &[80]).host);
    assert_eq!((snapshot.services().count(), mesh.services().count()), (1, 0));
}

#[test]
fn the_clients_namespace_decides_before_the_services_and_the_meshs() {
    let mut mesh = mesh();
    let web = service("web", "shop", &[80]);
    mesh.insert_service(web.clone());
    let chosen = |mesh: &Mesh, from: &str| {
        let rules = mesh.destination_rules_for(&web.host, &namespace(from), &Labels::default());
        rules.iter().next().map(|rule| rule.key.name.to_string())
    };
    mesh.insert_destination_rule(rule("root", "istio-system", "*.cluster.local", 1, SimpleLb::Random));
    assert_eq!(chosen(&mesh, "client").as_deref(), Some("root"));
    mesh.insert_destination_rule(rule("owner", "shop", web.host.as_str(), 1, SimpleLb::Random));
    assert_eq!(chosen(&mesh, "client").as_deref(), Some("owner"));
    mesh.insert_destination_rule(rule("own", "client", "*.shop.svc.cluster.local", 1, SimpleLb::Random));
    assert_eq!(chosen(&mesh, "client").as_deref(), Some("own"));
    assert_eq!(chosen(&mesh, "other").as_deref(), Some("owner"));
}

#[test]
fn several_rules_for_a_host_add_their_subsets_and_the_oldest_policy_counts() {
    let mut mesh = mesh();
    let web = service("web", "shop", &[80]);
    mesh.insert_service(web.clone());
    mesh.insert_destination_rule(rule("a-young", "shop", web.host.as_str(), 9, SimpleLb::Random));
    mesh.insert_destination_rule(rule("z-old", "shop", web.host.as_str(), 2, SimpleLb::RoundRobin));
    let rules = mesh.destination_rules_for(&web.host, &web.namespace, &Labels::default());
    let names: Vec<_> = rules.subsets().iter().map(|subset| subset.name.to_string()).collect();
    assert_eq!(names, ["of-z-old", "of-a-young"]);
    let lb = rules.policy(None, 80).load_balancer.map(|lb| lb.policy);
    assert_eq!(lb, Some(Policy::Simple(SimpleLb::RoundRobin)));
}

#[test]
fn a_destination_without_a_port_means_the_only_one_or_the_addressed_one() {
    let mut mesh = mesh();
    let (one, two) = (service("one", "shop", &[80]), service("two", "shop", &[80, 90]));
    mesh.insert_service(one.clone());
    mesh.insert_service(two.clone());
    let resolve = |host: &Host, subset: Option<&str>, addressed| {
        let subset = subset.map(|name| SubsetName::new(name).unwrap());
        let destination = Destination {
            host: host.clone(),
            subset,
            port: None,
        };
        mesh.resolve(&destination, &one.namespace, &Labels::default(), addressed)
            .map(|found| found.port.number)
    };
    assert_eq!(resolve(&one.host, None, 4711), Ok(80));
    assert_eq!(resolve(&two.host, None, 90), Ok(90));
    assert_eq!(resolve(&two.host, None, 4711), Err(Unresolved::Port));
    assert_eq!(resolve(&one.host, Some("v9"), 80), Err(Unresolved::Subset));
    assert_eq!(
        resolve(&Host::new("gone.shop.svc.cluster.local").unwrap(), None, 80),
        Err(Unresolved::Host)
    );
}

// E3
#[test]
fn peer_authentication_narrows_from_mesh_to_port() {
    let mut mesh = mesh();
    let shop = namespace("shop");
    let web = labels(&[("app", "web"), ("version", "v1")]);
    let mode = |mesh: &Mesh, port| mesh.mtls_mode(&shop, &web, Some(port));
    assert_eq!(mode(&mesh, 80), MtlsMode::Permissive);
    mesh.insert_peer_authentication(authentication("default", "istio-system", None, Some(MtlsMode::Strict)));
    assert_eq!(mode(&mesh, 80), MtlsMode::Strict);
    mesh.insert_peer_authentication(authentication("default", "shop", None, Some(MtlsMode::Disable)));
    assert_eq!(mode(&mesh, 80), MtlsMode::Disable);
    let mut own = authentication("own", "shop", Some(labels(&[("app", "web")])), None);
    own.ports = BTreeMap::from([(80, Some(MtlsMode::Permissive)), (81, None)]);
    mesh.insert_peer_authentication(own);
    assert_eq!((mode(&mesh, 80), mode(&mesh, 81), mode(&mesh, 82)), {
        (MtlsMode::Permissive, MtlsMode::Disable, MtlsMode::Disable)
    });
    assert_eq!(
        mesh.mtls_mode(&shop, &labels(&[("app", "db")]), Some(80)),
        MtlsMode::Disable
    );
    assert_eq!(mesh.mtls_ports(&shop, &web), BTreeSet::from([80, 81]));
}

#[test]
fn wildcards_cover_what_is_below_them() {
    let host = |text: &str| Host::new(text).unwrap();
    assert!(host("*.b.c").covers(&host("a.b.c")));
    assert!(host("*.b.c").covers(&host("*.a.b.c")));
    assert!(!host("*.b.c").covers(&host("b.c")));
    assert!(host("*").covers(&host("*.c")));
    assert!(!host("a.b.c").covers(&host("*.b.c")));
    let order: Vec<_> = host("A.b.c").specific_first().map(|h| h.to_string()).collect();
    assert_eq!(order, ["a.b.c", "*.b.c", "*.c", "*"]);
    let order: Vec<_> = host("*.b.c").specific_first().map(|h| h.to_string()).collect();
    assert_eq!(order, ["*.b.c", "*.c", "*"]);
}

#[test]
fn a_name_without_a_dot_is_a_service_of_the_rules_namespace() {
    let shop = namespace("shop");
    let resolve = |text: &str| Host::resolve(text, &shop, "cluster.local").map(|host| host.to_string());
    assert_eq!(resolve("web").unwrap(), "web.shop.svc.cluster.local");
    assert_eq!(resolve("Web.Other").unwrap(), "web.other");
    assert_eq!(resolve("*").unwrap(), "*");
    for bad in ["", "a b", "a..b", "*web", "a.*.b", "-a.b", "a/b.c"] {
        assert!(resolve(bad).is_err(), "{bad:?}");
    }
}
