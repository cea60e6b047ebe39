//! Why an object is refused.

use std::fmt;

use mizzen_model::NameError;

use crate::diagnostic::Diagnostic;

/// An object that cannot be acted on, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The object, as `VirtualService tutorial/customer`.
    pub object: String,
    /// What is wrong, at least one entry, in the order of the object's fields.
    pub errors: Vec<Invalid>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is refused", self.object)?;
        for (index, error) in self.errors.iter().enumerate() {
            write!(f, "{}{error}", if index == 0 { ": " } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejection {}

impl Rejection {
    /// The same as diagnostics.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.errors.iter().map(Invalid::diagnostic).collect()
    }
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Which one, for instance `spec.http[0].route[1].weight`.
    pub field: String,
    /// Why, and what to write instead.
    pub reason: Reason,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl Invalid {
    /// The same as a diagnostic.
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic::error(self.reason.code(), self.field.clone(), self.reason.to_string())
    }
}

/// Why a field is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The object does not have the shape that its kind's schema asks for.
    #[error("{0}")]
    Shape(String),
    /// The schema has no such field.
    #[error("{0}")]
    UnknownField(String),
    /// A name that is none.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A namespace that is none.
    #[error("{text:?} is no namespace ({why}): write the name of one")]
    Namespace {
        /// What was written.
        text: String,
        /// The rule it breaks.
        why: mizzen_identity::NameError,
    },
    /// A trust domain that is none.
    #[error("{text:?} is no trust domain ({why})")]
    TrustDomain {
        /// What was written.
        text: String,
        /// The rule it breaks.
        why: String,
    },
    /// A text that is no duration.
    #[error("{text:?} is not a duration: write a number with a unit, such as 500ms, 1.5s or 1h")]
    Duration {
        /// What was written.
        text: String,
    },
    /// A duration that is too short to mean anything.
    #[error("{text} is too short: write at least 1ms, or leave the field out")]
    TooShort {
        /// What was written.
        text: String,
    },
    /// A port that does not exist.
    #[error("port {number} does not exist: write a number from 1 to 65535")]
    Port {
        /// What was written.
        number: String,
    },
    /// A number outside its range.
    #[error("{number} is out of range: write {range}")]
    Range {
        /// What was written.
        number: String,
        /// What is allowed.
        range: &'static str,
    },
    /// A regular expression that does not compile, or not everywhere to the same.
    #[error("the regular expression cannot be used: {why} (its syntax is RE2's)")]
    Regex {
        /// What the library says, on one line.
        why: String,
    },
    /// Something must be there and is not.
    #[error("missing: {remedy}")]
    Missing {
        /// What to write.
        remedy: &'static str,
    },
    /// Two things that exclude each other.
    #[error("{this} excludes {other}: remove one of them")]
    Excludes {
        /// The one.
        this: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A name that was used before.
    #[error("{name:?} is there twice: {remedy}")]
    Duplicate {
        /// The name.
        name: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A weight below zero.
    #[error("weight {weight} of {destination:?} is negative: write 0 or more")]
    NegativeWeight {
        /// The weight.
        weight: i32,
        /// The destination's host, as it is written.
        destination: String,
    },
    /// Weights that send nothing anywhere.
    #[error("all {count} weights are 0, so no destination gets traffic: give at least one a weight")]
    ZeroWeights {
        /// How many destinations there are.
        count: usize,
    },
    /// Weights whose sum is too large.
    #[error("the weights add up to more than {max}: use smaller ones, only their proportion counts")]
    WeightSum {
        /// The largest sum.
        max: u32,
    },
    /// A text that is none of those known.
    #[error("{text:?} is not known: write {allowed}")]
    Unknown {
        /// What was written.
        text: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// `*` where every sidecar would be meant.
    #[error("host * for every sidecar would swallow all traffic: name hosts, or bind to a gateway only")]
    WildcardAtMesh,
    /// A destination that is no single host.
    #[error("* is no destination: name one service")]
    WildcardDestination,
    /// A server name outside the object's hosts.
    #[error("{sni:?} is not covered by the hosts of this VirtualService: add it to spec.hosts or remove it")]
    SniOutsideHosts {
        /// The server name.
        sni: String,
    },
    /// A label, or label selector, that is none.
    #[error("label {label:?} is no label ({why})")]
    Label {
        /// Key or value.
        label: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A text in CIDR form that is none.
    #[error("{text:?} is no address range: write it like 10.0.0.0/8, or a single address")]
    Subnet {
        /// What was written.
        text: String,
    },
    /// Bytes that are not base64.
    #[error("is not base64: encode the bytes, or use string")]
    Base64,
    /// A text that a proxy refuses, and its whole configuration with it.
    #[error("the text has the control character {character:?}: remove it")]
    ControlCharacter {
        /// The first.
        character: char,
    },
    /// A text that is longer than a proxy takes.
    #[error("the text is longer than {limit} bytes: shorten it")]
    TooLong {
        /// What a proxy takes.
        limit: usize,
    },
    /// A header's value that cannot be sent.
    #[error("the value has control characters: remove them")]
    HeaderValue,
    /// Policies by port without saying whose ports.
    #[error("ports are named per workload: add spec.selector.matchLabels, or set spec.mtls for the whole namespace")]
    PortsWithoutSelector,
    /// A value that only works together with another.
    #[error("{this} needs {needs}")]
    Needs {
        /// What was written.
        this: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Shares that do not add up.
    #[error("the shares add up to {sum}, not 100: change them")]
    Shares {
        /// Their sum.
        sum: u64,
    },
    /// Text that is no YAML, or YAML of another shape.
    #[error("cannot be read: {why}")]
    Yaml {
        /// What the reader says, on one line.
        why: String,
    },
    /// The kind is not one of ours.
    #[error("{kind:?} is not a kind that is validated here")]
    Kind {
        /// `apiVersion` and `kind`.
        kind: String,
    },
}

impl Reason {
    /// A stable word for metrics and conditions, out of a closed set.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Shape(_) => "SchemaMismatch",
            Self::UnknownField(_) => "UnknownField",
            Self::Name(_) => "BadName",
            Self::Namespace { .. } => "BadNamespace",
            Self::TrustDomain { .. } => "BadTrustDomain",
            Self::Duration { .. } | Self::TooShort { .. } => "BadDuration",
            Self::Port { .. } => "BadPort",
            Self::Range { .. } => "OutOfRange",
            Self::Regex { .. } => "BadRegex",
            Self::Missing { .. } => "Missing",
            Self::Excludes { .. } => "MutuallyExclusive",
            Self::Duplicate { .. } => "Duplicate",
            Self::NegativeWeight { .. } | Self::ZeroWeights { .. } | Self::WeightSum { .. } => "BadWeight",
            Self::Unknown { .. } => "UnknownValue",
            Self::WildcardAtMesh | Self::WildcardDestination => "BadWildcard",
            Self::SniOutsideHosts { .. } => "SniOutsideHosts",
            Self::Label { .. } => "BadLabel",
            Self::Subnet { .. } => "BadSubnet",
            Self::Base64 => "BadBase64",
            Self::ControlCharacter { .. } => "BadCharacter",
            Self::TooLong { .. } => "TooLong",
            Self::HeaderValue => "BadHeaderValue",
            Self::PortsWithoutSelector => "PortsWithoutSelector",
            Self::Needs { .. } => "Incomplete",
            Self::Shares { .. } => "BadShares",
            Self::Yaml { .. } => "Unreadable",
            Self::Kind { .. } => "UnknownKind",
        }
    }
}

/// Why an object that is accepted deserves a second look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Caution {
    /// A field that nothing acts on yet.
    #[error("is accepted but not acted on yet")]
    NotActedOn,
    /// A field that has a newer form.
    #[error("is deprecated: write {modern} instead")]
    Deprecated {
        /// The newer form.
        modern: &'static str,
    },
    /// A rule that nothing reaches.
    #[error("is never reached: rule {earlier} before it matches everything; move this one up")]
    Unreachable {
        /// The rule that takes everything, counted from 0.
        earlier: usize,
    },
    /// A value that has no effect.
    #[error("has no effect: {why}")]
    NoEffect {
        /// Why.
        why: &'static str,
    },
}

impl Caution {
    /// A stable word for metrics and conditions, out of a closed set.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotActedOn => "NotActedOn",
            Self::Deprecated { .. } => "DeprecatedField",
            Self::Unreachable { .. } => "UnreachableRule",
            Self::NoEffect { .. } => "NoEffect",
        }
    }
}
