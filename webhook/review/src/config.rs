//! The injector's configuration: what one mesh puts into its pods.
//!
//! It travels as JSON under the key `values` of ConfigMap `istio-sidecar-injector-<revision>` in the mesh namespace: the
//! operator writes it, istiod's webhook and `mizzen inject` read it. Only `revision`, `meshNamespace` and `images` must be
//! there; everything else has the default that is written beside the field. Unknown fields are let through, because
//! during an upgrade an older istiod reads what a newer operator wrote.
//!
//! ```json
//! {"revision": "basic", "meshNamespace": "istio-system", "images": {"registry": "localhost/mizzen", "tag": "dev"}}
//! ```

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use mizzen_identity::TrustDomain;
use serde::{Deserialize, Serialize};

/// The key of the ConfigMap under which the JSON of [`InjectConfig`] stands.
pub const CONFIG_MAP_KEY: &str = "values";

/// The ConfigMap of a revision that holds its [`InjectConfig`].
pub fn config_map_name(revision: &str) -> String {
    format!("istio-sidecar-injector-{revision}")
}

/// What one mesh puts into its pods, and into which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InjectConfig {
    /// The control plane's revision: the name of the ServiceMeshControlPlane.
    pub revision: String,
    /// The namespace of the control plane.
    pub mesh_namespace: String,
    /// Where the images come from.
    pub images: Images,

    /// Whether every namespace belongs to the mesh (`ClusterWide`) or only those labelled
    /// `maistra.io/member-of=<mesh namespace>` (`MultiTenant`). Default false.
    #[serde(default)]
    pub cluster_wide: bool,
    /// Whether `istio-injection=enabled`, and a pod's own wish in a namespace that names no revision, mean this control
    /// plane. Default true.
    #[serde(default = "yes")]
    pub default_revision: bool,
    /// Whether pods of members that say nothing at all (neither the namespace nor the pod) are injected:
    /// `spec.proxy.injection.autoInject` of the ServiceMeshControlPlane. Default false.
    #[serde(default)]
    pub auto_inject: bool,
    /// What happens to a selected pod that says nothing itself and that no selector below matches. Default `enabled`.
    #[serde(default)]
    pub policy: Policy,
    /// Pods that stay without a sidecar unless they ask for one. Wins over `alwaysInjectSelector`.
    #[serde(default)]
    pub never_inject_selector: Vec<LabelSelector>,
    /// Pods that get a sidecar although `policy` is `disabled`.
    #[serde(default)]
    pub always_inject_selector: Vec<LabelSelector>,
    /// Annotations that every injected pod gets, unless it has them already.
    #[serde(default)]
    pub injected_annotations: BTreeMap<String, String>,

    /// The data plane of pods that do not choose one by `sidecar.mizzen.io/data-plane`. Default `native`.
    #[serde(default)]
    pub data_plane: DataPlane,
    /// Whether the sidecar is an init container with `restartPolicy: Always` (Kubernetes 1.29 and later). Default true.
    #[serde(default = "yes")]
    pub native_sidecar: bool,
    /// Without a native sidecar: whether the application's containers wait until the sidecar is ready. Default true.
    #[serde(default = "yes")]
    pub hold_application_until_proxy_starts: bool,

    /// Default `cluster.local`.
    #[serde(default)]
    pub trust_domain: TrustDomain,
    /// The domain of the cluster's services. Default `cluster.local`.
    #[serde(default = "cluster_domain")]
    pub cluster_domain: String,
    /// The cluster's name in metrics and endpoints. Default `Kubernetes`.
    #[serde(default = "cluster_id")]
    pub cluster_id: String,
    /// The network that pods are in; none in a mesh of one network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Host and port of CA and discovery; default `istiod-<revision>.<mesh namespace>.svc:15012`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_address: Option<String>,
    /// How long workload certificates live, as Istio writes durations (`24h0m0s`, `30s`). Default: as the CA says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ttl: Option<String>,
    /// Life of the projected token, in seconds, at least 600. Default 43200.
    #[serde(default = "token_seconds")]
    pub token_expiration_seconds: i64,

    /// What traffic is captured, unless the pod says otherwise.
    #[serde(default)]
    pub capture: Capture,
    /// The port of the agent's status server (probes of the application, merged metrics). Default 15020.
    #[serde(default = "status_port")]
    pub status_port: u16,
    /// Whether probes of the application are led through the agent, so that they work under STRICT. Default true.
    #[serde(default = "yes")]
    pub rewrite_probes: bool,
    /// Whether `prometheus.io/*` annotations are led to the agent, which merges the application's metrics. Default true.
    #[serde(default = "yes")]
    pub merge_prometheus: bool,
    /// The sidecar's readiness probe.
    #[serde(default)]
    pub readiness: Readiness,

    /// Requests and limits of the sidecar. Default: requests of 10m CPU and 32Mi memory, no limits.
    #[serde(default = "sidecar_resources")]
    pub resources: ResourceRequirements,
    /// Requests and limits of the init container. Default: as the sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_resources: Option<ResourceRequirements>,
    /// Worker threads of the sidecar. Default 1 for the native data plane, 2 for Envoy, chosen by the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u16>,
    /// The sidecar's log level: `trace`, `debug`, `info`, `warning`, `error`, `critical`, `off`. Default `warning`.
    #[serde(default = "log_level")]
    pub log_level: String,
    /// Envoy's per-component levels, `misc:error,http:debug`. Default `misc:error`.
    #[serde(default = "component_log_level")]
    pub component_log_level: String,
    /// The sidecar's environment on top of its own (`proxyMetadata`).
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Seconds that the sidecar goes on serving after it was told to stop. Default 5.
    #[serde(default = "drain_seconds")]
    pub drain_seconds: u32,
}

/// Where the images come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// Registry and path before the name, without a slash at the end: `localhost/mizzen`.
    pub registry: String,
    /// The tag of every image.
    pub tag: String,
    /// Default `IfNotPresent`.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Names of secrets that pods need to pull the images.
    #[serde(default)]
    pub pull_secrets: Vec<String>,
    /// Name of the native data plane's image. Default `mizzen-proxy`.
    #[serde(default = "native_image")]
    pub native: String,
    /// Name of the image with Envoy. Default `mizzen-proxy-envoy`.
    #[serde(default = "envoy_image")]
    pub envoy: String,
}

/// `imagePullPolicy` of the injected containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Pull before each start.
    Always,
    /// Pull what the node does not have.
    #[default]
    IfNotPresent,
    /// Never pull.
    Never,
}

/// What happens to a selected pod that says nothing itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It is injected.
    #[default]
    Enabled,
    /// It is not.
    Disabled,
}

/// Which program carries a pod's traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataPlane {
    /// Mizzen's own sidecar.
    #[default]
    Native,
    /// Envoy, supervised by Mizzen's agent.
    Envoy,
}

/// How traffic reaches the sidecar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum InterceptionMode {
    /// Destination rewritten by NAT.
    #[default]
    Redirect,
    /// Transparent proxying: the source address is kept.
    Tproxy,
    /// Nothing is captured; there is no init container.
    None,
}

/// What traffic is captured. Values are spelled as in the pod annotations `traffic.sidecar.istio.io/*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capture {
    /// Default `REDIRECT`.
    pub interception_mode: InterceptionMode,
    /// `*` or CIDRs separated by commas; empty captures no address. Default `*`.
    pub include_outbound_ip_ranges: String,
    /// CIDRs separated by commas. Default empty.
    pub exclude_outbound_ip_ranges: String,
    /// Ports that are captured whatever the address. Default empty.
    pub include_outbound_ports: String,
    /// Default empty.
    pub exclude_outbound_ports: String,
    /// `*` or ports separated by commas. Default `*`.
    pub include_inbound_ports: String,
    /// Ports besides the sidecar's own. Default empty.
    pub exclude_inbound_ports: String,
}

/// The sidecar's readiness probe at `:15021/healthz/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Readiness {
    /// Default 0.
    pub initial_delay_seconds: i32,
    /// Default 15.
    pub period_seconds: i32,
    /// Default 4.
    pub failure_threshold: i32,
}

/// Why a text is not an injector configuration.
#[derive(Debug, thiserror::Error)]
#[error("the injector configuration cannot be read: {field}{reason}")]
pub struct ConfigError {
    /// The path of the field, and `: `; empty where it is not one field that is wrong.
    field: String,
    reason: String,
}

impl InjectConfig {
    /// A configuration with every default.
    pub fn new(revision: impl Into<String>, mesh_namespace: impl Into<String>, images: Images) -> Self {
        Self {
            revision: revision.into(),
            mesh_namespace: mesh_namespace.into(),
            images,
            cluster_wide: false,
            default_revision: true,
            auto_inject: false,
            policy: Policy::default(),
            never_inject_selector: Vec::new(),
            always_inject_selector: Vec::new(),
            injected_annotations: BTreeMap::new(),
            data_plane: DataPlane::default(),
            native_sidecar: true,
            hold_application_until_proxy_starts: true,
            trust_domain: TrustDomain::default(),
            cluster_domain: cluster_domain(),
            cluster_id: cluster_id(),
            network: None,
            ca_address: None,
            certificate_ttl: None,
            token_expiration_seconds: token_seconds(),
            capture: Capture::default(),
            status_port: status_port(),
            rewrite_probes: true,
            merge_prometheus: true,
            readiness: Readiness::default(),
            resources: sidecar_resources(),
            init_resources: None,
            concurrency: None,
            log_level: log_level(),
            component_log_level: component_log_level(),
            env: BTreeMap::new(),
            drain_seconds: drain_seconds(),
        }
    }

    /// Reads the JSON that stands in the ConfigMap.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            ConfigError {
                field: if path == "." {
                    String::new()
                } else {
                    format!("{path}: ")
                },
                reason: error.into_inner().to_string(),
            }
        })
    }

    /// Where sidecars find CA and discovery, as `host:port`.
    pub fn ca_address(&self) -> String {
        match &self.ca_address {
            Some(address) => address.clone(),
            None => format!("istiod-{}.{}.svc:15012", self.revision, self.mesh_namespace),
        }
    }

    /// The image of the sidecar and of its init container.
    pub fn image(&self, data_plane: DataPlane) -> String {
        let name = match data_plane {
            DataPlane::Native => &self.images.native,
            DataPlane::Envoy => &self.images.envoy,
        };
        format!("{}/{name}:{}", self.images.registry, self.images.tag)
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            interception_mode: InterceptionMode::default(),
            include_outbound_ip_ranges: "*".into(),
            exclude_outbound_ip_ranges: String::new(),
            include_outbound_ports: String::new(),
            exclude_outbound_ports: String::new(),
            include_inbound_ports: "*".into(),
            exclude_inbound_ports: String::new(),
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            initial_delay_seconds: 0,
            period_seconds: 15,
            failure_threshold: 4,
        }
    }
}

impl DataPlane {
    /// As annotations and environment spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Envoy => "envoy",
        }
    }
}

impl InterceptionMode {
    /// As annotations and Istio's flags spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "REDIRECT",
            Self::Tproxy => "TPROXY",
            Self::None => "NONE",
        }
    }
}

impl PullPolicy {
    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl fmt::Display for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn yes() -> bool {
    true
}

fn cluster_domain() -> String {
    "cluster.local".into()
}

fn cluster_id() -> String {
    "Kubernetes".into()
}

fn token_seconds() -> i64 {
    43_200
}

fn status_port() -> u16 {
    15020
}

fn log_level() -> String {
    "warning".into()
}

fn component_log_level() -> String {
    "misc:error".into()
}

fn drain_seconds() -> u32 {
    5
}

fn native_image() -> String {
    "mizzen-proxy".into()
}

fn envoy_image() -> String {
    "mizzen-proxy-envoy".into()
}

/// Requests only: a limit on CPU throttles the request path of every pod, and the sidecar's memory follows its use.
fn sidecar_resources() -> ResourceRequirements {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    ResourceRequirements {
        requests: Some(
            [("cpu", "10m"), ("memory", "32Mi")]
                .map(|(k, v)| (k.to_owned(), Quantity(v.to_owned())))
                .into(),
        ),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // B1, B3
    #[test]
    fn three_fields_are_enough() {
        let text =
            r#"{"revision": "basic", "meshNamespace": "mesh", "images": {"registry": "r.example/m", "tag": "7"}}"#;
        let read = InjectConfig::from_json(text).unwrap();
        let images = Images {
            registry: "r.example/m".into(),
            tag: "7".into(),
            pull_policy: PullPolicy::IfNotPresent,
            pull_secrets: vec![],
            native: "mizzen-proxy".into(),
            envoy: "mizzen-proxy-envoy".into(),
        };
        assert_eq!(read, InjectConfig::new("basic", "mesh", images));
        assert_eq!(read.ca_address(), "istiod-basic.mesh.svc:15012");
        assert_eq!(read.image(DataPlane::Envoy), "r.example/m/mizzen-proxy-envoy:7");
        let again = InjectConfig::from_json(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }
}
