//! Namespaces that install made: whether somebody else uses them, and their end.

use super::Removal;
use super::objects::{failed, ignore_missing, list};
use crate::failure::Failure;
use crate::install::manifests::{INSTALLED, INSTALLER};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use mizzen_crds::maistra::{ServiceMeshMember, ServiceMeshMemberRoll};
use mizzen_desired::labels;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::Instant;

impl Removal<'_> {
    /// Removes a namespace that install made, unless something of the user's is in it.
    pub(super) async fn namespace(&mut self, client: &Client, name: &str) -> Result<(), Failure> {
        let api: Api<Namespace> = Api::all(client.clone());
        let Some(found) = api.get_opt(name).await.map_err(|e| failed(&e))? else {
            return Ok(());
        };
        if found.labels().get(INSTALLED).is_none_or(|by| by != INSTALLER) {
            self.left
                .push((format!("namespace {name}"), "install did not make it".to_owned()));
            return Ok(());
        }
        let users = users_objects(client, name).await?;
        if users.is_empty() || self.args.purge {
            ignore_missing(api.delete(name, &DeleteParams::default()).await)?;
            return self.gone(name).await;
        }
        let why = format!("it holds {}", users.join(", "));
        self.left.push((format!("namespace {name}"), why));
        Ok(())
    }

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
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }
}

/// What users have in a namespace: what runs there, what it needs, and the mesh's kinds.
async fn users_objects(client: &Client, namespace: &str) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    names::<Deployment>(client, namespace, |_| true, &mut found).await?;
    names::<Service>(client, namespace, |_| true, &mut found).await?;
    names::<ConfigMap>(
        client,
        namespace,
        |o| !matches!(o, "kube-root-ca.crt" | "istio-ca-root-cert"),
        &mut found,
    )
    .await?;
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

async fn names<K>(
    client: &Client,
    namespace: &str,
    counts: fn(&str) -> bool,
    found: &mut Vec<String>,
) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let objects = Api::<K>::namespaced(client.clone(), namespace)
        .list_metadata(&ListParams::default())
        .await;
    for object in objects.map_err(|e| failed(&e))? {
        let name = object.name_any();
        if object.metadata.deletion_timestamp.is_none() && counts(&name) && !object.labels().contains_key(labels::OWNER)
        {
            found.push(format!("{} {name}", K::kind(&())));
        }
    }
    Ok(())
}
