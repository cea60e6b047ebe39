//! Namespaces of a mesh: joining, leaving, and what is cleaned away.

use crate::context::Context;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use mizzen_desired::{FIELD_MANAGER, labels};
use serde_json::{Value, json};

/// The trust bundle that the control plane writes into each member.
const TRUST_BUNDLE: &str = "istio-ca-root-cert";

/// What a namespace is to a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// It belongs to the mesh.
    Ours,
    /// It belongs to another one.
    Theirs,
    /// It belongs to none.
    None,
}

pub(crate) fn membership(namespace: &Namespace, mesh_namespace: &str) -> Membership {
    match namespace.labels().get(labels::MEMBER_OF) {
        Some(mesh) if mesh == mesh_namespace => Membership::Ours,
        Some(_) => Membership::Theirs,
        None => Membership::None,
    }
}

/// Whether the namespace is going away: nothing can be made in it any more.
pub(crate) fn terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

pub(crate) async fn all(context: &Context) -> kube::Result<Vec<Namespace>> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    Ok(api.list(&ListParams::default()).await?.items)
}

/// Those that carry the label of a mesh.
pub(crate) async fn labelled(context: &Context, mesh_namespace: &str) -> kube::Result<Vec<Namespace>> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    let members = ListParams::default().labels(&format!("{}={mesh_namespace}", labels::MEMBER_OF));
    Ok(api.list(&members).await?.items)
}

/// Puts the namespace into the mesh.
pub(crate) async fn join(context: &Context, name: &str, mesh_namespace: &str) -> kube::Result<()> {
    tracing::info!(namespace = name, mesh = mesh_namespace, "namespace joins");
    label(context, name, json!(mesh_namespace)).await
}

/// Takes the namespace out of the mesh and removes what the mesh wrote into it.
pub(crate) async fn release(context: &Context, name: &str, mesh_namespace: &str) -> kube::Result<()> {
    tracing::info!(namespace = name, mesh = mesh_namespace, "namespace leaves");
    // The label first: the control plane repairs the bundle for as long as it sees a member.
    match label(context, name, Value::Null).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        other => other?,
    }
    clean(context, name, mesh_namespace).await?;
    context
        .leaving
        .lock()
        .insert((mesh_namespace.to_owned(), name.to_owned()));
    Ok(())
}

/// Looks once more at namespaces that left a mesh. Returns whether there were any.
pub(crate) async fn look_again(context: &Context, mesh_namespace: &str) -> kube::Result<bool> {
    let left: Vec<_> = context
        .leaving
        .lock()
        .iter()
        .filter(|(mesh, _)| mesh == mesh_namespace)
        .cloned()
        .collect();
    let api: Api<Namespace> = Api::all(context.client.clone());
    for entry in &left {
        let found = api.get_opt(&entry.1).await?;
        if found.is_some_and(|namespace| membership(&namespace, mesh_namespace) == Membership::None) {
            clean(context, &entry.1, mesh_namespace).await?;
        }
        context.leaving.lock().remove(entry);
    }
    Ok(!left.is_empty())
}

/// Deletes the trust bundle, if it is this mesh's: the control plane labels what it writes.
pub(crate) async fn clean(context: &Context, namespace: &str, mesh_namespace: &str) -> kube::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let Some(bundle) = api.get_opt(TRUST_BUNDLE).await? else {
        return Ok(());
    };
    if bundle
        .labels()
        .get(labels::MEMBER_OF)
        .is_none_or(|mesh| mesh != mesh_namespace)
    {
        return Ok(());
    }
    match api.delete(TRUST_BUNDLE, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn label(context: &Context, name: &str, value: Value) -> kube::Result<()> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = json!({ "metadata": { "labels": { (labels::MEMBER_OF): value } } });
    api.patch(name, &params, &Patch::Merge(patch)).await.map(drop)
}
