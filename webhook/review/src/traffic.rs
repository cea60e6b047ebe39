//! The review of traffic and security configuration: the same conversion that discovery does.

use crate::admission::{Request, Response};

/// Reviews an object of `networking.istio.io` or `security.istio.io`.
pub fn review_traffic(request: &Request) -> Response {
    if request.is_being_deleted() {
        return request.allow("deleted");
    }
    if request.leaves_spec() {
        return request.allow("spec_unchanged");
    }
    let verdict = mizzen_index::validate(&request.object);
    let warnings = verdict.warnings.iter().map(ToString::to_string);
    if verdict.is_accepted() {
        return request.allow("valid").warn(warnings);
    }
    let kind = &request.kind.kind;
    let message = verdict
        .errors
        .iter()
        .map(|error| format!("{kind} {}/{}: {error}", request.namespace, name(request)))
        .collect::<Vec<_>>()
        .join("\n");
    request.refuse(400, message, "invalid").warn(warnings)
}

fn name(request: &Request) -> &str {
    if request.name.is_empty() {
        request
            .object
            .pointer("/metadata/name")
            .and_then(|name| name.as_str())
            .unwrap_or_default()
    } else {
        &request.name
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admission::{Answer, Operation, Review};

    fn request(spec: Value) -> Request {
        let review = json!({"request": {
            "uid": "u", "operation": "CREATE", "name": "split", "namespace": "shop",
            "kind": {"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"},
            "object": {
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": {"name": "split", "namespace": "shop"}, "spec": spec,
            },
        }});
        serde_json::from_value::<Review>(review).unwrap().request.unwrap()
    }

    fn split(first: i32, second: i32) -> Value {
        let to =
            |subset: &str, weight: i32| json!({"destination": {"host": "cart", "subset": subset}, "weight": weight});
        json!({"hosts": ["cart"], "http": [{"route": [to("v1", first), to("v2", second)]}]})
    }

    fn message(response: &Response) -> &str {
        match &response.answer {
            Answer::Refuse { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    // C1
    #[test]
    fn a_sound_object_passes() {
        let response = review_traffic(&request(split(90, 10)));
        assert_eq!(response.answer, Answer::Allow, "{response:?}");
    }

    // C1
    #[test]
    fn a_bad_object_is_refused_with_object_field_and_reason() {
        for bad in [split(-1, 10), split(0, 0), json!({"hosts": ["cart"], "htp": []})] {
            let response = review_traffic(&request(bad));
            let text = message(&response);
            assert!(text.starts_with("VirtualService shop/split: spec."), "{text}");
        }
        let unknown = review_traffic(&request(json!({"hosts": ["cart"], "htp": []})));
        assert!(message(&unknown).contains("spec.htp"), "{}", message(&unknown));
    }

    // C1
    #[test]
    fn an_object_that_goes_or_keeps_its_spec_is_not_judged() {
        let mut leaving = request(split(-1, 1));
        leaving.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(review_traffic(&leaving).category, "deleted");
        let mut unchanged = request(split(-1, 1));
        unchanged.operation = Operation::Update;
        unchanged.old_object = unchanged.object.clone();
        assert_eq!(review_traffic(&unchanged).category, "spec_unchanged");
    }
}
