//! Patches: JSON patch, merge patch, strategic merge patch.
//!
//! In: an object, a patch and, for the strategic one, the schema with merge keys and strategies. Out: the patched object or the
//! server's error. Never: I/O.

use crate::schema::Schema;
use json_patch::{AddOperation, PatchErrorKind, PatchOperation, ReplaceOperation};
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
    /// The patch does not fit the object: 422 Invalid; the server's message is
    /// `the server rejected our request due to an error in our request`.
    #[error("{0}")]
    Unprocessable(String),
    /// The patch could not be carried out: 500 with no reason.
    #[error("{0}")]
    Failed(String),
}

/// Applies an RFC 6902 patch.
pub fn json(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_array() {
        return Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
            json_kind(patch)
        )));
    }
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Unprocessable(error.to_string()))?;
    let mut patched = object.clone();
    for (index, operation) in operations.0.into_iter().enumerate() {
        // The server sets what it is told to replace, also where there is nothing yet.
        let operation = match operation {
            PatchOperation::Replace(ReplaceOperation { path, value })
                if path
                    .parent()
                    .is_some_and(|parent| parent.resolve(&patched).is_ok_and(Value::is_object)) =>
            {
                PatchOperation::Add(AddOperation { path, value })
            }
            other => other,
        };
        if let Err(error) = json_patch::patch(&mut patched, &[operation]) {
            let name = patch
                .get(index)
                .and_then(|op| op.get("op"))
                .and_then(Value::as_str)
                .unwrap_or_default();
            let path = error.path.as_str();
            return Err(PatchError::Unprocessable(match error.kind {
                PatchErrorKind::TestFailed => format!("testing value {path} failed: test failed"),
                _ if name == "add" => {
                    format!("add operation does not apply: doc is missing path: {path:?}: missing value")
                }
                _ => format!("{name} operation does not apply: doc is missing key: {path}: missing value"),
            }));
        }
    }
    Ok(patched)
}

/// Applies an RFC 7386 merge patch.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(unmarshal_error(patch));
    }
    let mut patched = object.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

/// Applies a strategic merge patch: lists with a merge key are merged, `$patch`, `$retainKeys`, `$setElementOrder/…` and
/// `$deleteFromPrimitiveList/…` are obeyed.
pub fn strategic(schema: &Schema, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(unmarshal_error(patch));
    };
    strategic::merge(schema, object.clone(), patch).map(Value::Object)
}

fn unmarshal_error(patch: &Value) -> PatchError {
    let kind = json_kind(patch);
    PatchError::Malformed(format!(
        "json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
    ))
}

fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    }
}
