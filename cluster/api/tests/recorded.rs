//! The same requests in the same order get the answers that Kubernetes 1.33 gave, which are in `golden/requests.json`: status codes,
//! warnings and bodies. What differs on purpose is listed here with its reason.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

#[path = "support/client.rs"]
mod support;

use serde_json::{Value, json};
use support::{Client, memory};

/// Fields whose values are each server's own.
const OWN: &[&str] = &[
    "uid",
    "creationTimestamp",
    "resourceVersion",
    "time",
    "deletionTimestamp",
    "storageVersionHash",
    "lastTransitionTime",
    "continue",
    "remainingItemCount",
];

/// Cases in which the answers differ: part of `METHOD path body`, and why.
const MEANT: &[(&str, &str)] = &[
    (
        "configmaps a: [",
        "another YAML parser, another sentence about what is no YAML",
    ),
    (
        r#""labels": {"a b": "c", "ok": "b c"}"#,
        "fields of a map are looked at in order, there in any",
    ),
    (
        r#"{"a b": "c", "..": "d"}"#,
        "fields of a map are looked at in order, there in any",
    ),
    (
        "f-strict",
        "unknown fields are told in order of their names, there as they were written",
    ),
    (
        "f-warn",
        "unknown fields are told in order of their names, there as they were written",
    ),
    (
        r#"PATCH /api/v1/namespaces/diff/configmaps/x {"metadata": {"labels": {"a b""#,
        "the cause is there three times",
    ),
    (
        "configmaps/x?fieldValidation=Strict",
        "the dump of the patched object has its fields in another order",
    ),
    (
        "GET /apis/apps/v1/namespaces/diff/deployments/w",
        "an owner of replicas that are zero is forgotten there",
    ),
    (
        "GET /apis/apps/v1/namespaces/diff/replicasets/w",
        "an owner of replicas that are zero is forgotten there",
    ),
    (
        "GET /apis/apps/v1/namespaces/diff/statefulsets/w",
        "an owner of replicas that are zero is forgotten there",
    ),
    (
        "GET /apis/apps/v1/namespaces/diff/daemonsets/w",
        "the annotation of an API that is gone is lost there by a patch",
    ),
    (
        "reviews ",
        "reviews are not stored and carry no managedFields; the user of a certificate no id of it",
    ),
    (
        r#"{"metadata": {"name": "a.b"}, "spec": {}}"#,
        "the order of errors, and the type's name in the server's language",
    ),
    (
        r#""metadata": {"name": "bad"}, "spec": {"n": "x"}}"#,
        "a second error, of reading the scale, follows there",
    ),
    (
        r#""metadata": {"name": "bad"}, "spec": {"n": 1.5}}"#,
        "a second error, of reading the scale, follows there",
    ),
    (r#"tees {"metadata": {"name": "bad"}}"#, "the text is repeated there"),
    ("tees/a?fieldManager=three", "the causes are in no order there"),
];

/// Takes out what differs between two runs of the same server.
fn normalize(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|field, value| {
                let empty = field == "metadata" && *value == json!({});
                !empty && !OWN.contains(&field.as_str())
            });
            if let Some(Value::Array(entries)) = map.get_mut("managedFields") {
                // Their order follows from the times, which are equal here.
                entries.sort_by_key(|entry| {
                    (
                        entry["operation"].to_string(),
                        entry["manager"].to_string(),
                        entry["subresource"].to_string(),
                    )
                });
            }
            if map.get("fieldsType").is_some() {
                // Held to account by the tests of server-side apply.
                map.remove("fieldsV1");
            }
            for (field, inner) in map.iter_mut() {
                let chosen = matches!(field.as_str(), "clusterIP" | "clusterIPs" | "nodePort");
                if chosen && *inner != "None" && *inner != json!(["None"]) {
                    *inner = json!("chosen");
                } else {
                    normalize(inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::String(text) => {
            let seconds = text.strip_suffix('s').filter(|digits| !digits.is_empty());
            let age = seconds.is_some_and(|digits| digits.chars().all(|c| c.is_ascii_digit()));
            *text = if age { "an age".to_owned() } else { without_ids(text) };
        }
        _ => {}
    }
}

/// A text with the same word for every uid and every revision in it.
fn without_ids(text: &str) -> String {
    let is_uid = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
    let mut out = String::new();
    for (position, word) in text.split(' ').enumerate() {
        if position > 0 {
            out.push(' ');
        }
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let revision = out.ends_with("in record ") && bare.chars().all(|c| c.is_ascii_digit());
        if is_uid(bare) || revision {
            out.push_str(&word.replace(bare, "*"));
        } else {
            out.push_str(word);
        }
    }
    out
}

#[tokio::test]
async fn requests_get_the_answers_that_kubernetes_gave() {
    let client = Client::new(&memory().await);
    let cases: Vec<Value> = serde_json::from_str(include_str!("golden/requests.json")).unwrap();
    let (mut wrong, mut unused) = (Vec::new(), MEANT.to_vec());
    for (number, case) in cases.iter().enumerate() {
        let text = |field: &str| case[field].as_str().unwrap().to_owned();
        let (method, path, send) = (text("method"), text("path"), text("send"));
        let answer = client
            .request(&method, &path, &text("type"), &text("accept"), send.clone())
            .await;
        let (mut got, mut want) = (
            json!({"code": answer.code, "warnings": answer.warnings, "body": answer.body}),
            json!({"code": case["code"], "warnings": case["warnings"], "body": case["want"]}),
        );
        normalize(&mut got);
        normalize(&mut want);
        let name = format!("{method} {path} {send}");
        if got == want {
            continue;
        }
        let meant: Vec<&str> = MEANT
            .iter()
            .map(|(part, _)| *part)
            .filter(|part| name.contains(part))
            .collect();
        if !meant.is_empty() {
            unused.retain(|(other, _)| !meant.contains(other));
            continue;
        }
        let show = |value: &Value| match value["body"]["message"].as_str() {
            Some(message) => format!(
                "{} {message} {} {}",
                value["code"], value["body"]["details"], value["warnings"]
            ),
            None => value.to_string(),
        };
        let (mut want_text, mut got_text) = (show(&want), show(&got));
        if want_text == got_text {
            (want_text, got_text) = (want.to_string(), got.to_string());
        }
        wrong.push(format!("#{number} {name}\n want {want_text}\n  got {got_text}"));
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(unused.is_empty(), "no longer different: {unused:?}");
}
