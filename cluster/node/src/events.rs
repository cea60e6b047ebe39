//! Events about pods: what happened comes in, Event objects go out; the same thing again raises the count of its event.

use std::collections::{HashMap, VecDeque};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::mpsc;

/// Waiting events, and remembered ones; both bounded.
const QUEUE: usize = 256;
const REMEMBERED: usize = 1024;

/// Where events are told.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(mpsc::Sender<Told>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    field: Option<String>,
    reason: &'static str,
    message: String,
}

#[derive(Debug)]
struct Told {
    key: Key,
    about: ObjectReference,
    warning: bool,
    at: Timestamp,
}

impl Recorder {
    /// Starts the task that writes; it ends when the last recorder is dropped.
    pub(crate) fn start(client: Client, node: String) -> Self {
        let (tx, rx) = mpsc::channel(QUEUE);
        tokio::spawn(write(client, node, rx));
        Self(tx)
    }

    /// `container` as it appears in the object: `spec.containers{name}`. A full queue loses the event.
    pub(crate) fn tell(
        &self,
        pod: &Pod,
        container: Option<String>,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name_any()),
            namespace: pod.namespace(),
            uid: pod.uid(),
            resource_version: pod.resource_version(),
            field_path: container.clone(),
        };
        let key = Key {
            uid: pod.uid().unwrap_or_default(),
            field: container,
            reason,
            message,
        };
        if self
            .0
            .try_send(Told {
                key,
                about,
                warning,
                at: Timestamp::now(),
            })
            .is_err()
        {
            tracing::warn!(reason, "event lost, too many are waiting");
        }
    }
}

async fn write(client: Client, node: String, mut told: mpsc::Receiver<Told>) {
    let mut known: HashMap<Key, (String, i32)> = HashMap::new();
    let mut order: VecDeque<Key> = VecDeque::new();
    while let Some(told) = told.recv().await {
        let namespace = told.about.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        if let Some((name, count)) = known.get_mut(&told.key) {
            *count += 1;
            let again = serde_json::json!({"count": count, "lastTimestamp": Time(told.at)});
            if api
                .patch(name, &PatchParams::default(), &Patch::Merge(&again))
                .await
                .is_ok()
            {
                continue;
            }
        }
        let nanoseconds = told.at.as_nanosecond();
        let name = format!("{}.{nanoseconds:x}", told.about.name.clone().unwrap_or_default());
        let source = EventSource {
            component: Some("kubelet".to_owned()),
            host: Some(node.clone()),
        };
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: told.about,
            reason: Some(told.key.reason.to_owned()),
            message: Some(told.key.message.clone()),
            type_: Some(if told.warning { "Warning" } else { "Normal" }.to_owned()),
            first_timestamp: Some(Time(told.at)),
            last_timestamp: Some(Time(told.at)),
            count: Some(1),
            source: Some(source),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(node.clone()),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                order.push_back(told.key.clone());
                known.insert(told.key, (name, 1));
                if order.len() > REMEMBERED
                    && let Some(oldest) = order.pop_front()
                {
                    known.remove(&oldest);
                }
            }
            // A namespace that ends takes no more events.
            Err(error) => tracing::debug!(%error, reason = told.key.reason, "event not written"),
        }
    }
}
