//! Which names a definition gets, and its conditions.

use super::{flag, list, text};
use serde_json::{Map, Value, json};

/// Sets `status.acceptedNames`, `storedVersions` and the conditions `NamesAccepted` and `Established`; `others` are the other
/// definitions of the group, whose names may conflict. `now` is RFC 3339.
pub fn set_status(crd: &mut Value, others: &[&Value], now: &str) {
    let names = crd.pointer("/spec/names").cloned().unwrap_or_default();
    let conflict = name_conflict(crd, &names, others);
    let was_established = is_established(crd);
    let stored: Vec<Value> = list(crd.pointer("/spec/versions"))
        .iter()
        .filter(|version| flag(version, "storage"))
        .filter_map(|version| version.get("name").cloned())
        .collect();
    let Some(root) = crd.as_object_mut() else { return };
    let status = root.entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else { return };
    if let Some(versions) = status
        .entry("storedVersions")
        .or_insert_with(|| json!([]))
        .as_array_mut()
    {
        for version in stored {
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
    }
    match conflict {
        None => {
            status.insert("acceptedNames".into(), names);
            set_condition(status, "NamesAccepted", true, "NoConflicts", "no conflicts found", now);
            if !was_established {
                let message = "the initial names have been accepted";
                set_condition(status, "Established", true, "InitialNamesAccepted", message, now);
            }
        }
        Some((reason, message)) => {
            status
                .entry("acceptedNames")
                .or_insert_with(|| json!({"kind": "", "plural": ""}));
            set_condition(status, "NamesAccepted", false, reason, &message, now);
            if !was_established {
                set_condition(
                    status,
                    "Established",
                    false,
                    "NotAccepted",
                    "not all names are accepted",
                    now,
                );
            }
        }
    }
}

fn name_conflict(crd: &Value, names: &Value, others: &[&Value]) -> Option<(&'static str, String)> {
    let resources = |accepted: &Value| -> Vec<String> {
        let own = ["plural", "singular"]
            .iter()
            .map(|field| text(accepted.get(*field)).to_owned());
        own.chain(
            list(accepted.get("shortNames"))
                .iter()
                .map(|v| text(Some(v)).to_owned()),
        )
        .filter(|n| !n.is_empty())
        .collect()
    };
    let others: Vec<&Value> = others
        .iter()
        .filter(|other| other.pointer("/metadata/name") != crd.pointer("/metadata/name"))
        .filter(|other| other.pointer("/spec/group") == crd.pointer("/spec/group"))
        .filter_map(|other| other.pointer("/status/acceptedNames"))
        .collect();
    let taken: Vec<String> = others.iter().flat_map(|accepted| resources(accepted)).collect();
    let kinds: Vec<&str> = others
        .iter()
        .flat_map(|accepted| ["kind", "listKind"].map(|field| text(accepted.get(field))))
        .collect();
    let in_use = |name: &str| format!("{name:?} is already in use");
    for (field, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
        let name = text(names.get(field));
        if taken.iter().any(|other| other == name) {
            return Some((reason, in_use(name)));
        }
    }
    for short in list(names.get("shortNames")).iter().map(|v| text(Some(v))) {
        if taken.iter().any(|other| other == short) {
            return Some(("ShortNamesConflict", in_use(short)));
        }
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        let name = text(names.get(field));
        if !name.is_empty() && kinds.contains(&name) {
            return Some((reason, in_use(name)));
        }
    }
    None
}

fn set_condition(status: &mut Map<String, Value>, kind: &str, is_true: bool, reason: &str, message: &str, now: &str) {
    let value = if is_true { "True" } else { "False" };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let mut condition =
        json!({"lastTransitionTime": now, "message": message, "reason": reason, "status": value, "type": kind});
    match conditions
        .iter_mut()
        .find(|condition| text(condition.get("type")) == kind)
    {
        Some(existing) => {
            if text(existing.get("status")) == value
                && let (Some(since), Some(map)) = (existing.get("lastTransitionTime"), condition.as_object_mut())
            {
                map.insert("lastTransitionTime".into(), since.clone());
            }
            *existing = condition;
        }
        None => conditions.push(condition),
    }
}

/// Whether the condition `Established` is true.
pub fn is_established(crd: &Value) -> bool {
    list(crd.pointer("/status/conditions"))
        .iter()
        .any(|condition| text(condition.get("type")) == "Established" && text(condition.get("status")) == "True")
}
