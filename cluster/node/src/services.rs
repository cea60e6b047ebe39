//! Service addresses: services and endpoint slices come in, rules go out. [`Rules::new`] is pure; [`run`] programs what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};

use crate::config::NodeConfig;
use crate::netlink::nft;
use crate::stores::Stores;

/// The transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn parse(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            _ => None,
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// An address that stands for endpoints; without any it is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frontend {
    pub(crate) address: Ipv4Addr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) backends: Vec<SocketAddrV4>,
}

/// Where TCP that leaves the cluster is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) bridge: String,
    pub(crate) inside: Vec<Ipv4Net>,
    pub(crate) port: u16,
}

/// All of a node's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) frontends: Vec<Frontend>,
    pub(crate) outside: Option<Redirect>,
}

impl Rules {
    /// `local` are the node's own addresses, on which node ports are served; `host_ports` are those of pods.
    pub(crate) fn new(
        services: &[Arc<Service>],
        slices: &[Arc<EndpointSlice>],
        local: &[Ipv4Addr],
        host_ports: &BTreeMap<(Protocol, u16), SocketAddrV4>,
    ) -> Self {
        let mut frontends = BTreeSet::new();
        for service in services {
            let Some(spec) = &service.spec else { continue };
            if spec.type_.as_deref() == Some("ExternalName") {
                continue;
            }
            let mut addresses: BTreeSet<Ipv4Addr> = BTreeSet::new();
            addresses.extend(spec.cluster_ip.iter().filter_map(|ip| ip.parse::<Ipv4Addr>().ok()));
            addresses.extend(
                spec.external_ips
                    .iter()
                    .flatten()
                    .filter_map(|ip| ip.parse::<Ipv4Addr>().ok()),
            );
            addresses.extend(ingress(service));
            for port in spec.ports.iter().flatten() {
                let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else {
                    continue;
                };
                let backends = backends(service, slices, port.name.as_deref().unwrap_or_default(), protocol);
                let mut add = |address: Ipv4Addr, port: i32| {
                    if let Ok(port) = u16::try_from(port) {
                        frontends.insert(Frontend {
                            address,
                            protocol,
                            port,
                            backends: backends.clone(),
                        });
                    }
                };
                addresses.iter().for_each(|address| add(*address, port.port));
                if let Some(node_port) = port.node_port.filter(|port| *port > 0) {
                    local.iter().for_each(|address| add(*address, node_port));
                }
            }
        }
        for ((protocol, port), backend) in host_ports {
            for address in local {
                frontends.insert(Frontend {
                    address: *address,
                    protocol: *protocol,
                    port: *port,
                    backends: vec![*backend],
                });
            }
        }
        Self {
            frontends: frontends.into_iter().collect(),
            outside: None,
        }
    }

    /// The addresses of all endpoints.
    pub(crate) fn backends(&self) -> BTreeSet<Ipv4Addr> {
        self.frontends
            .iter()
            .flat_map(|frontend| &frontend.backends)
            .map(|backend| *backend.ip())
            .collect()
    }
}

fn ingress(service: &Service) -> Vec<Ipv4Addr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let addresses = status
        .and_then(|balancer| balancer.ingress.as_ref())
        .into_iter()
        .flatten();
    addresses
        .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
        .collect()
}

/// The slices of a service.
pub(crate) fn slices_of<'a>(
    service: &'a Service,
    slices: &'a [Arc<EndpointSlice>],
) -> impl Iterator<Item = &'a Arc<EndpointSlice>> {
    slices.iter().filter(|slice| {
        slice.namespace() == service.namespace()
            && slice.address_type == "IPv4"
            && slice.labels().get("kubernetes.io/service-name") == Some(&service.name_any())
    })
}

/// Ready endpoints; if there are none, those that still serve while they end.
fn backends(service: &Service, slices: &[Arc<EndpointSlice>], name: &str, protocol: Protocol) -> Vec<SocketAddrV4> {
    let mut ready = BTreeSet::new();
    let mut serving = BTreeSet::new();
    for slice in slices_of(service, slices) {
        let port = slice.ports.iter().flatten().find(|port| {
            port.name.as_deref().unwrap_or_default() == name
                && Protocol::parse(port.protocol.as_deref()) == Some(protocol)
        });
        let Some(port) = port
            .and_then(|port| port.port)
            .and_then(|port| u16::try_from(port).ok())
        else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
            let all = addresses.map(|address| SocketAddrV4::new(address, port));
            if conditions.ready.unwrap_or(true) {
                ready.extend(all);
            } else if conditions.serving.unwrap_or(false) {
                serving.extend(all);
            }
        }
    }
    let chosen = if ready.is_empty() { serving } else { ready };
    chosen.into_iter().collect()
}

/// The address for a service of type LoadBalancer that has none yet: the lowest that is free.
fn unassigned(services: &[Arc<Service>], range: Ipv4Net) -> Option<(Arc<Service>, Ipv4Addr)> {
    let balanced = |service: &&Arc<Service>| {
        service
            .spec
            .as_ref()
            .is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none())
    };
    let service = services
        .iter()
        .filter(balanced)
        .find(|service| ingress(service).is_empty())?;
    let taken: BTreeSet<Ipv4Addr> = services.iter().flat_map(|service| ingress(service)).collect();
    let free = range.hosts().find(|address| !taken.contains(address))?;
    Some((Arc::clone(service), free))
}

/// Keeps the kernel's rules at what the objects say, until it is dropped.
pub(crate) async fn run(client: Client, config: NodeConfig, stores: Arc<Stores>, outside: Option<Redirect>) {
    let mut programmed = None;
    let mut changes = stores.changes();
    loop {
        changes.mark_unchanged();
        let (services, slices) = (stores.services(), stores.slices());
        let mut rules = Rules::new(
            &services,
            &slices,
            &[config.address, config.gateway()],
            &stores.host_ports.lock().clone(),
        );
        rules.outside.clone_from(&outside);
        if programmed.as_ref() != Some(&rules) {
            match nft::apply(&rules) {
                Ok(()) => programmed = Some(rules),
                Err(error) => tracing::error!(%error, "service addresses not programmed"),
            }
        }
        if let Some((service, address)) = unassigned(&services, config.load_balancers) {
            let api: Api<Service> = Api::namespaced(client.clone(), &service.namespace().unwrap_or_default());
            let status =
                serde_json::json!({"status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}});
            let patched = api
                .patch_status(&service.name_any(), &PatchParams::default(), &Patch::Merge(&status))
                .await;
            if let Err(error) = patched {
                tracing::warn!(%error, "load balancer address not assigned");
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(ports: serde_json::Value, more: serde_json::Value) -> Arc<Service> {
        let mut object = serde_json::json!({"metadata": {"name": "shop", "namespace": "a"},
            "spec": {"clusterIP": "10.96.0.9", "ports": ports}});
        if let (Some(spec), Some(more)) = (object["spec"].as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn slice(endpoints: serde_json::Value) -> Arc<EndpointSlice> {
        let object = serde_json::json!({"addressType": "IPv4", "endpoints": endpoints,
            "metadata": {"name": "shop-x", "namespace": "a", "labels": {"kubernetes.io/service-name": "shop"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn ready_endpoints_win_over_those_that_only_serve() {
        let services = [service(
            serde_json::json!([{"name": "http", "port": 80, "nodePort": 30080}]),
            serde_json::json!({}),
        )];
        let ready = serde_json::json!({"addresses": ["10.244.0.2"], "conditions": {"ready": true}});
        let ending = serde_json::json!({"addresses": ["10.244.0.3"], "conditions": {"ready": false, "serving": true}});
        let node = Ipv4Addr::new(10, 0, 0, 1);
        let rules = Rules::new(
            &services,
            &[slice(serde_json::json!([ready, ending]))],
            &[node],
            &BTreeMap::new(),
        );
        let found: Vec<_> = rules
            .frontends
            .iter()
            .map(|f| (f.address.to_string(), f.port, f.backends.clone()))
            .collect();
        let to = |address: &str| vec![address.parse::<SocketAddrV4>().unwrap()];
        assert_eq!(
            found,
            [
                ("10.0.0.1".into(), 30080, to("10.244.0.2:8080")),
                ("10.96.0.9".into(), 80, to("10.244.0.2:8080"))
            ]
        );
        let rules = Rules::new(&services, &[slice(serde_json::json!([ending]))], &[], &BTreeMap::new());
        assert_eq!(rules.frontends[0].backends, to("10.244.0.3:8080"));
    }

    #[test]
    fn a_service_without_endpoints_is_refused_and_a_headless_one_has_no_address() {
        let ports = serde_json::json!([{"name": "http", "port": 80}]);
        let rules = Rules::new(
            &[service(ports.clone(), serde_json::json!({}))],
            &[],
            &[],
            &BTreeMap::new(),
        );
        assert_eq!(rules.frontends.len(), 1);
        assert!(rules.frontends[0].backends.is_empty());
        let headless = service(ports, serde_json::json!({"clusterIP": "None"}));
        assert_eq!(Rules::new(&[headless], &[], &[], &BTreeMap::new()), Rules::default());
    }

    #[test]
    fn load_balancers_get_the_lowest_free_address() {
        let ports = serde_json::json!([{"port": 80}]);
        let waiting = service(ports, serde_json::json!({"type": "LoadBalancer"}));
        let mut other = Service::clone(&waiting);
        other.status =
            serde_json::from_value(serde_json::json!({"loadBalancer": {"ingress": [{"ip": "10.97.0.1"}]}})).unwrap();
        let services = [Arc::new(other), waiting];
        let (_, address) = unassigned(&services, "10.97.0.0/24".parse().unwrap()).unwrap();
        assert_eq!(address, Ipv4Addr::new(10, 97, 0, 2));
    }
}
