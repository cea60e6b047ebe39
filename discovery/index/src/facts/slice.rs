//! EndpointSlices.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as discovery;
use mizzen_model::{EndpointHealth, Namespace, ObjectName};

use super::{Place, port};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A part of a service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) service: Place,
    /// Names of the service's ports (empty for the only one), and the numbers at the endpoints.
    pub(crate) ports: Vec<(String, u16)>,
    pub(crate) endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) health: EndpointHealth,
    pub(crate) pod: Option<Place>,
    pub(crate) node: Option<String>,
    pub(crate) zone: Arc<str>,
}

/// None for a slice of no service, or one that lists host names.
pub(crate) fn slice(raw: &discovery::EndpointSlice, namespace: &Namespace) -> Option<Slice> {
    if raw.address_type == "FQDN" {
        return None;
    }
    let service = raw.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let service = (namespace.clone(), ObjectName::new(service).ok()?);
    let ports = raw
        .ports
        .iter()
        .flatten()
        .filter(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP"));
    let ports = ports.filter_map(|raw| Some((raw.name.clone().unwrap_or_default(), port(raw.port?)?)));
    let endpoints = raw.endpoints.iter().map(|raw| endpoint(raw, namespace));
    Some(Slice {
        service,
        ports: ports.collect(),
        endpoints: endpoints.collect(),
    })
}

fn endpoint(raw: &discovery::Endpoint, namespace: &Namespace) -> SliceEndpoint {
    let conditions = raw.conditions.as_ref();
    // Kubernetes: unknown is to be taken as ready; serving falls back to ready.
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let terminating = conditions
        .and_then(|conditions| conditions.terminating)
        .unwrap_or(false);
    let health = match (ready, serving && terminating) {
        (true, _) => EndpointHealth::Ready,
        (false, true) => EndpointHealth::Draining,
        (false, false) => EndpointHealth::NotReady,
    };
    let target = raw
        .target_ref
        .as_ref()
        .filter(|target| target.kind.as_deref() == Some("Pod"));
    let pod = target.and_then(|target| {
        let namespace = match &target.namespace {
            Some(text) => Namespace::new(text).ok()?,
            None => namespace.clone(),
        };
        Some((namespace, ObjectName::new(target.name.as_ref()?).ok()?))
    });
    SliceEndpoint {
        addresses: raw.addresses.iter().filter_map(|text| text.parse().ok()).collect(),
        health,
        pod,
        node: raw.node_name.clone(),
        zone: Arc::from(raw.zone.as_deref().unwrap_or_default()),
    }
}
