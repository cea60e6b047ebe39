//! `spec.gateways`: gateways at the mesh's edge.

use super::schema::{bare, bare_list, section, words};
use super::{ComponentRuntimeConfig, ContainerConfig, MetadataConfig};
use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, SecretVolumeSource, ServicePort, ServiceSpec, VolumeMount};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

words! {
    /// How a gateway routes encrypted traffic that it does not decrypt.
    RouterMode {
        /// By server name, with the destination in it.
        #[serde(rename = "sni-dnat")]
        SniDnat,
        /// By the configured routes.
        #[serde(rename = "standard")]
        Standard,
    }
}

section! {
    /// Gateways at the mesh's edge.
    GatewaysConfig {
        /// Whether there are any; true when not said.
        enabled: bool,
        /// The default gateway into the mesh, `istio-ingressgateway`.
        ingress: IngressGatewayConfig,
        /// The default gateway out of the mesh, `istio-egressgateway`.
        egress: EgressGatewayConfig,
        /// Further gateways into the mesh, by name.
        additional_ingress: BTreeMap<String, AdditionalIngressGatewayConfig>,
        /// Further gateways out of the mesh, by name.
        additional_egress: BTreeMap<String, EgressGatewayConfig>,
        /// Whether an OpenShift Route is made for each host of a Gateway.
        openshift_route: OpenShiftRouteConfig,
    }
    /// A gateway.
    GatewayConfig {
        /// Whether it is there.
        enabled: bool,
        /// The namespace it is in; the mesh's when not said.
        namespace: String,
        /// Its Service.
        service: GatewayServiceConfig,
        /// How it routes encrypted traffic.
        router_mode: RouterMode,
        /// Secrets and ConfigMaps that are mounted into it.
        volumes: Vec<VolumeConfig>,
        /// Its Deployment, pods and container.
        runtime: ComponentRuntimeConfig,
    }
    /// Certificates from Secrets, without a mount.
    SecretDiscoveryConfig {
        /// Whether they are read.
        enabled: bool,
        /// The container that reads them, for older versions.
        runtime: ContainerConfig,
    }
    /// A switch.
    OpenShiftRouteConfig {
        /// Whether it is on.
        enabled: bool,
    }
    /// A Secret or ConfigMap, and where it is mounted.
    VolumeConfig {
        /// What.
        volume: GatewayVolume,
        /// Where.
        #[schemars(schema_with = "bare::<VolumeMount>")]
        volume_mount: VolumeMount,
    }
    /// A Secret or ConfigMap.
    GatewayVolume {
        /// A ConfigMap.
        #[schemars(schema_with = "bare::<ConfigMapVolumeSource>")]
        config_map: ConfigMapVolumeSource,
        /// A Secret.
        #[schemars(schema_with = "bare::<SecretVolumeSource>")]
        secret: SecretVolumeSource,
    }
}

/// A gateway's Service: Kubernetes' ServiceSpec, and labels and annotations for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayServiceConfig {
    /// Labels and annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataConfig>,
    /// Everything a Service's spec may say.
    #[serde(flatten)]
    pub spec: ServiceSpec,
}

// Written by hand: a derived schema of a flattened field would keep unknown fields instead of refusing them.
impl JsonSchema for GatewayServiceConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GatewayServiceConfig".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let metadata = generator.subschema_for::<MetadataConfig>();
        let mut schema = bare::<ServiceSpec>(generator);
        if let Some(properties) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
            properties.insert("metadata".to_owned(), metadata.into());
        }
        schema
    }
}

/// A gateway into the mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressGatewayConfig {
    /// What all gateways have.
    #[serde(flatten)]
    pub gateway: GatewayConfig,
    /// Certificates from Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sds: Option<SecretDiscoveryConfig>,
    /// Whether an OpenShift Route leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_config: Option<OpenShiftRouteConfig>,
    /// Whether it serves Kubernetes Ingress objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<bool>,
    /// Ports for workloads outside Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bare_list::<ServicePort>")]
    pub mesh_expansion_ports: Option<Vec<ServicePort>>,
}

/// A further gateway into the mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdditionalIngressGatewayConfig {
    /// What all gateways have.
    #[serde(flatten)]
    pub gateway: GatewayConfig,
    /// Certificates from Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sds: Option<SecretDiscoveryConfig>,
    /// Whether an OpenShift Route leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_config: Option<OpenShiftRouteConfig>,
}

/// A gateway out of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressGatewayConfig {
    /// What all gateways have.
    #[serde(flatten)]
    pub gateway: GatewayConfig,
    /// The networks whose endpoints it sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_network_view: Option<Vec<String>>,
}
