//! What a gateway lets in: nothing but what a Gateway says.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use mizzen_model::{Gateway, Server};
use std::sync::Arc;

use super::base;
use super::filter::{self, Side};
use crate::view::View;

/// The gateways' servers for HTTP, by the port on which the proxy itself listens.
pub(crate) fn servers<'a>(view: &View<'a>) -> BTreeMap<u16, Vec<(&'a Arc<Gateway>, &'a Server)>> {
    let mut found: BTreeMap<u16, Vec<(&Arc<Gateway>, &Server)>> = BTreeMap::new();
    for gateway in view.gateways() {
        for server in gateway.servers.iter().filter(|server| server.protocol.is_http()) {
            found
                .entry(own_port(view, server.port))
                .or_default()
                .push((gateway, server));
        }
    }
    found
}

pub(super) fn ports(view: &View<'_>) -> impl Iterator<Item = u16> {
    servers(view).into_keys()
}

/// A server's port is one of the gateway's service; the proxy listens where that leads.
fn own_port(view: &View<'_>, port: u16) -> u16 {
    let mut services = view.workload.into_iter().flat_map(|workload| &workload.services);
    services
        .find_map(|service| service.ports.get(&port).copied())
        .unwrap_or(port)
}

pub(super) fn listener(view: &View<'_>, name: &str, port: u16) -> Option<listener::Listener> {
    servers(view).get(&port)?;
    let routes = filter::rds(format!("http.{port}"));
    let http = filter::http(view, Side::Gateway, &format!("outbound_{name}"), routes);
    Some(listener::Listener {
        filter_chains: vec![filter::chain(name, None, http, None)],
        ..base(view, name, port, core::TrafficDirection::Outbound)
    })
}
