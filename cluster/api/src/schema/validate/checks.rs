//! What a schema demands beyond types.

use super::super::cel::Rules;
use super::super::node::{self, Node, text};
use regex::Regex;
use serde_json::Value;

/// What a value must satisfy beyond its type.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(super) minimum: Option<Limit>,
    pub(super) maximum: Option<Limit>,
    pub(super) multiple_of: Option<f64>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,
    pub(super) pattern: Option<(Box<str>, Option<Regex>)>,
    pub(super) one_of_values: Box<[Value]>,
    pub(super) all_of: Box<[Node]>,
    pub(super) any_of: Box<[Node]>,
    pub(super) one_of: Box<[Node]>,
    pub(super) not: Option<Box<Node>>,
    pub(crate) rules: Option<Rules>,
}

#[derive(Debug)]
pub(super) struct Limit {
    pub(super) value: f64,
    pub(super) exclusive: bool,
}

impl Checks {
    /// `None` where a schema checks nothing but the type.
    pub(crate) fn read(raw: &Value) -> Option<Box<Checks>> {
        const NAMES: [&str; 16] = [
            "minimum",
            "maximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "pattern",
            "enum",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "x-kubernetes-validations",
        ];
        if !NAMES.iter().any(|name| raw.get(name).is_some()) {
            return None;
        }
        let count = |name: &str| raw.get(name).and_then(Value::as_u64);
        let limit = |name: &str, exclusive: &str| {
            let exclusive = raw.get(exclusive).and_then(Value::as_bool).unwrap_or_default();
            raw.get(name)
                .and_then(Value::as_f64)
                .map(|value| Limit { value, exclusive })
        };
        let branches = |name: &str| -> Box<[Node]> {
            raw.get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(node::custom)
                .collect()
        };
        Some(Box::new(Checks {
            minimum: limit("minimum", "exclusiveMinimum"),
            maximum: limit("maximum", "exclusiveMaximum"),
            multiple_of: raw.get("multipleOf").and_then(Value::as_f64),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            pattern: text(raw, "pattern").map(|pattern| (pattern.into(), Regex::new(pattern).ok())),
            one_of_values: raw
                .get("enum")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            all_of: branches("allOf"),
            any_of: branches("anyOf"),
            one_of: branches("oneOf"),
            not: raw.get("not").map(|raw| Box::new(node::custom(raw))),
            rules: Rules::read(raw),
        }))
    }
}
