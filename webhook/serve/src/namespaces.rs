//! Labels of namespaces: from a watch, and from the API server itself where the watch may be behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use parking_lot::RwLock;

pub(crate) type Labels = Arc<BTreeMap<String, String>>;

/// How long the API server may take to tell about one namespace.
const ASK: Duration = Duration::from_secs(2);

/// What is known about namespaces. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Namespaces {
    api: Api<PartialObjectMeta<Namespace>>,
    known: Arc<RwLock<HashMap<String, Labels>>>,
    synced: Arc<AtomicBool>,
}

impl Namespaces {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            api: Api::all(client),
            known: Arc::default(),
            synced: Arc::default(),
        }
    }

    /// Whether all namespaces have been seen once.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// The labels as the watch saw them last.
    pub(crate) fn cached(&self, namespace: &str) -> Option<Labels> {
        self.known.read().get(namespace).cloned()
    }

    /// The labels as they are now; as the watch saw them last if the API server does not say.
    pub(crate) async fn fresh(&self, namespace: &str) -> Option<Labels> {
        match tokio::time::timeout(ASK, self.api.get_opt(namespace)).await {
            Ok(Ok(found)) => found.map(|namespace| Arc::new(namespace.metadata.labels.unwrap_or_default())),
            Ok(Err(error)) => {
                tracing::warn!(ns = namespace, %error, "namespace not read; what the watch saw last counts");
                self.cached(namespace)
            }
            Err(_) => self.cached(namespace),
        }
    }

    /// Follows the namespaces, for ever.
    pub(crate) async fn follow(self) {
        let events = watch(self.api.clone(), watcher::Config::default()).default_backoff();
        pin_mut!(events);
        let mut relisted = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => relisted.clear(),
                Ok(Event::InitApply(namespace)) => {
                    relisted.extend(entry(namespace));
                }
                Ok(Event::InitDone) => {
                    *self.known.write() = std::mem::take(&mut relisted);
                    self.synced.store(true, Ordering::Relaxed);
                }
                Ok(Event::Apply(namespace)) => {
                    self.known.write().extend(entry(namespace));
                }
                Ok(Event::Delete(namespace)) => {
                    if let Some((name, _)) = entry(namespace) {
                        self.known.write().remove(&name);
                    }
                }
                Err(error) => tracing::warn!(%error, "namespaces are not watched just now"),
            }
        }
    }
}

fn entry(namespace: PartialObjectMeta<Namespace>) -> Option<(String, Labels)> {
    Some((
        namespace.metadata.name?,
        Arc::new(namespace.metadata.labels.unwrap_or_default()),
    ))
}
