//! Why something was not done, and what to do: the form that every failure has for the user.

use serde::Serialize;
use std::fmt;

/// Why a step failed, and what to do.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Failure {
    /// What did not happen.
    pub(crate) what: String,
    /// Why, as far as it is known.
    pub(crate) why: Vec<String>,
    /// The last lines of the log of whatever failed.
    pub(crate) log: Vec<String>,
    /// What to do.
    pub(crate) remedy: String,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: vec![why.into()],
            log: Vec::new(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why.join("; "), self.remedy)
    }
}

impl std::error::Error for Failure {}
