//! What follows from the facts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mizzen_model::{
    Changes, Endpoint, EndpointTls, Endpoints, Host, Kind, Labels, Locality, Namespace, ObjectKey, Service, SpiffeId,
};

use super::{Dirty, Index, Value};
use crate::facts::Place;
use crate::facts::pod::Pod;
use crate::facts::slice::SliceEndpoint;

impl Index {
    /// Computes what is marked, and nothing else.
    pub(super) fn settle(&mut self, mut dirty: Dirty) -> Changes {
        let mut changes = Changes::default();
        if let Some(config) = dirty.config.take() {
            changes.extend(self.mesh.set_config(config));
        }
        self.widen(&mut dirty);
        for namespace in &dirty.namespaces {
            let labels = self
                .namespaces
                .get(namespace)
                .filter(|_| self.is_member(namespace))
                .cloned();
            changes.extend(match labels {
                Some(labels) => self.mesh.insert_namespace(namespace.clone(), labels),
                None => self.mesh.remove_namespace(namespace),
            });
        }
        for place in &dirty.services {
            let service = self.services.entry(place).filter(|_| self.is_member(&place.0)).cloned();
            match service {
                Some(service) => changes.extend(self.mesh.insert_service(service)),
                None => {
                    if let Some(host) = self.host(place) {
                        changes.extend(self.mesh.remove_service(&host));
                    }
                }
            }
        }
        for place in &dirty.endpoints {
            let Some(host) = self.host(place) else { continue };
            changes.extend(match self.endpoints(place) {
                Some(endpoints) => self.mesh.insert_endpoints(host, endpoints),
                None => self.mesh.remove_endpoints(&host),
            });
        }
        for place in &dirty.workloads {
            let pod = self.pods.entry(place).filter(|_| self.is_member(&place.0));
            let workload = pod.map(|pod| pod.workload(self.locality(pod), self.services_around(&place.0)));
            let key = ObjectKey::new(Kind::Pod, place.0.clone(), place.1.clone());
            changes.extend(match workload {
                Some(workload) => self.mesh.insert_workload(workload),
                None => self.mesh.remove_workload(&key),
            });
        }
        for key in &dirty.configs {
            changes.extend(self.settle_config(key));
        }
        changes
    }

    /// Marks all that is in a marked namespace.
    fn widen(&self, dirty: &mut Dirty) {
        let everything = dirty.everything;
        if everything {
            dirty.namespaces.extend(self.namespaces.keys().cloned());
        } else if dirty.namespaces.is_empty() {
            return;
        }
        let marked = dirty.namespaces.clone();
        let inside = |place: &Place| everything || marked.contains(&place.0);
        for place in self.services.iter().map(|(place, _)| place).filter(&inside) {
            dirty.endpoints.insert(place.clone());
            dirty.services.insert(place);
        }
        dirty
            .workloads
            .extend(self.pods.iter().map(|(place, _)| place).filter(inside));
        let inside = self
            .configs
            .keys()
            .filter(|key| everything || marked.contains(&key.namespace));
        dirty.configs.extend(inside.cloned());
    }

    /// The services of a namespace, and those of the mesh's gateways that should be there too.
    fn services_around<'s>(&'s self, namespace: &'s Namespace) -> impl Iterator<Item = &'s Arc<Service>> {
        let there = self.services.in_namespace(namespace);
        let missing = self
            .gateways
            .in_namespace(namespace)
            .filter(|(name, _)| self.services.entry(&(namespace.clone(), (*name).clone())).is_none());
        there.chain(missing).map(|(_, service)| service)
    }

    fn host(&self, (namespace, name): &Place) -> Option<Host> {
        Host::of_service(name, namespace, &self.settings.defaults.cluster_domain).ok()
    }

    /// The endpoints of a service; none if there is no such service in the mesh.
    fn endpoints(&self, place: &Place) -> Option<Endpoints> {
        let service = self.services.entry(place).filter(|_| self.is_member(&place.0))?;
        let mut endpoints: BTreeMap<IpAddr, Endpoint> = BTreeMap::new();
        let slices = self.slices_by_service.get(place).into_iter().flatten();
        for slice in slices.filter_map(|slice| self.slices.entry(slice)) {
            let mut ports = BTreeMap::new();
            for port in service.ports.iter().filter(|port| port.protocol.is_carried()) {
                let name = port.name.as_ref().map_or("", |name| name.as_str());
                let found = slice.ports.iter().find(|(known, _)| known == name);
                ports.extend(found.map(|(_, number)| (port.number, *number)));
            }
            for raw in &slice.endpoints {
                for address in &raw.addresses {
                    let endpoint = self.endpoint(place, *address, ports.clone(), raw);
                    match endpoints.get_mut(address) {
                        // While a pod moves from one slice to another it is in both.
                        Some(known) => {
                            known.ports.extend(endpoint.ports);
                            known.health = known.health.min(endpoint.health);
                        }
                        None => {
                            endpoints.insert(*address, endpoint);
                        }
                    }
                }
            }
        }
        Some(Endpoints::new(endpoints.into_values().collect()))
    }

    fn endpoint(&self, place: &Place, address: IpAddr, ports: BTreeMap<u16, u16>, raw: &SliceEndpoint) -> Endpoint {
        let pod = raw.pod.as_ref().and_then(|pod| self.pods.entry(pod));
        let Some(pod) = pod else {
            let node = raw.node.as_ref().and_then(|node| self.nodes.get(node)).cloned();
            return Endpoint {
                address,
                ports,
                health: raw.health,
                labels: Labels::default(),
                namespace: place.0.clone(),
                identity: None,
                tls: EndpointTls::Plain,
                locality: node.unwrap_or_else(|| Locality {
                    zone: raw.zone.clone(),
                    ..Locality::default()
                }),
                workload: None,
                canonical_name: Arc::from(place.1.as_str()),
                canonical_revision: Arc::from("latest"),
            };
        };
        let trust_domain = self.mesh.config().trust_domain.clone();
        Endpoint {
            address,
            ports,
            health: raw.health,
            labels: pod.labels.clone(),
            namespace: pod.key.namespace.clone(),
            identity: Some(SpiffeId::new(
                trust_domain,
                pod.key.namespace.clone(),
                pod.service_account.clone(),
            )),
            tls: pod.tls,
            locality: self.locality(pod),
            workload: pod.workload.clone(),
            canonical_name: pod.canonical_name.clone(),
            canonical_revision: pod.canonical_revision.clone(),
        }
    }

    fn locality(&self, pod: &Pod) -> Locality {
        let node = || pod.node.as_ref().and_then(|node| self.nodes.get(node)).cloned();
        pod.locality.clone().or_else(node).unwrap_or_default()
    }

    fn settle_config(&mut self, key: &ObjectKey) -> Changes {
        let config = self.configs.get(key).filter(|_| self.is_member(&key.namespace));
        match (key.kind, config.map(|config| &config.value)) {
            (_, Some(Value::Gateway(value))) => self.mesh.insert_gateway(value.clone()),
            (_, Some(Value::VirtualService(value))) => self.mesh.insert_virtual_service(value.clone()),
            (_, Some(Value::DestinationRule(value))) => self.mesh.insert_destination_rule(value.clone()),
            (_, Some(Value::PeerAuthentication(value))) => self.mesh.insert_peer_authentication(value.clone()),
            (Kind::Gateway, _) => self.mesh.remove_gateway(key),
            (Kind::VirtualService, _) => self.mesh.remove_virtual_service(key),
            (Kind::DestinationRule, _) => self.mesh.remove_destination_rule(key),
            (Kind::PeerAuthentication, _) => self.mesh.remove_peer_authentication(key),
            _ => Changes::default(),
        }
    }
}
