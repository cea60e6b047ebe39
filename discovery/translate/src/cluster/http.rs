//! What is spoken to an upstream.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as http;
use envoy_types::pb::google::protobuf::Any;
use mizzen_model::ConnectionPool;

use crate::proto::{any, duration, number, ordered};

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upstream {
    Http1,
    Http2,
    /// What the client speaks.
    AsDownstream,
    Bytes,
}

/// The options, under the name that Envoy looks for them; none for bytes.
pub(super) fn options(
    upstream: Upstream,
    pool: Option<&ConnectionPool>,
    server_name_of_request: bool,
) -> HashMap<String, Any> {
    use http::http_protocol_options::explicit_http_config::ProtocolConfig;
    use http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig};
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let protocol = match upstream {
        Upstream::Bytes => return HashMap::new(),
        Upstream::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(
            core::Http1ProtocolOptions::default(),
        )),
        Upstream::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2(pool))),
        Upstream::AsDownstream => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(core::Http1ProtocolOptions::default()),
            http2_protocol_options: Some(http2(pool)),
            ..Default::default()
        }),
    };
    let common = pool.and_then(|pool| {
        let wanted = core::HttpProtocolOptions {
            idle_timeout: pool.http.idle_timeout.and_then(duration),
            max_connection_duration: pool.tcp.max_connection_duration.and_then(duration),
            max_requests_per_connection: pool.http.max_requests_per_connection.and_then(number),
            ..Default::default()
        };
        (wanted != core::HttpProtocolOptions::default()).then_some(wanted)
    });
    let options = http::HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_http_protocol_options: server_name_of_request.then(|| core::UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: true,
            ..Default::default()
        }),
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    };
    ordered(vec![(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        any(options),
    )])
}

fn http2(pool: Option<&ConnectionPool>) -> core::Http2ProtocolOptions {
    let streams = pool.and_then(|pool| pool.http.max_concurrent_streams);
    core::Http2ProtocolOptions {
        max_concurrent_streams: streams.and_then(number),
        ..Default::default()
    }
}
