//! The whole mesh as one value.
//!
//! A clone shares everything with its original and costs a few reference counts: keep one as a snapshot, go on changing
//! the other. Every `insert_*` and `remove_*` keeps the lookup tables right and says what changed; inserting what is
//! already there changes nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use mizzen_identity::Namespace;

use crate::change::{Change, Changes};
use crate::config::MeshConfig;
use crate::gateway::Gateway;
use crate::host::Host;
use crate::name::{Labels, ObjectKey};
use crate::route::{GatewayRef, HttpAction, VirtualService};
use crate::rule::DestinationRule;
use crate::security::PeerAuthentication;
use crate::service::{Endpoints, Service, Workload};

mod lookup;
mod table;

pub use lookup::{DestinationRules, Resolved, Unresolved};
use table::{Index, Table};

/// The whole mesh.
#[derive(Debug, Clone)]
pub struct Mesh {
    config: Arc<MeshConfig>,
    namespaces: Table<Namespace, Labels>,
    services: Table<Host, Service>,
    endpoints: Table<Host, Endpoints>,
    workloads: Table<ObjectKey, Workload>,
    virtual_services: Table<ObjectKey, VirtualService>,
    destination_rules: Table<ObjectKey, DestinationRule>,
    gateways: Table<ObjectKey, Gateway>,
    peer_authentications: Table<ObjectKey, PeerAuthentication>,

    services_by_address: Index<IpAddr, Host>,
    services_by_port: Index<u16, Host>,
    workloads_by_address: Index<IpAddr, ObjectKey>,
    routes_by_host: Index<Host, ObjectKey>,
    routes_by_place: Index<GatewayRef, ObjectKey>,
    rules_by_host: Index<(Namespace, Host), ObjectKey>,
    authentications_by_namespace: Index<Namespace, ObjectKey>,
    routes_by_delegate: Index<ObjectKey, ObjectKey>,
    routes_by_destination: Index<Host, ObjectKey>,
    /// Label keys by which routes and rules choose among client workloads, and the objects that do.
    objects_by_client_label: Index<Arc<str>, ObjectKey>,
}

impl Mesh {
    /// An empty mesh.
    #[must_use]
    pub fn new(config: MeshConfig) -> Self {
        Self {
            config: Arc::new(config),
            namespaces: Table::default(),
            services: Table::default(),
            endpoints: Table::default(),
            workloads: Table::default(),
            virtual_services: Table::default(),
            destination_rules: Table::default(),
            gateways: Table::default(),
            peer_authentications: Table::default(),
            services_by_address: Index::default(),
            services_by_port: Index::default(),
            workloads_by_address: Index::default(),
            routes_by_host: Index::default(),
            routes_by_place: Index::default(),
            rules_by_host: Index::default(),
            authentications_by_namespace: Index::default(),
            routes_by_delegate: Index::default(),
            routes_by_destination: Index::default(),
            objects_by_client_label: Index::default(),
        }
    }

    /// Replaces the configuration.
    pub fn set_config(&mut self, config: MeshConfig) -> Changes {
        if *self.config == config {
            return Changes::default();
        }
        self.config = Arc::new(config);
        Change::Config.into()
    }

    /// Adds or replaces a namespace's labels.
    pub fn insert_namespace(&mut self, namespace: Namespace, labels: impl Into<Arc<Labels>>) -> Changes {
        match self.namespaces.put(namespace.clone(), labels.into()) {
            None => Changes::default(),
            Some(_) => Change::Namespace(namespace).into(),
        }
    }

    /// Forgets a namespace. What is in it has to be removed by itself.
    pub fn remove_namespace(&mut self, namespace: &Namespace) -> Changes {
        match self.namespaces.take(namespace) {
            None => Changes::default(),
            Some(_) => Change::Namespace(namespace.clone()).into(),
        }
    }

    /// Adds or replaces a service.
    pub fn insert_service(&mut self, service: impl Into<Arc<Service>>) -> Changes {
        let service = service.into();
        match self.services.put(service.host.clone(), service.clone()) {
            None => Changes::default(),
            Some(old) => self.service_changed(old.as_deref(), Some(&service)),
        }
    }

    /// Forgets a service. Its endpoints have to be removed by themselves.
    pub fn remove_service(&mut self, host: &Host) -> Changes {
        match self.services.take(host) {
            None => Changes::default(),
            Some(old) => self.service_changed(Some(&old), None),
        }
    }

    fn service_changed(&mut self, old: Option<&Service>, new: Option<&Service>) -> Changes {
        if let Some(service) = old {
            self.services_by_address
                .remove_all(service.addresses.iter().copied(), &service.host);
            self.services_by_port
                .remove_all(service.ports.iter().map(|port| port.number), &service.host);
        }
        if let Some(service) = new {
            self.services_by_address
                .insert_all(service.addresses.iter().copied(), &service.host);
            self.services_by_port
                .insert_all(service.ports.iter().map(|port| port.number), &service.host);
        }
        let both = || old.into_iter().chain(new);
        both()
            .map(|service| Change::Service {
                host: service.host.clone(),
                namespace: service.namespace.clone(),
                addresses: both().flat_map(|service| service.addresses.iter().copied()).collect(),
                ports: both()
                    .flat_map(|service| service.ports.iter().map(|port| port.number))
                    .collect(),
            })
            .collect()
    }

    /// Adds or replaces the endpoints of a service.
    pub fn insert_endpoints(&mut self, host: Host, endpoints: impl Into<Arc<Endpoints>>) -> Changes {
        match self.endpoints.put(host.clone(), endpoints.into()) {
            None => Changes::default(),
            Some(_) => Change::Endpoints(host).into(),
        }
    }

    /// Forgets the endpoints of a service.
    pub fn remove_endpoints(&mut self, host: &Host) -> Changes {
        match self.endpoints.take(host) {
            None => Changes::default(),
            Some(_) => Change::Endpoints(host.clone()).into(),
        }
    }

    /// Adds or replaces a workload.
    pub fn insert_workload(&mut self, workload: impl Into<Arc<Workload>>) -> Changes {
        let workload = workload.into();
        let key = workload.key.clone();
        let Some(old) = self.workloads.put(key.clone(), workload.clone()) else {
            return Changes::default();
        };
        if let Some(old) = old {
            self.workloads_by_address
                .remove_all(old.addresses.iter().copied(), &key);
        }
        self.workloads_by_address
            .insert_all(workload.addresses.iter().copied(), &key);
        Change::Workload(key).into()
    }

    /// Forgets a workload.
    pub fn remove_workload(&mut self, key: &ObjectKey) -> Changes {
        let Some(old) = self.workloads.take(key) else {
            return Changes::default();
        };
        self.workloads_by_address.remove_all(old.addresses.iter().copied(), key);
        Change::Workload(key.clone()).into()
    }

    /// Adds or replaces a virtual service.
    pub fn insert_virtual_service(&mut self, route: impl Into<Arc<VirtualService>>) -> Changes {
        let route = route.into();
        match self.virtual_services.put(route.key.clone(), route.clone()) {
            None => Changes::default(),
            Some(old) => self.route_changed(old.as_deref(), Some(&route)),
        }
    }

    /// Forgets a virtual service.
    pub fn remove_virtual_service(&mut self, key: &ObjectKey) -> Changes {
        match self.virtual_services.take(key) {
            None => Changes::default(),
            Some(old) => self.route_changed(Some(&old), None),
        }
    }

    fn route_changed(&mut self, old: Option<&VirtualService>, new: Option<&VirtualService>) -> Changes {
        // Those that delegate to it change with it.
        let touched = old.or(new).map(|route| &route.key);
        let mut delegating: Vec<Arc<VirtualService>> = Vec::new();
        for key in touched.into_iter().flat_map(|key| self.routes_by_delegate.entries(key)) {
            delegating.extend(self.virtual_services.entry(key).cloned());
        }
        if let Some(route) = old {
            self.routes_by_host.remove_all(route.hosts.iter().cloned(), &route.key);
            self.routes_by_place
                .remove_all(route.gateways.iter().cloned(), &route.key);
            self.routes_by_delegate.remove_all(delegates(route), &route.key);
            self.routes_by_destination.remove_all(destinations(route), &route.key);
            self.objects_by_client_label
                .remove_all(client_labels(route), &route.key);
        }
        if let Some(route) = new {
            self.routes_by_host.insert_all(route.hosts.iter().cloned(), &route.key);
            self.routes_by_place
                .insert_all(route.gateways.iter().cloned(), &route.key);
            self.routes_by_delegate.insert_all(delegates(route), &route.key);
            self.routes_by_destination.insert_all(destinations(route), &route.key);
            self.objects_by_client_label
                .insert_all(client_labels(route), &route.key);
        }
        let routes = old.into_iter().chain(new).chain(delegating.iter().map(Arc::as_ref));
        let mut changes = Changes::default();
        for route in routes {
            for host in &route.hosts {
                let (key, host) = (&route.key, host);
                changes.extend(route.gateways.iter().map(|at| Change::Route {
                    key: key.clone(),
                    host: host.clone(),
                    at: at.clone(),
                }));
            }
        }
        changes
    }

    /// Adds or replaces a destination rule.
    pub fn insert_destination_rule(&mut self, rule: impl Into<Arc<DestinationRule>>) -> Changes {
        let rule = rule.into();
        match self.destination_rules.put(rule.key.clone(), rule.clone()) {
            None => Changes::default(),
            Some(old) => self.rule_changed(old.as_deref(), Some(&rule)),
        }
    }

    /// Forgets a destination rule.
    pub fn remove_destination_rule(&mut self, key: &ObjectKey) -> Changes {
        match self.destination_rules.take(key) {
            None => Changes::default(),
            Some(old) => self.rule_changed(Some(&old), None),
        }
    }

    fn rule_changed(&mut self, old: Option<&DestinationRule>, new: Option<&DestinationRule>) -> Changes {
        let place = |rule: &DestinationRule| (rule.key.namespace.clone(), rule.host.clone());
        let labels = |rule: &DestinationRule| label_keys(rule.workload_selector.iter());
        if let Some(rule) = old {
            self.rules_by_host.remove_all([place(rule)], &rule.key);
            self.objects_by_client_label.remove_all(labels(rule), &rule.key);
        }
        if let Some(rule) = new {
            self.rules_by_host.insert_all([place(rule)], &rule.key);
            self.objects_by_client_label.insert_all(labels(rule), &rule.key);
        }
        let both = old.into_iter().chain(new);
        both.map(|rule| Change::Rule {
            key: rule.key.clone(),
            host: rule.host.clone(),
        })
        .collect()
    }

    /// Adds or replaces a gateway.
    pub fn insert_gateway(&mut self, gateway: impl Into<Arc<Gateway>>) -> Changes {
        let gateway = gateway.into();
        let key = gateway.key.clone();
        match self.gateways.put(key.clone(), gateway) {
            None => Changes::default(),
            Some(_) => Change::Gateway(key).into(),
        }
    }

    /// Forgets a gateway.
    pub fn remove_gateway(&mut self, key: &ObjectKey) -> Changes {
        match self.gateways.take(key) {
            None => Changes::default(),
            Some(_) => Change::Gateway(key.clone()).into(),
        }
    }

    /// Adds or replaces a peer authentication.
    pub fn insert_peer_authentication(&mut self, policy: impl Into<Arc<PeerAuthentication>>) -> Changes {
        let policy = policy.into();
        let key = policy.key.clone();
        if self.peer_authentications.put(key.clone(), policy).is_none() {
            return Changes::default();
        }
        self.authentications_by_namespace
            .insert_all([key.namespace.clone()], &key);
        Change::PeerAuthentication(key.namespace).into()
    }

    /// Forgets a peer authentication.
    pub fn remove_peer_authentication(&mut self, key: &ObjectKey) -> Changes {
        if self.peer_authentications.take(key).is_none() {
            return Changes::default();
        }
        self.authentications_by_namespace
            .remove_all([key.namespace.clone()], key);
        Change::PeerAuthentication(key.namespace.clone()).into()
    }
}

fn delegates(route: &VirtualService) -> BTreeSet<ObjectKey> {
    let actions = route.http.iter().map(|http| &http.action);
    actions
        .filter_map(|action| {
            if let HttpAction::Delegate(key) = action {
                Some(key.clone())
            } else {
                None
            }
        })
        .collect()
}

fn destinations(route: &VirtualService) -> BTreeSet<Host> {
    let http = route.http.iter().flat_map(|http| {
        let weighted = match &http.action {
            HttpAction::Forward(weighted) => weighted.as_slice(),
            HttpAction::Redirect(_) | HttpAction::Direct(_) | HttpAction::Delegate(_) => &[],
        };
        let mirrors = http.mirrors.iter().map(|mirror| &mirror.destination);
        weighted.iter().map(|weighted| &weighted.destination).chain(mirrors)
    });
    let tls = route.tls.iter().map(|tls| &tls.destinations);
    let bytes = tls.chain(route.tcp.iter().map(|tcp| &tcp.destinations)).flatten();
    http.chain(bytes.map(|weighted| &weighted.destination))
        .map(|destination| destination.host.clone())
        .collect()
}

fn client_labels(route: &VirtualService) -> BTreeSet<Arc<str>> {
    let http = route
        .http
        .iter()
        .flat_map(|http| http.matches.iter().map(|m| &m.source_labels));
    let tls = route
        .tls
        .iter()
        .flat_map(|tls| tls.matches.iter().map(|m| &m.source_labels));
    let tcp = route
        .tcp
        .iter()
        .flat_map(|tcp| tcp.matches.iter().map(|m| &m.source_labels));
    label_keys(http.chain(tls).chain(tcp))
}

fn label_keys<'a>(labels: impl Iterator<Item = &'a Labels>) -> BTreeSet<Arc<str>> {
    labels
        .flat_map(|labels| labels.iter().map(|(key, _)| Arc::from(key)).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests;
