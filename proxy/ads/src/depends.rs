//! What a resource will need next: asked for in the same breath, it costs one round trip to discovery instead of one
//! per step.

use mizzen_proxy_config::{
    Action, Cluster, Discovery, FilterChain, Kind, Protocol, Resource, Route, RouteSource, VirtualHost,
    WeightedClusters,
};
use std::sync::Arc;

/// A virtual host with more clusters than this is not looked ahead for: most of them would not be used.
const FEW: usize = 8;

/// Names that traffic through `resource` is sure, or likely, to ask for.
pub(crate) fn of(resource: &Resource) -> Vec<(Kind, Arc<str>)> {
    let mut names = Vec::new();
    match resource {
        Resource::Cluster(cluster) => endpoints(cluster, &mut names),
        Resource::Endpoints(_) => {}
        Resource::VirtualHost(host) => clusters_of_host(host, &mut names),
        Resource::RouteConfig(config) => {
            config
                .virtual_hosts
                .iter()
                .for_each(|host| clusters_of_host(host, &mut names));
        }
        Resource::Listener(listener) => {
            listener
                .chains
                .iter()
                .chain(&listener.default_chain)
                .for_each(|chain| chain_names(chain, &mut names));
        }
    }
    names.sort();
    names.dedup();
    if names.len() > FEW {
        names.clear();
    }
    names
}

fn endpoints(cluster: &Cluster, names: &mut Vec<(Kind, Arc<str>)>) {
    if let Discovery::Eds(name) = &cluster.discovery {
        names.push((Kind::Endpoints, name.shared()));
    }
}

fn chain_names(chain: &FilterChain, names: &mut Vec<(Kind, Arc<str>)>) {
    match &chain.protocol {
        Protocol::Http(http) => match &http.routes {
            RouteSource::Named(name) => names.push((Kind::RouteConfig, name.shared())),
            RouteSource::Inline(config) => {
                config
                    .virtual_hosts
                    .iter()
                    .for_each(|host| clusters_of_host(host, names));
            }
        },
        Protocol::Tcp(tcp) => clusters(&tcp.clusters, names),
        Protocol::Closed(_) => {}
    }
}

fn clusters_of_host(host: &VirtualHost, names: &mut Vec<(Kind, Arc<str>)>) {
    host.routes.iter().for_each(|route| clusters_of_route(route, names));
}

fn clusters_of_route(route: &Route, names: &mut Vec<(Kind, Arc<str>)>) {
    if let Action::Forward(forward) = &route.action {
        clusters(&forward.clusters, names);
    }
}

fn clusters(clusters: &WeightedClusters, names: &mut Vec<(Kind, Arc<str>)>) {
    let used = clusters.entries.iter().filter(|entry| entry.weight > 0);
    names.extend(used.map(|entry| (Kind::Cluster, entry.cluster.shared())));
}
