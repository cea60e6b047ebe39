//! Routes.

use super::Result;
use super::fields::{
    duration, extension, flag, is_extension, limit, lower, missing, non_empty, number, out_of_range, port,
    runtime_fraction, status, unknown_extension, unsupported,
};
use super::format::{header_name, header_ops};
use super::matchers::{header_matches, pattern, query_matches, string_match};
use crate::error::{At, ConfigError, Problems};
use crate::header::HeaderOps;
use crate::matcher::compile;
use crate::route::{
    Abort, AbortWith, Action, Cors, Delay, Direct, Fault, Forward, Fraction, HashOn, HashPolicy, HostRewrite, Mirror,
    PathMatch, PathRewrite, Redirect, RetryOn, RetryPolicy, Route, RouteMatch, Substitution, SubstitutionPart,
    WeightedCluster, WeightedClusters,
};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::{common::fault::v3 as delay_pb, http as filter_pb};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use envoy_types::pb::google::protobuf::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default route timeout.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy's default first pause before a retry.
const BACKOFF: Duration = Duration::from_millis(25);

/// A route; one that is wrong is noted and answers 503. When its match itself is wrong it takes every request that no
/// route before it took, because which ones it was meant for is not known.
pub(super) fn route(at: At<'_>, raw: &pb::Route, problems: &mut Problems) -> Route {
    checked(at, raw).unwrap_or_else(|error| {
        let why = error.to_string();
        problems.push(error);
        let matches = raw
            .r#match
            .as_ref()
            .and_then(|raw| route_match(at, raw).ok())
            .unwrap_or_else(RouteMatch::all);
        Route::unavailable(matches, raw.name.as_str().into(), why.into())
    })
}

#[expect(deprecated, reason = "the old spelling of the buffer limit is still valid in xDS v3")]
fn checked(at: At<'_>, raw: &pb::Route) -> Result<Route> {
    let matches = raw.r#match.as_ref().ok_or_else(|| missing(at.field("match")))?;
    let matches = route_match(at.field("match"), matches)?;
    let filters = filter_configs(at, &raw.typed_per_filter_config)?;
    let mut cors = filters.cors;
    let action = match raw.action.as_ref() {
        Some(pb::route::Action::Route(action)) => {
            if let Some(policy) = action.cors.as_ref() {
                cors = Some(Arc::new(old_cors(at.field("cors"), policy)?));
            }
            Action::Forward(Box::new(forward(at.field("route"), action)?))
        }
        Some(pb::route::Action::Redirect(action)) => {
            Action::Redirect(Box::new(redirect(at.field("redirect"), action)?))
        }
        Some(pb::route::Action::DirectResponse(action)) => Action::Direct(direct(at.field("direct_response"), action)?),
        Some(pb::route::Action::FilterAction(_) | pb::route::Action::NonForwardingAction(_)) => {
            return Err(unsupported(at.field("action"), "an action by a filter"));
        }
        None => return Err(missing(at.field("action"))),
    };
    Ok(Route {
        name: raw.name.as_str().into(),
        matches,
        action,
        request_headers: header_ops(at, &raw.request_headers_to_add, &raw.request_headers_to_remove)?,
        response_headers: header_ops(at, &raw.response_headers_to_add, &raw.response_headers_to_remove)?,
        fault: filters.fault,
        cors,
        operation: raw
            .decorator
            .as_ref()
            .and_then(|decorator| non_empty(&decorator.operation)),
        body_buffer_limit: raw
            .request_body_buffer_limit
            .map(|limit| limit.value)
            .or_else(|| number(raw.per_request_buffer_limit_bytes).map(u64::from)),
    })
}

fn route_match(at: At<'_>, raw: &pb::RouteMatch) -> Result<RouteMatch> {
    use pb::route_match::PathSpecifier;
    if !raw.dynamic_metadata.is_empty() || !raw.filter_state.is_empty() || !raw.cookies.is_empty() {
        return Err(unsupported(at, "a match on cookies, metadata or filter state"));
    }
    if raw.tls_context.is_some() {
        return Err(unsupported(
            at.field("tls_context"),
            "a match on the client's certificate",
        ));
    }
    let path = match raw.path_specifier.as_ref() {
        Some(PathSpecifier::Prefix(prefix)) => PathMatch::Prefix(prefix.as_str().into()),
        Some(PathSpecifier::Path(path)) => PathMatch::Exact(path.as_str().into()),
        Some(PathSpecifier::SafeRegex(regex)) => PathMatch::Regex(pattern(at.field("safe_regex"), regex)?),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains(['?', '#']) {
                let allowed = "a path that begins with `/`, does not end with one and has no query";
                return Err(out_of_range(at.field("path_separated_prefix"), prefix, allowed));
            }
            PathMatch::SeparatedPrefix(prefix.as_str().into())
        }
        Some(PathSpecifier::ConnectMatcher(_)) => PathMatch::Connect,
        Some(PathSpecifier::PathMatchPolicy(_)) => {
            return Err(unsupported(at.field("path_match_policy"), "a path template"));
        }
        None => return Err(missing(at.field("path_specifier"))),
    };
    Ok(RouteMatch {
        path,
        case_sensitive: flag(raw.case_sensitive, true),
        headers: header_matches(at, &raw.headers)?,
        query: query_matches(at, &raw.query_parameters)?,
        grpc: raw.grpc.is_some(),
        fraction: raw
            .runtime_fraction
            .as_ref()
            .map(|raw| runtime_fraction(Some(raw.clone()), Fraction::ALL)),
    })
}

#[expect(deprecated, reason = "the old spelling of the gRPC timeout is still valid in xDS v3")]
fn forward(at: At<'_>, raw: &pb::RouteAction) -> Result<Forward> {
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
pub(super) fn one_cluster(at: At<'_>, name: &str) -> Result<WeightedClusters> {
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
pub(super) fn weighted(at: At<'_>, entries: Box<[WeightedCluster]>) -> Result<WeightedClusters> {
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

/// A text that may stand as an authority on the wire.
fn authority(at: At<'_>, host: &str) -> Result<Arc<str>> {
    if host.is_empty() || host.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(out_of_range(
            at,
            format_args!("{host:?}"),
            "a host name without spaces or control characters",
        ));
    }
    Ok(host.into())
}

fn path_rewrite(at: At<'_>, raw: &pb::RouteAction) -> Result<PathRewrite> {
    if raw.path_rewrite_policy.is_some() || !raw.path_rewrite.is_empty() {
        return Err(unsupported(at.field("path_rewrite"), "a rewrite by template or format"));
    }
    match (non_empty(&raw.prefix_rewrite), raw.regex_rewrite.as_ref()) {
        (Some(prefix), _) => path_text(at.field("prefix_rewrite"), prefix).map(PathRewrite::Prefix),
        (None, Some(regex)) => {
            substitution(at.field("regex_rewrite"), regex).map(|sub| PathRewrite::Regex(Box::new(sub)))
        }
        (None, None) => Ok(PathRewrite::None),
    }
}

/// A text that may stand in a request line.
fn path_text(at: At<'_>, text: Arc<str>) -> Result<Arc<str>> {
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(out_of_range(
            at,
            format_args!("{text:?}"),
            "a path without spaces or control characters",
        ));
    }
    Ok(text)
}

/// RE2's rewrite syntax: `\0` to `\9`, and `\\`.
fn substitution(at: At<'_>, raw: &matcher_pb::RegexMatchAndSubstitute) -> Result<Substitution> {
    let regex = raw.pattern.as_ref().ok_or_else(|| missing(at.field("pattern")))?;
    let regex = compile(&regex.regex).map_err(|source| ConfigError::Regex {
        at: at.field("pattern").to_string(),
        source,
    })?;
    let at = at.field("substitution");
    let bad = |reason| ConfigError::Format {
        at: at.to_string(),
        near: raw.substitution.clone(),
        reason,
    };
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut chars = raw.substitution.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => plain.push('\\'),
            Some(digit @ '0'..='9') => {
                let group = digit
                    .to_digit(10)
                    .and_then(|digit| u8::try_from(digit).ok())
                    .unwrap_or_default();
                if usize::from(group) >= regex.captures_len() {
                    return Err(bad("the expression has no such group"));
                }
                if !plain.is_empty() {
                    parts.push(SubstitutionPart::Text(std::mem::take(&mut plain).into()));
                }
                parts.push(SubstitutionPart::Group(group));
            }
            _ => return Err(bad("after a backslash comes a digit or a backslash")),
        }
    }
    if !plain.is_empty() {
        parts.push(SubstitutionPart::Text(path_text(at, plain.into())?));
    }
    Ok(Substitution {
        regex,
        parts: parts.into(),
    })
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

pub(super) fn mirrors(at: At<'_>, raw: &[pb::route_action::RequestMirrorPolicy]) -> Result<Box<[Mirror]>> {
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

/// A retry policy; none without conditions or tries.
pub(super) fn retry(at: At<'_>, raw: Option<&pb::RetryPolicy>) -> Result<Option<Arc<RetryPolicy>>> {
    let Some(raw) = raw else { return Ok(None) };
    let at = at.field("retry_policy");
    if raw.retry_priority.is_some() || raw.rate_limited_retry_back_off.is_some() {
        return Err(unsupported(at, "a retry priority or a back-off told by the upstream"));
    }
    let mut avoid_previous = false;
    for predicate in &raw.retry_host_predicate {
        let at = at.field("retry_host_predicate");
        match predicate.config_type.as_ref() {
            Some(pb::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any))
                if is_extension::<PreviousHostsPredicate>(any) =>
            {
                avoid_previous = true;
            }
            None if predicate.name == "envoy.retry_host_predicates.previous_hosts" => avoid_previous = true,
            Some(pb::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any)) => {
                return Err(unknown_extension(at, &any.type_url));
            }
            None => return Err(unknown_extension(at, &predicate.name)),
        }
    }
    let mut statuses = raw
        .retriable_status_codes
        .iter()
        .map(|code| status(at.field("retriable_status_codes"), *code))
        .collect::<Result<Vec<_>>>()?;
    statuses.sort_unstable();
    statuses.dedup();
    let back_off = raw.retry_back_off.unwrap_or_default();
    let base = limit(at.field("base_interval"), back_off.base_interval, None)?.unwrap_or(BACKOFF);
    let max = limit(at.field("max_interval"), back_off.max_interval, None)?;
    Ok(Some(Arc::new(RetryPolicy {
        on: retry_on(&raw.retry_on),
        statuses: statuses.into(),
        response_headers: header_matches(at.field("retriable_headers"), &raw.retriable_headers)?,
        request_headers: header_matches(at.field("retriable_request_headers"), &raw.retriable_request_headers)?,
        retries: number(raw.num_retries).unwrap_or(1),
        per_try_timeout: limit(at.field("per_try_timeout"), raw.per_try_timeout, None)?,
        per_try_idle_timeout: limit(at.field("per_try_idle_timeout"), raw.per_try_idle_timeout, None)?,
        backoff_base: base,
        backoff_max: max.unwrap_or(base.saturating_mul(10)).max(base),
        avoid_previous,
        host_draws: u32::try_from(raw.host_selection_retry_max_attempts)
            .unwrap_or(0)
            .clamp(1, 64),
    })))
}

/// Conditions by name; unknown ones are left out, as Envoy does: to retry less is safe.
pub(super) fn retry_on(text: &str) -> RetryOn {
    text.split(',').fold(RetryOn::default(), |on, word| {
        on.with(match word.trim() {
            "5xx" => RetryOn::FIVE_XX,
            "gateway-error" => RetryOn::GATEWAY_ERROR,
            "reset" => RetryOn::RESET,
            "reset-before-request" => RetryOn::RESET_BEFORE_REQUEST,
            "connect-failure" => RetryOn::CONNECT_FAILURE,
            "refused-stream" => RetryOn::REFUSED_STREAM,
            "retriable-4xx" => RetryOn::RETRIABLE_4XX,
            "retriable-status-codes" => RetryOn::STATUS_CODES,
            "retriable-headers" => RetryOn::HEADERS,
            "envoy-ratelimited" => RetryOn::RATE_LIMITED,
            "cancelled" => RetryOn::GRPC_CANCELLED,
            "deadline-exceeded" => RetryOn::GRPC_DEADLINE_EXCEEDED,
            "internal" => RetryOn::GRPC_INTERNAL,
            "resource-exhausted" => RetryOn::GRPC_RESOURCE_EXHAUSTED,
            "unavailable" => RetryOn::GRPC_UNAVAILABLE,
            _ => RetryOn::default(),
        })
    })
}

fn redirect(at: At<'_>, raw: &pb::RedirectAction) -> Result<Redirect> {
    use pb::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    Ok(Redirect {
        status: match raw.response_code() {
            RedirectResponseCode::MovedPermanently => 301,
            RedirectResponseCode::Found => 302,
            RedirectResponseCode::SeeOther => 303,
            RedirectResponseCode::TemporaryRedirect => 307,
            RedirectResponseCode::PermanentRedirect => 308,
        },
        scheme: match raw.scheme_rewrite_specifier.as_ref() {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
                Some(authority(at.field("scheme_redirect"), scheme)?)
            }
            _ => None,
        },
        host: match non_empty(&raw.host_redirect) {
            Some(host) => Some(authority(at.field("host_redirect"), &host)?),
            None => None,
        },
        port: match raw.port_redirect {
            0 => None,
            value => Some(port(at.field("port_redirect"), value)?),
        },
        path: match raw.path_rewrite_specifier.as_ref() {
            None => PathRewrite::None,
            Some(PathRewriteSpecifier::PathRedirect(path)) => match non_empty(path) {
                Some(path) => PathRewrite::Full(path_text(at.field("path_redirect"), path)?),
                None => PathRewrite::None,
            },
            Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
                PathRewrite::Prefix(path_text(at.field("prefix_rewrite"), prefix.as_str().into())?)
            }
            Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
                PathRewrite::Regex(Box::new(substitution(at.field("regex_rewrite"), regex)?))
            }
            Some(PathRewriteSpecifier::PathRewrite(_)) => {
                return Err(unsupported(at.field("path_rewrite"), "a rewrite by format"));
            }
        },
        strip_query: raw.strip_query,
    })
}

fn direct(at: At<'_>, raw: &pb::DirectResponseAction) -> Result<Direct> {
    use core::data_source::Specifier;
    if raw.body_format.is_some() {
        return Err(unsupported(at.field("body_format"), "a formatted body"));
    }
    let body: Arc<[u8]> = match raw.body.as_ref().and_then(|body| body.specifier.as_ref()) {
        None => Arc::new([]),
        Some(Specifier::InlineString(text)) => text.as_bytes().into(),
        Some(Specifier::InlineBytes(bytes)) => bytes.as_slice().into(),
        Some(_) => return Err(unsupported(at.field("body"), "a body from a file or the environment")),
    };
    Ok(Direct {
        status: status(at.field("status"), raw.status)?,
        body,
    })
}

/// Settings of filters in a route or virtual host.
#[derive(Default)]
pub(super) struct FilterConfigs {
    pub(super) fault: Option<Arc<Fault>>,
    pub(super) cors: Option<Arc<Cors>>,
}

/// What we do not know may be a policy: it is refused unless it is marked optional.
pub(super) fn filter_configs(at: At<'_>, raw: &HashMap<String, Any>) -> Result<FilterConfigs> {
    let mut configs = FilterConfigs::default();
    for (name, any) in raw {
        let at = at.named("typed_per_filter_config", name);
        let wrapper = extension::<pb::FilterConfig>(at, any)?;
        let (any, optional) = match wrapper.as_ref() {
            Some(wrapper) if wrapper.disabled => continue,
            Some(wrapper) => match wrapper.config.as_ref() {
                Some(inner) => (inner, wrapper.is_optional),
                None => continue,
            },
            None => (any, false),
        };
        if let Some(raw) = extension::<filter_pb::fault::v3::HttpFault>(at, any)? {
            configs.fault = Some(Arc::new(fault(at, &raw)?));
        } else if let Some(raw) = extension::<filter_pb::cors::v3::CorsPolicy>(at, any)? {
            configs.cors = Some(Arc::new(cors(at, &raw)?));
        } else if !optional {
            return Err(unknown_extension(at, &any.type_url));
        }
    }
    Ok(configs)
}

fn fault(at: At<'_>, raw: &filter_pb::fault::v3::HttpFault) -> Result<Fault> {
    use filter_pb::fault::v3::fault_abort::ErrorType;
    if raw.response_rate_limit.is_some() || !raw.upstream_cluster.is_empty() || !raw.downstream_nodes.is_empty() {
        return Err(unsupported(at, "a fault by rate, upstream cluster or downstream node"));
    }
    const NONE: Fraction = Fraction {
        numerator: 0,
        denominator: 100,
    };
    let delay = match raw.delay.as_ref() {
        None => None,
        Some(delay) => {
            let at = at.field("delay");
            let Some(delay_pb::fault_delay::FaultDelaySecifier::FixedDelay(time)) = delay.fault_delay_secifier else {
                return Err(unsupported(at, "a delay told by a header"));
            };
            let time = duration(at.field("fixed_delay"), Some(time))?.unwrap_or_default();
            Some(Delay {
                time,
                fraction: super::fields::fraction(delay.percentage, NONE),
            })
        }
    };
    let abort = match raw.abort.as_ref() {
        None => None,
        Some(abort) => {
            let at = at.field("abort");
            let with = match abort.error_type.as_ref() {
                Some(ErrorType::HttpStatus(code)) => AbortWith::Http(status(at.field("http_status"), *code)?),
                Some(ErrorType::GrpcStatus(code)) => AbortWith::Grpc(*code),
                Some(ErrorType::HeaderAbort(_)) => return Err(unsupported(at, "an abort told by a header")),
                None => return Err(missing(at.field("error_type"))),
            };
            Some(Abort {
                with,
                fraction: super::fields::fraction(abort.percentage, NONE),
            })
        }
    };
    Ok(Fault {
        delay,
        abort,
        headers: header_matches(at, &raw.headers)?,
        max_active: number(raw.max_active_faults),
    })
}

fn cors(at: At<'_>, raw: &filter_pb::cors::v3::CorsPolicy) -> Result<Cors> {
    Ok(Cors {
        allow_origins: origins(at, &raw.allow_origin_string_match)?,
        allow_methods: raw.allow_methods.as_str().into(),
        allow_headers: raw.allow_headers.as_str().into(),
        expose_headers: raw.expose_headers.as_str().into(),
        max_age: raw.max_age.as_str().into(),
        allow_credentials: flag(raw.allow_credentials, false),
        forward_not_matching: flag(raw.forward_not_matching_preflights, true),
    })
}

pub(super) fn old_cors(at: At<'_>, raw: &pb::CorsPolicy) -> Result<Cors> {
    Ok(Cors {
        allow_origins: origins(at, &raw.allow_origin_string_match)?,
        allow_methods: raw.allow_methods.as_str().into(),
        allow_headers: raw.allow_headers.as_str().into(),
        expose_headers: raw.expose_headers.as_str().into(),
        max_age: raw.max_age.as_str().into(),
        allow_credentials: flag(raw.allow_credentials, false),
        forward_not_matching: flag(raw.forward_not_matching_preflights, true),
    })
}

fn origins(at: At<'_>, raw: &[matcher_pb::StringMatcher]) -> Result<Box<[crate::StringMatch]>> {
    raw.iter()
        .enumerate()
        .map(|(i, matcher)| string_match(at.index("allow_origin_string_match", i), matcher))
        .collect()
}
