//! Labels and annotations: the words by which the operator knows its objects again.

use crate::{Component, MeshKey};
use std::collections::BTreeMap;

/// Label: the namespace of the mesh that an object belongs to.
pub const OWNER: &str = "maistra.io/owner";
/// Label: the ServiceMeshControlPlane that an object belongs to.
pub const OWNER_NAME: &str = "maistra.io/owner-name";
/// Label: the namespace of the mesh that a namespace is a member of.
pub const MEMBER_OF: &str = "maistra.io/member-of";
/// Label: a namespace with it is never injected.
pub const IGNORE_NAMESPACE: &str = "maistra.io/ignore-namespace";
/// Annotation: who made an object that users make too.
pub const CREATED_BY: &str = "maistra.io/created-by";
/// Annotation: a hash of what was applied last.
pub const APPLIED: &str = "mizzen.io/applied";
/// The finalizer of the operator's kinds.
pub const FINALIZER: &str = "maistra.io/istio-operator";
/// The label by which gateways, pods and namespaces choose a control plane.
pub const REVISION: &str = "istio.io/rev";
/// The label by which namespaces choose injection.
pub const INJECTION: &str = "istio-injection";
/// The label by which pods choose injection.
pub const INJECT: &str = "sidecar.istio.io/inject";

/// The labels that every object of a mesh carries.
#[must_use]
pub fn owned(mesh: &MeshKey, component: Component, operator_version: &str) -> BTreeMap<String, String> {
    [
        (OWNER, mesh.namespace.as_str()),
        (OWNER_NAME, mesh.name.as_str()),
        ("app.kubernetes.io/name", component.as_str()),
        ("app.kubernetes.io/component", component.as_str()),
        ("app.kubernetes.io/instance", mesh.namespace.as_str()),
        ("app.kubernetes.io/version", operator_version),
        ("app.kubernetes.io/part-of", "istio"),
        ("app.kubernetes.io/managed-by", "maistra-istio-operator"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The label selector that finds every object of a mesh.
#[must_use]
pub fn owned_selector(mesh: &MeshKey) -> String {
    format!("{OWNER}={},{OWNER_NAME}={}", mesh.namespace, mesh.name)
}
