//! What an Envoy tells the process beside it of every request and connection, so that Istio's standard metrics can be
//! counted there: Envoy has none of its own.
//!
//! The loggers stream to the cluster [`BESIDE`] of the bootstrap. Who the other workload is, proxies tell each other
//! in a request header ([`PEER`]): at the client's side it is set from the environment (so that one listener serves all
//! proxies that see the same), at the server's side it is moved out of the request. The native proxy counts by itself and
//! gets none of this.

use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
use envoy_types::pb::envoy::config::common::mutation_rules::v3 as rules;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::grpc::v3 as grpc;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as mutation;
use envoy_types::pb::envoy::extensions::filters::http::header_to_metadata::v3 as moved;
use envoy_types::pb::envoy::r#type::metadata::v3 as metadata;
use envoy_types::pb::envoy::r#type::tracing::v3 as tracing;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use crate::proto::any;

use metadata::metadata_kind::{Cluster, Host, Kind, Request};

/// The cluster of the bootstrap that leads to the process beside Envoy.
const BESIDE: &str = "sds-grpc";
/// Name of the log of what comes in.
const INBOUND: &str = "mizzen-inbound";
/// Name of the log of what goes out, and of gateways.
const OUTBOUND: &str = "mizzen-outbound";
/// The header in which a proxy says whose it is.
pub(crate) const PEER: &str = "x-envoy-peer-metadata";
/// The header with its node id.
pub(crate) const PEER_ID: &str = "x-envoy-peer-metadata-id";
/// Where what a peer said is kept while its request is served.
const KEPT: &str = "mizzen";

/// Which way traffic goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the application.
    Inbound,
    /// From it, or through a gateway.
    Outbound,
}

/// The logger of requests.
pub(crate) fn requests(direction: Direction) -> accesslog::AccessLog {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    logger(
        "envoy.access_loggers.http_grpc",
        grpc::HttpGrpcAccessLogConfig {
            common_config: Some(common(direction)),
            additional_request_headers_to_log: texts(&["content-type"]),
            additional_response_headers_to_log: texts(&["grpc-status"]),
            additional_response_trailers_to_log: texts(&["grpc-status"]),
        },
    )
}

/// The logger of connections.
pub(crate) fn connections(direction: Direction) -> accesslog::AccessLog {
    logger(
        "envoy.access_loggers.tcp_grpc",
        grpc::TcpGrpcAccessLogConfig {
            common_config: Some(common(direction)),
        },
    )
}

fn logger<T: Name + Message>(name: &str, config: T) -> accesslog::AccessLog {
    accesslog::AccessLog {
        name: name.to_owned(),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(any(config))),
        ..Default::default()
    }
}

fn common(direction: Direction) -> grpc::CommonGrpcAccessLogConfig {
    let to = core::grpc_service::EnvoyGrpc {
        cluster_name: BESIDE.to_owned(),
        ..Default::default()
    };
    let services = tag("services", Kind::Cluster(Cluster {}), "istio", "services");
    let (log_name, tags) = match direction {
        Direction::Inbound => (
            INBOUND,
            vec![services, tag("peer", Kind::Request(Request {}), KEPT, "peer")],
        ),
        Direction::Outbound => {
            let principal = tracing::CustomTag {
                tag: "principal".to_owned(),
                r#type: Some(tracing::custom_tag::Type::Value("%UPSTREAM_PEER_URI_SAN%".to_owned())),
            };
            (
                OUTBOUND,
                vec![
                    services,
                    tag("workload", Kind::Host(Host {}), "istio", "workload"),
                    principal,
                ],
            )
        }
    };
    grpc::CommonGrpcAccessLogConfig {
        log_name: log_name.to_owned(),
        grpc_service: Some(core::GrpcService {
            target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(to)),
            ..Default::default()
        }),
        transport_api_version: core::ApiVersion::V3.into(),
        custom_tags: tags,
        ..Default::default()
    }
}

fn tag(name: &str, kind: Kind, of: &str, key: &str) -> tracing::CustomTag {
    use metadata::metadata_key::{PathSegment, path_segment::Segment};
    tracing::CustomTag {
        tag: name.to_owned(),
        r#type: Some(tracing::custom_tag::Type::Metadata(tracing::custom_tag::Metadata {
            kind: Some(metadata::MetadataKind { kind: Some(kind) }),
            metadata_key: Some(metadata::MetadataKey {
                key: of.to_owned(),
                path: vec![PathSegment {
                    segment: Some(Segment::Key(key.to_owned())),
                }],
            }),
            default_value: String::new(),
        })),
    }
}

/// The HTTP filter by which proxies tell each other whose they are: its name and configuration.
pub(crate) fn exchange(direction: Direction) -> (&'static str, Any) {
    match direction {
        Direction::Inbound => {
            let rule = |header: &str, key: &str| moved::config::Rule {
                header: header.to_owned(),
                on_header_present: Some(moved::config::KeyValuePair {
                    metadata_namespace: KEPT.to_owned(),
                    key: key.to_owned(),
                    ..Default::default()
                }),
                remove: true,
                ..Default::default()
            };
            let config = moved::Config {
                request_rules: vec![rule(PEER, "peer"), rule(PEER_ID, "id")],
                ..Default::default()
            };
            ("envoy.filters.http.header_to_metadata", any(config))
        }
        Direction::Outbound => {
            use core::header_value_option::HeaderAppendAction;
            // What the application itself says there counts for nothing.
            let own = core::HeaderValueOption {
                header: Some(core::HeaderValue {
                    key: PEER.to_owned(),
                    value: "%ENVIRONMENT(MIZZEN_PEER_METADATA)%".to_owned(),
                    ..Default::default()
                }),
                append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
                ..Default::default()
            };
            let id = rules::header_mutation::Action::Remove(PEER_ID.to_owned());
            let does = |action| rules::HeaderMutation { action: Some(action) };
            let mutations = mutation::Mutations {
                request_mutations: vec![does(rules::header_mutation::Action::Append(own)), does(id)],
                ..Default::default()
            };
            let config = mutation::HeaderMutation {
                mutations: Some(mutations),
                ..Default::default()
            };
            ("envoy.filters.http.header_mutation", any(config))
        }
    }
}
