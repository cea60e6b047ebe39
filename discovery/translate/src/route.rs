//! Which request goes where.

use std::borrow::Cow;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as route;
use mizzen_model::{Body, DirectResponse, HttpAction, HttpMatch, HttpRoute, Service, VirtualService};

use crate::name::VirtualHostName;
use crate::view::View;

mod action;
mod filters;
mod gateway;
mod headers;
mod matches;
mod virtual_host;

pub(crate) use gateway::gateway_routes;
pub(crate) use matches::everything;
pub(crate) use virtual_host::meant;

use envoy_types::pb::google::protobuf::UInt32Value;

/// A route configuration by name.
pub(crate) fn configuration(view: &View<'_>, name: &str) -> Option<route::RouteConfiguration> {
    if view.is_gateway() {
        let port = name.strip_prefix("http.")?.parse().ok()?;
        return gateway::virtual_hosts(view, port).map(|hosts| around(name, hosts));
    }
    let port: u16 = name.parse().ok()?;
    view.mesh
        .services_with_port(port, view.namespace())
        .find(|service| virtual_host::speaks_http(service, port))?;
    if view.scope.on_demand() {
        let unknown = vec![virtual_host::unknown(view)];
        let vhds = route::Vhds {
            config_source: crate::proto::ads(),
        };
        return Some(route::RouteConfiguration {
            vhds: Some(vhds),
            ..around(name, unknown)
        });
    }
    Some(around(name, virtual_host::all(view, port)))
}

/// One virtual host, for a proxy that asks when it is needed.
pub(crate) fn on_demand(view: &View<'_>, name: &VirtualHostName) -> Option<route::VirtualHost> {
    if view.is_gateway() {
        None
    } else {
        virtual_host::on_demand(view, name)
    }
}

/// The routes of a port of the application: all to one cluster.
pub(crate) fn inbound(cluster: &str, port: Option<u16>, services: &[&Arc<Service>]) -> route::RouteConfiguration {
    let label = match (port, services.first()) {
        (Some(port), Some(service)) => format!("{}:{port}/*", service.host),
        _ => cluster.to_owned(),
    };
    let host = route::VirtualHost {
        name: format!("inbound|http|{}", port.unwrap_or_default()),
        domains: vec!["*".to_owned()],
        routes: vec![action::everything_to(cluster, label, None)],
        ..Default::default()
    };
    route::RouteConfiguration {
        validate_clusters: crate::proto::boolean(false),
        ..around(cluster, vec![host])
    }
}

fn around(name: &str, virtual_hosts: Vec<route::VirtualHost>) -> route::RouteConfiguration {
    const DEFAULT_BODY: usize = 4096; // what Envoy allows if nothing is said
    let routes = virtual_hosts.iter().flat_map(|host| &host.routes);
    let largest = routes.map(action::body_size).max().unwrap_or_default();
    let allowed = (largest > DEFAULT_BODY).then(|| UInt32Value {
        value: u32::try_from(largest).unwrap_or(u32::MAX),
    });
    route::RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        // A route to what is not there answers 503; without this a static one would be refused.
        validate_clusters: crate::proto::boolean(false),
        max_direct_response_body_size_bytes: allowed,
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

/// The routes of a virtual service for HTTP, those that it delegates included.
pub(crate) fn http_routes<'a>(view: &View<'a>, own: &'a VirtualService) -> Vec<Cow<'a, HttpRoute>> {
    let mut routes = Vec::new();
    for http in &own.http {
        let HttpAction::Delegate(key) = &http.action else {
            routes.push(Cow::Borrowed(http));
            continue;
        };
        match view.mesh.virtual_service(key) {
            Some(delegate) if delegate.hosts.is_empty() && delegate.export_to.visible_from(&own.key.namespace) => {
                // one step only: a delegate that delegates on is refused by the index
                let inner = delegate
                    .http
                    .iter()
                    .filter(|inner| !matches!(inner.action, HttpAction::Delegate(_)));
                routes.extend(inner.map(|inner| {
                    Cow::Owned(HttpRoute {
                        matches: both(&http.matches, &inner.matches),
                        ..inner.clone()
                    })
                }));
            }
            // What was meant for the delegate must not fall to the routes below.
            _ => {
                let body = Body::Text(Arc::from(
                    "the virtual service that this route delegates to does not exist",
                ));
                let action = HttpAction::Direct(DirectResponse {
                    status: 503,
                    body: Some(body),
                });
                routes.push(Cow::Owned(HttpRoute { action, ..http.clone() }));
            }
        }
    }
    routes
}

/// Conditions of which one of each side must hold.
fn both(outer: &[HttpMatch], inner: &[HttpMatch]) -> Vec<HttpMatch> {
    match (outer, inner) {
        ([], only) | (only, []) => only.to_vec(),
        _ => outer
            .iter()
            .flat_map(|outer| inner.iter().map(|inner| narrowed(outer, inner)))
            .collect(),
    }
}

/// What the inner one says, and what it leaves open to the outer one.
fn narrowed(outer: &HttpMatch, inner: &HttpMatch) -> HttpMatch {
    let mut narrowed = inner.clone();
    let fill = |mine: &mut Option<_>, other: &Option<_>| *mine = mine.take().or_else(|| other.clone());
    if narrowed.uri.is_none() {
        narrowed.ignore_uri_case = outer.ignore_uri_case;
    }
    fill(&mut narrowed.uri, &outer.uri);
    fill(&mut narrowed.scheme, &outer.scheme);
    fill(&mut narrowed.method, &outer.method);
    fill(&mut narrowed.authority, &outer.authority);
    for (name, wanted) in &outer.headers {
        narrowed.headers.entry(name.clone()).or_insert_with(|| wanted.clone());
    }
    for (name, wanted) in &outer.without_headers {
        narrowed
            .without_headers
            .entry(name.clone())
            .or_insert_with(|| wanted.clone());
    }
    for (name, wanted) in &outer.query_params {
        narrowed
            .query_params
            .entry(name.clone())
            .or_insert_with(|| wanted.clone());
    }
    narrowed.port = narrowed.port.or(outer.port);
    narrowed.source_namespace = narrowed.source_namespace.or_else(|| outer.source_namespace.clone());
    narrowed.gateways = narrowed.gateways.or_else(|| outer.gateways.clone());
    if narrowed.source_labels.is_empty() {
        narrowed.source_labels = outer.source_labels.clone();
    }
    narrowed
}
