//! Errors as Kubernetes tells them: a `Status` object with code, reason, message and details.

use crate::schema::FieldError;
use serde_json::{Map, Value, json};

/// A refused request. Its [`body`](ApiError::body) is the `metav1.Status` that the client gets.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status code.
    pub code: u16,
    /// The machine-readable reason, such as `NotFound`.
    pub reason: &'static str,
    /// The sentence for people.
    pub message: String,
    /// `details`, if there are any.
    pub details: Option<Value>,
    /// Seconds after which to try again: the `Retry-After` header.
    pub retry_after: Option<u32>,
}

/// What an error message calls a resource: `deployments.apps`, or `pods` in the core group.
pub fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    }
}

fn details(group: &str, kind: &str, name: &str) -> Map<String, Value> {
    let mut map = Map::new();
    for (key, text) in [("name", name), ("group", group), ("kind", kind)] {
        if !text.is_empty() {
            map.insert(key.to_owned(), text.into());
        }
    }
    map
}

impl ApiError {
    /// An error with no details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code,
            reason,
            message,
            details: None,
            retry_after: None,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details = Some(Value::Object(details(group, kind, name)));
        self
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 about an object of a resource; `why` follows `is forbidden: `.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let resource = qualified(plural, group);
        let message = match (plural.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message).about(group, plural, name)
    }

    /// 404 of an object.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(plural, group));
        Self::new(404, "NotFound", message).about(group, plural, name)
    }

    /// 404 of a path.
    pub fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").about("", "", "")
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).about("", "", "")
    }

    /// 406 with the representations there are.
    pub fn not_acceptable(available: &str) -> Self {
        let message = format!("406: Not Acceptable\n\nAvailable representations: {available}");
        Self::new(406, "NotAcceptable", message).about("", "", "")
    }

    /// 409 of a create.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(plural, group));
        Self::new(409, "AlreadyExists", message).about(group, plural, name)
    }

    /// 409 of a write on an older version; `why` follows the colon.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            qualified(plural, group)
        );
        Self::new(409, "Conflict", message).about(group, plural, name)
    }

    /// The [`conflict`](Self::conflict) of an outdated `resourceVersion`.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    /// 410: the revision is no longer known.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 415 with what is read.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422 of an object; one sentence, or all in brackets.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut sentences: Vec<String> = Vec::new();
        for error in errors {
            let sentence = error.to_string();
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
        let all = match sentences.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut map = details(group, kind, name);
        let causes = errors
            .iter()
            .map(|error| json!({"reason": error.kind.reason(), "message": error.message(), "field": error.field}));
        map.insert("causes".to_owned(), causes.collect());
        let message = format!("{} \"{name}\" is invalid: {all}", qualified(kind, group));
        Self {
            details: Some(Value::Object(map)),
            ..Self::new(422, "Invalid", message)
        }
    }

    /// 429 with causes.
    pub fn too_many_requests(message: impl Into<String>, retry_after: u32, causes: Value) -> Self {
        let mut map = Map::new();
        if causes.as_array().is_some_and(|list| !list.is_empty()) {
            map.insert("causes".to_owned(), causes);
        }
        if retry_after > 0 {
            map.insert("retryAfterSeconds".to_owned(), retry_after.into());
        }
        Self {
            details: Some(Value::Object(map)),
            retry_after: (retry_after > 0).then_some(retry_after),
            ..Self::new(429, "TooManyRequests", message)
        }
    }

    /// 500.
    pub fn internal(why: impl Into<String>) -> Self {
        let why = why.into();
        Self {
            details: Some(json!({"causes": [{"message": why}]})),
            ..Self::new(500, "InternalError", format!("Internal error occurred: {why}"))
        }
    }

    /// 504 of a read at a revision that is still to come.
    pub fn too_large_revision(asked: u64, current: u64) -> Self {
        Self {
            details: Some(json!({
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1
            })),
            retry_after: Some(1),
            ..Self::new(
                504,
                "Timeout",
                format!("Timeout: Too large resource version: {asked}, current: {current}"),
            )
        }
    }

    /// The `Status` object.
    pub fn body(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code
        });
        if let (false, Some(map)) = (self.reason.is_empty(), status.as_object_mut()) {
            map.insert("reason".to_owned(), self.reason.into());
        }
        if let (Some(details), Some(map)) = (&self.details, status.as_object_mut()) {
            map.insert("details".to_owned(), details.clone());
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_wrong_fields_are_listed_in_brackets_and_as_causes() {
        let errors = [
            FieldError::required("spec.a", ""),
            FieldError::invalid("spec.b", 1, "too small"),
        ];
        let error = ApiError::invalid("apps", "Deployment", "x", &errors);
        assert_eq!(
            error.message,
            "Deployment.apps \"x\" is invalid: [spec.a: Required value, spec.b: Invalid value: 1: too small]"
        );
        assert_eq!(
            error.body()["details"],
            json!({"name": "x", "group": "apps", "kind": "Deployment", "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"},
                {"reason": "FieldValueInvalid", "message": "Invalid value: 1: too small", "field": "spec.b"}
            ]})
        );
    }
}
