//! Names, labels and keys: the rules, and the sentence that tells them.

use crate::kinds::Resource;
use crate::schema::FieldError;
use serde_json::{Map, Value};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
    and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with \
    an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
    character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
    '[a-z]([-a-z0-9]*[a-z0-9])?')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
    and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
    'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn too_long(max: usize) -> Option<String> {
    Some(format!("must be no more than {max} characters"))
}

fn is_label(text: &str) -> bool {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(lower) && text.ends_with(lower) && text.chars().all(|c| lower(c) || c == '-')
}

/// A DNS subdomain of up to 253 bytes; what is wrong with it.
pub(crate) fn dns_subdomain(text: &str) -> Option<String> {
    if text.len() > 253 {
        return too_long(253);
    }
    (!text.split('.').all(is_label)).then(|| SUBDOMAIN.to_owned())
}

/// A DNS label of up to 63 bytes; what is wrong with it.
pub(crate) fn dns_label(text: &str) -> Option<String> {
    if text.len() > 63 {
        return too_long(63);
    }
    (!is_label(text)).then(|| LABEL.to_owned())
}

fn dns_label_1035(text: &str) -> Option<String> {
    if text.len() > 63 {
        return too_long(63);
    }
    let right = is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    (!right).then(|| LABEL_1035.to_owned())
}

/// The name of a port, up to 15 letters, digits and hyphens with a letter among them: all that is wrong with it.
pub(crate) fn port_name(text: &str) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    if text.len() > 15 {
        wrong.push("must be no more than 15 characters");
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !text.chars().all(allowed) {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !text.contains(|c: char| c.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)");
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens");
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen");
    }
    wrong
}

/// What is wrong with the name of an object of a resource.
pub(crate) fn of(resource: &Resource, name: &str) -> Option<String> {
    if resource.custom.is_none() {
        match (resource.group.as_str(), resource.plural.as_str()) {
            ("", "namespaces") if name.contains('.') => return Some("must not contain dots".to_owned()),
            ("", "namespaces") => return dns_label(name),
            ("", "services") => return dns_label_1035(name),
            ("rbac.authorization.k8s.io", _) => {
                let wrong = matches!(name, "." | "..") || name.contains(['/', '%']);
                return wrong.then(|| "may not be '.' or '..', nor contain '/' or '%'".to_owned());
            }
            ("batch", "cronjobs") if name.len() > 52 => return Some("must be no more than 52 characters".to_owned()),
            _ => {}
        }
    }
    dns_subdomain(name)
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let end = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(end) && text.ends_with(end) && text.chars().all(inner)
}

/// A name with an optional prefix, as the keys of labels are; what is wrong with it.
pub(crate) fn qualified(text: &str) -> Option<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    match prefix {
        Some("") => return Some("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            if let Some(wrong) = dns_subdomain(prefix) {
                return Some(format!("prefix part {wrong}"));
            }
        }
        None => {}
    }
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 characters".to_owned());
    }
    (!is_name(name)).then(|| NAME_PART.to_owned())
}

/// What is wrong with labels.
pub(crate) fn labels(field: &str, labels: &Map<String, Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels {
        if let Some(detail) = qualified(key) {
            errors.push(FieldError::invalid(field, key.clone(), detail));
        }
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            errors.push(FieldError::invalid(field, text, "must be no more than 63 characters"));
        } else if !text.is_empty() && !is_name(text) {
            errors.push(FieldError::invalid(field, text, LABEL_VALUE));
        }
    }
    errors
}

/// A key of a ConfigMap or Secret; what is wrong with it.
pub(crate) fn config_key(key: &str) -> Option<String> {
    if key.len() > 253 {
        return too_long(253);
    }
    if key == "." || key == ".." {
        return Some(format!("must not be '{key}'"));
    }
    let right = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    (!right).then(|| CONFIG_KEY.to_owned())
}
