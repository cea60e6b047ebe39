//! Sets of fields, as `fieldsV1` writes them.

use crate::schema::Schema;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One step of a path, in the form of `fieldsV1`: `f:name`, `k:{"name":"x"}`, `v:"x"` or `i:0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element(Box<str>);

impl Element {
    pub(super) fn field(name: &str) -> Self {
        Self(format!("f:{name}").into())
    }

    /// The item of a list with these keys.
    pub(super) fn key(keys: Map<String, Value>) -> Self {
        Self(format!("k:{}", Value::Object(keys)).into())
    }

    /// The item of a set.
    pub(super) fn value(value: &Value) -> Self {
        Self(format!("v:{value}").into())
    }

    /// `None` for what is no element: such fields are ignored.
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("k", json) => match serde_json::from_str(json).ok()? {
                Value::Object(keys) => Some(Self::key(keys)),
                _ => None,
            },
            ("v", json) => Some(Self::value(&serde_json::from_str(json).ok()?)),
            ("f" | "i", _) => Some(Self(text.into())),
            _ => None,
        }
    }

    pub(super) fn as_field(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }
}

impl fmt::Display for Element {
    /// As paths are shown: `.name`, `[name="x"]`, `[="x"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once(':') {
            Some(("k", json)) => {
                let keys: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let shown: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", shown.join(","))
            }
            Some(("v", json)) => write!(f, "[={json}]"),
            Some(("i", index)) => write!(f, "[{index}]"),
            Some((_, name)) => write!(f, ".{name}"),
            None => Ok(()),
        }
    }
}

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Paths of one element.
    members: BTreeSet<Element>,
    /// Longer paths by their first element; no empty set.
    children: BTreeMap<Element, FieldSet>,
}

impl FieldSet {
    /// From `fieldsV1`.
    pub(super) fn decode(fields: &Value) -> Self {
        let mut set = Self::default();
        for (name, value) in fields.as_object().into_iter().flatten() {
            let Some(element) = Element::parse(name) else { continue };
            let is_leaf = value
                .as_object()
                .is_none_or(|map| map.is_empty() || map.contains_key("."));
            if is_leaf {
                set.members.insert(element.clone());
            }
            set.adopt(element, Self::decode(value));
        }
        set
    }

    /// As `fieldsV1`.
    pub(super) fn encode(&self) -> Value {
        let mut map = Map::new();
        for (element, child) in &self.children {
            map.insert(element.0.to_string(), child.encode());
        }
        for element in &self.members {
            let value = map
                .entry(element.0.to_string())
                .or_insert_with(|| Value::Object(Map::new()));
            if self.children.contains_key(element)
                && let Value::Object(value) = value
            {
                value.insert(".".to_owned(), Value::Object(Map::new()));
            }
        }
        Value::Object(map)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Adds a path of one element.
    pub(super) fn insert(&mut self, element: Element) {
        self.members.insert(element);
    }

    /// Adds paths below an element.
    pub(super) fn adopt(&mut self, element: Element, child: FieldSet) {
        if !child.is_empty() {
            let merged = match self.children.remove(&element) {
                Some(own) => own.union(&child),
                None => child,
            };
            self.children.insert(element, merged);
        }
    }

    pub(super) fn has(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    pub(super) fn below(&self, element: &Element) -> Option<&FieldSet> {
        self.children.get(element)
    }

    pub(super) fn union(&self, other: &FieldSet) -> FieldSet {
        let mut set = self.clone();
        set.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            set.adopt(element.clone(), child.clone());
        }
        set
    }

    /// The paths that are not in `other`, each by itself: what is below a path of `other` stays.
    pub(super) fn difference(&self, other: &FieldSet) -> FieldSet {
        let mut set = FieldSet {
            members: self.members.difference(&other.members).cloned().collect(),
            ..Self::default()
        };
        for (element, child) in &self.children {
            let left = other
                .children
                .get(element)
                .map_or_else(|| child.clone(), |gone| child.difference(gone));
            set.adopt(element.clone(), left);
        }
        set
    }

    pub(super) fn intersection(&self, other: &FieldSet) -> FieldSet {
        let members = self.members.intersection(&other.members).cloned().collect();
        let mut set = FieldSet {
            members,
            ..Self::default()
        };
        for (element, child) in &self.children {
            if let Some(other) = other.children.get(element) {
                set.adopt(element.clone(), child.intersection(other));
            }
        }
        set
    }

    /// With the declared fields above its paths: what is owned in a struct owns the struct for removal.
    pub(super) fn with_named_fields(&self, schema: &Schema) -> FieldSet {
        let mut set = FieldSet {
            members: self.members.clone(),
            ..Self::default()
        };
        for (element, child) in &self.children {
            let below = match element.as_field() {
                Some(name) => {
                    if schema.declares(name) {
                        set.members.insert(element.clone());
                    }
                    schema.field(name).map_or(Schema::any(), |field| field.schema)
                }
                None => schema.items(),
            };
            set.adopt(element.clone(), child.with_named_fields(below));
        }
        set
    }

    /// All paths as they are shown, in order.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        paths.extend(self.members.iter().map(|element| format!("{prefix}{element}")));
        for (element, child) in &self.children {
            child.collect(&format!("{prefix}{element}"), paths);
        }
    }
}
