//! Pods and their templates.

use super::name;
use crate::json;
use crate::schema::FieldError;
use serde_json::{Map, Value};

pub(super) fn pod(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if let Some(old) = old {
        update(new, old, errors);
        return;
    }
    spec(new.get("spec").unwrap_or(&Value::Null), "spec", errors);
}

/// What of a pod may change.
fn update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let fixed = |pod: &Value| -> Value {
        let mut spec = pod.get("spec").cloned().unwrap_or_default();
        for list in ["/containers", "/initContainers"] {
            for container in json::items(&mut spec, list) {
                json::as_object(container).remove("image");
            }
        }
        let map = json::as_object(&mut spec);
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "schedulingGates",
            "ephemeralContainers",
        ] {
            map.remove(field);
        }
        if json::text(pod, "/spec/nodeName").is_empty() {
            map.remove("nodeSelector");
        }
        spec
    };
    if fixed(new) != fixed(old) {
        let detail = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
            `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
            `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let kept = json::list(new, "/spec/tolerations");
    if json::list(old, "/spec/tolerations")
        .iter()
        .any(|one| !kept.contains(one))
    {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", detail));
    }
}

/// A template in a workload.
pub(super) fn template(template: &Value, field: &str, errors: &mut Vec<FieldError>) {
    if let Some(labels) = template.pointer("/metadata/labels").and_then(Value::as_object) {
        errors.extend(name::labels(&format!("{field}.labels"), labels));
    }
    spec(
        template.get("spec").unwrap_or(&Value::Null),
        &format!("{field}.spec"),
        errors,
    );
}

fn one_of(value: &Value, pointer: &str, field: String, supported: &[&str], errors: &mut Vec<FieldError>) {
    let text = json::text(value, pointer);
    if !text.is_empty() && !supported.contains(&text) {
        errors.push(FieldError::not_supported(field, text, supported));
    }
}

fn spec(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let volumes = volumes(spec, field, errors);
    if json::list(spec, "/containers").is_empty() {
        errors.push(FieldError::required(format!("{field}.containers"), ""));
    }
    let mut names: Vec<String> = Vec::new();
    for (list, pointer) in [("containers", "/containers"), ("initContainers", "/initContainers")] {
        for (position, container) in json::list(spec, pointer).iter().enumerate() {
            let place = format!("{field}.{list}[{position}]");
            self::container(container, &place, &volumes, &mut names, errors);
            if list == "initContainers" {
                init_container(container, &place, errors);
            }
        }
    }
    let policies = ["Always", "OnFailure", "Never"];
    one_of(
        spec,
        "/restartPolicy",
        format!("{field}.restartPolicy"),
        &policies,
        errors,
    );
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(spec, "/dnsPolicy", format!("{field}.dnsPolicy"), &policies, errors);
    if let Some(selector) = spec.get("nodeSelector").and_then(Value::as_object) {
        errors.extend(name::labels(&format!("{field}.nodeSelector"), selector));
    }
    if let Some(seconds) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && seconds < 1
    {
        let place = format!("{field}.activeDeadlineSeconds");
        errors.push(FieldError::invalid(
            place,
            seconds,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    for (name, pointer) in [("hostname", "/hostname"), ("subdomain", "/subdomain")] {
        let text = json::text(spec, pointer);
        if !text.is_empty()
            && let Some(detail) = name::dns_label(text)
        {
            errors.push(FieldError::invalid(format!("{field}.{name}"), text, detail));
        }
    }
}

/// The names of the volumes.
fn volumes(spec: &Value, field: &str, errors: &mut Vec<FieldError>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (position, volume) in json::list(spec, "/volumes").iter().enumerate() {
        let place = format!("{field}.volumes[{position}]");
        let sources: Vec<&String> = volume
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .filter(|key| *key != "name")
            .collect();
        if let [_, second, ..] = sources.as_slice() {
            let detail = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(format!("{place}.{second}"), detail));
        }
        if volume.get("secret").is_some() && json::text(volume, "/secret/secretName").is_empty() {
            errors.push(FieldError::required(format!("{place}.secret.secretName"), ""));
        }
        if volume.get("configMap").is_some() && json::text(volume, "/configMap/name").is_empty() {
            errors.push(FieldError::required(format!("{place}.configMap.name"), ""));
        }
        if volume.get("hostPath").is_some() && json::text(volume, "/hostPath/path").is_empty() {
            errors.push(FieldError::required(format!("{place}.hostPath.path"), ""));
        }
        let volume_name = json::text(volume, "/name");
        let place = format!("{place}.name");
        if volume_name.is_empty() {
            errors.push(FieldError::required(place, ""));
        } else if let Some(detail) = name::dns_label(volume_name) {
            errors.push(FieldError::invalid(place, volume_name, detail));
        } else if names.iter().any(|known| known == volume_name) {
            errors.push(FieldError::duplicate(place, volume_name));
        }
        names.push(volume_name.to_owned());
    }
    names
}

fn container(
    container: &Value,
    field: &str,
    volumes: &[String],
    names: &mut Vec<String>,
    errors: &mut Vec<FieldError>,
) {
    let own = json::text(container, "/name");
    let place = format!("{field}.name");
    if own.is_empty() {
        errors.push(FieldError::required(place, ""));
    } else if let Some(detail) = name::dns_label(own) {
        errors.push(FieldError::invalid(place, own, detail));
    } else if names.iter().any(|known| known == own) {
        errors.push(FieldError::duplicate(place, own));
    }
    names.push(own.to_owned());
    let image = json::text(container, "/image");
    if image.is_empty() {
        errors.push(FieldError::required(format!("{field}.image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(format!("{field}.image"), image, detail));
    }
    ports(container, field, errors);
    for (position, variable) in json::list(container, "/env").iter().enumerate() {
        let place = format!("{field}.env[{position}]");
        if json::text(variable, "/name").is_empty() {
            errors.push(FieldError::required(format!("{place}.name"), ""));
        }
        if !json::text(variable, "/value").is_empty() && variable.get("valueFrom").is_some() {
            let detail = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(format!("{place}.valueFrom"), "", detail));
        }
    }
    let mut paths: Vec<&str> = Vec::new();
    for (position, mount) in json::list(container, "/volumeMounts").iter().enumerate() {
        let place = format!("{field}.volumeMounts[{position}]");
        let volume = json::text(mount, "/name");
        if volume.is_empty() {
            errors.push(FieldError::required(format!("{place}.name"), ""));
        } else if !volumes.iter().any(|known| known == volume) {
            errors.push(FieldError::not_found(format!("{place}.name"), volume));
        }
        let path = json::text(mount, "/mountPath");
        if path.is_empty() {
            errors.push(FieldError::required(format!("{place}.mountPath"), ""));
        } else if paths.contains(&path) {
            errors.push(FieldError::invalid(
                format!("{place}.mountPath"),
                path,
                "must be unique",
            ));
        }
        paths.push(path);
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe_value) = container.get(probe)
            && !["exec", "httpGet", "tcpSocket", "grpc"]
                .iter()
                .any(|handler| probe_value.get(*handler).is_some())
        {
            let detail = "must specify a handler type";
            errors.push(FieldError::required(format!("{field}.{probe}"), detail));
        }
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(
        container,
        "/imagePullPolicy",
        format!("{field}.imagePullPolicy"),
        &policies,
        errors,
    );
}

fn ports(container: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<&str> = Vec::new();
    for (position, port) in json::list(container, "/ports").iter().enumerate() {
        let place = format!("{field}.ports[{position}]");
        let port_name = json::text(port, "/name");
        if !port_name.is_empty() {
            let wrong = name::port_name(port_name);
            for detail in &wrong {
                errors.push(FieldError::invalid(format!("{place}.name"), port_name, *detail));
            }
            if wrong.is_empty() && seen.contains(&port_name) {
                errors.push(FieldError::duplicate(format!("{place}.name"), port_name));
            }
            seen.push(port_name);
        }
        match port.get("containerPort").and_then(Value::as_i64).unwrap_or(0) {
            0 => errors.push(FieldError::required(format!("{place}.containerPort"), "")),
            1..=65535 => {}
            other => {
                let detail = "must be between 1 and 65535, inclusive";
                errors.push(FieldError::invalid(format!("{place}.containerPort"), other, detail));
            }
        }
        one_of(
            port,
            "/protocol",
            format!("{place}.protocol"),
            &["SCTP", "TCP", "UDP"],
            errors,
        );
    }
}

/// Only sidecars, which go on running, have probes and hooks.
fn init_container(container: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match json::text(container, "/restartPolicy") {
        "Always" => return,
        "" => {}
        other => errors.push(FieldError::not_supported(
            format!("{field}.restartPolicy"),
            other,
            &["Always"],
        )),
    }
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.get(name).is_some() {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(format!("{field}.{name}"), detail));
        }
    }
}
