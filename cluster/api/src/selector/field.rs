//! Field selectors: `metadata.name=x,status.phase!=Running`.

use super::SelectorError;
use serde_json::Value;

/// What fields must be equal or unequal to; the default matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Parses `metadata.name=x,status.phase!=Running`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let operator = ["!=", "==", "="]
                .iter()
                .filter_map(|operator| part.find(operator).map(|at| (at, *operator)))
                .min_by_key(|(at, operator)| (*at, std::cmp::Reverse(operator.len())));
            let Some((at, operator)) = operator else {
                return Err(SelectorError(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let (field, rest) = part.split_at(at);
            let value = unescape(rest.get(operator.len()..).unwrap_or_default())?;
            let field = if field == "spec.host" { "spec.nodeName" } else { field };
            terms.push(Term {
                field: field.to_owned(),
                value,
                equal: operator != "!=",
            });
        }
        Ok(Self { terms })
    }

    /// Refuses a field that the resource does not offer. `extra` are the selectable fields of a custom resource, such as
    /// `spec.color`; those of built-in kinds are known here.
    pub fn check(&self, group: &str, resource: &str, kind: &str, extra: &[&str]) -> Result<(), SelectorError> {
        let known = known_fields(group, resource);
        let unknown = |term: &&Term| {
            let field = term.field.as_str();
            let cluster_wide = matches!(resource, "nodes" | "namespaces" | "certificatesigningrequests");
            let general = field == "metadata.name" || field == "metadata.namespace" && !cluster_wide;
            !general && !known.is_some_and(|known| known.contains(&field)) && !extra.contains(&field)
        };
        let Some(Term { field, .. }) = self.terms.iter().find(unknown) else {
            return Ok(());
        };
        Err(SelectorError(match (group, kind) {
            ("batch", "Job") => format!("field label {field:?} not supported for Job"),
            ("batch", "CronJob") => format!("field label {field:?} not supported for \"CronJob\""),
            _ if known.is_some() || !extra.is_empty() => format!("field label not supported: {field}"),
            _ => format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
        }))
    }

    /// Whether an object matches.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms
            .iter()
            .all(|term| (field_value(object, &term.field) == term.value) == term.equal)
    }

    /// The name that `metadata.name=…` asks for: a list of at most one object.
    pub fn name(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.field == "metadata.name")
            .map(|term| term.value.as_str())
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
}

/// The fields beside name and namespace; `None` for a resource that registers none.
fn known_fields(group: &str, resource: &str) -> Option<&'static [&'static str]> {
    Some(match (group, resource) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "replicationcontrollers") => &["status.replicas"],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("batch", "jobs" | "cronjobs") => &["status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        _ => return None,
    })
}

/// The value of a field as selectors see it; a field that is missing is empty.
fn field_value(object: &Value, field: &str) -> String {
    let at = |path: &str| path.split('.').try_fold(object, |value, name| value.get(name));
    let scalar = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let or_else = |field: &str, fallback: &str| {
        let value = scalar(at(field));
        if value.is_empty() { scalar(at(fallback)) } else { value }
    };
    match field {
        "spec.hostNetwork" | "spec.unschedulable" => {
            let value = scalar(at(field));
            if value.is_empty() { "false".to_owned() } else { value }
        }
        "status.podIPs" => {
            let ips = at(field).and_then(Value::as_array).into_iter().flatten();
            ips.map(|ip| scalar(ip.get("ip"))).collect::<Vec<_>>().join(",")
        }
        "source" => or_else("source.component", "reportingComponent"),
        "reportingComponent" => or_else("reportingComponent", "reportingController"),
        "status.successful" => {
            let count = scalar(at("status.succeeded"));
            if count.is_empty() { "0".to_owned() } else { count }
        }
        "status.replicas" => {
            let count = scalar(at(field));
            if count.is_empty() { "0".to_owned() } else { count }
        }
        field => match field.strip_prefix("regarding.") {
            Some(name) => or_else(field, &format!("involvedObject.{name}")),
            None => scalar(at(field)),
        },
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.extend(text.get(start..));
    terms.sort_unstable();
    terms
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => value.push(c),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    let message = format!("invalid field selector: invalid escape sequence: {sequence}");
                    return Err(SelectorError(message));
                }
            },
            ',' | '=' => {
                let message = format!("invalid field selector: unescaped character in value: {}", u32::from(c));
                return Err(SelectorError(message));
            }
            c => value.push(c),
        }
    }
    Ok(value)
}
