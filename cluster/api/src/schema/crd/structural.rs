//! The rules that make a schema structural.

use super::super::FieldError;
use super::{flag, list, schema_at, text};
use serde_json::{Map, Value};

/// Where a schema stands, which decides what it must say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Property,
    Items,
    Additional,
    /// Below `allOf`, `anyOf`, `oneOf` or `not`, where only checks of values may stand.
    Junctor,
}

/// Reports what keeps the `openAPIV3Schema` of a version from being structural.
pub(super) fn check(raw: &Value, path: &str, errors: &mut Vec<FieldError>) {
    walk(raw, path, Place::Root, errors);
}

fn walk(raw: &Value, path: &str, place: Place, errors: &mut Vec<FieldError>) {
    let Value::Object(map) = raw else { return };
    unsupported(map, path, errors);
    if place == Place::Junctor {
        junctor(map, path, errors);
    } else {
        skeleton(raw, path, place, errors);
        extensions(raw, path, errors);
        default(raw, path, errors);
    }
    for (name, child) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let place = if place == Place::Junctor {
            place
        } else {
            Place::Property
        };
        walk(child, &format!("{path}.properties[{name}]"), place, errors);
    }
    if let Some(items) = map.get("items") {
        let place = if place == Place::Junctor { place } else { Place::Items };
        walk(items, &format!("{path}.items"), place, errors);
    }
    if let Some(additional) = map.get("additionalProperties").filter(|_| place != Place::Junctor) {
        walk(
            additional,
            &format!("{path}.additionalProperties"),
            Place::Additional,
            errors,
        );
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        // `anyOf: [{type: integer}, {type: string}]` is how an int-or-string may be written.
        if flag(raw, "x-kubernetes-int-or-string") && name != "oneOf" {
            continue;
        }
        for (index, branch) in list(map.get(name)).iter().enumerate() {
            walk(branch, &format!("{path}.{name}[{index}]"), Place::Junctor, errors);
        }
    }
    if let Some(not) = map.get("not") {
        walk(not, &format!("{path}.not"), Place::Junctor, errors);
    }
}

fn unsupported(map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    for name in [
        "definitions",
        "dependencies",
        "id",
        "patternProperties",
        "additionalItems",
        "$ref",
    ] {
        if map.contains_key(name) {
            errors.push(FieldError::forbidden(
                format!("{path}.{name}"),
                format!("{name} is not supported"),
            ));
        }
    }
    if map.get("uniqueItems") == Some(&Value::Bool(true)) {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(format!("{path}.uniqueItems"), detail));
    }
    if map.contains_key("properties") && map.contains_key("additionalProperties") {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), detail));
    }
    if let Some(pattern) = map.get("pattern").and_then(Value::as_str)
        && let Err(error) = regex::Regex::new(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), pattern, detail));
    }
}

fn junctor(map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let own = [
        "type",
        "description",
        "default",
        "title",
        "nullable",
        "additionalProperties",
    ];
    let extensions = [
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
    ];
    for name in own.into_iter().chain(extensions) {
        if map.get(name).is_some_and(|value| *value != Value::Bool(false)) {
            let detail = if name == "nullable" {
                "must be false to be structural"
            } else {
                "must be empty to be structural"
            };
            errors.push(FieldError::forbidden(format!("{path}.{name}"), detail));
        }
    }
}

fn skeleton(raw: &Value, path: &str, place: Place, errors: &mut Vec<FieldError>) {
    let kind = text(raw.get("type"));
    let free = flag(raw, "x-kubernetes-preserve-unknown-fields") || flag(raw, "x-kubernetes-int-or-string");
    match (kind, place) {
        ("object", _) => {}
        ("", Place::Root) => {
            errors.push(FieldError::required(
                format!("{path}.type"),
                "must not be empty at the root",
            ));
        }
        (other, Place::Root) => {
            errors.push(FieldError::invalid(
                format!("{path}.type"),
                other,
                "must be object at the root",
            ));
        }
        ("", _) if free || raw.get("$ref").is_some() => {}
        ("", place) => {
            let what = match place {
                Place::Items => "array items",
                Place::Additional => "object fields",
                _ => "object fields",
            };
            errors.push(FieldError::required(
                format!("{path}.type"),
                format!("must not be empty for specified {what}"),
            ));
        }
        ("string" | "integer" | "number" | "boolean", _) => {}
        ("array", _) => {
            if raw.get("items").is_none() {
                errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
            }
        }
        (other, _) => {
            let supported = ["array", "boolean", "integer", "number", "object", "string"];
            errors.push(FieldError::not_supported(format!("{path}.type"), other, &supported));
        }
    }
}

fn extensions(raw: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let kind = text(raw.get("type"));
    let is_embedded = flag(raw, "x-kubernetes-embedded-resource");
    if is_embedded && raw.get("properties").is_none() && !flag(raw, "x-kubernetes-preserve-unknown-fields") {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(format!("{path}.properties"), detail));
    }
    if is_embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(FieldError::invalid(format!("{path}.type"), kind, detail));
    }
    if raw.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let detail = "must be true or undefined";
        errors.push(FieldError::invalid(
            format!("{path}.x-kubernetes-preserve-unknown-fields"),
            false,
            detail,
        ));
    }
    let field = format!("{path}.x-kubernetes-list-type");
    match raw.get("x-kubernetes-list-type").and_then(Value::as_str) {
        None => {}
        Some(_) if kind != "array" => {
            let detail = "must be array if x-kubernetes-list-type is specified";
            errors.push(FieldError::invalid(format!("{path}.type"), kind, detail));
        }
        Some("map") => list_map(raw, path, errors),
        Some("atomic" | "set") => {}
        Some(other) => errors.push(FieldError::not_supported(field, other, &["atomic", "set", "map"])),
    }
    if let Some(rules) = super::super::cel::Rules::read(raw) {
        for (index, error) in rules.errors().into_iter().enumerate() {
            let rules = list(raw.get("x-kubernetes-validations"));
            let rule = rules
                .get(index)
                .and_then(|rule| rule.get("rule"))
                .cloned()
                .unwrap_or_default();
            let detail = format!("compilation failed: {error}");
            errors.push(FieldError::invalid(
                format!("{path}.x-kubernetes-validations[{index}].rule"),
                rule,
                detail,
            ));
        }
    }
}

fn list_map(raw: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let keys = list(raw.get("x-kubernetes-list-map-keys"));
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(
            format!("{path}.x-kubernetes-list-map-keys"),
            detail,
        ));
    }
    let items = raw.get("items").unwrap_or(&Value::Null);
    if text(items.get("type")) != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(
            format!("{path}.items.type"),
            text(items.get("type")),
            detail,
        ));
    }
    let is_missing = |key: &&Value| {
        items
            .get("properties")
            .is_none_or(|properties| properties.get(text(Some(key))).is_none())
    };
    if keys.iter().any(|key| is_missing(&key)) {
        // The server quotes the list in its own syntax.
        let quoted: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let detail = format!(
            "[]string{{{}}}: entries must all be names of item properties",
            quoted.join(", ")
        );
        let error = FieldError {
            value: None,
            ..FieldError::invalid(format!("{path}.x-kubernetes-list-map-keys"), "", detail)
        };
        errors.push(error);
    }
    for key in keys {
        let name = text(Some(key));
        let Some(property) = items.get("properties").and_then(|properties| properties.get(name)) else {
            continue;
        };
        let field = format!("{path}.items.properties[{name}]");
        if property.get("default").is_none() && !list(items.get("required")).contains(key) {
            let detail =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(format!("{field}.default"), detail));
        }
        if flag(property, "nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(format!("{field}.nullable"), detail));
        }
    }
}

/// A default must satisfy its schema.
fn default(raw: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(value) = raw.get("default") else { return };
    let schema = schema_at(raw);
    let mut pruned = value.clone();
    if !schema.prune(&mut pruned).is_empty() {
        let detail = "must not have unknown fields";
        errors.push(FieldError::invalid(format!("{path}.default"), value.clone(), detail));
    }
    let mut completed = value.clone();
    schema.set_defaults(&mut completed);
    for error in super::super::validate::plain(&schema, &completed) {
        let below = if error.field == "<nil>" {
            String::new()
        } else {
            format!(".{}", error.field)
        };
        errors.push(FieldError {
            field: format!("{path}.default{below}"),
            ..error
        });
    }
}
