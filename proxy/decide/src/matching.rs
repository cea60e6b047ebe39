//! Tests on strings, headers, query parameters and paths.

use mizzen_proxy_config::{
    HeaderMatch, HeaderTest, PathMatch, QueryMatch, QueryTest, RouteMatch, StringMatch, StringTest,
};
use std::borrow::Cow;

/// The facts of a request that decisions need; the codec's head implements it.
pub trait Request {
    /// The method.
    fn method(&self) -> &[u8];
    /// The request target in origin form: path, and query when there is one. Empty for CONNECT without a path.
    fn path(&self) -> &[u8];
    /// The authority (`Host`), as the client wrote it.
    fn authority(&self) -> &[u8];
    /// `http` or `https`.
    fn scheme(&self) -> &[u8];
    /// A header by lower-case name; several values are joined by `,`. Pseudo headers are not asked for here.
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// A header, or a pseudo header (`:method`, `:path`, `:authority`, `:scheme`).
pub fn header_value<'r>(request: &'r (impl Request + ?Sized), name: &str) -> Option<Cow<'r, [u8]>> {
    match name {
        ":method" => Some(Cow::Borrowed(request.method())),
        ":path" => Some(Cow::Borrowed(request.path())),
        ":authority" | "host" => Some(Cow::Borrowed(request.authority())),
        ":scheme" => Some(Cow::Borrowed(request.scheme())),
        _ => request.header(name),
    }
}

/// The path without query and fragment.
#[must_use]
pub fn path_only(target: &[u8]) -> &[u8] {
    let end = target
        .iter()
        .position(|byte| matches!(byte, b'?' | b'#'))
        .unwrap_or(target.len());
    target.get(..end).unwrap_or(target)
}

/// The query without the `?`, when there is one.
#[must_use]
pub fn query(target: &[u8]) -> Option<&[u8]> {
    let start = target.iter().position(|byte| *byte == b'?')? + 1;
    let query = target.get(start..)?;
    let end = query.iter().position(|byte| *byte == b'#').unwrap_or(query.len());
    query.get(..end)
}

/// Tests one string.
#[must_use]
pub fn string(test: &StringMatch, value: &[u8]) -> bool {
    let ignore_case = test.ignore_case;
    match &test.test {
        StringTest::Exact(text) => equal(text.as_bytes(), value, ignore_case),
        StringTest::Prefix(text) => starts(text.as_bytes(), value, ignore_case),
        StringTest::Suffix(text) => value
            .len()
            .checked_sub(text.len())
            .and_then(|start| value.get(start..))
            .is_some_and(|end| equal(text.as_bytes(), end, ignore_case)),
        StringTest::Contains(text) if text.is_empty() => true,
        StringTest::Contains(text) => value
            .windows(text.len())
            .any(|window| equal(text.as_bytes(), window, ignore_case)),
        StringTest::Regex(pattern) => pattern.is_match(value),
    }
}

fn equal(a: &[u8], b: &[u8], ignore_case: bool) -> bool {
    if ignore_case { a.eq_ignore_ascii_case(b) } else { a == b }
}

fn starts(prefix: &[u8], value: &[u8], ignore_case: bool) -> bool {
    value
        .get(..prefix.len())
        .is_some_and(|start| equal(prefix, start, ignore_case))
}

/// Tests one header of a request.
pub fn header(test: &HeaderMatch, request: &(impl Request + ?Sized)) -> bool {
    header_test(test, header_value(request, &test.name).as_deref())
}

/// Tests a header's value (`None`: missing). Envoy's order: presence is decided first; a missing header fails every
/// other test, turned round or not, unless it counts as empty.
#[must_use]
pub fn header_test(test: &HeaderMatch, value: Option<&[u8]>) -> bool {
    if let HeaderTest::Present(present) = test.test {
        return (value.is_some() == present) != test.invert;
    }
    let value = match value {
        Some(value) => value,
        None if test.missing_is_empty => b"",
        None => return false,
    };
    let matched = match &test.test {
        HeaderTest::Present(_) => false,
        HeaderTest::Value(string_test) => string(string_test, value),
        HeaderTest::Range { start, end } => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .is_some_and(|n| *start <= n && n < *end),
    };
    matched != test.invert
}

/// The first value of a query parameter; a parameter without `=` has the empty value.
#[must_use]
pub fn query_value<'t>(target: &'t [u8], name: &str) -> Option<&'t [u8]> {
    query(target)?.split(|byte| *byte == b'&').find_map(|pair| {
        let (key, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(equals) => (pair.get(..equals)?, pair.get(equals + 1..)?),
            None => (pair, &b""[..]),
        };
        (key == name.as_bytes()).then_some(value)
    })
}

fn query_test(test: &QueryMatch, target: &[u8]) -> bool {
    let value = query_value(target, &test.name);
    match &test.test {
        QueryTest::Present(present) => value.is_some() == *present,
        QueryTest::Value(string_test) => value.is_some_and(|value| string(string_test, value)),
    }
}

fn path(test: &PathMatch, case_sensitive: bool, request: &(impl Request + ?Sized)) -> bool {
    let path = path_only(request.path());
    let ignore_case = !case_sensitive;
    match test {
        PathMatch::Exact(text) => equal(text.as_bytes(), path, ignore_case),
        PathMatch::Prefix(text) => starts(text.as_bytes(), path, ignore_case),
        PathMatch::SeparatedPrefix(text) => {
            starts(text.as_bytes(), path, ignore_case) && matches!(path.get(text.len()), None | Some(b'/'))
        }
        PathMatch::Regex(pattern) => pattern.is_match(path),
        PathMatch::Connect => request.method() == b"CONNECT",
    }
}

/// A gRPC request, by its content type.
pub fn is_grpc(request: &(impl Request + ?Sized)) -> bool {
    request.header("content-type").is_some_and(|value| {
        value
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| rest.is_empty() || matches!(rest.first(), Some(b'+' | b';')))
    })
}

/// Whether a route takes a request. `random` decides shares.
pub fn route(test: &RouteMatch, request: &(impl Request + ?Sized), random: u64) -> bool {
    path(&test.path, test.case_sensitive, request)
        && test.headers.iter().all(|test| header(test, request))
        && test.query.iter().all(|test| query_test(test, request.path()))
        && (!test.grpc || is_grpc(request))
        && test
            .fraction
            .is_none_or(|fraction| crate::hits(fraction, crate::mix(random, 1)))
}
