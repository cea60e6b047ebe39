//! Deployments, replica sets, stateful sets, daemon sets, jobs.

use super::{invalid_as, pod};
use crate::json;
use crate::schema::FieldError;
use crate::selector::LabelSelector;
use serde_json::{Map, Value};

const STATEFUL_MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn check(kind: &str, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    match kind {
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => {
            not_negative(new, "replicas", errors);
            strategy(new, kind, errors);
            selected(new, old, kind, errors);
            restart_policy(new, "spec.template.spec", &["Always"], errors);
            not_negative(new, "minReadySeconds", errors);
            not_negative(new, "revisionHistoryLimit", errors);
        }
        "Job" => {
            for field in ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds"] {
                not_negative(new, field, errors);
            }
            if let Some(template) = new.pointer("/spec/template") {
                pod::template(template, "spec.template", errors);
            }
            job_restart_policy(new, "/spec/template/spec", "spec.template.spec", errors);
            if let Some(old) = old {
                fixed_job(new, old, errors);
            }
        }
        "CronJob" => {
            schedule(new, errors);
            if let Some(template) = new.pointer("/spec/jobTemplate/spec/template") {
                pod::template(template, "spec.jobTemplate.spec.template", errors);
            }
            let field = "spec.jobTemplate.spec.template.spec";
            job_restart_policy(new, "/spec/jobTemplate/spec/template/spec", field, errors);
        }
        _ => {}
    }
    if let (Some(old), "StatefulSet") = (old, kind) {
        let fixed = |value: &Value| -> Map<String, Value> {
            let mut spec = value
                .get("spec")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            spec.retain(|field, _| !STATEFUL_MUTABLE.contains(&field.as_str()));
            spec
        };
        if fixed(new) != fixed(old) {
            errors.retain(|error| error.field != "spec.selector");
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            errors.push(FieldError::forbidden("spec", detail));
        }
    }
}

fn not_negative(new: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let number = new.pointer(&format!("/spec/{field}")).and_then(Value::as_i64);
    if let Some(number) = number
        && number < 0
    {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(format!("spec.{field}"), number, detail));
    }
}

/// Labels as the server's language shows them.
fn shown(labels: Option<&Map<String, Value>>) -> String {
    match labels {
        None => "map[string]string(nil)".to_owned(),
        Some(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
            format!("map[string]string{{{}}}", pairs.join(", "))
        }
    }
}

fn shown_selector(selector: &Value) -> String {
    let labels = shown(selector.get("matchLabels").and_then(Value::as_object));
    let expressions = json::list(selector, "/matchExpressions");
    let expressions = if expressions.is_empty() {
        "[]v1.LabelSelectorRequirement(nil)".to_owned()
    } else {
        let all: Vec<String> = expressions
            .iter()
            .map(|one| {
                let values: Vec<String> = json::texts(one, "/values")
                    .iter()
                    .map(|value| format!("{value:?}"))
                    .collect();
                let values = if values.is_empty() {
                    "(nil)".to_owned()
                } else {
                    format!("{{{}}}", values.join(", "))
                };
                format!(
                    "v1.LabelSelectorRequirement{{Key:{:?}, Operator:{:?}, Values:[]string{values}}}",
                    json::text(one, "/key"),
                    json::text(one, "/operator")
                )
            })
            .collect();
        format!("[]v1.LabelSelectorRequirement{{{}}}", all.join(", "))
    };
    format!("v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:{expressions}}}")
}

/// The selector, the template and that they fit each other.
fn selected(new: &Value, old: Option<&Value>, kind: &str, errors: &mut Vec<FieldError>) {
    let selector = new.pointer("/spec/selector").filter(|selector| selector.is_object());
    let labels = new.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
    let parsed = match selector {
        None => {
            if kind != "DaemonSet" {
                errors.push(FieldError::required("spec.selector", ""));
            }
            None
        }
        Some(selector) => match LabelSelector::from_object(selector) {
            Ok(parsed) if parsed.is_empty() => {
                // Kubernetes says so of replica sets too.
                let named = if kind == "ReplicaSet" {
                    "deployment".to_owned()
                } else {
                    kind.to_lowercase()
                };
                let detail = format!("empty selector is invalid for {named}");
                errors.push(invalid_as("spec.selector", shown_selector(selector), &detail));
                None
            }
            Ok(parsed) => Some(parsed),
            Err(error) => {
                errors.push(invalid_as("spec.selector", shown_selector(selector), &error.0));
                None
            }
        },
    };
    if selector.is_none() || parsed.is_some_and(|parsed| !parsed.matches(labels)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(invalid_as("spec.template.metadata.labels", shown(labels), detail));
    }
    let looked_at = kind != "StatefulSet" || selector.is_some();
    if let Some(template) = new.pointer("/spec/template").filter(|_| looked_at) {
        pod::template(template, "spec.template", errors);
    }
    if let (Some(old), Some(selector)) = (old, selector)
        && old.pointer("/spec/selector") != Some(selector)
    {
        errors.push(invalid_as(
            "spec.selector",
            shown_selector(selector),
            "field is immutable",
        ));
    }
}

fn restart_policy(new: &Value, field: &str, supported: &[&str], errors: &mut Vec<FieldError>) {
    let policy = json::text(new, &format!("/{}/restartPolicy", field.replace('.', "/")));
    let known = ["Always", "OnFailure", "Never"];
    if !policy.is_empty() && known.contains(&policy) && !supported.contains(&policy) {
        errors.push(FieldError::not_supported(
            format!("{field}.restartPolicy"),
            policy,
            supported,
        ));
    }
}

fn job_restart_policy(new: &Value, pointer: &str, field: &str, errors: &mut Vec<FieldError>) {
    match json::text(new, &format!("{pointer}/restartPolicy")) {
        "OnFailure" | "Never" => {}
        // What defaulting puts there is what nobody chose.
        "Always" | "" => {
            let detail = "valid values: \"OnFailure\", \"Never\"";
            errors.push(FieldError::required(format!("{field}.restartPolicy"), detail));
        }
        _ => {}
    }
}

fn strategy(new: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    let (pointer, field, fallback) = match kind {
        "Deployment" => ("/spec/strategy", "spec.strategy", "Recreate"),
        "StatefulSet" | "DaemonSet" => ("/spec/updateStrategy", "spec.updateStrategy", "OnDelete"),
        _ => return,
    };
    let Some(strategy) = new.pointer(pointer) else { return };
    let chosen = json::text(strategy, "/type");
    let rolling = strategy.get("rollingUpdate");
    if chosen == fallback && rolling.is_some() {
        let detail = format!("may not be specified when strategy `type` is '{chosen}'");
        errors.push(FieldError::forbidden(format!("{field}.rollingUpdate"), detail));
    } else if kind == "Deployment" && chosen != "RollingUpdate" && chosen != fallback {
        let shown = format!(
            "apps.DeploymentStrategy{{Type:{chosen:?}, RollingUpdate:(*apps.RollingUpdateDeployment)(nil)}}: supported values: \
             \"Recreate\", \"RollingUpdate\""
        );
        let error = FieldError::not_supported(field, Value::Null, &[]);
        errors.push(FieldError {
            value: None,
            detail: shown,
            ..error
        });
    } else if chosen != "RollingUpdate" && chosen != fallback {
        let supported = [fallback, "RollingUpdate"];
        errors.push(FieldError::not_supported(format!("{field}.type"), chosen, &supported));
    }
    let zero = |name: &str| {
        let value = rolling.and_then(|rolling| rolling.get(name));
        value.is_some_and(|value| value.as_i64() == Some(0) || value.as_str() == Some("0%"))
    };
    if kind == "Deployment" && zero("maxSurge") && zero("maxUnavailable") {
        let shown = "intstr.IntOrString{Type:0, IntVal:0, StrVal:\"\"}";
        let field = format!("{field}.rollingUpdate.maxUnavailable");
        errors.push(invalid_as(&field, shown, "may not be 0 when `maxSurge` is 0"));
    }
}

fn fixed_job(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let indexed = json::text(new, "/spec/completionMode") == "Indexed";
    let elastic = indexed && new.pointer("/spec/completions") == new.pointer("/spec/parallelism");
    let completions = if elastic { None } else { Some("completions") };
    for field in ["selector", "completionMode"].into_iter().chain(completions) {
        let pointer = format!("/spec/{field}");
        if new.pointer(&pointer) != old.pointer(&pointer) {
            let value = new.pointer(&pointer).cloned().unwrap_or_default();
            errors.push(FieldError::invalid(
                format!("spec.{field}"),
                value,
                "field is immutable",
            ));
        }
    }
    let suspended = json::flag(old, "/spec/suspend");
    if !suspended && new.pointer("/spec/template") != old.pointer("/spec/template") {
        errors.push(invalid_as(
            "spec.template",
            "core.PodTemplateSpec{...}",
            "field is immutable",
        ));
    }
}

/// Five fields, or one of the names such as `@hourly`.
fn schedule(new: &Value, errors: &mut Vec<FieldError>) {
    let text = json::text(new, "/spec/schedule");
    if text.is_empty() {
        errors.push(FieldError::required("spec.schedule", ""));
        return;
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if !text.starts_with('@') && fields.len() != 5 {
        let detail = format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        );
        errors.push(FieldError::invalid("spec.schedule", text, detail));
    }
}
