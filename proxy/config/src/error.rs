//! Everything that can be wrong with a resource: one variant per way, each naming the field and what to do.

use std::fmt;

/// Where in a resource something is: a path of field names, built only when it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Field(&'a str),
    Index(&'a str, usize),
    Named(&'a str, &'a str),
}

impl<'a> At<'a> {
    /// The path's beginning.
    pub(crate) const fn root(field: &'a str) -> Self {
        Self {
            parent: None,
            step: Step::Field(field),
        }
    }

    /// A field below.
    pub(crate) const fn field(&'a self, name: &'a str) -> Self {
        At {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// An element of a repeated field below.
    pub(crate) const fn index(&'a self, name: &'a str, index: usize) -> Self {
        At {
            parent: Some(self),
            step: Step::Index(name, index),
        }
    }

    /// An element that has a name of its own.
    pub(crate) const fn named(&'a self, name: &'a str, key: &'a str) -> Self {
        At {
            parent: Some(self),
            step: Step::Named(name, key),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        match self.step {
            Step::Field(name) => f.write_str(name),
            Step::Index(name, index) => write!(f, "{name}[{index}]"),
            Step::Named(name, key) => write!(f, "{name}[{key:?}]"),
        }
    }
}

/// A way in which a resource is wrong, or asks for what this proxy cannot do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The bytes are not the message they claim to be.
    #[error("{at}: not a valid protobuf message: {source}")]
    Malformed {
        /// Field path.
        at: String,
        /// The decoder's word.
        #[source]
        source: prost::DecodeError,
    },
    /// A required field is not there.
    #[error("{at}: is required; set it")]
    Missing {
        /// Field path.
        at: String,
    },
    /// A number, duration or enum value that is not allowed.
    #[error("{at}: {value} is not allowed; use {allowed}")]
    OutOfRange {
        /// Field path.
        at: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A regular expression that does not compile, or is too big.
    #[error(
        "{at}: not a usable regular expression: {source}; use RE2 syntax without look-around, at most 256 KiB compiled"
    )]
    Regex {
        /// Field path.
        at: String,
        /// The compiler's word.
        #[source]
        source: regex::Error,
    },
    /// An address that is not one.
    #[error("{at}: {value:?} is not an address; use an IP address and a port")]
    Address {
        /// Field path.
        at: String,
        /// The value.
        value: String,
    },
    /// A domain of a virtual host that is not one.
    #[error("{at}: {value:?} is not a domain; use a host name, `*.suffix`, `prefix.*` or `*`")]
    Domain {
        /// Field path.
        at: String,
        /// The value.
        value: String,
    },
    /// Two virtual hosts answer to one domain.
    #[error("{at}: domain {value:?} belongs to another virtual host already; name it once")]
    DuplicateDomain {
        /// Field path.
        at: String,
        /// The domain.
        value: String,
    },
    /// An extension (filter, transport socket, …) this proxy does not have.
    #[error("{at}: extension {type_url:?} is not supported; remove it or run the Envoy data plane")]
    UnknownExtension {
        /// Field path.
        at: String,
        /// Its type.
        type_url: String,
    },
    /// A field this proxy cannot act on and may not ignore.
    #[error("{at}: {what} is not supported; remove it or run the Envoy data plane")]
    Unsupported {
        /// Field path.
        at: String,
        /// What it is.
        what: &'static str,
    },
    /// A format string that cannot be read.
    #[error("{at}: bad format string at {near:?}: {reason}")]
    Format {
        /// Field path.
        at: String,
        /// The place.
        near: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A header name or value that may not be set or matched.
    #[error("{at}: header {name:?}: {reason}")]
    Header {
        /// Field path.
        at: String,
        /// The header.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Weights of which none is above zero, or that add up to too much.
    #[error("{at}: weights add up to {total}; they must add up to at least 1 and at most 4294967295")]
    Weights {
        /// Field path.
        at: String,
        /// The sum.
        total: u64,
    },
}

impl ConfigError {
    /// A bounded word for metrics.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Missing { .. } => "missing",
            Self::OutOfRange { .. } => "out_of_range",
            Self::Regex { .. } => "regex",
            Self::Address { .. } => "address",
            Self::Domain { .. } => "domain",
            Self::DuplicateDomain { .. } => "duplicate_domain",
            Self::UnknownExtension { .. } => "unknown_extension",
            Self::Unsupported { .. } => "unsupported",
            Self::Format { .. } => "format",
            Self::Header { .. } => "header",
            Self::Weights { .. } => "weights",
        }
    }
}

/// The problems of one resource. At most [`Problems::KEPT`] are kept; the rest is counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems {
    errors: Vec<ConfigError>,
    dropped: usize,
}

impl Problems {
    /// A NACK is read by people: more than this helps nobody, and a hostile resource must not grow it.
    pub const KEPT: usize = 8;

    /// Notes a problem.
    pub fn push(&mut self, error: ConfigError) {
        if self.errors.len() < Self::KEPT {
            self.errors.push(error);
        } else {
            self.dropped += 1;
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// The problems that were kept.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

/// All problems in one line, as a NACK carries them.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        if self.dropped > 0 {
            write!(f, "; and {} more", self.dropped)?;
        }
        Ok(())
    }
}
