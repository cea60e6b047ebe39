//! What an HTTP rule does besides choosing a destination.

use std::sync::Arc;

use base64::Engine as _;
use mizzen_crds::networking::virtual_service as vs;
use mizzen_model::{
    Body, Cors, DirectResponse, HttpMatch, Mirror, Percent, Redirect, RedirectPort, Rewrite, RoutePathRewrite,
    StringMatch,
};

use super::http::string_match;
use super::regex;
use super::resilience::percent;
use super::stream::destination;
use crate::error::{Caution, Reason};
use crate::reader::Reader;

pub(super) fn redirect(r: &mut Reader<'_>, raw: &vs::HttpRedirect, matches: &[HttpMatch]) -> Option<Redirect> {
    let authority = r.printable_text("authority", raw.authority.as_ref());
    let scheme = r.printable_text("scheme", raw.scheme.as_ref());
    let port = match (raw.port, raw.derive_port) {
        (Some(_), Some(_)) => {
            r.refuse_at(
                "derivePort",
                Reason::Excludes {
                    this: "derivePort",
                    other: "port",
                },
            );
            None
        }
        (Some(number), None) => r.port("port", Some(number)).map(RedirectPort::Number),
        (None, Some(vs::RedirectPort::FromProtocolDefault)) => Some(RedirectPort::FromScheme),
        (None, Some(vs::RedirectPort::FromRequestPort)) => Some(RedirectPort::FromRequest),
        (None, None) => None,
    };
    let uri = match (r.printable_text("uri", raw.uri.as_ref()), &raw.prefix_rewrite) {
        (Some(_), Some(_)) => {
            r.refuse_at(
                "prefixRewrite",
                Reason::Excludes {
                    this: "prefixRewrite",
                    other: "uri",
                },
            );
            None
        }
        (Some(uri), None) => Some(RoutePathRewrite::Path(uri)),
        (None, Some(replacement)) => {
            r.printable("prefixRewrite", replacement);
            r.pattern("prefixRewrite", &matched_prefix(matches)).map(|pattern| {
                let substitution = Arc::from(replacement.replace('\\', "\\\\"));
                RoutePathRewrite::Regex { pattern, substitution }
            })
        }
        (None, None) => None,
    };
    if uri.is_none() && authority.is_none() && scheme.is_none() && port.is_none() {
        r.refuse(Reason::Missing {
            remedy: "write uri, authority, scheme or port: where to redirect to",
        });
    }
    let status = match raw.redirect_code.unwrap_or(0) {
        0 => 301,
        code @ (301 | 302 | 303 | 307 | 308) => u16::try_from(code).unwrap_or(301),
        code => {
            let range = "301, 302, 303, 307 or 308";
            r.refuse_at(
                "redirectCode",
                Reason::Range {
                    number: code.to_string(),
                    range,
                },
            );
            301
        }
    };
    Some(Redirect {
        uri,
        authority,
        port,
        scheme,
        status,
    })
}

/// An expression for the part of a path that the conditions matched, in which a prefix is replaced: the longest of their
/// texts, or the first `/` where none looks at the path.
fn matched_prefix(matches: &[HttpMatch]) -> String {
    let mut texts: Vec<String> = matches
        .iter()
        .filter_map(|condition| match condition.uri.as_ref()? {
            StringMatch::Exact(text) | StringMatch::Prefix(text) => Some(escaped(text)),
            StringMatch::Regex(_) => None,
        })
        .collect();
    if texts.is_empty() {
        texts.push("/".to_owned());
    }
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    texts.dedup();
    format!("^(?:{})", texts.join("|"))
}

/// A text as a regular expression for just itself.
fn escaped(text: &str) -> String {
    let mut expression = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            expression.push('\\');
        }
        expression.push(character);
    }
    expression
}

pub(super) fn direct(r: &mut Reader<'_>, raw: &vs::HttpDirectResponse) -> Option<DirectResponse> {
    let status = status(r, "status", i64::from(raw.status));
    let body = raw.body.as_ref().and_then(|body| {
        r.inside("body", |r| match (&body.string, &body.bytes) {
            (Some(_), Some(_)) => {
                r.refuse(Reason::Excludes {
                    this: "string",
                    other: "bytes",
                });
                None
            }
            (Some(string), None) => Some(Body::Text(Arc::from(string.as_str()))),
            (None, Some(bytes)) => {
                let decoded = base64::engine::general_purpose::STANDARD.decode(bytes);
                r.take("bytes", decoded.map_err(|_| Reason::Base64))
                    .map(|bytes| Body::Bytes(Arc::from(bytes)))
            }
            (None, None) => None,
        })
    });
    Some(DirectResponse { status: status?, body })
}

/// An HTTP status that a final response can have.
pub(super) fn status(r: &mut Reader<'_>, field: &str, number: i64) -> Option<u16> {
    match u16::try_from(number) {
        Ok(status @ 200..=599) => Some(status),
        _ => {
            r.refuse_at(
                field,
                Reason::Range {
                    number: number.to_string(),
                    range: "200 to 599",
                },
            );
            None
        }
    }
}

pub(super) fn rewrite(r: &mut Reader<'_>, raw: &vs::HttpRewrite) -> Option<Rewrite> {
    let uri = match (r.printable_text("uri", raw.uri.as_ref()), &raw.uri_regex_rewrite) {
        (Some(_), Some(_)) => {
            r.refuse_at(
                "uriRegexRewrite",
                Reason::Excludes {
                    this: "uriRegexRewrite",
                    other: "uri",
                },
            );
            None
        }
        (Some(uri), None) => Some(RoutePathRewrite::Path(uri)),
        (None, Some(regex)) => r.inside("uriRegexRewrite", |r| {
            let Some(expression) = &regex.r#match else {
                r.refuse_at(
                    "match",
                    Reason::Missing {
                        remedy: "write the regular expression to look for",
                    },
                );
                return None;
            };
            let Some(substitution) = &regex.rewrite else {
                r.refuse_at(
                    "rewrite",
                    Reason::Missing {
                        remedy: "write what to put in its place",
                    },
                );
                return None;
            };
            r.printable("rewrite", substitution);
            let pattern = r.pattern("match", expression)?;
            let groups = regex::read(expression).map_or(0, |read| read.groups);
            if let Some(why) = bad_reference(substitution, groups) {
                r.refuse_at("rewrite", Reason::Regex { why });
                return None;
            }
            Some(RoutePathRewrite::Regex {
                pattern,
                substitution: Arc::from(substitution.as_str()),
            })
        }),
        (None, None) => None,
    };
    let authority = r.printable_text("authority", raw.authority.as_ref());
    if uri.is_none() && authority.is_none() && raw.uri_regex_rewrite.is_none() {
        r.refuse(Reason::Missing {
            remedy: "write uri, uriRegexRewrite or authority",
        });
    }
    Some(Rewrite { uri, authority })
}

pub(super) fn mirrors(r: &mut Reader<'_>, raw: &vs::HttpRoute) -> Vec<Mirror> {
    if raw.mirror.is_some() && !raw.mirrors.is_empty() {
        r.refuse_at(
            "mirrors",
            Reason::Excludes {
                this: "mirrors",
                other: "mirror",
            },
        );
    }
    let mut whole = None;
    for (field, number) in [
        ("mirror_percent", raw.mirror_percent_snake_case),
        ("mirrorPercent", raw.mirror_percent),
    ] {
        let Some(number) = number else { continue };
        r.caution(
            field,
            &Caution::Deprecated {
                modern: "mirrorPercentage.value",
            },
        );
        whole = Percent::new(f64::from(number));
        if whole.is_none() {
            r.refuse_at(
                field,
                Reason::Range {
                    number: number.to_string(),
                    range: "0 to 100",
                },
            );
        }
    }
    let share = percent(
        r,
        "mirrorPercentage",
        raw.mirror_percentage.as_ref(),
        whole.unwrap_or(Percent::ALL),
    );
    if let Some(mirror) = &raw.mirror {
        let destination = destination(r, "mirror", mirror);
        return destination
            .into_iter()
            .map(|destination| Mirror {
                destination,
                percent: share,
            })
            .collect();
    }
    r.each("mirrors", &raw.mirrors, |r, mirror| {
        let percent = percent(r, "percentage", mirror.percentage.as_ref(), Percent::ALL);
        Some(Mirror {
            destination: destination(r, "destination", &mirror.destination)?,
            percent,
        })
    })
}

pub(super) fn cors(r: &mut Reader<'_>, raw: &vs::CorsPolicy) -> Cors {
    let mut allow_origins: Vec<StringMatch> = Vec::new();
    if !raw.allow_origin.is_empty() {
        r.caution("allowOrigin", &Caution::Deprecated { modern: "allowOrigins" });
        // as it was before: exact origins, and * for all
        for origin in &raw.allow_origin {
            r.printable("allowOrigin", origin);
            if origin == "*" {
                allow_origins.extend(r.pattern("allowOrigin", ".*").map(StringMatch::Regex));
            } else {
                allow_origins.push(StringMatch::Exact(Arc::from(origin.as_str())));
            }
        }
    }
    allow_origins.extend(r.each("allowOrigins", &raw.allow_origins, |r, origin| {
        if origin == &vs::StringMatch::default() {
            r.refuse(Reason::Missing {
                remedy: "write exact, prefix or regex",
            });
        }
        string_match(r, "", origin)
    }));
    let methods = r.each("allowMethods", &raw.allow_methods, |r, method| {
        const METHODS: [&str; 10] = [
            "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*",
        ];
        if !METHODS.contains(&method.as_str()) {
            r.refuse(Reason::Unknown {
                text: method.clone(),
                allowed: "an HTTP method in capitals, or *",
            });
        }
        Some(Arc::from(method.as_str()))
    });
    let shared = |r: &mut Reader<'_>, field: &str, texts: &[String]| {
        r.each(field, texts, |r, text| {
            r.printable("", text);
            Some(Arc::from(text.as_str()))
        })
    };
    Cors {
        allow_origins,
        allow_methods: methods,
        allow_headers: shared(r, "allowHeaders", &raw.allow_headers),
        expose_headers: shared(r, "exposeHeaders", &raw.expose_headers),
        max_age: r.duration("maxAge", raw.max_age.as_ref()),
        allow_credentials: raw.allow_credentials,
        forward_unmatched_preflights: match raw.unmatched_preflights.unwrap_or_default() {
            vs::UnmatchedPreflights::Unspecified => None,
            vs::UnmatchedPreflights::Forward => Some(true),
            vs::UnmatchedPreflights::Ignore => Some(false),
        },
    }
}

/// What is wrong with what a substitution says of the groups of its expression: `\\1` is the first, `\\0` all, `\\\\` a backslash.
fn bad_reference(substitution: &str, groups: usize) -> Option<String> {
    let mut rest = substitution.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            continue;
        }
        match rest.next() {
            Some('\\') => {}
            Some(digit @ '0'..='9') => {
                if digit.to_digit(10).is_some_and(|number| number as usize > groups) {
                    return Some(format!(
                        "\\{digit} in the rewrite, and the expression has {groups} groups"
                    ));
                }
            }
            _ => {
                return Some(
                    "a single \\ in the rewrite: write \\1 for the first group, \\\\ for the character".to_owned(),
                );
            }
        }
    }
    None
}
