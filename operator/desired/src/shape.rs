//! Objects compared with their kinds' schemas, before their fields are looked at.
//!
//! In: an object as it was written. Out: its type, or each field that does not fit, by its path.

use crate::error::Collector;
use crate::{Problem, SpecErrors};
use mizzen_crds::maistra::{ServiceMeshControlPlane, ServiceMeshMember, ServiceMeshMemberRoll};
use mizzen_crds::schema::{check, structural, whole_numbers};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::LazyLock;

static MESH: LazyLock<Value> = LazyLock::new(structural::<ServiceMeshControlPlane>);
static ROLL: LazyLock<Value> = LazyLock::new(structural::<ServiceMeshMemberRoll>);
static MEMBER: LazyLock<Value> = LazyLock::new(structural::<ServiceMeshMember>);

/// Reads a ServiceMeshMemberRoll as it was written.
///
/// # Errors
/// Every field that there is not, or that has a value of a wrong type.
pub fn read_roll(raw: &Value) -> Result<ServiceMeshMemberRoll, SpecErrors> {
    whole("ServiceMeshMemberRoll", &ROLL, raw)
}

/// Reads a ServiceMeshMember as it was written.
///
/// # Errors
/// Every field that there is not, or that has a value of a wrong type.
pub fn read_member(raw: &Value) -> Result<ServiceMeshMember, SpecErrors> {
    whole("ServiceMeshMember", &MEMBER, raw)
}

/// Reads the spec of a ServiceMeshControlPlane with its profiles merged in. The user's own part of it is looked at: fields
/// that do not exist are noted and left out, and nothing is read if a value has a wrong type.
pub(crate) fn read_mesh<T: DeserializeOwned>(user: &Value, merged: &Value, errors: &mut Collector) -> Option<T> {
    let fits = compare(&MESH, user, errors);
    fits.then(|| typed(merged.clone(), "spec", errors)).flatten()
}

fn whole<T: DeserializeOwned>(kind: &str, schema: &Value, raw: &Value) -> Result<T, SpecErrors> {
    let text = |path: &str| raw.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let mut errors = Collector::new(kind, text("/metadata/namespace"), text("/metadata/name"));
    let spec = raw.get("spec").cloned().unwrap_or_else(|| json!({}));
    let fits = compare(schema, &spec, &mut errors);
    let mut object = raw.clone();
    if let Some(fields) = object.as_object_mut() {
        // What is written there is its writer's business.
        fields.remove("status");
        fields.insert("spec".to_owned(), spec);
    }
    let read = fits.then(|| typed(object, "spec", &mut errors)).flatten();
    errors.finish_with(read)
}

/// Notes what does not fit; whether the spec can be read all the same.
fn compare(schema: &Value, spec: &Value, errors: &mut Collector) -> bool {
    let mut fits = true;
    for finding in check(schema, &json!({ "spec": spec })) {
        fits &= finding.problem.is_unknown_field();
        errors.add(finding.path, Problem::Shape(finding.problem));
    }
    fits
}

/// The last word is the type's, should the schema ever allow more.
fn typed<T: DeserializeOwned>(mut value: Value, field: &str, errors: &mut Collector) -> Option<T> {
    whole_numbers(&mut value);
    let read = serde_json::from_value(value).map_err(|error| Problem::Unreadable(error.to_string()));
    read.map_err(|problem| errors.add(field, problem)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(result: Result<impl std::fmt::Debug, SpecErrors>) -> Vec<String> {
        let text = result.unwrap_err().to_string();
        text.lines().map(str::to_owned).collect()
    }

    // A3, A4
    #[test]
    fn rolls_and_members_are_read_or_told_field_by_field() {
        let metadata = json!({"name": "default", "namespace": "mesh"});
        let roll = read_roll(&json!({"metadata": metadata, "spec": {"members": ["a"]}, "status": {"x": 1}})).unwrap();
        assert_eq!(roll.spec.members, Some(vec!["a".to_owned()]));
        assert!(read_roll(&json!({"metadata": metadata})).is_ok());
        assert_eq!(
            lines(read_roll(
                &json!({"metadata": metadata, "spec": {"members": "a", "selectors": []}})
            )),
            [
                "ServiceMeshMemberRoll mesh/default: spec.members: must be of type array, not string; write a list",
                "ServiceMeshMemberRoll mesh/default: spec.selectors: unknown field; remove it or correct its spelling",
            ]
        );
        assert_eq!(
            lines(read_member(
                &json!({"metadata": metadata, "spec": {"controlPlaneRef": {"name": 1}}})
            )),
            [
                "ServiceMeshMember mesh/default: spec.controlPlaneRef.name: must be of type string, not number; put it in \
                 quotes",
                "ServiceMeshMember mesh/default: spec.controlPlaneRef.namespace: required field is missing; add it",
            ]
        );
    }
}
