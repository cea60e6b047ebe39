//! New paths and authorities: nothing may get into them that would make another request of it.

use crate::convert::Result;
use crate::convert::fields::{missing, non_empty, out_of_range, unsupported};
use crate::error::{At, ConfigError};
use crate::matcher::compile;
use crate::route::{PathRewrite, Substitution, SubstitutionPart};
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use std::sync::Arc;

/// A text that may stand as an authority on the wire.
pub(super) fn authority(at: At<'_>, host: &str) -> Result<Arc<str>> {
    if host.is_empty() || host.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(out_of_range(
            at,
            format_args!("{host:?}"),
            "a host name without spaces or control characters",
        ));
    }
    Ok(host.into())
}

pub(super) fn path_rewrite(at: At<'_>, raw: &pb::RouteAction) -> Result<PathRewrite> {
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
pub(super) fn path_text(at: At<'_>, text: Arc<str>) -> Result<Arc<str>> {
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
pub(super) fn substitution(at: At<'_>, raw: &matcher_pb::RegexMatchAndSubstitute) -> Result<Substitution> {
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
