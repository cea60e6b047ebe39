//! What events do to the facts, and what is marked to be derived anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mizzen_model::{Kind, Labels, Locality, MtlsMode, ObjectKey, ObjectName, PeerAuthentication, Service};

use super::{Config, Dirty, Index, Value};
use crate::diagnostic::Diagnostic;
use crate::error::{Invalid, Rejection};
use crate::facts::pod::Pod;
use crate::facts::slice::Slice;
use crate::facts::{self, Place, Places};
use crate::object::{Object, ObjectRef, Unreadable};
use crate::parse::{self, Accepted};
use crate::reader::created;
use crate::validate::namespace;

impl Index {
    pub(super) fn learn(&mut self, object: Object, dirty: &mut Dirty) {
        let reference = object.reference();
        if reference.kind == Kind::Node {
            if let Object::Node(raw) = &object {
                let locality = facts::node::locality(raw);
                self.node_changed(reference.name, Some(locality), dirty);
            }
            return;
        }
        if let Object::Namespace(raw) = &object {
            if let Some(name) = namespace(&reference.name) {
                let labels = facts::labels(raw.metadata.labels.as_ref());
                let old = self.namespaces.insert(name.clone(), labels);
                if old.as_ref() != self.namespaces.get(&name) {
                    dirty.namespaces.insert(name);
                }
            }
            return;
        }
        let Some(place) = place(&reference) else { return };
        let domain = self.settings.defaults.cluster_domain.clone();
        let (namespace, name) = &place;
        match &object {
            Object::Service(raw) => {
                let service = facts::service::shared(raw, namespace, name, &domain);
                self.service_changed(place, service, dirty);
            }
            Object::EndpointSlice(raw) => {
                let slice = facts::slice::slice(raw, namespace);
                self.slice_changed(place, slice, dirty);
            }
            Object::Pod(raw) => {
                let pod = facts::pod::pod(raw, namespace, name);
                self.pod_changed(place, pod, dirty);
            }
            Object::ConfigMap(raw) => {
                let text = raw.data.as_ref().and_then(|data| data.get("mesh"));
                self.mesh_config_changed(&place, text.map(String::as_str), dirty);
            }
            Object::Gateway(raw) => {
                self.config_changed(&object, parse::gateway(raw, &domain), Value::Gateway, dirty);
            }
            Object::VirtualService(raw) => {
                self.config_changed(
                    &object,
                    parse::virtual_service(raw, &domain),
                    Value::VirtualService,
                    dirty,
                );
            }
            Object::DestinationRule(raw) => {
                self.config_changed(
                    &object,
                    parse::destination_rule(raw, &domain),
                    Value::DestinationRule,
                    dirty,
                );
            }
            Object::PeerAuthentication(raw) => {
                let parsed = parse::peer_authentication(raw, &domain);
                let refused = parsed.is_err();
                self.config_changed(&object, parsed, Value::PeerAuthentication, dirty);
                if refused {
                    let key = ObjectKey::new(Kind::PeerAuthentication, place.0, place.1);
                    self.deny(parse::strict_instead(raw, key));
                }
            }
            Object::Unreadable(raw) => self.unreadable(raw, ObjectKey::new(raw.kind, place.0, place.1), dirty),
            Object::Namespace(_) | Object::Node(_) => {}
        }
    }

    pub(super) fn forget(&mut self, reference: &ObjectRef, dirty: &mut Dirty) {
        match reference.kind {
            Kind::Node => return self.node_changed(reference.name.clone(), None, dirty),
            Kind::Namespace => {
                if let Some(name) = namespace(&reference.name)
                    && self.namespaces.remove(&name).is_some()
                {
                    dirty.namespaces.insert(name);
                }
                return;
            }
            _ => {}
        }
        let Some(place) = place(reference) else { return };
        match reference.kind {
            Kind::Service => self.service_changed(place, None, dirty),
            Kind::EndpointSlice => self.slice_changed(place, None, dirty),
            Kind::Pod => self.pod_changed(place, None, dirty),
            Kind::ConfigMap => self.mesh_config_changed(&place, None, dirty),
            kind => {
                let key = ObjectKey::new(kind, place.0, place.1);
                if self.configs.remove(&key).is_some() {
                    dirty.configs.insert(key);
                }
            }
        }
    }

    /// All objects of a kind that facts are kept of.
    pub(super) fn known(&self, kind: Kind) -> BTreeSet<ObjectRef> {
        let reference = |namespace: &str, name: &str| ObjectRef {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        };
        let at = |place: &Place| reference(place.0.as_str(), place.1.as_str());
        match kind {
            Kind::Node => self.nodes.keys().map(|name| reference("", name)).collect(),
            Kind::Namespace => self
                .namespaces
                .keys()
                .map(|name| reference("", name.as_str()))
                .collect(),
            Kind::Service => self.services.iter().map(|(place, _)| at(&place)).collect(),
            Kind::EndpointSlice => self.slices.iter().map(|(place, _)| at(&place)).collect(),
            Kind::Pod => self.pods.iter().map(|(place, _)| at(&place)).collect(),
            Kind::ConfigMap => {
                let root = self.settings.root_namespace();
                self.settings
                    .mesh_config_map
                    .iter()
                    .map(|name| reference(root.as_str(), name.as_str()))
                    .collect()
            }
            _ => {
                let keys = self.configs.keys().filter(|key| key.kind == kind);
                keys.map(|key| reference(key.namespace.as_str(), key.name.as_str()))
                    .collect()
            }
        }
    }

    fn node_changed(&mut self, name: String, locality: Option<Locality>, dirty: &mut Dirty) {
        if self.nodes.get(&name) == locality.as_ref() {
            return;
        }
        for (place, pod) in self.pods.iter() {
            if pod.node.as_ref() == Some(&name) {
                dirty.endpoints.extend(self.services_of_pod(&place));
                dirty.workloads.insert(place);
            }
        }
        match locality {
            Some(locality) => self.nodes.insert(name, locality),
            None => self.nodes.remove(&name),
        };
    }

    fn service_changed(&mut self, place: Place, service: Option<Arc<Service>>, dirty: &mut Dirty) {
        let old = match &service {
            Some(service) => self.services.put(place.clone(), service.clone()),
            None => self.services.take(&place),
        };
        if old == service {
            return;
        }
        // The pods that it selected, and those that it selects now.
        let selectors: Vec<&Labels> = [&old, &service]
            .into_iter()
            .flatten()
            .filter_map(|s| s.selector.as_ref())
            .collect();
        for (name, pod) in self.pods.in_namespace(&place.0) {
            if selectors.iter().any(|selector| selector.selects(&pod.labels)) {
                dirty.workloads.insert((place.0.clone(), name.clone()));
            }
        }
        dirty.endpoints.insert(place.clone());
        dirty.services.insert(place);
    }

    fn slice_changed(&mut self, place: Place, slice: Option<Slice>, dirty: &mut Dirty) {
        let old = match slice.clone() {
            Some(slice) => self.slices.put(place.clone(), slice),
            None => self.slices.take(&place),
        };
        if old == slice {
            return;
        }
        let pods = |slice: &Slice| {
            slice
                .endpoints
                .iter()
                .filter_map(|endpoint| endpoint.pod.clone())
                .collect::<Vec<_>>()
        };
        if let Some(old) = &old {
            unlink(&mut self.slices_by_service, [old.service.clone()], &place);
            unlink(&mut self.slices_by_pod, pods(old), &place);
            dirty.endpoints.insert(old.service.clone());
        }
        if let Some(slice) = &slice {
            self.slices_by_service
                .entry(slice.service.clone())
                .or_default()
                .insert(place.clone());
            for pod in pods(slice) {
                self.slices_by_pod.entry(pod).or_default().insert(place.clone());
            }
            dirty.endpoints.insert(slice.service.clone());
        }
    }

    fn pod_changed(&mut self, place: Place, pod: Option<Pod>, dirty: &mut Dirty) {
        let old = match pod.clone() {
            Some(pod) => self.pods.put(place.clone(), pod),
            None => self.pods.take(&place),
        };
        if old != pod {
            dirty.endpoints.extend(self.services_of_pod(&place));
            dirty.workloads.insert(place);
        }
    }

    /// The services whose slices name the pod.
    fn services_of_pod(&self, place: &Place) -> Vec<Place> {
        let slices = self.slices_by_pod.get(place).into_iter().flatten();
        slices
            .filter_map(|slice| Some(self.slices.entry(slice)?.service.clone()))
            .collect()
    }

    fn mesh_config_changed(&mut self, place: &Place, text: Option<&str>, dirty: &mut Dirty) {
        let ours =
            self.settings.mesh_config_map.as_ref() == Some(&place.1) && place.0 == *self.settings.root_namespace();
        if !ours {
            return;
        }
        // An empty text says nothing, and so does a ConfigMap that is gone.
        let configured = parse::mesh_config(text.unwrap_or("{}"), &self.settings);
        self.mesh_config_diagnostics = configured.diagnostics;
        if self.membership != configured.membership {
            self.membership = configured.membership;
            dirty.everything = true;
        }
        if self.mesh.config().trust_domain != configured.config.trust_domain {
            dirty.everything = true; // identities of all endpoints
        }
        let mut gateways = Places::default();
        for service in configured.gateways {
            gateways.put((service.namespace.clone(), service.name.clone()), service);
        }
        if self.gateways != gateways {
            self.gateways = gateways;
            let root = self.settings.root_namespace();
            let pods = self.pods.in_namespace(root);
            dirty
                .workloads
                .extend(pods.map(|(name, _)| (root.clone(), name.clone())));
        }
        dirty.config = Some(configured.config);
    }

    fn config_changed<T>(
        &mut self,
        object: &Object,
        parsed: Result<Accepted<T>, Rejection>,
        value: impl FnOnce(Arc<T>) -> Value,
        dirty: &mut Dirty,
    ) {
        let reference = object.reference();
        let Some((namespace, name)) = place(&reference) else {
            return;
        };
        let key = ObjectKey::new(reference.kind, namespace, name);
        let generation = object.generation();
        let config = match parsed {
            Ok(accepted) => Config {
                generation,
                value: value(Arc::new(accepted.value)),
                diagnostics: accepted.warnings,
            },
            Err(rejection) => Config {
                generation,
                value: Value::Nothing,
                diagnostics: rejection.diagnostics(),
            },
        };
        self.configs.insert(key.clone(), config);
        dirty.configs.insert(key);
    }

    fn unreadable(&mut self, raw: &Unreadable, key: ObjectKey, dirty: &mut Dirty) {
        let diagnostics = raw.errors.iter().map(Invalid::diagnostic).collect();
        let config = Config {
            generation: raw.metadata.generation,
            value: Value::Nothing,
            diagnostics,
        };
        self.configs.insert(key.clone(), config);
        dirty.configs.insert(key.clone());
        if key.kind == Kind::PeerAuthentication {
            self.deny(PeerAuthentication {
                created: created(&raw.metadata),
                key,
                selector: raw.selector.clone(),
                mode: Some(MtlsMode::Strict),
                ports: BTreeMap::new(),
            });
        }
    }

    /// Puts a policy in force in place of one that is refused.
    fn deny(&mut self, policy: PeerAuthentication) {
        if let Some(config) = self.configs.get_mut(&policy.key) {
            let message = "the policy cannot be read, so mutual TLS is demanded where it applies until it is corrected";
            config
                .diagnostics
                .push(Diagnostic::error("FailedClosed", "spec", message));
            config.value = Value::PeerAuthentication(Arc::new(policy));
        }
    }
}

fn place(reference: &ObjectRef) -> Option<Place> {
    Some((namespace(&reference.namespace)?, ObjectName::new(&reference.name).ok()?))
}

fn unlink(links: &mut BTreeMap<Place, BTreeSet<Place>>, from: impl IntoIterator<Item = Place>, to: &Place) {
    for from in from {
        if let Some(targets) = links.get_mut(&from) {
            targets.remove(to);
            if targets.is_empty() {
                links.remove(&from);
            }
        }
    }
}
