//! What every reconciliation has at hand.

use crate::metrics::Metrics;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use mizzen_desired::Settings;
use parking_lot::Mutex;
use std::collections::BTreeSet;

/// The operator's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The API server refuses longer notes.
const NOTE_LIMIT: usize = 1024;

pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    /// Namespaces that left a mesh (mesh namespace, namespace) and are looked at once more, since the control plane may
    /// have written into them before it noticed.
    pub(crate) leaving: Mutex<BTreeSet<(String, String)>>,
    recorder: Recorder,
}

impl Context {
    pub(crate) fn new(client: Client, settings: Settings, metrics: Metrics, identity: &str) -> Self {
        let reporter = Reporter {
            controller: "mizzen-operator".to_owned(),
            instance: Some(identity.to_owned()),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            settings,
            metrics,
            leaving: Mutex::default(),
            recorder,
        }
    }

    /// Tells the user about a decision. An Event that cannot be written is not worth failing for.
    pub(crate) async fn event(&self, about: &ObjectReference, warning: bool, reason: &str, note: &str) {
        let mut note = note.to_owned();
        if note.len() > NOTE_LIMIT {
            let end = (0..=NOTE_LIMIT - 4)
                .rev()
                .find(|&end| note.is_char_boundary(end))
                .unwrap_or(0);
            note.truncate(end);
            note.push_str(" …");
        }
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note),
            action: reason.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::debug!(%error, reason, "event not written");
        }
    }
}

/// A reference to an object for Events.
pub(crate) fn about<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

/// Now, as status writes it.
pub(crate) fn now() -> String {
    let second = Timestamp::now().as_second();
    Timestamp::from_second(second)
        .map(|t| t.to_string())
        .unwrap_or_default()
}
