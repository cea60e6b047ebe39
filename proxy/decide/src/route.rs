//! From an authority to a virtual host, from a request to a route, from a route to a cluster.

use crate::matching::{self, Request};
use mizzen_proxy_config::{
    Route, RouteConfig, RouteConfigName, VirtualHost, VirtualHostName, WeightedCluster, WeightedClusters,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Authorities longer than this are looked up all the same, but on the heap.
const INLINE_AUTHORITY: usize = 256;

/// The virtual host for an authority, in Envoy's order: exact, longest `*suffix`, longest `prefix*`, `*`. A star
/// stands for at least one character. Case does not count.
#[must_use]
pub fn find_virtual_host<'c>(config: &'c RouteConfig, authority: &[u8]) -> Option<&'c Arc<VirtualHost>> {
    let position = find_position(config, authority)?;
    config.virtual_hosts.get(usize::try_from(position).ok()?)
}

fn find_position(config: &RouteConfig, authority: &[u8]) -> Option<u32> {
    let index = &config.domains;
    let any = index.any;
    if index.exact.is_empty() && index.suffixes.is_empty() && index.prefixes.is_empty() {
        return any;
    }
    let authority = if config.ignore_port {
        without_port(authority)
    } else {
        authority
    };
    let mut lower: SmallVec<[u8; INLINE_AUTHORITY]> = SmallVec::from_slice(authority);
    lower.make_ascii_lowercase();
    let Ok(host) = std::str::from_utf8(&lower) else {
        return any;
    };
    if let Some(position) = index.exact.get(host) {
        return Some(*position);
    }
    let longer = |text: &str| host.len() > text.len();
    let suffix = index
        .suffixes
        .iter()
        .find(|(text, _)| longer(text) && host.ends_with(&**text));
    let prefix = || {
        index
            .prefixes
            .iter()
            .find(|(text, _)| longer(text) && host.starts_with(&**text))
    };
    suffix.or_else(prefix).map(|(_, position)| *position).or(any)
}

/// The authority without its port; an IPv6 address keeps its brackets.
#[must_use]
pub fn without_port(authority: &[u8]) -> &[u8] {
    let Some(colon) = authority.iter().rposition(|byte| *byte == b':') else {
        return authority;
    };
    let (host, port) = authority.split_at(colon);
    let digits = port.get(1..).is_some_and(|port| port.iter().all(u8::is_ascii_digit));
    // `::1` without brackets has no port; `[::1]:80` has.
    let bare_v6 = host.contains(&b':') && host.last() != Some(&b']');
    if digits && !bare_v6 { host } else { authority }
}

/// The name by which a virtual host is asked for on demand: `<route config>/<authority>`, lower-case, without port.
/// `None` for an authority that cannot be a host's name.
#[must_use]
pub fn vhds_name(config: &RouteConfigName, authority: &[u8]) -> Option<VirtualHostName> {
    /// The longest DNS name; nothing longer can be a service.
    const LONGEST: usize = 255;
    let host = without_port(authority);
    if host.is_empty() || host.len() > LONGEST {
        return None;
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
    if !host.iter().all(plain) {
        return None;
    }
    let host = std::str::from_utf8(host).ok()?;
    let mut name = String::with_capacity(config.len() + 1 + host.len());
    name.push_str(config);
    name.push('/');
    name.push_str(host);
    name.make_ascii_lowercase();
    Some(name.into())
}

/// The first route that takes the request. `random` decides routes that take only a share.
pub fn find_route<'h>(host: &'h VirtualHost, request: &(impl Request + ?Sized), random: u64) -> Option<&'h Arc<Route>> {
    host.routes
        .iter()
        .find(|route| matching::route(&route.matches, request, random))
}

/// One of the clusters, by weight. Weight 0 is never chosen.
#[must_use]
pub fn pick_cluster(clusters: &WeightedClusters, random: u64) -> Option<&WeightedCluster> {
    if let [only] = &*clusters.entries {
        return Some(only);
    }
    let mut rest = crate::mix(random, 2) % clusters.total.max(1);
    clusters.entries.iter().find(|entry| {
        let weight = u64::from(entry.weight);
        let chosen = rest < weight;
        if !chosen {
            rest -= weight;
        }
        chosen
    })
}
