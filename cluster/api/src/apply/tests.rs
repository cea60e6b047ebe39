// N1

use super::*;
use crate::schema::tests::builtin;

fn without(object: &Value, names: &[&str]) -> Value {
    let mut object = object.clone();
    for name in names {
        object["metadata"].as_object_mut().unwrap().remove(*name);
    }
    object
}

/// Whether everything of `part` is in `whole`: the server adds defaults.
fn is_part(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|other| is_part(value, other))),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(part, whole)| is_part(part, whole))
        }
        (part, whole) => part == whole,
    }
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

struct Replay {
    title: String,
    schema: Schema,
    api_version: String,
    live: Option<Value>,
}

impl Replay {
    fn step(&mut self, number: usize, step: &Value) {
        let context = format!("{}, step {number}: {}", self.title, step["operation"]);
        let writer = Writer {
            manager: step["manager"].as_str().unwrap(),
            api_version: &self.api_version,
            subresource: if step["operation"] == "status" { "status" } else { "" },
            now: "2030-01-01T00:00:00Z",
        };
        let expected = step.get("object").map(|object| {
            let mut object = object.clone();
            self.schema.prune(&mut object);
            object
        });
        let managers = |object: &Value| managed::without_times(object["metadata"].get("managedFields"));
        if step["operation"] == "apply" {
            let result = apply(
                &self.schema,
                self.live.as_ref(),
                &step["body"],
                writer,
                step["force"] == true,
            );
            match (&expected, result) {
                (Some(expected), Ok(mut object)) => {
                    assert_eq!(managers(&object), managers(expected), "{context}");
                    self.schema.prune(&mut object);
                    let (object, rest) = (without(&object, &["managedFields", "generation"]), expected);
                    assert!(
                        is_part(&object, rest),
                        "{context}:\n{object:#}\nbut the server has\n{rest:#}"
                    );
                    if self.title.contains("custom") || self.title.contains("data") {
                        let names = ["managedFields", "generation", "namespace"];
                        assert_eq!(without(&object, &names), without(rest, &names), "{context}");
                    }
                }
                (None, Err(error)) => {
                    let message = step["message"].as_str().unwrap();
                    let words = message.split_once("): ").map_or(message, |(_, words)| words);
                    let words = if message.starts_with("failed to create") {
                        words
                    } else {
                        message
                    };
                    assert_eq!(sorted_lines(&error.to_string()), sorted_lines(words), "{context}");
                }
                (None, Ok(_)) if step["status"] == 422 => {}
                (expected, result) => panic!(
                    "{context}: {result:?}, but the server says {expected:?} {}",
                    step["message"]
                ),
            }
        } else {
            let expected = expected.as_ref().unwrap();
            let mut new = without(expected, &["managedFields"]);
            track_update(&self.schema, self.live.as_ref(), &mut new, writer);
            assert_eq!(managers(&new), managers(expected), "{context}");
        }
        if let Some(object) = expected {
            self.live = Some(object);
        }
    }
}

#[test]
fn managers_own_conflict_and_give_up_as_on_the_server() {
    let recorded: Value = serde_json::from_str(include_str!("../../recorded/apply.json")).unwrap();
    for sequence in recorded["sequences"].as_array().unwrap() {
        let steps = sequence["steps"].as_array().unwrap();
        let mut replay = Replay {
            title: sequence["title"].as_str().unwrap().to_owned(),
            schema: Schema::any().clone(),
            api_version: String::new(),
            live: None,
        };
        for (number, step) in steps.iter().enumerate() {
            if let Some(version) = step["body"]["apiVersion"].as_str() {
                replay.api_version = version.to_owned();
                replay.schema = match step["body"]["kind"].as_str().unwrap() {
                    "Thing" => Schema::from_crd(Some(&recorded["schema"])),
                    "ConfigMap" => builtin("io.k8s.api.core.v1.ConfigMap"),
                    _ => builtin("io.k8s.api.apps.v1.Deployment"),
                };
            }
            replay.step(number, step);
        }
    }
}

fn writer<'a>(manager: &'a str, now: &'a str) -> Writer<'a> {
    Writer {
        manager,
        api_version: "v1",
        subresource: "",
        now,
    }
}

fn settings(data: Value) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": data})
}

#[test]
fn an_apply_that_changes_nothing_gives_the_live_object() {
    let schema = builtin("io.k8s.api.core.v1.ConfigMap");
    let config = settings(serde_json::json!({"a": "1"}));
    let live = apply(&schema, None, &config, writer("m", "2030-01-01T00:00:00Z"), false).unwrap();
    assert_eq!(
        apply(
            &schema,
            Some(&live),
            &config,
            writer("m", "2031-01-01T00:00:00Z"),
            false
        )
        .unwrap(),
        live
    );
    let mut same = live.clone();
    track_update(&schema, Some(&live), &mut same, writer("other", "2032-01-01T00:00:00Z"));
    assert_eq!(same, live);
}

#[test]
fn an_empty_entry_resets_the_managers_and_then_nobody_is_tracked() {
    let schema = builtin("io.k8s.api.core.v1.ConfigMap");
    let mut live = settings(serde_json::json!({"a": "1"}));
    track_update(&schema, None, &mut live, writer("m", "2030-01-01T00:00:00Z"));
    assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    let mut new = live.clone();
    new["metadata"]["managedFields"] = serde_json::json!([{}]);
    track_update(&schema, Some(&live), &mut new, writer("m", "2030-01-01T00:00:00Z"));
    assert_eq!(new["metadata"].get("managedFields"), None);
    // The first apply then finds an owner for what was there.
    let config = settings(serde_json::json!({"a": "2"}));
    let error = apply(&schema, Some(&new), &config, writer("m", "2030-01-01T00:00:00Z"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
}

#[test]
fn the_oldest_of_more_than_ten_updaters_become_ancient_changes() {
    let schema = builtin("io.k8s.api.core.v1.ConfigMap");
    let mut live: Option<Value> = None;
    for number in 0..12 {
        let mut new = live.clone().unwrap_or_else(|| settings(serde_json::json!({})));
        new["data"][format!("k{number}")] = "1".into();
        let (manager, now) = (format!("m{number}"), format!("2030-01-{:02}T00:00:00Z", number + 1));
        track_update(&schema, live.as_ref(), &mut new, writer(&manager, &now));
        live = Some(new);
    }
    let live = live.unwrap();
    let fields = live["metadata"]["managedFields"].as_array().unwrap();
    let updaters: Vec<&str> = fields.iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    assert_eq!(updaters.len(), 10, "{updaters:?}");
    assert_eq!(updaters[0], "ancient-changes");
    let ancient = FieldSet::decode(&fields[0]["fieldsV1"]).paths();
    assert!(
        ancient.contains(&".data.k0".to_owned()) && ancient.contains(&".data.k1".to_owned()),
        "{ancient:?}"
    );
}
