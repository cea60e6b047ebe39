//! What schema and values say about field sets: which fields there are, which changed, how two objects merge.

use super::set::{Element, FieldSet};
use crate::schema::{Kind, ListType, Schema, go_print, go_syntax};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// What differs between two objects.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

/// How a value is owned.
enum Shape<'a> {
    /// As a whole.
    Leaf,
    /// Key by key.
    Map(&'a Map<String, Value>),
    /// Item by item.
    List(&'a [Value]),
}

fn shape<'a>(schema: &Schema, value: &'a Value) -> Shape<'a> {
    match value {
        Value::Object(map) if !schema.is_atomic_map() && matches!(schema.kind(), Kind::Object | Kind::Any) => {
            Shape::Map(map)
        }
        Value::Array(items) if *schema.list_type() != ListType::Atomic => Shape::List(items),
        _ => Shape::Leaf,
    }
}

fn child<'a>(schema: &'a Schema, name: &str) -> &'a Schema {
    schema.field(name).map_or(Schema::any(), |field| field.schema)
}

/// The element of a list's item; keys that are missing count with their default.
fn item_element(schema: &Schema, item: &Value) -> Element {
    let ListType::Map(keys) = schema.list_type() else {
        return Element::value(item);
    };
    let mut map = Map::new();
    for key in keys {
        let default = || schema.items().field(key).and_then(|field| field.default).cloned();
        if let Some(value) = item.get(&**key).cloned().or_else(default) {
            map.insert(key.to_string(), value);
        }
    }
    Element::key(map)
}

/// The fields of an object.
pub(super) fn field_set(schema: &Schema, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    match shape(schema, value) {
        Shape::Leaf => {}
        Shape::Map(map) => {
            for (name, value) in map {
                let (below, element) = (child(schema, name), Element::field(name));
                let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if is_empty || !schema.declares(name) || matches!(shape(below, value), Shape::Leaf) {
                    set.insert(element.clone());
                }
                set.adopt(element, field_set(below, value));
            }
        }
        Shape::List(items) => {
            for item in items {
                let element = item_element(schema, item);
                set.insert(element.clone());
                set.adopt(element, field_set(schema.items(), item));
            }
        }
    }
    set
}

/// Compares two objects.
pub(super) fn compare(schema: &Schema, old: &Value, new: &Value) -> Comparison {
    let mut result = Comparison::default();
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => compare_maps(schema, old, new, &mut result),
        (Value::Array(old), Value::Array(new)) => compare_lists(schema, old, new, &mut result),
        _ => {}
    }
    result
}

/// Compares what is at one element, where it is absent on at most one side.
fn compare_at(schema: &Schema, element: Element, old: Option<&Value>, new: Option<&Value>, result: &mut Comparison) {
    let empty = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    let leaf = |value: &Value| matches!(shape(schema, value), Shape::Leaf);
    let mut below = Comparison::default();
    match (old, new) {
        (None, None) => return,
        (Some(old), Some(new)) => {
            let both_empty = empty(Some(old)) && empty(Some(new));
            if old.is_null() && !both_empty && !leaf(new) {
                let below = compare(schema, blank(new), new);
                result.added.adopt(element, below.added);
                return;
            }
            if both_empty || leaf(old) && leaf(new) {
                if old != new {
                    result.modified.insert(element);
                }
                return;
            }
            if leaf(old) || leaf(new) || old.is_array() != new.is_array() {
                // Free-form values may change their shape: all that was below goes, all that is comes.
                result.modified.insert(element.clone());
                if !leaf(old) {
                    result
                        .removed
                        .adopt(element.clone(), compare(schema, old, blank(old)).removed);
                }
                if !leaf(new) {
                    result.added.adopt(element, compare(schema, blank(new), new).added);
                }
                return;
            }
            below = compare(schema, old, new);
        }
        (None, Some(value)) => {
            result.added.insert(element.clone());
            if !empty(new) && !leaf(value) {
                below = compare(schema, blank(value), value);
            }
        }
        (Some(value), None) => {
            result.removed.insert(element.clone());
            if !empty(old) && !leaf(value) {
                below = compare(schema, value, blank(value));
            }
        }
    }
    result.added.adopt(element.clone(), below.added);
    result.modified.adopt(element.clone(), below.modified);
    result.removed.adopt(element, below.removed);
}

/// Nothing, of the type of a value; its own children are then all added or removed.
fn blank(value: &Value) -> &'static Value {
    static EMPTY_LIST: Value = Value::Array(Vec::new());
    if value.is_array() { &EMPTY_LIST } else { &ABSENT }
}

/// An object that is not there: unlike an empty one it has no fields that are always there.
static ABSENT: LazyLock<Value> = LazyLock::new(|| {
    let mut map = Map::new();
    map.insert(NOT_THERE.to_owned(), Value::Null);
    Value::Object(map)
});
const NOT_THERE: &str = "\0";

fn compare_maps(schema: &Schema, old: &Map<String, Value>, new: &Map<String, Value>, result: &mut Comparison) {
    let both_there = !old.contains_key(NOT_THERE) && !new.contains_key(NOT_THERE);
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    for name in names.filter(|name| *name != NOT_THERE) {
        let stand_in = schema.stand_in(name).filter(|_| both_there);
        let (old, new) = (old.get(name).or(stand_in), new.get(name).or(stand_in));
        compare_at(child(schema, name), Element::field(name), old, new, result);
    }
}

fn compare_lists(schema: &Schema, old: &[Value], new: &[Value], result: &mut Comparison) {
    let mut items: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in old {
        items.entry(item_element(schema, item)).or_default().0.push(item);
    }
    for item in new {
        items.entry(item_element(schema, item)).or_default().1.push(item);
    }
    for (element, (old, new)) in items {
        match (old.as_slice(), new.as_slice()) {
            ([] | [_], [] | [_]) => {
                compare_at(
                    schema.items(),
                    element,
                    old.first().copied(),
                    new.first().copied(),
                    result,
                );
            }
            // Items that are there twice have one owner.
            ([], _) => result.added.insert(element),
            (_, []) => result.removed.insert(element),
            (old, new) if old != new => result.modified.insert(element),
            _ => {}
        }
    }
}

/// Merges an applied configuration into an object.
pub(super) fn merge(schema: &Schema, live: &Value, config: &Value) -> Value {
    match (shape(schema, live), shape(schema, config)) {
        (Shape::Map(old), Shape::Map(new)) => {
            let mut merged = old.clone();
            for (name, value) in new {
                let value = match old.get(name) {
                    Some(old) => merge(child(schema, name), old, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Shape::List(old), Shape::List(new)) => Value::Array(merge_lists(schema, old, new)),
        _ => config.clone(),
    }
}

/// Merges two lists item by item: the configuration's order rules, and what only the object has stays before the item that it
/// preceded.
fn merge_lists(schema: &Schema, old: &[Value], new: &[Value]) -> Vec<Value> {
    let left: Vec<Element> = old.iter().map(|item| item_element(schema, item)).collect();
    let right: Vec<Element> = new.iter().map(|item| item_element(schema, item)).collect();
    let places: BTreeMap<&Element, usize> = left
        .iter()
        .enumerate()
        .rev()
        .map(|(at, element)| (element, at))
        .collect();
    let wanted: BTreeSet<&Element> = right.iter().collect();
    let mut shared = right.iter().filter(|element| places.contains_key(element));
    let mut next_shared = shared.next();
    let mut merged: BTreeSet<&Element> = BTreeSet::new();
    let mut out = Vec::new();
    let (mut l, mut r) = (0, 0);
    let both = |element: &Element, item: &Value| {
        let before = places.get(element).and_then(|at| old.get(*at));
        before.map_or_else(|| item.clone(), |before| merge(schema.items(), before, item))
    };
    loop {
        match (left.get(l), right.get(r)) {
            (None, None) => return out,
            (Some(a), Some(b)) if a == b => {
                out.extend(new.get(r).map(|item| both(b, item)));
                merged.insert(b);
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            // An item of both, but not the one that comes next.
            (Some(a), Some(_)) if wanted.contains(a) && next_shared.is_some_and(|next| next != a) => {
                l += 1;
                continue;
            }
            _ => {}
        }
        if let Some(a) = left.get(l) {
            if !wanted.contains(a) {
                out.extend(old.get(l).cloned());
                l += 1;
                continue;
            }
            if merged.contains(a) {
                l += 1;
            }
        }
        if let (Some(b), Some(item)) = (right.get(r), new.get(r)) {
            out.push(both(b, item));
            merged.insert(b);
            r += 1;
            if next_shared == Some(b) {
                next_shared = shared.next();
            }
        }
    }
}

/// The object without the fields of a set; `None` where nothing is left.
pub(super) fn remove(schema: &Schema, value: &Value, gone: &FieldSet) -> Option<Value> {
    match shape(schema, value) {
        Shape::Leaf => Some(value.clone()),
        Shape::Map(map) => {
            let mut left = Map::new();
            for (name, value) in map {
                let element = Element::field(name);
                if gone.has(&element) {
                    continue;
                }
                match gone.below(&element) {
                    Some(below) => {
                        left.extend(remove(child(schema, name), value, below).map(|value| (name.clone(), value)));
                    }
                    None => left.extend([(name.clone(), value.clone())]),
                }
            }
            (!left.is_empty() || map.is_empty()).then_some(Value::Object(left))
        }
        Shape::List(items) => {
            let mut left = Vec::new();
            for item in items {
                let element = item_element(schema, item);
                if gone.has(&element) {
                    continue;
                }
                match gone.below(&element) {
                    Some(below) => left.extend(remove(schema.items(), item, below)),
                    None => left.push(item.clone()),
                }
            }
            (!left.is_empty() || items.is_empty()).then_some(Value::Array(left))
        }
    }
}

/// What keeps a configuration from being applied.
pub(super) fn check(schema: &Schema, config: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    check_at(schema, config, "", &mut errors);
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("errors:\n  {}", several.join("\n  "))),
    }
}

fn check_at(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<String>) {
    match (schema.kind(), value) {
        (Kind::Any, _) | (_, Value::Null) => {}
        (Kind::Object, Value::Object(map)) => {
            for (name, value) in map {
                let path = format!("{path}.{name}");
                match schema.field(name) {
                    Some(field) => check_at(field.schema, value, &path, errors),
                    None => errors.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        (Kind::Array, Value::Array(items)) => check_items(schema, items, path, errors),
        (Kind::Object, _) => errors.push(format!("{path}: expected map, got &{{{}}}", go_print(value))),
        (Kind::Array, _) => errors.push(format!("{path}: expected list, got &{{{}}}", go_print(value))),
        (Kind::Integer | Kind::Number, Value::Number(_))
        | (Kind::String, Value::String(_))
        | (Kind::Boolean, Value::Bool(_))
        | (Kind::IntOrString | Kind::Quantity, Value::Number(_) | Value::String(_) | Value::Bool(_)) => {}
        (Kind::Integer | Kind::Number, _) => {
            errors.push(format!(
                "{path}: expected numeric (int or float), got {}",
                go_type(value)
            ));
        }
        (Kind::String, _) => {
            errors.push(format!(
                "{path}: expected string, got &value.valueUnstructured{{Value:{}}}",
                go_value(value)
            ));
        }
        (Kind::Boolean, _) => errors.push(format!("{path}: expected boolean, got &{{{}}}", go_print(value))),
        (Kind::IntOrString | Kind::Quantity, _) => {
            errors.push(format!("{path}: expected any scalar, got &{{{}}}", go_print(value)));
        }
    }
}

fn check_items(schema: &Schema, items: &[Value], path: &str, errors: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let mut step = format!("[{index}]");
        if *schema.list_type() != ListType::Atomic {
            if let ListType::Map(keys) = schema.list_type() {
                if !item.is_object() {
                    errors.push(format!(
                        "{path}: element {index}: associative list with keys may not have non-map elements"
                    ));
                    continue;
                }
                let has_default = |key: &str| schema.items().field(key).is_some_and(|field| field.default.is_some());
                if let Some(key) = keys.iter().find(|key| item.get(&***key).is_none() && !has_default(key)) {
                    errors.push(format!(
                        "{path}: element {index}: associative list with keys has an element that omits key field {key:?} (and \
                         doesn't have default value)"
                    ));
                    continue;
                }
            }
            let element = item_element(schema, item);
            step = element.to_string();
            if !seen.insert(element) {
                errors.push(format!("{path}: duplicate entries for key {step}"));
            }
        }
        check_at(schema.items(), item, &format!("{path}{step}"), errors);
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go's `%#v` shows it.
fn go_value(value: &Value) -> String {
    let mut text = String::new();
    go_syntax(value, &mut text, false);
    text
}
