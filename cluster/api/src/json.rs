//! Reaching into JSON objects.

use serde_json::{Map, Value};

/// The text at a JSON pointer, empty where there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a JSON pointer, empty where there is none.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The texts of a list at a JSON pointer.
pub fn texts(value: &Value, pointer: &str) -> Vec<String> {
    list(value, pointer)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Whether the value at a JSON pointer is true.
pub fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a JSON pointer, to change its items.
pub fn items<'a>(value: &'a mut Value, pointer: &str) -> std::slice::IterMut<'a, Value> {
    match value.pointer_mut(pointer).and_then(Value::as_array_mut) {
        Some(list) => list.iter_mut(),
        None => [].iter_mut(),
    }
}

/// The object in a field, made where there is none; what is no object becomes one.
pub fn object<'a>(value: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    let inner = as_object(value).entry(field).or_insert(Value::Null);
    as_object(inner)
}

/// The value as an object; what is none becomes an empty one.
#[expect(
    clippy::unreachable,
    reason = "made an object one line above, which the compiler cannot see"
)]
pub fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// Sets a field that is missing or null.
pub fn default(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), value.into());
    }
}

/// Sets a field of an object that is missing or null; does nothing to what is no object.
pub fn default_in(value: &mut Value, field: &str, wanted: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        default(map, field, wanted);
    }
}

/// Sets or, with `None`, removes a field.
pub fn put(map: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            map.insert(field.to_owned(), value);
        }
        None => {
            map.remove(field);
        }
    }
}

/// A value at a JSON pointer, set; objects on the way are made.
pub fn set(value: &mut Value, pointer: &str, wanted: impl Into<Value>) {
    let mut place = value;
    for part in pointer.split('/').skip(1) {
        let field = part.replace("~1", "/").replace("~0", "~");
        place = as_object(place).entry(field).or_insert(Value::Null);
    }
    *place = wanted.into();
}
