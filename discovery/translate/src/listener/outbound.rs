//! What the application sends.
//!
//! `virtualOutbound` takes all that is redirected and hands it to the listener of the address that the application
//! connected to: `<address>_<port>`, else `0.0.0.0_<port>`; if there is neither, the mesh does not know the destination.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use mizzen_model::{L4Match, OutboundPolicy, Service, ServicePort, VirtualService};

use super::filter::{self, Side};
use super::{ANYWHERE, OUTBOUND_PORT, PLAIN_HTTP, base, handed_over, http_inspector, texts, tls_inspector};
use crate::name::{BLACK_HOLE, PASSTHROUGH, VIRTUAL_OUTBOUND};
use crate::proto::{address, boolean, number};
use crate::view::View;

pub(super) fn capture(view: &View<'_>) -> listener::Listener {
    let looping = filter::chain(
        "virtualOutbound-trafficloop",
        Some(listener::FilterChainMatch {
            destination_port: number(u32::from(OUTBOUND_PORT)),
            ..Default::default()
        }),
        filter::bytes(view, Side::Outbound, BLACK_HOLE, BLACK_HOLE),
        None,
    );
    listener::Listener {
        filter_chains: vec![looping, unknown(view, None)],
        use_original_dst: boolean(true),
        ..base(view, VIRTUAL_OUTBOUND, OUTBOUND_PORT, core::TrafficDirection::Outbound)
    }
}

/// What happens to a destination that the mesh does not know.
fn unknown(view: &View<'_>, wanted: Option<listener::FilterChainMatch>) -> listener::FilterChain {
    let (name, cluster) = match view.config().outbound_policy {
        OutboundPolicy::AllowAny => ("virtualOutbound-catchall-tcp", PASSTHROUGH),
        OutboundPolicy::RegistryOnly => ("virtualOutbound-blackhole", BLACK_HOLE),
    };
    filter::chain(
        name,
        wanted,
        filter::bytes(view, Side::Outbound, cluster, cluster),
        None,
    )
}

/// The addresses at which clients find a service: its own, or, if it is headless, those of its endpoints.
pub(super) fn addresses(view: &View<'_>, service: &Service) -> BTreeSet<IpAddr> {
    if !service.headless() {
        return service.addresses.iter().copied().collect();
    }
    let endpoints = view
        .mesh
        .endpoints(&service.host)
        .into_iter()
        .flat_map(|endpoints| endpoints.iter());
    endpoints.map(|endpoint| endpoint.address).collect()
}

/// Whether that is one of [`addresses`].
fn found_at(view: &View<'_>, service: &Service, at: IpAddr) -> bool {
    if !service.headless() {
        return service.addresses.contains(&at);
    }
    let mut endpoints = view
        .mesh
        .endpoints(&service.host)
        .into_iter()
        .flat_map(|endpoints| endpoints.iter());
    endpoints.any(|endpoint| endpoint.address == at)
}

pub(super) fn listener(view: &View<'_>, name: &str, at: IpAddr, port: u16) -> Option<listener::Listener> {
    let mut services = view.mesh.services_with_port(port, view.namespace());
    if at == ANYWHERE {
        let known = services.any(|service| service.port(port).is_some_and(|port| port.protocol.is_http()));
        return known.then(|| http_listener(view, name, port));
    }
    let found = services.find_map(|service| {
        let port = service
            .port(port)
            .filter(|port| port.protocol.is_carried() && !port.protocol.is_http())?;
        found_at(view, service, at).then_some((service, port))
    });
    let (service, port) = found?;
    Some(service_listener(view, name, at, service, port))
}

/// All HTTP to that port, whatever the address: the authority decides. What is not HTTP goes where it was sent.
fn http_listener(view: &View<'_>, name: &str, port: u16) -> listener::Listener {
    handed_over(listener::Listener {
        filter_chains: vec![http_chain(view, name, port)],
        default_filter_chain: Some(unknown(view, None)),
        listener_filters: vec![http_inspector(None)],
        ..base(view, name, port, core::TrafficDirection::Outbound)
    })
}

fn http_chain(view: &View<'_>, name: &str, port: u16) -> listener::FilterChain {
    let wanted = listener::FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: texts(&PLAIN_HTTP),
        ..Default::default()
    };
    let routes = filter::rds(port.to_string());
    let http = filter::http(view, Side::Outbound, &format!("outbound_{name}"), routes);
    filter::chain(&format!("{name}-http"), Some(wanted), http, None)
}

/// Bytes to an address of a service, and HTTP too where nobody said what is spoken.
fn service_listener(
    view: &View<'_>,
    name: &str,
    at: IpAddr,
    service: &Arc<Service>,
    port: &ServicePort,
) -> listener::Listener {
    let mut chains = Vec::new();
    let mut inspectors = Vec::new();
    let routes = view
        .mesh
        .virtual_services_for(&service.host, &View::MESH, view.namespace());
    let route = routes.first();
    let mut others = None;
    if let Some(route) = route {
        let by_name = by_server_name(view, route, port.number, name);
        if !by_name.is_empty() {
            inspectors.push(tls_inspector(None));
            chains.extend(by_name);
        }
        let mut rules = route.tcp.iter();
        let decided = rules.find(|tcp| {
            tcp.matches.is_empty() || tcp.matches.iter().any(|wanted| holds(view, wanted, at, port.number))
        });
        others = decided.map(|tcp| filter::weighted_bytes(view, name, &tcp.destinations, port.number));
    }
    let bytes = others.unwrap_or_else(|| {
        let cluster = view.cluster_of_port(&service.host, port.number, None, true);
        filter::bytes(view, Side::Outbound, &cluster, &cluster)
    });
    if port.protocol.is_auto() {
        inspectors.push(http_inspector(None));
        chains.push(http_chain(view, name, port.number));
    }
    handed_over(listener::Listener {
        address: address(at, port.number),
        filter_chains: chains,
        default_filter_chain: Some(filter::chain(&format!("{name}-tcp"), None, bytes, None)),
        listener_filters: inspectors,
        ..base(view, name, port.number, core::TrafficDirection::Outbound)
    })
}

/// Whether a condition on a connection holds, but for the server name.
fn holds(view: &View<'_>, wanted: &L4Match, at: IpAddr, port: u16) -> bool {
    wanted.port.is_none_or(|wanted| wanted == port)
        && (wanted.destination_subnets.is_empty() || wanted.destination_subnets.iter().any(|net| net.contains(&at)))
        && wanted.source_labels.selects(view.labels())
        && wanted
            .source_namespace
            .as_ref()
            .is_none_or(|wanted| wanted == view.namespace())
        && wanted
            .gateways
            .as_ref()
            .is_none_or(|gateways| gateways.contains(&View::MESH))
}

/// Chains for TLS of the application's own, by server name. Two chains must not want the same: the first has it.
fn by_server_name(view: &View<'_>, route: &VirtualService, port: u16, name: &str) -> Vec<listener::FilterChain> {
    let mut seen = BTreeSet::new();
    let mut chains = Vec::new();
    for (index, tls) in route.tls.iter().enumerate() {
        let matches = tls.matches.iter().filter(|wanted| {
            // subnets are left to the listener's own address
            holds(
                view,
                &L4Match {
                    destination_subnets: Vec::new(),
                    ..(*wanted).clone()
                },
                ANYWHERE,
                port,
            )
        });
        let hosts = matches
            .flat_map(|wanted| &wanted.sni_hosts)
            .filter(|host| host.as_str() != "*");
        let names: Vec<String> = hosts
            .filter(|host| seen.insert((*host).clone()))
            .map(ToString::to_string)
            .collect();
        if !names.is_empty() {
            let wanted = listener::FilterChainMatch {
                server_names: names,
                transport_protocol: "tls".to_owned(),
                ..Default::default()
            };
            let bytes = filter::weighted_bytes(view, name, &tls.destinations, port);
            chains.push(filter::chain(&format!("{name}-tls-{index}"), Some(wanted), bytes, None));
        }
    }
    chains
}
