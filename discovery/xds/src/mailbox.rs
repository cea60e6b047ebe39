//! Where a publisher leaves what may have changed for a stream, and the stream finds it: marks that merge, not messages that queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    resource::{ResourceType, View},
    session::Session,
};

/// More marked names than this of one kind mean "anything of this kind": looking at everything is then cheaper than the marks.
const NAMES_BOUND: usize = 2_048;

/// What may differ between two views. Marking too much costs a comparison, marking too little loses a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dirty {
    kinds: BTreeMap<ResourceType, Marks>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// What the kind's wildcard gives may differ.
    pub(crate) wildcard: bool,
    /// Any named resource may differ.
    pub(crate) all_names: bool,
    pub(crate) names: BTreeSet<Arc<str>>,
}

impl Dirty {
    /// Nothing differs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything may differ: for a proxy whose own place in the mesh changed.
    pub fn everything() -> Self {
        let mut dirty = Self::default();
        for kind in ResourceType::ALL {
            dirty.mark_wildcard(kind);
            dirty.mark_all_names(kind);
        }
        dirty
    }

    /// Marks one named resource.
    pub fn mark(&mut self, kind: ResourceType, name: Arc<str>) {
        let marks = self.kinds.entry(kind).or_default();
        if !marks.all_names {
            marks.names.insert(name);
            marks.bound();
        }
    }

    /// Marks what a wildcard subscription of this kind gives.
    pub fn mark_wildcard(&mut self, kind: ResourceType) {
        self.kinds.entry(kind).or_default().wildcard = true;
    }

    /// Marks every named resource of this kind.
    pub fn mark_all_names(&mut self, kind: ResourceType) {
        let marks = self.kinds.entry(kind).or_default();
        marks.all_names = true;
        marks.names.clear();
    }

    /// Whether nothing is marked.
    pub fn is_empty(&self) -> bool {
        self.kinds
            .values()
            .all(|marks| !marks.wildcard && !marks.all_names && marks.names.is_empty())
    }

    /// Takes over the marks of another.
    pub fn merge(&mut self, other: &Self) {
        for (kind, theirs) in &other.kinds {
            let ours = self.kinds.entry(*kind).or_default();
            ours.wildcard |= theirs.wildcard;
            if theirs.all_names {
                ours.all_names = true;
                ours.names.clear();
            } else if !ours.all_names {
                ours.names.extend(theirs.names.iter().cloned());
                ours.bound();
            }
        }
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = (ResourceType, &Marks)> {
        self.kinds.iter().map(|(kind, marks)| (*kind, marks))
    }

    pub(crate) fn into_kinds(self) -> BTreeMap<ResourceType, Marks> {
        self.kinds
    }
}

impl Marks {
    fn bound(&mut self) {
        if self.names.len() > NAMES_BOUND {
            self.all_names = true;
            self.names.clear();
        }
    }
}

/// One per stream. The publisher never waits, the stream never misses the newest view, and what is held is bounded.
#[derive(Default)]
pub struct Mailbox {
    content: Mutex<Option<Change>>,
    /// Why the stream must end.
    end: Mutex<Option<String>>,
    /// Who picks up, once it is there: what does not concern it wakes nobody.
    session: OnceLock<Weak<Mutex<Session>>>,
    arrived: Notify,
}

/// What a mailbox holds: [`Event::Changed`](crate::Event::Changed) as a value.
pub struct Change {
    /// The newer view.
    pub view: Arc<dyn View>,
    /// What may differ from the view before.
    pub dirty: Dirty,
    /// When the earliest of the changes was seen.
    pub since: Instant,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves a newer view and the marks of what may differ from the view before. `at` is when the change was seen; of
    /// changes that were not picked up yet the earliest counts. Call it under [`Source::gate`](crate::Source::gate). Tells whether
    /// the stream subscribed to any of this; if not nothing is left, so `view` must then show the same as the one before.
    pub fn publish(&self, view: Arc<dyn View>, dirty: &Dirty, at: Instant) -> bool {
        let session = self.session.get().and_then(Weak::upgrade);
        if session.is_some_and(|session| !session.lock().is_concerned(dirty)) {
            return false;
        }
        {
            let mut content = self.content.lock();
            match content.as_mut() {
                Some(change) => {
                    change.view = view;
                    change.dirty.merge(dirty);
                }
                None => {
                    *content = Some(Change {
                        view,
                        dirty: dirty.clone(),
                        since: at,
                    });
                }
            }
        }
        self.arrived.notify_one();
        true
    }

    /// Ends the stream: its proxy is told why, and has to come again.
    pub fn end(&self, why: String) {
        *self.end.lock() = Some(why);
        self.arrived.notify_one();
    }

    /// Why the stream must end, if it must.
    pub fn ended(&self) -> Option<String> {
        self.end.lock().clone()
    }

    /// Says who picks up from now on.
    pub(crate) fn attach(&self, session: &Arc<Mutex<Session>>) {
        // It is done once per stream.
        let _known = self.session.set(Arc::downgrade(session));
    }

    /// Empties the mailbox.
    pub fn take(&self) -> Option<Change> {
        self.content.lock().take()
    }

    /// Waits until something may be there.
    pub(crate) async fn arrival(&self) {
        self.arrived.notified().await;
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("dirty", &self.content.lock().as_ref().map(|c| c.dirty.clone()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_merge_and_stay_bounded() {
        let mut dirty = Dirty::new();
        assert!(dirty.is_empty());
        for n in 0..=NAMES_BOUND {
            dirty.mark(ResourceType::Endpoint, Arc::from(format!("name-{n}")));
        }
        let mut expected = Dirty::new();
        expected.mark_all_names(ResourceType::Endpoint);
        assert_eq!(dirty, expected);

        let mut other = Dirty::new();
        other.mark(ResourceType::Endpoint, Arc::from("one"));
        other.mark(ResourceType::Cluster, Arc::from("two"));
        other.mark_wildcard(ResourceType::Cluster);
        dirty.merge(&other);
        expected.mark(ResourceType::Cluster, Arc::from("two"));
        expected.mark_wildcard(ResourceType::Cluster);
        assert_eq!(dirty, expected);
    }
}
