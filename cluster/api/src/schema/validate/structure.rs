//! Embedded resources and the types of lists.

use super::super::prune::join;
use super::super::{FieldError, ListType, Schema};
use serde_json::{Map, Value};

/// Embedded resources must say what they are.
pub(super) fn embedded(schema: &Schema, value: &Value, path: &str, is_root: bool, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            if schema.0.embedded && !is_root {
                type_meta(map, path, errors);
            }
            for (name, child) in map {
                if let Some(field) = schema.field(name).filter(|field| !field.schema.0.builtin) {
                    embedded(field.schema, child, &join(path, name), false, errors);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                embedded(schema.items(), item, &format!("{path}[{index}]"), false, errors);
            }
        }
        _ => {}
    }
}

fn type_meta(map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    for name in ["apiVersion", "kind"] {
        let field = join(path, name);
        match map.get(name) {
            None => errors.push(FieldError::required(field, "must not be empty")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(field, "", "must not be empty"));
            }
            Some(Value::String(_)) => {}
            Some(other) => errors.push(FieldError::invalid(field, other.clone(), "must be a string")),
        }
    }
}

/// Lists of type `set` and `map` have no item twice.
pub(super) fn list_types(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                if let Some(field) = schema.field(name).filter(|field| !field.schema.0.builtin) {
                    list_types(field.schema, child, &join(path, name), errors);
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type() {
                ListType::Atomic => {}
                ListType::Set => duplicates(items.to_vec(), path, errors),
                ListType::Map(keys) => {
                    if let Some(index) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
                        let value = items.get(index).cloned().unwrap_or_default();
                        let detail = "must be an object for an array of list-type map";
                        return errors.push(FieldError::invalid(format!("{path}[{index}]"), value, detail));
                    }
                    let key = |item: &Value| {
                        let present = keys
                            .iter()
                            .filter_map(|k| Some((k.to_string(), item.get(&**k)?.clone())));
                        Value::Object(present.collect())
                    };
                    duplicates(items.iter().map(key).collect(), path, errors);
                }
            }
            for (index, item) in items.iter().enumerate() {
                list_types(schema.items(), item, &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

/// Reports the second appearance of each value, not the third.
fn duplicates(values: Vec<Value>, path: &str, errors: &mut Vec<FieldError>) {
    for (index, value) in values.iter().enumerate() {
        if values.iter().take(index).filter(|earlier| *earlier == value).count() == 1 {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), value.clone()));
        }
    }
}
