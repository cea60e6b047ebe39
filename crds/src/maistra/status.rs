//! Status: what holds for an object and for its components.

use super::schema::{free_form, words};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

words! {
    /// Whether a condition holds.
    ConditionStatus {
        /// It does.
        True,
        /// It does not.
        False,
        /// Nobody knows.
        Unknown,
    }
    /// What a condition is about.
    ConditionType {
        /// All objects were made at least once.
        Installed,
        /// All objects are as the spec says.
        Reconciled,
        /// All components work.
        Ready,
    }
    /// Why a condition holds or not; every word a user may read.
    ConditionReason {
        /// Being made for the first time.
        ResourceCreated,
        /// Being changed since the spec changed.
        SpecUpdated,
        /// Being changed since the operator changed.
        OperatorUpdated,
        /// Waiting for components while installing.
        PausingInstall,
        /// Waiting for components while updating.
        PausingUpdate,
        /// Installed.
        InstallSuccessful,
        /// Not installed.
        InstallError,
        /// Updated.
        UpdateSuccessful,
        /// As the spec says.
        ReconcileSuccessful,
        /// Not as the spec says.
        ReconcileError,
        /// The spec cannot be acted on.
        ValidationError,
        /// There is an older control plane in the namespace.
        #[serde(rename = "ErrMultipleSMCPs")]
        ErrMultipleSmcps,
        /// Something that the operator does not install is missing.
        DependencyMissingError,
        /// All components work.
        ComponentsReady,
        /// Some component does not.
        ComponentsNotReady,
        /// Whether components work could not be found out.
        ProbeError,
        /// Not removed.
        DeletionError,
        /// Being removed.
        Deleting,
        /// Removed.
        Deleted,
        /// All members are configured.
        Configured,
        /// There is no control plane in the namespace.
        #[serde(rename = "ErrSMCPMissing")]
        ErrSmcpMissing,
        /// The object must be named `default`.
        ErrInvalidName,
        /// The control plane is not yet as its spec says.
        #[serde(rename = "SMCPReconciling")]
        SmcpReconciling,
        /// The member roll could not be made.
        CreateMemberRollFailed,
        /// The member roll could not be changed.
        UpdateMemberRollFailed,
        /// The member roll could not be removed.
        DeleteMemberRollFailed,
        /// The namespace does not exist.
        NamespaceNotExists,
        /// The namespace is in another mesh.
        ReferencesDifferentControlPlane,
        /// The namespace is going away.
        Terminating,
        /// The object must be named `default`.
        InvalidName,
        /// There is no such control plane.
        ErrorControlPlaneMissing,
        /// The namespace could not be configured.
        ErrorConfiguringNamespace,
        /// The namespace could not be cleaned.
        ErrorRemovingNamespace,
    }
}

/// One thing that holds or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ConditionReason>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Since when it holds, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

/// What became of a ServiceMeshControlPlane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneStatus {
    /// For printing: `readyComponentCount` is `n/n`, `alwaysReadyComponents` lists those that need no probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// What holds for the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// The generation of the object that this tells about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The version of the operator that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,
    /// The version of the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chart_version: Option<String>,
    /// What holds for each component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<Vec<ComponentStatus>>,
    /// Which components work. Always there.
    #[serde(default)]
    pub readiness: Readiness,
    /// The spec with its profiles merged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub applied_spec: Option<Value>,
    /// The settings that components were made from, free-form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub applied_values: Option<Value>,
}

/// What holds for a component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// The component.
    pub resource: String,
    /// What holds for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// Its objects that are not as they should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<Vec<ResourceStatus>>,
}

/// What holds for an object of a component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStatus {
    /// The object, as `Kind/name`.
    pub resource: String,
    /// What holds for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
}

/// Which components work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Readiness {
    /// By state.
    #[serde(default)]
    pub components: ReadinessComponents,
}

/// Components by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReadinessComponents {
    /// Those that work.
    #[serde(default)]
    pub ready: Vec<String>,
    /// Those that do not.
    #[serde(default)]
    pub unready: Vec<String>,
    /// Those that are not made yet.
    #[serde(default)]
    pub pending: Vec<String>,
}

/// What holds for a member namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberStatus {
    /// The namespace.
    pub namespace: String,
    /// What holds for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
}
