// N1

use super::*;
use serde_json::{Value, json};

fn recorded() -> Vec<Value> {
    serde_json::from_str(include_str!("../../recorded/selector.json")).unwrap()
}

#[test]
fn selectors_are_refused_in_the_servers_words() {
    for case in recorded() {
        let text = case["text"].as_str().unwrap();
        let resource = case["resource"].as_str().unwrap();
        let result = if case["kind"] == "labelSelector" {
            LabelSelector::parse(text).map(drop)
        } else {
            let (group, kind) = match resource {
                "jobs" => ("batch", "Job"),
                "configmaps" => ("", "ConfigMap"),
                _ => ("", "Other"),
            };
            FieldSelector::parse(text).and_then(|selector| selector.check(group, resource, kind, &[]))
        };
        let message = result.err().map(|error| error.to_string());
        assert_eq!(message.as_deref(), case["message"].as_str(), "{resource}: {text}");
    }
}

#[test]
fn labels_match() {
    let labels = json!({"app": "shop", "tier": "web", "n": "5"});
    let cases = [
        ("", true),
        ("app=shop", true),
        ("app==shop,tier!=db", true),
        ("app!=shop", false),
        ("none!=x", true),
        ("app in (x,shop)", true),
        ("app notin (x,shop)", false),
        ("none notin (x)", true),
        ("app,!none", true),
        ("!app", false),
        ("n>4,n<6", true),
        ("n>5", false),
        ("app>1", false),
        ("app in ()", false),
    ];
    for (text, expected) in cases {
        assert_eq!(
            LabelSelector::parse(text).unwrap().matches(labels.as_object()),
            expected,
            "{text}"
        );
    }
    assert!(!LabelSelector::parse("app").unwrap().matches(None));
}

#[test]
fn a_selector_object_matches_like_its_text() {
    let selector = LabelSelector::from_object(&json!({
        "matchLabels": {"app": "shop"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["web", "db"]},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    }))
    .unwrap();
    assert!(selector.matches(json!({"app": "shop", "tier": "db"}).as_object()));
    assert!(!selector.matches(json!({"app": "shop", "tier": "db", "old": ""}).as_object()));
    assert!(LabelSelector::from_object(&json!({})).unwrap().is_empty());
    let wrong = LabelSelector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}));
    assert_eq!(
        wrong.unwrap_err().to_string(),
        "\"Near\" is not a valid label selector operator"
    );
}

#[test]
fn fields_match() {
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "one"},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
    let cases = [
        ("metadata.name=p", true),
        ("metadata.name!=p", false),
        ("spec.nodeName=one,status.phase=Running", true),
        ("spec.host=one", true),
        ("spec.hostNetwork=false", true),
        ("status.podIP=", true),
        ("status.podIPs=10.0.0.1", true),
    ];
    for (text, expected) in cases {
        assert_eq!(FieldSelector::parse(text).unwrap().matches(&pod), expected, "{text}");
    }
    assert_eq!(FieldSelector::parse("metadata.name=a\\,b").unwrap().name(), Some("a,b"));
    let custom = FieldSelector::parse("spec.color=red").unwrap();
    assert!(custom.check("example.com", "things", "Thing", &["spec.color"]).is_ok());
}
