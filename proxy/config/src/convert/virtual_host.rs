//! Virtual hosts and route configurations.

use super::Result;
use super::fields::{lower, missing, unsupported};
use super::format::header_ops;
use super::route::{filter_configs, old_cors, retry, route};
use crate::error::{At, ConfigError, Problems};
use crate::route::{DomainIndex, RouteConfig, VirtualHost};
use envoy_types::pb::envoy::config::route::v3 as pb;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

pub(super) fn route_config(at: &At<'_>, raw: pb::RouteConfiguration, problems: &mut Problems) -> Result<RouteConfig> {
    let at = *at;
    if !raw.cluster_specifier_plugins.is_empty() || !raw.vhost_header.is_empty() {
        return Err(unsupported(at, "a cluster specifier plugin or a virtual host header"));
    }
    if raw.ignore_path_parameters_in_path_matching {
        return Err(unsupported(
            at.field("ignore_path_parameters_in_path_matching"),
            "ignoring path parameters",
        ));
    }
    if !raw.request_mirror_policies.is_empty() {
        return Err(unsupported(
            at.field("request_mirror_policies"),
            "a mirror of a whole route configuration",
        ));
    }
    filter_configs(at, &raw.typed_per_filter_config)?;
    let virtual_hosts = raw
        .virtual_hosts
        .into_iter()
        .map(|raw| {
            let name = raw.name.clone();
            virtual_host(&at.named("virtual_hosts", &name), raw, problems).map(Arc::new)
        })
        .collect::<Result<Box<[_]>>>()?;
    Ok(RouteConfig {
        domains: index(at, &virtual_hosts, problems),
        virtual_hosts,
        vhds: raw.vhds.is_some(),
        ignore_port: raw.ignore_port_in_host_matching,
        request_headers: header_ops(at, &raw.request_headers_to_add, &raw.request_headers_to_remove)?,
        response_headers: header_ops(at, &raw.response_headers_to_add, &raw.response_headers_to_remove)?,
        most_specific_wins: raw.most_specific_header_mutations_wins,
        name: raw.name.into(),
    })
}

/// Where each domain leads; a domain that two virtual hosts name stays with the first, and is a problem.
fn index(at: At<'_>, hosts: &[Arc<VirtualHost>], problems: &mut Problems) -> DomainIndex {
    let mut exact: HashMap<Box<str>, u32> = HashMap::new();
    let mut suffixes = Vec::new();
    let mut prefixes = Vec::new();
    let mut any = None;
    for (position, host) in (0_u32..).zip(hosts) {
        for domain in &host.domains {
            let duplicate = if &**domain == "*" {
                any.is_some() || {
                    any = Some(position);
                    false
                }
            } else if let Some(suffix) = domain.strip_prefix('*') {
                push_new(&mut suffixes, suffix, position)
            } else if let Some(prefix) = domain.strip_suffix('*') {
                push_new(&mut prefixes, prefix, position)
            } else {
                match exact.entry((&**domain).into()) {
                    Entry::Occupied(_) => true,
                    Entry::Vacant(entry) => {
                        entry.insert(position);
                        false
                    }
                }
            };
            if duplicate {
                problems.push(ConfigError::DuplicateDomain {
                    at: at.named("virtual_hosts", &host.name).to_string(),
                    value: domain.to_string(),
                });
            }
        }
    }
    let longest_first = |list: &mut Vec<(Box<str>, u32)>| list.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    longest_first(&mut suffixes);
    longest_first(&mut prefixes);
    DomainIndex {
        exact,
        suffixes: suffixes.into(),
        prefixes: prefixes.into(),
        any,
    }
}

/// Adds `text` unless it is there; tells whether it was.
fn push_new(list: &mut Vec<(Box<str>, u32)>, text: &str, position: u32) -> bool {
    let there = list.iter().any(|(known, _)| &**known == text);
    if !there {
        list.push((text.into(), position));
    }
    there
}

pub(super) fn virtual_host(at: &At<'_>, raw: pb::VirtualHost, problems: &mut Problems) -> Result<VirtualHost> {
    let at = *at;
    if raw.matcher.is_some() {
        return Err(unsupported(at.field("matcher"), "a matcher tree"));
    }
    if !raw.rate_limits.is_empty() {
        return Err(unsupported(at.field("rate_limits"), "a rate limit"));
    }
    if raw.retry_policy_typed_config.is_some() || raw.hedge_policy.is_some() {
        return Err(unsupported(at, "a retry policy extension or hedging"));
    }
    if !raw.request_mirror_policies.is_empty() {
        return Err(unsupported(
            at.field("request_mirror_policies"),
            "a mirror of a whole virtual host",
        ));
    }
    let filters = filter_configs(at, &raw.typed_per_filter_config)?;
    let cors = match old_cors_of(&raw) {
        Some(policy) => Some(Arc::new(old_cors(at.field("cors"), policy)?)),
        None => filters.cors,
    };
    if raw.domains.is_empty() {
        return Err(missing(at.field("domains")));
    }
    Ok(VirtualHost {
        domains: raw
            .domains
            .iter()
            .map(|text| domain(at.field("domains"), text))
            .collect::<Result<_>>()?,
        routes: raw
            .routes
            .iter()
            .enumerate()
            .map(|(i, raw)| Arc::new(route(at.index("routes", i), raw, problems)))
            .collect(),
        require_tls: raw.require_tls() != pb::virtual_host::TlsRequirementType::None,
        request_headers: header_ops(at, &raw.request_headers_to_add, &raw.request_headers_to_remove)?,
        response_headers: header_ops(at, &raw.response_headers_to_add, &raw.response_headers_to_remove)?,
        retry: retry(at, raw.retry_policy.as_ref())?,
        fault: filters.fault,
        cors,
        attempt_count_to_upstream: raw.include_request_attempt_count,
        attempt_count_to_client: raw.include_attempt_count_in_response,
        name: raw.name.into(),
    })
}

#[expect(deprecated, reason = "the old place of the policy is still valid in xDS v3")]
fn old_cors_of(raw: &pb::VirtualHost) -> Option<&pb::CorsPolicy> {
    raw.cors.as_ref()
}

fn domain(at: At<'_>, text: &str) -> Result<Arc<str>> {
    let stars = text.bytes().filter(|byte| *byte == b'*').count();
    let well_placed = text.starts_with('*') || text.ends_with('*');
    let bad_byte = text.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'/');
    if text.is_empty() || bad_byte || stars > 1 || (stars == 1 && !well_placed) {
        return Err(ConfigError::Domain {
            at: at.to_string(),
            value: text.to_owned(),
        });
    }
    Ok(lower(text))
}
