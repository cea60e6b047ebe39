//! Patches: JSON patch, merge patch, strategic merge patch.
//!
//! In: an object, a patch and, for the strategic one, the schema with merge keys and strategies. Out: the patched object or the
//! server's error. Never: I/O.

use crate::schema::Schema;
use json_patch::PatchErrorKind;
use serde_json::Value;

mod strategic;
#[cfg(test)]
mod tests;

/// Why a patch could not be applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatchError {
    /// The patch itself is malformed: 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object: 422 Invalid.
    #[error("{0}")]
    Unprocessable(String),
}

/// Applies an RFC 6902 patch.
pub fn json(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_array() {
        let kind = match patch {
            Value::Object(_) => "object",
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
            _ => "null",
        };
        return Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch"
        )));
    }
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let mut patched = object.clone();
    match json_patch::patch(&mut patched, &operations) {
        Ok(()) => Ok(patched),
        Err(error) => {
            let name = patch
                .get(error.operation)
                .and_then(|op| op.get("op"))
                .and_then(Value::as_str)
                .unwrap_or_default();
            let path = error.path.as_str();
            let word = if name == "test" { "testing value" } else { name };
            Err(PatchError::Unprocessable(match error.kind {
                PatchErrorKind::TestFailed => format!("testing value {path} failed: test failed"),
                PatchErrorKind::InvalidFromPointer => {
                    format!("{name} operation does not apply: doc is missing from path: {path}: missing value")
                }
                _ if name == "test" => format!("{word} {path} failed: test failed"),
                _ if name == "add" => {
                    format!("{name} operation does not apply: doc is missing path: \"{path}\": missing value")
                }
                _ => format!("{name} operation does not apply: doc is missing key: {path}: missing value"),
            }))
        }
    }
}

/// Applies an RFC 7386 merge patch.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("Invalid JSON Patch".to_owned()));
    }
    let mut patched = object.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

/// Applies a strategic merge patch: lists with a merge key are merged, `$patch`, `$retainKeys`, `$setElementOrder/…` and
/// `$deleteFromPrimitiveList/…` are obeyed.
pub fn strategic(schema: &Schema, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(PatchError::Malformed("the patch is no JSON object".to_owned()));
    };
    strategic::merge(schema, object.clone(), patch).map(Value::Object)
}
