//! The virtual hosts that a sidecar sees: the services, what users route besides, and the rest.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as route;
use mizzen_model::{GatewayRef, Host, Namespace, OutboundPolicy, Service, VirtualService};

use super::action::{self, Place};
use crate::name::{PASSTHROUGH, VirtualHostName};
use crate::report::PEER;
use crate::view::View;

/// Whether HTTP to that port of the service is looked at.
pub(super) fn speaks_http(service: &Service, port: u16) -> bool {
    service
        .port(port)
        .is_some_and(|port| port.protocol.is_http() || port.protocol.is_auto())
}

/// All of them, no domain twice.
pub(super) fn all(view: &View<'_>, port: u16) -> Vec<route::VirtualHost> {
    let services: Vec<_> = view
        .mesh
        .services_with_port(port, view.namespace())
        .filter(|service| speaks_http(service, port))
        .collect();
    // A service's full name is its own; short ones go to who comes first.
    let mut taken: BTreeSet<String> = services.iter().map(|service| service.host.to_string()).collect();
    let mut hosts = Vec::new();
    for service in &services {
        let mut host = of_service(view, service, port);
        host.domains
            .retain(|domain| *domain == service.host.as_str() || taken.insert(domain.clone()));
        hosts.push(host);
    }
    for own in view.mesh.virtual_services_at(&GatewayRef::Mesh, view.namespace()) {
        for host in own.hosts.iter().filter(|host| !names_services(view, host)) {
            if !own.http.is_empty() && taken.insert(host.to_string()) {
                hosts.push(of_route(view, own, host, port));
            }
        }
    }
    if taken.insert("*".to_owned()) {
        hosts.push(unknown(view));
    }
    hosts
}

/// The one for an authority; none if the mesh does not know it.
pub(super) fn on_demand(view: &View<'_>, name: &VirtualHostName) -> Option<route::VirtualHost> {
    let port = name.port;
    let fits = |service: &&Arc<Service>| speaks_http(service, port);
    if let Ok(address) = name.authority.trim_matches(['[', ']']).parse() {
        let found = view.mesh.services_at(address, view.namespace()).find(fits);
        if let Some(service) = found {
            return Some(of_service(view, service, port));
        }
    }
    let candidates = meant(&name.authority, view.namespace(), &view.config().cluster_domain);
    if let Some(service) = candidates.iter().find_map(|host| view.service(host)) {
        return fits(&service).then(|| of_service(view, service, port));
    }
    let authority = candidates.first()?;
    if let Some(service) = above(authority)
        .and_then(|host| view.service(&host))
        .filter(|s| s.headless())
    {
        return fits(&service).then(|| of_service(view, service, port));
    }
    for host in authority.specific_first() {
        let routes = view
            .mesh
            .virtual_services_for(&host, &GatewayRef::Mesh, view.namespace());
        let own = routes
            .into_iter()
            .find(|own| own.hosts.contains(&host) && !own.http.is_empty());
        if let Some(own) = own.filter(|_| !names_services(view, &host)) {
            return Some(of_route(view, own, &host, port));
        }
    }
    None
}

/// The host without its first label.
fn above(host: &Host) -> Option<Host> {
    host.as_str().split_once('.').and_then(|(_, rest)| Host::new(rest).ok())
}

/// The hosts that an application may mean by what it wrote: the name itself, then, as the pod's resolver does, the
/// name within the namespace and within the cluster.
pub(crate) fn meant(authority: &str, namespace: &Namespace, cluster_domain: &str) -> Vec<Host> {
    let authority = authority.strip_suffix('.').unwrap_or(authority);
    let mut names = vec![authority.to_owned()];
    match authority.split('.').collect::<Vec<_>>().as_slice() {
        [_] => names.push(format!("{authority}.{namespace}.svc.{cluster_domain}")),
        [_, _] => names.push(format!("{authority}.svc.{cluster_domain}")),
        [_, _, "svc"] => names.push(format!("{authority}.{cluster_domain}")),
        _ => {}
    }
    names.into_iter().filter_map(|name| Host::new(name).ok()).collect()
}

/// Whether a host that a user routes is one, or covers some, of the mesh's services: then those have the routes.
fn names_services(view: &View<'_>, host: &Host) -> bool {
    if host.is_wildcard() {
        view.mesh
            .visible_services(view.namespace())
            .any(|service| host.covers(&service.host))
    } else {
        view.service(host).is_some()
    }
}

fn of_service(view: &View<'_>, service: &Service, port: u16) -> route::VirtualHost {
    let routes = view
        .mesh
        .virtual_services_for(&service.host, &GatewayRef::Mesh, view.namespace());
    let place = Place {
        view,
        port,
        at: BTreeSet::from([GatewayRef::Mesh]),
    };
    let routes = match routes.first().filter(|own| !own.http.is_empty()) {
        Some(own) => place.routes(own),
        None => vec![place.to_service(service)],
    };
    virtual_host(format!("{}:{port}", service.host), domains(view, service), routes)
}

fn of_route(view: &View<'_>, own: &VirtualService, host: &Host, port: u16) -> route::VirtualHost {
    let place = Place {
        view,
        port,
        at: BTreeSet::from([GatewayRef::Mesh]),
    };
    virtual_host(format!("{host}:{port}"), vec![host.to_string()], place.routes(own))
}

pub(super) fn virtual_host(name: String, domains: Vec<String>, routes: Vec<route::Route>) -> route::VirtualHost {
    route::VirtualHost {
        name,
        domains,
        routes,
        include_request_attempt_count: true,
        ..Default::default()
    }
}

/// What an application in the proxy's namespace may call a service.
fn domains(view: &View<'_>, service: &Service) -> Vec<String> {
    let mut domains = vec![service.host.to_string()];
    let within = format!(
        "{}.{}.svc.{}",
        service.name,
        service.namespace,
        view.config().cluster_domain
    );
    if service.host.as_str() == within {
        if service.namespace == *view.namespace() {
            domains.push(service.name.to_string());
        }
        domains.push(format!("{}.{}", service.name, service.namespace));
        domains.push(format!("{}.{}.svc", service.name, service.namespace));
    }
    if service.headless() {
        domains.push(format!("*.{}", service.host)); // single pods
    }
    domains.extend(service.addresses.iter().map(|address| match address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    }));
    domains
}

/// What the mesh does not know.
pub(super) fn unknown(view: &View<'_>) -> route::VirtualHost {
    let (name, only) = match view.config().outbound_policy {
        OutboundPolicy::AllowAny => (
            "allow_any",
            action::everything_to(PASSTHROUGH, PASSTHROUGH.to_owned(), None),
        ),
        OutboundPolicy::RegistryOnly => ("block_all", action::refuse()),
    };
    let host = virtual_host(
        name.to_owned(),
        vec!["*".to_owned()],
        vec![route::Route {
            name: name.to_owned(),
            ..only
        }],
    );
    route::VirtualHost {
        include_request_attempt_count: false,
        // Whose the proxy is concerns nobody outside the mesh.
        request_headers_to_remove: vec![PEER.to_owned()],
        ..host
    }
}
