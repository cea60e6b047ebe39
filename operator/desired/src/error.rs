//! Why a spec cannot be acted on: object, field, reason and remedy.

use std::fmt;

/// One thing that is wrong with one field of one object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {problem}")]
pub struct SpecError {
    /// The object, as `Kind namespace/name`.
    pub object: String,
    /// The path of the field.
    pub field: String,
    /// What is wrong with it and what to write instead.
    pub problem: Problem,
}

/// What is wrong with a field, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is no such field, or its value is of another type than the kind's schema says.
    #[error("{0}")]
    Shape(mizzen_crds::schema::Problem),
    /// The schema allows what the type does not.
    #[error("cannot be read: {0}; see `kubectl explain`")]
    Unreadable(String),
    /// There is no such profile.
    #[error("there is no profile `{name}`; use one of {known}")]
    UnknownProfile {
        /// What was written.
        name: String,
        /// What could be written.
        known: String,
    },
    /// A profile leads back to itself.
    #[error("the profiles lead back to themselves: {0}; remove one of them from the circle")]
    ProfileCycle(String),
    /// There is no such version.
    #[error("there is no version `{version}`; use `{newest}` or leave it out")]
    UnknownVersion {
        /// What was written.
        version: String,
        /// The newest.
        newest: &'static str,
    },
    /// The value is not one of a few words.
    #[error("`{value}` is not known; use one of {allowed}")]
    UnknownValue {
        /// What was written.
        value: String,
        /// What could be written.
        allowed: &'static str,
    },
    /// What is asked for no longer exists or is refused.
    #[error("{what}; {remedy}")]
    Refused {
        /// What is refused.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// Not a duration.
    #[error("`{0}` is not a duration; write a number and a unit, such as `10s`, `1.5h` or `1h30m`")]
    NotADuration(String),
    /// Not a port.
    #[error("{0} is not a port; use a number from {1} to 65535")]
    NotAPort(i64, i64),
    /// Not a port list entry.
    #[error("`{0}` is not a port; use a number from 1 to 65535 or `*` alone")]
    NotAPortText(String),
    /// Not an address range.
    #[error("`{0}` is not an address range; write it as 10.0.0.0/8, or `*` for all")]
    NotAnAddressRange(String),
    /// Not a name Kubernetes accepts.
    #[error("`{0}` is not a name; use lower-case letters, digits and `-`, at most 63, a letter or digit at both ends")]
    NotAName(String),
    /// Not a trust domain.
    #[error("`{0}` is not a trust domain; use lower-case letters, digits, `.`, `-` and `_`")]
    NotATrustDomain(String),
    /// Not an image registry.
    #[error("`{0}` is not a registry or path of images; write it as example.com/path, with no slash at the end")]
    NotARegistry(String),
    /// Not an image's tag.
    #[error(
        "`{0}` is not a tag of an image; use letters, digits, `.`, `-` and `_`, or sha256: and 64 hexadecimal digits"
    )]
    NotATag(String),
    /// Not an amount of a resource.
    #[error("`{0}` is not an amount; write a number with or without a unit, such as 100m for CPU or 64Mi for memory")]
    NotAQuantity(String),
    /// Out of range.
    #[error("{value} is out of range; use {min} to {max}")]
    OutOfRange {
        /// What was written.
        value: i64,
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// Something else in the same object excludes it.
    #[error("cannot be said together with {other}; remove one of the two")]
    Excludes {
        /// The other field.
        other: &'static str,
    },
    /// It needs something else in the same object.
    #[error("needs {other}; add it or remove this")]
    Needs {
        /// The other field and value.
        other: &'static str,
    },
    /// The same value twice.
    #[error("`{0}` is there twice; remove one")]
    Duplicate(String),
    /// The name is taken.
    #[error("the name `{0}` belongs to the default gateways; choose another")]
    ReservedName(String),
    /// Not exactly one kind of provider.
    #[error("provider `{name}` has {kinds} kinds; give it exactly one")]
    NotOneProvider {
        /// The provider.
        name: String,
        /// How many kinds it has.
        kinds: usize,
    },
    /// A label selector that no API accepts.
    #[error("is not a label selector: {0}; use matchLabels, or matchExpressions with In, NotIn, Exists, DoesNotExist")]
    BadSelector(String),
    /// The object must have one certain name.
    #[error("must be named `default`, not `{0}`; create it anew under that name")]
    WrongName(String),
    /// The namespace is not for this.
    #[error("namespace `{namespace}` {why}; choose another")]
    WrongNamespace {
        /// The namespace.
        namespace: String,
        /// Why not.
        why: &'static str,
    },
    /// Another object excludes this one.
    #[error("{other} is there already: {why}; remove one of the two")]
    Conflict {
        /// The other object.
        other: String,
        /// Why both cannot be.
        why: &'static str,
    },
    /// The field cannot change.
    #[error("cannot be changed from `{0}`; delete the object and create it anew")]
    Immutable(String),
}

impl Problem {
    /// One word for metrics and events, from a closed set.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Shape(problem) if problem.is_unknown_field() => "unknown_field",
            Self::Shape(_) | Self::Unreadable(_) => "wrong_shape",
            Self::UnknownProfile { .. } | Self::ProfileCycle(_) => "profile",
            Self::UnknownVersion { .. } => "version",
            Self::Conflict { .. } => "conflict",
            Self::Immutable(_) => "immutable",
            Self::WrongName(_) | Self::WrongNamespace { .. } => "place",
            _ => "value",
        }
    }
}

/// Everything that is wrong with an object; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecErrors(Vec<SpecError>);

impl SpecErrors {
    /// The errors.
    #[must_use]
    pub fn errors(&self) -> &[SpecError] {
        &self.0
    }

    /// `Err` if there are any errors.
    pub(crate) fn unless_empty(errors: Vec<SpecError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }
}

impl From<SpecError> for SpecErrors {
    fn from(error: SpecError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}

/// Collects errors about one object.
pub(crate) struct Collector {
    object: String,
    errors: Vec<SpecError>,
}

impl Collector {
    pub(crate) fn new(kind: &str, namespace: &str, name: &str) -> Self {
        let object = if namespace.is_empty() {
            format!("{kind} {name}")
        } else {
            format!("{kind} {namespace}/{name}")
        };
        Self {
            object,
            errors: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, field: impl Into<String>, problem: Problem) {
        self.errors.push(SpecError {
            object: self.object.clone(),
            field: field.into(),
            problem,
        });
    }

    /// A last error after which nothing more can be checked.
    pub(crate) fn fail(mut self, field: &str, problem: Problem) -> SpecErrors {
        self.add(field, problem);
        SpecErrors(self.errors)
    }

    /// Notes the error, if it is one.
    pub(crate) fn check<T>(&mut self, field: impl Into<String>, result: Result<T, Problem>) {
        if let Err(problem) = result {
            self.add(field, problem);
        }
    }

    pub(crate) fn into_errors(self) -> Vec<SpecError> {
        self.errors
    }

    /// What is needed to go on.
    pub(crate) fn unless_missing<T>(&self, read: Option<T>) -> Result<T, SpecErrors> {
        read.ok_or_else(|| SpecErrors(self.errors.clone()))
    }

    /// What was read, if nothing is wrong.
    pub(crate) fn finish_with<T>(self, read: Option<T>) -> Result<T, SpecErrors> {
        match read {
            Some(read) if self.errors.is_empty() => Ok(read),
            _ => Err(SpecErrors(self.errors)),
        }
    }

    pub(crate) fn finish(self) -> Result<(), SpecErrors> {
        SpecErrors::unless_empty(self.errors)
    }
}
