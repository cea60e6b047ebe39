//! What happens to a request: from its head to a route and a cluster, or to an answer.
//!
//! In: the head, the connection's facts, the configuration on demand. Out: a [`Plan`]. What discovery has not sent yet is
//! waited for, within bounds; what does not exist is answered as the configuration says.

use std::sync::Arc;
use std::time::Duration;

use mizzen_decide::{Request as _, fault, find_route, find_virtual_host, pick_cluster, rewrite, vhds_name};
use mizzen_proxy_config::route::AbortWith;
use mizzen_proxy_config::{
    Action, Cluster, Forward, Listener, Protocol, Route, RouteConfig, RouteSource, VirtualHost, WeightedCluster,
};

use crate::info::{Info, KnownHost};
use crate::mesh::Lookup;
use crate::reply::Local;
use crate::request::View;
use crate::telemetry::Flags;

/// Listener that says what happens to traffic for unknown destinations.
pub const OUTBOUND: &str = "virtualOutbound";
/// Cluster that connects to the original destination.
const PASSTHROUGH: &str = "PassthroughCluster";
/// Cluster that connects to nothing.
const BLACK_HOLE: &str = "BlackHoleCluster";

/// A request's way through the route configuration.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The route configuration.
    pub config: Arc<RouteConfig>,
    /// The virtual host.
    pub host: Arc<VirtualHost>,
    /// The route.
    pub route: Arc<Route>,
    /// Position of the chosen cluster among the route's.
    pub entry: usize,
}

impl Routed {
    /// How the request is forwarded, if it is.
    pub fn forward(&self) -> Option<&Forward> {
        match &self.route.action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        }
    }

    /// The chosen entry of the route's clusters.
    pub fn entry(&self) -> Option<&WeightedCluster> {
        self.forward()?.clusters.entries.get(self.entry)
    }
}

/// Where a request goes.
#[derive(Debug)]
pub struct Plan {
    /// Its route; `None`: passed through to where the client wanted to go.
    pub routed: Option<Routed>,
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Waited for on purpose before going on.
    pub delay: Option<Duration>,
}

/// An answer in place of a plan, with the route that gave it and the delay before it.
#[derive(Debug)]
pub struct Answer {
    /// The answer.
    pub local: Box<Local>,
    /// The route.
    pub routed: Option<Routed>,
    /// Waited for on purpose before it.
    pub delay: Option<Duration>,
}

impl From<Local> for Answer {
    fn from(local: Local) -> Self {
        Self {
            local: Box::new(local),
            routed: None,
            delay: None,
        }
    }
}

/// Finds the way of a request. `random` decides weights and shares.
pub async fn plan(info: &Info, view: &View<'_>, random: u64) -> Result<Plan, Answer> {
    let Some((config, host)) = virtual_host(info, view).await? else {
        return passthrough(info).await;
    };
    if host.require_tls && !view.secure {
        let location = [b"https://", view.authority(), view.path()].concat();
        let local = Local {
            location: Some(location),
            ..Local::new(301, "", Flags::NONE, "tls_required")
        };
        return Err(local.into());
    }
    let Some(route) = find_route(&host, view, random) else {
        return Err(Local::no_route().into());
    };
    let route = route.clone();
    let faults = fault::policy(&route, &host).filter(|_| info.http.fault_filter);
    let faults = faults
        .map(|policy| fault::plan(policy, view, info.faults.get(), random))
        .unwrap_or_default();
    let mut routed = Routed {
        config,
        host,
        route,
        entry: 0,
    };
    if let Some(abort) = faults.abort {
        let mut local = Local::new(503, "fault filter abort", Flags::FAULT_INJECTED, "fault_filter_abort");
        match abort {
            AbortWith::Http(status) => local.status = status,
            AbortWith::Grpc(status) => local.grpc = Some(status),
        }
        return Err(Answer {
            local: Box::new(local),
            routed: Some(routed),
            delay: faults.delay,
        });
    }
    let local = match &routed.route.action {
        Action::Forward(forward) => {
            let chosen = pick_cluster(&forward.clusters, random);
            let Some(chosen) = chosen else {
                return Err(Local::no_cluster(503).into());
            };
            routed.entry = forward
                .clusters
                .entries
                .iter()
                .position(|entry| std::ptr::eq(entry, chosen))
                .unwrap_or(0);
            match info.worker.view.resolve::<Cluster>(&chosen.cluster).await {
                Lookup::Present(cluster) => {
                    return Ok(Plan {
                        routed: Some(routed),
                        cluster,
                        delay: faults.delay,
                    });
                }
                Lookup::Absent => Local::no_cluster(forward.cluster_not_found_status),
                Lookup::Requested => Local::no_cluster(503),
            }
        }
        Action::Redirect(redirect) => {
            let mut location = Vec::new();
            rewrite::location(redirect, &routed.route.matches.path, view, &mut location);
            Local {
                location: Some(location),
                ..Local::new(redirect.status, "", Flags::NONE, "direct_response")
            }
        }
        Action::Direct(direct) => Local::new(direct.status, direct.body.to_vec(), Flags::NONE, "direct_response"),
        Action::Unavailable(reason) => Local::new(503, reason.as_bytes(), Flags::NO_ROUTE, "route_unavailable"),
    };
    Err(Answer {
        local: Box::new(local),
        routed: Some(routed),
        delay: faults.delay,
    })
}

/// The virtual host for the request; `None`: there is none, and what is unknown decides.
async fn virtual_host(info: &Info, view: &View<'_>) -> Result<Option<(Arc<RouteConfig>, Arc<VirtualHost>)>, Answer> {
    let generation = info.worker.view.generation();
    if let Some(known) = &*info.host.borrow()
        && known.generation == generation
        && known.authority == view.authority()
    {
        return Ok(Some((known.config.clone(), known.host.clone())));
    }
    let config = match &info.http.routes {
        RouteSource::Inline(config) => config.clone(),
        RouteSource::Named(name) => match info.worker.view.resolve::<RouteConfig>(name).await {
            Lookup::Present(config) => config,
            Lookup::Absent | Lookup::Requested => return Err(Local::no_route().into()),
        },
    };
    let here = find_virtual_host(&config, view.authority());
    let catch_all = here.is_some_and(|host| host.domains.iter().any(|domain| &**domain == "*"));
    let mut found = here.cloned();
    if config.vhds
        && (found.is_none() || catch_all)
        && let Some(name) = vhds_name(&config.name, view.authority())
    {
        match info.worker.view.resolve::<VirtualHost>(&name).await {
            Lookup::Present(host) => found = Some(host),
            // Discovery has not answered: to pass a request for a service of the mesh through as if it were unknown would
            // lose its policy.
            Lookup::Requested => {
                return Err(Local::new(503, "", Flags::NO_ROUTE, "discovery_has_not_answered").into());
            }
            Lookup::Absent => {}
        }
    }
    let Some(host) = found else {
        // Gateways and inbound chains have no passthrough: what has no virtual host has no route.
        let outbound = info.direction == mizzen_proxy_config::Direction::Outbound;
        return if config.vhds && outbound {
            Ok(None)
        } else {
            Err(Local::no_route().into())
        };
    };
    *info.host.borrow_mut() = Some(KnownHost {
        authority: view.authority().to_vec(),
        generation: info.worker.view.generation(),
        config: config.clone(),
        host: host.clone(),
    });
    Ok(Some((config, host)))
}

/// To where the client wanted to go, if the policy for unknown destinations allows it.
async fn passthrough(info: &Info) -> Result<Plan, Answer> {
    if !allows_unknown(info).await {
        return Err(Local::blocked().into());
    }
    match info.worker.view.resolve::<Cluster>(PASSTHROUGH).await {
        Lookup::Present(cluster) => Ok(Plan {
            routed: None,
            cluster,
            delay: None,
        }),
        Lookup::Absent | Lookup::Requested => Err(Local::no_cluster(503).into()),
    }
}

/// Whether `virtualOutbound` lets traffic through to destinations that are not in the registry.
async fn allows_unknown(info: &Info) -> bool {
    let Lookup::Present(listener) = info.worker.view.resolve::<Listener>(OUTBOUND).await else {
        return false;
    };
    let chain = listener.default_chain.as_ref().or_else(|| listener.chains.last());
    chain.is_some_and(|chain| match &chain.protocol {
        Protocol::Tcp(tcp) => tcp.clusters.entries.iter().any(|entry| &*entry.cluster != BLACK_HOLE),
        Protocol::Http(_) => true,
        Protocol::Closed(_) => false,
    })
}
