//! PeerAuthentication: what workloads accept from their callers, plain text or mutual TLS.

use std::collections::BTreeMap;

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::selector::WorkloadSelector;
use crate::status::ConfigStatus;

/// Says whether workloads take plain text, mutual TLS, or both from their callers.
///
/// Without a selector it is for the whole namespace, or for the whole mesh in the mesh's root namespace.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "PeerAuthentication",
    plural = "peerauthentications",
    shortname = "pa",
    category = "istio-io",
    category = "security-istio-io",
    namespaced,
    status = "ConfigStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Says whether workloads take plain text, mutual TLS, or both from their callers.",
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mtls.mode",
        description = "Which traffic is accepted: PERMISSIVE, STRICT or DISABLE."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "How long ago the object was created."
    ),
    crates(kube_core = "kube_core")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? self.selector.matchLabels : {}).size() > 0) : true",
    "message": "portLevelMtls requires a selector with matchLabels: ports are named per workload",
}]))]
pub struct PeerAuthenticationSpec {
    /// The pods of this namespace that it is for; absent or empty means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// What is accepted on every port that has no setting of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MutualTls>,
    /// What is accepted per port of the pod (not of the service); needs a selector.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1, "x-kubernetes-validations" = [{
        "rule": "self.all(key, 0 < int(key) && int(key) <= 65535)",
        "message": "port must be between 1 and 65535",
    }]))]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

/// A mutual TLS setting.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MutualTls {
    /// What is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<MutualTlsMode>,
}

/// What a workload accepts from its callers.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    /// What the next wider policy says: namespace, then mesh, then PERMISSIVE.
    #[default]
    Unset,
    /// Plain text; TLS is not touched.
    Disable,
    /// Plain text and mutual TLS on the same port.
    Permissive,
    /// Mutual TLS only.
    Strict,
}
