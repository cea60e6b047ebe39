//! What conditions and changes are made of: expressions, header names, shares.

use std::fmt;
use std::sync::Arc;

use crate::name::NameError;

/// A regular expression that compiles, for the whole of a text (RE2 syntax).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Compiles the expression to see that it can be, within the size that a proxy allows.
    ///
    /// # Errors
    /// What the regular expression library says.
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        const SIZE_LIMIT: usize = 256 * 1024; // compiled; the native proxy's limit
        regex::bytes::RegexBuilder::new(&format!("^(?:{})$", re2(text)))
            .unicode(false) // Envoy has RE2 match bytes
            .size_limit(SIZE_LIMIT)
            .build()?;
        Ok(Self(Arc::from(text)))
    }

    /// The expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.0)
    }
}

/// The expression for Rust's library, whose ASCII `\s` holds one character more than RE2's. The native proxy does the same.
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

/// The name of an HTTP header, lower-case; also a pseudo header such as `:method`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderName(Arc<str>);

impl HeaderName {
    /// Checks and lower-cases a header's name.
    ///
    /// # Errors
    /// When it is empty or has a character that RFC 9110 does not allow in a token.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let what = "header";
        let token = text.strip_prefix(':').unwrap_or(text);
        if token.is_empty() {
            return Err(NameError::Empty { what });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        match token.chars().find(|c| !allowed(*c)) {
            Some(character) => Err(NameError::Character {
                what,
                text: text.to_owned(),
                character,
            }),
            None => Ok(Self(Arc::from(text.to_ascii_lowercase()))),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A share of requests, in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    /// All of them.
    pub const ALL: Self = Self(1_000_000);

    /// From percent, 0.0 to 100.0; none if it is outside or not a number.
    #[must_use]
    pub fn new(percent: f64) -> Option<Self> {
        // within the range the product fits in u32 and is not negative
        (0.0..=100.0)
            .contains(&percent)
            .then(|| Self((percent * 10_000.0).round() as u32))
    }

    /// Millionths, 0 to 1,000,000.
    #[must_use]
    pub fn millionths(self) -> u32 {
        self.0
    }
}

/// How a text is compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StringMatch {
    /// It is this.
    Exact(Arc<str>),
    /// It starts with this.
    Prefix(Arc<str>),
    /// The whole of it matches.
    Regex(Pattern),
}

/// What is asked of a header or query parameter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeaderMatch {
    /// It is there, with any value.
    Present,
    /// Its value compares.
    Value(StringMatch),
}
