//! `spec.meshConfig`: settings for the whole mesh, and its extension providers.

use super::schema::{bare_list, section};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

section! {
    /// Settings that hold for the whole mesh.
    MeshConfig {
        /// Namespaces the control plane considers; only with mode ClusterWide. A namespace counts when one selector matches.
        #[schemars(schema_with = "bare_list::<LabelSelector>")]
        discovery_selectors: Vec<LabelSelector>,
        /// External services that policies and telemetry refer to by name.
        extension_providers: Vec<ExtensionProvider>,
    }
    /// Prometheus as a provider; it has no settings.
    PrometheusProvider {}
    /// Which part of a request's body a check sees.
    RequestBodyCheck {
        /// How many bytes at most.
        max_request_bytes: i64,
        /// Whether a body that is longer is sent in part.
        allow_partial_message: bool,
        /// Whether the body is sent as bytes rather than as text.
        pack_as_bytes: bool,
    }
}

/// A named external service; exactly one of the kinds is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionProvider {
    /// The name that policies use; unique in the mesh.
    pub name: String,
    /// Metrics for Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusProvider>,
    /// A collector of Zipkin's protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zipkin: Option<TracingProvider>,
    /// A collector of OpenTelemetry traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opentelemetry: Option<TracingProvider>,
    /// A collector of OpenTelemetry access logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy_otel_als: Option<AccessLogProvider>,
    /// An authorization service over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy_ext_authz_http: Option<ExtAuthzHttpProvider>,
    /// An authorization service over gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpcProvider>,
}

/// A collector of traces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TracingProvider {
    /// The service, as `name.namespace.svc.cluster.local`.
    pub service: String,
    /// Its port.
    pub port: i32,
    /// How long a tag may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tag_length: Option<i64>,
    /// Whether trace ids have 64 bits (Zipkin only).
    #[serde(default, rename = "enable64bitTraceId", skip_serializing_if = "Option::is_none")]
    pub enable_64bit_trace_id: Option<bool>,
}

/// A collector of access logs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessLogProvider {
    /// The service.
    pub service: String,
    /// Its port.
    pub port: i32,
    /// The name of the log; `otel_envoy_accesslog` when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_name: Option<String>,
}

/// An authorization service over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtAuthzHttpProvider {
    /// The service.
    pub service: String,
    /// Its port.
    pub port: i32,
    /// How long to wait; 600s when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// A prefix for the path of the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Whether a request passes when the service cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// The status when the service cannot be asked; 403 when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_on_error: Option<String>,
    /// Headers of the request that the check gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_request_headers_in_check: Option<Vec<String>>,
    /// Headers that are added to the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_additional_headers_in_check: Option<BTreeMap<String, String>>,
    /// Which part of the body the check gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_request_body_in_check: Option<RequestBodyCheck>,
    /// Headers of the answer that are passed on when the request is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_to_upstream_on_allow: Option<Vec<String>>,
    /// Headers of the answer that the caller gets when the request is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_to_downstream_on_deny: Option<Vec<String>>,
    /// Headers of the answer that the caller gets when the request is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_to_downstream_on_allow: Option<Vec<String>>,
}

/// An authorization service over gRPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtAuthzGrpcProvider {
    /// The service.
    pub service: String,
    /// Its port.
    pub port: i32,
    /// How long to wait; 600s when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Whether a request passes when the service cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// The status when the service cannot be asked; 403 when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_on_error: Option<String>,
    /// Which part of the body the check gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_request_body_in_check: Option<RequestBodyCheck>,
}
