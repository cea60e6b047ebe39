//! Maps that are shared between snapshots and copied when they are written to while shared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Entries by key.
#[derive(Debug)]
pub(super) struct Table<K, V>(Arc<BTreeMap<K, Arc<V>>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Ord + Clone, V: PartialEq> Table<K, V> {
    /// Adds or replaces an entry: none if it was there already, else what it replaced.
    pub(super) fn put(&mut self, key: K, value: Arc<V>) -> Option<Option<Arc<V>>> {
        if self.0.get(&key).is_some_and(|old| **old == *value) {
            return None;
        }
        Some(Arc::make_mut(&mut self.0).insert(key, value))
    }

    /// Takes an entry away.
    pub(super) fn take(&mut self, key: &K) -> Option<Arc<V>> {
        if !self.0.contains_key(key) {
            return None; // else the map would be copied for nothing
        }
        Arc::make_mut(&mut self.0).remove(key)
    }

    pub(super) fn entry(&self, key: &K) -> Option<&Arc<V>> {
        self.0.get(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.0.values()
    }
}

/// Which entries have something in common.
#[derive(Debug)]
pub(super) struct Index<K, V>(Arc<BTreeMap<K, BTreeSet<V>>>);

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V> Clone for Index<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Index<K, V> {
    pub(super) fn insert_all(&mut self, keys: impl IntoIterator<Item = K>, value: &V) {
        for key in keys {
            if !self.0.get(&key).is_some_and(|values| values.contains(value)) {
                Arc::make_mut(&mut self.0).entry(key).or_default().insert(value.clone());
            }
        }
    }

    pub(super) fn remove_all(&mut self, keys: impl IntoIterator<Item = K>, value: &V) {
        for key in keys {
            if !self.0.get(&key).is_some_and(|values| values.contains(value)) {
                continue;
            }
            let map = Arc::make_mut(&mut self.0);
            if let Some(values) = map.get_mut(&key) {
                values.remove(value);
                if values.is_empty() {
                    map.remove(&key);
                }
            }
        }
    }

    pub(super) fn entries<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a V> + use<'a, K, V> {
        self.0.get(key).into_iter().flatten()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}
