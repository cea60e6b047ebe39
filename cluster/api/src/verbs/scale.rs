//! The `scale` of workloads and custom resources: `autoscaling/v1` Scale.

use super::body::check_options;
use super::object::modify;
use super::read;
use crate::json;
use crate::kinds::ScalePaths;
use crate::negotiate::{self, Body, respond_value};
use crate::patch;
use crate::schema::FieldError;
use crate::service::Call;
use crate::status::ApiError;
use http::Response;
use serde_json::{Value, json};

fn paths(call: &Call) -> ScalePaths {
    let custom = call.resource.custom.as_ref().and_then(|custom| custom.scale.clone());
    custom.unwrap_or_else(|| ScalePaths {
        spec: "/spec/replicas".to_owned(),
        status: "/status/replicas".to_owned(),
        selector: None,
    })
}

/// The Scale of an object.
fn scale_of(call: &Call, object: &Value) -> Value {
    let paths = paths(call);
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.get("metadata").and_then(|metadata| metadata.get(field)) {
            json::as_object(&mut metadata).insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({"replicas": number(&paths.status)});
    let selector = match (&call.resource.custom, &paths.selector) {
        (Some(_), Some(pointer)) => json::text(object, pointer).to_owned(),
        (Some(_), None) => String::new(),
        (None, _) => object.pointer("/spec/selector").map(selector_text).unwrap_or_default(),
    };
    if !selector.is_empty() {
        json::set(&mut status, "/selector", selector);
    }
    let replicas = number(&paths.spec);
    // Zero is what nobody wrote, and is not shown.
    let spec = if replicas == 0 {
        json!({})
    } else {
        json!({"replicas": replicas})
    };
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A label selector as text: `a=b,c in (d,e)`.
fn selector_text(selector: &Value) -> String {
    let labels = match selector.get("matchLabels") {
        Some(labels) => labels.as_object(),
        // A replication controller's selector is the labels themselves.
        None if selector.get("matchExpressions").is_none() => selector.as_object(),
        None => None,
    };
    let mut terms: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for one in json::list(selector, "/matchExpressions") {
        let (key, values) = (json::text(one, "/key"), json::texts(one, "/values").join(","));
        terms.push(match json::text(one, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    terms.sort();
    terms.join(",")
}

pub(crate) async fn serve(call: &mut Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    if call.info.verb == "get" {
        let object = call.api.value(&call.resource, &*read::find(call)?);
        return Ok(respond_value(200, call.accept, &scale_of(call, &object)));
    }
    check_options(call, "UpdateOptions")?;
    let media_type = negotiate::media_type(&call.headers).to_owned();
    let sent = match media_type.as_str() {
        "application/apply-patch+yaml" => negotiate::yaml(body)?.value,
        kind if kind.contains("patch") => serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?,
        _ => negotiate::decode(&call.headers, body, "Scale")?.value,
    };
    let spec = paths(call).spec;
    let outcome = modify(call, false, |call, old| {
        let present = scale_of(call, old);
        let wanted = match media_type.as_str() {
            "application/json-patch+json" => patch::json(&present, &sent),
            kind if kind.contains("patch") => patch::merge(&present, &sent),
            _ => Ok(sent.clone()),
        };
        let wanted = wanted.map_err(|error| ApiError::bad_request(error.to_string()))?;
        let replicas = wanted.pointer("/spec/replicas").cloned().unwrap_or_else(|| json!(0));
        match replicas.as_i64() {
            Some(number) if number >= 0 => {}
            _ => {
                let detail = "must be greater than or equal to 0";
                let error = FieldError::invalid("spec.replicas", replicas, detail);
                return Err(ApiError::invalid("autoscaling", "Scale", &call.info.name, &[error]));
            }
        }
        let mut new = old.clone();
        json::set(&mut new, &spec, replicas);
        // The version that the client saw; without one the present is replaced.
        let revision = json::text(&wanted, "/metadata/resourceVersion");
        if !revision.is_empty() {
            json::set(&mut new, "/metadata/resourceVersion", revision);
        }
        Ok(new)
    })
    .await?;
    Ok(respond_value(200, call.accept, &scale_of(call, &outcome.into_value())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_written_as_text() {
        let selector = json!({"matchLabels": {"b": "c", "a": "b"}, "matchExpressions": [
            {"key": "x", "operator": "In", "values": ["y", "z"]}, {"key": "w", "operator": "DoesNotExist"}]});
        assert_eq!(selector_text(&selector), "!w,a=b,b=c,x in (y,z)");
        assert_eq!(selector_text(&json!({"a": "b"})), "a=b");
    }
}
