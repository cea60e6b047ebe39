//! Whether a webhook is concerned with a request, and what it is sent.

use super::{Operation, conditions, failed};
use crate::json;
use crate::kinds::{Resource, api_version};
use crate::review::user_info;
use crate::selector::LabelSelector;
use crate::service::Call;
use crate::status::ApiError;
use crate::verbs::object::uuid;
use serde_json::{Value, json};

/// What a webhook is asked.
pub(super) struct Request {
    pub(super) uid: String,
    /// The object as it is sent, at the version that the webhook wants.
    pub(super) object: Value,
    /// The `request` of the AdmissionReview.
    pub(super) body: Value,
}

impl Request {
    /// The request for a webhook, if it is concerned. An error is a refusal.
    pub(super) fn of(
        call: &Call,
        hook: &Value,
        operation: Operation,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Option<Self>, ApiError> {
        let Some(version) = wanted_version(call, hook, operation) else {
            return Ok(None);
        };
        match is_selected(call, hook, new, old) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => return failed(hook, &error).map(|()| None),
        }
        if call.dry_run() && !matches!(json::text(hook, "/sideEffects"), "None" | "NoneOnDryRun") {
            let name = json::text(hook, "/name");
            return Err(ApiError::bad_request(format!(
                "admission webhook {name:?} does not support dry run"
            )));
        }
        let request = Self::build(call, operation, &version, new, old);
        match conditions::hold(hook, &request.body) {
            Ok(true) => Ok(Some(request)),
            Ok(false) => Ok(None),
            Err(error) => failed(hook, &error).map(|()| None),
        }
    }

    fn build(call: &Call, operation: Operation, version: &str, new: Option<&Value>, old: Option<&Value>) -> Self {
        let resource = &call.resource;
        let at_version = |value: Option<&Value>| -> Value {
            let mut value = value.cloned().unwrap_or_default();
            if let Some(map) = value.as_object_mut() {
                map.insert("apiVersion".to_owned(), api_version(&resource.group, version).into());
            }
            value
        };
        let (object, old_object) = (at_version(new), at_version(old));
        let kind = |version: &str| json!({"group": resource.group, "version": version, "kind": resource.kind});
        let plural = |version: &str| json!({"group": resource.group, "version": version, "resource": resource.plural});
        let uid = uuid();
        let options = match operation {
            Operation::Create => "CreateOptions",
            Operation::Update if call.info.verb == "patch" => "PatchOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
        };
        let mut options = json!({"kind": options, "apiVersion": "meta.k8s.io/v1"});
        for field in ["fieldManager", "fieldValidation"] {
            let text = call.info.query.text(field);
            if !text.is_empty() {
                json::set(&mut options, &format!("/{field}"), text);
            }
        }
        if call.dry_run() {
            json::set(&mut options, "/dryRun", json!(["All"]));
        }
        let named = new
            .or(old)
            .map(|value| json::text(value, "/metadata/name"))
            .unwrap_or_default();
        let mut body = json!({
            "uid": uid, "kind": kind(version), "resource": plural(version),
            "requestKind": kind(&resource.version), "requestResource": plural(&resource.version),
            "operation": operation.name(), "userInfo": user_info(&call.user),
            "object": object, "oldObject": old_object, "dryRun": call.dry_run(), "options": options
        });
        if !named.is_empty() {
            json::set(&mut body, "/name", named);
        }
        if resource.namespaced {
            json::set(&mut body, "/namespace", call.info.namespace.clone());
        } else if resource.is("", "namespaces") {
            json::set(&mut body, "/namespace", named);
        }
        if !call.info.subresource.is_empty() {
            json::set(&mut body, "/subResource", call.info.subresource.clone());
            json::set(&mut body, "/requestSubResource", call.info.subresource.clone());
        }
        Self { uid, object, body }
    }
}

/// The version at which a rule of the webhook wants the object: the request's, or by `matchPolicy: Equivalent` another.
fn wanted_version(call: &Call, hook: &Value, operation: Operation) -> Option<String> {
    let resource = &call.resource;
    let rules = json::list(hook, "/rules");
    let at = |version: &str| {
        rules
            .iter()
            .any(|rule| rule_matches(rule, resource, version, &call.info.subresource, operation))
    };
    if at(&resource.version) {
        return Some(resource.version.clone());
    }
    if json::text(hook, "/matchPolicy") == "Exact" {
        return None;
    }
    let kinds = call.api.inner.registry.current();
    let versions = &kinds.groups.get(&resource.group)?.versions;
    let others = versions
        .iter()
        .filter(|(_, all)| all.iter().any(|one| one.plural == resource.plural));
    others.map(|(version, _)| version.clone()).find(|version| at(version))
}

fn rule_matches(rule: &Value, resource: &Resource, version: &str, subresource: &str, operation: Operation) -> bool {
    let has = |pointer: &str, wanted: &str| {
        json::list(rule, pointer)
            .iter()
            .filter_map(Value::as_str)
            .any(|one| one == "*" || one == wanted)
    };
    let scope = match json::text(rule, "/scope") {
        "Namespaced" => resource.namespaced,
        "Cluster" => !resource.namespaced,
        _ => true,
    };
    let fits = |pattern: &str| {
        let (plural, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
        let plural_fits = plural == "*" || plural == resource.plural;
        // `*` alone is all resources without their subresources.
        plural_fits && (sub == subresource || (sub == "*" && pattern.contains('/')))
    };
    scope
        && has("/operations", operation.name())
        && has("/apiGroups", &resource.group)
        && has("/apiVersions", version)
        && json::list(rule, "/resources")
            .iter()
            .filter_map(Value::as_str)
            .any(fits)
}

/// Whether the selectors of the webhook match.
fn is_selected(call: &Call, hook: &Value, new: Option<&Value>, old: Option<&Value>) -> Result<bool, String> {
    let selector = |field: &str| -> Result<Option<LabelSelector>, String> {
        let Some(selector) = hook.get(field) else {
            return Ok(None);
        };
        let parsed = LabelSelector::from_object(selector).map_err(|error| error.0)?;
        Ok((!parsed.is_empty()).then_some(parsed))
    };
    let labels = |value: Option<&Value>| -> Option<serde_json::Map<String, Value>> {
        value?.pointer("/metadata/labels")?.as_object().cloned()
    };
    if let Some(selector) = selector("namespaceSelector")? {
        let namespace = if call.resource.namespaced {
            call.api.find("namespaces", "", &call.info.namespace)
        } else if call.resource.is("", "namespaces") {
            new.or(old).cloned()
        } else {
            None
        };
        let concerned = call.resource.namespaced || call.resource.is("", "namespaces");
        if concerned && !selector.matches(labels(namespace.as_ref()).as_ref()) {
            return Ok(false);
        }
    }
    if let Some(selector) = selector("objectSelector")? {
        let either = [new, old]
            .into_iter()
            .flatten()
            .any(|value| selector.matches(labels(Some(value)).as_ref()));
        if !either {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Registry;

    #[test]
    fn rules_match_resources_and_subresources_as_written() {
        let kinds = Registry::new().unwrap().current();
        let pods = kinds.resource("", "v1", "pods").unwrap();
        let matches = |resources: Value, scope: &str, subresource: &str| {
            let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["*"], "resources": resources,
                "scope": scope});
            rule_matches(&rule, pods, "v1", subresource, Operation::Create)
        };
        assert!(matches(json!(["pods"]), "*", ""));
        assert!(!matches(json!(["pods"]), "*", "status"));
        assert!(matches(json!(["*"]), "Namespaced", ""));
        assert!(!matches(json!(["*"]), "*", "status"));
        assert!(matches(json!(["*/*"]), "*", ""));
        assert!(matches(json!(["*/*"]), "*", "status"));
        assert!(matches(json!(["pods/*"]), "*", "status"));
        assert!(matches(json!(["*/status"]), "*", "status"));
        assert!(!matches(json!(["pods"]), "Cluster", ""));
        let rule = json!({"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        assert!(!rule_matches(&rule, pods, "v1", "", Operation::Create));
        assert!(rule_matches(&rule, pods, "v1", "", Operation::Delete));
    }
}
