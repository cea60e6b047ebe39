//! JSON laid over JSON: a user's own `istio-proxy` over the template, and fields that our types do not know back into the
//! result.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::Value;

use super::SIDECAR;

/// By which field the elements of a pod's lists are told apart.
const KEYS: [&str; 4] = ["name", "mountPath", "containerPort", "devicePath"];

/// Takes the user's own container of the sidecar's name out of the pod.
pub(super) fn take_own_sidecar(spec: &mut PodSpec) -> Option<Container> {
    let take = |containers: &mut Vec<Container>| {
        let at = containers.iter().position(|container| container.name == SIDECAR)?;
        Some(containers.remove(at))
    };
    spec.init_containers
        .as_mut()
        .and_then(take)
        .or_else(|| take(&mut spec.containers))
}

/// Lays the user's container over the injected one. What it says wins, but for the user and group that it runs as: redirection
/// tells the sidecar's traffic by them, and OpenShift fills in the application's.
pub(super) fn lay_over(template: Container, own: &Container) -> Result<Container, serde_json::Error> {
    let mut over = serde_json::to_value(own)?;
    if let Some(fields) = over.as_object_mut() {
        if fields.get("image").is_some_and(|image| image == "auto" || image == "") {
            fields.remove("image");
        }
        if let Some(security) = fields.get_mut("securityContext").and_then(Value::as_object_mut) {
            for field in ["runAsUser", "runAsGroup", "runAsNonRoot"] {
                security.remove(field);
            }
        }
    }
    let mut result = serde_json::to_value(template)?;
    merge(&mut result, over);
    serde_json::from_value(result)
}

/// Objects field by field, lists of objects by key, everything else replaced.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (field, value) in over {
                match under.get_mut(&field) {
                    Some(there) => merge(there, value),
                    None => {
                        under.insert(field, value);
                    }
                }
            }
        }
        (Value::Array(under), Value::Array(over)) if over.iter().all(|element| key(element).is_some()) => {
            for element in over {
                match under.iter_mut().find(|there| key(there) == key(&element)) {
                    Some(there) => merge(there, element),
                    None => under.push(element),
                }
            }
        }
        (under, over) => *under = over,
    }
}

/// The result with what the raw object has and its typed reading (`before`) lost.
pub(super) fn keep_unknown(raw: &Value, before: &Value, mut after: Value) -> Value {
    restore(raw, before, &mut after);
    after
}

fn restore(raw: &Value, before: &Value, after: &mut Value) {
    match (raw, before, after) {
        (Value::Object(raw), Value::Object(before), Value::Object(after)) => {
            for (field, value) in raw {
                match (before.get(field), after.get_mut(field)) {
                    (Some(before), Some(after)) => restore(value, before, after),
                    (None, None) => {
                        after.insert(field.clone(), value.clone());
                    }
                    // Removed or written by injection.
                    _ => {}
                }
            }
        }
        (Value::Array(raw), Value::Array(before), Value::Array(after)) => {
            // Typed reading keeps the order, injection may move elements.
            for (raw, before) in raw.iter().zip(before) {
                let same = after.iter_mut().find(|after| match key(before) {
                    Some(key_before) => key(after) == Some(key_before),
                    None => **after == *before,
                });
                if let Some(after) = same {
                    restore(raw, before, after);
                }
            }
        }
        _ => {}
    }
}

fn key(element: &Value) -> Option<&Value> {
    KEYS.iter().find_map(|key| element.get(key))
}
