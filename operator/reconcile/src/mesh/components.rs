//! What the components of a mesh are like, from their objects as they are.

use super::{Live, ReconcileError, Reconciliation};
use crate::readiness;
use crate::status::ComponentState;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use mizzen_desired::{Component, Manifest, ValidatedMesh};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Gateways wait for certificates and routes, policies for the webhook that checks them.
pub(super) fn needs_control_plane(manifest: &Manifest) -> bool {
    matches!(
        (manifest.component(), manifest.id().kind.as_str()),
        (Component::IstioIngress, "Deployment") | (_, "PeerAuthentication")
    )
}

/// What those wait for.
pub(super) fn gates(resource: &str) -> bool {
    !resource.starts_with("PeerAuthentication/")
}

/// What each component is like, from its objects as they are.
pub(super) fn components(manifests: &[Manifest], live: &Live) -> BTreeMap<Component, ComponentState> {
    let mut states: BTreeMap<Component, ComponentState> = BTreeMap::new();
    let mut present: BTreeSet<Component> = BTreeSet::new();
    for manifest in manifests {
        let id = manifest.id();
        let state = states.entry(manifest.component()).or_default();
        let works = match live.get(id).and_then(Option::as_ref) {
            Some(live) => {
                present.insert(manifest.component());
                match id.kind.as_str() {
                    "Deployment" => readiness::deployment(live),
                    "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => readiness::webhooks(live),
                    _ => Ok(()),
                }
            }
            None => Err(format!("{} {} is not made yet", id.kind, id.name)),
        };
        if let Err(why) = works {
            state.broken.insert(format!("{}/{}", id.kind, id.name), why);
        }
    }
    for (component, state) in &mut states {
        if !present.contains(component) {
            *state = ComponentState {
                pending: true,
                broken: std::mem::take(&mut state.broken),
            };
        }
    }
    states
}

impl Reconciliation<'_> {
    /// Adds to each Deployment that does not work what its pods say.
    pub(super) async fn explain(
        &self,
        mesh: &ValidatedMesh,
        components: &mut BTreeMap<Component, ComponentState>,
        live: &Live,
    ) -> Result<(), ReconcileError> {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &mesh.key().namespace);
        for state in components.values_mut() {
            for (resource, why) in &mut state.broken {
                let Some(name) = resource.strip_prefix("Deployment/") else {
                    continue;
                };
                let found = live.iter().find(|(id, _)| id.kind == "Deployment" && id.name == name);
                let selector = found.and_then(|(_, live)| live.as_ref()?.pointer("/spec/selector/matchLabels"));
                let Some(Value::Object(selector)) = selector else {
                    continue;
                };
                let pairs = selector
                    .iter()
                    .filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?)));
                let list = ListParams::default().labels(&pairs.collect::<Vec<_>>().join(","));
                if let Some(reason) = pods.list(&list).await?.items.iter().find_map(readiness::pod) {
                    why.push_str(&format!(" ({reason})"));
                }
            }
        }
        Ok(())
    }
}
