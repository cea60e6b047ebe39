//! Services and their ports.

use super::{invalid_as, name};
use crate::json;
use crate::schema::FieldError;
use serde_json::Value;

/// A number between 1 and 65535.
fn port(field: String, value: Option<&Value>, errors: &mut Vec<FieldError>) {
    let number = value.and_then(Value::as_i64).unwrap_or(0);
    if !(1..=65535).contains(&number) {
        errors.push(FieldError::invalid(
            field,
            number,
            "must be between 1 and 65535, inclusive",
        ));
    }
}

pub(super) fn check(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let kind = json::text(new, "/spec/type");
    let ports = json::list(new, "/spec/ports");
    let headless = json::text(new, "/spec/clusterIP") == "None";
    if ports.is_empty() && kind != "ExternalName" && !headless {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if kind == "ExternalName" && json::text(new, "/spec/externalName").is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    }
    let mut names: Vec<&str> = Vec::new();
    let mut pairs: Vec<(Option<&Value>, &str)> = Vec::new();
    for (position, one) in ports.iter().enumerate() {
        let field = format!("spec.ports[{position}]");
        let port_name = json::text(one, "/name");
        if port_name.is_empty() {
            if ports.len() > 1 {
                errors.push(FieldError::required(format!("{field}.name"), ""));
            }
        } else if let Some(detail) = name::dns_label(port_name) {
            errors.push(FieldError::invalid(format!("{field}.name"), port_name, detail));
        } else if names.contains(&port_name) {
            errors.push(FieldError::duplicate(format!("{field}.name"), port_name));
        }
        names.push(port_name);
        port(format!("{field}.port"), one.get("port"), errors);
        let protocol = json::text(one, "/protocol");
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            let error = FieldError::not_supported(format!("{field}.protocol"), protocol, &["SCTP", "TCP", "UDP"]);
            errors.push(error);
        }
        match one.get("targetPort") {
            Some(Value::String(target)) => {
                for detail in name::port_name(target) {
                    errors.push(FieldError::invalid(
                        format!("{field}.targetPort"),
                        target.clone(),
                        detail,
                    ));
                }
            }
            target => port(format!("{field}.targetPort"), target, errors),
        }
        let pair = (one.get("port"), protocol);
        if pairs.contains(&pair) {
            let shown = format!(
                "{{\"port\":{},\"protocol\":{protocol:?}}}",
                one.get("port").unwrap_or(&Value::Null)
            );
            let value = serde_json::from_str::<Value>(&shown).unwrap_or_default();
            errors.push(FieldError::duplicate(field, value));
        }
        pairs.push(pair);
    }
    if kind == "ExternalName" && !json::list(new, "/spec/clusterIPs").is_empty() {
        let detail = "may not be set for ExternalName services";
        errors.push(FieldError::forbidden("spec.clusterIPs", detail));
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !types.contains(&kind) {
        errors.push(FieldError::not_supported("spec.type", kind, &types));
    }
    let affinity = json::text(new, "/spec/sessionAffinity");
    if !matches!(affinity, "ClientIP" | "None") {
        errors.push(FieldError::not_supported(
            "spec.sessionAffinity",
            affinity,
            &["ClientIP", "None"],
        ));
    }
    let (before, after) = (
        old.map(|old| json::text(old, "/spec/clusterIP")).unwrap_or_default(),
        json::text(new, "/spec/clusterIP"),
    );
    if !before.is_empty() && before != after && kind != "ExternalName" {
        let shown = format!("[]string{{{after:?}}}");
        errors.push(invalid_as("spec.clusterIPs[0]", shown, "may not change once set"));
    }
}
