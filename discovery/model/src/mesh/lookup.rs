//! What others ask of the mesh.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use mizzen_identity::Namespace;

use super::Mesh;
use crate::config::MeshConfig;
use crate::gateway::Gateway;
use crate::host::Host;
use crate::name::{Labels, ObjectKey, SubsetName};
use crate::route::{Destination, GatewayRef, VirtualService};
use crate::rule::{DestinationRule, Subset, TrafficPolicy};
use crate::security::{MtlsMode, PeerAuthentication};
use crate::service::{Endpoint, EndpointTls, Endpoints, Service, ServicePort, Workload};

/// A destination that leads somewhere.
#[derive(Debug, Clone, Copy)]
pub struct Resolved<'a> {
    /// The service.
    pub service: &'a Arc<Service>,
    /// The port of it.
    pub port: &'a ServicePort,
}

/// Why a destination leads nowhere. Traffic for it gets 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No such service, or none that may be seen from there.
    #[error("no service of that host is visible from the namespace")]
    Host,
    /// The service has no such port.
    #[error("the service has no such port")]
    Port,
    /// No destination rule defines such a subset.
    #[error("no destination rule defines that subset for the host")]
    Subset,
}

/// The destination rules that decide together for a host: those of one namespace for the same host, oldest first.
#[derive(Debug, Clone, Default)]
pub struct DestinationRules<'a>(Vec<&'a Arc<DestinationRule>>);

impl<'a> DestinationRules<'a> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// They, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &'a Arc<DestinationRule>> {
        self.0.iter().copied()
    }

    /// The subset of that name.
    #[must_use]
    pub fn subset(&self, name: &SubsetName) -> Option<&'a Subset> {
        self.iter().find_map(|rule| rule.subset(name))
    }

    /// All subsets; of several of one name the first.
    #[must_use]
    pub fn subsets(&self) -> Vec<&'a Subset> {
        let mut seen = BTreeSet::new();
        self.iter()
            .flat_map(|rule| &rule.subsets)
            .filter(|subset| seen.insert(&subset.name))
            .collect()
    }

    /// How connections are made to that port, for the whole service or a subset of it.
    #[must_use]
    pub fn policy(&self, subset: Option<&SubsetName>, port: u16) -> TrafficPolicy {
        let nothing = TrafficPolicy::default();
        let rule = self
            .iter()
            .map(|rule| &rule.policy)
            .find(|policy| **policy != nothing)
            .unwrap_or(&nothing);
        match subset
            .and_then(|name| self.subset(name))
            .and_then(|subset| subset.policy.as_ref())
        {
            Some(over) => rule.overlaid(over).for_port(port),
            None => rule.for_port(port),
        }
    }
}

impl Mesh {
    /// What holds for the whole mesh.
    #[must_use]
    pub fn config(&self) -> &MeshConfig {
        &self.config
    }

    /// All namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.keys()
    }

    /// The labels of a namespace.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &Namespace) -> Option<&Labels> {
        self.namespaces.entry(namespace).map(Arc::as_ref)
    }

    /// All services, by host.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The service of that host.
    #[must_use]
    pub fn service(&self, host: &Host) -> Option<&Arc<Service>> {
        self.services.entry(host)
    }

    /// The service of that host, if it may be seen from there.
    #[must_use]
    pub fn visible_service(&self, host: &Host, from: &Namespace) -> Option<&Arc<Service>> {
        self.service(host)
            .filter(|service| service.export_to.visible_from(from))
    }

    /// The services that may be seen from there, by host.
    pub fn visible_services<'a>(&'a self, from: &'a Namespace) -> impl Iterator<Item = &'a Arc<Service>> {
        self.services()
            .filter(move |service| service.export_to.visible_from(from))
    }

    /// The services that may be seen from there and have that port, by host.
    pub fn services_with_port<'a>(&'a self, port: u16, from: &'a Namespace) -> impl Iterator<Item = &'a Arc<Service>> {
        self.services_by_port
            .entries(&port)
            .filter_map(move |host| self.visible_service(host, from))
    }

    /// The port numbers that services have, ascending.
    pub fn service_ports(&self) -> impl Iterator<Item = u16> {
        self.services_by_port.keys().copied()
    }

    /// The services that have that virtual address and may be seen from there, by host.
    pub fn services_at<'a>(&'a self, address: IpAddr, from: &'a Namespace) -> impl Iterator<Item = &'a Arc<Service>> {
        self.services_by_address
            .entries(&address)
            .filter_map(move |host| self.visible_service(host, from))
    }

    /// The endpoints of a service.
    #[must_use]
    pub fn endpoints(&self, host: &Host) -> Option<&Arc<Endpoints>> {
        self.endpoints.entry(host)
    }

    /// All workloads, by key.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The workload of that key.
    #[must_use]
    pub fn workload(&self, key: &ObjectKey) -> Option<&Arc<Workload>> {
        self.workloads.entry(key)
    }

    /// The workload that has that address; of several (pods in the host's network) the first by key.
    #[must_use]
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads_by_address
            .entries(&address)
            .find_map(|key| self.workload(key))
    }

    /// All virtual services, by key.
    pub fn virtual_services(&self) -> impl Iterator<Item = &Arc<VirtualService>> {
        self.virtual_services.values()
    }

    /// The virtual service of that key.
    #[must_use]
    pub fn virtual_service(&self, key: &ObjectKey) -> Option<&Arc<VirtualService>> {
        self.virtual_services.entry(key)
    }

    /// The virtual services for a host, in force at that place, that may be seen from there: the most specific host
    /// first, among equals the oldest. At sidecars the first one decides alone.
    #[must_use]
    pub fn virtual_services_for(&self, host: &Host, at: &GatewayRef, from: &Namespace) -> Vec<&Arc<VirtualService>> {
        let mut found: Vec<&Arc<VirtualService>> = Vec::new();
        for host in host.specific_first() {
            let keys = self.routes_by_host.entries(&host);
            let mut routes: Vec<_> = keys.filter_map(|key| self.virtual_service(key)).collect();
            routes.retain(|route| route.gateways.contains(at) && route.export_to.visible_from(from));
            routes.sort_by_key(|route| (route.created, &route.key));
            for route in routes {
                if !found.iter().any(|known| known.key == route.key) {
                    found.push(route);
                }
            }
        }
        found
    }

    /// Whether some virtual service sends traffic to that host.
    #[must_use]
    pub fn is_destination(&self, host: &Host) -> bool {
        self.routes_by_destination.entries(host).next().is_some()
    }

    /// The virtual services in force at a place that may be seen from there, oldest first.
    #[must_use]
    pub fn virtual_services_at(&self, at: &GatewayRef, from: &Namespace) -> Vec<&Arc<VirtualService>> {
        let keys = self.routes_by_place.entries(at);
        let mut routes: Vec<_> = keys.filter_map(|key| self.virtual_service(key)).collect();
        routes.retain(|route| route.export_to.visible_from(from));
        routes.sort_by_key(|route| (route.created, &route.key));
        routes
    }

    /// All destination rules, by key.
    pub fn destination_rules(&self) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.destination_rules.values()
    }

    /// The destination rule of that key.
    #[must_use]
    pub fn destination_rule(&self, key: &ObjectKey) -> Option<&Arc<DestinationRule>> {
        self.destination_rules.entry(key)
    }

    /// The rules that decide how a client in that namespace, with those labels, reaches a host. Looked for in the
    /// client's namespace, then in the service's, then in the mesh's own; in each the most specific host wins.
    #[must_use]
    pub fn destination_rules_for(&self, host: &Host, from: &Namespace, labels: &Labels) -> DestinationRules<'_> {
        let root = &self.config.root_namespace;
        let owner = self.service(host).map(|service| &service.namespace);
        for namespace in [Some(from), owner, Some(root)].into_iter().flatten() {
            for host in host.specific_first() {
                let keys = self.rules_by_host.entries(&(namespace.clone(), host));
                let mut rules: Vec<_> = keys.filter_map(|key| self.destination_rule(key)).collect();
                rules.retain(|rule| rule.export_to.visible_from(from));
                // A rule for certain clients holds in its own namespace only, and for those it replaces the others.
                let mine = |rule: &DestinationRule| {
                    rule.workload_selector
                        .as_ref()
                        .is_some_and(|selector| namespace == from && selector.selects(labels))
                };
                let selecting = rules.iter().any(|rule| mine(rule));
                rules.retain(|rule| {
                    if selecting {
                        mine(rule)
                    } else {
                        rule.workload_selector.is_none()
                    }
                });
                if !rules.is_empty() {
                    rules.sort_by_key(|rule| (rule.created, &rule.key));
                    return DestinationRules(rules);
                }
            }
        }
        DestinationRules::default()
    }

    /// Where a destination leads. `addressed` is the port that the client addressed: it counts where the destination
    /// names none and the service has several.
    ///
    /// # Errors
    /// Why it leads nowhere.
    pub fn resolve(
        &self,
        destination: &Destination,
        from: &Namespace,
        labels: &Labels,
        addressed: u16,
    ) -> Result<Resolved<'_>, Unresolved> {
        let service = self.visible_service(&destination.host, from).ok_or(Unresolved::Host)?;
        let port = match (destination.port, service.ports.as_slice()) {
            (Some(number), _) => service.port(number),
            (None, [only]) => Some(only),
            (None, _) => service.port(addressed),
        };
        let port = port.ok_or(Unresolved::Port)?;
        if let Some(subset) = &destination.subset {
            let rules = self.destination_rules_for(&destination.host, from, labels);
            rules.subset(subset).ok_or(Unresolved::Subset)?;
        }
        Ok(Resolved { service, port })
    }

    /// The labels, of those given, by which some route or rule chooses among client workloads. Two clients of one
    /// namespace that agree in these are treated alike.
    #[must_use]
    pub fn deciding_labels(&self, labels: &Labels) -> Labels {
        let keys = self.objects_by_client_label.keys();
        keys.filter_map(|key| labels.value(key).map(|value| (key.clone(), Arc::<str>::from(value))))
            .collect()
    }

    /// Whether some route or rule chooses among client workloads by their labels.
    #[must_use]
    pub fn chooses_clients(&self) -> bool {
        self.objects_by_client_label.keys().next().is_some()
    }

    /// All gateways, by key.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.gateways.values()
    }

    /// The gateway of that key.
    #[must_use]
    pub fn gateway(&self, key: &ObjectKey) -> Option<&Arc<Gateway>> {
        self.gateways.entry(key)
    }

    /// The gateways that configure a workload with those labels, oldest first.
    #[must_use]
    pub fn gateways_for(&self, labels: &Labels) -> Vec<&Arc<Gateway>> {
        let mut gateways: Vec<_> = self
            .gateways()
            .filter(|gateway| gateway.selector.selects(labels))
            .collect();
        gateways.sort_by_key(|gateway| (gateway.created, &gateway.key));
        gateways
    }

    /// All peer authentications, by key.
    pub fn peer_authentications(&self) -> impl Iterator<Item = &Arc<PeerAuthentication>> {
        self.peer_authentications.values()
    }

    /// The peer authentication of that key.
    #[must_use]
    pub fn peer_authentication(&self, key: &ObjectKey) -> Option<&Arc<PeerAuthentication>> {
        self.peer_authentications.entry(key)
    }

    /// What a workload with those labels accepts: at that port of its own, or at ports of which nothing is said.
    #[must_use]
    pub fn mtls_mode(&self, namespace: &Namespace, labels: &Labels, port: Option<u16>) -> MtlsMode {
        let oldest = |namespace: &Namespace, fits: &dyn Fn(&PeerAuthentication) -> bool| {
            let keys = self.authentications_by_namespace.entries(namespace);
            let policies = keys
                .filter_map(|key| self.peer_authentication(key))
                .filter(|policy| fits(policy));
            policies.min_by_key(|policy| (policy.created, &policy.key))
        };
        let selecting = |policy: &PeerAuthentication| policy.selector.as_ref().is_some_and(|s| s.selects(labels));
        let general = |policy: &PeerAuthentication| policy.selector.is_none();
        let workload = oldest(namespace, &selecting);
        let at_port = port.and_then(|port| workload.and_then(|policy| policy.ports.get(&port).copied().flatten()));
        at_port
            .or_else(|| workload.and_then(|policy| policy.mode))
            .or_else(|| oldest(namespace, &general).and_then(|policy| policy.mode))
            .or_else(|| oldest(&self.config.root_namespace, &general).and_then(|policy| policy.mode))
            .unwrap_or_default()
    }

    /// The ports of its own for which a policy says something else than for the others.
    #[must_use]
    pub fn mtls_ports(&self, namespace: &Namespace, labels: &Labels) -> BTreeSet<u16> {
        let keys = self.authentications_by_namespace.entries(namespace);
        let policies = keys.filter_map(|key| self.peer_authentication(key));
        let selecting = policies.filter(|policy| policy.selector.as_ref().is_some_and(|s| s.selects(labels)));
        let oldest = selecting.min_by_key(|policy| (policy.created, &policy.key));
        oldest
            .into_iter()
            .flat_map(|policy| policy.ports.keys().copied())
            .collect()
    }

    /// Whether an endpoint takes the mesh's mutual TLS at that port of its own.
    #[must_use]
    pub fn takes_mtls(&self, endpoint: &Endpoint, port: u16) -> bool {
        endpoint.tls == EndpointTls::Mesh
            && self.mtls_mode(&endpoint.namespace, &endpoint.labels, Some(port)) != MtlsMode::Disable
    }
}
