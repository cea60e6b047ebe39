//! The control plane: one Deployment that serves discovery, certificates, injection and validation.

use crate::pod::{self, env, env_from_pod, meta, port, texts};
use crate::{Component, ValidatedMesh, labels};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Container, HTTPGetAction, PodSpec, Probe, Service, ServiceAccount, ServicePort, ServiceSpec,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

const COMPONENT: Component = Component::IstioDiscovery;

/// How long a request for configuration may take to end before the process is killed.
const TERMINATION_SECONDS: i64 = 30;

fn own_labels(mesh: &ValidatedMesh) -> BTreeMap<String, String> {
    texts([("app", "istiod"), (labels::REVISION, &mesh.key().name)])
}

pub(crate) fn service_account(mesh: &ValidatedMesh) -> ServiceAccount {
    ServiceAccount {
        metadata: meta(mesh, COMPONENT, &mesh.istiod()),
        ..ServiceAccount::default()
    }
}

/// How many replicas the control plane has.
fn replicas(mesh: &ValidatedMesh) -> i32 {
    mesh.pilot().deployment.and_then(|d| d.replicas).unwrap_or(1)
}

pub(crate) fn disruption_budget(mesh: &ValidatedMesh) -> Option<PodDisruptionBudget> {
    pod::disruption_budget(mesh, COMPONENT, &mesh.istiod(), &own_labels(mesh), replicas(mesh))
}

pub(crate) fn service(mesh: &ValidatedMesh) -> Service {
    // 15010 is not here: plain text is only ever served on the pod's own loopback.
    let ports = [
        ("https-dns", 15012, 15012),
        ("https-webhook", 443, 15017),
        ("http-monitoring", 15014, 15014),
    ];
    let ports = ports.map(|(name, port, target)| ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(target)),
        ..ServicePort::default()
    });
    Service {
        metadata: pod::labelled(mesh, COMPONENT, &mesh.istiod(), &own_labels(mesh)),
        spec: Some(ServiceSpec {
            ports: Some(ports.into()),
            selector: Some(own_labels(mesh)),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

pub(crate) fn deployment(mesh: &ValidatedMesh) -> Deployment {
    let pilot = mesh.pilot();
    let runtime = pilot.pod.unwrap_or_default();
    let config = pilot.container.unwrap_or_default();
    let own = own_labels(mesh);
    let mut pod_labels = pod::pod_labels(mesh.key(), &own, &runtime);
    // The injector answers for the mesh's namespace too; its own pods are never sent to it.
    pod_labels.insert(labels::INJECT.to_owned(), "false".to_owned());
    let mut annotations = texts([("prometheus.io/port", "15014"), ("prometheus.io/scrape", "true")]);
    annotations.extend(
        runtime
            .metadata
            .iter()
            .flat_map(|m| m.annotations.clone().unwrap_or_default()),
    );
    let container = container(mesh, &config);
    let spec = PodSpec {
        service_account_name: Some(mesh.istiod()),
        termination_grace_period_seconds: Some(TERMINATION_SECONDS),
        ..pod::pod(mesh, &runtime, &own, replicas(mesh), container, &config)
    };
    Deployment {
        metadata: pod::labelled(mesh, COMPONENT, &mesh.istiod(), &own),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas(mesh)),
            selector: pod::selector(&own),
            strategy: Some(pilot.deployment.and_then(|d| d.strategy).unwrap_or_else(no_gap)),
            template: pod::template(pod_labels, annotations, spec),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn container(mesh: &ValidatedMesh, config: &mizzen_crds::maistra::ContainerConfig) -> Container {
    let key = mesh.key();
    let logging = mesh.spec().general.as_ref().and_then(|g| g.logging.as_ref());
    let level = logging
        .and_then(|l| l.component_levels.as_ref())
        .and_then(|l| l.get("default"));
    let mut variables = vec![
        env_from_pod("POD_NAME", "metadata.name"),
        env_from_pod("POD_NAMESPACE", "metadata.namespace"),
        env("REVISION", &key.name),
        env("RUST_LOG", level.map_or("info", |level| log_level(level))),
    ];
    if logging.and_then(|l| l.log_as_json) == Some(true) {
        variables.push(env("MIZZEN_LOG_FORMAT", "json"));
    }
    let authority = mesh
        .spec()
        .security
        .as_ref()
        .and_then(|s| s.certificate_authority.as_ref());
    let istiod = authority.and_then(|c| c.istiod.as_ref());
    for (name, ttl) in [
        (
            "DEFAULT_WORKLOAD_CERT_TTL",
            istiod.and_then(|i| i.workload_cert_ttl_default.as_ref()),
        ),
        (
            "MAX_WORKLOAD_CERT_TTL",
            istiod.and_then(|i| i.workload_cert_ttl_max.as_ref()),
        ),
    ] {
        // One number and one unit, whatever was written.
        let seconds = ttl.and_then(|ttl| crate::checks::duration(ttl).ok());
        variables.extend(seconds.map(|seconds| env(name, format!("{seconds}s"))));
    }
    Container {
        name: "discovery".to_owned(),
        image: Some(mesh.image("mizzen", config)),
        args: Some(
            ["discovery", "--revision", &key.name, "--namespace", &key.namespace]
                .map(str::to_owned)
                .into(),
        ),
        env: Some(variables),
        ports: Some(vec![
            port("http-debug", 8080),
            port("grpc-tls", 15012),
            port("http-monitoring", 15014),
            port("https-webhooks", 15017),
        ]),
        readiness_probe: Some(Probe {
            initial_delay_seconds: Some(1),
            period_seconds: Some(3),
            ..ready()
        }),
        // Only a process that does not answer at all is restarted: one that waits for the API server is not helped by it.
        liveness_probe: Some(Probe {
            tcp_socket: Some(k8s_openapi::api::core::v1::TCPSocketAction {
                port: IntOrString::Int(8080),
                ..Default::default()
            }),
            initial_delay_seconds: Some(10),
            period_seconds: Some(10),
            failure_threshold: Some(6),
            ..Probe::default()
        }),
        ..Container::default()
    }
}

fn ready() -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/ready".to_owned()),
            port: IntOrString::Int(8080),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

/// Istio's level names, in this program's words.
fn log_level(level: &str) -> &str {
    match level {
        "none" | "off" => "off",
        "fatal" => "error",
        known @ ("error" | "warn" | "info" | "debug" | "trace") => known,
        _ => "info",
    }
}

/// A new pod is there before an old one goes.
pub(crate) fn no_gap() -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}
