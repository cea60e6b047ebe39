//! Routes.

mod filters;
mod forward;
mod retry;
mod rewrite;

pub(super) use filters::{filter_configs, old_cors};
pub(super) use forward::{one_cluster, weighted};
pub(super) use retry::retry;

use super::Result;
use super::fields::{missing, non_empty, number, out_of_range, port, runtime_fraction, status, unsupported};
use super::format::header_ops;
use super::matchers::{header_matches, pattern, query_matches};
use crate::error::{At, Problems};
use crate::route::{Action, Direct, Fraction, PathMatch, PathRewrite, Redirect, Route, RouteMatch};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use forward::forward;
use rewrite::{authority, path_text, substitution};
use std::sync::Arc;

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
        case_sensitive: super::fields::flag(raw.case_sensitive, true),
        headers: header_matches(at, &raw.headers)?,
        query: query_matches(at, &raw.query_parameters)?,
        grpc: raw.grpc.is_some(),
        fraction: raw
            .runtime_fraction
            .as_ref()
            .map(|raw| runtime_fraction(Some(raw.clone()), Fraction::ALL)),
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
