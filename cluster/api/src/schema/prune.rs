//! Pruning and defaulting.

use super::{Kind, Schema};
use serde_json::Value;

/// See [`Schema::prune`].
pub(super) fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(schema, object, "", &mut unknown);
    unknown
}

fn walk(schema: &Schema, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let may_prune = schema.0.builtin || schema.kind() == Kind::Object;
            map.retain(|name, child| {
                let Some(field) = schema.field(name) else {
                    if may_prune {
                        unknown.push(join(path, name));
                    }
                    return !may_prune;
                };
                let path = join(path, name);
                walk(field.schema, child, &path, unknown);
                !schema.0.builtin || schema.0.preserve || is_stored(field, child)
            });
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(schema.items(), item, &format!("{path}[{index}]"), unknown);
            }
        }
        Value::Number(number) => {
            // `2.0` is an integer to Kubernetes. Beyond this a double has no exact integers.
            const EXACT: f64 = 9_007_199_254_740_992.0;
            if let Some(float) = number
                .as_f64()
                .filter(|f| number.is_f64() && f.fract() == 0.0 && f.abs() < EXACT)
            {
                *value = Value::from(float as i64);
            }
        }
        _ => {}
    }
}

/// Whether the server writes such a value out again: empty fields may vanish in its types.
fn is_stored(field: super::Field<'_>, value: &Value) -> bool {
    match value {
        Value::Null => false,
        _ if !field.fleeting || field.schema.kind() == Kind::Any => true,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        // A struct is always written.
        Value::Object(map) => !map.is_empty() || field.schema.0.additional.is_none(),
    }
}

/// See [`Schema::set_defaults`].
pub(super) fn set_defaults(schema: &Schema, value: &mut Value) {
    if schema.0.builtin {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, child) in &schema.0.properties {
                if let Some(default) = child.default() {
                    // A null that the schema does not allow gives way to the default.
                    let missing = map
                        .get(&**name)
                        .is_none_or(|v| v.is_null() && !child.schema().0.nullable);
                    if missing {
                        map.insert(name.to_string(), default.clone());
                    }
                }
            }
            map.retain(|name, child| {
                let Some(field) = schema.field(name) else { return true };
                if child.is_null() && !field.schema.0.nullable && field.schema.kind() != Kind::Any {
                    // A null that the schema does not allow is as good as absent.
                    let Some(default) = field.default else { return false };
                    *child = default.clone();
                }
                set_defaults(field.schema, child);
                true
            });
        }
        Value::Array(items) => {
            for item in items {
                let default = schema.0.items.as_ref().and_then(super::node::Child::default);
                if let Some(default) = default.filter(|_| item.is_null() && !schema.items().0.nullable) {
                    *item = default.clone();
                }
                set_defaults(schema.items(), item);
            }
        }
        _ => {}
    }
}

/// `a.b`; the first segment stands alone.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
