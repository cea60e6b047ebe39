//! What a CustomResourceDefinition must be: defaults, validation, accepted names.

use super::FieldError;
use serde_json::Value;

/// Fills in what the server does: `spec.names.singular` and `listKind`, `spec.conversion`, `spec.scope` is left alone.
pub fn set_defaults(crd: &mut Value) {
    let _ = crd;
    todo!()
}

/// What is wrong with a definition; `old` on update.
pub fn validate(crd: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let _ = (crd, old);
    todo!()
}

/// Sets `status.acceptedNames`, `storedVersions` and the conditions `NamesAccepted` and `Established` (and
/// `NonStructuralSchema` where it applies); `others` are the other definitions of the group, whose names may conflict.
/// `now` is RFC 3339.
pub fn set_status(crd: &mut Value, others: &[&Value], now: &str) {
    let _ = (crd, others, now);
    todo!()
}

/// Whether the condition `Established` is true.
pub fn is_established(crd: &Value) -> bool {
    let _ = crd;
    todo!()
}
