//! Namespaces that install made: whether somebody else uses them, and their end.

use super::Removal;
use super::objects::{failed, ignore_missing};
use crate::failure::Failure;
use crate::install::manifests::{INSTALLED, INSTALLER};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client, ResourceExt};
use mizzen_desired::labels;
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

/// Kinds whose objects come and go by themselves, or that stand for others.
const FLEETING: [&str; 4] = ["Endpoints", "EndpointSlice", "Event", "Lease"];
/// Kinds whose objects count only if nothing else brought them forth.
const BROUGHT_FORTH: [&str; 5] = [
    "ControllerRevision",
    "Job",
    "PersistentVolumeClaim",
    "Pod",
    "ReplicaSet",
];

/// What users have in a namespace, of any kind that the cluster knows: all of it would go with the namespace.
async fn users_objects(client: &Client, namespace: &str) -> Result<Vec<String>, Failure> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await;
    let discovery = discovery.map_err(|e| failed(&e))?;
    let mut found = Vec::new();
    for group in discovery.groups_alphabetical() {
        for (resource, capabilities) in group.resources_by_stability() {
            // What cannot be deleted is a view of something else.
            if capabilities.scope == Scope::Namespaced
                && capabilities.supports_operation(verbs::LIST)
                && capabilities.supports_operation(verbs::DELETE)
                && !FLEETING.contains(&resource.kind.as_str())
            {
                names(client, namespace, &resource, &mut found).await?;
            }
        }
    }
    found.sort();
    Ok(found)
}

async fn names(
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
    found: &mut Vec<String>,
) -> Result<(), Failure> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let objects = match api.list_metadata(&ListParams::default()).await {
        Ok(objects) => objects,
        // The kind has gone meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(failed(&error)),
    };
    let of_users = objects
        .items
        .iter()
        .filter(|object| is_users(&resource.kind, &object.metadata));
    found.extend(of_users.map(|object| format!("{} {}", resource.kind, object.name_any())));
    Ok(())
}

/// Whether neither Kubernetes nor the mesh made the object.
fn is_users(kind: &str, object: &ObjectMeta) -> bool {
    let has = |key: &str| object.labels.as_ref().is_some_and(|labels| labels.contains_key(key));
    let everywhere = matches!(
        (kind, object.name.as_deref()),
        ("ConfigMap", Some("kube-root-ca.crt" | "istio-ca-root-cert")) | ("ServiceAccount", Some("default"))
    );
    let unowned = object.owner_references.as_ref().is_none_or(Vec::is_empty);
    object.deletion_timestamp.is_none()
        && !has(labels::OWNER)
        && !everywhere
        && (unowned || !BROUGHT_FORTH.contains(&kind))
}

#[cfg(test)]
mod tests;
