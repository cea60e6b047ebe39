//! Listeners and filter chains.

use super::Result;
use super::access_log::access_logs;
use super::cluster::service;
use super::fields::{
    duration, extension, flag, is_extension, limit, lower, missing, networks, non_empty, number, out_of_range, port,
    socket_address, unknown_extension, unsupported,
};
use super::http::http_connection;
use super::route::{one_cluster, weighted};
use super::tls::downstream_socket;
use crate::error::{At, ConfigError, Problems};
use crate::header::HeaderOps;
use crate::listener::{
    ChainMatch, ChainTransport, Direction, FilterChain, Inspect, Listener, Protocol, TcpProxy, TransportProtocol,
};
use crate::route::WeightedCluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::listener::{
    http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, tls_inspector::v3::TlsInspector,
};
use envoy_types::pb::envoy::extensions::filters::network::{
    http_connection_manager::v3::HttpConnectionManager, tcp_proxy::v3 as tcp_pb,
};
use envoy_types::pb::google::protobuf::Any;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default time for reading a connection's first bytes.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy's default idle timeout of a proxied TCP connection.
const TCP_IDLE: Duration = Duration::from_secs(3600);

#[expect(
    deprecated,
    reason = "bind_to_port had another spelling, which is still valid in xDS v3"
)]
pub(super) fn listener(at: &At<'_>, raw: pb::Listener, problems: &mut Problems) -> Result<Listener> {
    let at = *at;
    if raw.name.is_empty() {
        return Err(missing(at.field("name")));
    }
    if raw.filter_chain_matcher.is_some() || raw.fcds_config.is_some() {
        return Err(unsupported(
            at.field("filter_chain_matcher"),
            "a matcher tree or discovered filter chains",
        ));
    }
    if raw.udp_listener_config.is_some() || raw.api_listener.is_some() {
        return Err(unsupported(at, "a UDP or API listener"));
    }
    let chains = raw
        .filter_chains
        .iter()
        .enumerate()
        .map(|(i, chain)| filter_chain(at.index("filter_chains", i), chain, problems).map(Arc::new))
        .collect::<Result<_>>()?;
    let default_chain = match raw.default_filter_chain.as_ref() {
        Some(chain) => Some(Arc::new(filter_chain(
            at.field("default_filter_chain"),
            chain,
            problems,
        )?)),
        None => None,
    };
    let old_bind = raw.deprecated_v1.and_then(|old| old.bind_to_port);
    Ok(Listener {
        address: socket_address(at.field("address"), raw.address.clone())?,
        bind: flag(raw.bind_to_port.or(old_bind), true),
        direction: match raw.traffic_direction() {
            core::TrafficDirection::Inbound => Direction::Inbound,
            core::TrafficDirection::Outbound => Direction::Outbound,
            core::TrafficDirection::Unspecified => Direction::Unspecified,
        },
        chains,
        default_chain,
        inspect: inspect(at, &raw.listener_filters)?,
        inspect_timeout: duration(at.field("listener_filters_timeout"), raw.listener_filters_timeout)?
            .unwrap_or(INSPECT_TIMEOUT),
        continue_after_inspect_timeout: raw.continue_on_listener_filters_timeout,
        access_logs: access_logs(at, &raw.access_log)?,
        name: raw.name.into(),
    })
}

fn inspect(at: At<'_>, filters: &[pb::ListenerFilter]) -> Result<Inspect> {
    let mut inspect = Inspect::default();
    for (i, filter) in filters.iter().enumerate() {
        let at = at.index("listener_filters", i);
        let Some(pb::listener_filter::ConfigType::TypedConfig(any)) = filter.config_type.as_ref() else {
            return Err(missing(at.field("typed_config")));
        };
        let disabled = || match filter.filter_disabled.as_ref() {
            Some(predicate) => disabled_ports(at.field("filter_disabled"), predicate, 0),
            None => Ok(Vec::new()),
        };
        if is_extension::<TlsInspector>(any) {
            inspect.tls = true;
            inspect.tls_disabled_ports = disabled()?.into();
        } else if is_extension::<HttpInspector>(any) {
            inspect.http = true;
            inspect.http_disabled_ports = disabled()?.into();
        } else if !is_extension::<OriginalDst>(any) {
            return Err(unknown_extension(at, &any.type_url));
        }
    }
    Ok(inspect)
}

/// Ports (first and last) for which a listener filter is off.
fn disabled_ports(at: At<'_>, predicate: &pb::ListenerFilterChainMatchPredicate, depth: u8) -> Result<Vec<(u16, u16)>> {
    use pb::listener_filter_chain_match_predicate::Rule;
    match predicate.rule.as_ref() {
        Some(Rule::DestinationPortRange(range)) => {
            let bound = |value: i32| {
                u16::try_from(value).map_err(|_| out_of_range(at.field("destination_port_range"), value, "ports"))
            };
            // The end is excluded in the message; an empty range is none.
            if range.end <= range.start {
                return Ok(Vec::new());
            }
            Ok(vec![(bound(range.start)?, bound(range.end - 1)?)])
        }
        Some(Rule::AnyMatch(true)) => Ok(vec![(0, u16::MAX)]),
        Some(Rule::OrMatch(set)) if depth < 4 => {
            let mut ports = Vec::new();
            for rule in &set.rules {
                ports.extend(disabled_ports(at, rule, depth + 1)?);
            }
            Ok(ports)
        }
        _ => Err(unsupported(at, "a condition other than destination ports")),
    }
}

/// A filter chain. A wrong match is the listener's problem (traffic could reach another chain than it should); a wrong
/// transport or filter closes the chain's connections.
fn filter_chain(at: At<'_>, raw: &pb::FilterChain, problems: &mut Problems) -> Result<FilterChain> {
    let matches = match raw.filter_chain_match.as_ref() {
        Some(raw) => chain_match(at.field("filter_chain_match"), raw)?,
        None => ChainMatch::default(),
    };
    let close = |error: ConfigError, problems: &mut Problems| {
        let why = error.to_string();
        problems.push(error);
        Protocol::Closed(why.into())
    };
    let name = raw.name.as_str().into();
    let transport = match downstream_socket(at.field("transport_socket"), raw.transport_socket.as_ref()) {
        Ok(transport) => transport,
        Err(error) => {
            let protocol = close(error, problems);
            return Ok(FilterChain {
                name,
                matches,
                transport: ChainTransport::Raw,
                protocol,
            });
        }
    };
    let protocol = match protocol(at, raw, problems) {
        Ok(protocol) => protocol,
        Err(error) => close(error, problems),
    };
    Ok(FilterChain {
        name,
        matches,
        transport,
        protocol,
    })
}

fn chain_match(at: At<'_>, raw: &pb::FilterChainMatch) -> Result<ChainMatch> {
    if !raw.address_suffix.is_empty()
        || !raw.source_ports.is_empty()
        || !raw.direct_source_prefix_ranges.is_empty()
        || raw.source_type() != pb::filter_chain_match::ConnectionSourceType::Any
    {
        return Err(unsupported(
            at,
            "a match on address suffix, source type, source port or direct source",
        ));
    }
    Ok(ChainMatch {
        destination_port: number(raw.destination_port)
            .map(|value| port(at.field("destination_port"), value))
            .transpose()?,
        destination_nets: networks(at.field("prefix_ranges"), &raw.prefix_ranges)?,
        server_names: raw
            .server_names
            .iter()
            .map(|name| match name.find('*') {
                // "*.suffix" is the only wildcard.
                None => Ok(lower(name)),
                Some(0) if name.starts_with("*.") && !name.get(1..).unwrap_or_default().contains('*') => {
                    Ok(lower(name))
                }
                Some(_) => Err(ConfigError::Domain {
                    at: at.field("server_names").to_string(),
                    value: name.clone(),
                }),
            })
            .collect::<Result<_>>()?,
        transport_protocol: match raw.transport_protocol.as_str() {
            "" => None,
            "tls" => Some(TransportProtocol::Tls),
            "raw_buffer" => Some(TransportProtocol::Raw),
            other => return Err(out_of_range(at.field("transport_protocol"), other, "tls or raw_buffer")),
        },
        application_protocols: raw
            .application_protocols
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        source_nets: networks(at.field("source_prefix_ranges"), &raw.source_prefix_ranges)?,
    })
}

fn protocol(at: At<'_>, chain: &pb::FilterChain, problems: &mut Problems) -> Result<Protocol> {
    let (last, before) = chain.filters.split_last().ok_or_else(|| missing(at.field("filters")))?;
    if let Some((i, filter)) = before.iter().enumerate().next() {
        // Any filter before the last may be a policy, and none is known here.
        let at = at.index("filters", i);
        return Err(typed(at, filter).map_or_else(|error| error, |any| unknown_extension(at, &any.type_url)));
    }
    let at = at.field("filters");
    let any = typed(at, last)?;
    if let Some(raw) = extension::<HttpConnectionManager>(at, any)? {
        return http_connection(at.field("http_connection_manager"), raw, problems)
            .map(|http| Protocol::Http(Arc::new(http)));
    }
    if let Some(raw) = extension::<tcp_pb::TcpProxy>(at, any)? {
        let (service, _) = service(chain.metadata.as_ref());
        let mut tcp = tcp_proxy(at.field("tcp_proxy"), &raw)?;
        tcp.service = service;
        return Ok(Protocol::Tcp(Arc::new(tcp)));
    }
    Err(unknown_extension(at, &any.type_url))
}

fn typed<'a>(at: At<'_>, filter: &'a pb::Filter) -> Result<&'a Any> {
    match filter.config_type.as_ref() {
        Some(pb::filter::ConfigType::TypedConfig(any)) => Ok(any),
        Some(pb::filter::ConfigType::ConfigDiscovery(_)) => {
            Err(unsupported(at.field("config_discovery"), "a discovered filter"))
        }
        None => Err(missing(at.field("typed_config"))),
    }
}

fn tcp_proxy(at: At<'_>, raw: &tcp_pb::TcpProxy) -> Result<TcpProxy> {
    use tcp_pb::tcp_proxy::ClusterSpecifier;
    if raw.tunneling_config.is_some() || raw.metadata_match.is_some() {
        return Err(unsupported(at, "tunneling or a choice of endpoints by metadata"));
    }
    let clusters = match raw.cluster_specifier.as_ref() {
        Some(ClusterSpecifier::Cluster(name)) => one_cluster(at.field("cluster"), name)?,
        Some(ClusterSpecifier::WeightedClusters(clusters)) => {
            let at = at.field("weighted_clusters");
            let entries = clusters
                .clusters
                .iter()
                .map(|entry| {
                    if entry.metadata_match.is_some() {
                        return Err(unsupported(
                            at.field("metadata_match"),
                            "a choice of endpoints by metadata",
                        ));
                    }
                    Ok(WeightedCluster {
                        cluster: non_empty(&entry.name)
                            .map(crate::ClusterName::new)
                            .ok_or_else(|| missing(at.field("name")))?,
                        weight: entry.weight,
                        request_headers: HeaderOps::default(),
                        response_headers: HeaderOps::default(),
                        host: None,
                    })
                })
                .collect::<Result<_>>()?;
            weighted(at, entries)?
        }
        None => return Err(missing(at.field("cluster_specifier"))),
    };
    Ok(TcpProxy {
        stat_prefix: raw.stat_prefix.as_str().into(),
        clusters,
        idle_timeout: limit(at.field("idle_timeout"), raw.idle_timeout, Some(TCP_IDLE))?,
        max_connect_attempts: number(raw.max_connect_attempts).unwrap_or(1).max(1),
        access_logs: access_logs(at, &raw.access_log)?,
        service: None,
    })
}
