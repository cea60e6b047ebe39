//! Structural schemas: how a kind's type becomes one, and how a raw object is compared with one.
//!
//! The API server prunes or refuses what a schema does not know; [`check`] says the same before that, with a path for
//! each finding, so that a webhook and a file on disk are judged alike.

mod check;

pub use check::{Finding, Problem, check};

use kube_core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use schemars::generate::SchemaSettings;
use schemars::transform::AddNullable;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// Marks groups of fields of which an object may have at most one each. Istio's protobuf `oneof`s; [`published`] turns
/// them into the `oneOf` form that the API server understands.
pub(crate) const AT_MOST_ONE_OF: &str = "x-mizzen-at-most-one-of";

/// The structural schema of a type, with our own marks still in it: what [`check`] wants.
pub fn structural<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(AddNullable::default())
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    visit(&mut schema, &mut tidy);
    schema
}

/// The schema as a CustomResourceDefinition carries it: the marks of [`structural`] replaced by plain schema.
pub fn published(mut schema: Value) -> Value {
    visit(&mut schema, &mut |node| {
        let Some(Value::Array(groups)) = node.remove(AT_MOST_ONE_OF) else {
            return;
        };
        let mut groups: Vec<Value> = groups.iter().map(at_most_one_of).collect();
        if groups.len() > 1 {
            node.insert("allOf".into(), Value::Array(groups));
        } else if let Some(Value::Object(group)) = groups.pop() {
            node.extend(group);
        }
    });
    schema
}

/// A rule in CEL would say it in better words, but costs too much (as the API server estimates it) inside lists of lists.
fn at_most_one_of(fields: &Value) -> Value {
    let each: Vec<Value> = fields
        .as_array()
        .into_iter()
        .flatten()
        .map(|field| json!({"required": [field]}))
        .collect();
    let mut one_of = vec![json!({"not": {"anyOf": each}})];
    one_of.extend(each);
    json!({"oneOf": one_of})
}

/// Removes what schemars says and Kubernetes does not want: `null` where a field can be left out just as well, empty
/// defaults (the API server would write them into every object), and number formats that it does not know.
fn tidy(node: &mut Map<String, Value>) {
    node.remove("nullable");
    node.remove("title");
    if node.get("default").is_some_and(is_empty) {
        node.remove("default");
    }
    if let Some(format) = node.get("format").and_then(Value::as_str)
        && format.starts_with("uint")
    {
        node.remove("format");
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Calls `change` for every schema in `schema`, itself first. Names of properties are no schemas, so a property called
/// `default` is safe.
fn visit(schema: &mut Value, change: &mut dyn FnMut(&mut Map<String, Value>)) {
    let Value::Object(node) = schema else { return };
    change(node);
    for (keyword, value) in node.iter_mut() {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties.values_mut().for_each(|property| visit(property, change));
            }
            ("items" | "additionalProperties", inner) => visit(inner, change),
            _ => {}
        }
    }
}

/// `1.0` is an integer for Kubernetes, and none for serde. Floating-point fields take integers too.
pub fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64()
                && float.fract() == 0.0
                && float.abs() < 9e15
            {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(|field| {
            // null is the same as absent, which lists and maps can only be by not being there
            whole_numbers(field);
        }),
        _ => {}
    }
    if let Value::Object(fields) = value {
        fields.retain(|_, field| !field.is_null());
    }
}

pub(crate) fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true})
}

pub(crate) fn http_statuses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "integer", "minimum": 100, "maximum": 599}})
}

pub(crate) fn match_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 4096,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": [
                {"rule": "!self.contains('*')", "message": "wildcard not allowed in label value match"},
            ],
        },
        "x-kubernetes-validations": [
            {"rule": "self.all(key, !key.contains('*'))", "message": "wildcard not allowed in label key match"},
            {"rule": "self.all(key, key.size() != 0)", "message": "key must not be empty"},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networking::virtual_service::StringMatch;

    #[test]
    fn alternatives_become_one_of() {
        let schema = published(structural::<StringMatch>());
        assert_eq!(
            schema["oneOf"],
            json!([
                {"not": {"anyOf": [{"required": ["exact"]}, {"required": ["prefix"]}, {"required": ["regex"]}]}},
                {"required": ["exact"]}, {"required": ["prefix"]}, {"required": ["regex"]},
            ])
        );
        assert_eq!(schema["properties"]["exact"]["type"], "string");
        assert!(schema.get(AT_MOST_ONE_OF).is_none());
    }
}
