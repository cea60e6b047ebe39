//! What the proxy listens on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use mizzen_model::{Protocol, Service};

use crate::name::{VIRTUAL_INBOUND, VIRTUAL_OUTBOUND, listener_address};
use crate::proto::{address, any, boolean, duration};
use crate::view::View;

mod filter;
mod gateway;
mod inbound;
mod outbound;

pub(crate) use gateway::servers;

/// Where applications' outbound connections are redirected to.
const OUTBOUND_PORT: u16 = 15001;
/// Where inbound connections are redirected to.
const INBOUND_PORT: u16 = 15006;
/// Any address.
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// What the inspector of first bytes calls HTTP.
const PLAIN_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// All listeners of the proxy.
pub(crate) fn names(view: &View<'_>) -> BTreeSet<String> {
    if view.is_gateway() {
        return gateway::ports(view).map(|port| format!("{ANYWHERE}_{port}")).collect();
    }
    let mut names = BTreeSet::from([VIRTUAL_OUTBOUND.to_owned(), VIRTUAL_INBOUND.to_owned()]);
    for service in view.mesh.visible_services(view.namespace()) {
        for port in service.ports.iter().filter(|port| port.protocol.is_carried()) {
            if port.protocol.is_http() {
                names.insert(format!("{ANYWHERE}_{}", port.number));
            } else {
                let addresses = outbound::addresses(view, service).into_iter();
                names.extend(addresses.map(|address| format!("{address}_{}", port.number)));
            }
        }
    }
    names
}

/// The listener of that name, if the proxy has it.
pub(crate) fn listener(view: &View<'_>, name: &str) -> Option<listener::Listener> {
    if view.is_gateway() {
        let (address, port) = listener_address(name)?;
        return if address == ANYWHERE {
            gateway::listener(view, name, port)
        } else {
            None
        };
    }
    match name {
        VIRTUAL_OUTBOUND => Some(outbound::capture(view)),
        VIRTUAL_INBOUND => Some(inbound::capture(view)),
        _ => {
            let (address, port) = listener_address(name)?;
            outbound::listener(view, name, address, port)
        }
    }
}

/// The workload's own ports that services lead to, what is spoken there, and whose they are. Where services disagree, the
/// oldest one decides.
pub(crate) fn served_ports<'a>(view: &View<'a>) -> BTreeMap<u16, (Protocol, Vec<&'a Arc<Service>>)> {
    let mut found: BTreeMap<u16, Vec<(&Arc<Service>, Protocol)>> = BTreeMap::new();
    for own in view.workload.into_iter().flat_map(|workload| &workload.services) {
        let Some(service) = view.mesh.service(&own.host) else {
            continue;
        };
        for (port, target) in &own.ports {
            if let Some(port) = service.port(*port).filter(|port| port.protocol.is_carried()) {
                found.entry(*target).or_default().push((service, port.protocol));
            }
        }
    }
    let decided = found.into_iter().filter_map(|(port, mut services)| {
        services.sort_by_key(|(service, _)| (service.created, &service.host));
        services.dedup_by_key(|(service, _)| &service.host);
        let (_, protocol) = *services.first()?;
        Some((
            port,
            (protocol, services.into_iter().map(|(service, _)| service).collect()),
        ))
    });
    decided.collect()
}

/// A listener that others are like.
fn base(view: &View<'_>, name: &str, port: u16, direction: core::TrafficDirection) -> listener::Listener {
    listener::Listener {
        name: name.to_owned(),
        address: address(ANYWHERE, port),
        traffic_direction: direction.into(),
        listener_filters_timeout: duration(view.config().protocol_detection_timeout),
        continue_on_listener_filters_timeout: true,
        ..Default::default()
    }
}

fn original_destination() -> listener::ListenerFilter {
    use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
    inspector("envoy.filters.listener.original_dst", any(OriginalDst::default()), None)
}

/// Tells TLS from plain text, and reads the server name and the protocols offered.
fn tls_inspector(disabled: Option<listener::ListenerFilterChainMatchPredicate>) -> listener::ListenerFilter {
    use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
    inspector(
        "envoy.filters.listener.tls_inspector",
        any(TlsInspector::default()),
        disabled,
    )
}

/// Tells HTTP from other bytes.
fn http_inspector(disabled: Option<listener::ListenerFilterChainMatchPredicate>) -> listener::ListenerFilter {
    use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
    inspector(
        "envoy.filters.listener.http_inspector",
        any(HttpInspector::default()),
        disabled,
    )
}

fn inspector(
    name: &str,
    config: envoy_types::pb::google::protobuf::Any,
    filter_disabled: Option<listener::ListenerFilterChainMatchPredicate>,
) -> listener::ListenerFilter {
    let config = listener::listener_filter::ConfigType::TypedConfig(config);
    listener::ListenerFilter {
        name: name.to_owned(),
        filter_disabled,
        config_type: Some(config),
    }
}

/// Not bound: the capturing listener hands connections over.
fn handed_over(listener: listener::Listener) -> listener::Listener {
    listener::Listener {
        bind_to_port: boolean(false),
        ..listener
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}
