//! What is wrong with an object of a built-in kind, and with the metadata of any: the checks of Kubernetes that people run into, in
//! its words and order. Out: wrong fields. What is not checked here is taken as it is.

pub(crate) mod name;
mod pod;
mod service;
mod workload;

use crate::admission::compile;
use crate::api::Api;
use crate::json;
use crate::kinds::Resource;
use crate::schema::{FieldError, crd};
use serde_json::Value;

/// An error whose value is shown in the words of the server's language.
fn invalid_as(field: &str, shown: impl std::fmt::Display, detail: &str) -> FieldError {
    FieldError {
        value: None,
        detail: format!("{shown}: {detail}"),
        ..FieldError::invalid(field, Value::Null, "")
    }
}

/// The metadata of any object; `old` on update.
pub(crate) fn metadata(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let wanted = json::text(new, "/metadata/name");
    if wanted.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if old.is_none()
        && let Some(detail) = name::of(resource, wanted)
    {
        errors.push(FieldError::invalid("metadata.name", wanted, detail));
    }
    if let Some(labels) = new.pointer("/metadata/labels").and_then(Value::as_object) {
        errors.extend(name::labels("metadata.labels", labels));
    }
    if let Some(annotations) = new.pointer("/metadata/annotations").and_then(Value::as_object) {
        for key in annotations.keys() {
            if let Some(detail) = name::qualified(&key.to_lowercase()) {
                errors.push(FieldError::invalid("metadata.annotations", key.clone(), detail));
            }
        }
        let size: usize = annotations
            .iter()
            .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
            .sum();
        if size > 256 * 1024 {
            errors.push(FieldError::too_long("metadata.annotations", 256 * 1024));
        }
    }
    for owner in json::list(new, "/metadata/ownerReferences") {
        for (field, pointer, detail) in [
            ("apiVersion", "/apiVersion", "version must not be empty"),
            ("kind", "/kind", "kind must not be empty"),
            ("name", "/name", "name must not be empty"),
            ("uid", "/uid", "uid must not be empty"),
        ] {
            if json::text(owner, pointer).is_empty() {
                errors.push(FieldError::invalid(
                    format!("metadata.ownerReferences.{field}"),
                    "",
                    detail,
                ));
            }
        }
    }
    let controllers = json::list(new, "/metadata/ownerReferences")
        .iter()
        .filter(|owner| json::flag(owner, "/controller"));
    if controllers.count() > 1 {
        let detail = "Only one reference can have Controller set to true";
        errors.push(invalid_as(
            "metadata.ownerReferences",
            "[]v1.OwnerReference{...}",
            detail,
        ));
    }
    for (position, finalizer) in json::texts(new, "/metadata/finalizers").iter().enumerate() {
        let standard = matches!(finalizer.as_str(), "kubernetes" | "orphan" | "foregroundDeletion");
        let field = format!("metadata.finalizers[{position}]");
        if let Some(detail) = name::qualified(finalizer) {
            errors.push(FieldError::invalid(field, finalizer.clone(), detail));
        } else if !standard
            && !finalizer.contains('/')
            && resource.custom.is_none()
            && resource.group != "apiextensions.k8s.io"
        {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(field, finalizer.clone(), detail));
        }
    }
    if let Some(old) = old {
        finalizers_of_deleted(new, old, &mut errors);
    }
    errors
}

fn finalizers_of_deleted(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if old.pointer("/metadata/deletionTimestamp").is_none_or(Value::is_null) {
        return;
    }
    let before = json::texts(old, "/metadata/finalizers");
    let added: Vec<String> = json::texts(new, "/metadata/finalizers")
        .into_iter()
        .filter(|one| !before.contains(one))
        .collect();
    if !added.is_empty() {
        let list: Vec<String> = added.iter().map(|one| format!("{one:?}")).collect();
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            list.join(", ")
        );
        errors.push(FieldError::forbidden("metadata.finalizers", detail));
    }
}

/// The rest of an object of a built-in kind.
pub(crate) fn object(api: &Api, resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::pod(new, old, &mut errors),
        ("", "Service") => service::check(new, old, &mut errors),
        ("", "ConfigMap") => {
            keys(new, &["data", "binaryData"], &mut errors);
            immutable_data(new, old, &mut errors);
        }
        ("", "Secret") => {
            keys(new, &["data"], &mut errors);
            secret(new, old, &mut errors);
            immutable_data(new, old, &mut errors);
        }
        ("", "Event") => {
            let (namespace, about) = (
                json::text(new, "/metadata/namespace"),
                json::text(new, "/involvedObject/namespace"),
            );
            if !about.is_empty() && about != namespace {
                let detail = "does not match event.namespace";
                errors.push(FieldError::invalid("involvedObject.namespace", about, detail));
            }
        }
        ("apps" | "batch", _) => workload::check(&resource.kind, new, old, &mut errors),
        ("policy", "PodDisruptionBudget") => {
            let both = new.pointer("/spec/minAvailable").is_some() && new.pointer("/spec/maxUnavailable").is_some();
            if both {
                let detail = "minAvailable and maxUnavailable cannot be both set";
                errors.push(invalid_as("spec", "policy.PodDisruptionBudgetSpec{...}", detail));
            }
        }
        ("rbac.authorization.k8s.io", _) => access(resource, new, old, &mut errors),
        ("admissionregistration.k8s.io", _) => webhooks(new, &mut errors),
        ("apiextensions.k8s.io", _) => {
            errors.extend(crd::validate(new, old));
            definitions_of_others(api, new, &mut errors);
        }
        _ => {}
    }
    errors
}

/// A definition may not take the place of a built-in resource.
fn definitions_of_others(api: &Api, new: &Value, errors: &mut Vec<FieldError>) {
    let strategy = json::text(new, "/spec/conversion/strategy");
    if strategy == "Webhook" {
        // All versions have the same body here; to say so is better than to convert wrongly.
        errors.push(FieldError::not_supported(
            "spec.conversion.strategy",
            strategy,
            &["None"],
        ));
    }
    let (group, plural) = (json::text(new, "/spec/group"), json::text(new, "/spec/names/plural"));
    let kinds = api.inner.registry.current();
    if kinds
        .any_version(group, plural)
        .is_some_and(|resource| resource.custom.is_none())
    {
        errors.push(FieldError::invalid(
            "spec.names.plural",
            plural,
            "is served by the API itself",
        ));
    }
}

/// Things that are allowed and better avoided.
pub(crate) fn warnings(resource: &Resource, new: &Value, warnings: &mut Vec<String>) {
    let pointer = match resource.kind.as_str() {
        "Pod" if resource.is("", "pods") => "/spec",
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => "/spec/template/spec",
        _ => return,
    };
    let Some(spec) = new.pointer(pointer) else { return };
    let place = pointer.trim_start_matches('/').replace('/', ".");
    for (list, name) in [("/initContainers", "initContainers"), ("/containers", "containers")] {
        for (position, container) in json::list(spec, list).iter().enumerate() {
            let mut seen: Vec<&str> = Vec::new();
            for (index, variable) in json::list(container, "/env").iter().enumerate() {
                let variable = json::text(variable, "/name");
                if seen.contains(&variable) {
                    warnings.push(format!(
                        "{place}.{name}[{position}].env[{index}]: hides previous definition of {variable:?}, which may be dropped when using apply"
                    ));
                }
                seen.push(variable);
            }
        }
    }
}

fn keys(new: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    for field in fields {
        for key in new
            .get(*field)
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|map| map.keys())
        {
            if let Some(detail) = name::config_key(key) {
                errors.push(FieldError::invalid(format!("{field}[{key}]"), key.clone(), detail));
            }
        }
    }
}

fn immutable_data(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(old) = old.filter(|old| json::flag(old, "/immutable")) else {
        return;
    };
    let detail = "field is immutable when `immutable` is set";
    if !json::flag(new, "/immutable") {
        errors.push(FieldError::forbidden("immutable", detail));
    }
    for field in ["data", "binaryData"] {
        if new.get(field) != old.get(field) {
            errors.push(FieldError::forbidden(field, detail));
        }
    }
}

fn secret(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if let Some(old) = old
        && new.get("type") != old.get("type")
    {
        errors.push(FieldError::invalid(
            "type",
            json::text(new, "/type"),
            "field is immutable",
        ));
    }
    let needed: &[&str] = match json::text(new, "/type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/service-account-token" => {
            if json::text(new, "/metadata/annotations/kubernetes.io~1service-account.name").is_empty() {
                let field = "metadata.annotations[kubernetes.io/service-account.name]";
                errors.push(FieldError::required(field, ""));
            }
            &[]
        }
        _ => &[],
    };
    for key in needed {
        if new.get("data").and_then(|data| data.get(*key)).is_none() {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
}

/// Roles and bindings.
fn access(resource: &Resource, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if resource.kind.ends_with("Role") {
        for (position, rule) in json::list(new, "/rules").iter().enumerate() {
            let field = format!("rules[{position}]");
            let empty = |pointer: &str| json::list(rule, pointer).is_empty();
            if empty("/verbs") {
                let detail = "verbs must contain at least one value";
                errors.push(FieldError::required(format!("{field}.verbs"), detail));
            }
            if !empty("/nonResourceURLs") {
                continue;
            }
            if empty("/apiGroups") {
                let detail = "resource rules must supply at least one api group";
                errors.push(FieldError::required(format!("{field}.apiGroups"), detail));
            }
            if empty("/resources") {
                let detail = "resource rules must supply at least one resource";
                errors.push(FieldError::required(format!("{field}.resources"), detail));
            }
        }
        return;
    }
    let kinds: &[&str] = if resource.namespaced {
        &["ClusterRole", "Role"]
    } else {
        &["ClusterRole"]
    };
    let kind = json::text(new, "/roleRef/kind");
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported("roleRef.kind", kind, kinds));
    }
    let role = json::text(new, "/roleRef/name");
    if role.is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    for (position, subject) in json::list(new, "/subjects").iter().enumerate() {
        let field = format!("subjects[{position}]");
        if json::text(subject, "/name").is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        }
        match json::text(subject, "/kind") {
            "ServiceAccount" => {
                if json::text(subject, "/namespace").is_empty() {
                    errors.push(FieldError::required(format!("{field}.namespace"), ""));
                }
            }
            "User" | "Group" => {}
            other => {
                let supported = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(format!("{field}.kind"), other, &supported));
            }
        }
    }
    if let Some(old) = old
        && old.get("roleRef") != new.get("roleRef")
    {
        let group = json::text(new, "/roleRef/apiGroup");
        let shown = format!("rbac.RoleRef{{APIGroup:{group:?}, Kind:{kind:?}, Name:{role:?}}}");
        errors.push(invalid_as("roleRef", shown, "cannot change roleRef"));
    }
}

fn webhooks(new: &Value, errors: &mut Vec<FieldError>) {
    for (position, webhook) in json::list(new, "/webhooks").iter().enumerate() {
        let field = format!("webhooks[{position}]");
        let webhook_name = json::text(webhook, "/name");
        if webhook_name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            errors.push(FieldError::invalid(format!("{field}.name"), webhook_name, detail));
        }
        if json::text(webhook, "/sideEffects").is_empty() {
            let detail = "must specify one of None, NoneOnDryRun";
            errors.push(FieldError::required(format!("{field}.sideEffects"), detail));
        } else if !matches!(json::text(webhook, "/sideEffects"), "None" | "NoneOnDryRun") {
            let effects = json::text(webhook, "/sideEffects");
            let supported = ["None", "NoneOnDryRun"];
            errors.push(FieldError::not_supported(
                format!("{field}.sideEffects"),
                effects,
                &supported,
            ));
        }
        let policy = json::text(webhook, "/failurePolicy");
        if !matches!(policy, "Fail" | "Ignore") {
            let supported = ["Fail", "Ignore"];
            errors.push(FieldError::not_supported(
                format!("{field}.failurePolicy"),
                policy,
                &supported,
            ));
        }
        let seconds = webhook.get("timeoutSeconds").and_then(Value::as_i64).unwrap_or(10);
        if !(1..=30).contains(&seconds) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.push(FieldError::invalid(format!("{field}.timeoutSeconds"), seconds, detail));
        }
        let (url, service) = (
            webhook.pointer("/clientConfig/url"),
            webhook.pointer("/clientConfig/service"),
        );
        if url.is_some() == service.is_some() {
            let detail = "exactly one of url or service is required";
            errors.push(FieldError::required(format!("{field}.clientConfig"), detail));
        }
        if json::list(webhook, "/admissionReviewVersions").is_empty() {
            let detail = "must specify one of v1, v1beta1";
            errors.push(FieldError::required(format!("{field}.admissionReviewVersions"), detail));
        }
        for (index, condition) in json::list(webhook, "/matchConditions").iter().enumerate() {
            let expression = json::text(condition, "/expression");
            if let Err(error) = compile(expression) {
                let field = format!("{field}.matchConditions[{index}].expression");
                errors.push(FieldError::invalid(
                    field,
                    expression,
                    format!("compilation failed: {error}"),
                ));
            }
        }
    }
}
