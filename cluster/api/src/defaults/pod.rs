//! The defaults of pods, and of the templates that make them.

use crate::json::{self, default, default_in, items, object};
use serde_json::{Value, json};

/// A pod of its own.
pub(super) fn pod(value: &mut Value) {
    for (one, all) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let address = value.get("status").and_then(|status| status.get(one)).cloned();
        if let Some(address) = address
            && let Some(status) = value.get_mut("status")
        {
            default_in(status, all, json!([{"ip": address}]));
        }
    }
    spec(object(value, "spec"));
    let Some(spec) = value.pointer_mut("/spec") else { return };
    for list in ["/containers", "/initContainers"] {
        for container in items(spec, list) {
            requests_from_limits(container);
        }
    }
    default_in(spec, "enableServiceLinks", true);
    if json::flag(spec, "/hostNetwork") {
        host_ports(spec);
    }
}

/// The template at a JSON pointer.
pub(super) fn template(value: &mut Value, pointer: &str) {
    let Some(template) = value.pointer_mut(pointer).filter(|template| template.is_object()) else {
        return;
    };
    spec(object(template, "spec"));
    if let Some(spec) = template.pointer_mut("/spec")
        && json::flag(spec, "/hostNetwork")
    {
        host_ports(spec);
    }
}

/// A claim, or the template of one.
pub(super) fn claim(value: &mut Value) {
    default(object(value, "spec"), "volumeMode", "Filesystem");
}

fn spec(map: &mut serde_json::Map<String, Value>) {
    default(map, "restartPolicy", "Always");
    default(map, "terminationGracePeriodSeconds", 30);
    default(map, "dnsPolicy", "ClusterFirst");
    default(map, "securityContext", json!({}));
    default(map, "schedulerName", "default-scheduler");
    // The older name of the field is kept equal.
    match (
        map.get("serviceAccountName").cloned(),
        map.get("serviceAccount").cloned(),
    ) {
        (Some(name), _) if name != "" => {
            map.insert("serviceAccount".to_owned(), name);
        }
        (_, Some(name)) => {
            map.insert("serviceAccountName".to_owned(), name);
        }
        _ => {}
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for each in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container(each);
        }
    }
    for each in map
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        volume(each);
    }
}

fn container(value: &mut Value) {
    let policy = pull_policy(json::text(value, "/image"));
    let Some(map) = value.as_object_mut() else { return };
    default(map, "imagePullPolicy", policy);
    default(map, "terminationMessagePath", "/dev/termination-log");
    default(map, "terminationMessagePolicy", "File");
    default(map, "resources", json!({}));
    for amounts in ["/resources/limits", "/resources/requests"] {
        for amount in value
            .pointer_mut(amounts)
            .and_then(Value::as_object_mut)
            .into_iter()
            .flatten()
        {
            if amount.1.is_number() {
                *amount.1 = amount.1.to_string().into();
            }
        }
    }
    for port in items(value, "/ports") {
        default_in(port, "protocol", "TCP");
    }
    for variable in items(value, "/env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            default_in(field, "apiVersion", "v1");
        }
        // An empty text is what a variable has anyway.
        if json::text(variable, "/value").is_empty()
            && let Some(map) = variable.as_object_mut()
        {
            map.remove("value");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = value.get_mut(name) {
            self::probe(probe);
        }
    }
    for name in ["/lifecycle/postStart", "/lifecycle/preStop"] {
        if let Some(handler) = value.pointer_mut(name) {
            http_get(handler);
        }
    }
}

/// `latest` may move, other tags and digests stay.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match (digest, last.split_once(':').map(|(_, tag)| tag)) {
        (Some(_), _) => "IfNotPresent",
        (None, None | Some("latest")) => "Always",
        (None, Some(_)) => "IfNotPresent",
    }
}

fn probe(value: &mut Value) {
    http_get(value);
    if let Some(grpc) = value.get_mut("grpc") {
        default_in(grpc, "service", "");
    }
    let Some(map) = value.as_object_mut() else { return };
    // Zero is what was not written.
    for (field, amount) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if map.get(field).and_then(Value::as_i64) == Some(0) {
            map.remove(field);
        }
        default(map, field, amount);
    }
}

fn http_get(value: &mut Value) {
    if let Some(get) = value.get_mut("httpGet") {
        default_in(get, "path", "/");
        default_in(get, "scheme", "HTTP");
    }
}

/// What is limited and not asked for is asked for as much.
fn requests_from_limits(container: &mut Value) {
    let Some(Value::Object(limits)) = container.pointer("/resources/limits").cloned() else {
        return;
    };
    let Some(resources) = container.get_mut("resources") else {
        return;
    };
    let requests = object(resources, "requests");
    for (name, amount) in limits {
        default(requests, &name, amount);
    }
}

fn host_ports(spec: &mut Value) {
    for list in ["/containers", "/initContainers"] {
        for container in items(spec, list) {
            for port in items(container, "/ports") {
                if let (Some(number), Some(map)) = (port.get("containerPort").cloned(), port.as_object_mut()) {
                    default(map, "hostPort", number);
                }
            }
        }
    }
}

fn volume(value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    if map.len() == 1 && map.contains_key("name") {
        map.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = map.get_mut(source) {
            default_in(source, "defaultMode", 0o644);
        }
    }
    if let Some(path) = map.get_mut("hostPath") {
        default_in(path, "type", "");
    }
    if let Some(claim) = map
        .get_mut("ephemeral")
        .and_then(|ephemeral| ephemeral.get_mut("volumeClaimTemplate"))
    {
        self::claim(claim);
    }
    fields(value.pointer_mut("/downwardAPI"));
    for source in items(value, "/projected/sources") {
        if let Some(token) = source.get_mut("serviceAccountToken") {
            default_in(token, "expirationSeconds", 3600);
        }
        fields(source.pointer_mut("/downwardAPI"));
    }
}

fn fields(source: Option<&mut Value>) {
    let Some(source) = source else { return };
    for item in items(source, "/items") {
        if let Some(field) = item.get_mut("fieldRef") {
            default_in(field, "apiVersion", "v1");
        }
    }
}
