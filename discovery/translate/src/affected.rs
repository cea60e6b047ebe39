//! What has to be computed again after a change.
//!
//! Both answers may say yes for something that turns out as it was (its hash tells, nothing is sent), never no for
//! something that differs.

use mizzen_model::{Change, Changes, GatewayRef, Host, Mesh, Namespace, ObjectKey};

use crate::name::{ClusterName, VIRTUAL_INBOUND, VIRTUAL_OUTBOUND, VirtualHostName, listener_address};
use crate::resource::TypeUrl;
use crate::route::meant;
use crate::scope::{NodeKind, Scope};
use crate::view::View;

/// Whether the list that [`names`](crate::names) gives may have changed. `mesh` is the mesh after the changes.
#[must_use]
pub fn names_affected(mesh: &Mesh, changes: &Changes, scope: &Scope, type_url: TypeUrl) -> bool {
    if !matches!(type_url, TypeUrl::Cluster | TypeUrl::Listener) {
        return false;
    }
    let view = View::new(mesh, scope);
    let gateway = view.is_gateway();
    changes.iter().any(|change| match change {
        Change::Config | Change::Service { .. } => true,
        Change::Workload(key) => alike(&view, key) || labels_decide(&view, key),
        Change::Rule { .. } => type_url == TypeUrl::Cluster,
        Change::Gateway(_) => gateway,
        Change::Route { at, .. } => gateway && *at != GatewayRef::Mesh,
        // Clients of a headless service connect to its endpoints.
        Change::Endpoints(host) => {
            type_url == TypeUrl::Listener && !gateway && mesh.service(host).is_some_and(|service| service.headless())
        }
        Change::Namespace(_) | Change::PeerAuthentication(_) => false,
    })
}

/// Whether a resource may have changed, come or gone. `mesh` is the mesh after the changes.
#[must_use]
pub fn affected(mesh: &Mesh, changes: &Changes, scope: &Scope, type_url: TypeUrl, name: &str) -> bool {
    let view = View::new(mesh, scope);
    let ask = |about: &dyn Fn(&Change) -> bool| {
        changes.iter().any(|change| match change {
            Change::Config => true,
            Change::Namespace(_) => false,
            other => about(other),
        })
    };
    match type_url {
        TypeUrl::Cluster | TypeUrl::Endpoints => match ClusterName::parse(name) {
            Some(ClusterName::Outbound { host, .. }) => ask(&|change| outbound(&view, &host, change)),
            Some(ClusterName::Inbound { .. }) => ask(&|change| own(&view, change)),
            _ => ask(&|_| false),
        },
        TypeUrl::Listener if scope.kind() == NodeKind::Gateway => {
            ask(&|change| own(&view, change) || matches!(change, Change::Gateway(_)))
        }
        TypeUrl::Listener if name == VIRTUAL_OUTBOUND => ask(&|_| false),
        TypeUrl::Listener if name == VIRTUAL_INBOUND => ask(&|change| own(&view, change) || policy(&view, change)),
        TypeUrl::Listener => {
            listener_address(name).is_some_and(|(_, port)| ask(&|change| listener(&view, port, change)))
        }
        TypeUrl::Route if scope.kind() == NodeKind::Gateway => ask(&|change| match change {
            Change::Gateway(_) | Change::Rule { .. } => true,
            Change::Route { at, .. } => *at != GatewayRef::Mesh,
            Change::Service { host, .. } => mesh.is_destination(host) || own(&view, change),
            other => own(&view, other),
        }),
        TypeUrl::Route => name
            .parse()
            .is_ok_and(|port: u16| ask(&|change| routed(&view, port, None, change))),
        TypeUrl::VirtualHost => VirtualHostName::parse(name).is_some_and(|name| {
            let hosts = meant(&name.authority, view.namespace(), &mesh.config().cluster_domain);
            ask(&|change| routed(&view, name.port, Some((&name.authority, &hosts)), change))
        }),
    }
}

/// A cluster to a service, or its endpoints.
fn outbound(view: &View<'_>, host: &Host, change: &Change) -> bool {
    let mesh = view.mesh;
    match change {
        Change::Workload(key) => labels_decide(view, key),
        Change::Service { host: changed, .. } | Change::Endpoints(changed) => changed == host,
        Change::Rule { host: changed, .. } => changed.covers(host),
        Change::PeerAuthentication(namespace) => {
            *namespace == mesh.config().root_namespace
                || mesh
                    .service(host)
                    .is_some_and(|service| service.namespace == *namespace)
        }
        _ => false,
    }
}

/// Whether a workload may have been, or may now be, one that shares what stands beside the scope's: resources are kept
/// once for all proxies alike, and it may be another of these that changed.
fn alike(view: &View<'_>, key: &ObjectKey) -> bool {
    if key == view.scope.workload() {
        return true;
    }
    let own = view.workload.map(|workload| &workload.service_account);
    let other = view.mesh.workload(key).map(|workload| &workload.service_account);
    key.namespace == *view.namespace() && other.is_some() && (own.is_none() || own == other)
}

/// Whether labels of a client in the scope's namespace, which changed, may decide about its outbound traffic.
fn labels_decide(view: &View<'_>, key: &ObjectKey) -> bool {
    key.namespace == *view.namespace() && view.mesh.chooses_clients()
}

/// What stands beside the workload.
fn own(view: &View<'_>, change: &Change) -> bool {
    match change {
        Change::Workload(key) => key == view.scope.workload(),
        Change::Service { host, .. } => view
            .workload
            .is_some_and(|workload| workload.services.iter().any(|service| service.host == *host)),
        _ => false,
    }
}

fn policy(view: &View<'_>, change: &Change) -> bool {
    let here = |namespace: &Namespace| *namespace == view.config().root_namespace || namespace == view.namespace();
    matches!(change, Change::PeerAuthentication(namespace) if here(namespace))
}

/// A sidecar's listener for a port.
fn listener(view: &View<'_>, port: u16, change: &Change) -> bool {
    let mesh = view.mesh;
    match change {
        Change::Workload(key) => labels_decide(view, key),
        Change::Service { ports, host, .. } => ports.contains(&port) || mesh.is_destination(host),
        Change::Endpoints(host) => mesh
            .service(host)
            .is_some_and(|service| service.headless() && service.port(port).is_some()),
        Change::Route { at, key, .. } => *at == GatewayRef::Mesh || delegated(mesh, key),
        _ => false,
    }
}

/// A sidecar's routes for a port, all or those for an authority.
fn routed(view: &View<'_>, port: u16, only: Option<(&str, &[Host])>, change: &Change) -> bool {
    match change {
        Change::Service {
            host, ports, addresses, ..
        } => {
            let named = only.is_none_or(|(authority, hosts)| {
                let address = authority.trim_matches(['[', ']']).parse();
                address.is_ok_and(|address| addresses.contains(&address))
                    || hosts
                        .iter()
                        .any(|meant| meant == host || meant.as_str().ends_with(&format!(".{host}")))
                    || hosts
                        .iter()
                        .any(|meant| !meant.as_str().contains(host.as_str()) && routes_besides(view, meant))
            });
            (ports.contains(&port) && named) || view.mesh.is_destination(host)
        }
        Change::Route {
            at: GatewayRef::Mesh,
            host,
            ..
        } => only.is_none_or(|(authority, hosts)| {
            authority.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
                || hosts
                    .iter()
                    .any(|meant| host.covers(meant) || under_headless(view, meant, host))
        }),
        // A rule may make a service's requests choose their endpoint by a hash.
        Change::Rule { .. } => true,
        Change::Workload(key) => labels_decide(view, key),
        _ => false,
    }
}

/// Whether a host that is no service's is routed by a user's wildcard: a service that comes or goes may change that.
fn routes_besides(view: &View<'_>, host: &Host) -> bool {
    !view
        .mesh
        .virtual_services_for(host, &GatewayRef::Mesh, view.namespace())
        .is_empty()
}

/// Whether `meant` is a pod of a headless service that the routes for `host` are for.
fn under_headless(view: &View<'_>, meant: &Host, host: &Host) -> bool {
    view.mesh.service(host).is_some_and(|service| service.headless()) && meant.as_str().ends_with(&format!(".{host}"))
}

fn delegated(mesh: &Mesh, key: &ObjectKey) -> bool {
    mesh.virtual_service(key).is_some_and(|own| own.hosts.is_empty())
}
