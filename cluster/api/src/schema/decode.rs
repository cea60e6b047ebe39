//! The errors with which the server's decoder refuses values of the wrong type, which name its own types.

use super::{Kind, Schema};
use serde_json::Value;

/// See [`Schema::decode_error`].
pub(super) fn error(schema: &Schema, object: &Value) -> Option<String> {
    walk(schema, object, "", "")
}

/// `owner` is the Go struct that has the field, `path` the field's JSON path without indices.
fn walk(schema: &Schema, value: &Value, owner: &str, path: &str) -> Option<String> {
    if schema.kind() == Kind::Any || value.is_null() {
        return None;
    }
    let fits = match (schema.kind(), value) {
        (Kind::Object, Value::Object(_))
        | (Kind::Array, Value::Array(_))
        | (Kind::Boolean, Value::Bool(_))
        | (Kind::Number | Kind::Quantity, Value::Number(_)) => true,
        (Kind::String, Value::String(text)) => return text_error(schema, text),
        (Kind::Quantity, Value::String(text)) => return (!is_quantity(text)).then(|| QUANTITY.to_owned()),
        (Kind::IntOrString, Value::String(_)) => true,
        (Kind::Integer | Kind::IntOrString, Value::Number(number)) => {
            let whole = number.as_i64();
            let fits = match schema.0.format.as_deref() {
                Some("int32" | "int-or-string") => whole.is_some_and(|n| i32::try_from(n).is_ok()),
                _ => whole.is_some(),
            };
            if !fits {
                return Some(unmarshal(&format!("number {number}"), owner, path, &go_type(schema)));
            }
            true
        }
        _ => false,
    };
    if !fits {
        let wanted = match schema.kind() {
            Kind::Quantity => return Some(QUANTITY.to_owned()),
            Kind::String if is_time(schema) => "string".to_owned(),
            Kind::IntOrString => "int32".to_owned(),
            _ => go_type(schema),
        };
        return Some(unmarshal(word(value), owner, path, &wanted));
    }
    match value {
        Value::Object(map) => {
            let own = schema.0.name.as_deref().map(short);
            map.iter().find_map(|(name, child)| {
                let field = schema.field(name)?;
                match (own, schema.0.additional.is_some()) {
                    (_, true) => walk(field.schema, child, owner, path),
                    (own, _) => walk(
                        field.schema,
                        child,
                        own.unwrap_or(owner),
                        &super::prune::join(path, name),
                    ),
                }
            })
        }
        Value::Array(items) => items.iter().find_map(|item| walk(schema.items(), item, owner, path)),
        _ => None,
    }
}

const QUANTITY: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

fn is_quantity(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number_fits = number.chars().any(|c| c.is_ascii_digit()) && number.matches('.').count() <= 1;
    let suffix_fits = match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => true,
        _ => suffix
            .strip_prefix(['e', 'E'])
            .is_some_and(|exponent| exponent.parse::<i32>().is_ok()),
    };
    number_fits && suffix_fits
}

fn is_time(schema: &Schema) -> bool {
    schema.0.format.as_deref() == Some("date-time")
}

fn text_error(schema: &Schema, text: &str) -> Option<String> {
    match schema.0.format.as_deref() {
        Some("date-time") if !super::format::is_date_time(text) => Some(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
        )),
        Some("byte") => {
            let at = text
                .bytes()
                .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'\n' | b'\r')));
            let at = at.or_else(|| {
                let length = text.bytes().filter(|b| !matches!(b, b'\n' | b'\r')).count();
                (length % 4 != 0).then(|| length - length % 4)
            });
            at.map(|at| format!("illegal base64 data at input byte {at}"))
        }
        _ => None,
    }
}

fn unmarshal(what: &str, owner: &str, path: &str, wanted: &str) -> String {
    if owner.is_empty() {
        return format!("json: cannot unmarshal {what} into Go value of type {wanted}");
    }
    format!("json: cannot unmarshal {what} into Go struct field {owner}.{path} of type {wanted}")
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn go_type(schema: &Schema) -> String {
    match schema.kind() {
        Kind::Any => "interface {}".to_owned(),
        Kind::Boolean => "bool".to_owned(),
        Kind::Integer => schema.0.format.as_deref().unwrap_or("int64").to_owned(),
        Kind::Number => "float64".to_owned(),
        Kind::Quantity => "resource.Quantity".to_owned(),
        Kind::IntOrString => "intstr.IntOrString".to_owned(),
        Kind::String if is_time(schema) => "v1.Time".to_owned(),
        Kind::String if schema.0.format.as_deref() == Some("byte") => "[]uint8".to_owned(),
        Kind::String => "string".to_owned(),
        Kind::Array => format!("[]{}", go_type(schema.items())),
        Kind::Object => match (&schema.0.name, &schema.0.additional) {
            (Some(name), _) => {
                let mut parts = name.rsplit('.');
                let kind = parts.next().unwrap_or_default();
                format!("{}.{kind}", parts.next().unwrap_or_default())
            }
            (None, Some(child)) => format!("map[string]{}", go_type(child.schema())),
            (None, None) => "map[string]interface {}".to_owned(),
        },
    }
}
