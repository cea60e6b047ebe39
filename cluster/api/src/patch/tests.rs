// N1

use super::*;
use crate::schema::tests::builtin;

/// What the server changes besides what the patch says.
fn without_counters(object: &Value) -> Value {
    let mut object = object.clone();
    for name in ["managedFields", "generation"] {
        object["metadata"].as_object_mut().unwrap().remove(name);
    }
    object
}

#[test]
fn patches_do_what_the_server_does() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../../recorded/patch.json")).unwrap();
    let schema = builtin("io.k8s.api.apps.v1.Deployment");
    for case in &cases {
        let (before, change) = (&case["before"], &case["patch"]);
        let result = match case["type"].as_str().unwrap() {
            "json-patch" => json(before, change),
            "merge-patch" => merge(before, change),
            _ => strategic(&schema, before, change),
        };
        let title = &case["title"];
        match (result, case["status"].as_u64().unwrap()) {
            (Ok(mut patched), 200) => {
                schema.prune(&mut patched);
                let mut expected = without_counters(&case["after"]);
                schema.prune(&mut expected);
                // Defaults come after the patch.
                fill(&mut patched, &expected);
                assert_eq!(without_counters(&patched), expected, "{title}");
            }
            (Err(PatchError::Unprocessable(_)), 422) => {}
            (Err(PatchError::Malformed(message)), 400) | (Err(PatchError::Failed(message)), 500) => {
                assert_eq!(message, case["message"].as_str().unwrap(), "{title}");
            }
            (other, status) => panic!("{title}: {other:?} but the server says {status} {}", case["message"]),
        }
    }
}

/// Adds the defaults of new containers, ports and volumes.
fn fill(patched: &mut Value, expected: &Value) {
    const DEFAULTED: [&str; 7] = [
        "imagePullPolicy",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "resources",
        "protocol",
        "defaultMode",
        "rollingUpdate",
    ];
    match (patched, expected) {
        (Value::Object(patched), Value::Object(expected)) => {
            for (name, value) in expected {
                if DEFAULTED.contains(&name.as_str()) && !patched.contains_key(name) {
                    patched.insert(name.clone(), value.clone());
                }
                if let Some(own) = patched.get_mut(name) {
                    fill(own, value);
                }
            }
        }
        (Value::Array(patched), Value::Array(expected)) => {
            patched
                .iter_mut()
                .zip(expected)
                .for_each(|(patched, expected)| fill(patched, expected));
        }
        _ => {}
    }
}

#[test]
fn a_json_patch_may_replace_what_it_has_made() {
    let object = serde_json::json!({});
    let patch = r#"[{"op":"add","path":"/a","value":{}},{"op":"replace","path":"/a/b","value":1}]"#;
    let patched = json(&object, &serde_json::from_str(patch).unwrap()).unwrap();
    assert_eq!(patched, serde_json::json!({"a": {"b": 1}}));
}

#[test]
fn a_json_patch_tells_which_operation_failed() {
    let object = serde_json::json!({"a": {"b": 1}});
    let cases = [
        (
            r#"[{"op":"test","path":"/a/b","value":2}]"#,
            "testing value /a/b failed: test failed",
        ),
        (
            r#"[{"op":"remove","path":"/a/c"}]"#,
            "remove operation does not apply: doc is missing key: /a/c: missing value",
        ),
        (
            r#"[{"op":"add","path":"/x/y","value":2}]"#,
            r#"add operation does not apply: doc is missing path: "/x/y": missing value"#,
        ),
    ];
    for (patch, message) in cases {
        let patch = serde_json::from_str(patch).unwrap();
        assert_eq!(
            json(&object, &patch),
            Err(PatchError::Unprocessable(message.to_owned()))
        );
    }
}
