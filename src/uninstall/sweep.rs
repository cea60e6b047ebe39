//! What the operator would remove, where there is none.

use super::Removal;
use super::objects::{failed, ignore_missing, list, strip_finalizer};
use crate::failure::Failure;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use mizzen_crds::maistra::ServiceMeshControlPlane;
use mizzen_desired::{drift, labels};
use mizzen_operator::apply;
use serde_json::json;

impl Removal<'_> {
    /// What the operator would do, without it.
    pub(super) async fn sweep(&mut self, client: &Client) -> Result<(), Failure> {
        let remedy = "run the command again";
        let wrong = |error: apply::ApplyError| Failure::new("an object cannot be removed", error.to_string(), remedy);
        let mut owned = apply::owned(client, labels::OWNER).await.map_err(wrong)?;
        owned.sort_by_key(|id| !id.kind.ends_with("WebhookConfiguration"));
        for id in owned {
            if apply::fetch(client, &id)
                .await
                .map_err(wrong)?
                .as_ref()
                .is_some_and(drift::is_ours)
            {
                apply::delete(client, &id).await.map_err(wrong)?;
            }
        }
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let members = ListParams::default().labels(labels::MEMBER_OF);
        for namespace in namespaces.list(&members).await.map_err(|e| failed(&e))? {
            let name = namespace.name_any();
            let patch = json!({ "metadata": { "labels": { (labels::MEMBER_OF): null } } });
            namespaces
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(|e| failed(&e))?;
            let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &name);
            let bundle = maps.get_opt("istio-ca-root-cert").await.map_err(|e| failed(&e))?;
            if bundle.is_some_and(|bundle| bundle.labels().contains_key(labels::MEMBER_OF)) {
                ignore_missing(maps.delete("istio-ca-root-cert", &DeleteParams::default()).await)?;
            }
        }
        for mesh in list::<ServiceMeshControlPlane>(client).await? {
            strip_finalizer(client, &mesh).await?;
        }
        Ok(())
    }
}
