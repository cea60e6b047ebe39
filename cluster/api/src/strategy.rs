//! What Kubernetes does to an object of a built-in kind before it is stored, apart from defaults: which part a path may write, the
//! generation, the first status, cluster IPs, grace periods.

mod service;

pub(crate) use service::allocate;

use crate::json;
use crate::kinds::Resource;
use serde_json::{Map, Value, json};

/// Metadata that only the server writes.
const SYSTEM_METADATA: &[&str] = &[
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
    "resourceVersion",
];

/// What a node always says of itself, if only by an empty text.
const NODE_INFO: &[&str] = &[
    "architecture",
    "bootID",
    "containerRuntimeVersion",
    "kernelVersion",
    "kubeProxyVersion",
    "kubeletVersion",
    "machineID",
    "operatingSystem",
    "osImage",
    "systemUUID",
];

/// Takes back what this path may not write.
pub(crate) fn reset(resource: &Resource, new: &mut Value, old: Option<&Value>, subresource: &str) {
    let Some(old) = old else {
        let keeps_status = resource.is("", "nodes") || resource.is("", "persistentvolumes");
        if resource.has_status() && !keeps_status {
            json::as_object(new).remove("status");
        }
        return;
    };
    match subresource {
        "status" => *new = with_status(resource, new, old),
        "finalize" => {
            let mut whole = old.clone();
            json::set(
                &mut whole,
                "/spec/finalizers",
                json::list(new, "/spec/finalizers").to_vec(),
            );
            *new = whole;
        }
        _ => {
            if resource.has_status() {
                let status = old.get("status").cloned();
                json::put(json::as_object(new), "status", status);
            }
            if resource.is("", "namespaces") {
                json::set(new, "/spec/finalizers", json::list(old, "/spec/finalizers").to_vec());
            }
        }
    }
    let metadata = json::object(new, "metadata");
    for field in SYSTEM_METADATA {
        let kept = old.get("metadata").and_then(|metadata| metadata.get(*field)).cloned();
        json::put(metadata, field, kept);
    }
}

/// The old object with the new status, and what else the status path writes.
fn with_status(resource: &Resource, new: &Value, old: &Value) -> Value {
    let mut whole = old.clone();
    let map = json::as_object(&mut whole);
    json::put(map, "status", new.get("status").cloned());
    let mut fields = vec!["managedFields"];
    if resource.is("", "nodes") || resource.is("", "pods") {
        fields.extend(["labels", "annotations"]);
    }
    if resource.is("apps", "deployments") {
        fields.push("annotations"); // the revision that the Deployment is at comes with its status
    }
    let metadata = json::object(&mut whole, "metadata");
    for field in fields {
        let value = new.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
        json::put(metadata, field, value);
    }
    whole
}

/// Built-in kinds that count their generations.
fn counts_generations(resource: &Resource) -> bool {
    resource.custom.is_some()
        || matches!(
            resource.plural.as_str(),
            "pods"
                | "deployments"
                | "replicasets"
                | "statefulsets"
                | "daemonsets"
                | "jobs"
                | "cronjobs"
                | "podtemplates"
                | "replicationcontrollers"
                | "poddisruptionbudgets"
                | "endpointslices"
                | "ingresses"
                | "ingressclasses"
                | "networkpolicies"
                | "priorityclasses"
                | "mutatingwebhookconfigurations"
                | "validatingwebhookconfigurations"
                | "customresourcedefinitions"
        )
}

/// Completes an object that is created: generation, first status, what follows from the uid.
pub(crate) fn begin(resource: &Resource, new: &mut Value) {
    if counts_generations(resource) {
        json::set(new, "/metadata/generation", 1);
    }
    if resource.custom.is_some() {
        return;
    }
    let status = match resource.plural.as_str() {
        "pods" => {
            let class = quality(new);
            Some(json!({"phase": "Pending", "qosClass": class}))
        }
        "deployments" | "jobs" | "cronjobs" | "resourcequotas" => Some(json!({})),
        "replicasets" | "replicationcontrollers" => Some(json!({"replicas": 0})),
        "statefulsets" => Some(json!({"replicas": 0, "availableReplicas": 0})),
        "daemonsets" => Some(json!({"currentNumberScheduled": 0, "numberMisscheduled": 0,
            "desiredNumberScheduled": 0, "numberReady": 0})),
        "poddisruptionbudgets" => Some(
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0,
            "expectedPods": 0}),
        ),
        "services" | "ingresses" => Some(json!({"loadBalancer": {}})),
        "horizontalpodautoscalers" => Some(json!({"desiredReplicas": 0, "currentMetrics": null})),
        "persistentvolumeclaims" | "persistentvolumes" => Some(json!({"phase": "Pending"})),
        "namespaces" => {
            json::set(new, "/spec/finalizers", json!(["kubernetes"]));
            Some(json!({"phase": "Active"}))
        }
        _ => None,
    };
    if let Some(status) = status {
        json::default_in(new, "status", status);
    }
    match resource.plural.as_str() {
        "jobs" => select_own_pods(new),
        "nodes" => {
            json::default(
                json::object(new, "status"),
                "daemonEndpoints",
                json!({"kubeletEndpoint": {"Port": 0}}),
            );
            let info = json::object(new, "status")
                .entry("nodeInfo")
                .or_insert_with(|| json!({}));
            for field in NODE_INFO {
                json::default_in(info, field, "");
            }
        }
        "daemonsets" => json::set(
            new,
            "/metadata/annotations/deprecated.daemonset.template.generation",
            "1",
        ),
        "customresourcedefinitions" => {
            let stored: Vec<Value> = json::list(new, "/spec/versions")
                .iter()
                .filter(|version| json::flag(version, "/storage"))
                .filter_map(|version| version.get("name").cloned())
                .collect();
            let names = json!({"plural": "", "kind": ""});
            json::set(
                new,
                "/status",
                json!({"conditions": null, "acceptedNames": names, "storedVersions": stored}),
            );
        }
        _ => {}
    }
}

/// A job finds its pods by its uid, unless it says otherwise.
fn select_own_pods(job: &mut Value) {
    if json::flag(job, "/spec/manualSelector") {
        return;
    }
    let (name, uid) = (
        json::text(job, "/metadata/name").to_owned(),
        json::text(job, "/metadata/uid").to_owned(),
    );
    let labels: Map<String, Value> = [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), Value::from(value.clone())))
    .collect();
    for place in ["/spec/template/metadata", "/metadata"] {
        if job.pointer(place).is_none() {
            json::set(job, place, json!({}));
        }
        if let Some(metadata) = job.pointer_mut(place) {
            json::object(metadata, "labels").extend(labels.clone());
        }
    }
    json::set(
        job,
        "/spec/selector",
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}),
    );
}

/// Counts the generation up where what is wanted has changed.
pub(crate) fn progress(resource: &Resource, new: &mut Value, old: &Value) {
    if !counts_generations(resource) {
        return;
    }
    let wanted = |value: &Value| -> Value {
        let mut value = value.clone();
        let map = json::as_object(&mut value);
        map.retain(|field, _| field != "metadata" && (field != "status" || !resource.has_status()));
        value
    };
    if wanted(new) != wanted(old) {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        json::set(new, "/metadata/generation", generation + 1);
        if resource.is("apps", "daemonsets") && new.pointer("/spec/template") != old.pointer("/spec/template") {
            let pointer = "/metadata/annotations/deprecated.daemonset.template.generation";
            let number = json::text(old, pointer).parse::<i64>().unwrap_or(0) + 1;
            json::set(new, pointer, number.to_string());
        }
    }
}

/// Seconds that a deletion gives the object; only pods take time.
pub(crate) fn grace_period(resource: &Resource, old: &Value, asked: Option<i64>) -> i64 {
    if !resource.is("", "pods") {
        return 0;
    }
    let ended = matches!(json::text(old, "/status/phase"), "Succeeded" | "Failed");
    if ended || json::text(old, "/spec/nodeName").is_empty() {
        return 0;
    }
    let own = old
        .pointer("/spec/terminationGracePeriodSeconds")
        .and_then(Value::as_i64);
    let seconds = asked.or(own).unwrap_or(30);
    if seconds < 0 { 1 } else { seconds }
}

/// What becomes of dependents where the client does not say; `None`: the garbage collector removes them.
pub(crate) fn default_propagation(resource: &Resource, old: &Value) -> Option<&'static str> {
    let already = old
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|at| !at.is_null());
    let chosen = json::texts(old, "/metadata/finalizers");
    let chosen = chosen
        .iter()
        .any(|name| matches!(name.as_str(), "orphan" | "foregroundDeletion"));
    let orphans = resource.is("batch", "jobs") || resource.is("", "replicationcontrollers");
    (orphans && !already && !chosen).then_some("Orphan")
}

/// Resources whose deletion is answered with the object instead of a `Status`.
pub(crate) fn shows_deleted(resource: &Resource) -> bool {
    resource.custom.is_none()
        && matches!(
            resource.plural.as_str(),
            "pods"
                | "services"
                | "serviceaccounts"
                | "resourcequotas"
                | "persistentvolumeclaims"
                | "persistentvolumes"
                | "podtemplates"
                | "storageclasses"
                | "namespaces"
        )
}

/// The quality-of-service class of a pod.
fn quality(pod: &Value) -> &'static str {
    let containers = json::list(pod, "/spec/containers")
        .iter()
        .chain(json::list(pod, "/spec/initContainers"));
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        for resource in ["cpu", "memory"] {
            let amount = |which: &str| container.pointer(&format!("/resources/{which}/{resource}"));
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
