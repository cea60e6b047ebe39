//! What is different between an object that should exist and the one that does.
//!
//! The API server fills in defaults, and status and bundles are written by others; so an object is right when everything
//! that was asked for is there ([`matches()`]) and nobody else set anything beside it ([`foreign`]).

use crate::{FIELD_MANAGER, labels};
use serde_json::Value;

/// What others may set in an object of the operator's. Everything in `metadata` of the object itself is theirs too.
const ALLOWED: &[(&str, &str)] = &[
    // istiod keeps the bundle of its own webhooks.
    ("MutatingWebhookConfiguration", "caBundle"),
    ("ValidatingWebhookConfiguration", "caBundle"),
    // `kubectl rollout restart`: a wish to restart, not a change.
    ("Deployment", "kubectl.kubernetes.io/restartedAt"),
];

/// Whether `live` has everything that `desired` asks for.
#[must_use]
pub fn matches(desired: &Value, live: &Value) -> bool {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => desired.iter().all(|(key, want)| match live.get(key) {
            Some(have) => matches(want, have),
            None => empty(want),
        }),
        (Value::Array(desired), Value::Array(live)) => {
            desired.len() == live.len() && desired.iter().zip(live).all(|(want, have)| matches(want, have))
        }
        (Value::String(want), Value::String(have)) => want == have || same_quantity(want, have),
        (want, have) => want == have || (empty(want) && empty(have)),
    }
}

/// Whether the operator ever applied `live`: only then may it be changed or deleted.
#[must_use]
pub fn is_ours(live: &Value) -> bool {
    let by_annotation = live
        .pointer("/metadata/annotations")
        .is_some_and(|a| a.get(labels::APPLIED).is_some());
    by_annotation || managers(live).any(|entry| entry.get("manager").and_then(Value::as_str) == Some(FIELD_MANAGER))
}

/// JSON pointers into `live` to what others set and `desired` does not have, in an order in which they can be removed.
#[must_use]
pub fn foreign(desired: &Value, live: &Value) -> Vec<String> {
    let kind = live.get("kind").and_then(Value::as_str).unwrap_or_default();
    let mut found: Vec<Vec<Step>> = Vec::new();
    for entry in managers(live) {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        // A subresource is another's by design: status, and scale by an autoscaler.
        if text("manager") == FIELD_MANAGER || !text("subresource").is_empty() {
            continue;
        }
        let Some(fields) = entry.get("fieldsV1").and_then(Value::as_object) else {
            continue;
        };
        for (key, below) in fields {
            if matches!(
                key.as_str(),
                "f:spec" | "f:data" | "f:binaryData" | "f:rules" | "f:webhooks" | "f:subjects"
            ) {
                walk(key, below, desired, live, kind, &mut Vec::new(), &mut found);
            }
        }
    }
    // The last item of a list first, so that the others keep their places.
    found.sort_by(|a, b| b.cmp(a));
    found.dedup();
    found
        .into_iter()
        .map(|path| path.iter().map(Step::pointer).collect())
        .collect()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    Item(usize),
}

impl Step {
    fn pointer(&self) -> String {
        match self {
            Self::Field(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
            Self::Item(n) => format!("/{n}"),
        }
    }
}

fn managers(live: &Value) -> impl Iterator<Item = &Value> {
    live.pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Follows one key of a field set. Adds the path when the live object has a value there that nobody asked for.
fn walk(
    key: &str,
    below: &Value,
    desired: &Value,
    live: &Value,
    kind: &str,
    path: &mut Vec<Step>,
    found: &mut Vec<Vec<Step>>,
) {
    let (step, want, have) = if let Some(name) = key.strip_prefix("f:") {
        let Some(have) = live.get(name) else { return };
        if ALLOWED.contains(&(kind, name)) {
            return;
        }
        (Step::Field(name.to_owned()), desired.get(name), have)
    } else if let Some(keys) = key.strip_prefix("k:") {
        let Ok(Value::Object(keys)) = serde_json::from_str(keys) else {
            return;
        };
        let is = |item: &&Value| keys.iter().all(|(name, value)| item.get(name) == Some(value));
        let items = live.as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(place) = items.iter().position(|item| is(&item)) else {
            return;
        };
        let Some(have) = items.get(place) else { return };
        let want = desired.as_array().and_then(|items| items.iter().find(is));
        (Step::Item(place), want, have)
    } else if let Some(value) = key.strip_prefix("v:") {
        let Ok(value) = serde_json::from_str::<Value>(value) else {
            return;
        };
        let items = live.as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(place) = items.iter().position(|item| *item == value) else {
            return;
        };
        let want = desired
            .as_array()
            .and_then(|items| items.iter().find(|item| **item == value));
        (Step::Item(place), want, items.get(place).unwrap_or(&Value::Null))
    } else {
        return;
    };
    path.push(step);
    match (want, below.as_object().filter(|below| below.keys().any(|k| k != "."))) {
        (Some(want), Some(below)) => {
            for (key, below) in below {
                walk(key, below, want, have, kind, path, found);
            }
        }
        // A leaf that was asked for: a wrong value is found by `matches`.
        (Some(_), None) => {}
        (None, Some(below)) if !owns_all(below, have) => {
            for (key, below) in below {
                walk(key, below, &Value::Null, have, kind, path, found);
            }
        }
        (None, _) => found.push(path.clone()),
    }
    path.pop();
}

/// Whether a field set with things below covers the thing itself (`.`), so that all of it goes.
fn owns_all(below: &serde_json::Map<String, Value>, have: &Value) -> bool {
    below.contains_key(".") || have.as_object().is_some_and(|have| have.len() <= below.len())
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// `1000m` and `1` are the same amount; the API server writes the shorter.
fn same_quantity(a: &str, b: &str) -> bool {
    matches!((quantity(a), quantity(b)), (Some(a), Some(b)) if (a - b).abs() <= a.abs() * 1e-9)
}

fn quantity(text: &str) -> Option<f64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // A8
    #[test]
    fn defaults_of_the_api_server_are_no_drift() {
        let desired = json!({"spec": {"replicas": 1, "ports": [{"port": 80}], "nodeSelector": {}, "cpu": "1000m"}});
        let live = json!({"spec": {"replicas": 1, "ports": [{"port": 80, "protocol": "TCP"}], "x": 1, "cpu": "1"}});
        assert!(matches(&desired, &live));
    }

    #[test]
    fn changed_missing_and_added_list_items_are_drift() {
        let desired = json!({"spec": {"replicas": 1, "env": [{"name": "A"}]}});
        for live in [
            json!({"spec": {"replicas": 2, "env": [{"name": "A"}]}}),
            json!({"spec": {"env": [{"name": "A"}]}}),
            json!({"spec": {"replicas": 1, "env": [{"name": "A"}, {"name": "B"}]}}),
            json!({"spec": {"replicas": 1, "env": []}}),
        ] {
            assert!(!matches(&desired, &live), "{live}");
        }
    }

    fn managed(manager: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn what_a_hand_added_is_found_and_what_it_changed_is_left_to_matches() {
        let desired = json!({"kind": "Deployment", "spec": {"replicas": 1, "containers": [{"name": "c", "env": [{"name": "A"}]}]}});
        let live = json!({
            "kind": "Deployment",
            "metadata": {"managedFields": [
                managed(FIELD_MANAGER, json!({"f:spec": {"f:replicas": {}}})),
                managed("kubectl", json!({"f:spec": {
                    "f:replicas": {},
                    "f:paused": {},
                    "f:containers": {"k:{\"name\":\"c\"}": {"f:env": {
                        "k:{\"name\":\"B\"}": {".": {}, "f:name": {}, "f:value": {}},
                        "k:{\"name\":\"C\"}": {".": {}, "f:name": {}, "f:value": {}},
                    }}},
                }})),
            ]},
            "spec": {"replicas": 3, "paused": true, "containers": [
                {"name": "c", "env": [{"name": "A"}, {"name": "B", "value": "b"}, {"name": "C", "value": "c"}]},
            ]},
        });
        assert_eq!(
            foreign(&desired, &live),
            ["/spec/paused", "/spec/containers/0/env/2", "/spec/containers/0/env/1"]
        );
    }

    #[test]
    fn bundles_and_restarts_are_left_alone() {
        let desired = json!({"webhooks": [{"name": "w", "clientConfig": {}}]});
        let live = json!({
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"managedFields": [managed("istiod", json!({
                "f:webhooks": {"k:{\"name\":\"w\"}": {"f:clientConfig": {"f:caBundle": {}}}},
            }))]},
            "webhooks": [{"name": "w", "clientConfig": {"caBundle": "eA=="}}],
        });
        assert_eq!(foreign(&desired, &live), Vec::<String>::new());
        let desired = json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}});
        let live = json!({
            "kind": "Deployment",
            "metadata": {"managedFields": [managed("kubectl-rollout", json!({"f:spec": {"f:template": {"f:metadata":
                {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}}}}}}))]},
            "spec": {"template": {"metadata": {"annotations": {"a": "b", "kubectl.kubernetes.io/restartedAt": "now"}}}},
        });
        assert_eq!(foreign(&desired, &live), Vec::<String>::new());
    }

    #[test]
    fn an_added_key_of_a_config_map_is_removed() {
        let desired = json!({"data": {"mesh": "x"}});
        let live = json!({
            "kind": "ConfigMap",
            "metadata": {"managedFields": [managed("kubectl-edit", json!({"f:data": {"f:a/b": {}}}))]},
            "data": {"mesh": "x", "a/b": "y"},
        });
        assert_eq!(foreign(&desired, &live), ["/data/a~1b"]);
    }

    #[test]
    fn an_object_is_ours_by_annotation_or_by_manager() {
        assert!(is_ours(&json!({"metadata": {"annotations": {(labels::APPLIED): "x"}}})));
        assert!(is_ours(
            &json!({"metadata": {"managedFields": [managed(FIELD_MANAGER, json!({}))]}})
        ));
        assert!(!is_ours(
            &json!({"metadata": {"managedFields": [managed("kubectl", json!({}))]}})
        ));
    }
}
