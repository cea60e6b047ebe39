// N1

use super::*;
use serde_json::json;
use std::io::Read as _;

/// The schema of a built-in kind of core/v1 or apps/v1.
pub(crate) fn builtin(name: &str) -> Schema {
    static ALL: OnceLock<Definitions> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let definitions = Definitions::default();
        for file in [
            &include_bytes!("../../openapi/core__v1.json.gz")[..],
            include_bytes!("../../openapi/apps__v1.json.gz"),
        ] {
            let mut text = String::new();
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
            definitions.load(&serde_json::from_str(&text).unwrap());
        }
        definitions
    });
    all.schema(name).unwrap()
}

fn recorded(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// `reason`, `message` and `field` of each cause, in an order of its own.
fn causes(of: &Value) -> Vec<(String, String, String)> {
    let text = |cause: &Value, name: &str| cause[name].as_str().unwrap_or_default().to_owned();
    let list = of["causes"].as_array().cloned().unwrap_or_default();
    let mut list: Vec<_> = list
        .iter()
        .map(|cause| (text(cause, "field"), text(cause, "reason"), text(cause, "message")))
        .collect();
    list.sort();
    list
}

fn as_causes(errors: &[FieldError]) -> Vec<(String, String, String)> {
    let mut list: Vec<_> = errors
        .iter()
        .map(|error| (error.field.clone(), error.kind.reason().to_owned(), error.message()))
        .collect();
    list.sort();
    list
}

#[test]
fn custom_resources_are_judged_as_by_the_server() {
    let recorded = recorded(include_str!("../../recorded/validation.json"));
    let schema = Schema::from_crd(Some(&recorded["schema"]));
    for case in recorded["creates"].as_array().unwrap() {
        let mut object = case["new"].clone();
        schema.prune(&mut object);
        schema.set_defaults(&mut object);
        let errors = schema.validate(&object, None);
        assert_eq!(as_causes(&errors), causes(case), "{}", case["new"]["spec"]);
        if let Some(stored) = case.get("object") {
            assert_eq!(object["spec"], stored["spec"]);
        }
    }
}

#[test]
fn updates_let_through_what_was_wrong_and_has_not_changed() {
    let recorded = recorded(include_str!("../../recorded/validation.json"));
    let schema = Schema::from_crd(Some(&recorded["schema"]));
    for case in recorded["updates"].as_array().unwrap() {
        let (mut old, mut new) = (case["old"].clone(), case["new"].clone());
        schema.set_defaults(&mut old);
        schema.set_defaults(&mut new);
        assert_eq!(
            as_causes(&schema.validate(&new, Some(&old))),
            causes(case),
            "{}",
            case["new"]["spec"]
        );
    }
}

#[test]
fn unknown_fields_are_named_as_by_the_server() {
    let recorded = recorded(include_str!("../../recorded/validation.json"));
    let schema = Schema::from_crd(Some(&recorded["schema"]));
    let mut object =
        json!({"spec": {"name": "good", "unknown": 1, "deep": {"z": 1}, "byName": [{"name": "a", "q": 1}]}});
    let unknown = schema.prune(&mut object);
    let fields: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    let message = recorded["strict"].as_str().unwrap();
    assert!(
        message.ends_with(&format!("strict decoding error: {}", fields.join(", "))),
        "{fields:?}"
    );
    assert_eq!(
        object,
        json!({"spec": {"name": "good", "deep": {}, "byName": [{"name": "a"}]}})
    );
}

#[test]
fn wrong_types_of_built_in_kinds_are_refused_in_the_decoders_words() {
    for case in recorded(include_str!("../../recorded/decode.json")).as_array().unwrap() {
        let kind = case["body"]["kind"].as_str().unwrap();
        let group = if kind == "Deployment" { "apps" } else { "core" };
        let schema = builtin(&format!("io.k8s.api.{group}.v1.{kind}"));
        let message = case["message"].as_str().unwrap();
        let message = message
            .split_once(&format!("handled as a {kind}: "))
            .map(|(_, words)| words);
        let mut object = case["body"].clone();
        let ours = schema.decode_error(&object).or_else(|| {
            let mut unknown = schema.prune(&mut object);
            // The server has them in the order of the document.
            unknown.sort_by_key(|path| std::cmp::Reverse(path.matches('.').count()));
            if group == "apps" {
                unknown.reverse();
            }
            let unknown: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
            (!unknown.is_empty()).then(|| format!("strict decoding error: {}", unknown.join(", ")))
        });
        assert_eq!(ours.as_deref(), message, "{}", case["body"]);
    }
}

#[test]
fn built_in_kinds_lose_what_their_types_do_not_store() {
    let schema = builtin("io.k8s.api.core.v1.Pod");
    let mut pod = json!({"metadata": {"name": "p", "labels": {}, "creationTimestamp": null},
        "spec": {"containers": [{"name": "c", "args": [], "env": [{"name": "A", "value": ""}], "resources": {},
            "ports": [{"containerPort": 0, "hostPort": 0}], "tty": false}], "hostNetwork": false, "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {"secretName": "", "optional": false}}],
            "nodeName": "", "runtimeClassName": ""}});
    assert_eq!(schema.prune(&mut pod), Vec::<String>::new());
    assert_eq!(
        pod,
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "env": [{"name": "A"}], "resources": {},
            "ports": [{"containerPort": 0}]}], "enableServiceLinks": false, "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {"optional": false}}], "runtimeClassName": ""}})
    );
}

#[test]
fn definitions_are_judged_as_by_the_server() {
    for case in recorded(include_str!("../../recorded/definition.json"))
        .as_array()
        .unwrap()
    {
        let mut definition = case["body"].clone();
        crd::set_defaults(&mut definition);
        let errors = crd::validate(&definition, None);
        let title = case["title"].as_str().unwrap();
        let (mut ours, mut theirs) = (as_causes(&errors), causes(case));
        if matches!(title, "pattern" | "rule that does not compile") {
            // The words of another parser follow.
            for cause in ours.iter_mut().chain(&mut theirs) {
                cause.2.clear();
            }
        }
        assert_eq!(ours, theirs, "{title}");
        if let Some(object) = case.get("object") {
            let now = object["status"]["conditions"][0]["lastTransitionTime"]
                .as_str()
                .unwrap();
            crd::set_status(&mut definition, &[], now);
            assert_eq!(definition["spec"], object["spec"], "{title}");
            assert_eq!(definition["status"], object["status"], "{title}");
            assert!(crd::is_established(&definition));
        }
    }
}

#[test]
fn a_definition_whose_names_are_taken_is_not_established() {
    let definition = |name: &str, kind: &str, short: &str| {
        let mut crd = json!({"metadata": {"name": format!("{name}.example.com")}, "spec": {"group": "example.com",
            "names": {"plural": name, "kind": kind, "shortNames": [short]}, "versions": [{"name": "v1", "storage": true}]}});
        crd::set_defaults(&mut crd);
        crd
    };
    let mut first = definition("things", "Thing", "th");
    crd::set_status(&mut first, &[], "2030-01-01T00:00:00Z");
    for (mut second, reason, message) in [
        (
            definition("others", "Other", "th"),
            "ShortNamesConflict",
            "\"th\" is already in use",
        ),
        (
            definition("others", "Thing", "o"),
            "SingularConflict",
            "\"thing\" is already in use",
        ),
    ] {
        crd::set_status(&mut second, &[&first], "2030-01-01T00:00:00Z");
        assert!(!crd::is_established(&second));
        let condition = &second["status"]["conditions"][0];
        assert_eq!(
            (&condition["reason"], &condition["message"]),
            (&json!(reason), &json!(message))
        );
    }
    let others = first.clone();
    crd::set_status(&mut first, &[&others], "2031-01-01T00:00:00Z");
    assert_eq!(
        first["status"]["conditions"][0]["lastTransitionTime"],
        "2030-01-01T00:00:00Z"
    );
}

#[test]
fn duplicate_fields_are_found_and_the_last_wins() {
    let (value, duplicates) = parse_json(br#"{"a":{"b":1,"b":2,"b":3},"l":[{"x":1,"x":1}],"n":1.5}"#).unwrap();
    assert_eq!(value, json!({"a": {"b": 3}, "l": [{"x": 1}], "n": 1.5}));
    assert_eq!(duplicates, ["a.b", "l[0].x"]);
    assert!(parse_json(b"{} x").is_err());
}
