//! Bodies of writes: the object in them, checked against its kind and cleaned of what the kind does not know; and the options that all
//! writes share.

use crate::json;
use crate::negotiate;
use crate::service::Call;
use crate::status::ApiError;
use serde_json::Value;

/// Reads the object in a body: its kind is checked, unknown fields are removed and told of.
pub(crate) fn read(call: &mut Call, body: &[u8]) -> Result<Value, ApiError> {
    let (kind, group, version) = expected(call);
    let decoded = negotiate::decode(&call.headers, body, &kind)?;
    let api_version = crate::kinds::api_version(&group, &version);
    let mut value = decoded.value;
    check_kind(call, &mut value, &kind, &api_version)?;
    clean(call, &mut value, decoded.duplicates, &kind, &group, &version)?;
    Ok(value)
}

/// What kind the path wants.
fn expected(call: &Call) -> (String, String, String) {
    let resource = &call.resource;
    match resource.subresource(&call.info.subresource) {
        Some(sub) if !sub.group.is_empty() || !sub.version.is_empty() => {
            (sub.kind.clone(), sub.group.clone(), sub.version.clone())
        }
        Some(sub) => (sub.kind.clone(), resource.group.clone(), resource.version.clone()),
        None => (resource.kind.clone(), resource.group.clone(), resource.version.clone()),
    }
}

fn check_kind(call: &Call, value: &mut Value, kind: &str, api_version: &str) -> Result<(), ApiError> {
    let (sent_kind, sent_version) = (
        json::text(value, "/kind").to_owned(),
        json::text(value, "/apiVersion").to_owned(),
    );
    if call.resource.custom.is_some() {
        for (sent, field) in [(&sent_kind, "Kind"), (&sent_version, "apiVersion")] {
            if sent.is_empty() {
                return Err(ApiError::bad_request(format!(
                    "the object provided is unrecognized (must be of type {kind}): Object '{field}' is missing in '{value}'"
                )));
            }
        }
    }
    let map = json::as_object(value);
    json::put(map, "kind", Some(kind.into()));
    json::put(map, "apiVersion", Some(api_version.into()));
    let same_version = sent_version.is_empty() || sent_version == api_version;
    let same_kind = sent_kind.is_empty() || sent_kind == kind;
    if same_version && same_kind {
        return Ok(());
    }
    let (sent_kind, sent_version) = (
        if sent_kind.is_empty() { kind } else { &sent_kind },
        if sent_version.is_empty() {
            api_version
        } else {
            &sent_version
        },
    );
    let (group, version) = crate::kinds::group_version(sent_version);
    let kinds = call.api.inner.registry.current();
    let known = kinds.kind(group, version, sent_kind).is_some();
    if known && same_kind || call.resource.custom.is_some() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({sent_version}) does not match the expected API version ({api_version})"
        )));
    }
    let why = if known {
        format!("converting ({version}.{sent_kind}) to (core.{kind}): unknown conversion")
    } else {
        format!(
            "no kind {sent_kind:?} is registered for version {sent_version:?} in scheme \"pkg/runtime/scheme.go:110\""
        )
    };
    Err(ApiError::bad_request(format!(
        "{sent_kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
    )))
}

/// Removes what the schema does not know, and refuses or warns as `fieldValidation` says; refuses wrong types of built-in kinds.
pub(crate) fn clean(
    call: &mut Call,
    value: &mut Value,
    duplicates: Vec<String>,
    kind: &str,
    group: &str,
    version: &str,
) -> Result<(), ApiError> {
    let registry = &call.api.inner.registry;
    let own = kind == call.resource.kind && group == call.resource.group;
    let schema = if own {
        registry.schema(&call.resource)
    } else {
        registry.schema_of(group, version, kind)
    };
    let Some(schema) = schema else { return Ok(()) };
    let patched = call.info.verb == "patch";
    if call.resource.custom.is_none()
        && let Some(error) = schema.decode_error(value)
    {
        if patched {
            return Err(wrong_patch(value, &error));
        }
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"
        )));
    }
    let unknown = schema.prune(value);
    let mut found: Vec<String> = duplicates
        .iter()
        .map(|path| format!("duplicate field \"{path}\""))
        .collect();
    found.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    match call.info.query.text("fieldValidation") {
        "Strict" if !found.is_empty() && patched => {
            let why = format!("strict decoding error: {}", found.join(", "));
            Err(wrong_patch(value, &why))
        }
        "Strict" if !found.is_empty() => Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
            found.join(", ")
        ))),
        "Ignore" => Ok(()),
        _ => {
            call.warnings.extend(found);
            Ok(())
        }
    }
}

/// The error of a patch whose result is no object of its kind: the whole of it is shown.
pub(crate) fn wrong_patch(result: &Value, why: &str) -> ApiError {
    let message = format!("Invalid value: {:?}: {why}", result.to_string());
    ApiError {
        details: Some(
            serde_json::json!({"causes": [{"reason": "FieldValueInvalid", "message": message, "field": "patch"}]}),
        ),
        ..ApiError::new(422, "Invalid", format!(" \"\" is invalid: patch: {message}"))
    }
}

/// Checks the options that all writes share. `options` is the kind that the message names.
pub(crate) fn check_options(call: &Call, options: &str) -> Result<(), ApiError> {
    let query = &call.info.query;
    let mut errors = Vec::new();
    let dry_run = query.all("dryRun");
    if query.has("dryRun") && dry_run != ["All"] {
        let list: Vec<String> = dry_run.iter().map(|text| format!("{text:?}")).collect();
        errors.push((
            "dryRun",
            format!(
                "Unsupported value: []string{{{}}}: supported values: \"All\"",
                list.join(", ")
            ),
            "FieldValueNotSupported",
        ));
    }
    let rule = query.text("fieldValidation");
    if !matches!(rule, "" | "Ignore" | "Warn" | "Strict") {
        errors.push((
            "fieldValidation",
            format!("Unsupported value: {rule:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""),
            "FieldValueNotSupported",
        ));
    }
    let manager = query.text("fieldManager");
    if manager.len() > 128 {
        errors.push((
            "fieldManager",
            "Too long: may not be more than 128 bytes".to_owned(),
            "FieldValueTooLong",
        ));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let sentences: Vec<String> = errors
        .iter()
        .map(|(field, message, _)| format!("{field}: {message}"))
        .collect();
    let all = match sentences.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let causes: Vec<Value> = errors
        .iter()
        .map(|(field, message, reason)| serde_json::json!({"reason": reason, "message": message, "field": field}))
        .collect();
    Err(ApiError {
        details: Some(serde_json::json!({"group": "meta.k8s.io", "kind": options, "causes": causes})),
        ..ApiError::new(422, "Invalid", format!("{options}.meta.k8s.io \"\" is invalid: {all}"))
    })
}
