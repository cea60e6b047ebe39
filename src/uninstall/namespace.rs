//! Namespaces that install made: whether somebody else uses them, and their end.

use super::Removal;
use super::objects::{failed, ignore_missing, list};
use crate::failure::Failure;
use crate::install::manifests::{INSTALLED, INSTALLER};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use mizzen_crds::maistra::{ServiceMeshMember, ServiceMeshMemberRoll};
use mizzen_desired::labels;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::Instant;

const LOOK: Duration = Duration::from_millis(200);
/// Longer than the grace period of pods that say nothing.
const PODS_END: Duration = Duration::from_secs(45);

impl Removal<'_> {
    /// Removes a namespace that install made, unless something of the user's is in it. Returns whether it goes.
    pub(super) async fn namespace(&mut self, client: &Client, name: &str) -> Result<bool, Failure> {
        let api: Api<Namespace> = Api::all(client.clone());
        let Some(found) = api.get_opt(name).await.map_err(|e| failed(&e))? else {
            return Ok(false);
        };
        if found.labels().get(INSTALLED).is_none_or(|by| by != INSTALLER) {
            self.left
                .push((format!("namespace {name}"), "install did not make it".to_owned()));
            return Ok(false);
        }
        let users = users_objects(client, name).await?;
        if users.is_empty() || self.args.purge {
            if users.is_empty() {
                self.pods_end(name).await?;
            }
            ignore_missing(api.delete(name, &DeleteParams::default()).await)?;
            return Ok(true);
        }
        let why = format!("it holds {}", users.join(", "));
        self.left.push((format!("namespace {name}"), why));
        Ok(false)
    }

    /// Waits until the pods, whose owners were deleted, have ended. Kubernetes looks again at a namespace that was deleted
    /// while its pods ended only after half of their grace period: 16 s for the usual 30 s, however soon they end.
    pub(super) async fn pods_end(&mut self, namespace: &str) -> Result<(), Failure> {
        let api: Api<Pod> = Api::namespaced(self.client(), namespace);
        let deadline = Instant::now() + self.args.timeout.min(PODS_END);
        // What takes longer the namespace waits for.
        while Instant::now() < deadline {
            let pods = api.list_metadata(&ListParams::default()).await;
            if pods.map_err(|e| failed(&e))?.items.is_empty() {
                break;
            }
            self.progress.note(&format!("the pods of {namespace} end"));
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until a namespace is gone.
    pub(super) async fn gone(&mut self, namespace: &str) -> Result<(), Failure> {
        let api: Api<Namespace> = Api::all(self.client());
        let deadline = Instant::now() + self.args.timeout;
        while api.get_opt(namespace).await.map_err(|e| failed(&e))?.is_some() {
            if Instant::now() > deadline {
                let remedy = format!("see what holds it: kubectl describe namespace {namespace}");
                return Err(Failure::new(
                    format!("namespace {namespace} does not go"),
                    "it is still there",
                    remedy,
                ));
            }
            self.progress.note(&format!("namespace {namespace} goes"));
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// What users have in a namespace: what runs there, what it needs, and the mesh's kinds.
async fn users_objects(client: &Client, namespace: &str) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    names::<Deployment>(client, namespace, |_| true, &mut found).await?;
    names::<StatefulSet>(client, namespace, |_| true, &mut found).await?;
    names::<DaemonSet>(client, namespace, |_| true, &mut found).await?;
    names::<CronJob>(client, namespace, |_| true, &mut found).await?;
    names::<Job>(client, namespace, unowned, &mut found).await?;
    names::<Pod>(client, namespace, unowned, &mut found).await?;
    names::<PersistentVolumeClaim>(client, namespace, unowned, &mut found).await?;
    names::<Service>(client, namespace, |_| true, &mut found).await?;
    names::<ConfigMap>(client, namespace, |o| !is_root(o), &mut found).await?;
    names::<Secret>(client, namespace, |_| true, &mut found).await?;
    for roll in list::<ServiceMeshMemberRoll>(client).await? {
        if roll.namespace().as_deref() == Some(namespace) && roll.metadata.deletion_timestamp.is_none() {
            found.push(format!("ServiceMeshMemberRoll {}", roll.name_any()));
        }
    }
    for member in list::<ServiceMeshMember>(client).await? {
        if member.namespace().as_deref() == Some(namespace) {
            found.push(format!("ServiceMeshMember {}", member.name_any()));
        }
    }
    for (kind, plural, group) in [
        ("VirtualService", "virtualservices", "networking.istio.io"),
        ("DestinationRule", "destinationrules", "networking.istio.io"),
        ("Gateway", "gateways", "networking.istio.io"),
        ("PeerAuthentication", "peerauthentications", "security.istio.io"),
    ] {
        let resource = ApiResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            api_version: format!("{group}/v1"),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        match api.list_metadata(&ListParams::default()).await {
            Ok(list) => found.extend(list.items.iter().map(|o| format!("{kind} {}", o.name_any()))),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(found)
}

/// Whether nothing else brings the object forth.
fn unowned(object: &ObjectMeta) -> bool {
    object.owner_references.as_ref().is_none_or(Vec::is_empty)
}

/// Whether it is a ConfigMap with a root certificate, which Kubernetes and the mesh write into every namespace.
fn is_root(object: &ObjectMeta) -> bool {
    matches!(object.name.as_deref(), Some("kube-root-ca.crt" | "istio-ca-root-cert"))
}

async fn names<K>(
    client: &Client,
    namespace: &str,
    counts: fn(&ObjectMeta) -> bool,
    found: &mut Vec<String>,
) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let objects = Api::<K>::namespaced(client.clone(), namespace)
        .list_metadata(&ListParams::default())
        .await;
    for object in objects.map_err(|e| failed(&e))? {
        let stays = object.metadata.deletion_timestamp.is_none() && !object.labels().contains_key(labels::OWNER);
        if stays && counts(&object.metadata) {
            found.push(format!("{} {}", K::kind(&()), object.name_any()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
