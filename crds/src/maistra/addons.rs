//! `spec.addons`: what is installed beside the mesh.

use super::MetadataConfig;
use super::schema::{bare, bare_list, free_form, section, words};
use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use serde_json::Value;
use std::collections::BTreeMap;

words! {
    /// Where Jaeger keeps traces.
    JaegerStorageType {
        /// In memory.
        Memory,
        /// In Elasticsearch.
        Elasticsearch,
    }
}

section! {
    /// What is installed beside the mesh.
    AddonsConfig {
        /// Metrics.
        prometheus: PrometheusAddonConfig,
        /// Boards.
        grafana: GrafanaAddonConfig,
        /// Traces.
        jaeger: JaegerAddonConfig,
        /// The mesh's console.
        kiali: KialiAddonConfig,
        /// Google's Stackdriver.
        stackdriver: StackdriverAddonConfig,
        /// 3scale's adapter, which no longer exists: refused.
        #[serde(rename = "3scale")]
        three_scale: ThreeScaleAddonConfig,
    }
    /// How an addon is reached.
    ComponentServiceConfig {
        /// Labels and annotations.
        metadata: MetadataConfig,
        /// The port on the nodes.
        node_port: i32,
        /// From outside the cluster.
        ingress: ComponentIngressConfig,
    }
    /// How an addon is reached from outside the cluster.
    ComponentIngressConfig {
        /// Whether it is.
        enabled: bool,
        /// Labels and annotations.
        metadata: MetadataConfig,
        /// Host names.
        hosts: Vec<String>,
        /// The path's prefix.
        context_path: String,
        /// TLS, free-form.
        #[schemars(schema_with = "free_form")]
        tls: Value,
    }
    /// Metrics.
    PrometheusAddonConfig {
        /// Whether there are any.
        enabled: bool,
        /// An existing Prometheus.
        address: String,
        /// Whether the mesh's pods are scraped; true when not said.
        scrape: bool,
        /// After how long an idle series is dropped.
        metrics_expiry_duration: String,
        /// How it is installed.
        install: PrometheusInstallConfig,
    }
    /// How Prometheus is installed.
    PrometheusInstallConfig {
        /// Whether somebody else looks after it.
        self_managed: bool,
        /// How long metrics are kept.
        retention: String,
        /// How often they are collected.
        scrape_interval: String,
        /// How it is reached.
        service: ComponentServiceConfig,
        /// Whether it serves TLS.
        #[serde(rename = "useTLS")]
        use_tls: bool,
    }
    /// Boards.
    GrafanaAddonConfig {
        /// Whether there are any.
        enabled: bool,
        /// An existing Grafana.
        address: String,
        /// How it is installed.
        install: GrafanaInstallConfig,
    }
    /// How Grafana is installed.
    GrafanaInstallConfig {
        /// Whether somebody else looks after it.
        self_managed: bool,
        /// Its environment.
        config: GrafanaConfig,
        /// How it is reached.
        service: ComponentServiceConfig,
        /// Its disk.
        persistence: ComponentPersistenceConfig,
        /// Its password.
        security: GrafanaSecurityConfig,
    }
    /// Grafana's environment.
    GrafanaConfig {
        /// Variables.
        env: BTreeMap<String, String>,
        /// Variables from Secrets.
        env_secrets: BTreeMap<String, String>,
    }
    /// A disk.
    ComponentPersistenceConfig {
        /// Whether there is one.
        enabled: bool,
        /// Its class.
        storage_class_name: String,
        /// Its access mode.
        access_mode: String,
        /// Its size, free-form as in a volume claim's resources.
        #[schemars(schema_with = "bare::<ResourceRequirements>")]
        capacity: ResourceRequirements,
    }
    /// Grafana's password.
    GrafanaSecurityConfig {
        /// Whether it has one.
        enabled: bool,
        /// The Secret it is in.
        secret_name: String,
        /// The user's key in it.
        username_key: String,
        /// The password's key in it.
        passphrase_key: String,
    }
    /// Traces.
    JaegerAddonConfig {
        /// The name of a Jaeger object.
        name: String,
        /// How it is installed.
        install: JaegerInstallConfig,
    }
    /// How Jaeger is installed.
    JaegerInstallConfig {
        /// Where it keeps traces.
        storage: JaegerStorageConfig,
        /// How it is reached.
        ingress: JaegerIngressConfig,
    }
    /// Where Jaeger keeps traces.
    JaegerStorageConfig {
        /// In memory or in Elasticsearch.
        #[serde(rename = "type")]
        kind: JaegerStorageType,
        /// In memory.
        memory: JaegerMemoryStorageConfig,
        /// In Elasticsearch.
        elasticsearch: JaegerElasticsearchStorageConfig,
    }
    /// Traces in memory.
    JaegerMemoryStorageConfig {
        /// How many at most.
        max_traces: i64,
    }
    /// Traces in Elasticsearch.
    JaegerElasticsearchStorageConfig {
        /// How many nodes.
        node_count: i32,
        /// Its disks, free-form.
        #[schemars(schema_with = "free_form")]
        storage: Value,
        /// How many copies.
        redundancy_policy: String,
        /// How old traces are removed, free-form.
        #[schemars(schema_with = "free_form")]
        index_cleaner: Value,
    }
    /// How Jaeger is reached.
    JaegerIngressConfig {
        /// Whether it is.
        enabled: bool,
        /// Labels and annotations.
        metadata: MetadataConfig,
    }
    /// The mesh's console.
    KialiAddonConfig {
        /// Whether there is one.
        enabled: bool,
        /// The name of a Kiali object.
        name: String,
        /// How it is installed.
        install: KialiInstallConfig,
    }
    /// How Kiali is installed.
    KialiInstallConfig {
        /// What it shows.
        dashboard: KialiDashboardConfig,
        /// How it is reached.
        service: ComponentServiceConfig,
        /// Its Deployment.
        deployment: KialiDeploymentConfig,
    }
    /// What Kiali shows.
    KialiDashboardConfig {
        /// Whether nothing can be changed with it.
        view_only: bool,
        /// Whether it links to Grafana.
        enable_grafana: bool,
        /// Whether it reads Prometheus.
        enable_prometheus: bool,
        /// Whether it reads traces.
        enable_tracing: bool,
    }
    /// Kiali's Deployment.
    KialiDeploymentConfig {
        /// Requests and limits.
        #[schemars(schema_with = "bare::<ResourceRequirements>")]
        resources: ResourceRequirements,
        /// Nearness to nodes and other pods, as in a pod.
        #[schemars(schema_with = "free_form")]
        affinity: Value,
        /// Labels of the nodes.
        node_selector: BTreeMap<String, String>,
        /// Taints that are accepted.
        #[schemars(schema_with = "bare_list::<Toleration>")]
        tolerations: Vec<Toleration>,
    }
    /// Google's Stackdriver.
    StackdriverAddonConfig {
        /// Traces.
        tracer: StackdriverTracerConfig,
        /// Metrics and logs.
        telemetry: StackdriverTelemetryConfig,
    }
    /// Traces to Stackdriver.
    StackdriverTracerConfig {
        /// Whether they are written to standard output too.
        debug: bool,
        /// Attributes of a span at most.
        max_number_of_attributes: i64,
        /// Annotations of a span at most.
        max_number_of_annotations: i64,
        /// Messages of a span at most.
        max_number_of_message_events: i64,
    }
    /// Metrics and logs to Stackdriver.
    StackdriverTelemetryConfig {
        /// Whether they are sent.
        enabled: bool,
        /// Who sends them.
        auth: StackdriverAuthConfig,
        /// Whether edges between services are sent.
        enable_context_graph: bool,
        /// Whether logs are sent.
        enable_logging: bool,
        /// Whether metrics are sent.
        enable_metrics: bool,
        /// Access logs.
        access_logging: StackdriverAccessLogging,
        /// The filter's configuration, free-form.
        #[schemars(schema_with = "free_form")]
        config_override: Value,
    }
    /// Who sends to Stackdriver.
    StackdriverAuthConfig {
        /// Whether the application's credentials are used.
        app_credentials: bool,
        /// A key.
        api_key: String,
        /// The file of a service account.
        service_account_path: String,
    }
    /// Access logs to Stackdriver.
    StackdriverAccessLogging {
        /// Whether they are sent.
        enabled: bool,
        /// How long an identical line is held back; 43200s when not said.
        log_window_duration: String,
    }
    /// 3scale's adapter.
    ThreeScaleAddonConfig {
        /// Whether it is there.
        enabled: bool,
        /// Its port.
        #[serde(rename = "listen_addr")]
        listen_addr: i32,
        /// Whether gRPC is logged.
        #[serde(rename = "log_grpc")]
        log_grpc: bool,
        /// Whether lines are JSON.
        #[serde(rename = "log_json")]
        log_json: bool,
        /// Which lines.
        #[serde(rename = "log_level")]
        log_level: String,
        /// Metrics.
        metrics: ThreeScaleMetricsConfig,
        /// The cache of systems.
        system: ThreeScaleSystemConfig,
        /// Its connections.
        client: ThreeScaleClientConfig,
        /// Its gRPC server.
        grpc: ThreeScaleGrpcConfig,
        /// The cache of the backend.
        backend: ThreeScaleBackendConfig,
    }
    /// 3scale's metrics.
    ThreeScaleMetricsConfig {
        /// Their port.
        port: i32,
        /// Whether there are any.
        report: bool,
    }
    /// 3scale's cache of systems.
    ThreeScaleSystemConfig {
        /// How many entries.
        #[serde(rename = "cache_max_size")]
        cache_max_size: i64,
        /// How often a refresh is tried.
        #[serde(rename = "cache_refresh_retries")]
        cache_refresh_retries: i32,
        /// Seconds between refreshes.
        #[serde(rename = "cache_refresh_interval")]
        cache_refresh_interval: i32,
        /// Seconds an entry lives.
        #[serde(rename = "cache_ttl")]
        cache_ttl: i32,
    }
    /// 3scale's connections.
    ThreeScaleClientConfig {
        /// Whether certificates go unchecked.
        #[serde(rename = "allow_insecure_connections")]
        allow_insecure_connections: bool,
        /// Seconds to wait.
        timeout: i32,
    }
    /// 3scale's gRPC server.
    ThreeScaleGrpcConfig {
        /// Seconds a connection may live.
        #[serde(rename = "max_conn_timeout")]
        max_conn_timeout: i32,
    }
    /// 3scale's cache of the backend.
    ThreeScaleBackendConfig {
        /// Whether there is one.
        #[serde(rename = "enable_cache")]
        enable_cache: bool,
        /// Seconds between writes.
        #[serde(rename = "cache_flush_interval")]
        cache_flush_interval: i32,
        /// Whether a request is refused when the backend is away.
        #[serde(rename = "policy_fail_closed")]
        policy_fail_closed: bool,
    }
}
