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
    let text = rendered(|shard| http(shard, Reporter::Source, &request(common(&tags, None), 503)));
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

// F1, E1
#[test]
fn inbound_request_names_the_proven_caller() {
    let mut entry = request(common(&[], Some("spiffe://cluster.local/ns/web/sa/front")), 200);
    let told = metadata::encode(&Workload {
        name: "front-v3".into(),
        namespace: "liar".into(),
        ..Workload::default()
    });
    let headers = &mut entry.request.as_mut().unwrap().request_headers;
    headers.insert("x-envoy-peer-metadata".to_owned(), told);
    let text = rendered(|shard| http(shard, Reporter::Destination, &entry));
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
    let text = rendered(|shard| http(shard, Reporter::Source, &entry));
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
