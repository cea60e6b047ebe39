use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::data::accesslog::v3 as log;
use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, UInt32Value};

use super::*;
use crate::telemetry::Telemetry;

fn own() -> Workload {
    Workload {
        name: "cart-v1".into(),
        namespace: "shop".into(),
        ..Workload::default()
    }
}

fn rendered(count: impl FnOnce(&Shard)) -> String {
    let telemetry = Telemetry::new(own());
    count(&telemetry.shard());
    let mut text = String::new();
    telemetry.render(&mut text);
    text
}

fn common(tags: &[(&str, &str)], principal: Option<&str>) -> AccessLogCommon {
    let certificate = principal.map(|uri| log::tls_properties::CertificateProperties {
        subject_alt_name: vec![log::tls_properties::certificate_properties::SubjectAltName {
            san: Some(San::Uri(uri.to_owned())),
        }],
        ..Default::default()
    });
    AccessLogCommon {
        upstream_cluster: "outbound|80||pay.shop.svc.cluster.local".to_owned(),
        custom_tags: tags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        tls_properties: Some(log::TlsProperties {
            peer_certificate_properties: certificate,
            ..Default::default()
        }),
        duration: Some(ProtoDuration {
            seconds: 0,
            nanos: 7_000_000,
        }),
        ..Default::default()
    }
}

fn request(common: AccessLogCommon, status: u32) -> HttpAccessLogEntry {
    HttpAccessLogEntry {
        common_properties: Some(common),
        request: Some(log::HttpRequestProperties {
            request_headers_bytes: 100,
            request_body_bytes: 20,
            ..Default::default()
        }),
        response: Some(log::HttpResponseProperties {
            response_code: Some(UInt32Value { value: status }),
            response_body_bytes: 30,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn has(line: &str, labels: &[&str]) {
    for label in labels {
        assert!(line.contains(label), "{label} in {line}");
    }
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_else(|| panic!("{name} in {text}"))
}

// F1
#[test]
fn outbound_request_names_the_workload_and_the_service_that_it_reached() {
    let tags = [
        (WORKLOAD, "pay-v2;bank;pay;v2;Kubernetes"),
        (
            SERVICES,
            r#"[{"host":"pay.bank.svc.cluster.local","name":"pay","namespace":"bank"}]"#,
        ),
    ];
    let text = rendered(|shard| {
        http(
            shard,
            &Clients::default(),
            Reporter::Source,
            &request(common(&tags, None), 503),
        );
    });
    has(
        line(&text, "istio_requests_total{"),
        &[
            "reporter=\"source\"",
            "source_workload=\"cart-v1\"",
            "destination_workload=\"pay-v2\"",
            "destination_workload_namespace=\"bank\"",
            "destination_canonical_revision=\"v2\"",
            "destination_service=\"pay.bank.svc.cluster.local\"",
            "destination_service_name=\"pay\"",
            "destination_service_namespace=\"bank\"",
            "response_code=\"503\"",
            "connection_security_policy=\"unknown\"",
        ],
    );
    assert!(line(&text, "istio_request_duration_milliseconds_sum").ends_with(" 7"));
    assert!(line(&text, "istio_request_bytes_sum").ends_with(" 120"));
    assert!(line(&text, "istio_response_bytes_sum").ends_with(" 30"));
}

/// An entry of a client at that address.
fn from(address: &str, tags: &[(&str, &str)], principal: Option<&str>) -> HttpAccessLogEntry {
    let socket = core::SocketAddress {
        address: address.to_owned(),
        ..Default::default()
    };
    let mut entry = request(common(tags, principal), 200);
    entry
        .common_properties
        .as_mut()
        .unwrap()
        .downstream_direct_remote_address = Some(core::Address {
        address: Some(Address::SocketAddress(socket)),
    });
    entry
}

fn told(name: &str) -> String {
    metadata::encode(&Workload {
        name: name.into(),
        namespace: "liar".into(),
        ..Workload::default()
    })
}

const FRONT: &str = "spiffe://cluster.local/ns/web/sa/front";

// F1, E1
#[test]
fn inbound_request_names_the_proven_caller() {
    let entry = from("10.0.0.7", &[(PEER, &told("front-v3"))], Some(FRONT));
    let text = rendered(|shard| http(shard, &Clients::default(), Reporter::Destination, &entry));
    has(
        line(&text, "istio_requests_total{"),
        &[
            "reporter=\"destination\"",
            "source_workload=\"front-v3\"",
            "source_workload_namespace=\"web\"",
            "source_principal=\"spiffe://cluster.local/ns/web/sa/front\"",
            "destination_workload=\"cart-v1\"",
            "connection_security_policy=\"mutual_tls\"",
        ],
    );
}

// F1, N4
#[test]
fn client_that_said_once_whose_it_is_stays_known_and_others_do_not_become_it() {
    let clients = Clients::default();
    let once = told("front-v3");
    let text = rendered(|shard| {
        for entry in [
            from("10.0.0.7", &[(PEER, &once)], Some(FRONT)),
            from("10.0.0.7", &[], Some(FRONT)),
            from("10.0.0.8", &[], Some(FRONT)),
            from("10.0.0.7", &[], Some("spiffe://cluster.local/ns/web/sa/other")),
            from("10.0.0.7", &[], None),
        ] {
            http(shard, &clients, Reporter::Destination, &entry);
        }
    });
    let requests: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("istio_requests_total{"))
        .collect();
    let of = |workload: &str, principal: &str| {
        let labels = [
            format!("source_workload=\"{workload}\""),
            format!("source_principal=\"{principal}\""),
        ];
        let line = requests
            .iter()
            .find(|line| labels.iter().all(|label| line.contains(label)));
        line.and_then(|line| line.rsplit(' ').next())
    };
    assert_eq!(of("front-v3", FRONT), Some("2"), "{text}");
    assert_eq!(of("unknown", FRONT), Some("1"));
    assert_eq!(of("unknown", "spiffe://cluster.local/ns/web/sa/other"), Some("1"));
    assert_eq!(of("unknown", "unknown"), Some("1"));
}

// F1, E1
#[test]
fn outbound_request_names_the_identity_that_the_server_proved() {
    let tags = [
        (WORKLOAD, "pay-v2;bank;pay;v2;Kubernetes"),
        (PRINCIPAL, "spiffe://cluster.local/ns/bank/sa/pay"),
    ];
    let entry = request(common(&tags, None), 200);
    let text = rendered(|shard| http(shard, &Clients::default(), Reporter::Source, &entry));
    has(
        line(&text, "istio_requests_total{"),
        &[
            "destination_principal=\"spiffe://cluster.local/ns/bank/sa/pay\"",
            "destination_workload=\"pay-v2\"",
        ],
    );
}

#[test]
fn grpc_status_and_flags_are_labels() {
    let mut entry = request(common(&[], None), 200);
    entry
        .request
        .as_mut()
        .unwrap()
        .request_headers
        .insert("content-type".into(), "application/grpc+proto".into());
    entry
        .response
        .as_mut()
        .unwrap()
        .response_trailers
        .insert("grpc-status".into(), "14".into());
    let common = entry.common_properties.as_mut().unwrap();
    common.response_flags = Some(ResponseFlags {
        upstream_overflow: true,
        no_route_found: true,
        ..Default::default()
    });
    let text = rendered(|shard| http(shard, &Clients::default(), Reporter::Source, &entry));
    has(
        line(&text, "istio_requests_total{"),
        &[
            "request_protocol=\"grpc\"",
            "grpc_response_status=\"14\"",
            "response_flags=\"UO,NR\"",
            "destination_service=\"pay.shop.svc.cluster.local\"",
        ],
    );
}

#[test]
fn connection_is_counted_at_its_end_only() {
    let entry = |kind: AccessLogType| TcpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            access_log_type: kind.into(),
            ..common(&[], None)
        }),
        connection_properties: Some(log::ConnectionProperties {
            received_bytes: 5,
            sent_bytes: 9,
        }),
    };
    let text = rendered(|shard| {
        tcp(shard, Reporter::Source, &entry(AccessLogType::TcpPeriodic));
        tcp(shard, Reporter::Source, &entry(AccessLogType::TcpConnectionEnd));
    });
    assert!(line(&text, "istio_tcp_connections_opened_total{").ends_with(" 1"));
    assert!(line(&text, "istio_tcp_connections_closed_total{").ends_with(" 1"));
    assert!(line(&text, "istio_tcp_received_bytes_total{").ends_with(" 5"));
    assert!(line(&text, "istio_tcp_sent_bytes_total{").ends_with(" 9"));
}
