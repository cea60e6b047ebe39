//! Validation of custom resources: the checks of the structural schema, then list types, then CEL.

use super::node::Node;
use super::prune::join;
use super::{ErrorKind, FieldError, Kind, ListType, Schema, format};
use serde_json::Value;

mod checks;
mod structure;

pub(crate) use checks::Checks;
use checks::Limit;
use structure::{embedded, list_types};

/// See [`Schema::validate`].
pub(super) fn validate(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if schema.0.builtin {
        return Vec::new();
    }
    let mut errors = Vec::new();
    node(&schema.0, new, old, "", &mut errors);
    embedded(schema, new, "", true, &mut errors);
    let was_unique = old.is_none_or(|old| {
        let mut before = Vec::new();
        list_types(schema, old, "", &mut before);
        before.is_empty()
    });
    if was_unique {
        list_types(schema, new, "", &mut errors);
    }
    let blocking = |error: &FieldError| {
        matches!(
            error.kind,
            ErrorKind::Required
                | ErrorKind::TooLong
                | ErrorKind::TooMany
                | ErrorKind::TypeInvalid
                | ErrorKind::NotSupported
        )
    };
    if errors.iter().any(blocking) {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors \
                      to complete validation";
        errors.push(FieldError::invalid("<nil>", Value::Null, detail));
    } else {
        super::cel::validate(schema, new, old, "", &mut errors);
    }
    errors
}

/// Only the checks of the schema itself.
pub(super) fn plain(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    node(&schema.0, value, None, "", &mut errors);
    errors
}

/// The value in `old` that an item or a key of `new` continues: lists only by their keys.
pub(super) fn old_item<'a>(schema: &Schema, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let ListType::Map(keys) = schema.list_type() else {
        return None;
    };
    let same = |candidate: &&Value| keys.iter().all(|key| candidate.get(&**key) == item.get(&**key));
    old?.as_array()?.iter().find(same)
}

pub(super) fn old_field<'a>(schema: &Schema, name: &str, old: Option<&'a Value>) -> Option<&'a Value> {
    old.filter(|_| !schema.is_atomic_map())?.get(name)
}

/// How an error names its field: within a message the root's children have no leading dot, but may have a key with one.
struct Place<'a> {
    path: &'a str,
    errors: &'a mut Vec<FieldError>,
}

impl Place<'_> {
    fn push(&mut self, kind: ErrorKind, value: Option<Value>, detail: String) {
        let field = if self.path.is_empty() {
            "<nil>".to_owned()
        } else {
            self.path.to_owned()
        };
        let error = FieldError {
            kind,
            field,
            value,
            detail,
        };
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// An error about the value that quotes it.
    fn invalid(&mut self, value: &Value, rule: std::fmt::Arguments<'_>) {
        let detail = format!("{} in body {rule}", self.path);
        self.push(ErrorKind::Invalid, Some(value.clone()), detail);
    }

    /// An error of a combination of schemas, which has no field.
    fn combination(&mut self, rule: std::fmt::Arguments<'_>) {
        let error = FieldError::invalid("<nil>", "", format!("{:?} {rule}", self.path));
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }
}

fn node(node: &Node, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let before = errors.len();
    check(node, value, old, path, errors);
    // Ratcheting: what was there before and has not changed is let through. The root's kind and version are always new.
    if errors.len() > before && old == Some(value) {
        errors.truncate(before);
    }
}

fn check(node: &Node, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let mut place = Place { path, errors };
    types(node, value, &mut place);
    let Some(checks) = node.checks.as_deref() else {
        if !value.is_null() {
            children(node, value, old, path, errors);
        }
        return;
    };
    if !value.is_null() {
        combinations(checks, value, path, place.errors);
        scalar(checks, value, &mut place);
    }
    if let Value::Array(_) = value {
        children(node, value, old, path, place.errors);
    }
    let mut place = Place { path, errors };
    sizes(checks, value, &mut place);
    let may_be_null = value.is_null() && node.nullable;
    if !(checks.one_of_values.is_empty() || checks.one_of_values.contains(value) || may_be_null) {
        let allowed: Vec<String> = checks
            .one_of_values
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        let error = FieldError::not_supported(path, value.clone(), &allowed);
        place.push(error.kind, error.value, error.detail);
    }
    if let Value::Object(_) = value {
        children(node, value, old, path, errors);
    }
}

fn types(node: &Node, value: &Value, place: &mut Place<'_>) {
    let word = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let whole = value.as_f64().is_some_and(|n| n.fract() == 0.0);
    let format = node.format.as_deref().filter(|name| format::is_known(name));
    let (fits, wanted) = match node.kind {
        Kind::Any | Kind::Quantity => return formatted(node, value, place),
        Kind::Object => (value.is_object(), "object"),
        Kind::Array => (value.is_array(), "array"),
        Kind::String => (value.is_string(), "string"),
        Kind::Boolean => (value.is_boolean(), "boolean"),
        Kind::Integer => (whole, "integer"),
        Kind::Number => (value.is_number(), "number"),
        Kind::IntOrString => (whole || value.is_string(), "integer,string"),
    };
    if fits || value.is_null() && node.nullable {
        return formatted(node, value, place);
    }
    // A value of another type than a formatted one is told by the format.
    let (wanted, shown) = match format {
        Some(name) if matches!(value, Value::Bool(_) | Value::Object(_)) => (name, ""),
        Some(name) if value.is_number() => (name, if word == "integer" { "int64" } else { "double" }),
        _ => (wanted, word),
    };
    let detail = format!("{} in body must be of type {wanted}: {shown:?}", place.path);
    place.push(ErrorKind::TypeInvalid, Some(shown.into()), detail);
}

fn formatted(node: &Node, value: &Value, place: &mut Place<'_>) {
    if let (Some(name), Value::String(text)) = (node.format.as_deref(), value)
        && !format::fits(name, text)
    {
        let detail = format!("{} in body must be of type {name}: {text:?}", place.path);
        place.push(ErrorKind::TypeInvalid, Some(value.clone()), detail);
    }
}

/// Of the branches that failed, the errors of the one that looked at most of the value.
fn best(branches: &[Node], outcomes: Vec<Vec<FieldError>>, value: &Value) -> Vec<FieldError> {
    fn looked_at(node: &Node, value: &Value) -> usize {
        let below: usize = match value {
            Value::Object(map) => map
                .iter()
                .filter_map(|(name, value)| Some(looked_at(&node.property(name)?.schema().0, value)))
                .sum(),
            _ => 0,
        };
        1 + below
    }
    let mut pairs: Vec<_> = branches
        .iter()
        .map(|branch| looked_at(branch, value))
        .zip(outcomes)
        .collect();
    // Stable: of equals the first.
    pairs.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    pairs.into_iter().next().map(|(_, errors)| errors).unwrap_or_default()
}

fn combinations(checks: &Checks, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let outcome = |branch: &Node| {
        let mut errors = Vec::new();
        check(branch, value, None, path, &mut errors);
        errors
    };
    if !checks.any_of.is_empty() {
        let outcomes: Vec<_> = checks.any_of.iter().map(outcome).collect();
        if !outcomes.iter().any(Vec::is_empty) {
            Place { path, errors }.combination(format_args!("must validate at least one schema (anyOf)"));
            errors.extend(best(&checks.any_of, outcomes, value));
        }
    }
    if !checks.one_of.is_empty() {
        let outcomes: Vec<_> = checks.one_of.iter().map(outcome).collect();
        match outcomes.iter().filter(|errors| errors.is_empty()).count() {
            1 => {}
            0 => {
                let rule = format_args!("must validate one and only one schema (oneOf). Found none valid");
                Place { path, errors }.combination(rule);
                errors.extend(best(&checks.one_of, outcomes, value));
            }
            several => Place { path, errors }.combination(format_args!(
                "must validate one and only one schema (oneOf). Found {several} valid alternatives"
            )),
        }
    }
    if !checks.all_of.is_empty() {
        let outcomes: Vec<_> = checks.all_of.iter().map(outcome).collect();
        let valid = outcomes.iter().filter(|errors| errors.is_empty()).count();
        let all = valid == outcomes.len();
        errors.extend(outcomes.into_iter().flatten());
        if !all {
            let none = if valid == 0 { ". None validated" } else { "" };
            Place { path, errors }.combination(format_args!("must validate all the schemas (allOf){none}"));
        }
    }
    if checks.not.as_deref().is_some_and(|not| outcome(not).is_empty()) {
        Place { path, errors }.combination(format_args!("must not validate the schema (not)"));
    }
}

fn scalar(checks: &Checks, value: &Value, place: &mut Place<'_>) {
    if let Value::String(text) = value {
        // Only the first of these is told.
        let length = text.chars().count() as u64;
        if let Some(max) = checks.max_length.filter(|max| length > *max) {
            place.push(ErrorKind::TooLong, None, format!("may not be more than {max} bytes"));
        } else if let Some(min) = checks.min_length.filter(|min| length < *min) {
            place.invalid(value, format_args!("should be at least {min} chars long"));
        } else if let Some((pattern, regex)) = &checks.pattern
            && !regex.as_ref().is_some_and(|regex| regex.is_match(text))
        {
            place.invalid(value, format_args!("should match '{pattern}'"));
        }
    }
    if let Some(number) = value.as_f64() {
        if let Some(factor) = checks.multiple_of.filter(|factor| (number / factor).fract() != 0.0) {
            place.invalid(value, format_args!("should be a multiple of {factor}"));
        }
        if let Some(Limit { value: max, exclusive }) = &checks.maximum
            && (number > *max || *exclusive && number == *max)
        {
            let or_equal = if *exclusive { "" } else { " or equal to" };
            place.invalid(value, format_args!("should be less than{or_equal} {max}"));
        }
        if let Some(Limit { value: min, exclusive }) = &checks.minimum
            && (number < *min || *exclusive && number == *min)
        {
            let or_equal = if *exclusive { "" } else { " or equal to" };
            place.invalid(value, format_args!("should be greater than{or_equal} {min}"));
        }
    }
}

fn sizes(checks: &Checks, value: &Value, place: &mut Place<'_>) {
    let (size, min, max, noun) = match value {
        Value::Array(items) => (items.len(), checks.min_items, checks.max_items, "items"),
        Value::Object(map) => (map.len(), checks.min_properties, checks.max_properties, "properties"),
        _ => return,
    };
    if let Some(min) = min.filter(|min| (size as u64) < *min) {
        place.invalid(&size.into(), format_args!("should have at least {min} {noun}"));
    }
    if let Some(max) = max.filter(|max| size as u64 > *max) {
        let error = FieldError::too_many("", size, max);
        place.push(error.kind, error.value, error.detail);
    }
}

fn children(parent: &Node, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    // Correlation asks the schema, which the branches of combinations do not describe.
    match value {
        Value::Array(items) => {
            let Some(child) = &parent.items else { return };
            for (index, item) in items.iter().enumerate() {
                let previous = match &parent.list {
                    ListType::Map(keys) => old.and_then(Value::as_array).and_then(|old| {
                        old.iter()
                            .find(|o| keys.iter().all(|key| o.get(&**key) == item.get(&**key)))
                    }),
                    _ => None,
                };
                node(&child.schema().0, item, previous, &format!("{path}[{index}]"), errors);
            }
        }
        Value::Object(map) => {
            let old = old.filter(|_| !parent.atomic_map);
            for (name, child) in map {
                let Some(field) = parent.field(name) else { continue };
                if parent.embedded_name(name) {
                    continue;
                }
                node(
                    &field.schema.0,
                    child,
                    old.and_then(|old| old.get(name)),
                    &join(path, name),
                    errors,
                );
            }
            for name in &parent.required {
                if !map.contains_key(&**name) {
                    let path = join(path, name);
                    Place { path: &path, errors }.push(ErrorKind::Required, None, String::new());
                }
            }
        }
        _ => {}
    }
}

impl Node {
    /// `metadata` of a resource is checked by other rules.
    fn embedded_name(&self, name: &str) -> bool {
        name == "metadata" && self.field(name).is_some_and(|field| field.schema.0.builtin)
    }
}
