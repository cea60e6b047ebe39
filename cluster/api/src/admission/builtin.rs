//! The admission that is built in.

use super::Operation;
use crate::json;
use crate::rbac;
use crate::service::Call;
use crate::status::ApiError;
use crate::verbs::object::generated_name;
use serde_json::{Value, json};

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const CERTIFICATE_MAP: &str = "kube-root-ca.crt";
/// A little more than an hour, by which Kubernetes knows the tokens it mounts itself.
const TOKEN_SECONDS: i64 = 3607;
/// How long a pod stays on a node that is gone.
const TOLERATED_SECONDS: i64 = 300;
/// Namespaces that stay.
const LASTING: &[&str] = &["default", "kube-system", "kube-public"];

/// Refuses objects in a namespace that is not there or ends.
pub(crate) fn namespace_exists(call: &Call, operation: Operation) -> Result<(), ApiError> {
    if !call.resource.namespaced || operation != Operation::Create {
        return Ok(());
    }
    let name = call.info.namespace.as_str();
    let Some(namespace) = call.api.find("namespaces", "", name) else {
        return Err(ApiError::not_found("", "namespaces", name));
    };
    if namespace.pointer("/metadata/deletionTimestamp").is_none() {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let mut error = ApiError::forbidden(&call.resource.group, &call.resource.plural, &call.info.name, &why);
    if let Some(details) = &mut error.details {
        let message = format!("namespace {name} is being terminated");
        let causes = json!([{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]);
        json::set(details, "/causes", causes);
    }
    Err(error)
}

/// Refuses the deletion of namespaces that stay.
pub(crate) fn may_be_deleted(call: &Call) -> Result<(), ApiError> {
    let name = call.info.name.as_str();
    if call.resource.is("", "namespaces") && LASTING.contains(&name) {
        return Err(ApiError::forbidden(
            "",
            "namespaces",
            name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

/// Completes pods that are created.
pub(super) fn mutate(call: &Call, operation: Operation, new: &mut Value) -> Result<(), ApiError> {
    if !call.resource.is("", "pods") || !call.info.subresource.is_empty() {
        return Ok(());
    }
    if operation != Operation::Create {
        tolerate(new);
        return Ok(());
    }
    service_account(call, new)?;
    priority(call, new)?;
    tolerate(new);
    Ok(())
}

fn forbidden(new: &Value, why: &str) -> ApiError {
    ApiError::forbidden("", "pods", json::text(new, "/metadata/name"), why)
}

/// A pod has a service account, and its token unless nobody wants it.
fn service_account(call: &Call, new: &mut Value) -> Result<(), ApiError> {
    json::default(json::object(new, "spec"), "serviceAccountName", "default");
    let name = json::text(new, "/spec/serviceAccountName").to_owned();
    json::set(new, "/spec/serviceAccount", name.clone());
    let namespace = call.info.namespace.as_str();
    let Some(account) = call.api.find("serviceaccounts", namespace, &name) else {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
        return Err(forbidden(new, &why));
    };
    if json::list(new, "/spec/imagePullSecrets").is_empty()
        && let Some(secrets) = account.get("imagePullSecrets")
    {
        json::set(new, "/spec/imagePullSecrets", secrets.clone());
    }
    let own = new
        .pointer("/spec/automountServiceAccountToken")
        .and_then(Value::as_bool);
    let wanted = own.or_else(|| account.get("automountServiceAccountToken").and_then(Value::as_bool));
    if wanted.unwrap_or(true) {
        mount_token(new);
    }
    Ok(())
}

fn mount_token(new: &mut Value) {
    let prefix = "kube-api-access-";
    let volumes = json::list(new, "/spec/volumes");
    let present = volumes
        .iter()
        .map(|volume| json::text(volume, "/name"))
        .find(|name| name.starts_with(prefix));
    let (volume, is_new) = match present {
        Some(name) => (name.to_owned(), false),
        None => (generated_name(prefix), true),
    };
    let mut mounted = false;
    for list in ["/spec/initContainers", "/spec/containers"] {
        for container in json::items(new, list) {
            if json::list(container, "/volumeMounts")
                .iter()
                .any(|mount| json::text(mount, "/mountPath") == TOKEN_PATH)
            {
                continue;
            }
            let mount = json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH});
            let mounts = json::as_object(container)
                .entry("volumeMounts")
                .or_insert_with(|| json!([]));
            if let Some(mounts) = mounts.as_array_mut() {
                mounts.push(mount);
                mounted = true;
            }
        }
    }
    if !(mounted && is_new) {
        return;
    }
    let volume = json!({"name": volume, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": CERTIFICATE_MAP, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}
    ]}});
    let volumes = json::object(new, "spec").entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(volume);
    }
}

/// The number of a pod's priority class.
fn priority(call: &Call, new: &mut Value) -> Result<(), ApiError> {
    let name = json::text(new, "/spec/priorityClassName").to_owned();
    let (number, preemption) = if name.is_empty() {
        let (_, all) = call.api.inner.store.list("priorityclasses.scheduling.k8s.io", "", None);
        let usual = all
            .iter()
            .map(|stored| stored.value())
            .find(|class| json::flag(class, "/globalDefault"));
        match usual {
            Some(class) => {
                json::set(new, "/spec/priorityClassName", json::text(&class, "/metadata/name"));
                numbers(&class)
            }
            None => (json!(0), "PreemptLowerPriority".to_owned()),
        }
    } else {
        let Some(class) = call.api.find("priorityclasses.scheduling.k8s.io", "", &name) else {
            return Err(forbidden(new, &format!("no PriorityClass with name {name} was found")));
        };
        numbers(&class)
    };
    json::set(new, "/spec/priority", number);
    json::default(json::object(new, "spec"), "preemptionPolicy", preemption);
    Ok(())
}

fn numbers(class: &Value) -> (Value, String) {
    let policy = json::text(class, "/preemptionPolicy").to_owned();
    (class.get("value").cloned().unwrap_or_default(), policy)
}

/// A pod stays a while on a node that is not ready or not reached.
fn tolerate(new: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = json::list(new, "/spec/tolerations").iter().any(|one| {
            matches!(
                json::text(one, "/key"),
                "" | "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"
            ) && (json::text(one, "/key").is_empty() || json::text(one, "/key") == key)
                && matches!(json::text(one, "/effect"), "" | "NoExecute")
        });
        if tolerated {
            continue;
        }
        let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": TOLERATED_SECONDS});
        let all = json::object(new, "spec")
            .entry("tolerations")
            .or_insert_with(|| json!([]));
        if let Some(all) = all.as_array_mut() {
            all.push(toleration);
        }
    }
}

/// Nobody gives rights that they do not have, by a role or by a binding.
pub(super) fn no_escalation(call: &Call, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if call.resource.group != "rbac.authorization.k8s.io" || call.resource.custom.is_some() {
        return Ok(());
    }
    let is_role = call.resource.kind.ends_with("Role");
    let same = |field: &str| old.is_some_and(|old| old.get(field) == new.get(field));
    if (is_role && same("rules") && same("aggregationRule")) || (!is_role && same("roleRef") && same("subjects")) {
        return Ok(());
    }
    let (user, namespace) = (&call.user, call.info.namespace.as_str());
    let name = json::text(new, "/metadata/name");
    let (verb, plural, object) = if is_role {
        ("escalate", call.resource.plural.as_str(), name)
    } else {
        let kind = json::text(new, "/roleRef/kind");
        let plural = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
        ("bind", plural, json::text(new, "/roleRef/name"))
    };
    let attributes = rbac::Attributes {
        user: &user.name,
        groups: &user.groups,
        verb,
        group: "rbac.authorization.k8s.io",
        resource: plural,
        name: object,
        namespace,
        ..rbac::Attributes::default()
    };
    if crate::auth::decide(&call.api, &attributes).allowed {
        return Ok(());
    }
    let wanted = if is_role {
        json::list(new, "/rules").to_vec()
    } else {
        let collection = format!("{plural}.rbac.authorization.k8s.io");
        let place = if plural == "clusterroles" { "" } else { namespace };
        match call.api.find(&collection, place, object) {
            Some(role) => json::list(&role, "/rules").to_vec(),
            None => return Err(ApiError::not_found("rbac.authorization.k8s.io", plural, object)),
        }
    };
    let roles = call.api.inner.roles.current(&call.api.inner.store);
    let missing = rbac::missing_rules(&*roles, &user.name, &user.groups, namespace, &wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        missing.join("\n")
    );
    Err(ApiError::forbidden(
        "rbac.authorization.k8s.io",
        &call.resource.plural,
        name,
        &why,
    ))
}
