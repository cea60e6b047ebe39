//! `spec.proxy`: the sidecars.

use super::ContainerConfig;
use super::schema::{bare_list, section, words};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

words! {
    /// Who redirects a pod's traffic.
    InitializationType {
        /// The CNI plugin of the node.
        #[serde(rename = "CNI")]
        Cni,
        /// An init container in the pod.
        InitContainer,
    }
    /// How traffic is redirected.
    InterceptionMode {
        /// By changing the destination.
        #[serde(rename = "REDIRECT")]
        Redirect,
        /// Transparently, keeping both addresses.
        #[serde(rename = "TPROXY")]
        Tproxy,
    }
    /// What happens to traffic for hosts that the mesh does not know.
    OutboundPolicy {
        /// It passes.
        #[serde(rename = "ALLOW_ANY")]
        AllowAny,
        /// It is refused.
        #[serde(rename = "REGISTRY_ONLY")]
        RegistryOnly,
    }
    /// How an access log line is written.
    AccessLogEncoding {
        /// As a JSON object.
        #[serde(rename = "JSON")]
        Json,
        /// As text.
        #[serde(rename = "TEXT")]
        Text,
    }
    /// TLS towards an Envoy service.
    EnvoyTlsMode {
        /// None.
        #[serde(rename = "DISABLE")]
        Disable,
        /// The server's certificate is checked.
        #[serde(rename = "SIMPLE")]
        Simple,
        /// Both sides show one.
        #[serde(rename = "MUTUAL")]
        Mutual,
        /// Both sides show the mesh's.
        #[serde(rename = "ISTIO_MUTUAL")]
        IstioMutual,
    }
    /// A proxy's log level.
    #[serde(rename_all = "lowercase")]
    ProxyLogLevel {
        /// Everything.
        Trace,
        /// What a developer needs.
        Debug,
        /// What happens.
        Info,
        /// What may be wrong.
        Warn,
        /// The same as warn.
        Warning,
        /// What is wrong.
        Error,
        /// What ends the proxy.
        Critical,
        /// Nothing.
        Off,
    }
}

section! {
    /// The sidecars.
    ProxyConfig {
        /// What they log.
        logging: ProxyLoggingConfig,
        /// Which traffic they capture and how.
        networking: ProxyNetworkingConfig,
        /// Their containers.
        runtime: ProxyRuntimeConfig,
        /// Which pods get one.
        injection: ProxyInjectionConfig,
        /// The port of their administration interface; 15000 when not said.
        admin_port: i32,
        /// How many worker threads.
        concurrency: i32,
        /// Access logs.
        access_logging: ProxyAccessLoggingConfig,
        /// A service that metrics are pushed to.
        envoy_metrics_service: ProxyEnvoyService,
    }
    /// What sidecars log.
    ProxyLoggingConfig {
        /// The level.
        level: ProxyLogLevel,
        /// Level per component.
        component_levels: BTreeMap<String, ProxyLogLevel>,
    }
    /// Which traffic sidecars capture and how.
    ProxyNetworkingConfig {
        /// The cluster's domain; `cluster.local` when not said.
        cluster_domain: String,
        /// How long connecting may take; 10s when not said.
        connection_timeout: String,
        /// After how long a connection to the control plane is renewed.
        max_connection_age: String,
        /// Who redirects the pod's traffic.
        initialization: ProxyInitConfig,
        /// Which traffic is captured.
        traffic_control: TrafficControlConfig,
        /// How a port's protocol is found.
        protocol: NetworkProtocolConfig,
        /// Names.
        dns: ProxyDnsConfig,
    }
    /// Who redirects the pod's traffic.
    ProxyInitConfig {
        /// CNI plugin or init container.
        #[serde(rename = "type")]
        kind: InitializationType,
        /// The init container.
        init_container: InitContainerConfig,
    }
    /// The init container.
    InitContainerConfig {
        /// Its image and resources.
        runtime: ContainerConfig,
    }
    /// Which traffic is captured.
    TrafficControlConfig {
        /// Towards the pod.
        inbound: InboundTrafficConfig,
        /// From the pod.
        outbound: OutboundTrafficConfig,
    }
    /// Capture towards the pod.
    InboundTrafficConfig {
        /// How.
        interception_mode: InterceptionMode,
        /// Ports that are captured; `["*"]` when not said.
        included_ports: Vec<String>,
        /// Ports that are not.
        excluded_ports: Vec<i32>,
    }
    /// Capture from the pod.
    OutboundTrafficConfig {
        /// Address ranges that are captured; all when not said.
        #[serde(rename = "includedIPRanges")]
        included_ip_ranges: Vec<String>,
        /// Address ranges that are not.
        #[serde(rename = "excludedIPRanges")]
        excluded_ip_ranges: Vec<String>,
        /// Ports that are not.
        excluded_ports: Vec<i32>,
        /// What happens to traffic for hosts that the mesh does not know.
        policy: OutboundPolicy,
    }
    /// How a port's protocol is found.
    NetworkProtocolConfig {
        /// By looking at the first bytes.
        auto_detect: AutoDetectConfig,
    }
    /// Looking at the first bytes.
    AutoDetectConfig {
        /// How long to wait for them.
        timeout: String,
        /// Whether it is done towards the pod.
        inbound: bool,
        /// Whether it is done from the pod.
        outbound: bool,
    }
    /// Names.
    ProxyDnsConfig {
        /// Suffixes added when a name is looked up.
        search_suffixes: Vec<String>,
        /// How often names are looked up again.
        refresh_rate: String,
    }
    /// A sidecar's containers.
    ProxyRuntimeConfig {
        /// When it is ready.
        readiness: ProxyReadinessConfig,
        /// Its image and resources.
        container: ContainerConfig,
    }
    /// When a sidecar is ready.
    ProxyReadinessConfig {
        /// Whether the application's probes go through the sidecar; true when not said.
        rewrite_application_probes: bool,
        /// The port of the status server; 15020 when not said. 0 turns probing off.
        status_port: i32,
        /// When probing starts.
        initial_delay_seconds: i32,
        /// How often it is done.
        period_seconds: i32,
        /// After how many failures the sidecar is not ready.
        failure_threshold: i32,
    }
    /// Which pods get a sidecar.
    ProxyInjectionConfig {
        /// Whether pods of member namespaces get one without asking; false when not said.
        auto_inject: bool,
        /// Pods that always get one.
        #[schemars(schema_with = "bare_list::<LabelSelector>")]
        always_inject_selector: Vec<LabelSelector>,
        /// Pods that never get one.
        #[schemars(schema_with = "bare_list::<LabelSelector>")]
        never_inject_selector: Vec<LabelSelector>,
        /// Annotations that an injected pod gets.
        injected_annotations: BTreeMap<String, String>,
    }
    /// Access logs.
    ProxyAccessLoggingConfig {
        /// To a file.
        file: ProxyFileAccessLogConfig,
        /// To a service.
        envoy_service: ProxyEnvoyService,
    }
    /// Access logs in a file.
    ProxyFileAccessLogConfig {
        /// The file; `/dev/stdout` for the container's log.
        name: String,
        /// Text or JSON.
        encoding: AccessLogEncoding,
        /// The line's format, in Envoy's words.
        format: String,
    }
    /// A service that proxies push to.
    ProxyEnvoyService {
        /// Whether it is used.
        enabled: bool,
        /// Its address, as host:port.
        address: String,
        /// TCP keepalive.
        tcp_keepalive: TcpKeepalive,
        /// TLS.
        tls_settings: EnvoyTlsSettings,
    }
    /// TCP keepalive.
    TcpKeepalive {
        /// How many probes go unanswered before the connection is given up.
        probes: i32,
        /// After how long without traffic probing starts.
        time: String,
        /// How long between probes.
        interval: String,
    }
}

/// TLS towards an Envoy service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyTlsSettings {
    /// What is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<EnvoyTlsMode>,
    /// The file of the client's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// The file of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// The file of the authorities that are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
    /// The server name that is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Names of which the server's certificate must hold one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_alt_names: Option<Vec<String>>,
}
