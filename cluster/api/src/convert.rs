//! Objects between what is stored and what a version shows.
//!
//! Bodies are stored without `kind` and `apiVersion`: every version of a custom resource has the same body, as have most built-in
//! ones. Events have two groups with different fields, and HorizontalPodAutoscalers two versions.

use crate::json;
use crate::kinds::Resource;
use crate::store::Stored;
use bytes::Bytes;
use serde_json::{Map, Value};

/// Fields of core Events and what `events.k8s.io` calls them.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn converted(resource: &Resource) -> bool {
    resource.custom.is_none()
        && matches!(
            (resource.group.as_str(), resource.version.as_str()),
            ("events.k8s.io", _) | ("autoscaling", "v1")
        )
}

/// The object as JSON text with `kind` and `apiVersion`.
pub(crate) fn body(resource: &Resource, stored: &Stored) -> Bytes {
    if converted(resource) {
        return Bytes::from(value(resource, stored).to_string());
    }
    with_type(&resource.kind, &resource.api_version(), &stored.body)
}

/// The object as it stands in a list: built-in ones without `kind` and `apiVersion`.
pub(crate) fn item(resource: &Resource, stored: &Stored) -> Bytes {
    if resource.custom.is_some() {
        return body(resource, stored);
    }
    if converted(resource) {
        let mut value = value(resource, stored);
        let map = json::as_object(&mut value);
        map.remove("kind");
        map.remove("apiVersion");
        return Bytes::from(value.to_string());
    }
    stored.body.clone()
}

/// A stored text with `kind` and `apiVersion` in front.
fn with_type(kind: &str, api_version: &str, body: &[u8]) -> Bytes {
    let mut text = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\"").into_bytes();
    match body.get(1..) {
        Some(rest) if rest.len() > 1 => {
            text.push(b',');
            text.extend_from_slice(rest);
        }
        _ => text.push(b'}'),
    }
    Bytes::from(text)
}

/// The object with `kind` and `apiVersion`.
pub(crate) fn value(resource: &Resource, stored: &Stored) -> Value {
    let mut value = stored.value();
    from_storage(resource, &mut value);
    let map = json::as_object(&mut value);
    map.insert("kind".to_owned(), resource.kind.clone().into());
    map.insert("apiVersion".to_owned(), resource.api_version().into());
    value
}

fn from_storage(resource: &Resource, value: &mut Value) {
    if !converted(resource) {
        return;
    }
    let map = json::as_object(value);
    if resource.group == "autoscaling" {
        scaler_to_v1(map);
        return;
    }
    for (core, new) in EVENT_FIELDS {
        if let Some(value) = map.remove(*core) {
            map.insert((*new).to_owned(), value);
        }
    }
}

/// What is stored of an object of a resource.
pub(crate) fn to_storage(resource: &Resource, mut value: Value) -> Value {
    let map = json::as_object(&mut value);
    map.remove("kind");
    map.remove("apiVersion");
    if !converted(resource) {
        return value;
    }
    if resource.group == "autoscaling" {
        scaler_from_v1(map);
        return value;
    }
    for (core, new) in EVENT_FIELDS {
        if let Some(value) = map.remove(*new) {
            map.insert((*core).to_owned(), value);
        }
    }
    value
}

fn is_cpu_utilization(metric: &Value) -> bool {
    json::text(metric, "/resource/name") == "cpu" && metric.pointer("/resource/target/averageUtilization").is_some()
}

/// The CPU target has a field of its own in v1; other metrics are dropped from view.
fn scaler_to_v1(map: &mut Map<String, Value>) {
    if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics = spec.remove("metrics");
        let metrics = metrics
            .as_ref()
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let cpu = metrics.iter().find(|metric| is_cpu_utilization(metric));
        if let Some(target) = cpu.and_then(|metric| metric.pointer("/resource/target/averageUtilization")) {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), target.clone());
        }
        spec.remove("behavior");
    }
    if let Some(status) = map.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentMetrics");
        status.remove("conditions");
        json::default(status, "currentReplicas", 0);
    }
}

fn scaler_from_v1(map: &mut Map<String, Value>) {
    if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut)
        && let Some(target) = spec.remove("targetCPUUtilizationPercentage")
    {
        let metric = serde_json::json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}
        }});
        spec.insert("metrics".to_owned(), Value::Array(vec![metric]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Registry;
    use serde_json::json;
    use std::sync::Arc;

    fn stored(value: &Value) -> Stored {
        Stored {
            key: (Arc::from("n"), Arc::from("x")),
            revision: 1,
            labels: None,
            body: Bytes::from(value.to_string()),
        }
    }

    #[test]
    fn both_groups_of_events_show_one_object() {
        let kinds = Registry::new().unwrap().current();
        let (old, new) = (
            kinds.resource("", "v1", "events").unwrap(),
            kinds.resource("events.k8s.io", "v1", "events").unwrap(),
        );
        let sent = json!({"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "x"}, "note": "n",
            "regarding": {"name": "p"}, "reportingController": "c"});
        let kept = stored(&to_storage(new, sent.clone()));
        assert_eq!(value(new, &kept), sent);
        let body: Value = serde_json::from_slice(&body(old, &kept)).unwrap();
        assert_eq!(
            body,
            json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "x"}, "message": "n",
            "involvedObject": {"name": "p"}, "reportingComponent": "c"})
        );
    }
}
