//! What single rules allow and cover.

use super::{Attributes, list};
use serde_json::{Value, json};

/// Whether one rule allows a request.
pub(super) fn allows(rule: &Value, attributes: &Attributes<'_>) -> bool {
    let has = |field: &str, wanted: &str| {
        list(rule, field)
            .iter()
            .filter_map(Value::as_str)
            .any(|v| v == "*" || v == wanted)
    };
    if !has("verbs", attributes.verb) {
        return false;
    }
    if attributes.resource.is_empty() {
        return list(rule, "nonResourceURLs")
            .iter()
            .filter_map(Value::as_str)
            .any(|url| covers_path(url, attributes.path));
    }
    let resource = match attributes.subresource {
        "" => attributes.resource.to_owned(),
        subresource => format!("{}/{subresource}", attributes.resource),
    };
    let names = list(rule, "resourceNames");
    has("apiGroups", attributes.group)
        && list(rule, "resources")
            .iter()
            .filter_map(Value::as_str)
            .any(|own| covers_resource(own, &resource))
        && (names.is_empty() || names.iter().any(|name| name.as_str() == Some(attributes.name)))
}

fn covers_path(own: &str, wanted: &str) -> bool {
    own == "*" || own == wanted || own.strip_suffix('*').is_some_and(|prefix| wanted.starts_with(prefix))
}

/// `own` may be `*`, `pods`, `pods/log` or `*/log`.
fn covers_resource(own: &str, wanted: &str) -> bool {
    let any_with = |subresource: &str| wanted.split_once('/').is_some_and(|(_, wanted)| wanted == subresource);
    own == "*" || own == wanted || own.strip_prefix("*/").is_some_and(any_with)
}

/// A rule as rules of one verb, group, resource and name each.
pub(super) fn singles(rule: &Value) -> Vec<Value> {
    let mut out = Vec::new();
    for verb in list(rule, "verbs") {
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                let one = json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
                let names = list(rule, "resourceNames");
                if names.is_empty() {
                    out.push(one.clone());
                }
                for name in names {
                    let mut one = one.clone();
                    if let Value::Object(one) = &mut one {
                        one.insert("resourceNames".to_owned(), json!([name]));
                    }
                    out.push(one);
                }
            }
        }
        for path in list(rule, "nonResourceURLs") {
            out.push(json!({"nonResourceURLs": [path], "verbs": [verb]}));
        }
    }
    out
}

/// Whether a rule allows all that a rule of one of each allows.
pub(super) fn covers(own: &Value, single: &Value) -> bool {
    let one = |field: &str| list(single, field).first().and_then(Value::as_str);
    let has = |field: &str| {
        let wanted = one(field);
        list(own, field)
            .iter()
            .filter_map(Value::as_str)
            .any(|v| v == "*" || Some(v) == wanted)
    };
    if !has("verbs") {
        return false;
    }
    if let Some(path) = one("nonResourceURLs") {
        return list(own, "nonResourceURLs")
            .iter()
            .filter_map(Value::as_str)
            .any(|own| covers_path(own, path));
    }
    let resource = one("resources").unwrap_or_default();
    let names = list(own, "resourceNames");
    has("apiGroups")
        && list(own, "resources")
            .iter()
            .filter_map(Value::as_str)
            .any(|own| covers_resource(own, resource))
        && (names.is_empty()
            || list(single, "resourceNames")
                .first()
                .is_some_and(|name| names.contains(name)))
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
pub(super) fn compact(rule: &Value) -> String {
    let fields = [
        ("apiGroups", "APIGroups"),
        ("resources", "Resources"),
        ("nonResourceURLs", "NonResourceURLs"),
        ("resourceNames", "ResourceNames"),
        ("verbs", "Verbs"),
    ];
    let parts: Vec<String> = fields
        .iter()
        .filter(|(field, _)| !list(rule, field).is_empty())
        .map(|(field, shown)| {
            let values: Vec<String> = list(rule, field).iter().map(ToString::to_string).collect();
            format!("{shown}:[{}]", values.join(" "))
        })
        .collect();
    format!("{{{}}}", parts.join(", "))
}
