//! ServiceMeshMemberRoll: which namespaces are in the mesh.

use super::schema::bare_list;
use super::{Condition, MemberStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which namespaces are in the mesh: a list of names or selectors, not both.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "maistra.io",
    version = "v1",
    kind = "ServiceMeshMemberRoll",
    plural = "servicemeshmemberrolls",
    shortname = "smmr",
    category = "maistra-io",
    namespaced,
    status = "MemberRollStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "The namespaces that belong to the mesh of the namespace it is in. It must be named `default`.",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.annotations.configuredMemberCount",
        description = "How many members are configured, of how many"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "The reason of the Ready condition"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Members",
        type_ = "string",
        json_path = ".status.members",
        description = "The namespaces",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMeshMemberRollSpec {
    /// Names of namespaces, or exactly `["*"]` for all. One that does not exist yet is pending and joins when it appears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
    /// Labels of namespaces; one of the selectors must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bare_list::<LabelSelector>")]
    pub member_selectors: Option<Vec<LabelSelector>>,
}

/// What became of the roll.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberRollStatus {
    /// Counts for printing: `configuredMemberCount` is `n/m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// The generation of the roll that this tells about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The generation of the control plane that members are configured for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_generation: Option<i64>,
    /// The version and generation of the control plane that members are configured for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_reconciled_version: Option<String>,
    /// All namespaces that the roll asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
    /// Those that are configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured_members: Option<Vec<String>>,
    /// Those that are not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_members: Option<Vec<String>>,
    /// Those that are leaving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating_members: Option<Vec<String>>,
    /// What holds for the roll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// What holds for each member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_statuses: Option<Vec<MemberStatus>>,
}
