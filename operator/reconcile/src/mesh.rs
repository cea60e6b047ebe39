//! The controller of ServiceMeshControlPlanes.

mod components;
mod delete;
mod report;

use crate::apply::{self, Applied, ApplyError};
use crate::context::{Context, VERSION, about};
use crate::metrics::Wrote;
use crate::namespaces;
use crate::status::{self, Progress};
use components::{components, gates, needs_control_plane};
use delete::{delete, delete_ours};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use mizzen_crds::maistra::{ConditionReason, SINGLETON_NAME, ServiceMeshControlPlane, ServiceMeshMemberRoll};
use mizzen_desired::{Component, FIELD_MANAGER, Manifest, ObjectId, ValidatedMesh, conflicts, labels};
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
