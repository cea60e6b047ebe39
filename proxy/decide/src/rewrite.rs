//! Rewritten paths and redirect locations, written into a buffer that the caller keeps.

use crate::matching::{Request, path_only};
use crate::route::without_port;
use mizzen_proxy_config::{PathMatch, PathRewrite, Redirect, Substitution, SubstitutionPart};

/// Writes the new request target into `out` (cleared first) and returns `true`; returns `false` when nothing changes.
///
/// The query is kept. A result that would not begin with `/` gets one, since a request line needs it.
pub fn path(rewrite: &PathRewrite, matched: &PathMatch, target: &[u8], out: &mut Vec<u8>) -> bool {
    let path = path_only(target);
    let after = target.get(path.len()..).unwrap_or_default();
    out.clear();
    match rewrite {
        PathRewrite::None => return false,
        PathRewrite::Full(full) => out.extend_from_slice(full.as_bytes()),
        PathRewrite::Prefix(new) => {
            let length = match matched {
                PathMatch::Prefix(old) | PathMatch::SeparatedPrefix(old) => old.len(),
                PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => path.len(),
            };
            out.extend_from_slice(new.as_bytes());
            out.extend_from_slice(path.get(length..).unwrap_or_default());
        }
        PathRewrite::Regex(substitution) => replace(substitution, path, out),
    }
    if out.first() != Some(&b'/') {
        out.insert(0, b'/');
    }
    out.extend_from_slice(after);
    true
}

/// Replaces every match in `input`.
fn replace(substitution: &Substitution, input: &[u8], out: &mut Vec<u8>) {
    let mut done = 0;
    for groups in substitution.regex.captures_iter(input) {
        let Some(whole) = groups.get(0) else { continue };
        out.extend_from_slice(input.get(done..whole.start()).unwrap_or_default());
        for part in &substitution.parts {
            match part {
                SubstitutionPart::Text(text) => out.extend_from_slice(text.as_bytes()),
                SubstitutionPart::Group(group) => {
                    if let Some(group) = groups.get(usize::from(*group)) {
                        out.extend_from_slice(group.as_bytes());
                    }
                }
            }
        }
        done = whole.end();
    }
    out.extend_from_slice(input.get(done..).unwrap_or_default());
}

/// Writes the `location` of a redirect into `out` (cleared first).
///
/// As in Envoy, a port that is the old scheme's default is dropped when the scheme changes, and any port is dropped
/// when the redirect names one.
pub fn location(redirect: &Redirect, matched: &PathMatch, request: &(impl Request + ?Sized), out: &mut Vec<u8>) {
    let mut target = Vec::new();
    let changed = path(&redirect.path, matched, request.path(), &mut target);
    let target: &[u8] = if changed { &target } else { request.path() };
    let old_scheme = request.scheme();
    let scheme = redirect.scheme.as_deref().map_or(old_scheme, str::as_bytes);
    let authority = redirect.host.as_deref().map_or(request.authority(), str::as_bytes);
    let bare = without_port(authority);
    let port = authority.get(bare.len()..).unwrap_or_default();
    let default_port = (old_scheme == b"http" && port == b":80") || (old_scheme == b"https" && port == b":443");
    out.clear();
    out.extend_from_slice(scheme);
    out.extend_from_slice(b"://");
    match redirect.port {
        Some(port) => {
            out.extend_from_slice(bare);
            out.push(b':');
            out.extend_from_slice(port.to_string().as_bytes());
        }
        None if scheme != old_scheme && default_port => out.extend_from_slice(bare),
        None => out.extend_from_slice(authority),
    }
    // A full path with a query of its own replaces the old query, which `path` has put behind it.
    let own_query = match &redirect.path {
        PathRewrite::Full(full) if full.contains('?') => Some(full.as_bytes()),
        _ => None,
    };
    out.extend_from_slice(match own_query {
        Some(full) => full,
        None if redirect.strip_query => path_only(target),
        None => target,
    });
}
