//! What a CustomResourceDefinition must be: defaults, validation, accepted names.

use super::{FieldError, Schema};
use serde_json::{Value, json};

mod status;
mod structural;

pub use status::{is_established, set_status};

/// Fills in what the server does: `spec.names.singular` and `listKind`, `spec.conversion`.
pub fn set_defaults(crd: &mut Value) {
    let Some(spec) = crd.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let kind = text(names.get("kind")).to_owned();
        if text(names.get("singular")).is_empty() {
            names.insert("singular".into(), kind.to_lowercase().into());
        }
        if text(names.get("listKind")).is_empty() && !kind.is_empty() {
            names.insert("listKind".into(), format!("{kind}List").into());
        }
    }
    let conversion = spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    if let Some(service) = conversion
        .pointer_mut("/webhook/clientConfig/service")
        .and_then(Value::as_object_mut)
    {
        service.entry("port").or_insert_with(|| 443.into());
    }
}

/// What is wrong with a definition; `old` on update.
pub fn validate(crd: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = crd.get("spec").unwrap_or(&Value::Null);
    let names = spec.get("names").unwrap_or(&Value::Null);
    let (group, plural) = (text(spec.get("group")), text(names.get("plural")));
    let name = text(crd.pointer("/metadata/name"));
    if name != format!("{plural}.{group}") {
        errors.push(FieldError::invalid(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !is_subdomain(group) {
        errors.push(FieldError::invalid("spec.group", group, SUBDOMAIN));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid(
            "spec.group",
            group,
            "should be a domain with at least one dot",
        ));
    }
    match text(spec.get("scope")) {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(FieldError::required("spec.scope", "")),
        other => errors.push(FieldError::not_supported(
            "spec.scope",
            other,
            &["Cluster", "Namespaced"],
        )),
    }
    if spec.get("preserveUnknownFields").and_then(Value::as_bool) == Some(true) {
        errors.push(FieldError::invalid(
            "spec.preserveUnknownFields",
            true,
            "must be false in order to use defaults in the schema",
        ));
    }
    validate_names(names, &mut errors);
    validate_versions(spec, &mut errors);
    validate_conversion(spec, &mut errors);
    if let Some(old) = old {
        validate_update(crd, old, &mut errors);
    }
    errors
}

fn validate_names(names: &Value, errors: &mut Vec<FieldError>) {
    for (field, mixed_case) in [
        ("plural", false),
        ("singular", false),
        ("kind", true),
        ("listKind", true),
    ] {
        let value = text(names.get(field));
        let path = format!("spec.names.{field}");
        if value.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if mixed_case && !is_dns_1035(&value.to_lowercase()) {
            let detail = format!("may have mixed case, but should otherwise match: {DNS_1035}");
            errors.push(FieldError::invalid(path, value, detail));
        } else if !mixed_case && !is_dns_1035(value) {
            errors.push(FieldError::invalid(path, value, DNS_1035));
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, value) in list(names.get(field)).iter().enumerate() {
            let value = text(Some(value));
            if !is_dns_1035(value) {
                errors.push(FieldError::invalid(
                    format!("spec.names.{field}[{index}]"),
                    value,
                    DNS_1035,
                ));
            }
        }
    }
    let kind = text(names.get("kind"));
    if !kind.is_empty() && kind == text(names.get("listKind")) {
        errors.push(FieldError::invalid(
            "spec.names.listKind",
            kind,
            "kind and listKind may not be the same",
        ));
    }
}

fn validate_versions(spec: &Value, errors: &mut Vec<FieldError>) {
    let versions = list(spec.get("versions"));
    let stored = versions.iter().filter(|v| flag(v, "storage")).count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(
            "spec.versions",
            Value::Array(versions.to_vec()),
            detail,
        ));
    }
    let schema = |version: &Value| version.pointer("/schema/openAPIV3Schema").cloned();
    // Versions that share one schema are told of as one, as the server stores them.
    let shared = versions
        .iter()
        .all(|version| schema(version) == versions.first().and_then(schema));
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = text(version.get("name"));
        if !is_dns_1035(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), name, DNS_1035));
            if index == 0 {
                // The server keeps the first version's name in a second place.
                errors.push(FieldError::invalid("spec.version", name, DNS_1035));
            }
        }
        if versions
            .iter()
            .take(index)
            .any(|earlier| text(earlier.get("name")) == name)
        {
            errors.push(FieldError::invalid(
                "spec.versions",
                Value::Array(versions.to_vec()),
                "must contain unique version names",
            ));
        }
        match version.pointer("/schema/openAPIV3Schema") {
            None => errors.push(FieldError::required(
                format!("{path}.schema.openAPIV3Schema"),
                "schemas are required",
            )),
            Some(_) if shared && index > 0 => {}
            Some(raw) => {
                let path = if shared {
                    "spec.validation".to_owned()
                } else {
                    format!("{path}.schema")
                };
                structural::check(raw, &format!("{path}.openAPIV3Schema"), errors);
            }
        }
        if let Some(scale) = version.pointer("/subresources/scale") {
            for field in ["specReplicasPath", "statusReplicasPath"] {
                let parent = if field == "specReplicasPath" {
                    ".spec"
                } else {
                    ".status"
                };
                let value = text(scale.get(field));
                let path = if shared {
                    "spec.subresources".to_owned()
                } else {
                    format!("{path}.subresources")
                };
                if value.is_empty() {
                    errors.push(FieldError::required(format!("{path}.scale.{field}"), ""));
                } else if !value.starts_with(&format!("{parent}.")) {
                    let detail = format!("should be a json path under {parent}");
                    errors.push(FieldError::invalid(format!("{path}.scale.{field}"), value, detail));
                }
            }
        }
    }
}

fn validate_conversion(spec: &Value, errors: &mut Vec<FieldError>) {
    let Some(conversion) = spec.get("conversion") else {
        return;
    };
    match text(conversion.get("strategy")) {
        "None" if conversion.get("webhook").is_some() => {
            let detail = "should not be set when strategy is not set to Webhook";
            errors.push(FieldError::forbidden("spec.conversion.webhookClientConfig", detail));
        }
        "None" => {}
        "Webhook" => {
            if conversion.pointer("/webhook/clientConfig").is_none() {
                let detail = "required when strategy is set to Webhook";
                errors.push(FieldError::required("spec.conversion.webhookClientConfig", detail));
            }
            if list(conversion.pointer("/webhook/conversionReviewVersions")).is_empty() {
                errors.push(FieldError::required("spec.conversion.conversionReviewVersions", ""));
            }
        }
        "" => errors.push(FieldError::required("spec.conversion.strategy", "")),
        other => errors.push(FieldError::not_supported(
            "spec.conversion.strategy",
            other,
            &["None", "Webhook"],
        )),
    }
}

fn validate_update(crd: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let mut fixed = vec!["/spec/group", "/spec/names/plural"];
    if is_established(old) {
        fixed.extend(["/spec/scope", "/spec/names/kind"]);
    }
    for pointer in fixed {
        let new = crd.pointer(pointer).unwrap_or(&Value::Null);
        if Some(new) != old.pointer(pointer) {
            let path = pointer.trim_start_matches('/').replace('/', ".");
            errors.push(FieldError::invalid(path, new.clone(), "field is immutable"));
        }
    }
    for (index, stored) in list(crd.pointer("/status/storedVersions")).iter().enumerate() {
        if !list(crd.pointer("/spec/versions"))
            .iter()
            .any(|v| v.get("name") == Some(stored))
        {
            let detail = format!(
                "missing from spec.versions; {} was previously a storage version, and must remain in spec.versions \
                                  until a storage migration ensures no data remains persisted in {0} and removes {0} from status.storedVersions",
                text(Some(stored))
            );
            errors.push(FieldError::invalid(
                format!("status.storedVersions[{index}]"),
                stored.clone(),
                detail,
            ));
        }
    }
}

const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                        character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
                        validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
pub(crate) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                         start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn is_dns_1035(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

pub(crate) fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or_default()
}

/// What a default is checked with: the schema at its place.
fn schema_at(raw: &Value) -> Schema {
    Schema(std::sync::Arc::new(super::node::custom(raw)))
}
