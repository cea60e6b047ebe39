//! ServiceMeshMember: a namespace's own wish to be in a mesh.

use super::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which mesh the namespace wants to be in.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "maistra.io",
    version = "v1",
    kind = "ServiceMeshMember",
    plural = "servicemeshmembers",
    shortname = "smm",
    category = "maistra-io",
    namespaced,
    status = "MemberObjectStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Puts the namespace it is in into a mesh. It must be named `default`.",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Control Plane",
        type_ = "string",
        json_path = ".status.annotations.controlPlaneRef",
        description = "The control plane, as namespace/name"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the namespace is in the mesh"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMeshMemberSpec {
    /// The control plane; it cannot be changed.
    pub control_plane_ref: ControlPlaneRef,
}

/// A control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ControlPlaneRef {
    /// The name of the ServiceMeshControlPlane.
    pub name: String,
    /// The namespace it is in.
    pub namespace: String,
}

/// What became of the wish.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberObjectStatus {
    /// For printing: `controlPlaneRef` is `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// The generation of the object that this tells about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The generation of the control plane that the namespace is configured for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_generation: Option<i64>,
    /// The version and generation of the control plane that the namespace is configured for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_reconciled_version: Option<String>,
    /// What holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
}
