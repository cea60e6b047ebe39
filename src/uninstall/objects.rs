//! Reading and deleting objects of any kind.

use crate::connect::refused;
use crate::failure::Failure;
use crate::install::manifests::{INSTALLED, INSTALLER};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use mizzen_desired::labels;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;

pub(super) fn failed(error: &kube::Error) -> Failure {
    refused("the cluster refuses", error)
}

pub(super) fn installed(object: &DynamicObject) -> bool {
    object.labels().get(INSTALLED).is_some_and(|by| by == INSTALLER)
}

/// All objects of a kind; none if the cluster does not have the kind.
pub(super) async fn list<K>(client: &Client) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    match Api::<K>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(failed(&error)),
    }
}

pub(super) async fn strip_finalizer<K>(client: &Client, object: &K) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let finalizers: Vec<_> = object.finalizers().iter().filter(|f| *f != labels::FINALIZER).collect();
    if finalizers.len() == object.finalizers().len() {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let patch = json!({ "metadata": { "finalizers": finalizers } });
    ignore_missing(
        api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await,
    )
}

pub(super) fn ignore_missing<T>(done: Result<T, kube::Error>) -> Result<(), Failure> {
    match done {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(&error)),
    }
}

/// `namespace/name` of every object of a CRD.
pub(super) async fn objects_of(client: &Client, crd: &CustomResourceDefinition) -> Result<Vec<String>, Failure> {
    let Some(version) = crd.spec.versions.iter().find(|v| v.served) else {
        return Ok(Vec::new());
    };
    let resource = ApiResource {
        group: crd.spec.group.clone(),
        version: version.name.clone(),
        api_version: format!("{}/{}", crd.spec.group, version.name),
        kind: crd.spec.names.kind.clone(),
        plural: crd.spec.names.plural.clone(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let objects = api
        .list_metadata(&ListParams::default())
        .await
        .map_err(|e| failed(&e))?
        .items;
    let alive = objects
        .iter()
        .filter(|object| object.metadata.deletion_timestamp.is_none());
    Ok(alive
        .map(|o| format!("{}/{}", o.namespace().unwrap_or_default(), o.name_any()))
        .collect())
}
