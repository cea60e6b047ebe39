//! ServiceMeshControlPlane: one mesh.

use super::schema::{free_form, section, words};
use super::{
    AddonsConfig, ClusterConfig, ControlPlaneStatus, GatewaysConfig, MeshConfig, PolicyConfig, ProxyConfig,
    RuntimeConfig, SecurityConfig, TelemetryConfig, TracingConfig,
};
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the mesh should be. Everything is optional; what is not said comes from the profiles.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "maistra.io",
    version = "v2",
    kind = "ServiceMeshControlPlane",
    plural = "servicemeshcontrolplanes",
    shortname = "smcp",
    category = "maistra-io",
    namespaced,
    status = "ControlPlaneStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A service mesh: applying one installs a control plane, its gateways and its injection into the namespace it is in.",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.annotations.readyComponentCount",
        description = "How many components are ready, of how many"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "The reason of the Ready condition"
    ),
    printcolumn(
        name = "Profiles",
        type_ = "string",
        json_path = ".status.appliedSpec.profiles",
        description = "The profiles that were applied"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.chartVersion",
        description = "The version of the control plane"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Image Registry",
        type_ = "string",
        json_path = ".status.appliedSpec.runtime.defaults.container.imageRegistry",
        description = "Where images come from",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMeshControlPlaneSpec {
    /// Profiles to start from; `["default"]` when not said. A later profile wins over an earlier one, and what is written
    /// in this spec wins over all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Vec<String>>,
    /// The version of the control plane; the newest (`v1.0`) when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether the mesh sees its member namespaces only (`MultiTenant`, the default) or the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ControlPlaneMode>,
    /// Switches for what is not settled yet, free-form. `mizzen.dataPlane` (`native` or `envoy`) chooses the sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub tech_preview: Option<Value>,
    /// The cluster and the networks that the mesh spans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterConfig>,
    /// Settings that hold for the whole mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_config: Option<MeshConfig>,
    /// Logging and messages of the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub general: Option<GeneralConfig>,
    /// How policies are enforced; kept for older manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyConfig>,
    /// The sidecars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyConfig>,
    /// Identity, certificates and mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<SecurityConfig>,
    /// How telemetry is made; kept for older manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<TelemetryConfig>,
    /// Tracing of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingConfig>,
    /// Gateways at the mesh's edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateways: Option<GatewaysConfig>,
    /// Deployments, pods and containers of the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeConfig>,
    /// What is installed beside the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addons: Option<AddonsConfig>,
}

words! {
    /// How much of the cluster a mesh sees.
    ControlPlaneMode {
        /// The member namespaces only.
        MultiTenant,
        /// Every namespace.
        ClusterWide,
    }
}

section! {
    /// Logging and messages of the control plane.
    GeneralConfig {
        /// What the control plane logs.
        logging: LoggingConfig,
        /// Whether problems found in configuration objects are written into their status.
        validation_messages: bool,
    }
    /// What the control plane logs.
    LoggingConfig {
        /// Level per component: debug, info, warn, error, fatal or none.
        component_levels: std::collections::BTreeMap<String, String>,
        /// Whether lines are JSON.
        #[serde(rename = "logAsJSON")]
        log_as_json: bool,
    }
}
