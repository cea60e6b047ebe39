//! Patches: JSON patch, merge patch, strategic merge patch.
//!
//! In: an object, a patch and, for the strategic one, the schema with merge keys and strategies. Out: the patched object or the
//! server's error. Never: I/O.

use crate::schema::Schema;
use serde_json::Value;

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
    let _ = (object, patch);
    todo!()
}

/// Applies an RFC 7386 merge patch.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let _ = (object, patch);
    todo!()
}

/// Applies a strategic merge patch: lists with a merge key are merged, `$patch`, `$retainKeys`, `$setElementOrder/…` and
/// `$deleteFromPrimitiveList/…` are obeyed.
pub fn strategic(schema: &Schema, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let _ = (schema, object, patch);
    todo!()
}
