//! A raw object compared with a structural schema.

use std::fmt;

use serde_json::{Map, Value};

use super::AT_MOST_ONE_OF;

/// How deep an object may be nested before the rest is left unseen; no kind comes near it.
const MAX_DEPTH: usize = 64;
/// How many findings are collected: enough for a person, little for a hostile object.
const MAX_FINDINGS: usize = 100;

/// One difference between an object and its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where, for instance `spec.http[0].route[1].weight`.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The schema has no such field.
    #[error("unknown field; {}", did_you_mean(.nearest))]
    UnknownField {
        /// The known field whose name is most alike.
        nearest: Option<String>,
    },
    /// A field that must be there is not.
    #[error("required field is missing; add it")]
    Missing,
    /// The value is of another type.
    #[error("must be of type {expected}, not {found}; {}", how_to_write(.expected))]
    WrongType {
        /// The schema's type.
        expected: String,
        /// The value's type.
        found: &'static str,
    },
    /// The value is none of those allowed.
    #[error("unknown value {found:?}; use one of {}", .allowed.join(", "))]
    UnknownValue {
        /// The value.
        found: String,
        /// All values that are allowed.
        allowed: Vec<String>,
    },
    /// A number is too small or too large.
    #[error("{found} is out of range; must be {bound}")]
    OutOfRange {
        /// The number.
        found: String,
        /// The bound that it breaks, in words.
        bound: String,
    },
    /// A list or map has too few or too many entries, or a text too few or too many characters.
    #[error("has {found} entries; must have {bound}")]
    BadSize {
        /// How many there are.
        found: usize,
        /// The bound that is broken, in words.
        bound: String,
    },
    /// More than one of several alternatives is given.
    #[error("only one of {} may be set", .fields.join(", "))]
    TooManyOf {
        /// The alternatives.
        fields: Vec<String>,
    },
}

impl Problem {
    /// Whether the object can still be read when this is overlooked.
    pub fn is_unknown_field(&self) -> bool {
        matches!(self, Self::UnknownField { .. })
    }
}

fn did_you_mean(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("did you mean {name}?"),
        None => "remove it or correct its spelling".to_owned(),
    }
}

fn how_to_write(expected: &str) -> &'static str {
    match expected {
        "object" => "write its fields below it, indented",
        "array" => "write a list",
        "string" => "put it in quotes",
        "boolean" => "write true or false, without quotes",
        "number" => "write a number, without quotes",
        "integer" => "write a whole number, without quotes",
        _ => "write one of them",
    }
}

/// All differences between a whole object and its kind's schema, in the order of the object.
///
/// Looks at structure, types, enums, ranges and alternatives. Never at `metadata`, `x-kubernetes-validations` and
/// `pattern`, which are the API server's to judge.
pub fn check(schema: &Value, object: &Value) -> Vec<Finding> {
    let mut checker = Checker {
        findings: Vec::new(),
        path: String::new(),
    };
    checker.value(schema, object, 0);
    checker.findings
}

struct Checker {
    findings: Vec<Finding>,
    path: String,
}

impl Checker {
    fn report(&mut self, problem: Problem) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding {
                path: self.path.clone(),
                problem,
            });
        }
    }

    fn inside(&mut self, step: &str, look: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !self.path.is_empty() && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        look(self);
        self.path.truncate(length);
    }

    fn value(&mut self, schema: &Value, value: &Value, depth: usize) {
        let Some(schema) = schema.as_object() else { return };
        if depth > MAX_DEPTH {
            return;
        }
        if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            if !(value.is_i64() || value.is_u64() || value.is_string()) {
                self.report(wrong_type("integer or string", value));
            }
            return;
        }
        if let Some(expected) = schema.get("type").and_then(Value::as_str)
            && !has_type(expected, value)
        {
            return self.report(wrong_type(expected, value));
        }
        if let Some(Value::Array(allowed)) = schema.get("enum")
            && !allowed.contains(value)
        {
            let allowed = allowed.iter().map(plain).collect();
            return self.report(Problem::UnknownValue {
                found: plain(value),
                allowed,
            });
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, depth),
            Value::Array(items) => {
                self.size(schema, "minItems", "maxItems", items.len());
                if let Some(inner) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.inside(&format!("[{index}]"), |this| this.value(inner, item, depth + 1));
                    }
                }
            }
            Value::Number(number) => {
                let found = number.as_f64().unwrap_or_default();
                if let Some(minimum) = schema.get("minimum").and_then(Value::as_f64)
                    && found < minimum
                {
                    self.report(Problem::OutOfRange {
                        found: number.to_string(),
                        bound: format!("at least {minimum}"),
                    });
                }
                let maximum = schema.get("maximum").and_then(Value::as_f64);
                let maximum = maximum.or_else(|| (schema.get("format")? == "int32").then_some(f64::from(i32::MAX)));
                if let Some(maximum) = maximum
                    && found > maximum
                {
                    self.report(Problem::OutOfRange {
                        found: number.to_string(),
                        bound: format!("at most {maximum}"),
                    });
                }
            }
            Value::String(text) => self.size(schema, "minLength", "maxLength", text.chars().count()),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, fields: &Map<String, Value>, depth: usize) {
        self.size(schema, "minProperties", "maxProperties", fields.len());
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        let keeps_unknown = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        // An object schema that says nothing of its fields is `metadata`, judged by the API server.
        let says_nothing = properties.is_none() && others.is_none();
        for (name, value) in fields {
            if depth == 0 && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            match properties.and_then(|known| known.get(name)).or(others) {
                // A field that is null counts as left out, as for the API server.
                Some(_) if value.is_null() => {}
                Some(inner) => self.inside(name, |this| this.value(inner, value, depth + 1)),
                None if keeps_unknown || says_nothing => {}
                None => {
                    let nearest = properties.and_then(|known| nearest(name, known.keys()));
                    self.inside(name, |this| this.report(Problem::UnknownField { nearest }));
                }
            }
        }
        for name in texts(schema.get("required")) {
            if fields.get(name).is_none_or(Value::is_null) {
                self.inside(name, |this| this.report(Problem::Missing));
            }
        }
        for group in schema
            .get(AT_MOST_ONE_OF)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let set = texts(Some(group)).filter(|name| fields.get(*name).is_some_and(|value| !value.is_null()));
            if set.count() > 1 {
                self.report(Problem::TooManyOf {
                    fields: texts(Some(group)).map(str::to_owned).collect(),
                });
            }
        }
    }

    fn size(&mut self, schema: &Map<String, Value>, least: &str, most: &str, found: usize) {
        let bound = |keyword| schema.get(keyword).and_then(Value::as_u64);
        if let Some(least) = bound(least)
            && (found as u64) < least
        {
            self.report(Problem::BadSize {
                found,
                bound: format!("at least {least}"),
            });
        }
        if let Some(most) = bound(most)
            && found as u64 > most
        {
            self.report(Problem::BadSize {
                found,
                bound: format!("at most {most}"),
            });
        }
    }
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn has_type(expected: &str, value: &Value) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    }
}

fn wrong_type(expected: &str, value: &Value) -> Problem {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Problem::WrongType {
        expected: expected.to_owned(),
        found,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The known name that is at most a third of its letters away.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    if name.len() > 64 {
        return None;
    }
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate.clone())
}

/// Levenshtein distance without regard to case.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.to_lowercase().chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut before = line + 1;
        next.push(before);
        for (to, pair) in right.iter().zip(row.windows(2)) {
            let (diagonal, above) = (pair.first().copied().unwrap_or(0), pair.last().copied().unwrap_or(0));
            before = (above + 1).min(before + 1).min(diagonal + usize::from(from != *to));
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networking::VirtualService;
    use crate::schema::structural;
    use serde_json::json;

    fn findings(spec: Value) -> Vec<String> {
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "reviews"}, "spec": spec
        });
        check(&structural::<VirtualService>(), &object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_good_object_has_no_findings() {
        let spec = json!({"hosts": ["reviews"], "http": [{"timeout": "1s", "route": [
            {"destination": {"host": "reviews", "port": {"number": 80}}, "weight": 1.0}], "retries": null}]});
        assert_eq!(findings(spec), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_told_with_its_path() {
        let spec = json!({
            "hosts": "reviews",
            "gatways": [],
            "http": [{
                "match": [{"uri": {"exact": "/a", "prefix": "/b"}, "port": -1}],
                "route": [{"destination": {"subset": "v1"}, "weight": "90"}],
                "corsPolicy": {"unmatchedPreflights": "forward"},
                "headers": {"request": {"set": {"anything": "goes", "number": 1}}},
            }],
        });
        let mut found = findings(spec);
        found.sort();
        assert_eq!(
            found,
            [
                "spec.gatways: unknown field; did you mean gateways?",
                "spec.hosts: must be of type array, not string; write a list",
                "spec.http[0].corsPolicy.unmatchedPreflights: unknown value \"forward\"; use one of UNSPECIFIED, FORWARD, IGNORE",
                "spec.http[0].headers.request.set.number: must be of type string, not number; put it in quotes",
                "spec.http[0].match[0].port: -1 is out of range; must be at least 0",
                "spec.http[0].match[0].uri: only one of exact, prefix, regex may be set",
                "spec.http[0].route[0].destination.host: required field is missing; add it",
                "spec.http[0].route[0].weight: must be of type integer, not string; write a whole number, without quotes",
            ]
        );
    }

    #[test]
    fn findings_are_bounded() {
        let hosts: Vec<Value> = (0..1000).map(Value::from).collect();
        assert_eq!(findings(json!({"hosts": hosts})).len(), MAX_FINDINGS);
    }
}
