//! Pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use mizzen_model::{
    EndpointTls, Kind, Labels, Locality, Namespace, ObjectKey, ObjectName, PortName, Service, ServiceAccount,
    TargetPort, Workload, WorkloadName, WorkloadService,
};

use super::{labels, port};

/// The container that is the sidecar, or the gateway.
const PROXY: &str = "istio-proxy";
/// What it is told in order to be a gateway.
const ROUTER: &str = "router";
/// Says whether a pod takes the mesh's mutual TLS: `istio` or `disabled`.
const TLS_MODE: &str = "security.istio.io/tlsMode";

/// What is known of a pod by itself; where it runs and which services it is behind is added when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Arc<str>,
    pub(crate) gateway: bool,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) labels: Labels,
    pub(crate) service_account: ServiceAccount,
    pub(crate) node: Option<String>,
    /// The locality that the pod itself claims.
    pub(crate) locality: Option<Locality>,
    pub(crate) ports: BTreeMap<u16, Option<PortName>>,
    pub(crate) tls: EndpointTls,
    pub(crate) workload: Option<WorkloadName>,
    pub(crate) canonical_name: Arc<str>,
    pub(crate) canonical_revision: Arc<str>,
}

/// None for a pod that has finished.
pub(crate) fn pod(raw: &core::Pod, namespace: &Namespace, name: &ObjectName) -> Option<Pod> {
    let spec = raw.spec.as_ref()?;
    let status = raw.status.as_ref();
    if matches!(
        status.and_then(|status| status.phase.as_deref()),
        Some("Succeeded" | "Failed")
    ) {
        return None;
    }
    let several = status
        .and_then(|status| status.pod_ips.as_ref())
        .into_iter()
        .flatten()
        .map(|ip| ip.ip.as_str());
    let single = status.and_then(|status| status.pod_ip.as_deref());
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in single.into_iter().chain(several).filter_map(|text| text.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let account = spec
        .service_account_name
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or("default");
    let labels = labels(raw.metadata.labels.as_ref());
    // Native sidecars are init containers that stay.
    let staying = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let containers: Vec<_> = spec.containers.iter().chain(staying).collect();
    let has_proxy = containers.iter().any(|container| container.name == PROXY);
    let tls = match labels.value(TLS_MODE) {
        Some("istio") => EndpointTls::Mesh,
        Some(_) => EndpointTls::Plain,
        None if has_proxy => EndpointTls::Mesh,
        None => EndpointTls::Plain,
    };
    let workload = workload_name(raw, name);
    let label = |keys: [&str; 3]| {
        keys.iter()
            .find_map(|key| labels.value(key).filter(|value| !value.is_empty()))
    };
    let canonical_name = label(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let canonical_name = canonical_name.or(workload.as_ref().map(WorkloadName::as_str));
    let canonical_revision = label([
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ]);
    Some(Pod {
        key: ObjectKey::new(Kind::Pod, namespace.clone(), name.clone()),
        uid: Arc::from(raw.metadata.uid.as_deref().unwrap_or_default()),
        gateway: containers.iter().all(|container| is_router(container)),
        addresses,
        service_account: ServiceAccount::new(account).ok()?,
        node: spec.node_name.clone(),
        locality: labels.value("istio-locality").map(locality),
        ports: declared_ports(&containers),
        tls,
        canonical_name: Arc::from(canonical_name.unwrap_or(name.as_str())),
        canonical_revision: Arc::from(canonical_revision.unwrap_or("latest")),
        workload,
        labels,
    })
}

/// Whether a container is a proxy that stands for itself: `proxy router`. Beside an application there is none.
fn is_router(container: &core::Container) -> bool {
    let arguments = container.command.iter().chain(&container.args).flatten();
    container.name == PROXY && arguments.into_iter().any(|argument| argument == ROUTER)
}

/// The application's ports: those of the sidecar are not, those of a gateway (which is nothing but the proxy) are.
fn declared_ports(containers: &[&core::Container]) -> BTreeMap<u16, Option<PortName>> {
    let alone = containers.iter().all(|container| container.name == PROXY);
    let mut ports = BTreeMap::new();
    for container in containers.iter().filter(|container| alone || container.name != PROXY) {
        for raw in container
            .ports
            .iter()
            .flatten()
            .filter(|raw| raw.protocol.as_deref().is_none_or(|p| p == "TCP"))
        {
            if let Some(number) = port(raw.container_port) {
                let name = raw.name.as_deref().and_then(|name| PortName::new(name).ok());
                ports.entry(number).or_insert(name);
            }
        }
    }
    ports
}

/// `region.zone.subzone`, as a label can have no `/`.
fn locality(text: &str) -> Locality {
    let separator = if text.contains('/') { '/' } else { '.' };
    let mut parts = text.splitn(3, separator).map(Arc::from);
    Locality {
        region: parts.next().unwrap_or_default(),
        zone: parts.next().unwrap_or_default(),
        subzone: parts.next().unwrap_or_default(),
    }
}

/// The name of what owns the pod: the Deployment rather than its ReplicaSet, the CronJob rather than its Job.
fn workload_name(raw: &core::Pod, name: &ObjectName) -> Option<WorkloadName> {
    let owners = raw.metadata.owner_references.iter().flatten();
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
    let Some(owner) = owner else {
        return WorkloadName::new(name.as_str()).ok();
    };
    let stem = match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = raw
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get("pod-template-hash"));
            hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
        }
        // A CronJob names its jobs after itself and the time, in minutes or seconds.
        "Job" => owner.name.rsplit_once('-').and_then(|(stem, time)| {
            let is_time = (8..=10).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit());
            is_time.then_some(stem)
        }),
        _ => None,
    };
    WorkloadName::new(stem.filter(|stem| !stem.is_empty()).unwrap_or(&owner.name)).ok()
}

impl Pod {
    /// The pod's own port that a service's port leads to.
    pub(crate) fn target(&self, target: &TargetPort) -> Option<u16> {
        match target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => self
                .ports
                .iter()
                .find(|(_, known)| known.as_ref() == Some(name))
                .map(|(n, _)| *n),
        }
    }

    /// The workload that it is, behind those of the services that select it.
    pub(crate) fn workload<'s>(
        &self,
        locality: Locality,
        services: impl Iterator<Item = &'s Arc<Service>>,
    ) -> Workload {
        let selecting = services.filter(|service| service.selector.as_ref().is_some_and(|s| s.selects(&self.labels)));
        let mut services: Vec<WorkloadService> = selecting
            .map(|service| {
                let carried = service.ports.iter().filter(|port| port.protocol.is_carried());
                let ports = carried.filter_map(|port| Some((port.number, self.target(&port.target)?)));
                WorkloadService {
                    host: service.host.clone(),
                    ports: ports.collect(),
                }
            })
            .collect();
        services.sort();
        Workload {
            key: self.key.clone(),
            uid: self.uid.clone(),
            gateway: self.gateway,
            addresses: self.addresses.clone(),
            labels: self.labels.clone(),
            service_account: self.service_account.clone(),
            ports: self.ports.clone(),
            locality,
            services,
            tls: self.tls,
            workload: self.workload.clone(),
            canonical_name: self.canonical_name.clone(),
            canonical_revision: self.canonical_revision.clone(),
        }
    }
}
