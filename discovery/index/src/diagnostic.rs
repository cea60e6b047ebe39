//! What is wrong with an object, in words for its owner.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object, or a part of it, is not acted on.
    Error,
    /// It is acted on, but most likely not as meant.
    Warning,
}

/// One finding about an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word in CamelCase out of a closed set: what kind of finding it is.
    pub code: &'static str,
    /// Where in the object, for instance `spec.http[0].route[1].weight`.
    pub field: String,
    /// What is wrong and what to do, one sentence, lower-case.
    pub message: String,
}

impl Diagnostic {
    pub(crate) fn warning(code: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            code,
            field: field.into(),
            message: message.into(),
        }
    }

    pub(crate) fn error(code: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            field: field.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}
