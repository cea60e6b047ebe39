//! What is done with a connection: HTTP or bytes.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::http as filters;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::google::protobuf::Any;
use mizzen_model::WeightedDestination;

use crate::access_log::access_logs;
use crate::name::BLACK_HOLE;
use crate::proto::{ZERO, ads, any, boolean, duration};
use crate::report::{self, Direction};
use crate::view::View;

use hcm::http_connection_manager::{
    CodecType, ForwardClientCertDetails, RouteSpecifier, ServerHeaderTransformation, SetCurrentClientCertDetails,
    UpgradeConfig,
};

/// On which side of the proxy HTTP comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// From the mesh, for the application.
    Inbound,
    /// From the application.
    Outbound,
    /// From outside.
    Gateway,
}

impl Side {
    fn direction(self) -> Direction {
        match self {
            Self::Inbound => Direction::Inbound,
            Self::Outbound | Self::Gateway => Direction::Outbound,
        }
    }
}

pub(super) fn rds(name: String) -> RouteSpecifier {
    RouteSpecifier::Rds(hcm::Rds {
        config_source: ads(),
        route_config_name: name,
    })
}

pub(super) fn inline(routes: RouteConfiguration) -> RouteSpecifier {
    RouteSpecifier::RouteConfig(routes)
}

/// Reads HTTP.
pub(super) fn http(view: &View<'_>, side: Side, stat_prefix: &str, routes: RouteSpecifier) -> listener::Filter {
    let mut filters = Vec::new();
    let mut logs = access_logs(view);
    if !view.scope.native() {
        let (name, config) = report::exchange(side.direction());
        filters.push(http_filter(name, config));
        logs.push(report::requests(side.direction()));
    }
    if side != Side::Inbound {
        filters.push(http_filter(
            "envoy.filters.http.fault",
            any(filters::fault::v3::HttpFault::default()),
        ));
        filters.push(http_filter(
            "envoy.filters.http.cors",
            any(filters::cors::v3::Cors::default()),
        ));
    }
    filters.push(http_filter(
        "envoy.filters.http.router",
        any(filters::router::v3::Router::default()),
    ));
    let (forward, details) = client_certificates(side);
    // The caller sees the name of the proxy that answered it; a sidecar leaves the application's to its caller's.
    let server = match side {
        Side::Inbound => ServerHeaderTransformation::PassThrough,
        Side::Outbound | Side::Gateway => ServerHeaderTransformation::Overwrite,
    };
    let manager = hcm::HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: stat_prefix.to_owned(),
        http_filters: filters,
        server_name: "istio-envoy".to_owned(),
        server_header_transformation: server.into(),
        use_remote_address: boolean(side == Side::Gateway),
        forward_client_cert_details: forward.into(),
        set_current_client_cert_details: details,
        normalize_path: boolean(true),
        stream_idle_timeout: duration(ZERO),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        access_log: logs,
        route_specifier: Some(routes),
        ..Default::default()
    };
    network_filter("envoy.filters.network.http_connection_manager", any(manager))
}

/// What the next one is told of the client's certificate. What the client itself wrote counts only if the connection
/// is the mesh's mutual TLS.
fn client_certificates(side: Side) -> (ForwardClientCertDetails, Option<SetCurrentClientCertDetails>) {
    let details = SetCurrentClientCertDetails {
        subject: boolean(true),
        uri: true,
        dns: true,
        ..Default::default()
    };
    match side {
        Side::Inbound => (ForwardClientCertDetails::AppendForward, Some(details)),
        Side::Outbound => (ForwardClientCertDetails::Sanitize, None),
        Side::Gateway => (ForwardClientCertDetails::SanitizeSet, Some(details)),
    }
}

fn http_filter(name: &str, config: Any) -> hcm::HttpFilter {
    let config = hcm::http_filter::ConfigType::TypedConfig(config);
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(config),
        ..Default::default()
    }
}

fn network_filter(name: &str, config: Any) -> listener::Filter {
    let config = listener::filter::ConfigType::TypedConfig(config);
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(config),
    }
}

/// Passes bytes on to a cluster.
pub(super) fn bytes(view: &View<'_>, side: Side, stat_prefix: &str, cluster: &str) -> listener::Filter {
    tcp_proxy(
        view,
        side,
        stat_prefix,
        tcp::tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned()),
    )
}

/// Passes bytes on to one of several destinations. If none has a share, connections are closed.
pub(super) fn weighted_bytes(
    view: &View<'_>,
    stat_prefix: &str,
    destinations: &[WeightedDestination],
    addressed: u16,
) -> listener::Filter {
    let side = Side::Outbound; // only routes share
    let name = |weighted: &WeightedDestination| view.cluster_of(&weighted.destination, addressed, true).to_string();
    if let [only] = destinations {
        return bytes(view, side, stat_prefix, &name(only));
    }
    let sharing: Vec<_> = destinations.iter().filter(|weighted| weighted.weight > 0).collect();
    match sharing.as_slice() {
        [] => bytes(view, side, stat_prefix, BLACK_HOLE),
        [only] => bytes(view, side, stat_prefix, &name(only)),
        several => {
            let weigh = |weighted: &&WeightedDestination| tcp::tcp_proxy::weighted_cluster::ClusterWeight {
                name: name(weighted),
                weight: weighted.weight,
                ..Default::default()
            };
            let clusters = tcp::tcp_proxy::WeightedCluster {
                clusters: several.iter().map(weigh).collect(),
            };
            tcp_proxy(
                view,
                side,
                stat_prefix,
                tcp::tcp_proxy::ClusterSpecifier::WeightedClusters(clusters),
            )
        }
    }
}

fn tcp_proxy(view: &View<'_>, side: Side, stat_prefix: &str, to: tcp::tcp_proxy::ClusterSpecifier) -> listener::Filter {
    let mut logs = access_logs(view);
    if !view.scope.native() {
        logs.push(report::connections(side.direction()));
    }
    let proxy = tcp::TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        access_log: logs,
        cluster_specifier: Some(to),
        ..Default::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", any(proxy))
}

/// A chain of one filter.
pub(super) fn chain(
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
