//! Keys of objects that want a look, each due at a time. In: keys. Out: the key that is due first.
//! A key stands in the queue once, at the earliest time it was asked for. The queue never drops a key.

use std::{collections::BTreeMap, fmt};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// Which object of a kind; cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Key {
    /// `metadata.namespace`.
    pub(crate) namespace: String,
    /// `metadata.name`.
    pub(crate) name: String,
}

impl Key {
    /// The key of an object of this name.
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The work queue of one controller.
#[derive(Default)]
pub(crate) struct Queue {
    due: Mutex<BTreeMap<Key, Instant>>,
    changed: Notify,
}

impl Queue {
    /// Asks for a look at once.
    pub(crate) fn add(&self, key: Key) {
        self.add_at(key, Instant::now());
    }

    /// Asks for a look at a time, or earlier if that was asked already.
    pub(crate) fn add_at(&self, key: Key, at: Instant) {
        let mut due = self.due.lock();
        let earliest = due.entry(key).or_insert(at);
        *earliest = at.min(*earliest);
        drop(due);
        self.changed.notify_one();
    }

    /// Waits for the next key that is due and takes it out.
    pub(crate) async fn next(&self) -> Key {
        loop {
            let first = {
                let mut due = self.due.lock();
                let first = due
                    .iter()
                    .min_by_key(|(_, at)| **at)
                    .map(|(key, at)| (key.clone(), *at));
                match first {
                    Some((key, at)) if at <= Instant::now() => {
                        due.remove(&key);
                        return key;
                    }
                    first => first.map(|(_, at)| at),
                }
            };
            match first {
                Some(at) => {
                    tokio::select! { () = tokio::time::sleep_until(at) => {}, () = self.changed.notified() => {} }
                }
                None => self.changed.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_key_stands_once_at_its_earliest_time() {
        let queue = Queue::default();
        let now = Instant::now();
        queue.add_at(Key::new("a", "late"), now + Duration::from_secs(3600));
        queue.add_at(Key::new("a", "twice"), now + Duration::from_secs(3600));
        queue.add_at(Key::new("a", "twice"), now);
        queue.add_at(Key::new("a", "twice"), now + Duration::from_secs(60));
        assert_eq!(queue.next().await, Key::new("a", "twice"));
        assert!(tokio::time::timeout(Duration::ZERO, queue.next()).await.is_err());
        queue.add_at(Key::new("a", "late"), now);
        assert_eq!(queue.next().await, Key::new("a", "late"));
    }
}
