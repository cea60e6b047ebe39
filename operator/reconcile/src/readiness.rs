//! Whether a component works, and if not, why: from the objects as they are.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::Value;

/// Whether an object works. `Err` says in a sentence why it does not.
pub type Works = Result<(), String>;

/// A Deployment works when the pods of its newest template are all there.
///
/// # Errors
/// Why it does not.
pub fn deployment(live: &Value) -> Works {
    let deployment: Deployment = serde_json::from_value(live.clone()).map_err(|error| error.to_string())?;
    let name = deployment.metadata.name.clone().unwrap_or_default();
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        return Err(format!("Deployment {name}: its newest version is not looked at yet"));
    }
    let updated = status.updated_replicas.unwrap_or_default();
    let available = status.available_replicas.unwrap_or_default();
    if updated >= wanted && available >= wanted && status.replicas.unwrap_or_default() <= updated {
        return Ok(());
    }
    let refused = status.conditions.iter().flatten().find(|condition| {
        (condition.type_ == "ReplicaFailure" && condition.status == "True")
            || (condition.type_ == "Progressing" && condition.status == "False")
    });
    let why = refused
        .and_then(|condition| condition.message.clone())
        .map(|m| format!(": {m}"))
        .unwrap_or_default();
    Err(format!(
        "Deployment {name}: {available} of {wanted} pods available, {updated} up to date{why}"
    ))
}

/// A webhook configuration works when each of its webhooks can be called: somebody wrote the CA bundle.
///
/// # Errors
/// Why it does not.
pub fn webhooks(live: &Value) -> Works {
    let name = live
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let webhooks = live.get("webhooks").and_then(Value::as_array).into_iter().flatten();
    let without = webhooks
        .filter(|webhook| {
            webhook
                .pointer("/clientConfig/caBundle")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .is_empty()
        })
        .count();
    if without == 0 {
        Ok(())
    } else {
        Err(format!("{name}: the control plane has not written its CA bundle yet"))
    }
}

/// What is wrong with a pod, if anything, in a sentence that says what to do.
#[must_use]
pub fn pod(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let containers = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    if let Some(reason) = containers.filter(|container| !container.ready).find_map(container) {
        return Some(format!("pod {name}: {reason}"));
    }
    let unplaced = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    let message = unplaced?.message.clone().unwrap_or_default();
    Some(format!("pod {name} has no node: {message}"))
}

fn container(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    let name = &status.name;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().unwrap_or_default();
        return match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => Some(format!(
                "the image {} cannot be pulled ({message}); check registry, tag and imagePullSecrets",
                status.image
            )),
            "CrashLoopBackOff" => {
                let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
                let code = last
                    .map(|last| format!(" with exit code {}", last.exit_code))
                    .unwrap_or_default();
                Some(format!(
                    "container {name} ended {} times{code}; see kubectl logs --previous",
                    status.restart_count
                ))
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Some(format!("container {name} cannot be made: {message}"))
            }
            _ => None,
        };
    }
    if let Some(ended) = &state.terminated {
        return (ended.exit_code != 0).then(|| format!("container {name} ended with exit code {}", ended.exit_code));
    }
    Some(format!("container {name} runs and is not ready"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(generation: i64, observed: i64, updated: i32, available: i32, all: i32) -> Value {
        json!({
            "metadata": {"name": "istiod-basic", "generation": generation},
            "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": {"observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available,
                       "replicas": all},
        })
    }

    // A1
    #[test]
    fn a_deployment_works_when_all_pods_of_its_newest_template_are_available() {
        assert_eq!(deployment(&state(2, 2, 2, 2, 2)), Ok(()));
        for not_yet in [
            state(3, 2, 2, 2, 2),
            state(2, 2, 1, 2, 2),
            state(2, 2, 2, 1, 2),
            state(2, 2, 2, 2, 3),
        ] {
            assert!(deployment(&not_yet).is_err(), "{not_yet}");
        }
        assert_eq!(
            deployment(&state(2, 2, 2, 1, 2)).unwrap_err(),
            "Deployment istiod-basic: 1 of 2 pods available, 2 up to date"
        );
    }

    #[test]
    fn a_webhook_without_a_bundle_does_not_work() {
        let with =
            |bundle: &str| json!({"metadata": {"name": "w"}, "webhooks": [{"clientConfig": {"caBundle": bundle}}]});
        assert_eq!(webhooks(&with("eA==")), Ok(()));
        assert!(webhooks(&with("")).is_err());
        assert!(webhooks(&json!({"metadata": {"name": "w"}, "webhooks": [{"clientConfig": {}}]})).is_err());
    }

    #[test]
    fn a_pod_says_why_it_does_not_start() {
        let waiting: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "status": {"containerStatuses": [{"name": "c", "image": "r/i:1", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]},
        }))
        .unwrap();
        assert_eq!(
            pod(&waiting).unwrap(),
            "pod p: the image r/i:1 cannot be pulled (not found); check registry, tag and imagePullSecrets"
        );
    }
}
