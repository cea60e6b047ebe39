//! What the index keeps of Kubernetes' own objects: just what the model is made of.

pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod service;
pub(crate) mod slice;

use std::collections::{BTreeMap, btree_map};

use mizzen_model::{Labels, Namespace, ObjectName};

/// Where an object is.
pub(crate) type Place = (Namespace, ObjectName);

/// Things of one kind, by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places<V>(BTreeMap<Namespace, BTreeMap<ObjectName, V>>);

impl<V> Default for Places<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Places<V> {
    pub(crate) fn entry(&self, (namespace, name): &Place) -> Option<&V> {
        self.0.get(namespace)?.get(name)
    }

    pub(crate) fn put(&mut self, (namespace, name): Place, value: V) -> Option<V> {
        self.0.entry(namespace).or_default().insert(name, value)
    }

    pub(crate) fn take(&mut self, (namespace, name): &Place) -> Option<V> {
        let names = self.0.get_mut(namespace)?;
        let taken = names.remove(name);
        if names.is_empty() {
            self.0.remove(namespace);
        }
        taken
    }

    pub(crate) fn in_namespace(&self, namespace: &Namespace) -> impl Iterator<Item = (&ObjectName, &V)> {
        self.0.get(namespace).into_iter().flat_map(btree_map::BTreeMap::iter)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, &V)> {
        self.0.iter().flat_map(|(namespace, names)| {
            names
                .iter()
                .map(move |(name, value)| ((namespace.clone(), name.clone()), value))
        })
    }
}

/// Labels as Kubernetes gives them.
pub(crate) fn labels(raw: Option<&BTreeMap<String, String>>) -> Labels {
    raw.into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// A number that is a port.
pub(crate) fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}
