//! One object, as the printers look at it.

use super::age;
use crate::selector::LabelSelector;
use serde_json::Value;

/// One object at one time.
pub(super) struct Row<'a> {
    pub(super) object: &'a Value,
    /// Seconds since the epoch.
    pub(super) now: i64,
}

impl<'a> Row<'a> {
    /// The value at a JSON pointer.
    pub(super) fn at(&self, pointer: &str) -> Option<&'a Value> {
        self.object.pointer(pointer).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, pointer: &str) -> &'a str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A text or what stands for none.
    pub(super) fn text_or(&self, pointer: &str, none: &str) -> Value {
        let text = self.text(pointer);
        if text.is_empty() { none.into() } else { text.into() }
    }

    pub(super) fn count(&self, pointer: &str) -> i64 {
        self.at(pointer).and_then(Value::as_i64).unwrap_or_default()
    }

    pub(super) fn list(&self, pointer: &str) -> &'a [Value] {
        self.at(pointer)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The number of entries of a map.
    pub(super) fn size(&self, pointer: &str) -> usize {
        self.at(pointer)
            .and_then(Value::as_object)
            .map_or(0, serde_json::Map::len)
    }

    pub(super) fn name(&self) -> Value {
        self.text("/metadata/name").into()
    }

    /// The time since creation.
    pub(super) fn age(&self) -> Value {
        self.since(self.text("/metadata/creationTimestamp")).into()
    }

    /// The time since a time stamp.
    pub(super) fn since(&self, time: &str) -> String {
        seconds(time).map_or_else(|| "<unknown>".to_owned(), |then| age(self.now - then))
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.at("/metadata/deletionTimestamp").is_some()
    }

    /// Names and images of the containers of a template.
    pub(super) fn containers(&self, pointer: &str) -> [Value; 2] {
        let containers = self.list(pointer);
        ["name", "image"].map(|field| {
            containers
                .iter()
                .map(|c| text(c, field))
                .collect::<Vec<_>>()
                .join(",")
                .into()
        })
    }

    /// A `LabelSelector` in its text form.
    pub(super) fn selector(&self, pointer: &str) -> Value {
        let selector = self.at(pointer).map(LabelSelector::from_object);
        match selector {
            None => "<none>".into(),
            Some(Err(_)) => "<error>".into(),
            Some(Ok(selector)) if selector.is_empty() => "<none>".into(),
            Some(Ok(selector)) => selector.to_string().into(),
        }
    }

    /// A map of labels: `a=1,b=2`.
    pub(super) fn labels(&self, pointer: &str) -> Value {
        let labels = self
            .at(pointer)
            .and_then(Value::as_object)
            .filter(|labels| !labels.is_empty());
        let Some(labels) = labels else { return "<none>".into() };
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect();
        labels.join(",").into()
    }

    /// Whether a condition is true.
    pub(super) fn has_condition(&self, kind: &str) -> bool {
        self.condition(kind)
            .is_some_and(|condition| text(condition, "status") == "True")
    }

    pub(super) fn condition(&self, kind: &str) -> Option<&'a Value> {
        self.list("/status/conditions")
            .iter()
            .find(|condition| text(condition, "type") == kind)
    }
}

/// A text field of an object.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A number or text as it is shown, or what stands for none.
pub(super) fn scalar(value: Option<&Value>, none: &str) -> String {
    match value {
        None | Some(Value::Null) => none.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Seconds since the epoch of an RFC 3339 time.
pub(super) fn seconds(time: &str) -> Option<i64> {
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(time, format)
        .ok()
        .map(time::OffsetDateTime::unix_timestamp)
}

/// The first few of a list, and how many more there are.
pub(super) fn first_of(all: &[String], most: usize, separator: &str) -> String {
    let shown = all.get(..most).unwrap_or(all).join(separator);
    if all.len() > most {
        format!("{shown} + {} more...", all.len() - most)
    } else {
        shown
    }
}
