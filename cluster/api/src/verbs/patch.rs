//! patch: JSON patch, merge patch, strategic merge patch, server-side apply.

use super::body::{self, check_options};
use super::object::{self, modify};
use super::read::respond_object;
use crate::apply::{self, ApplyError, Writer};
use crate::json;
use crate::negotiate::{self, Body};
use crate::patch::{self, PatchError};
use crate::schema::{self, FieldError};
use crate::service::Call;
use crate::status::ApiError;
use crate::timestamp::rfc3339;
use http::Response;
use serde_json::{Value, json};

const ACCEPTED_CUSTOM: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

pub(crate) async fn patch(call: &mut Call, text: &[u8]) -> Result<Response<Body>, ApiError> {
    check_options(call, "PatchOptions")?;
    let media_type = negotiate::media_type(&call.headers).to_owned();
    let custom = call.resource.custom.is_some();
    match media_type.as_str() {
        "application/apply-patch+yaml" => return apply(call, text).await,
        "application/json-patch+json" | "application/merge-patch+json" => {}
        "application/strategic-merge-patch+json" if !custom => {}
        _ => {
            if custom {
                return Err(ApiError::unsupported_media_type(ACCEPTED_CUSTOM));
            }
            let error = ApiError::new(415, "UnsupportedMediaType", "415: Unsupported Media Type");
            let details = Some(json!({}));
            return Err(ApiError { details, ..error });
        }
    }
    if call.info.query.has("force") {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
    }
    let (change, duplicates) = schema::parse_json(text).map_err(|error| {
        let why = if error.is_eof() {
            "unexpected end of JSON input".to_owned()
        } else {
            error.to_string()
        };
        ApiError::bad_request(format!("error decoding patch: {why}"))
    })?;
    let outcome = modify(call, false, |call, old| {
        let mut new = patched(call, &media_type, old, &change)?;
        let (kind, group, version) = {
            let resource = &call.resource;
            (resource.kind.clone(), resource.group.clone(), resource.version.clone())
        };
        if json::text(&new, "/kind") != kind || json::text(&new, "/apiVersion") != call.resource.api_version() {
            let why = format!(
                "no kind {:?} is registered for version {:?} in scheme \"pkg/runtime/scheme.go:110\"",
                json::text(&new, "/kind"),
                json::text(&new, "/apiVersion")
            );
            return Err(body::wrong_patch(&new, &why));
        }
        let told = call.warnings.len();
        body::clean(call, &mut new, duplicates.clone(), &kind, &group, &version)?;
        // Another attempt says the same again.
        let mut position = 0;
        call.warnings.retain({
            let known: Vec<String> = call.warnings.iter().take(told).cloned().collect();
            move |warning| {
                position += 1;
                position <= told || !known.contains(warning)
            }
        });
        Ok(new)
    })
    .await?;
    Ok(respond_object(call, 200, &outcome.into_value()))
}

fn patched(call: &Call, media_type: &str, old: &Value, change: &Value) -> Result<Value, ApiError> {
    let result = match media_type {
        "application/json-patch+json" => patch::json(old, change),
        "application/merge-patch+json" => patch::merge(old, change),
        _ => match call.api.inner.registry.schema(&call.resource) {
            Some(schema) => patch::strategic(&schema, old, change),
            None => patch::merge(old, change),
        },
    };
    result.map_err(|error| match error {
        PatchError::Malformed(message) if media_type == "application/merge-patch+json" => {
            ApiError::bad_request(format!("error decoding patch: {message}"))
        }
        PatchError::Malformed(message) => ApiError::bad_request(message),
        // Kubernetes does not say what is wrong with a JSON patch.
        PatchError::Unprocessable(_) if media_type == "application/json-patch+json" => ApiError {
            details: Some(json!({})),
            ..ApiError::new(
                422,
                "Invalid",
                "the server rejected our request due to an error in our request",
            )
        },
        PatchError::Unprocessable(message) => ApiError {
            details: Some(json!({})),
            ..ApiError::new(422, "Invalid", message)
        },
        PatchError::Failed(message) => ApiError::new(500, "", message),
    })
}

/// Server-side apply; what is missing is created.
async fn apply(call: &mut Call, text: &[u8]) -> Result<Response<Body>, ApiError> {
    if call.info.query.text("fieldManager").is_empty() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
    }
    let mut config = negotiate::yaml(text)?.value;
    if !config.is_object() {
        return Err(ApiError::bad_request("error decoding YAML: the patch is no object"));
    }
    if config
        .pointer("/metadata/managedFields")
        .is_some_and(|fields| !fields.is_null())
    {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    check_configuration(call, &config)?;
    own_part(call, &mut config);
    json::default(json::object(&mut config, "metadata"), "name", call.info.name.clone());
    let status = if call.info.subresource.is_empty() && super::read::find(call).is_err() {
        let mut new = applied(call, None, &config)?;
        if call.resource.namespaced {
            let namespace = call.info.namespace.clone();
            json::default(json::object(&mut new, "metadata"), "namespace", namespace);
        }
        match object::create(call, new, true).await {
            Ok(value) => return Ok(respond_object(call, 201, &value)),
            // Someone else was faster: it is an update then.
            Err(error) if error.reason == "AlreadyExists" => 200,
            Err(error) => return Err(error),
        }
    } else {
        200
    };
    let outcome = modify(call, true, |call, old| applied(call, Some(old), &config)).await?;
    Ok(respond_object(call, status, &outcome.into_value()))
}

fn check_configuration(call: &Call, config: &Value) -> Result<(), ApiError> {
    let wanted = (call.resource.kind.as_str(), call.resource.api_version());
    let found = (json::text(config, "/kind"), json::text(config, "/apiVersion"));
    if found.0.is_empty() || found.1.is_empty() {
        let message = "invalid object type: /, Kind=";
        return Err(ApiError::bad_request(message));
    }
    if found.0 != wanted.0 || found.1 != wanted.1 {
        let group = if found.1.contains('/') { "" } else { "/" };
        return Err(ApiError::bad_request(format!(
            "invalid object type: {group}{}, Kind={}",
            found.1, found.0
        )));
    }
    let name = json::text(config, "/metadata/name");
    if !name.is_empty() && name != call.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    Ok(())
}

/// Leaves of a configuration what this path writes: `status` through its own path only, and nothing else through that.
fn own_part(call: &Call, config: &mut Value) {
    let resource = &call.resource;
    let map = json::as_object(config);
    if call.info.subresource == "status" {
        map.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        let name = map.get("metadata").and_then(|metadata| metadata.get("name")).cloned();
        let mut metadata = Value::Null;
        json::put(json::as_object(&mut metadata), "name", name);
        map.insert("metadata".to_owned(), metadata);
    } else if resource.has_status() {
        map.remove("status");
    }
}

fn applied(call: &mut Call, live: Option<&Value>, config: &Value) -> Result<Value, ApiError> {
    let Some(schema) = call.api.inner.registry.schema(&call.resource) else {
        return Err(ApiError::internal("the kind has no schema to apply by"));
    };
    let (manager, api_version, now) = (call.manager(), call.resource.api_version(), rfc3339(call.now));
    let writer = Writer {
        manager: &manager,
        api_version: &api_version,
        subresource: &call.info.subresource,
        now: &now,
    };
    let force = call.info.query.flag("force");
    apply::apply(&schema, live, config, writer, force).map_err(|error| match error {
        ApplyError::Conflicts(conflicts) => {
            let causes: Vec<Value> = conflicts
                .iter()
                .map(|one| {
                    let message = format!("conflict with {}", one.owner);
                    json!({"reason": "FieldManagerConflict", "message": message, "field": one.field})
                })
                .collect();
            ApiError {
                details: Some(json!({"causes": causes})),
                ..ApiError::new(409, "Conflict", apply::conflict_message(&conflicts))
            }
        }
        ApplyError::Invalid(message) => {
            let group = if api_version.contains('/') { "" } else { "/" };
            let name = json::text(config, "/metadata/name");
            let namespace = json::text(config, "/metadata/namespace");
            let kind = &call.resource.kind;
            ApiError::new(
                500,
                "",
                format!(
                    "failed to create typed patch object ({namespace}/{name}; {group}{api_version}, Kind={kind}): {message}"
                ),
            )
        }
    })
}
