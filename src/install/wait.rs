//! Waiting until something works, and finding out why it does not.

use super::progress::Progress;
use crate::connect::refused;
use crate::failure::Failure;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt};
use mizzen_operator::readiness;
use std::time::Duration;
use tokio::time::Instant;

const LOOK: Duration = Duration::from_millis(500);
/// Pods that fail get this long to recover: an image that arrives late, a program that waits for another by restarting.
const PATIENCE: Duration = Duration::from_secs(30);
const LOG_LINES: i64 = 12;

/// Remembers for how long a pod has been in a state that seldom ends well.
#[derive(Default)]
pub(crate) struct Patience {
    since: Option<Instant>,
}

impl Patience {
    /// Whether it has lasted too long. A moment without trouble starts it anew.
    pub(crate) fn ends(&mut self, hopeless: bool) -> bool {
        if !hopeless {
            self.since = None;
            return false;
        }
        self.since.get_or_insert_with(Instant::now).elapsed() > PATIENCE
    }
}

/// Waits until a Deployment works.
pub(crate) async fn deployment(
    client: &Client,
    namespace: &str,
    name: &str,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let mut patience = Patience::default();
    loop {
        let found = api
            .get(name)
            .await
            .map_err(|error| refused(&format!("Deployment {name} cannot be read"), &error))?;
        let why = match readiness::deployment(&serde_json::to_value(&found).unwrap_or_default()) {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        let pods = pods_of(client, namespace, &found).await;
        let reason = pods.iter().find_map(readiness::pod);
        progress.note(reason.as_deref().unwrap_or(&why));
        if patience.ends(pods.iter().any(hopeless)) || Instant::now() > deadline {
            let what = format!("{namespace}/{name} does not become ready");
            return Err(explain(client, namespace, what, why, &pods).await);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The pods of a Deployment.
async fn pods_of(client: &Client, namespace: &str, deployment: &Deployment) -> Vec<Pod> {
    let labels = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.clone())
        .unwrap_or_default();
    let selector = labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",");
    pods(client, namespace, &selector).await
}

/// Pods by their labels; none if they cannot be listed.
pub(crate) async fn pods(client: &Client, namespace: &str, selector: &str) -> Vec<Pod> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    api.list(&ListParams::default().labels(selector))
        .await
        .map(|list| list.items)
        .unwrap_or_default()
}

/// Whether a pod is in a state that time alone seldom ends.
pub(crate) fn hopeless(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status
        .iter()
        .flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten());
    containers.into_iter().any(|container| {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        matches!(
            waiting.and_then(|waiting| waiting.reason.as_deref()),
            Some("ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "CrashLoopBackOff")
        )
    })
}

/// A failure with what the pods say and the last lines of the first one that has any.
pub(crate) async fn explain(client: &Client, namespace: &str, what: String, why: String, pods: &[Pod]) -> Failure {
    let mut failure = Failure::new(what, why, "");
    let broken: Vec<_> = pods
        .iter()
        .filter_map(|pod| Some((pod, readiness::pod(pod)?)))
        .collect();
    failure.why.extend(broken.iter().map(|(_, reason)| reason.clone()));
    for (pod, _) in &broken {
        failure.log = last_lines(client, namespace, pod).await;
        if !failure.log.is_empty() {
            break;
        }
    }
    let image = failure.why.iter().any(|why| why.contains("cannot be pulled"));
    let crash = failure.why.iter().any(|why| why.contains(" ended "));
    failure.remedy = if image {
        "load the image into the nodes, or name where it is with --registry and --tag, and install again".to_owned()
    } else if crash {
        format!("read the whole log: kubectl logs -n {namespace} <pod> --previous")
    } else {
        format!("look at the pods: kubectl describe pods -n {namespace}; give more time with --timeout")
    };
    failure
}

/// The last lines of the container of a pod that is not ready; of its previous run if it keeps ending.
async fn last_lines(client: &Client, namespace: &str, pod: &Pod) -> Vec<String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let Some(status) = pod.status.as_ref() else {
        return Vec::new();
    };
    let mut containers = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    let Some(container) = containers.find(|c| !c.ready && (c.restart_count > 0 || c.started == Some(true))) else {
        return Vec::new();
    };
    let params = LogParams {
        container: Some(container.name.clone()),
        tail_lines: Some(LOG_LINES),
        previous: container.restart_count > 0,
        ..LogParams::default()
    };
    let text = api.logs(&pod.name_any(), &params).await.unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
