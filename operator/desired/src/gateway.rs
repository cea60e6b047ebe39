//! Gateways into the mesh: a proxy of its own behind a Service.

use crate::pod::{self, env, env_from_pod, port, texts};
use crate::{Component, ValidatedMesh, istiod, labels};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, EnvVar,
    HTTPGetAction, ObjectFieldSelector, PodSpec, Probe, ProjectedVolumeSource, Service, ServiceAccount,
    ServiceAccountTokenProjection, ServicePort, ServiceSpec, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mizzen_crds::maistra::{ComponentRuntimeConfig, ContainerConfig, GatewayConfig};
use std::collections::BTreeMap;

const COMPONENT: Component = Component::IstioIngress;

/// A gateway that should exist.
pub(crate) struct Gateway {
    name: String,
    config: GatewayConfig,
}

/// The gateways that are switched on: the default one first, then by name.
pub(crate) fn gateways(mesh: &ValidatedMesh) -> Vec<Gateway> {
    let Some(config) = mesh.spec().gateways.as_ref().filter(|g| g.enabled != Some(false)) else {
        return Vec::new();
    };
    let default = config
        .ingress
        .iter()
        .map(|g| ("istio-ingressgateway".to_owned(), &g.gateway));
    let more = config
        .additional_ingress
        .iter()
        .flatten()
        .map(|(name, g)| (name.clone(), &g.gateway));
    default
        .chain(more)
        // A gateway that is written down is meant to be there.
        .filter(|(_, gateway)| gateway.enabled != Some(false))
        .map(|(name, config)| Gateway {
            name,
            config: config.clone(),
        })
        .collect()
}

impl Gateway {
    /// What Gateway objects select by, which the user may add to or change.
    fn own_labels(&self) -> BTreeMap<String, String> {
        let short = self.name.strip_prefix("istio-").unwrap_or(&self.name);
        let mut own = texts([("app", &self.name), ("istio", short)]);
        let metadata = self.config.service.as_ref().and_then(|s| s.metadata.as_ref());
        own.extend(metadata.and_then(|m| m.labels.clone()).unwrap_or_default());
        own
    }

    fn runtime(&self) -> ComponentRuntimeConfig {
        self.config.runtime.clone().unwrap_or_default()
    }

    fn replicas(&self) -> i32 {
        self.runtime().deployment.and_then(|d| d.replicas).unwrap_or(1)
    }
}

pub(crate) fn service_account(mesh: &ValidatedMesh, gateway: &Gateway) -> ServiceAccount {
    ServiceAccount {
        metadata: pod::labelled(mesh, COMPONENT, &gateway.name, &gateway.own_labels()),
        ..ServiceAccount::default()
    }
}

pub(crate) fn disruption_budget(mesh: &ValidatedMesh, gateway: &Gateway) -> Option<PodDisruptionBudget> {
    pod::disruption_budget(
        mesh,
        COMPONENT,
        &gateway.name,
        &gateway.own_labels(),
        gateway.replicas(),
    )
}

/// As the spec says; three ports where it names none.
pub(crate) fn service(mesh: &ValidatedMesh, gateway: &Gateway) -> Service {
    let config = gateway.config.service.clone().unwrap_or_default();
    let mut metadata = pod::labelled(mesh, COMPONENT, &gateway.name, &gateway.own_labels());
    metadata.annotations = config.metadata.and_then(|m| m.annotations);
    let ports = config
        .spec
        .ports
        .clone()
        .filter(|ports| !ports.is_empty())
        .unwrap_or_else(default_ports);
    let ports = ports.into_iter().map(|port| ServicePort {
        protocol: port.protocol.or_else(|| Some("TCP".to_owned())),
        ..port
    });
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: config.spec.type_.clone().or_else(|| Some("NodePort".to_owned())),
            ports: Some(ports.collect()),
            selector: Some(gateway.own_labels()),
            ..config.spec
        }),
        status: None,
    }
}

/// Ports below 1024 lead to ports that a process without rights may listen on.
fn default_ports() -> Vec<ServicePort> {
    [("status-port", 15021, 15021), ("http2", 80, 8080), ("https", 443, 8443)]
        .map(|(name, port, target)| ServicePort {
            name: Some(name.to_owned()),
            port,
            target_port: Some(IntOrString::Int(target)),
            protocol: Some("TCP".to_owned()),
            ..ServicePort::default()
        })
        .into()
}

pub(crate) fn deployment(mesh: &ValidatedMesh, gateway: &Gateway) -> Deployment {
    let runtime = gateway.runtime();
    let pods = runtime.pod.unwrap_or_default();
    let config = runtime.container.unwrap_or_default();
    let own = gateway.own_labels();
    let mut pod_labels = pod::pod_labels(mesh.key(), &own, &pods);
    pod_labels.extend(texts([
        (labels::REVISION, &mesh.key().name),
        // It is a proxy already.
        (labels::INJECT, "false"),
        ("service.istio.io/canonical-name", &gateway.name),
        ("service.istio.io/canonical-revision", "latest"),
    ]));
    let mut annotations = texts([
        (labels::REVISION, &mesh.key().name),
        ("prometheus.io/path", "/stats/prometheus"),
        ("prometheus.io/port", "15020"),
        ("prometheus.io/scrape", "true"),
    ]);
    annotations.extend(
        pods.metadata
            .iter()
            .flat_map(|m| m.annotations.clone().unwrap_or_default()),
    );
    let spec = PodSpec {
        service_account_name: Some(gateway.name.clone()),
        // The projected token is the only one it needs.
        automount_service_account_token: Some(false),
        volumes: Some(volumes(&gateway.config)),
        ..pod::pod(
            mesh,
            &pods,
            &own,
            gateway.replicas(),
            container(mesh, gateway, &config),
            &config,
        )
    };
    Deployment {
        metadata: pod::labelled(mesh, COMPONENT, &gateway.name, &own),
        spec: Some(DeploymentSpec {
            replicas: Some(gateway.replicas()),
            selector: pod::selector(&own),
            strategy: Some(
                runtime
                    .deployment
                    .and_then(|d| d.strategy)
                    .unwrap_or_else(istiod::no_gap),
            ),
            template: pod::template(pod_labels, annotations, spec),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn container(mesh: &ValidatedMesh, gateway: &Gateway, config: &ContainerConfig) -> Container {
    let domain = format!("$(POD_NAMESPACE).svc.{}", mesh.cluster_domain());
    let health = || HTTPGetAction {
        path: Some("/healthz/ready".to_owned()),
        port: IntOrString::Int(15021),
        scheme: Some("HTTP".to_owned()),
        ..HTTPGetAction::default()
    };
    Container {
        name: "istio-proxy".to_owned(),
        image: Some(mesh.image(mesh.data_plane().image_name(), config)),
        args: Some(["proxy", "router", "--domain", &domain].map(str::to_owned).into()),
        env: Some(environment(mesh, gateway)),
        ports: Some(vec![
            port("http2", 8080),
            port("https", 8443),
            port("status-port", 15021),
            port("http-envoy-prom", 15090),
        ]),
        startup_probe: Some(Probe {
            http_get: Some(health()),
            failure_threshold: Some(30),
            period_seconds: Some(1),
            timeout_seconds: Some(3),
            ..Probe::default()
        }),
        readiness_probe: Some(Probe {
            http_get: Some(health()),
            failure_threshold: Some(4),
            period_seconds: Some(5),
            timeout_seconds: Some(3),
            ..Probe::default()
        }),
        volume_mounts: Some(mounts(&gateway.config)),
        ..Container::default()
    }
}

/// What a proxy must know to find and to prove itself.
fn environment(mesh: &ValidatedMesh, gateway: &Gateway) -> Vec<EnvVar> {
    let key = mesh.key();
    let address = format!("{}.{}.svc:15012", mesh.istiod(), key.namespace);
    let owner = format!(
        "kubernetes://apis/apps/v1/namespaces/{}/deployments/{}",
        key.namespace, gateway.name
    );
    let mut variables = vec![
        env("PILOT_CERT_PROVIDER", "istiod"),
        env("CA_ADDR", &address),
        env_from_pod("POD_NAME", "metadata.name"),
        env_from_pod("POD_NAMESPACE", "metadata.namespace"),
        env_from_pod("INSTANCE_IP", "status.podIP"),
        env_from_pod("HOST_IP", "status.hostIP"),
        env_from_pod("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        env("PROXY_CONFIG", format!("{{\"discoveryAddress\":\"{address}\"}}")),
        env("TRUST_DOMAIN", mesh.trust_domain()),
        env_from_pod("ISTIO_META_NODE_NAME", "spec.nodeName"),
        env("ISTIO_META_CLUSTER_ID", mesh.cluster_id()),
        env("ISTIO_META_INTERCEPTION_MODE", "NONE"),
        env("ISTIO_META_WORKLOAD_NAME", &gateway.name),
        env("ISTIO_META_OWNER", owner),
        env("ISTIO_META_MESH_ID", mesh.trust_domain()),
        env("MIZZEN_DATA_PLANE", mesh.data_plane().as_str()),
    ];
    if let Some(network) = mesh.spec().cluster.as_ref().and_then(|c| c.network.as_ref()) {
        variables.push(env("ISTIO_META_NETWORK", network));
    }
    if let Some(mode) = gateway.config.router_mode {
        let mode = match mode {
            mizzen_crds::maistra::RouterMode::SniDnat => "sni-dnat",
            mizzen_crds::maistra::RouterMode::Standard => "standard",
        };
        variables.push(env("ISTIO_META_ROUTER_MODE", mode));
    }
    variables
}

/// Name and path of what every proxy has, and whether it may write there.
const MOUNTS: [(&str, &str); 6] = [
    ("istiod-ca-cert", "/var/run/secrets/istio"),
    ("istio-token", "/var/run/secrets/tokens"),
    ("istio-podinfo", "/etc/istio/pod"),
    ("istio-envoy", "/etc/istio/proxy"),
    ("istio-data", "/var/lib/istio/data"),
    ("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
];

fn mounts(config: &GatewayConfig) -> Vec<VolumeMount> {
    let own = MOUNTS.map(|(name, path)| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    });
    let more = config.volumes.iter().flatten().filter_map(|v| v.volume_mount.clone());
    own.into_iter().chain(more).collect()
}

fn volumes(config: &GatewayConfig) -> Vec<Volume> {
    let empty = |name: &str, medium: Option<&str>| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            size_limit: None,
        }),
        ..Volume::default()
    };
    let token = ServiceAccountTokenProjection {
        audience: Some("istio-ca".to_owned()),
        expiration_seconds: Some(43_200),
        path: "istio-token".to_owned(),
    };
    let pod_info = ["labels", "annotations"].map(|what| DownwardAPIVolumeFile {
        path: what.to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: format!("metadata.{what}"),
        }),
        ..DownwardAPIVolumeFile::default()
    });
    let own = [
        Volume {
            name: "istiod-ca-cert".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: "istio-ca-root-cert".to_owned(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "istio-token".to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![VolumeProjection {
                    service_account_token: Some(token),
                    ..VolumeProjection::default()
                }]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "istio-podinfo".to_owned(),
            downward_api: Some(DownwardAPIVolumeSource {
                items: Some(pod_info.into()),
                ..DownwardAPIVolumeSource::default()
            }),
            ..Volume::default()
        },
        empty("istio-envoy", Some("Memory")),
        empty("istio-data", None),
        empty("workload-socket", None),
    ];
    let more = config.volumes.iter().flatten().filter_map(|v| {
        let (mount, source) = (v.volume_mount.as_ref()?, v.volume.as_ref()?);
        Some(Volume {
            name: mount.name.clone(),
            config_map: source.config_map.clone(),
            secret: source.secret.clone(),
            ..Volume::default()
        })
    });
    own.into_iter().chain(more).collect()
}
