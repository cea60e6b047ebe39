//! Forwarding: clusters by weight, limits, hashes, mirrors.

use super::retry::retry;
use super::rewrite::{authority, path_rewrite};
use crate::convert::Result;
use crate::convert::fields::{duration, flag, limit, lower, missing, number, runtime_fraction, unsupported};
use crate::convert::format::{header_name, header_ops};
use crate::error::{At, ConfigError};
use crate::header::HeaderOps;
use crate::route::{Forward, Fraction, HashOn, HashPolicy, HostRewrite, Mirror, WeightedCluster, WeightedClusters};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use std::time::Duration;

/// Envoy's default route timeout.
const TIMEOUT: Duration = Duration::from_secs(15);

#[expect(deprecated, reason = "the old spelling of the gRPC timeout is still valid in xDS v3")]
pub(in crate::convert) fn forward(at: At<'_>, raw: &pb::RouteAction) -> Result<Forward> {
    use pb::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier};
    if raw.metadata_match.is_some() {
        return Err(unsupported(
            at.field("metadata_match"),
            "a choice of endpoints by metadata",
        ));
    }
    if raw.internal_redirect_policy.is_some() || raw.hedge_policy.is_some() {
        return Err(unsupported(at, "an internal redirect or hedging"));
    }
    if !raw.rate_limits.is_empty() {
        return Err(unsupported(at.field("rate_limits"), "a rate limit"));
    }
    if raw.retry_policy_typed_config.is_some() {
        return Err(unsupported(
            at.field("retry_policy_typed_config"),
            "a retry policy extension",
        ));
    }
    let clusters = match raw.cluster_specifier.as_ref() {
        Some(ClusterSpecifier::Cluster(name)) => one_cluster(at.field("cluster"), name)?,
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            weighted_clusters(at.field("weighted_clusters"), weighted)?
        }
        Some(ClusterSpecifier::ClusterHeader(_)) => {
            return Err(unsupported(at.field("cluster_header"), "a cluster named by a header"));
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            return Err(unsupported(
                at.field("cluster_specifier_plugin"),
                "a cluster chosen by an extension",
            ));
        }
        None => return Err(missing(at.field("cluster_specifier"))),
    };
    let streams = raw.max_stream_duration.unwrap_or_default();
    Ok(Forward {
        clusters,
        cluster_not_found_status: match raw.cluster_not_found_response_code() {
            ClusterNotFoundResponseCode::ServiceUnavailable => 503,
            ClusterNotFoundResponseCode::NotFound => 404,
            ClusterNotFoundResponseCode::InternalServerError => 500,
        },
        timeout: limit(at.field("timeout"), raw.timeout, Some(TIMEOUT))?,
        idle_timeout: duration(at.field("idle_timeout"), raw.idle_timeout)?,
        max_stream_duration: limit(at.field("max_stream_duration"), streams.max_stream_duration, None)?,
        max_grpc_timeout: duration(
            at.field("grpc_timeout_header_max"),
            streams.grpc_timeout_header_max.or(raw.max_grpc_timeout),
        )?,
        retry: retry(at, raw.retry_policy.as_ref())?,
        path_rewrite: path_rewrite(at, raw)?,
        host_rewrite: host_rewrite(at, raw)?,
        append_x_forwarded_host: raw.append_x_forwarded_host,
        hash: hash_policies(at, &raw.hash_policy)?,
        mirrors: mirrors(at, &raw.request_mirror_policies)?,
        high_priority: raw.priority() == core::RoutingPriority::High,
        upgrades: raw
            .upgrade_configs
            .iter()
            .map(|config| (lower(&config.upgrade_type), flag(config.enabled, true)))
            .collect(),
    })
}

/// A single cluster, always chosen.
pub(in crate::convert) fn one_cluster(at: At<'_>, name: &str) -> Result<WeightedClusters> {
    if name.is_empty() {
        return Err(missing(at));
    }
    let entry = WeightedCluster {
        cluster: name.into(),
        weight: 1,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        host: None,
    };
    Ok(WeightedClusters {
        entries: Box::new([entry]),
        total: 1,
    })
}

/// Checks the sum of the weights.
pub(in crate::convert) fn weighted(at: At<'_>, entries: Box<[WeightedCluster]>) -> Result<WeightedClusters> {
    let total = entries.iter().map(|entry| u64::from(entry.weight)).sum();
    if total == 0 || total > u64::from(u32::MAX) {
        return Err(ConfigError::Weights {
            at: at.to_string(),
            total,
        });
    }
    Ok(WeightedClusters { entries, total })
}

fn weighted_clusters(at: At<'_>, raw: &pb::WeightedCluster) -> Result<WeightedClusters> {
    if raw.random_value_specifier.is_some() {
        return Err(unsupported(
            at.field("random_value_specifier"),
            "a choice by header or hash",
        ));
    }
    let entries = raw
        .clusters
        .iter()
        .enumerate()
        .map(|(i, entry)| {
            let at = at.index("clusters", i);
            if entry.name.is_empty() {
                return Err(missing(at.field("name")));
            }
            if entry.metadata_match.is_some() {
                return Err(unsupported(
                    at.field("metadata_match"),
                    "a choice of endpoints by metadata",
                ));
            }
            if !entry.typed_per_filter_config.is_empty() {
                return Err(unsupported(
                    at.field("typed_per_filter_config"),
                    "filter settings of a weighted cluster",
                ));
            }
            Ok(WeightedCluster {
                cluster: entry.name.as_str().into(),
                weight: number(entry.weight).ok_or_else(|| missing(at.field("weight")))?,
                request_headers: header_ops(at, &entry.request_headers_to_add, &entry.request_headers_to_remove)?,
                response_headers: header_ops(at, &entry.response_headers_to_add, &entry.response_headers_to_remove)?,
                host: match entry.host_rewrite_specifier.as_ref() {
                    Some(pb::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
                        Some(authority(at.field("host_rewrite_literal"), host)?)
                    }
                    None => None,
                },
            })
        })
        .collect::<Result<_>>()?;
    weighted(at, entries)
}

fn host_rewrite(at: At<'_>, raw: &pb::RouteAction) -> Result<HostRewrite> {
    use pb::route_action::HostRewriteSpecifier as Raw;
    Ok(match raw.host_rewrite_specifier.as_ref() {
        None => HostRewrite::None,
        Some(Raw::HostRewriteLiteral(host)) => HostRewrite::To(authority(at.field("host_rewrite_literal"), host)?),
        Some(Raw::AutoHostRewrite(auto)) if auto.value => HostRewrite::Endpoint,
        Some(Raw::AutoHostRewrite(_)) => HostRewrite::None,
        Some(Raw::HostRewriteHeader(name)) => HostRewrite::Header(header_name(at.field("host_rewrite_header"), name)?),
        Some(_) => {
            return Err(unsupported(
                at.field("host_rewrite_specifier"),
                "a host rewrite by expression or format",
            ));
        }
    })
}

fn hash_policies(at: At<'_>, raw: &[pb::route_action::HashPolicy]) -> Result<Box<[HashPolicy]>> {
    use pb::route_action::hash_policy::PolicySpecifier;
    raw.iter()
        .enumerate()
        .map(|(i, policy)| {
            let at = at.index("hash_policy", i);
            let on = match policy.policy_specifier.as_ref() {
                Some(PolicySpecifier::Header(header)) if header.regex_rewrite.is_none() => {
                    HashOn::Header(header_name(at.field("header_name"), &header.header_name)?)
                }
                Some(PolicySpecifier::Cookie(cookie)) => HashOn::Cookie {
                    name: cookie.name.as_str().into(),
                    ttl: duration(at.field("ttl"), cookie.ttl)?,
                    path: cookie.path.as_str().into(),
                },
                Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => HashOn::SourceIp,
                Some(PolicySpecifier::QueryParameter(parameter)) => HashOn::Query(parameter.name.as_str().into()),
                _ => return Err(unsupported(at, "this hash policy")),
            };
            Ok(HashPolicy {
                on,
                terminal: policy.terminal,
            })
        })
        .collect()
}

fn mirrors(at: At<'_>, raw: &[pb::route_action::RequestMirrorPolicy]) -> Result<Box<[Mirror]>> {
    raw.iter()
        .enumerate()
        .map(|(i, policy)| {
            let at = at.index("request_mirror_policies", i);
            if policy.cluster.is_empty() {
                return Err(missing(at.field("cluster")));
            }
            Ok(Mirror {
                cluster: policy.cluster.as_str().into(),
                fraction: runtime_fraction(policy.runtime_fraction.clone(), Fraction::ALL),
                keep_host: policy.disable_shadow_host_suffix_append,
            })
        })
        .collect()
}
