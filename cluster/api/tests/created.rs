//! What is created looks as it does on Kubernetes 1.33, whose answers are in `golden/created.json`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly, its helpers too"
)]

#[path = "support/client.rs"]
mod support;

use serde_json::{Map, Value, json};
use support::{Client, memory};

/// Fields whose values are each server's own.
const OWN: &[&str] = &[
    "uid",
    "creationTimestamp",
    "resourceVersion",
    "time",
    "lastPhaseTransitionTime",
];

/// Takes out what differs between two runs of the same server, and names what is chosen at random.
fn normalize(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // Templates without labels show empty metadata there and none here.
            map.retain(|field, value| {
                let empty = field == "metadata" && *value == json!({});
                !empty && !OWN.contains(&field.as_str())
            });
            for (field, inner) in map.iter_mut() {
                let chosen = matches!(
                    field.as_str(),
                    "clusterIP" | "clusterIPs" | "healthCheckNodePort" | "nodePort"
                );
                if chosen && *inner != "None" && *inner != json!(["None"]) {
                    *inner = json!("chosen");
                } else {
                    normalize(inner);
                }
            }
            let renamed: Map<String, Value> = std::mem::take(map)
                .into_iter()
                .map(|(key, value)| (rename(&key), value))
                .collect();
            *map = renamed;
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::String(text) => *text = rename(text),
        _ => {}
    }
}

fn rename(text: &str) -> String {
    if let Some(at) = text.find("kube-api-access-") {
        let end = at + "kube-api-access-".len();
        return format!("{}*{}", &text[..end], text.get(end + 5..).unwrap_or_default());
    }
    let uuid = text.len() == 36 && text.matches('-').count() == 4;
    if uuid { "a-uid".to_owned() } else { text.to_owned() }
}

/// Differences that are meant: (case, JSON pointer) of what Kubernetes shows and this API does not, or otherwise.
const MEANT: &[(&str, &str)] = &[
    // No controller here removes the taint or the finalizers.
    ("node", "/spec"),
    ("persistentvolumeclaim", "/metadata/finalizers"),
    ("persistentvolume", "/metadata/finalizers"),
];

fn forget(value: &mut Value, pointer: &str) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    if let Some(map) = value.pointer_mut(parent).and_then(Value::as_object_mut) {
        map.remove(field);
    }
}

#[tokio::test]
async fn defaults_status_and_generation_are_those_of_kubernetes() {
    let client = Client::new(&memory().await);
    let namespaces = "/api/v1/namespaces";
    client.post(namespaces, &json!({"metadata": {"name": "dd"}})).await.ok();
    client
        .post(
            "/api/v1/namespaces/dd/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        )
        .await
        .ok();
    let cases: Vec<Value> = serde_json::from_str(include_str!("golden/created.json")).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let (name, path) = (case["name"].as_str().unwrap(), case["path"].as_str().unwrap());
        let mut got = client.post(path, &case["send"]).await.body;
        let mut want = case["want"].clone();
        let created = got
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let query = "gracePeriodSeconds=0&propagationPolicy=Background";
        client.delete(&format!("{path}/{created}?{query}")).await;
        for value in [&mut got, &mut want] {
            normalize(value);
            forget(value, "/metadata/managedFields");
            for (case, pointer) in MEANT {
                if *case == name {
                    forget(value, pointer);
                }
            }
        }
        if got != want {
            wrong.push(format!("{name}\n want {want}\n  got {got}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
