//! Server-side apply: field sets, owners, conflicts.
//!
//! In: the live object with its `managedFields`, what a manager applied or wrote, a schema, a time. Out: the new object with new
//! `managedFields`, or the conflicts. Never: a clock, I/O.

use crate::schema::Schema;
use serde_json::Value;

/// Who writes, and when: what goes into a `managedFields` entry.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager.
    pub manager: &'a str,
    /// The version that was written, such as `apps/v1`.
    pub api_version: &'a str,
    /// The subresource written to, empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339, UTC, seconds.
    pub now: &'a str,
}

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The other owner as the message shows it: `"kubectl" using apps/v1` or `"x" with subresource "status" using apps/v1`.
    pub owner: String,
    /// The path: `.spec.replicas`.
    pub field: String,
}

/// Why an apply was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApplyError {
    /// 409: others own fields with other values; `force` takes them over.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// 400 or 422: the configuration cannot be applied.
    #[error("{0}")]
    Invalid(String),
}

/// `Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas`.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    let _ = conflicts;
    todo!()
}

/// Applies `config` to `live` (`None`: the object is created). The result carries `managedFields`; it equals `live` where nothing
/// changed (then the caller writes nothing).
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let _ = (schema, live, config, writer, force);
    todo!()
}

/// Records in `new.metadata.managedFields` what an update, a patch or a create changed. An empty list in `new` (`[{}]` or `[]`)
/// resets them, as the server has it.
pub fn track_update(schema: &Schema, live: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let _ = (schema, live, new, writer);
    todo!()
}
