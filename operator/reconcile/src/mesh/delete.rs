//! The end of a mesh, and of single objects of it.

use super::{ReconcileError, Reconciliation};
use crate::apply;
use crate::context::{Context, about, now};
use crate::metrics::Wrote;
use crate::namespaces;
use crate::status::{self, Progress};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use mizzen_crds::maistra::{ConditionReason, ConditionType, ServiceMeshControlPlane};
use mizzen_desired::{MeshKey, ObjectId, drift, labels};
use std::collections::BTreeMap;
use std::time::Duration;

/// Deletes an object, if the operator made it.
pub(super) async fn delete_ours(context: &Context, id: &ObjectId) -> Result<bool, ReconcileError> {
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
pub(super) async fn delete(
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
