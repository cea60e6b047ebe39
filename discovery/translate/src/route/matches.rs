//! Conditions on requests.

use envoy_types::pb::envoy::config::route::v3 as route;
use mizzen_model::{HeaderMatch, HttpMatch, StringMatch};

use crate::proto::{boolean, exactly, regex, string_matcher};

use route::header_matcher::HeaderMatchSpecifier;
use route::query_parameter_matcher::QueryParameterMatchSpecifier;
use route::route_match::PathSpecifier;

/// Everything.
pub(crate) fn everything() -> route::RouteMatch {
    route::RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    }
}

/// What hangs on the request itself; where it came from has been decided.
pub(super) fn wanted(wanted: &HttpMatch) -> route::RouteMatch {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", &wanted.method),
        (":scheme", &wanted.scheme),
        (":authority", &wanted.authority),
    ] {
        headers.extend(
            value
                .iter()
                .map(|value| header(name, &HeaderMatch::Value(value.clone()), false)),
        );
    }
    headers.extend(
        wanted
            .headers
            .iter()
            .map(|(name, value)| header(name.as_str(), value, false)),
    );
    headers.extend(
        wanted
            .without_headers
            .iter()
            .map(|(name, value)| header(name.as_str(), value, true)),
    );
    let query_parameters = wanted
        .query_params
        .iter()
        .map(|(name, value)| route::QueryParameterMatcher {
            name: name.to_string(),
            query_parameter_match_specifier: Some(match value {
                HeaderMatch::Present => QueryParameterMatchSpecifier::PresentMatch(true),
                HeaderMatch::Value(value) => QueryParameterMatchSpecifier::StringMatch(string_matcher(value, false)),
            }),
        });
    route::RouteMatch {
        path_specifier: Some(match &wanted.uri {
            None => PathSpecifier::Prefix("/".to_owned()),
            Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.to_string()),
            Some(StringMatch::Prefix(path)) => PathSpecifier::Prefix(path.to_string()),
            Some(StringMatch::Regex(pattern)) => PathSpecifier::SafeRegex(regex(pattern)),
        }),
        case_sensitive: if wanted.ignore_uri_case { boolean(false) } else { None },
        headers,
        query_parameters: query_parameters.collect(),
        ..Default::default()
    }
}

fn header(name: &str, value: &HeaderMatch, invert: bool) -> route::HeaderMatcher {
    let (specifier, present) = match value {
        HeaderMatch::Present => (HeaderMatchSpecifier::PresentMatch(true), true),
        // a header without a value
        HeaderMatch::Value(StringMatch::Exact(text)) if text.is_empty() => {
            (HeaderMatchSpecifier::StringMatch(exactly("")), false)
        }
        HeaderMatch::Value(value) => (HeaderMatchSpecifier::StringMatch(string_matcher(value, false)), false),
    };
    route::HeaderMatcher {
        name: name.to_owned(),
        invert_match: invert,
        // A request without the header does not have that value either.
        treat_missing_header_as_empty: invert && !present,
        header_match_specifier: Some(specifier),
    }
}
