//! Endpoints and EndpointSlices of a Service. In: a Service and the pods its selector takes, or the Endpoints that somebody keeps
//! for a Service without a selector. Out: slices of up to 100 endpoints per address family and set of ports, and the Endpoints.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{
            EndpointAddress, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort, ServiceSpec,
        },
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use serde_json::json;

use crate::{
    plan::{Kind, Plan, Write, controller_reference, put},
    pods::{self, Map, is_finished, is_ready, name, text},
    queue::Key,
    work::Turn,
    world::World,
};

/// Label: who keeps a slice.
pub(crate) const SLICE_KEEPER: &str = "endpointslice.kubernetes.io/managed-by";
/// Label: who keeps an Endpoints object.
pub(crate) const KEEPER: &str = "endpoints.kubernetes.io/managed-by";
/// Label: whose slice it is.
pub(crate) const SERVICE: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OURS: &str = "endpointslice-controller.k8s.io";
const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
/// Endpoints in a slice.
const SLICE: usize = 100;

/// Ports as they are compared: the pods of a Service may have different ones under the same name.
type Ports = Vec<(String, String, i32, Option<String>)>;
/// What the slices of a Service are to hold.
type Groups = BTreeMap<(&'static str, Ports), Vec<Endpoint>>;

/// One look at one Service.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let world = turn.world;
    let endpoints = world.endpoints.get(turn.key);
    let Some(service) = world
        .services
        .get(turn.key)
        .filter(|s| s.metadata.deletion_timestamp.is_none())
    else {
        endpoints
            .iter()
            .for_each(|endpoints| plan.push(Write::delete(&**endpoints)));
        return plan;
    };
    let Some(spec) = service
        .spec
        .as_ref()
        .filter(|spec| spec.type_.as_deref() != Some("ExternalName"))
    else {
        return plan;
    };
    let Some(selector) = spec.selector.clone().filter(|selector| !selector.is_empty()) else {
        if let Some(endpoints) = endpoints {
            mirror(world, &endpoints, &mut plan);
        }
        return plan;
    };
    let selector = LabelSelector {
        match_labels: Some(selector),
        match_expressions: None,
    };
    let mut pods = world.pods.list(&turn.key.namespace);
    pods.retain(|pod| pods::selects(&selector, &pod.metadata.labels) && !is_finished(pod) && !ips(pod).is_empty());
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }

    let families = spec.ip_families.clone().unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let mut groups = Groups::new();
    for family in &families {
        let family = if family == "IPv6" { "IPv6" } else { "IPv4" };
        for pod in &pods {
            if let Some(endpoint) = endpoint(world, &service, spec, pod, family) {
                groups.entry((family, ports(spec, pod))).or_default().push(endpoint);
            }
        }
        if !groups.keys().any(|(known, _)| *known == family) {
            groups.insert((family, Ports::new()), Vec::new());
        }
    }
    slices(world, &*service, OURS, &labels, groups, &mut plan);
    labels.insert(KEEPER.to_owned(), "endpoint-controller".to_owned());
    let first = families.first().map_or("IPv4", String::as_str);
    legacy(&service, spec, &pods, first, labels, endpoints, &mut plan);
    plan
}

fn ips(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<IpAddr> = status
        .pod_ips
        .iter()
        .flatten()
        .filter_map(|ip| ip.ip.parse().ok())
        .collect();
    if all.is_empty() {
        status.pod_ip.iter().filter_map(|ip| ip.parse().ok()).collect()
    } else {
        all
    }
}

fn ip(pod: &Pod, family: &str) -> Option<String> {
    ips(pod)
        .into_iter()
        .find(|ip| ip.is_ipv4() == (family == "IPv4"))
        .map(|ip| ip.to_string())
}

/// The number of a Service's port at a pod; a name is looked up among the pod's container ports.
fn port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let wanted = match &port.target_port {
        Some(IntOrString::String(wanted)) => wanted,
        Some(IntOrString::Int(number)) if *number != 0 => return Some(*number),
        _ => return Some(port.port),
    };
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .find_map(|known| {
            let same = known.name.as_ref() == Some(wanted) && known.protocol.as_deref().unwrap_or("TCP") == protocol;
            same.then_some(known.container_port)
        })
}

fn ports(spec: &ServiceSpec, pod: &Pod) -> Ports {
    let all = spec.ports.iter().flatten().filter_map(|known| {
        let protocol = known.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((
            known.name.clone().unwrap_or_default(),
            protocol,
            port(known, pod)?,
            known.app_protocol.clone(),
        ))
    });
    all.collect()
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The host name that a headless Service gives a pod.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    spec.hostname
        .clone()
        .filter(|host| !host.is_empty() && spec.subdomain.as_deref() == Some(name(service)))
}

fn endpoint(world: &World, service: &Service, spec: &ServiceSpec, pod: &Pod, family: &str) -> Option<Endpoint> {
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let node = node_name.as_ref().and_then(|node| world.nodes.get(&Key::new("", node)));
    let zone = node.map(|node| text(&node.metadata.labels, "topology.kubernetes.io/zone").to_owned());
    Some(Endpoint {
        addresses: vec![ip(pod, family)?],
        conditions: Some(EndpointConditions {
            ready: Some(spec.publish_not_ready_addresses == Some(true) || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name,
        target_ref: Some(reference(pod)),
        zone: zone.filter(|zone| !zone.is_empty()),
        ..Endpoint::default()
    })
}

/// Brings the slices that `keeper` keeps for `owner` to what they are to hold.
fn slices<O: Kind>(world: &World, owner: &O, keeper: &str, labels: &Map, groups: Groups, plan: &mut Plan) {
    let service = name(owner);
    let namespace = owner.metadata().namespace.clone().unwrap_or_default();
    let mut labels = labels.clone();
    labels.insert(SERVICE.to_owned(), service.to_owned());
    labels.insert(SLICE_KEEPER.to_owned(), keeper.to_owned());
    let mut known = world.endpoint_slices.list(&namespace);
    known.retain(|slice| {
        let has = |label, value| text(&slice.metadata.labels, label) == value;
        has(SERVICE, service) && has(SLICE_KEEPER, keeper) && slice.metadata.deletion_timestamp.is_none()
    });
    for ((family, ports), endpoints) in groups {
        let ports: Vec<_> = ports
            .into_iter()
            .map(|(name, protocol, port, app_protocol)| EndpointPort {
                name: Some(name),
                protocol: Some(protocol),
                port: Some(port),
                app_protocol,
            })
            .collect();
        let chunks: Vec<_> = if endpoints.is_empty() {
            vec![&[][..]]
        } else {
            endpoints.chunks(SLICE).collect()
        };
        for chunk in chunks {
            let fits = |slice: &Arc<EndpointSlice>| slice.address_type == family;
            let same_ports = |slice: &Arc<EndpointSlice>| slice.ports.as_deref().unwrap_or_default() == ports;
            let index = known
                .iter()
                .position(|slice| fits(slice) && same_ports(slice))
                .or(known.iter().position(fits));
            let body = json!({
                "metadata": {"labels": labels}, "endpoints": chunk, "ports": ports, "addressType": family,
            });
            match index.map(|index| known.remove(index)) {
                Some(slice) => {
                    let same = slice.endpoints == chunk
                        && same_ports(&slice)
                        && slice.metadata.labels.as_ref() == Some(&labels);
                    if !same {
                        plan.push(Write::patch(&*slice, body));
                    }
                }
                None => {
                    let mut body = body;
                    put(&mut body, &["metadata", "generateName"], json!(format!("{service}-")));
                    put(
                        &mut body,
                        &["metadata", "ownerReferences"],
                        json!([controller_reference(owner)]),
                    );
                    plan.push(Write::create::<EndpointSlice>(&namespace, body));
                }
            }
        }
    }
    known.iter().for_each(|slice| plan.push(Write::delete(&**slice)));
}

/// The Endpoints of a Service, for those who do not know slices.
fn legacy(
    service: &Service,
    spec: &ServiceSpec,
    pods: &[Arc<Pod>],
    family: &str,
    labels: Map,
    known: Option<Arc<Endpoints>>,
    plan: &mut Plan,
) {
    let all = spec.publish_not_ready_addresses == Some(true);
    let mut groups: BTreeMap<Ports, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for pod in pods
        .iter()
        .filter(|pod| all || pod.metadata.deletion_timestamp.is_none())
    {
        let Some(ip) = ip(pod, family) else { continue };
        let ports = ports(spec, pod);
        if ports.is_empty() && spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
            continue;
        }
        let address = EndpointAddress {
            ip,
            hostname: hostname(service, pod),
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(reference(pod)),
        };
        let (ready, unready) = groups.entry(ports).or_default();
        if all || is_ready(pod) {
            ready.push(address);
        } else {
            unready.push(address);
        }
    }
    let some = |mut list: Vec<EndpointAddress>| {
        list.sort_by(|a, b| a.ip.cmp(&b.ip));
        Some(list).filter(|list| !list.is_empty())
    };
    let subsets: Vec<_> = groups
        .into_iter()
        .map(|(ports, (ready, unready))| {
            let port = |(name, protocol, port, app_protocol): (String, String, i32, Option<String>)| {
                let name = Some(name).filter(|name| !name.is_empty());
                k8s_openapi::api::core::v1::EndpointPort {
                    name,
                    port,
                    protocol: Some(protocol),
                    app_protocol,
                }
            };
            EndpointSubset {
                addresses: some(ready),
                not_ready_addresses: some(unready),
                ports: Some(ports.into_iter().map(port).collect()).filter(|ports: &Vec<_>| !ports.is_empty()),
            }
        })
        .collect();
    let key = crate::cache::key(&service.metadata);
    match known {
        Some(known) => {
            let same = known.subsets.as_deref().unwrap_or_default() == subsets
                && known.metadata.labels.as_ref() == Some(&labels);
            if !same {
                plan.push(Write::patch(
                    &*known,
                    json!({"metadata": {"labels": labels}, "subsets": subsets}),
                ));
            }
        }
        None => {
            let body = json!({"metadata": {"name": key.name, "labels": labels}, "subsets": subsets});
            plan.push(Write::create::<Endpoints>(&key.namespace, body));
        }
    }
}

/// Slices for Endpoints that somebody else keeps.
fn mirror(world: &World, endpoints: &Endpoints, plan: &mut Plan) {
    let labels = &endpoints.metadata.labels;
    if text(labels, "endpointslice.kubernetes.io/skip-mirror") == "true" || !text(labels, KEEPER).is_empty() {
        return;
    }
    let mut groups = Groups::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Ports = subset
            .ports
            .iter()
            .flatten()
            .map(|p| {
                let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                (
                    p.name.clone().unwrap_or_default(),
                    protocol,
                    p.port,
                    p.app_protocol.clone(),
                )
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        for (address, ready) in ready.chain(
            subset
                .not_ready_addresses
                .iter()
                .flatten()
                .map(|address| (address, false)),
        ) {
            let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            groups.entry((family, ports.clone())).or_default().push(Endpoint {
                addresses: vec![address.ip.clone()],
                conditions: Some(EndpointConditions {
                    ready: Some(ready),
                    ..EndpointConditions::default()
                }),
                hostname: address.hostname.clone(),
                node_name: address.node_name.clone(),
                target_ref: address.target_ref.clone(),
                ..Endpoint::default()
            });
        }
    }
    slices(
        world,
        endpoints,
        MIRROR,
        &labels.clone().unwrap_or_default(),
        groups,
        plan,
    );
}

#[cfg(test)]
mod tests;
