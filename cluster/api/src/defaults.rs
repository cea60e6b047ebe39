//! The defaults of built-in kinds: what `kubectl get -o yaml` shows that nobody wrote.

mod pod;

use crate::json::{self, default, default_in, items, object};
use crate::schema::crd;
use base64::Engine as _;
use serde_json::{Map, Value, json};

/// Sets the defaults of a kind.
pub(crate) fn set(group: &str, kind: &str, value: &mut Value) {
    match (group, kind) {
        ("", "Pod") => pod::pod(value),
        ("", "Service") => service(value),
        ("", "Secret") => secret(value),
        ("", "Namespace") => {
            let name = json::text(value, "/metadata/name").to_owned();
            json::set(value, "/metadata/labels/kubernetes.io~1metadata.name", name);
        }
        ("", "Endpoints") => {
            for subset in items(value, "/subsets") {
                for port in items(subset, "/ports") {
                    default_in(port, "protocol", "TCP");
                }
            }
        }
        ("" | "events.k8s.io", "Event") => event(group, value),
        ("", "PersistentVolumeClaim") => pod::claim(value),
        ("", "PersistentVolume") => {
            let spec = object(value, "spec");
            default(spec, "persistentVolumeReclaimPolicy", "Retain");
            default(spec, "volumeMode", "Filesystem");
            if let Some(path) = value.pointer_mut("/spec/hostPath") {
                default_in(path, "type", "");
            }
        }
        ("", "PodTemplate") => pod::template(value, "/template"),
        ("", "LimitRange") => limit_range(value),
        ("", "ReplicationController") => {
            default(object(value, "spec"), "replicas", 1);
            pod::template(value, "/spec/template");
            let labels = value.pointer("/spec/template/metadata/labels").cloned();
            if let Some(labels) = labels {
                default(object(value, "spec"), "selector", labels.clone());
                default(object(value, "metadata"), "labels", labels);
            }
        }
        ("apps", "Deployment") => deployment(value),
        ("apps", "ReplicaSet") => {
            default(object(value, "spec"), "replicas", 1);
            pod::template(value, "/spec/template");
        }
        ("apps", "StatefulSet") => stateful_set(value),
        ("apps", "DaemonSet") => daemon_set(value),
        ("batch", "Job") => job(value),
        ("batch", "CronJob") => {
            let spec = object(value, "spec");
            default(spec, "concurrencyPolicy", "Allow");
            default(spec, "suspend", false);
            default(spec, "successfulJobsHistoryLimit", 3);
            default(spec, "failedJobsHistoryLimit", 1);
            pod::template(value, "/spec/jobTemplate/spec/template");
        }
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler(value),
        ("networking.k8s.io", "NetworkPolicy") => network_policy(value),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding" | "RoleBinding") => binding(value),
        ("rbac.authorization.k8s.io", "ClusterRole" | "Role") => {
            json::as_object(value).entry("rules").or_insert(Value::Null);
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            for port in items(value, "/ports") {
                default_in(port, "name", "");
                default_in(port, "protocol", "TCP");
            }
        }
        ("scheduling.k8s.io", "PriorityClass") => default_in(value, "preemptionPolicy", "PreemptLowerPriority"),
        ("storage.k8s.io", "StorageClass") => {
            default_in(value, "reclaimPolicy", "Delete");
            default_in(value, "volumeBindingMode", "Immediate");
        }
        ("storage.k8s.io", "CSIDriver") => {
            let spec = object(value, "spec");
            default(spec, "attachRequired", true);
            default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            default(spec, "volumeLifecycleModes", json!(["Persistent"]));
            for field in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
                default(spec, field, false);
            }
        }
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => webhooks(value, true),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => webhooks(value, false),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crd::set_defaults(value),
        _ => {}
    }
}

fn service(value: &mut Value) {
    let spec = object(value, "spec");
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
    if spec.get("sessionAffinity").and_then(Value::as_str) == Some("ClientIP") {
        let seconds = json!({"clientIP": {"timeoutSeconds": 10800}});
        default(spec, "sessionAffinityConfig", seconds);
    } else {
        spec.remove("sessionAffinityConfig");
    }
    for port in items(value, "/spec/ports") {
        default_in(port, "protocol", "TCP");
        let target = port.get("targetPort").cloned();
        if target.is_none_or(|target| target == json!(0) || target == json!(""))
            && let (Some(number), Some(map)) = (port.get("port").cloned(), port.as_object_mut())
        {
            map.insert("targetPort".to_owned(), number);
        }
    }
}

/// What was given as text is stored as data.
fn secret(value: &mut Value) {
    default_in(value, "type", "Opaque");
    let map = json::as_object(value);
    if let Some(Value::Object(texts)) = map.remove("stringData") {
        let data = object(value, "data");
        for (key, text) in texts {
            let text = text.as_str().unwrap_or_default();
            data.insert(key, base64::engine::general_purpose::STANDARD.encode(text).into());
        }
    }
}

/// Events always show these fields, empty or not.
fn event(group: &str, value: &mut Value) {
    let map = json::as_object(value);
    let (source, first, last, component) = if group.is_empty() {
        ("source", "firstTimestamp", "lastTimestamp", "reportingComponent")
    } else {
        (
            "deprecatedSource",
            "deprecatedFirstTimestamp",
            "deprecatedLastTimestamp",
            "reportingController",
        )
    };
    default(map, source, json!({}));
    for field in [first, last, "eventTime"] {
        map.entry(field).or_insert(Value::Null);
    }
    default(map, component, "");
    default(map, "reportingInstance", "");
}

fn limit_range(value: &mut Value) {
    for limit in items(value, "/spec/limits") {
        if json::text(limit, "/type") != "Container" {
            continue;
        }
        let Some(map) = limit.as_object_mut() else { continue };
        merge_missing(map, "default", "max");
        merge_missing(map, "defaultRequest", "default");
        merge_missing(map, "defaultRequest", "min");
    }
}

/// Fills a map of amounts from another.
fn merge_missing(map: &mut Map<String, Value>, field: &str, from: &str) {
    let Some(Value::Object(source)) = map.get(from).cloned() else {
        return;
    };
    let target = map.entry(field).or_insert_with(|| json!({}));
    for (key, amount) in source {
        default_in(target, &key, amount);
    }
}

fn deployment(value: &mut Value) {
    let spec = object(value, "spec");
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    default(spec, "strategy", json!({}));
    if let Some(strategy) = value.pointer_mut("/spec/strategy") {
        default_in(strategy, "type", "RollingUpdate");
        if json::text(strategy, "/type") == "RollingUpdate" {
            let rolling = object(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", "25%");
            default(rolling, "maxSurge", "25%");
        }
    }
    pod::template(value, "/spec/template");
}

fn stateful_set(value: &mut Value) {
    let spec = object(value, "spec");
    default(spec, "replicas", 1);
    default(spec, "podManagementPolicy", "OrderedReady");
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "updateStrategy", json!({}));
    let retention = object(value, "spec")
        .entry("persistentVolumeClaimRetentionPolicy")
        .or_insert_with(|| json!({}));
    default_in(retention, "whenDeleted", "Retain");
    default_in(retention, "whenScaled", "Retain");
    if let Some(strategy) = value.pointer_mut("/spec/updateStrategy") {
        default_in(strategy, "type", "RollingUpdate");
        if json::text(strategy, "/type") == "RollingUpdate" {
            default(object(strategy, "rollingUpdate"), "partition", 0);
        }
    }
    for claim in items(value, "/spec/volumeClaimTemplates") {
        default_in(claim, "kind", "PersistentVolumeClaim");
        default_in(claim, "apiVersion", "v1");
        pod::claim(claim);
        default_in(claim, "status", json!({"phase": "Pending"}));
    }
    pod::template(value, "/spec/template");
}

fn daemon_set(value: &mut Value) {
    let spec = object(value, "spec");
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "updateStrategy", json!({}));
    if let Some(strategy) = value.pointer_mut("/spec/updateStrategy") {
        default_in(strategy, "type", "RollingUpdate");
        if json::text(strategy, "/type") == "RollingUpdate" {
            let rolling = object(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", 1);
            default(rolling, "maxSurge", 0);
        }
    }
    pod::template(value, "/spec/template");
}

fn job(value: &mut Value) {
    let spec = object(value, "spec");
    default(spec, "completionMode", "NonIndexed");
    default(spec, "manualSelector", false);
    default(spec, "suspend", false);
    let unset = |spec: &Map<String, Value>, field: &str| spec.get(field).is_none_or(Value::is_null);
    if unset(spec, "completions") && unset(spec, "parallelism") {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    let per_index = !unset(spec, "backoffLimitPerIndex");
    default(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
    let replacement = if unset(spec, "podFailurePolicy") {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    default(spec, "podReplacementPolicy", replacement);
    pod::template(value, "/spec/template");
    let labels = value.pointer("/spec/template/metadata/labels").cloned();
    if let Some(labels) = labels
        && value.pointer("/metadata/labels").is_none()
    {
        json::set(value, "/metadata/labels", labels);
    }
}

fn autoscaler(value: &mut Value) {
    let v1 = json::text(value, "/apiVersion") == "autoscaling/v1";
    let spec = object(value, "spec");
    default(spec, "minReplicas", 1);
    if v1 {
        return;
    }
    let cpu = json!([{"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}
    }}]);
    default(spec, "metrics", cpu);
}

fn network_policy(value: &mut Value) {
    let mut types = vec!["Ingress"];
    if !json::list(value, "/spec/egress").is_empty() {
        types.push("Egress");
    }
    default(object(value, "spec"), "policyTypes", json!(types));
    for direction in ["/spec/ingress", "/spec/egress"] {
        for rule in items(value, direction) {
            for port in items(rule, "/ports") {
                default_in(port, "protocol", "TCP");
            }
        }
    }
}

fn binding(value: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    default(object(value, "roleRef"), "apiGroup", GROUP);
    for subject in items(value, "/subjects") {
        if matches!(json::text(subject, "/kind"), "User" | "Group") {
            default_in(subject, "apiGroup", GROUP);
        }
    }
}

fn webhooks(value: &mut Value, mutating: bool) {
    for webhook in items(value, "/webhooks") {
        let Some(map) = webhook.as_object_mut() else { continue };
        default(map, "failurePolicy", "Fail");
        default(map, "matchPolicy", "Equivalent");
        default(map, "namespaceSelector", json!({}));
        default(map, "objectSelector", json!({}));
        default(map, "timeoutSeconds", 10);
        if mutating {
            default(map, "reinvocationPolicy", "Never");
        }
        for rule in items(webhook, "/rules") {
            default_in(rule, "scope", "*");
        }
        if let Some(service) = webhook.pointer_mut("/clientConfig/service") {
            default_in(service, "port", 443);
        }
    }
}
