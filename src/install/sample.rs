//! The sample: its namespace joins the mesh, then its applications are made and waited for.

use super::cluster::describe;
use super::progress::Progress;
use super::{Installation, built_in, manifests, wait};
use crate::connect::refused;
use crate::failure::Failure;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use mizzen_crds::maistra::{SINGLETON_NAME, ServiceMeshMemberRoll};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

pub(super) async fn install(installation: &mut Installation<'_>, name: &str) -> Result<(), Failure> {
    installation.progress.start("sample");
    let deadline = installation.deadline();
    let mesh_namespace = installation.args.namespace.clone();
    let sample = built_in(manifests::sample(name, &mesh_namespace, installation.images))?;
    for mut object in sample.place {
        if manifests::text(&object, "/kind") == "ServiceMeshMemberRoll" {
            keep_members(&installation.cluster.client, &mut object).await?;
        }
        installation.cluster.apply(&object, deadline).await?;
    }
    let client = installation.cluster.client.clone();
    joined(
        &client,
        &mesh_namespace,
        sample.namespace,
        deadline,
        installation.progress,
    )
    .await?;
    for object in &sample.objects {
        installation.progress.spin(&describe(object));
        installation.cluster.apply(object, deadline).await?;
    }
    let deployments: Vec<_> = sample
        .objects
        .iter()
        .filter(|object| manifests::text(object, "/kind") == "Deployment")
        .map(|object| manifests::text(object, "/metadata/name"))
        .collect();
    for name in &deployments {
        wait::deployment(&client, sample.namespace, name, deadline, installation.progress).await?;
    }
    let containers = containers(installation, sample.namespace).await?;
    let detail = format!("{name}: {} ({containers} containers each)", deployments.join(", "));
    let count = deployments.len();
    installation.progress.done(&format!("ready {count}/{count}"), &detail);
    Ok(())
}

/// The roll is one list: members that it has already stay in it.
pub(crate) async fn keep_members(client: &Client, roll: &mut Value) -> Result<(), Failure> {
    let namespace = manifests::text(roll, "/metadata/namespace");
    let api: Api<ServiceMeshMemberRoll> = Api::namespaced(client.clone(), namespace);
    let found = api
        .get_opt(SINGLETON_NAME)
        .await
        .map_err(|error| refused("the member roll cannot be read", &error))?;
    let Some(found) = found else { return Ok(()) };
    let wanted = roll
        .pointer("/spec/members")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned);
    let members: BTreeSet<String> = found.spec.members.into_iter().flatten().chain(wanted).collect();
    manifests::set(roll, &["spec", "members"], json!(members));
    // A roll that was there before is the user's, and is not removed with the sample.
    if let Some(labels) = roll.pointer_mut("/metadata/labels").and_then(Value::as_object_mut)
        && !found
            .metadata
            .labels
            .unwrap_or_default()
            .contains_key(manifests::INSTALLED)
    {
        labels.remove(manifests::INSTALLED);
    }
    Ok(())
}

/// Waits until the namespace belongs to the mesh: pods that start earlier would have no sidecar.
pub(crate) async fn joined(
    client: &Client,
    mesh: &str,
    namespace: &str,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let api: Api<Namespace> = Api::all(client.clone());
    loop {
        let found = api
            .get(namespace)
            .await
            .map_err(|error| refused("the namespace cannot be read", &error))?;
        match found.labels().get("maistra.io/member-of") {
            Some(of) if of == mesh => return Ok(()),
            Some(of) => {
                let why = format!("namespace {namespace} belongs to the mesh of namespace {of}");
                return Err(Failure::new(
                    "the namespace cannot join the mesh",
                    why,
                    "take it out of the other mesh first",
                ));
            }
            None => {}
        }
        if Instant::now() > deadline {
            let why = format!("namespace {namespace} was not put into the mesh");
            let remedy = format!("see why: kubectl describe smmr -n {mesh} default");
            return Err(Failure::new("the namespace cannot join the mesh", why, remedy));
        }
        progress.note("the namespace joins the mesh");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// `2/2`: how many containers of a pod are ready and how many there are, sidecars among init containers counted.
async fn containers(installation: &Installation<'_>, namespace: &str) -> Result<String, Failure> {
    let api: Api<Pod> = Api::namespaced(installation.cluster.client.clone(), namespace);
    let params = ListParams::default().fields("status.phase=Running");
    let pods = api
        .list(&params)
        .await
        .map_err(|error| refused("the pods cannot be listed", &error))?
        .items;
    let counts: BTreeSet<_> = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(count)
        .collect();
    let texts: Vec<_> = counts.iter().map(|(ready, all)| format!("{ready}/{all}")).collect();
    Ok(texts.join(", "))
}

fn count(pod: &Pod) -> (usize, usize) {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let sidecars: BTreeSet<&str> = spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let all = spec.map_or(0, |spec| spec.containers.len()) + sidecars.len();
    let main = status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .filter(|c| c.ready);
    let init = status
        .iter()
        .flat_map(|status| status.init_container_statuses.iter().flatten());
    let init = init.filter(|c| c.ready && sidecars.contains(c.name.as_str()));
    (main.count() + init.count(), all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecars_count_wherever_they_are() {
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [{"name": "a"}],
                     "initContainers": [{"name": "istio-init"}, {"name": "istio-proxy", "restartPolicy": "Always"}]},
            "status": {
                "containerStatuses": [{"name": "a", "ready": true, "image": "", "imageID": "", "restartCount": 0}],
                "initContainerStatuses": [
                    {"name": "istio-init", "ready": true, "image": "", "imageID": "", "restartCount": 0},
                    {"name": "istio-proxy", "ready": true, "image": "", "imageID": "", "restartCount": 0},
                ]},
        }))
        .unwrap();
        assert_eq!(count(&pod), (2, 2));
    }
}
