//! The strategic merge patch.

use super::PatchError;
use crate::schema::{Kind, Schema, go_map, go_print};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Merges a patch into an object.
pub(super) fn merge(
    schema: &Schema,
    mut object: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) => match directive.as_str() {
            "replace" => {
                let mut replacement = patch.clone();
                replacement.remove(DIRECTIVE);
                return Ok(replacement);
            }
            "delete" => return Ok(Map::new()),
            "merge" => {}
            other => return Err(unknown_directive(other, patch)),
        },
        Some(other) => return Err(unknown_directive(&other.to_string(), patch)),
    }
    if let Some(retained) = patch.get(RETAIN_KEYS) {
        retain_keys(&mut object, retained, patch)?;
    }
    for (name, order) in patch {
        if let Some(field) = name.strip_prefix(ORDER) {
            let merged = ordered_list(schema, field, object.get(field), patch, order)?;
            match merged {
                Some(list) => object.insert(field.to_owned(), Value::Array(list)),
                None => None,
            };
        }
    }
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix(DELETE) {
            if let (Some(Value::Array(list)), Value::Array(gone)) = (object.get_mut(field), value) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        let is_directive = name == DIRECTIVE || name == RETAIN_KEYS || name.starts_with(ORDER);
        if is_directive || patch.contains_key(&format!("{ORDER}{name}")) {
            continue;
        }
        if value.is_null() {
            object.remove(name);
            continue;
        }
        let field = schema.field(name).map_or(Schema::any(), |field| field.schema);
        let merged = match (object.remove(name), value) {
            (Some(Value::Object(old)), Value::Object(patch)) => Value::Object(merge(field, old, patch)?),
            (None, Value::Object(patch)) => Value::Object(merge(field, Map::new(), patch)?),
            (Some(Value::Array(old)), Value::Array(patch)) => Value::Array(merge_list(field, old, patch)?),
            (None, Value::Array(patch)) => Value::Array(merge_list(field, Vec::new(), patch)?),
            (_, value) => value.clone(),
        };
        object.insert(name.clone(), merged);
    }
    Ok(object)
}

fn unknown_directive(directive: &str, patch: &Map<String, Value>) -> PatchError {
    PatchError::Failed(format!("unknown patch type: {directive} in map: {}", go_map(patch)))
}

/// Keeps only the keys that the patch lists, which must include all that it sets.
fn retain_keys(
    object: &mut Map<String, Value>,
    retained: &Value,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    let Value::Array(retained) = retained else {
        return Err(PatchError::Malformed("invalid patch format of retainKeys".to_owned()));
    };
    let is_retained = |name: &str| retained.iter().any(|key| key.as_str() == Some(name));
    let set = |(name, value): &(&String, &Value)| !name.starts_with('$') && !value.is_null();
    if patch.iter().filter(set).any(|(name, _)| !is_retained(name)) {
        return Err(PatchError::Malformed("invalid patch format of retainKeys".to_owned()));
    }
    object.retain(|name, _| is_retained(name));
    Ok(())
}

/// The list of a field for which the patch gives the order of its items.
fn ordered_list(
    schema: &Schema,
    field: &str,
    old: Option<&Value>,
    patch: &Map<String, Value>,
    order: &Value,
) -> Result<Option<Vec<Value>>, PatchError> {
    let list = schema.field(field).map_or(Schema::any(), |field| field.schema);
    let (Some(order), true) = (order.as_array(), matches!(list.kind(), Kind::Array | Kind::Any)) else {
        return Err(PatchError::Malformed(format!(
            "invalid patch format of setElementOrder list {field:?}"
        )));
    };
    let key = list.patch_merge_key().unwrap_or_default();
    let old_list = old.and_then(Value::as_array).cloned();
    let patch_list = patch.get(field).and_then(Value::as_array);
    if let Some(items) = patch_list {
        check_order(items, order, key)?;
    }
    let merged = match (old_list.clone(), patch_list) {
        (Some(old), Some(patch)) => merge_list(list, old, patch)?,
        (Some(old), None) => old,
        (None, Some(patch)) => merge_list(list, Vec::new(), patch)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(sort(merged, order, &old_list.unwrap_or_default(), key)))
}

/// Items of the patch must stand in the order list, in its order.
fn check_order(items: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    let kept = items.iter().filter(|item| item.get(DIRECTIVE).is_none());
    let mut remaining = order.iter();
    for item in kept {
        if !remaining.any(|candidate| same(candidate, item, key)) {
            let message = format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_print(&Value::Array(items.to_vec())),
                go_print(&Value::Array(order.to_vec()))
            );
            return Err(PatchError::Failed(message));
        }
    }
    Ok(())
}

fn merge_list(schema: &Schema, old: Vec<Value>, patch: &[Value]) -> Result<Vec<Value>, PatchError> {
    let Some(key) = schema.patch_merge_key() else {
        return Ok(patch.to_vec());
    };
    if !patch.iter().chain(&old).any(Value::is_object) || key.is_empty() {
        let mut merged = old.clone();
        for item in patch {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(sort(merged, patch, &old, ""));
    }
    let directive = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    if patch.iter().any(|item| directive(item).as_deref() == Some("replace")) {
        return Ok(patch.iter().filter(|item| directive(item).is_none()).cloned().collect());
    }
    let mut merged = old.clone();
    let mut set = Vec::new();
    for item in patch {
        let Value::Object(map) = item else {
            return Err(PatchError::Malformed(format!(
                "expected an object in a list merged by {key:?}: {item}"
            )));
        };
        let Some(value) = map.get(key) else {
            return Err(PatchError::Failed(format!(
                "map: {} does not contain declared merge key: {key}",
                go_map(map)
            )));
        };
        match directive(item).as_deref() {
            Some("delete") => merged.retain(|old| old.get(key) != Some(value)),
            None | Some("merge") => {
                let position = merged.iter().position(|old| old.get(key) == Some(value));
                let base = match position.and_then(|at| merged.get(at)) {
                    Some(Value::Object(old)) => old.clone(),
                    _ => Map::new(),
                };
                let result = Value::Object(merge(schema.items(), base, map)?);
                match position.and_then(|at| merged.get_mut(at)) {
                    Some(slot) => *slot = result,
                    None => merged.push(result),
                }
                set.push(item.clone());
            }
            Some(other) => return Err(unknown_directive(other, map)),
        }
    }
    Ok(sort(merged, &set, &old, key))
}

/// Whether two items are the same one.
fn same(a: &Value, b: &Value, key: &str) -> bool {
    if key.is_empty() {
        a == b
    } else {
        a.get(key).is_some() && a.get(key) == b.get(key)
    }
}

/// Brings the items that `order` names into its order and puts the others between them by the order they had.
fn sort(merged: Vec<Value>, order: &[Value], old: &[Value], key: &str) -> Vec<Value> {
    let index = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| index(order, item).is_some());
    named.sort_by_cached_key(|item| index(order, item));
    others.sort_by_cached_key(|item| index(old, item));
    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return sorted,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(named)) => {
                matches!((index(old, other), index(old, named)), (Some(a), Some(b)) if a < b)
            }
        };
        sorted.extend(if other_first { others.next() } else { named.next() });
    }
}
