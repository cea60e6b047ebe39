//! The controller of ServiceMeshControlPlanes.

use crate::apply::{self, Applied, ApplyError};
use crate::context::{Context, VERSION, about, now};
use crate::metrics::Wrote;
use crate::status::{self, ComponentState, Facts, Phase, Progress};
use crate::{namespaces, readiness};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use mizzen_crds::maistra::{
    ConditionReason, ConditionType, ControlPlaneStatus, SINGLETON_NAME, ServiceMeshControlPlane, ServiceMeshMemberRoll,
};
use mizzen_desired::{Component, FIELD_MANAGER, Manifest, MeshKey, ObjectId, ValidatedMesh, conflicts, drift, labels};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Everything is looked at again this often, should a watch ever have missed something.
const STEADY: Duration = Duration::from_secs(300);
/// Pods change without their Deployment changing; while something is broken its reason is kept fresh.
const UNREADY: Duration = Duration::from_secs(5);
/// Another mesh is in the way.
const BLOCKED: Duration = Duration::from_secs(20);

/// Why a reconciliation failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error("{0}")]
    Apply(#[from] ApplyError),
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("{0} objects are not as they should be")]
    Incomplete(usize),
}

type Live = BTreeMap<ObjectId, Option<Value>>;

pub(crate) async fn reconcile(
    seen: Arc<ServiceMeshControlPlane>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let api: Api<ServiceMeshControlPlane> =
        Api::namespaced(context.client.clone(), &seen.namespace().unwrap_or_default());
    // The watch may lag behind our own status; deciding on it would write the same twice.
    let Some(mesh) = api.get_opt(&seen.name_any()).await? else {
        return Ok(Action::await_change());
    };
    let all: Api<ServiceMeshControlPlane> = Api::all(context.client.clone());
    let older: Vec<_> = all
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .filter(|other| age(other) < age(&mesh))
        .collect();
    let in_the_way = conflicts(&mesh, &older);
    if mesh.metadata.deletion_timestamp.is_some() {
        return delete(&context, &api, &mesh, in_the_way.is_empty()).await;
    }
    let reconciliation = Reconciliation {
        context: &context,
        api: &api,
        mesh: &mesh,
    };
    if !in_the_way.is_empty() {
        let text = in_the_way
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        reconciliation.refuse(ConditionReason::ErrMultipleSmcps, text).await?;
        return Ok(Action::requeue(BLOCKED));
    }
    match ValidatedMesh::check(&mesh, &context.settings) {
        Ok(valid) => reconciliation.run(&valid).await,
        Err(errors) => {
            reconciliation
                .refuse(ConditionReason::ValidationError, errors.to_string())
                .await?;
            Ok(Action::await_change())
        }
    }
}

/// The older of two wins; of two made in the same second, the one whose uid sorts first.
fn age(mesh: &ServiceMeshControlPlane) -> (Option<i64>, Option<String>) {
    (
        mesh.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        mesh.uid(),
    )
}

struct Reconciliation<'a> {
    context: &'a Context,
    api: &'a Api<ServiceMeshControlPlane>,
    mesh: &'a ServiceMeshControlPlane,
}

impl Reconciliation<'_> {
    fn before(&self) -> ControlPlaneStatus {
        self.mesh.status.clone().unwrap_or_default()
    }

    fn facts<'f>(
        &self,
        mesh: Option<&'f ValidatedMesh>,
        progress: Progress,
        components: BTreeMap<Component, ComponentState>,
        now: &'f str,
    ) -> Facts<'f> {
        let generation = self.mesh.metadata.generation.unwrap_or_default();
        Facts {
            generation,
            operator_version: VERSION,
            mesh,
            progress,
            components,
            now,
        }
    }

    /// Reports why nothing is done; what runs keeps running.
    async fn refuse(&self, reason: ConditionReason, message: String) -> Result<(), ReconcileError> {
        let now = now();
        let progress = Progress::Failed(reason, message.clone());
        let next = status::next(&self.before(), &self.facts(None, progress, BTreeMap::new(), &now));
        if self.write(&next).await? {
            self.context
                .event(&about(self.mesh), true, &format!("{reason:?}"), &message)
                .await;
        }
        Ok(())
    }

    async fn run(&self, mesh: &ValidatedMesh) -> Result<Action, ReconcileError> {
        self.ensure_finalizer().await?;
        let manifests = mesh.manifests();
        let mut live = self.fetch(&manifests).await?;
        let phase = status::phase(
            &self.before(),
            self.mesh.metadata.generation.unwrap_or_default(),
            VERSION,
        );
        self.announce(mesh, phase, &manifests, &live).await?;

        namespaces_of_the_mesh(self.context, mesh).await?;
        let (failures, waiting) = self.apply(&manifests, &mut live).await;
        self.prune(mesh, &manifests).await?;
        if mesh.cluster_wide() {
            self.ensure_roll().await?;
        }
        namespaces::look_again(self.context, &mesh.key().namespace).await?;

        let mut components = components(&manifests, &live);
        self.explain(mesh, &mut components, &live).await?;
        let broken = components
            .values()
            .any(|state| state.pending || !state.broken.is_empty());
        let progress = if !failures.is_empty() {
            Progress::Failed(ConditionReason::ReconcileError, failures.join("; "))
        } else {
            waiting.map_or(Progress::Complete, |what| {
                let states = components
                    .iter()
                    .filter(|(component, _)| **component != Component::IstioIngress);
                let reasons = states.flat_map(|(_, state)| state.broken.values());
                let reasons: Vec<_> = reasons.map(String::as_str).collect();
                Progress::Waiting(format!("{what}; now: {}", reasons.join("; ")))
            })
        };
        self.report(mesh, phase, progress, components).await?;
        if !failures.is_empty() {
            return Err(ReconcileError::Incomplete(failures.len()));
        }
        Ok(Action::requeue(if broken { UNREADY } else { STEADY }))
    }

    async fn ensure_finalizer(&self) -> Result<(), ReconcileError> {
        if self.mesh.finalizers().iter().any(|f| f == labels::FINALIZER) {
            return Ok(());
        }
        let mut finalizers = self.mesh.finalizers().to_vec();
        finalizers.push(labels::FINALIZER.to_owned());
        self.patch_finalizers(&finalizers).await
    }

    /// Fails if somebody else wrote meanwhile, so that no finalizer of theirs is lost.
    async fn patch_finalizers(&self, finalizers: &[String]) -> Result<(), ReconcileError> {
        let patch = json!({
            "metadata": { "finalizers": finalizers, "resourceVersion": self.mesh.metadata.resource_version },
        });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.api
            .patch(&self.mesh.name_any(), &params, &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    async fn fetch(&self, manifests: &[Manifest]) -> Result<Live, ReconcileError> {
        let ids: Vec<_> = manifests.iter().map(|manifest| manifest.id().clone()).collect();
        let fetches = ids.into_iter().map(|id| {
            let client = self.context.client.clone();
            async move {
                let live = apply::fetch(&client, &id).await?;
                Ok::<_, ApplyError>((id, live))
            }
        });
        Ok(stream::iter(fetches).buffered(8).try_collect().await?)
    }

    /// Says that a new spec is being acted on, once.
    async fn announce(
        &self,
        mesh: &ValidatedMesh,
        phase: Phase,
        manifests: &[Manifest],
        live: &Live,
    ) -> Result<(), ReconcileError> {
        let before = self.before();
        let same = before.observed_generation == self.mesh.metadata.generation
            && before.operator_version.as_deref() == Some(VERSION);
        if same || phase == Phase::Steady {
            return Ok(());
        }
        let now = now();
        let facts = self.facts(Some(mesh), Progress::Started, components(manifests, live), &now);
        self.write(&status::next(&before, &facts)).await?;
        let (reason, note) = match phase {
            Phase::Installing => ("Installing", "the mesh is being installed"),
            _ => ("Updating", "the mesh is being updated"),
        };
        self.context.event(&about(self.mesh), false, reason, note).await;
        Ok(())
    }

    /// Brings every object to what it should be. One that fails does not keep the others from being right.
    async fn apply(&self, manifests: &[Manifest], live: &mut Live) -> (Vec<String>, Option<String>) {
        let mut failures = Vec::new();
        let mut waiting = None;
        for manifest in manifests {
            let id = manifest.id();
            let found = live.get(id).cloned().flatten();
            if found.is_none() && needs_control_plane(manifest) {
                let states = components(manifests, live);
                let ready = [Component::IstioDiscovery, Component::MeshConfig]
                    .iter()
                    .all(|component| {
                        states
                            .get(component)
                            .is_some_and(|state| state.broken.keys().all(|k| !gates(k)))
                    });
                if !ready {
                    waiting = Some(format!("{id} is made when the control plane works"));
                    continue;
                }
            }
            match apply::apply(&self.context.client, id, manifest.body(), found).await {
                Ok((done, now)) => {
                    self.wrote(id, done);
                    live.insert(id.clone(), Some(now));
                }
                Err(error) => {
                    tracing::warn!(%error, object = %id, "object not applied");
                    failures.push(error.to_string());
                }
            }
        }
        (failures, waiting)
    }

    fn wrote(&self, id: &ObjectId, done: Applied) {
        let write = match done {
            Applied::Right => return,
            Applied::Created | Applied::Changed => Wrote::Applied,
            Applied::Recreated => Wrote::Recreated,
        };
        tracing::info!(object = %id, ?done, "object written");
        self.context.metrics.wrote(write);
    }

    /// Deletes what the spec no longer asks for.
    async fn prune(&self, mesh: &ValidatedMesh, manifests: &[Manifest]) -> Result<(), ReconcileError> {
        let wanted: BTreeSet<_> = manifests.iter().map(Manifest::id).collect();
        let owned = apply::owned(&self.context.client, &labels::owned_selector(mesh.key())).await?;
        let extra: Vec<_> = owned.into_iter().filter(|id| !wanted.contains(id)).collect();
        for id in &extra {
            if delete_ours(self.context, id).await? {
                let note = format!("{id} is no longer asked for");
                self.context.event(&about(self.mesh), false, "Pruning", &note).await;
            }
        }
        Ok(())
    }

    /// A mesh of the whole cluster with no roll gets one: namespaces with injection on.
    async fn ensure_roll(&self) -> Result<(), ReconcileError> {
        let namespace = self.mesh.namespace().unwrap_or_default();
        let rolls: Api<ServiceMeshMemberRoll> = Api::namespaced(self.context.client.clone(), &namespace);
        if rolls.get_opt(SINGLETON_NAME).await?.is_some() {
            return Ok(());
        }
        let roll = json!({
            "apiVersion": "maistra.io/v1",
            "kind": "ServiceMeshMemberRoll",
            "metadata": {
                "name": SINGLETON_NAME,
                "namespace": namespace,
                "annotations": { (labels::CREATED_BY): "mizzen-operator" },
                "ownerReferences": self.mesh.controller_owner_ref(&()),
            },
            "spec": { "memberSelectors": [{ "matchLabels": { (labels::INJECTION): "enabled" } }] },
        });
        let mut roll: Value = roll;
        if let Some(owner) = roll.pointer_mut("/metadata/ownerReferences") {
            *owner = json!([owner.take()]);
        }
        match serde_json::from_value::<ServiceMeshMemberRoll>(roll) {
            Ok(roll) => match rolls.create(&PostParams::default(), &roll).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(kube::Error::SerdeError(error).into()),
        }
    }

    /// Adds to each Deployment that does not work what its pods say.
    async fn explain(
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

    async fn report(
        &self,
        mesh: &ValidatedMesh,
        phase: Phase,
        progress: Progress,
        components: BTreeMap<Component, ComponentState>,
    ) -> Result<(), ReconcileError> {
        // What was announced meanwhile is what this follows on.
        let current = self
            .api
            .get_opt(&self.mesh.name_any())
            .await?
            .and_then(|mesh| mesh.status)
            .unwrap_or_default();
        let was_ready = status::holds(&current, ConditionType::Ready);
        let now = now();
        let next = status::next(&current, &self.facts(Some(mesh), progress, components, &now));
        if current == next {
            return Ok(());
        }
        apply::status(self.api, &self.mesh.name_any(), &next).await?;
        let message = |kind| {
            status::condition(&next, kind)
                .and_then(|c| c.message.clone())
                .unwrap_or_default()
        };
        let about = about(self.mesh);
        let finished = |kind| status::holds(&next, kind) && !status::holds(&current, kind);
        if finished(ConditionType::Installed) {
            self.context
                .event(&about, false, "Installed", "all objects of the mesh were made")
                .await;
        } else if finished(ConditionType::Reconciled) && phase != Phase::Steady {
            self.context
                .event(&about, false, "Updated", &message(ConditionType::Reconciled))
                .await;
        }
        if finished(ConditionType::Ready) {
            self.context
                .event(&about, false, "Ready", &message(ConditionType::Ready))
                .await;
        } else if was_ready && !status::holds(&next, ConditionType::Ready) {
            self.context
                .event(&about, true, "NotReady", &message(ConditionType::Ready))
                .await;
        }
        Ok(())
    }

    /// Writes the status if it differs from what was read. Returns whether it did.
    async fn write(&self, next: &ControlPlaneStatus) -> Result<bool, ReconcileError> {
        if self.mesh.status.as_ref() == Some(next) {
            return Ok(false);
        }
        apply::status(self.api, &self.mesh.name_any(), next).await?;
        Ok(true)
    }
}

/// The mesh's own namespace belongs to it.
async fn namespaces_of_the_mesh(context: &Context, mesh: &ValidatedMesh) -> Result<(), ReconcileError> {
    let namespace = &mesh.key().namespace;
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(context.client.clone());
    let found = api.get(namespace).await?;
    if namespaces::membership(&found, namespace) != namespaces::Membership::Ours {
        namespaces::join(context, namespace, namespace).await?;
    }
    Ok(())
}

/// Gateways wait for certificates and routes, policies for the webhook that checks them.
fn needs_control_plane(manifest: &Manifest) -> bool {
    matches!(
        (manifest.component(), manifest.id().kind.as_str()),
        (Component::IstioIngress, "Deployment") | (_, "PeerAuthentication")
    )
}

/// What those wait for.
fn gates(resource: &str) -> bool {
    !resource.starts_with("PeerAuthentication/")
}

/// What each component is like, from its objects as they are.
fn components(manifests: &[Manifest], live: &Live) -> BTreeMap<Component, ComponentState> {
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

/// Deletes an object, if the operator made it.
async fn delete_ours(context: &Context, id: &ObjectId) -> Result<bool, ReconcileError> {
    let found = apply::fetch(&context.client, id).await?;
    if !found.as_ref().is_some_and(drift::is_ours) {
        return Ok(false);
    }
    apply::delete(&context.client, id).await?;
    tracing::info!(object = %id, "object deleted");
    context.metrics.wrote(Wrote::Deleted);
    Ok(true)
}

/// Removes all that the operator made for the mesh, then the finalizer. The Secret with the CA's key stays: it is the control
/// plane's data, and with it sidecars that still run are trusted when the mesh comes back.
async fn delete(
    context: &Context,
    api: &Api<ServiceMeshControlPlane>,
    mesh: &ServiceMeshControlPlane,
    was_acted_on: bool,
) -> Result<Action, ReconcileError> {
    if !mesh.finalizers().iter().any(|f| f == labels::FINALIZER) {
        return Ok(Action::await_change());
    }
    let key = MeshKey {
        namespace: mesh.namespace().unwrap_or_default(),
        name: mesh.name_any(),
    };
    let reconciliation = Reconciliation { context, api, mesh };
    if was_acted_on {
        let before = mesh
            .status
            .as_ref()
            .and_then(|s| status::condition(s, ConditionType::Reconciled));
        if before.and_then(|c| c.reason) != Some(ConditionReason::Deleting) {
            let now = now();
            let progress = Progress::Failed(ConditionReason::Deleting, "the mesh is being removed".to_owned());
            let facts = reconciliation.facts(None, progress, BTreeMap::new(), &now);
            reconciliation
                .write(&status::next(&reconciliation.before(), &facts))
                .await?;
            context
                .event(&about(mesh), false, "Deleting", "the mesh is being removed")
                .await;
        }
        let selector = labels::owned_selector(&key);
        let mut owned = apply::owned(&context.client, &selector).await?;
        // Webhooks first: without their control plane they would refuse pods and configuration.
        owned.sort_by_key(|id| !id.kind.ends_with("WebhookConfiguration"));
        let mut deleted = false;
        for id in &owned {
            deleted |= delete_ours(context, id).await?;
        }
        if deleted {
            return Ok(Action::requeue(Duration::from_millis(500)));
        }
        for namespace in namespaces::labelled(context, &key.namespace).await? {
            namespaces::release(context, &namespace.name_any(), &key.namespace).await?;
        }
        if namespaces::look_again(context, &key.namespace).await? {
            return Ok(Action::requeue(Duration::from_secs(1)));
        }
        delete_leases(context, &key).await?;
    }
    let finalizers: Vec<_> = mesh
        .finalizers()
        .iter()
        .filter(|f| *f != labels::FINALIZER)
        .cloned()
        .collect();
    // The status may have been written above: what is patched is the object as it is now.
    let Some(current) = api.get_opt(&key.name).await? else {
        return Ok(Action::await_change());
    };
    Reconciliation {
        context,
        api,
        mesh: &current,
    }
    .patch_finalizers(&finalizers)
    .await?;
    context
        .event(&about(mesh), false, "Deleted", "the mesh was removed")
        .await;
    Ok(Action::await_change())
}

/// The leases of the control plane's replicas, by name.
async fn delete_leases(context: &Context, key: &MeshKey) -> Result<(), ReconcileError> {
    let leases: Api<Lease> = Api::namespaced(context.client.clone(), &key.namespace);
    let prefix = format!("istiod-{}-", key.name);
    for lease in leases.list_metadata(&ListParams::default()).await?.items {
        let name = lease.name_any();
        if name.starts_with(&prefix) {
            match leases.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
