//! HTTP rules: conditions and what is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use mizzen_crds::networking::virtual_service as vs;
use mizzen_model::{
    HeaderMatch, HeaderName, HeaderOps, Headers, HttpAction, HttpMatch, HttpRoute, ObjectKey, ObjectName, StringMatch,
    WeightedDestination,
};

use super::stream::{destination, source_namespace, weights};
use super::virtual_service::match_gateways;
use super::{http_action as action, resilience};
use crate::error::{Caution, Reason};
use crate::reader::{Reader, text};

/// Envoy's limit for the name of a query parameter.
const QUERY_NAME_LIMIT: usize = 1024;

/// Envoy's limit for the name and for the value of a header that a route sets.
const HEADER_LIMIT: usize = 16_384;

pub(super) fn routes(r: &mut Reader<'_>, routes: &[vs::HttpRoute], delegated_to: bool) -> Vec<HttpRoute> {
    let mut takes_all = None;
    let mut index = 0;
    r.each("http", routes, |r, raw| {
        if let Some(earlier) = takes_all {
            r.caution("", &Caution::Unreachable { earlier });
        } else if raw.r#match.is_empty() {
            takes_all = Some(index);
        }
        index += 1;
        route(r, raw, delegated_to)
    })
}

fn route(r: &mut Reader<'_>, raw: &vs::HttpRoute, delegated_to: bool) -> Option<HttpRoute> {
    exclusions(r, raw, delegated_to);
    let matches = r.each("match", &raw.r#match, condition);
    let action = if let Some(redirect) = &raw.redirect {
        r.inside("redirect", |r| action::redirect(r, redirect, &matches))
            .map(HttpAction::Redirect)
    } else if let Some(response) = &raw.direct_response {
        r.inside("directResponse", |r| action::direct(r, response))
            .map(HttpAction::Direct)
    } else if let Some(delegate) = &raw.delegate {
        r.inside("delegate", |r| delegate_key(r, delegate))
            .map(HttpAction::Delegate)
    } else {
        if raw.route.is_empty() {
            r.refuse_at(
                "route",
                Reason::Missing {
                    remedy: "write route, redirect, directResponse or delegate",
                },
            );
        }
        Some(HttpAction::Forward(destinations(r, &raw.route)))
    };
    let rewrite = raw
        .rewrite
        .as_ref()
        .and_then(|rewrite| r.inside("rewrite", |r| action::rewrite(r, rewrite)));
    let timeout = r.duration("timeout", raw.timeout.as_ref());
    let retries = raw
        .retries
        .as_ref()
        .map(|retries| r.inside("retries", |r| resilience::retries(r, retries)));
    let fault = raw
        .fault
        .as_ref()
        .map(|fault| r.inside("fault", |r| resilience::fault(r, fault)));
    let mirrors = action::mirrors(r, raw);
    let cors = raw
        .cors_policy
        .as_ref()
        .map(|cors| r.inside("corsPolicy", |r| action::cors(r, cors)));
    let headers = headers(r, raw.headers.as_ref());
    Some(HttpRoute {
        name: text(raw.name.as_ref()),
        matches,
        action: action?,
        rewrite,
        timeout,
        retries,
        fault,
        mirrors,
        cors,
        headers,
    })
}

/// What cannot be in one rule together.
fn exclusions(r: &mut Reader<'_>, raw: &vs::HttpRoute, delegated_to: bool) {
    let mut actions = [
        ("route", !raw.route.is_empty()),
        ("redirect", raw.redirect.is_some()),
        ("directResponse", raw.direct_response.is_some()),
        ("delegate", raw.delegate.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name));
    let first = actions.next();
    for other in actions {
        r.refuse_at(
            other,
            Reason::Excludes {
                this: other,
                other: first.unwrap_or_default(),
            },
        );
    }
    if raw.delegate.is_some() && delegated_to {
        r.refuse_at(
            "delegate",
            Reason::Excludes {
                this: "delegate",
                other: "being delegated to (spec.hosts is empty)",
            },
        );
    }
    let forwards_nothing = match first {
        Some(name @ ("redirect" | "directResponse")) => name,
        _ => return,
    };
    for (other, there) in [("fault", raw.fault.is_some()), ("rewrite", raw.rewrite.is_some())] {
        if there {
            r.refuse_at(
                other,
                Reason::Excludes {
                    this: other,
                    other: forwards_nothing,
                },
            );
        }
    }
}

fn delegate_key(r: &mut Reader<'_>, raw: &vs::Delegate) -> Option<ObjectKey> {
    let namespace = match raw.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => r.namespace_named("namespace", namespace),
        None => Some(r.namespace.clone()),
    };
    let name = r.take("name", ObjectName::new(raw.name.as_deref().unwrap_or_default()));
    Some(ObjectKey::new(mizzen_model::Kind::VirtualService, namespace?, name?))
}

fn condition(r: &mut Reader<'_>, raw: &vs::HttpMatch) -> Option<HttpMatch> {
    let uri = required(r, "uri", raw.uri.as_ref());
    let ignore_uri_case = raw.ignore_uri_case.unwrap_or(false);
    if ignore_uri_case && matches!(uri, Some(StringMatch::Regex(_))) {
        r.caution(
            "ignoreUriCase",
            &Caution::NoEffect {
                why: "a regular expression says itself whether case counts: begin it with (?i)",
            },
        );
    }
    let scheme = required(r, "scheme", raw.scheme.as_ref());
    let method = required(r, "method", raw.method.as_ref());
    let authority = required(r, "authority", raw.authority.as_ref());
    let mut query_params = BTreeMap::new();
    for (name, value) in &raw.query_params {
        let field = format!("queryParams.{name}");
        if name.is_empty() {
            let remedy = "write the query parameter's name";
            r.refuse_at("queryParams", Reason::Missing { remedy });
        }
        if name.len() > QUERY_NAME_LIMIT {
            r.refuse_at(
                "queryParams",
                Reason::TooLong {
                    limit: QUERY_NAME_LIMIT,
                },
            );
        }
        r.printable("queryParams", name);
        if let Some(value) = presence_or(r, &field, value) {
            query_params.insert(Arc::from(name.as_str()), value);
        }
    }
    Some(HttpMatch {
        name: text(raw.name.as_ref()),
        uri,
        ignore_uri_case,
        scheme,
        method,
        authority,
        headers: header_matches(r, "headers", &raw.headers),
        without_headers: header_matches(r, "withoutHeaders", &raw.without_headers),
        query_params,
        port: r.port("port", raw.port),
        source_labels: r.labels("sourceLabels", &raw.source_labels),
        source_namespace: source_namespace(r, raw.source_namespace.as_ref()),
        gateways: match_gateways(r, &raw.gateways),
        stat_prefix: text(raw.stat_prefix.as_ref()),
    })
}

fn header_matches(
    r: &mut Reader<'_>,
    field: &str,
    raw: &BTreeMap<String, vs::StringMatch>,
) -> BTreeMap<HeaderName, HeaderMatch> {
    let mut matches = BTreeMap::new();
    for (name, value) in raw {
        let field = format!("{field}.{name}");
        let name = r.take(&field, HeaderName::new(name));
        let value = presence_or(r, &field, value);
        if let (Some(name), Some(value)) = (name, value) {
            matches.insert(name, value);
        }
    }
    matches
}

/// A comparison, or none if the text is not looked at.
fn required(r: &mut Reader<'_>, field: &str, raw: Option<&vs::StringMatch>) -> Option<StringMatch> {
    let raw = raw?;
    let found = string_match(r, field, raw);
    if found.is_none() && raw == &vs::StringMatch::default() {
        r.refuse_at(
            field,
            Reason::Missing {
                remedy: "write exact, prefix or regex",
            },
        );
    }
    found
}

fn presence_or(r: &mut Reader<'_>, field: &str, raw: &vs::StringMatch) -> Option<HeaderMatch> {
    if raw == &vs::StringMatch::default() {
        return Some(HeaderMatch::Present);
    }
    string_match(r, field, raw).map(HeaderMatch::Value)
}

pub(super) fn string_match(r: &mut Reader<'_>, field: &str, raw: &vs::StringMatch) -> Option<StringMatch> {
    r.inside(field, |r| match (&raw.exact, &raw.prefix, &raw.regex) {
        (None, None, None) => None,
        (Some(exact), None, None) => {
            r.printable("exact", exact);
            Some(StringMatch::Exact(Arc::from(exact.as_str())))
        }
        (None, Some(prefix), None) if prefix.is_empty() => {
            r.refuse_at(
                "prefix",
                Reason::Missing {
                    remedy: "write the beginning of the text, or leave the condition out",
                },
            );
            None
        }
        (None, Some(prefix), None) => {
            r.printable("prefix", prefix);
            Some(StringMatch::Prefix(Arc::from(prefix.as_str())))
        }
        (None, None, Some(regex)) => r.pattern("regex", regex).map(StringMatch::Regex),
        (Some(_), _, _) => {
            r.refuse(Reason::Excludes {
                this: "exact",
                other: "prefix and regex",
            });
            None
        }
        _ => {
            r.refuse(Reason::Excludes {
                this: "prefix",
                other: "regex",
            });
            None
        }
    })
}

fn destinations(r: &mut Reader<'_>, raw: &[vs::HttpRouteDestination]) -> Vec<WeightedDestination> {
    let mut shares = weights(
        r,
        raw.iter().map(|entry| (entry.destination.host.as_str(), entry.weight)),
    )
    .into_iter();
    r.each("route", raw, |r, entry| {
        let weight = shares.next().unwrap_or_default();
        let headers = headers(r, entry.headers.as_ref());
        let destination = destination(r, "destination", &entry.destination)?;
        Some(WeightedDestination {
            destination,
            weight,
            headers,
        })
    })
}

fn headers(r: &mut Reader<'_>, raw: Option<&vs::Headers>) -> Headers {
    let Some(raw) = raw else { return Headers::default() };
    r.inside("headers", |r| Headers {
        request: operations(r, "request", raw.request.as_ref()),
        response: operations(r, "response", raw.response.as_ref()),
    })
}

fn operations(r: &mut Reader<'_>, field: &str, raw: Option<&vs::HeaderOperations>) -> HeaderOps {
    let Some(raw) = raw else { return HeaderOps::default() };
    r.inside(field, |r| HeaderOps {
        set: header_values(r, "set", &raw.set),
        add: header_values(r, "add", &raw.add),
        remove: r
            .each("remove", &raw.remove, |r, name| header_name(r, "", name))
            .into_iter()
            .collect(),
    })
}

fn header_values(r: &mut Reader<'_>, field: &str, raw: &BTreeMap<String, String>) -> BTreeMap<HeaderName, Arc<str>> {
    let mut values = BTreeMap::new();
    for (name, value) in raw {
        let field = format!("{field}.{name}");
        if value.chars().any(|c| c.is_control() && c != '\t') {
            r.refuse_at(&field, Reason::HeaderValue);
        }
        // a percent sign of no command is sent to Envoy twice
        if name.len() > HEADER_LIMIT || value.len() + value.matches('%').count() > HEADER_LIMIT {
            r.refuse_at(&field, Reason::TooLong { limit: HEADER_LIMIT });
        }
        if let Some(name) = header_name(r, &field, name) {
            values.insert(name, Arc::from(value.as_str()));
        }
    }
    values
}

/// A header that may be changed. Those that frame a request or say who sent it are not the user's to change.
fn header_name(r: &mut Reader<'_>, field: &str, text: &str) -> Option<HeaderName> {
    let name = r.take(field, HeaderName::new(text))?;
    if name.as_str().starts_with(':') {
        let text = text.to_owned();
        r.refuse_at(
            field,
            Reason::Unknown {
                text,
                allowed: "a header; use rewrite for path and authority",
            },
        );
        return None;
    }
    if matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection") {
        let text = text.to_owned();
        r.refuse_at(
            field,
            Reason::Unknown {
                text,
                allowed: "a header that does not frame the message",
            },
        );
        return None;
    }
    Some(name)
}
