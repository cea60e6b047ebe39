//! Server-side apply: field sets, owners, conflicts.
//!
//! In: the live object with its `managedFields`, what a manager applied or wrote, a schema, a time. Out: the new object with new
//! `managedFields`, or the conflicts. Never: a clock, I/O.
//!
//! The rules are those of Kubernetes' structured-merge-diff. All versions of a kind are taken to have one shape: a field set
//! written with one version holds for the others.

use crate::schema::Schema;
use serde_json::{Map, Value};

mod managed;
mod set;
#[cfg(test)]
mod tests;
mod walk;

use managed::{Entry, Managers, Operation};
use set::FieldSet;

/// The annotation of client-side apply.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The other owner as the message shows it: `"kubectl" using apps/v1` or `"x" with subresource "status" using apps/v1`.
    pub owner: String,
    /// The path: `.spec.replicas`.
    pub field: String,
}

/// Why an apply was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApplyError {
    /// 409: others own fields with other values; `force` takes them over. One status cause `FieldManagerConflict` each.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration does not fit the schema; the words after `failed to create typed patch object (NAMESPACE/NAME;
    /// VERSION, Kind=KIND): `. The server answers 500 with no reason.
    #[error("{0}")]
    Invalid(String),
}

/// `Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas`.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.owner, one.field
        );
    }
    let mut lines = Vec::new();
    let mut owner = "";
    for conflict in conflicts {
        if conflict.owner != owner {
            owner = &conflict.owner;
            lines.push(format!("conflicts with {owner}:"));
        }
        lines.push(format!("- {}", conflict.field));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Applies `config` to `live` (`None`: the object is created). What the endpoint does not write, such as `status` in the object
/// itself, is not in `config`. The result carries `managedFields`; it equals `live` where nothing changed (then the caller writes
/// nothing). Defaults and admission come after.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    walk::check(schema, config).map_err(ApplyError::Invalid)?;
    let empty = Value::Object(Map::new());
    let original = live.unwrap_or(&empty);
    let mut live_object = original.clone();
    let mut managers = Managers::decode(managed::take(&mut live_object));
    let mut config = config.clone();
    managed::take(&mut config);
    if managers.is_empty() && live.is_some() {
        // What was there before the first apply belongs to somebody.
        let before = Writer {
            manager: "before-first-apply",
            ..writer
        };
        update(schema, &empty, &live_object, &mut managers, before);
    }
    let unchanged = managers.clone();
    let mut result = merge_in(schema, &live_object, &config, &mut managers, writer, force);
    if let (Err(conflicts), "kubectl") = (&result, writer.manager) {
        // Client-side apply of the same tool gives way to server-side apply.
        let allowed = last_applied(&live_object)
            .map(|last| walk::field_set(schema, &last))
            .unwrap_or_default();
        let left: Vec<(Entry, FieldSet)> = conflicts
            .iter()
            .map(|(entry, set)| (entry.clone(), set.difference(&allowed)))
            .filter(|(_, set)| !set.is_empty())
            .collect();
        if left.is_empty() {
            managers = unchanged;
            result = merge_in(schema, &live_object, &config, &mut managers, writer, true);
        } else {
            result = Err(left);
        }
    }
    let mut object = result.map_err(|conflicts| {
        let mut all: Vec<Conflict> = conflicts
            .iter()
            .flat_map(|(entry, set)| {
                set.paths().into_iter().map(|field| Conflict {
                    owner: entry.describe(),
                    field,
                })
            })
            .collect();
        all.sort_by(|a, b| a.owner.cmp(&b.owner));
        ApplyError::Conflicts(all)
    })?;
    managers.strip();
    // An empty `labels: {}` is owned, but not stored.
    schema.prune(&mut object);
    object = finish(original, object, managers);
    if writer.manager == "kubectl" {
        // Only the annotation: that is no write of the manager.
        update_last_applied(&mut object, &config);
    }
    Ok(object)
}

/// Merges a configuration into the live object, removes what the manager applied before and no longer does, and moves ownership.
fn merge_in(
    schema: &Schema,
    live: &Value,
    config: &Value,
    managers: &mut Managers,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Vec<(Entry, FieldSet)>> {
    let entry = Entry::new(Operation::Apply, writer);
    let merged = walk::merge(schema, live, config);
    let last = managers.set(&entry).cloned();
    let since = managers.time(&entry).to_owned();
    managers.insert(entry.clone(), walk::field_set(schema, config), writer.now);
    let object = match last.filter(|set| !set.is_empty()) {
        Some(last) => prune(schema, &merged, managers, &last),
        None => merged,
    };
    let comparison = walk::compare(schema, live, &object);
    let changed = comparison.modified.union(&comparison.added);
    let conflicts = managers.owners_of(&changed, &entry);
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    managers.take_away(&changed.union(&comparison.removed), &entry);
    if object == *live {
        // Who changes nothing has not written.
        managers.set_time(&entry, since);
    }
    Ok(object)
}

/// Removes what `last` had and nobody owns now.
fn prune(schema: &Schema, merged: &Value, managers: &Managers, last: &FieldSet) -> Value {
    let last = last.with_named_fields(schema);
    let pruned = walk::remove(schema, merged, &last).unwrap_or_else(|| Value::Object(Map::new()));
    let all = walk::field_set(schema, merged).with_named_fields(schema);
    // What other owners hold comes back, with what is above it.
    let kept = walk::field_set(schema, &pruned)
        .with_named_fields(schema)
        .union(&managers.all().with_named_fields(schema));
    let pruned = walk::remove(schema, merged, &all.difference(&kept)).unwrap_or_else(|| Value::Object(Map::new()));
    // So does what nobody ever owned.
    let kept = walk::field_set(schema, &pruned).with_named_fields(schema);
    let gone = all.difference(&kept).intersection(&last);
    walk::remove(schema, merged, &gone).unwrap_or_else(|| Value::Object(Map::new()))
}

/// Records in `new.metadata.managedFields` what an update, a patch or a create changed. `[{}]` in `new` resets them, as the
/// server has it; where only times would differ, those of `live` stay.
pub fn track_update(schema: &Schema, live: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let empty = Value::Object(Map::new());
    let original = live.unwrap_or(&empty);
    let new_fields = managed::take(new);
    let is_reset = new_fields.as_ref().is_some_and(managed::is_reset);
    let mut managers = match new_fields {
        Some(_) if is_reset => Managers::default(),
        Some(fields) if writer.subresource.is_empty() => Managers::decode(Some(fields)),
        _ => Managers::default(),
    };
    if managers.is_empty() && !is_reset {
        managers = Managers::decode(managed::of(original).cloned());
    }
    // An object whose fields nobody tracks stays so.
    if !managers.is_empty() || live.is_none() {
        update(schema, original, new, &mut managers, writer);
    }
    managers.strip();
    *new = finish(original, std::mem::take(new), managers);
}

/// Gives a manager what it changed and takes that away from the others.
fn update(schema: &Schema, live: &Value, new: &Value, managers: &mut Managers, writer: Writer<'_>) {
    let entry = Entry::new(Operation::Update, writer);
    let comparison = walk::compare(schema, live, new);
    let changed = comparison.modified.union(&comparison.added);
    managers.take_away(&changed.union(&comparison.removed), &entry);
    let own = managers
        .set(&entry)
        .cloned()
        .unwrap_or_default()
        .difference(&comparison.removed);
    let mut taken = changed;
    managed::strip(&mut taken);
    if taken.is_empty() {
        managers.replace(&entry, own);
    } else {
        managers.insert(entry, own.union(&taken), writer.now);
    }
    managers.cap(writer);
}

/// Puts `managedFields` in; where nothing but times has changed the object is the live one.
fn finish(live: &Value, mut object: Value, managers: Managers) -> Value {
    let fields = managers.encode();
    let fields = match managed::of(live) {
        Some(own) if same_content(live, &object) && managed::differ_in_times(own, &fields) => own.clone(),
        _ => fields,
    };
    managed::put(&mut object, fields);
    object
}

/// Whether two objects differ at most in the resource version and `managedFields`.
fn same_content(a: &Value, b: &Value) -> bool {
    let same = |a: &Map<String, Value>, b: &Map<String, Value>, except: &[&str]| {
        let counts = |name: &&String| !except.contains(&name.as_str());
        let names = a.keys().filter(counts).count() == b.keys().filter(counts).count();
        names && a.keys().filter(counts).all(|name| a.get(name) == b.get(name))
    };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let none = Map::new();
            let [own, other] = [a, b].map(|object| object.get("metadata").and_then(Value::as_object).unwrap_or(&none));
            same(a, b, &["metadata"]) && same(own, other, &["managedFields", "resourceVersion"])
        }
        _ => a == b,
    }
}

fn last_applied(object: &Value) -> Option<Value> {
    let text = object
        .get("metadata")?
        .get("annotations")?
        .get(LAST_APPLIED)?
        .as_str()?;
    serde_json::from_str(text).ok()
}

/// Keeps the annotation of client-side apply, where there is one, in step with what was applied.
fn update_last_applied(object: &mut Value, config: &Value) {
    let annotations = object.get_mut("metadata").and_then(|meta| meta.get_mut("annotations"));
    let Some(annotations) = annotations.and_then(Value::as_object_mut) else {
        return;
    };
    if annotations
        .get(LAST_APPLIED)
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        return;
    }
    let mut config = config.clone();
    if let Some(own) = config
        .get_mut("metadata")
        .and_then(|meta| meta.get_mut("annotations"))
        .and_then(Value::as_object_mut)
    {
        own.remove(LAST_APPLIED);
    }
    // The server's own limit of an object's annotations.
    const LIMIT: usize = 262_144;
    let text = config.to_string() + "\n";
    if text.len() > LIMIT {
        annotations.insert(LAST_APPLIED.to_owned(), Value::String(String::new()));
    } else {
        annotations.insert(LAST_APPLIED.to_owned(), Value::String(text));
    }
}
