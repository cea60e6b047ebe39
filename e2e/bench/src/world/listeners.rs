//! Listeners: what is captured going out and coming in.

use std::net::Ipv4Addr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::http as filters;
use envoy_types::pb::envoy::extensions::filters::listener as inspectors;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::google::protobuf::Any;

use super::{address, ads, any, boolean, inbound_cluster, inbound_routes, number, seconds, texts, tls};
use crate::place::PORT;
use hcm::http_connection_manager::{
    CodecType, ForwardClientCertDetails, RouteSpecifier, ServerHeaderTransformation, SetCurrentClientCertDetails,
    UpgradeConfig,
};

const PLAIN_HTTP: &[&str] = &["http/1.0", "http/1.1", "h2c"];
const MESH_HTTP: &[&str] = &["istio-http/1.1", "istio-h2", "istio-http/1.0"];
const MESH_BYTES: &[&str] = &["istio", "istio-peer-exchange"];
const MESH_ALL: &[&str] = &[
    "istio-http/1.1",
    "istio-h2",
    "istio-http/1.0",
    "istio",
    "istio-peer-exchange",
];

pub(super) fn outbound() -> listener::Listener {
    let looping = chain(
        "virtualOutbound-trafficloop",
        Some(at_port(15001)),
        bytes("BlackHoleCluster"),
        None,
    );
    listener::Listener {
        filter_chains: vec![looping, unknown()],
        use_original_dst: boolean(true),
        ..base("virtualOutbound", 15001, core::TrafficDirection::Outbound)
    }
}

fn unknown() -> listener::FilterChain {
    chain("virtualOutbound-catchall-tcp", None, bytes("PassthroughCluster"), None)
}

pub(super) fn http() -> listener::Listener {
    let name = format!("0.0.0.0_{PORT}");
    let routes = RouteSpecifier::Rds(hcm::Rds {
        config_source: ads(),
        route_config_name: PORT.to_string(),
    });
    let wanted = listener::FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: texts(PLAIN_HTTP),
        ..Default::default()
    };
    let manager = manager(false, &format!("outbound_{name}"), routes);
    listener::Listener {
        filter_chains: vec![chain(&format!("{name}-http"), Some(wanted), manager, None)],
        default_filter_chain: Some(unknown()),
        listener_filters: vec![inspector(
            "envoy.filters.listener.http_inspector",
            any(inspectors::http_inspector::v3::HttpInspector::default()),
        )],
        bind_to_port: boolean(false),
        ..base(&name, PORT, core::TrafficDirection::Outbound)
    }
}

/// Chains for the application's HTTP port, if it has one, and for what no service names.
pub(super) fn inbound(port: Option<u16>) -> listener::Listener {
    let mut chains = vec![chain(
        "virtualInbound-blackhole",
        Some(at_port(15006)),
        bytes("BlackHoleCluster"),
        None,
    )];
    if let Some(port) = port {
        chains.push(inbound_chain(Some(port), "mtls-http", true, MESH_ALL));
        chains.push(inbound_chain(Some(port), "plain-http", true, &[]));
    }
    chains.push(inbound_chain(None, "mtls-http", true, MESH_HTTP));
    chains.push(inbound_chain(None, "mtls-tcp", false, MESH_BYTES));
    chains.push(inbound_chain(None, "plain-http", true, PLAIN_HTTP));
    chains.push(inbound_chain(None, "plain-tcp", false, &[]));
    chains.push(inbound_chain(None, "plain-tls", false, &[]));
    let not_there = |port: u16| listener::ListenerFilterChainMatchPredicate {
        rule: Some(
            listener::listener_filter_chain_match_predicate::Rule::DestinationPortRange(
                envoy_types::pb::envoy::r#type::v3::Int32Range {
                    start: i32::from(port),
                    end: i32::from(port) + 1,
                },
            ),
        ),
    };
    listener::Listener {
        filter_chains: chains,
        listener_filters: vec![
            inspector(
                "envoy.filters.listener.original_dst",
                any(inspectors::original_dst::v3::OriginalDst::default()),
            ),
            inspector(
                "envoy.filters.listener.tls_inspector",
                any(inspectors::tls_inspector::v3::TlsInspector::default()),
            ),
            listener::ListenerFilter {
                filter_disabled: port.map(not_there),
                ..inspector(
                    "envoy.filters.listener.http_inspector",
                    any(inspectors::http_inspector::v3::HttpInspector::default()),
                )
            },
        ],
        ..base("virtualInbound", 15006, core::TrafficDirection::Inbound)
    }
}

fn inbound_chain(port: Option<u16>, kind: &str, http: bool, offered: &[&str]) -> listener::FilterChain {
    let transport = if kind == "plain-http" || kind == "plain-tcp" {
        "raw_buffer"
    } else {
        "tls"
    };
    let wanted = listener::FilterChainMatch {
        destination_port: port.map(u32::from).and_then(number),
        transport_protocol: transport.to_owned(),
        application_protocols: texts(offered),
        ..Default::default()
    };
    let place = port.map_or_else(|| "virtualInbound".to_owned(), |port| format!("0.0.0.0_{port}"));
    let cluster = match port {
        Some(_) => inbound_cluster(),
        None => "InboundPassthroughCluster".to_owned(),
    };
    let filter = if http {
        let routes = RouteSpecifier::RouteConfig(inbound_routes(&cluster, port.unwrap_or_default()));
        manager(true, &format!("inbound_{place}"), routes)
    } else {
        bytes(&cluster)
    };
    let socket = kind.starts_with("mtls").then(tls::server);
    chain(&format!("{place}-{kind}"), Some(wanted), filter, socket)
}

fn manager(inbound: bool, stat_prefix: &str, routes: RouteSpecifier) -> listener::Filter {
    let mut http_filters = Vec::new();
    if !inbound {
        http_filters.push(http_filter(
            "envoy.filters.http.fault",
            any(filters::fault::v3::HttpFault::default()),
        ));
        http_filters.push(http_filter(
            "envoy.filters.http.cors",
            any(filters::cors::v3::Cors::default()),
        ));
    }
    http_filters.push(http_filter(
        "envoy.filters.http.router",
        any(filters::router::v3::Router::default()),
    ));
    let (server, forward, details) = if inbound {
        let details = SetCurrentClientCertDetails {
            subject: boolean(true),
            uri: true,
            dns: true,
            ..Default::default()
        };
        let server = ServerHeaderTransformation::PassThrough;
        (server, ForwardClientCertDetails::AppendForward, Some(details))
    } else {
        (
            ServerHeaderTransformation::Overwrite,
            ForwardClientCertDetails::Sanitize,
            None,
        )
    };
    let manager = hcm::HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: stat_prefix.to_owned(),
        http_filters,
        server_name: "istio-envoy".to_owned(),
        server_header_transformation: server.into(),
        use_remote_address: boolean(false),
        forward_client_cert_details: forward.into(),
        set_current_client_cert_details: details,
        normalize_path: boolean(true),
        stream_idle_timeout: seconds(0),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        route_specifier: Some(routes),
        ..Default::default()
    };
    network_filter("envoy.filters.network.http_connection_manager", any(manager))
}

fn http_filter(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn network_filter(name: &str, config: Any) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(config)),
    }
}

fn bytes(cluster: &str) -> listener::Filter {
    let proxy = tcp::TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp::tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", any(proxy))
}

fn inspector(name: &str, config: Any) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn at_port(port: u32) -> listener::FilterChainMatch {
    listener::FilterChainMatch {
        destination_port: number(port),
        ..Default::default()
    }
}

fn chain(
    name: &str,
    wanted: Option<listener::FilterChainMatch>,
    filter: listener::Filter,
    socket: Option<core::TransportSocket>,
) -> listener::FilterChain {
    listener::FilterChain {
        name: name.to_owned(),
        filter_chain_match: wanted,
        filters: vec![filter],
        transport_socket: socket,
        ..Default::default()
    }
}

fn base(name: &str, port: u16, direction: core::TrafficDirection) -> listener::Listener {
    listener::Listener {
        name: name.to_owned(),
        address: address(Ipv4Addr::UNSPECIFIED, port),
        traffic_direction: direction.into(),
        listener_filters_timeout: seconds(5),
        continue_on_listener_filters_timeout: true,
        ..Default::default()
    }
}
