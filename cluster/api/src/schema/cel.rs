//! `x-kubernetes-validations`: rules in CEL.

use super::prune::join;
use super::validate::{old_field, old_item};
use super::{ErrorKind, FieldError, Schema};
use kube_cel::CompiledSchema;
use serde_json::Value;
use std::fmt;
use std::sync::OnceLock;

/// The rules of one schema.
pub(crate) struct Rules {
    /// The schema with these rules and without those below: the engine is asked node by node, since it does not know which old
    /// item a new one continues.
    source: Value,
    compiled: OnceLock<CompiledSchema>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}

impl Rules {
    /// `None` where a schema has no rules of its own.
    pub(super) fn read(raw: &Value) -> Option<Rules> {
        let rules = raw
            .get("x-kubernetes-validations")?
            .as_array()
            .filter(|rules| !rules.is_empty())?;
        let mut source = raw.clone();
        strip(&mut source);
        if let Some(map) = source.as_object_mut() {
            map.insert("x-kubernetes-validations".to_owned(), Value::Array(rules.clone()));
        }
        Some(Rules {
            source,
            compiled: OnceLock::new(),
        })
    }

    fn compiled(&self) -> &CompiledSchema {
        self.compiled.get_or_init(|| kube_cel::compile_schema(&self.source))
    }

    /// The errors of rules that do not compile.
    pub(super) fn errors(&self) -> Vec<String> {
        self.compiled()
            .compilation_errors()
            .into_iter()
            .map(ToString::to_string)
            .collect()
    }

    fn rule<'a>(&'a self, text: &str) -> Option<&'a Value> {
        let rules = self.source.get("x-kubernetes-validations")?.as_array()?;
        rules
            .iter()
            .find(|rule| rule.get("rule").and_then(Value::as_str) == Some(text))
    }
}

/// Removes rules, defaults and descriptions at every depth.
fn strip(raw: &mut Value) {
    let Value::Object(map) = raw else { return };
    for name in ["x-kubernetes-validations", "default", "description", "example"] {
        map.remove(name);
    }
    for (name, child) in map.iter_mut() {
        match (name.as_str(), child) {
            ("properties", Value::Object(children)) => children.values_mut().for_each(strip),
            ("allOf" | "anyOf" | "oneOf", Value::Array(children)) => children.iter_mut().for_each(strip),
            ("items" | "additionalProperties" | "not", child) => strip(child),
            _ => {}
        }
    }
}

/// Evaluates the rules of a schema and of those below it.
pub(super) fn validate(schema: &Schema, new: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if new.is_null() || schema.0.builtin {
        return;
    }
    let old = old.filter(|old| !old.is_null());
    if let Some(rules) = schema.0.checks.as_deref().and_then(|checks| checks.rules.as_ref()) {
        evaluate(rules, new, old, path, errors);
    }
    match new {
        Value::Object(map) => {
            for (name, child) in map {
                if let Some(field) = schema.field(name) {
                    let old = old_field(schema, name, old);
                    let path = if schema.0.additional.is_some() {
                        format!("{path}[{name}]")
                    } else {
                        join(path, name)
                    };
                    validate(field.schema, child, old, &path, errors);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let old = old_item(schema, item, old);
                validate(schema.items(), item, old, &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

fn evaluate(rules: &Rules, new: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Err(failures) = kube_cel::validate_compiled(rules.compiled(), new, old) else {
        return;
    };
    let kind = super::node::text(&rules.source, "type").unwrap_or_default();
    for failure in failures.into_vec() {
        let rule = rules.rule(&failure.rule);
        let text = |name: &str| rule.and_then(|rule| super::node::text(rule, name));
        let failed = || text("message").map_or_else(|| format!("failed rule: {}", failure.rule), str::to_owned);
        // Ratcheting, except for rules that compare with the old value.
        let compares = failure.rule.contains("oldSelf");
        if failure.kind == kube_cel::ErrorKind::ValidationFailure && !compares && old == Some(new) {
            continue;
        }
        let field = match failure.field_path.trim_start_matches('.') {
            "" if path.is_empty() => "<nil>".to_owned(),
            "" => path.to_owned(),
            below => join(path, below),
        };
        let detail = match failure.kind {
            kube_cel::ErrorKind::ValidationFailure => failure.message.trim().to_owned(),
            kube_cel::ErrorKind::EvaluationError => {
                let cause = failure.message.trim_start_matches("rule evaluation error: ");
                format!("{} evaluating rule: {}", lower_first(cause), failed())
            }
            _ => format!("rule compile error: {}", failure.message),
        };
        errors.push(match failure.reason.as_deref() {
            Some("FieldValueForbidden") => FieldError::forbidden(field, detail),
            Some("FieldValueRequired") => FieldError::required(field, detail),
            Some("FieldValueDuplicate") => FieldError {
                kind: ErrorKind::Duplicate,
                field,
                value: Some(kind.into()),
                detail,
            },
            _ => FieldError::invalid(field, kind, detail),
        });
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
