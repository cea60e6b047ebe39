//! Label and field selectors.
//!
//! In: the text of a query parameter or a `LabelSelector` object. Out: a selector that matches labels or fields, or the server's
//! error. Never: I/O.

use serde_json::{Map, Value};

/// A text that is no selector; the message is the server's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// What labels must be like; the default matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {}

impl LabelSelector {
    /// Parses `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        todo!()
    }

    /// From a `metav1.LabelSelector`; empty matches everything (what `null` means is the caller's).
    pub fn from_object(object: &Value) -> Result<Self, SelectorError> {
        let _ = object;
        todo!()
    }

    /// Whether an object's labels match; no labels are an empty map.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let _ = labels;
        todo!()
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}

/// What fields must be equal or unequal to; the default matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {}

impl FieldSelector {
    /// Parses `metadata.name=x,status.phase!=Running`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        todo!()
    }

    /// Refuses a field that the resource does not offer. `extra` are the selectable fields of a custom resource, such as
    /// `spec.color`; those of built-in kinds are known here.
    pub fn check(&self, group: &str, resource: &str, kind: &str, extra: &[&str]) -> Result<(), SelectorError> {
        let _ = (group, resource, kind, extra);
        todo!()
    }

    /// Whether an object matches.
    pub fn matches(&self, object: &Value) -> bool {
        let _ = object;
        todo!()
    }

    /// The name that `metadata.name=…` asks for: a list of at most one object.
    pub fn name(&self) -> Option<&str> {
        todo!()
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}
