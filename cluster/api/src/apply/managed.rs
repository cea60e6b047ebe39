//! `metadata.managedFields`: who owns what, since when.

use super::Writer;
use super::set::{Element, FieldSet};
use serde_json::{Map, Value, json};

/// How fields were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What makes a manager: the same name by another operation, subresource or (for updates) version is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    operation: Operation,
    manager: String,
    api_version: String,
    subresource: String,
}

impl Entry {
    pub(super) fn new(operation: Operation, writer: Writer<'_>) -> Self {
        Self {
            operation,
            manager: writer.manager.to_owned(),
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
        }
    }

    fn is_same(&self, other: &Entry) -> bool {
        let version = self.operation == Operation::Apply || self.api_version == other.api_version;
        version
            && self.operation == other.operation
            && self.manager == other.manager
            && self.subresource == other.subresource
    }

    /// As conflicts name it.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// All managers of an object.
#[derive(Debug, Clone, Default)]
pub(super) struct Managers {
    entries: Vec<(Entry, FieldSet, String)>,
}

impl Managers {
    /// From a `managedFields` list; what is no entry is left out.
    pub(super) fn decode(fields: Option<Value>) -> Self {
        let Some(Value::Array(list)) = fields else {
            return Self::default();
        };
        let text = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let entries = list.iter().filter_map(|raw| {
            let operation = match raw.get("operation").and_then(Value::as_str)? {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            let entry = Entry {
                operation,
                manager: text(raw, "manager"),
                api_version: text(raw, "apiVersion"),
                subresource: text(raw, "subresource"),
            };
            Some((entry, FieldSet::decode(raw.get("fieldsV1")?), text(raw, "time")))
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// As a `managedFields` list, in the server's order.
    pub(super) fn encode(mut self) -> Value {
        self.entries.sort_by(|(a, _, a_time), (b, _, b_time)| {
            let key = |e: &Entry| (e.manager.clone(), e.api_version.clone(), e.subresource.clone());
            (a.operation, a_time)
                .cmp(&(b.operation, b_time))
                .then_with(|| key(a).cmp(&key(b)))
        });
        let encode = |(entry, set, time): (Entry, FieldSet, String)| {
            let mut raw = json!({
                "apiVersion": entry.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": set.encode(),
                "manager": entry.manager,
                "operation": if entry.operation == Operation::Apply { "Apply" } else { "Update" },
            });
            if let Value::Object(raw) = &mut raw {
                if !entry.subresource.is_empty() {
                    raw.insert("subresource".into(), entry.subresource.into());
                }
                if !time.is_empty() {
                    raw.insert("time".into(), time.into());
                }
            }
            raw
        };
        Value::Array(self.entries.into_iter().map(encode).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn set(&self, entry: &Entry) -> Option<&FieldSet> {
        self.entries
            .iter()
            .find(|(own, ..)| own.is_same(entry))
            .map(|(_, set, _)| set)
    }

    /// When a manager last wrote; empty where that is not known.
    pub(super) fn time(&self, entry: &Entry) -> &str {
        let own = self.entries.iter().find(|(own, ..)| own.is_same(entry));
        own.map_or("", |(_, _, time)| time)
    }

    pub(super) fn set_time(&mut self, entry: &Entry, to: String) {
        if let Some((_, _, time)) = self.entries.iter_mut().find(|(own, ..)| own.is_same(entry)) {
            *time = to;
        }
    }

    /// Sets what a manager owns, as of now.
    pub(super) fn insert(&mut self, entry: Entry, set: FieldSet, now: &str) {
        self.entries.retain(|(own, ..)| !own.is_same(&entry));
        if !set.is_empty() {
            self.entries.push((entry, set, now.to_owned()));
        }
    }

    /// Sets what a manager owns and leaves its time.
    pub(super) fn replace(&mut self, entry: &Entry, set: FieldSet) {
        if let Some((_, own, _)) = self.entries.iter_mut().find(|(own, ..)| own.is_same(entry)) {
            *own = set;
        }
        self.entries.retain(|(_, set, _)| !set.is_empty());
    }

    /// The other managers that own any of these fields.
    pub(super) fn owners_of(&self, fields: &FieldSet, except: &Entry) -> Vec<(Entry, FieldSet)> {
        let others = self.entries.iter().filter(|(entry, ..)| !entry.is_same(except));
        others
            .map(|(entry, set, _)| (entry.clone(), set.intersection(fields)))
            .filter(|(_, set)| !set.is_empty())
            .collect()
    }

    /// Takes fields away from all managers but one.
    pub(super) fn take_away(&mut self, fields: &FieldSet, except: &Entry) {
        for (entry, set, _) in &mut self.entries {
            if !entry.is_same(except) {
                *set = set.difference(fields);
            }
        }
        self.entries.retain(|(_, set, _)| !set.is_empty());
    }

    /// What anybody owns.
    pub(super) fn all(&self) -> FieldSet {
        self.entries
            .iter()
            .fold(FieldSet::default(), |all, (_, set, _)| all.union(set))
    }

    /// Removes the fields that nobody can own.
    pub(super) fn strip(&mut self) {
        for (_, set, _) in &mut self.entries {
            strip(set);
        }
        self.entries.retain(|(_, set, _)| !set.is_empty());
    }

    /// At most ten managers by update and version: the oldest become one, `ancient-changes`.
    pub(super) fn cap(&mut self, writer: Writer<'_>) {
        const MOST: usize = 10;
        let is_update = |(entry, ..): &&(Entry, FieldSet, String)| entry.operation == Operation::Update;
        let mut times: Vec<String> = self
            .entries
            .iter()
            .filter(is_update)
            .map(|(_, _, time)| time.clone())
            .collect();
        if times.len() <= MOST {
            return;
        }
        times.sort();
        let limit = times.get(times.len() - MOST).cloned().unwrap_or_default();
        let (old, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|(entry, _, time)| entry.operation == Operation::Update && *time <= limit);
        self.entries = kept;
        let mut latest = String::new();
        let mut ancient = FieldSet::default();
        for (entry, set, time) in old {
            if time == limit && entry.manager == writer.manager {
                self.entries.push((entry, set, time));
                continue;
            }
            ancient = ancient.union(&set);
            latest = latest.max(time);
        }
        let entry = Entry::new(
            Operation::Update,
            Writer {
                manager: "ancient-changes",
                subresource: "",
                ..writer
            },
        );
        self.insert(entry, ancient, &latest);
    }
}

/// Removes what the server sets itself from a set.
pub(super) fn strip(set: &mut FieldSet) {
    let mut nobody = FieldSet::default();
    for name in ["apiVersion", "kind", "metadata"] {
        nobody.insert(Element::field(name));
    }
    let mut meta = FieldSet::default();
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        meta.insert(Element::field(name));
    }
    nobody.adopt(Element::field("metadata"), meta);
    *set = set.difference(&nobody);
}

/// Takes `metadata.managedFields` out of an object.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Puts `metadata.managedFields` into an object, unless they are empty.
pub(super) fn put(object: &mut Value, fields: Value) {
    let Value::Object(root) = object else { return };
    if fields.as_array().is_some_and(|list| !list.is_empty())
        && let Value::Object(meta) = root.entry("metadata").or_insert_with(|| Value::Object(Map::new()))
    {
        meta.insert("managedFields".to_owned(), fields);
    }
}

/// Whether a client asks to forget all managers: `[{}]`.
pub(super) fn is_reset(fields: &Value) -> bool {
    let list = fields.as_array().map(Vec::as_slice).unwrap_or_default();
    !list.is_empty()
        && list
            .iter()
            .all(|entry| entry.get("operation").and_then(Value::as_str).is_none_or(str::is_empty))
}

/// The `managedFields` of an object.
pub(super) fn of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

/// Whether two lists say the same, but for times and order.
pub(super) fn differ_in_times(a: &Value, b: &Value) -> bool {
    let count = |fields: &Value| fields.as_array().map_or(0, Vec::len);
    count(a) == count(b) && without_times(Some(a)) == without_times(Some(b))
}

/// A list to compare with another: times do not count.
pub(super) fn without_times(fields: Option<&Value>) -> Vec<Value> {
    let list = fields.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut list: Vec<Value> = list
        .into_iter()
        .map(|mut entry| {
            if let Value::Object(map) = &mut entry {
                map.remove("time");
            }
            entry
        })
        .collect();
    list.sort_by_key(ToString::to_string);
    list
}
