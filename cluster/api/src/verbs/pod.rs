//! What only pods have: binding and eviction.

use super::delete::{DeleteOptions, remove};
use super::object::commit;
use super::read;
use crate::json;
use crate::negotiate::{self, Body, respond_value};
use crate::selector::LabelSelector;
use crate::service::Call;
use crate::status::ApiError;
use crate::store::Expect;
use crate::timestamp::rfc3339;
use http::Response;
use serde_json::{Value, json};
use std::sync::Arc;

const BUDGETS: &str = "poddisruptionbudgets.policy";

fn success(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code})
}

/// Makes the call one about a pod.
fn about_pod(call: &mut Call, name: String) -> Result<(), ApiError> {
    let kinds = call.api.inner.registry.current();
    call.resource = kinds
        .resource("", "v1", "pods")
        .ok_or_else(ApiError::no_such_resource)?
        .clone();
    call.info.name = name;
    Ok(())
}

/// Sets a condition of a pod.
fn set_condition(pod: &mut Value, kind: &str, reason: Option<(&str, &str)>, now: &str) {
    let mut conditions = json::list(pod, "/status/conditions").to_vec();
    conditions.retain(|condition| json::text(condition, "/type") != kind);
    let mut condition = json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if let Some((reason, message)) = reason {
        json::set(&mut condition, "/reason", reason);
        json::set(&mut condition, "/message", message);
    }
    conditions.push(condition);
    json::set(pod, "/status/conditions", conditions);
}

/// Assigns a pod to a node.
pub(crate) async fn bind(call: &mut Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let binding = negotiate::decode(&call.headers, body, "Binding")?.value;
    let sent = json::text(&binding, "/metadata/name").to_owned();
    let name = if call.info.subresource.is_empty() || call.info.name.is_empty() {
        sent.clone()
    } else {
        call.info.name.clone()
    };
    if !sent.is_empty() && sent != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({sent}) does not match the name on the URL ({name})"
        )));
    }
    about_pod(call, name.clone())?;
    let node = json::text(&binding, "/target/name");
    let target = json::text(&binding, "/target/kind");
    if node.is_empty() || !matches!(target, "" | "Node") {
        return Err(ApiError::bad_request(
            "a binding needs the name of a Node as its target",
        ));
    }
    loop {
        let stored = read::find(call)?;
        let mut pod = call.api.value(&call.resource, &stored);
        let conflict = |why: String| Err(ApiError::conflict("", "pods/binding", &name, &why));
        let uid = json::text(&binding, "/metadata/uid");
        if !uid.is_empty() && uid != json::text(&pod, "/metadata/uid") {
            return conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                json::text(&pod, "/metadata/uid")
            ));
        }
        if pod.pointer("/metadata/deletionTimestamp").is_some() {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        let present = json::text(&pod, "/spec/nodeName");
        if !present.is_empty() {
            return conflict(format!("pod {name} is already assigned to node {present:?}"));
        }
        json::set(&mut pod, "/spec/nodeName", node);
        for field in ["annotations", "labels"] {
            if let Some(more) = binding
                .pointer(&format!("/metadata/{field}"))
                .and_then(Value::as_object)
            {
                let target = json::object(&mut pod, "metadata")
                    .entry(field)
                    .or_insert_with(|| json!({}));
                json::as_object(target).extend(more.clone());
            }
        }
        set_condition(&mut pod, "PodScheduled", None, &rfc3339(call.now));
        if call.dry_run() {
            break;
        }
        match commit(&call.api, &call.resource, pod, Expect::Revision(stored.revision), false).await {
            Ok(_) => break,
            Err(error) if error.reason == "Conflict" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(respond_value(201, call.accept, &success(201)))
}

/// Deletes a pod, if the disruption budgets let it go.
pub(crate) async fn evict(call: &mut Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let eviction = negotiate::decode(&call.headers, body, "Eviction")?.value;
    let name = call.info.name.clone();
    let sent = json::text(&eviction, "/metadata/name");
    if !sent.is_empty() && sent != name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    about_pod(call, name)?;
    let options = DeleteOptions::of(eviction.get("deleteOptions").unwrap_or(&Value::Null));
    let pod = call.api.value(&call.resource, &*read::find(call)?);
    let ended = matches!(json::text(&pod, "/status/phase"), "Succeeded" | "Failed" | "Pending");
    let deleting = pod.pointer("/metadata/deletionTimestamp").is_some();
    if !ended && !deleting {
        spend_budget(call, &pod).await?;
    }
    if !call.dry_run() && !deleting {
        mark_disrupted(call).await?;
    }
    remove(call, &options).await?;
    Ok(respond_value(201, call.accept, &success(201)))
}

/// Says on the pod why it goes.
async fn mark_disrupted(call: &Call) -> Result<(), ApiError> {
    let stored = read::find(call)?;
    let mut pod = call.api.value(&call.resource, &stored);
    let reason = ("EvictionByEvictionAPI", "Eviction API: evicting");
    set_condition(&mut pod, "DisruptionTarget", Some(reason), &rfc3339(call.now));
    match commit(&call.api, &call.resource, pod, Expect::Revision(stored.revision), false).await {
        // The pod's status was written meanwhile; the deletion that follows counts.
        Err(error) if error.reason != "Conflict" => Err(error),
        _ => Ok(()),
    }
}

/// Takes one disruption from the pod's budget, or refuses.
async fn spend_budget(call: &Call, pod: &Value) -> Result<(), ApiError> {
    let kinds = call.api.inner.registry.current();
    let Some(resource) = kinds.resource("policy", "v1", "poddisruptionbudgets") else {
        return Ok(());
    };
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    loop {
        let (_, all) = call.api.inner.store.list(BUDGETS, &call.info.namespace, None);
        let matching: Vec<_> = all
            .into_iter()
            .map(|stored| (call.api.value(resource, &stored), stored))
            .filter(|(budget, _)| {
                let selector = budget.pointer("/spec/selector");
                selector
                    .is_some_and(|selector| LabelSelector::from_object(selector).is_ok_and(|one| one.matches(labels)))
            })
            .collect();
        let [(budget, stored)] = matching.as_slice() else {
            if matching.is_empty() {
                return Ok(());
            }
            let message =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::internal(message));
        };
        let number = |pointer: &str| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        let name = json::text(budget, "/metadata/name");
        if number("/status/observedGeneration") < number("/metadata/generation") {
            let message = "Cannot evict pod as it would violate the pod's disruption budget.";
            let cause = format!("The disruption budget {name} is still being processed by the server.");
            let causes = json!([{"reason": "DisruptionBudget", "message": cause}]);
            return Err(ApiError::too_many_requests(message, 10, causes));
        }
        let allowed = number("/status/disruptionsAllowed");
        if allowed <= 0 {
            let message = "Cannot evict pod as it would violate the pod's disruption budget.";
            let (needed, healthy) = (number("/status/desiredHealthy"), number("/status/currentHealthy"));
            let cause = format!("The disruption budget {name} needs {needed} healthy pods and has {healthy} currently");
            let causes = json!([{"reason": "DisruptionBudget", "message": cause}]);
            return Err(ApiError::too_many_requests(message, 0, causes));
        }
        if call.dry_run() {
            return Ok(());
        }
        let mut new = budget.clone();
        json::set(&mut new, "/status/disruptionsAllowed", allowed - 1);
        let pods = json::object(
            json::as_object(&mut new).entry("status").or_insert(Value::Null),
            "disruptedPods",
        );
        pods.insert(json::text(pod, "/metadata/name").to_owned(), rfc3339(call.now).into());
        let resource = Arc::clone(resource);
        match commit(&call.api, &resource, new, Expect::Revision(stored.revision), false).await {
            Err(error) if error.reason == "Conflict" => {}
            other => return other.map(|_| ()),
        }
    }
}
