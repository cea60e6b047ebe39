//! What is filled in before the operator's kinds are judged.

use mizzen_crds::maistra::ServiceMeshMemberRoll;
use mizzen_desired::ValidatedRoll;
use serde_json::{Value, json};

use crate::admission::{Operation, Request, Response};

/// A ServiceMeshControlPlane says which version and which profiles it means, so that neither changes under it when the
/// operator is upgraded: a new one gets the newest version, one that drops its version keeps the one it had.
pub fn mutate_mesh(request: &Request) -> Response {
    if request.is_being_deleted() {
        return request.allow("deleted");
    }
    let mut after = request.object.clone();
    let Some(fields) = after.as_object_mut() else {
        return request.allow("not_an_object");
    };
    let spec = fields.entry("spec").or_insert_with(|| json!({}));
    if spec.is_null() {
        *spec = json!({});
    }
    let Some(spec) = spec.as_object_mut() else {
        return request.allow("not_an_object");
    };
    let is_set =
        |value: Option<&Value>| value.is_some_and(|value| !value.is_null() && *value != "" && *value != json!([]));
    if !is_set(spec.get("version")) {
        let before = request
            .old_object
            .pointer("/spec/version")
            .filter(|_| request.operation == Operation::Update);
        let version = before.filter(|version| is_set(Some(version))).cloned();
        spec.insert(
            "version".to_owned(),
            version.unwrap_or_else(|| json!(mizzen_desired::VERSION)),
        );
    }
    if !is_set(spec.get("profiles")) {
        spec.insert("profiles".to_owned(), json!(["default"]));
    }
    request.change(&after, "defaulted")
}

/// A ServiceMeshMemberRoll that names its own mesh's namespace means the right thing: it is in the mesh anyway. One that will
/// be refused stays as it was written, so that messages count its members as the user did.
pub fn mutate_roll(request: &Request) -> Response {
    if request.is_being_deleted() {
        return request.allow("deleted");
    }
    let roll = serde_json::from_value::<ServiceMeshMemberRoll>(request.object.clone());
    // The operator's namespace is not known here; naming it beside the mesh's own is refused with the numbers of the rest.
    if !roll.is_ok_and(|roll| ValidatedRoll::check(&roll, "").is_ok()) {
        return request.allow("left_to_validation");
    }
    let mut after = request.object.clone();
    if let Some(members) = after.pointer_mut("/spec/members").and_then(Value::as_array_mut) {
        members.retain(|member| member.as_str() != Some(request.namespace.as_str()));
    }
    request.change(&after, "defaulted")
}
