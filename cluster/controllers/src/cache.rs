//! The objects of one kind as last seen. In: watch events and the answers to our own writes. Out: objects by key, and a
//! call to every handler with what changed. An older version never replaces a newer one, so a controller always
//! sees at least what it wrote itself and never does the same thing twice. It never talks to the API.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use k8s_openapi::{Metadata, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::runtime::watcher::Event;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::queue::Key;

/// Is told each object that came, changed or went (of a changed one: before and after).
pub(crate) type Handler<K> = Box<dyn Fn(&K) + Send + Sync>;

/// See the module.
pub(crate) struct Cache<K> {
    state: RwLock<State<K>>,
    handlers: OnceLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// While the kind is listed anew: what was seen since the list began; the rest is gone when it ends.
    listing: Option<BTreeSet<Key>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        let state = State {
            objects: BTreeMap::new(),
            listing: None,
        };
        Self {
            state: RwLock::new(state),
            handlers: OnceLock::new(),
            synced: watch::Sender::new(false),
        }
    }
}

impl<K: Metadata<Ty = ObjectMeta>> Cache<K> {
    /// Sets who is told of changes; only the first call counts.
    pub(crate) fn handlers(&self, handlers: Vec<Handler<K>>) {
        let _ = self.handlers.set(handlers);
    }

    /// The object of this key.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// All objects of a namespace, in the order of their names.
    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let from = Key::new(namespace, "");
        state
            .objects
            .range(from..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, o)| o.clone())
            .collect()
    }

    /// All objects, in the order of their keys.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    /// Waits until the kind has been listed for the first time.
    pub(crate) async fn synced(&self) {
        // The sender lives in self: it cannot be gone.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Takes in an event of the watch.
    pub(crate) fn apply(&self, event: Event<K>) {
        match event {
            Event::Apply(object) | Event::InitApply(object) => self.put(object),
            Event::Delete(object) => self.gone(&object),
            Event::Init => self.state.write().listing = Some(BTreeSet::new()),
            Event::InitDone => {
                let gone: Vec<_> = {
                    let mut state = self.state.write();
                    let seen = state.listing.take().unwrap_or_default();
                    let gone: Vec<_> = state
                        .objects
                        .keys()
                        .filter(|key| !seen.contains(key))
                        .cloned()
                        .collect();
                    gone.iter().filter_map(|key| state.objects.remove(key)).collect()
                };
                gone.iter().for_each(|object| self.tell(object));
                self.synced.send_replace(true);
            }
        }
    }

    /// Takes in a version of an object, unless a newer one is known.
    pub(crate) fn put(&self, mut object: K) {
        object.metadata_mut().managed_fields = None; // never needed here, and often the largest part of an object
        let key = key(object.metadata());
        let object = Arc::new(object);
        let old = {
            let mut state = self.state.write();
            if let Some(seen) = &mut state.listing {
                seen.insert(key.clone());
            }
            let known = state.objects.get(&key).map(|known| version(known.metadata()));
            if known.is_some_and(|known| known >= version(object.metadata())) {
                return;
            }
            state.objects.insert(key, object.clone())
        };
        if let Some(old) = old {
            self.tell(&old);
        }
        self.tell(&object);
    }

    /// Takes an object out, unless a newer one of its name is known.
    pub(crate) fn gone(&self, object: &K) {
        let meta = object.metadata();
        let key = key(meta);
        let old = {
            let mut state = self.state.write();
            match state.objects.get(&key) {
                Some(known) if known.metadata().uid == meta.uid || version(known.metadata()) <= version(meta) => {
                    state.objects.remove(&key)
                }
                _ => None,
            }
        };
        if let Some(old) = old {
            self.tell(&old);
        }
    }

    /// Takes out the object with this key and uid.
    pub(crate) fn forget(&self, key: &Key, uid: Option<&str>) {
        match self.get(key) {
            Some(known) if known.metadata().uid.as_deref() == uid => self.gone(&known),
            _ => {}
        }
    }

    fn tell(&self, object: &K) {
        for handler in self.handlers.get().into_iter().flatten() {
            handler(object);
        }
    }
}

/// The key of an object with this metadata.
pub(crate) fn key(meta: &ObjectMeta) -> Key {
    Key {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// Resource versions of one kind are comparable numbers: the API says so since 1.35, and it was never otherwise.
fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, uid: &str, version: u64) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("ns".to_owned());
        object.metadata.name = Some(name.to_owned());
        object.metadata.uid = Some(uid.to_owned());
        object.metadata.resource_version = Some(version.to_string());
        object
    }

    fn versions(cache: &Cache<ConfigMap>) -> Vec<(String, u64)> {
        let name = |o: &ConfigMap| o.metadata.name.clone().unwrap();
        cache.all().iter().map(|o| (name(o), version(o.metadata()))).collect()
    }

    #[test]
    fn the_echo_of_our_own_write_and_older_versions_change_nothing() {
        let cache = Cache::default();
        let told = Arc::new(AtomicUsize::new(0));
        let count = told.clone();
        cache.handlers(vec![Box::new(move |_: &ConfigMap| {
            count.fetch_add(1, Ordering::Relaxed);
        })]);
        cache.put(object("a", "u1", 9));
        cache.apply(Event::Apply(object("a", "u1", 5)));
        cache.apply(Event::Apply(object("a", "u1", 9)));
        assert_eq!(
            (versions(&cache), told.load(Ordering::Relaxed)),
            (vec![("a".to_owned(), 9)], 1)
        );
    }

    #[test]
    fn the_late_deletion_of_a_predecessor_leaves_the_successor() {
        let cache = Cache::default();
        cache.put(object("a", "u2", 9));
        cache.apply(Event::Delete(object("a", "u1", 8)));
        assert_eq!(versions(&cache), [("a".to_owned(), 9)]);
        cache.apply(Event::Delete(object("a", "u2", 12)));
        assert_eq!(versions(&cache), []);
    }

    #[test]
    fn a_new_list_removes_what_is_gone_but_not_what_was_written_meanwhile() {
        let cache = Cache::default();
        cache.put(object("gone", "u1", 1));
        cache.put(object("stays", "u2", 2));
        cache.apply(Event::Init);
        cache.put(object("written", "u3", 7));
        cache.apply(Event::InitApply(object("stays", "u2", 2)));
        cache.apply(Event::InitDone);
        assert_eq!(versions(&cache), [("stays".to_owned(), 2), ("written".to_owned(), 7)]);
    }
}
