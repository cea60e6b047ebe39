//! The virtual hosts of a gateway's port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as route;
use mizzen_model::{Gateway, GatewayRef, Host, NamespaceFilter, Server, ServerHost, VirtualService};

use super::action::Place;
use super::matches;
use super::virtual_host::virtual_host;
use crate::listener::servers;
use crate::view::View;

/// A host's virtual services, and through which gateways they came.
#[derive(Default)]
struct Bound<'a> {
    /// The port that clients address: the server's, not that on which the proxy listens.
    port: u16,
    routes: Vec<&'a Arc<VirtualService>>,
    at: BTreeSet<GatewayRef>,
    https_only: bool,
}

/// All virtual services that are in force at this gateway, with the port that clients address.
pub(crate) fn gateway_routes<'a>(view: &View<'a>) -> Vec<(u16, &'a Arc<VirtualService>)> {
    let mut found = Vec::new();
    for servers in servers(view).into_values() {
        for bound in bound(view, &servers).into_values() {
            found.extend(bound.routes.into_iter().map(|own| (bound.port, own)));
        }
    }
    found
}

/// None if no Gateway opens that port.
pub(super) fn virtual_hosts(view: &View<'_>, port: u16) -> Option<Vec<route::VirtualHost>> {
    let servers = servers(view);
    let mut hosts: Vec<_> = bound(view, servers.get(&port)?)
        .into_iter()
        .map(|(host, bound)| {
            let place = Place {
                view,
                port: bound.port,
                at: bound.at,
            };
            let routes = bound.routes.iter().flat_map(|own| place.routes(own)).collect();
            let name = format!("{host}:{}", bound.port);
            let mut built = virtual_host(name, vec![host.to_string()], last_things_last(routes));
            if bound.https_only {
                built.require_tls = route::virtual_host::TlsRequirementType::All.into();
            }
            built
        })
        .collect();
    if hosts.is_empty() {
        // nothing is let in: 404
        hosts.push(virtual_host(
            format!("blackhole:{port}"),
            vec!["*".to_owned()],
            Vec::new(),
        ));
    }
    Some(hosts)
}

fn bound<'a>(view: &View<'a>, servers: &[(&'a Arc<Gateway>, &'a Server)]) -> BTreeMap<Host, Bound<'a>> {
    let mut found: BTreeMap<Host, Bound<'_>> = BTreeMap::new();
    for (gateway, server) in servers {
        let at = GatewayRef::Gateway {
            namespace: gateway.key.namespace.clone(),
            name: gateway.key.name.clone(),
        };
        if server.tls.as_ref().is_some_and(|tls| tls.https_redirect) {
            for served in &server.hosts {
                let bound = found.entry(served.host.clone()).or_insert_with(|| Bound {
                    port: server.port,
                    ..Bound::default()
                });
                bound.https_only = true;
            }
        }
        for own in view.mesh.virtual_services_at(&at, view.namespace()) {
            for host in own
                .hosts
                .iter()
                .flat_map(|host| server.hosts.iter().filter_map(|s| common(s, own, host)))
            {
                let bound = found.entry(host.clone()).or_insert_with(|| Bound {
                    port: server.port,
                    ..Bound::default()
                });
                bound.at.insert(at.clone());
                if !bound.routes.iter().any(|known| known.key == own.key) {
                    bound.routes.push(own);
                }
            }
        }
    }
    for bound in found.values_mut() {
        bound.routes.sort_by_key(|own| (own.created, &own.key));
    }
    found
}

/// The hosts for which both a server and a virtual service are.
fn common<'a>(served: &'a ServerHost, own: &VirtualService, host: &'a Host) -> Option<&'a Host> {
    let admitted = match &served.namespace {
        NamespaceFilter::Any => true,
        NamespaceFilter::Only(namespace) => *namespace == own.key.namespace,
    };
    if !admitted {
        None
    } else if served.host.covers(host) {
        Some(host)
    } else if host.covers(&served.host) {
        Some(&served.host)
    } else {
        None
    }
}

/// Of several virtual services for one host, what takes everything comes after what takes something; the oldest one's
/// is the only one that is reached.
fn last_things_last(routes: Vec<route::Route>) -> Vec<route::Route> {
    let everything = Some(matches::everything());
    let (rest, mut some): (Vec<_>, Vec<_>) = routes.into_iter().partition(|route| route.r#match == everything);
    some.extend(rest.into_iter().take(1));
    some
}
