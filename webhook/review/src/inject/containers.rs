//! The two containers: the one that sets redirection up, and the sidecar.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, Lifecycle,
    LifecycleHandler, ObjectFieldSelector, PodSpec, Probe, ResourceFieldSelector, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

use super::probe::Probers;
use super::{INIT, PROXY_UID, SIDECAR, Workload, volume};
use crate::annotation::PodOptions;
use crate::config::InjectConfig;

const OUTBOUND_PORT: &str = "15001";
const INBOUND_PORT: &str = "15006";
const AGENT_PORT: u16 = 15020;
const HEALTH_PORT: i32 = 15021;
const PROMETHEUS_PORT: i32 = 15090;

/// What the sidecar is told about the application's containers.
pub(super) struct AppFacts {
    pub(super) names: Vec<String>,
    ports: Vec<Value>,
}

impl AppFacts {
    pub(super) fn of(spec: &PodSpec) -> Self {
        let ports = spec
            .containers
            .iter()
            .flat_map(|container| container.ports.iter().flatten());
        Self {
            names: spec.containers.iter().map(|container| container.name.clone()).collect(),
            ports: ports.map(|port| json!(port)).collect(),
        }
    }
}

/// Everything that the containers depend on.
pub(super) struct Context<'a> {
    pub(super) config: &'a InjectConfig,
    pub(super) options: &'a PodOptions,
    pub(super) namespace: &'a str,
    pub(super) workload: &'a Workload,
}

impl Context<'_> {
    fn image(&self) -> String {
        self.options
            .image
            .clone()
            .unwrap_or_else(|| self.config.image(self.options.data_plane))
    }

    fn container(&self, name: &str) -> Container {
        Container {
            name: name.to_owned(),
            image: Some(self.image()),
            image_pull_policy: Some(self.config.images.pull_policy.as_str().to_owned()),
            ..Container::default()
        }
    }

    /// Programs the redirection in the pod's network and ends. The flags are those of `istio-iptables`.
    pub(super) fn init(&self) -> Container {
        let capture = &self.options.capture;
        let mut excluded = vec![PROMETHEUS_PORT.to_string(), HEALTH_PORT.to_string()];
        if self.options.status_port != 0 {
            excluded.push(self.options.status_port.to_string());
        }
        excluded.extend(list(&capture.exclude_inbound_ports));
        let mut args = vec![
            "redirect",
            "-p",
            OUTBOUND_PORT,
            "-z",
            INBOUND_PORT,
            "-u",
            "1337",
            "-m",
            capture.interception_mode.as_str(),
            "-i",
            &capture.include_outbound_ip_ranges,
            "-x",
            &capture.exclude_outbound_ip_ranges,
            "-b",
            &capture.include_inbound_ports,
        ]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
        args.extend(["-d".to_owned(), excluded.join(",")]);
        let optional = [
            ("-q", &capture.include_outbound_ports),
            ("-o", &capture.exclude_outbound_ports),
            ("-k", &self.options.virtual_interfaces),
            ("-c", &self.options.excluded_interfaces),
        ];
        for (flag, value) in optional {
            if !value.is_empty() {
                args.extend([flag.to_owned(), value.clone()]);
            }
        }
        let capabilities = Capabilities {
            add: Some(vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()]),
            drop: Some(vec!["ALL".to_owned()]),
        };
        Container {
            args: Some(args),
            resources: Some(
                self.config
                    .init_resources
                    .clone()
                    .unwrap_or_else(|| self.options.resources.clone()),
            ),
            security_context: Some(security(0, 0, capabilities)),
            ..self.container(INIT)
        }
    }

    /// The sidecar.
    pub(super) fn sidecar(&self, facts: &AppFacts, probers: &Probers, scrape: Option<String>) -> Container {
        let options = self.options;
        let args = [
            "proxy".to_owned(),
            "sidecar".to_owned(),
            "--domain".to_owned(),
            format!("$(POD_NAMESPACE).svc.{}", self.config.cluster_domain),
            format!("--proxyLogLevel={}", options.log_level),
            format!("--proxyComponentLogLevel={}", options.component_log_level),
            "--log_output_level=default:info".to_owned(),
        ];
        let capabilities = Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        };
        let healthy = options.status_port != 0;
        Container {
            args: Some(args.into()),
            env: Some(self.env(facts, probers, scrape)),
            ports: Some(vec![ContainerPort {
                name: Some("http-envoy-prom".to_owned()),
                container_port: PROMETHEUS_PORT,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]),
            readiness_probe: healthy.then(|| {
                let start = Some(options.readiness_initial_delay).filter(|seconds| *seconds != 0);
                probe(start, options.readiness_period, options.readiness_failures)
            }),
            // Ten minutes: until then the application waits (native sidecar), afterwards the pod says why it does not run.
            startup_probe: healthy.then(|| probe(None, 1, 600)),
            lifecycle: (healthy && options.native_sidecar).then(|| self.drain_hook()),
            restart_policy: options.native_sidecar.then(|| "Always".to_owned()),
            resources: Some(options.resources.clone()),
            security_context: Some(security(PROXY_UID, PROXY_UID, capabilities)),
            volume_mounts: Some(
                volume::mounts()
                    .into_iter()
                    .chain(options.volume_mounts.iter().cloned())
                    .collect(),
            ),
            ..self.container(SIDECAR)
        }
    }

    /// Inbound connections are told to end while the application still runs; the sidecar itself ends after it. The agent
    /// takes that order by POST from inside the pod only, which a hook of kind httpGet cannot send.
    fn drain_hook(&self) -> Lifecycle {
        let mut command: Vec<String> = ["/usr/local/bin/mizzen-proxy", "request", "POST", "drain"]
            .map(str::to_owned)
            .into();
        if self.options.status_port != AGENT_PORT {
            command.push(format!("--debug-port={}", self.options.status_port));
        }
        let exec = ExecAction { command: Some(command) };
        Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(exec),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }
    }

    fn env(&self, facts: &AppFacts, probers: &Probers, scrape: Option<String>) -> Vec<EnvVar> {
        let Self {
            config,
            options,
            namespace,
            workload,
        } = self;
        let mut env = vec![
            text("PILOT_CERT_PROVIDER", "istiod"),
            text("CA_ADDR", &config.ca_address()),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("HOST_IP", "status.hostIP"),
        ];
        // Without a limit the downward API would give the node's CPUs, and the sidecar would start as many workers.
        if options
            .resources
            .limits
            .as_ref()
            .is_some_and(|limits| limits.contains_key("cpu"))
        {
            env.push(EnvVar {
                name: "ISTIO_CPU_LIMIT".to_owned(),
                value_from: Some(EnvVarSource {
                    resource_field_ref: Some(ResourceFieldSelector {
                        resource: "limits.cpu".to_owned(),
                        ..ResourceFieldSelector::default()
                    }),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            });
        }
        env.extend([
            text("PROXY_CONFIG", &self.proxy_config().to_string()),
            text("ISTIO_META_POD_PORTS", &Value::from(facts.ports.clone()).to_string()),
            text("ISTIO_META_APP_CONTAINERS", &facts.names.join(",")),
            text("ISTIO_META_CLUSTER_ID", &config.cluster_id),
            field("ISTIO_META_NODE_NAME", "spec.nodeName"),
            text(
                "ISTIO_META_INTERCEPTION_MODE",
                options.capture.interception_mode.as_str(),
            ),
            text("ISTIO_META_WORKLOAD_NAME", &workload.name),
            text("ISTIO_META_OWNER", &workload.owner_uri(namespace)),
            text("ISTIO_META_MESH_ID", config.trust_domain.as_str()),
            text("TRUST_DOMAIN", config.trust_domain.as_str()),
            text("MIZZEN_DATA_PLANE", options.data_plane.as_str()),
            text("MINIMUM_DRAIN_DURATION", &options.drain),
        ]);
        if let Some(network) = &config.network {
            env.push(text("ISTIO_META_NETWORK", network));
        }
        if let Some(ttl) = &config.certificate_ttl {
            env.push(text("SECRET_TTL", ttl));
        }
        if !probers.is_empty() {
            env.push(text("ISTIO_KUBE_APP_PROBERS", &json!(probers).to_string()));
        }
        if let Some(scrape) = scrape {
            env.push(text("ISTIO_PROMETHEUS_ANNOTATIONS", &scrape));
        }
        for (name, value) in &options.env {
            match env.iter_mut().find(|there| there.name == *name) {
                Some(there) => *there = text(name, value),
                None => env.push(text(name, value)),
            }
        }
        env
    }

    /// Istio's ProxyConfig as JSON: what differs from its defaults.
    fn proxy_config(&self) -> Value {
        let options = self.options;
        let mut fields = Map::new();
        fields.insert("discoveryAddress".to_owned(), json!(options.discovery_address));
        fields.insert("terminationDrainDuration".to_owned(), json!(options.drain));
        fields.insert("statusPort".to_owned(), json!(options.status_port));
        if let Some(concurrency) = options.concurrency {
            fields.insert("concurrency".to_owned(), json!(concurrency));
        }
        if !options.env.is_empty() {
            fields.insert("proxyMetadata".to_owned(), json!(options.env));
        }
        Value::Object(fields)
    }
}

fn list(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
}

fn text(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn probe(initial_delay: Option<i32>, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz/ready".to_owned()),
            port: IntOrString::Int(HEALTH_PORT),
            ..HTTPGetAction::default()
        }),
        initial_delay_seconds: initial_delay,
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

fn security(user: i64, group: i64, capabilities: Capabilities) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(capabilities),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(group),
        run_as_non_root: Some(user != 0),
        run_as_user: Some(user),
        ..SecurityContext::default()
    }
}
