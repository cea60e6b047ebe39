//! Tests on strings, headers and query parameters: the data only. `mizzen-decide` runs them.
//!
//! Semantics are Envoy's (`type.matcher.v3.StringMatcher`, `route.v3.HeaderMatcher`, `route.v3.QueryParameterMatcher`).

use std::fmt;
use std::sync::Arc;

/// A regular expression that must match the whole input, byte by byte, as Envoy's matchers do (RE2, Latin-1).
#[derive(Clone)]
pub struct Pattern {
    source: Arc<str>,
    whole: regex::bytes::Regex,
}

/// Compiled size above which an expression is refused: one route must not cost megabytes. The `regex` crate's matching
/// time is linear in the input, so size is the only limit needed.
const PATTERN_SIZE_LIMIT: usize = 256 * 1024;

impl Pattern {
    /// Compiles `source`, anchored at both ends.
    ///
    /// # Errors
    /// When the expression does not parse or compiles to more than 256 KiB.
    pub fn new(source: &str) -> Result<Self, regex::Error> {
        Ok(Self {
            source: source.into(),
            whole: compile(&format!("^(?:{source})$"))?,
        })
    }

    /// The expression as the user wrote it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the whole of `input` matches.
    #[must_use]
    pub fn is_match(&self, input: &[u8]) -> bool {
        self.whole.is_match(input)
    }
}

/// Compiles an expression that may match anywhere (for substitutions), within the same size limit.
pub(crate) fn compile(source: &str) -> Result<regex::bytes::Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(&re2(source))
        .unicode(false)
        .size_limit(PATTERN_SIZE_LIMIT)
        .dfa_size_limit(PATTERN_SIZE_LIMIT)
        .build()
}

/// The expression for this library, whose ASCII `\s` holds one character more than RE2's.
fn re2(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut rest = expression.chars();
    while let Some(c) = rest.next() {
        let escaped = if c == '\\' { rest.next() } else { None };
        match escaped {
            Some('s') => out.push_str(r"[\t\n\f\r ]"),
            Some('S') => out.push_str(r"[^\t\n\f\r ]"),
            other => {
                out.push(c);
                out.extend(other);
            }
        }
    }
    out
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

/// A test on one string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringMatch {
    /// What is tested. Already lower-case when `ignore_case` is set (but for a pattern).
    pub test: StringTest,
    /// ASCII case is ignored. Never set together with a pattern.
    pub ignore_case: bool,
}

/// The kinds of string tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringTest {
    /// The whole string.
    Exact(Arc<str>),
    /// Its beginning.
    Prefix(Arc<str>),
    /// Its end.
    Suffix(Arc<str>),
    /// Any part of it.
    Contains(Arc<str>),
    /// The whole string against an expression.
    Regex(Pattern),
}

/// A test on one request or response header; several values of a header are joined by `,` first, as Envoy does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Lower-case name, or a pseudo header such as `:method`.
    pub name: Arc<str>,
    /// What is tested.
    pub test: HeaderTest,
    /// The result is turned round. A missing header then matches only when the test is `Present`, or when
    /// `missing_is_empty` and the test fails on the empty string.
    pub invert: bool,
    /// A missing header counts as the empty string instead of as "no match".
    pub missing_is_empty: bool,
}

/// The kinds of header tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderTest {
    /// Present (`true`) or missing (`false`).
    Present(bool),
    /// A test on the value.
    Value(StringMatch),
    /// A decimal integer in `start..end` (the end is excluded).
    Range {
        /// First value that matches.
        start: i64,
        /// First value that no longer matches.
        end: i64,
    },
}

/// A test on one query parameter's first value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// The parameter's name, compared as it stands in the URL.
    pub name: Arc<str>,
    /// What is tested.
    pub test: QueryTest,
}

/// The kinds of query parameter tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryTest {
    /// Present (`true`) or missing (`false`).
    Present(bool),
    /// A test on the value.
    Value(StringMatch),
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    // C2, N4
    #[test]
    fn bytes_are_matched_as_in_envoy() {
        for (expression, matched, not) in [
            (r"\d+", "42", "٤٢"),
            (r"[\d.]+", "4.2", "٤.٢"),
            (r"\w+", "caf_1", "café"),
            (r"a\sb", "a b", "a\u{b}b"),
            (r"a\Sb", "a\u{b}b", "a b"),
            (r"caf\b.*", "café", "cafe"),
            (r"\\d", r"\d", "4"),
            ("a..b", "aéb", "aeb"),
            ("é(?:é)+", "ééé", "é"),
        ] {
            let pattern = Pattern::new(expression).unwrap();
            assert!(pattern.is_match(matched.as_bytes()), "{expression} {matched}");
            assert!(!pattern.is_match(not.as_bytes()), "{expression} {not}");
        }
    }
}
