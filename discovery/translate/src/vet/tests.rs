use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;

use super::*;
use crate::proto::{metadata, text};

fn owned(object: &str, name: &str, regex: Option<&str>) -> route::Route {
    let config = format!("/apis/networking.istio.io/v1/namespaces/shop/virtual-service/{object}");
    let path = regex.map(|regex| {
        route::route_match::PathSpecifier::SafeRegex(RegexMatcher {
            regex: regex.to_owned(),
            ..Default::default()
        })
    });
    route::Route {
        name: name.to_owned(),
        r#match: Some(route::RouteMatch {
            path_specifier: path.or(crate::route::everything().path_specifier),
            ..Default::default()
        }),
        metadata: metadata(vec![("istio", vec![("config", text(config))])]),
        ..Default::default()
    }
}

fn table(hosts: Vec<(&str, Vec<route::Route>)>) -> Vec<u8> {
    let host = |(name, routes): (&str, Vec<route::Route>)| route::VirtualHost {
        name: name.to_owned(),
        domains: vec![name.to_owned()],
        routes,
        include_request_attempt_count: true,
        ..Default::default()
    };
    route::RouteConfiguration {
        name: "8080".to_owned(),
        virtual_hosts: hosts.into_iter().map(host).collect(),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
    .encode_to_vec()
}

fn names(parts: &[Part]) -> Vec<(&str, &str)> {
    parts
        .iter()
        .map(|part| (part.host.as_str(), part.object.name.as_str()))
        .collect()
}

fn shop() -> Vec<u8> {
    let unowned = route::Route {
        name: "default".to_owned(),
        ..Default::default()
    };
    table(vec![
        (
            "a",
            vec![
                owned("of-a", "first", Some("/a-long-pattern.*")),
                owned("of-a", "rest", None),
            ],
        ),
        ("plain", vec![unowned]),
        (
            "b",
            vec![owned("of-b", "some", Some("/another.*")), owned("of-c", "rest", None)],
        ),
    ])
}

// G1
#[test]
fn a_table_falls_into_the_routes_of_each_virtual_service_in_each_host() {
    let parts = parts(&shop());
    assert_eq!(names(&parts), [("a", "of-a"), ("b", "of-b"), ("b", "of-c")]);
    let same = |name| table(vec![(name, vec![owned("x", "r", None)])]);
    assert_eq!(super::parts(&same("one"))[0].id, super::parts(&same("two"))[0].id);
    assert_ne!(parts[0].id, parts[1].id);
    assert!(super::parts(b"\xff\xff no message").is_empty());
}

// G1
#[test]
fn suspects_are_those_that_nobody_vouched_for_or_that_the_message_points_at() {
    let body = shop();
    let all = parts(&body);
    let blame = |message: &str, vouched: &[u64]| {
        let found = suspects(&body, message, |id| vouched.contains(&id));
        names(&found)
            .iter()
            .map(|(_, object)| (*object).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(blame("no", &[]), ["of-a", "of-b", "of-c"]);
    assert_eq!(blame("no", &[all[0].id, all[2].id]), ["of-b"]);
    assert_eq!(blame("no", &[all[0].id, all[1].id, all[2].id]), [""; 0]);
    let place = "Proto constraint validation failed (RouteConfigurationValidationError.VirtualHosts[2]: embedded message \
                 failed validation | caused by VirtualHostValidationError.Routes[1]: value is required)";
    assert_eq!(blame(place, &[]), ["of-c"]);
    assert_eq!(blame("regex '/another.*' is too large", &[]), ["of-b"]);
    // What two of them say tells nothing.
    assert_eq!(blame("default_value first rest", &[]), ["of-a", "of-b", "of-c"]);
}

// G1
#[test]
fn the_last_good_routes_or_a_refusal_stand_in_and_nothing_else_changes() {
    let body = shop();
    let all = parts(&body);
    assert_eq!(without(&body, |_| None), None);

    let good = parts(&table(vec![("a", vec![owned("of-a", "older", None)])]));
    let replaced = without(&body, |id| (id == all[0].id).then(|| good.first().cloned())).unwrap();
    let read = |bytes: &[u8]| route::RouteConfiguration::decode(bytes).unwrap();
    let mut expected = read(&body);
    expected.virtual_hosts[0].routes = vec![owned("of-a", "older", None)];
    assert_eq!(read(&replaced), expected);

    // Whoever shares a host keeps its routes; what was for the one left out does not fall to others unsaid.
    let left_out = without(&body, |id| (id == all[1].id).then_some(None)).unwrap();
    expected = read(&body);
    expected.virtual_hosts[2].routes = vec![owned("of-c", "rest", None)];
    assert_eq!(read(&left_out), expected);
    let left_out = without(&body, |id| (id == all[2].id).then_some(None)).unwrap();
    expected = read(&body);
    expected.virtual_hosts[2].routes = vec![owned("of-b", "some", Some("/another.*")), refusal()];
    assert_eq!(read(&left_out), expected);
}

// G1
#[test]
fn the_counterpart_is_of_the_same_virtual_service_in_the_same_host() {
    let all = parts(&shop());
    let older = table(vec![
        ("b", vec![owned("of-a", "elsewhere", None)]),
        ("a", vec![owned("of-a", "older", None)]),
    ]);
    let found = counterpart(&older, &all[0]).unwrap();
    assert_eq!((found.host.as_str(), found.id), ("a", parts(&older)[1].id));
    assert_eq!(counterpart(&older, &all[1]), None);
}
