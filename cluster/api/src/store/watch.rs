//! What changed in a collection, and who waits for more.

use super::{State, Stored};
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It has a new revision.
    Modified,
    /// It is gone; the object is its last state at the revision of the deletion.
    Deleted,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub change: Change,
    /// The object after it.
    pub object: Arc<Stored>,
    /// The object before it, if there was one: a selector may have matched that.
    pub previous: Option<Arc<Stored>>,
}

/// The asked revision is before what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// What was asked for.
    pub asked: u64,
    /// The oldest from which changes are known.
    pub oldest: u64,
}

/// Changes remembered of one collection: a client that was away for fewer goes on where it was.
const EVENTS: usize = 1000;
/// And their bytes at most, for collections of large objects.
const BYTES: usize = 4 << 20;

pub(super) struct Log {
    events: VecDeque<Event>,
    bytes: usize,
    /// Changes after this revision are all in `events`.
    floor: u64,
    latest: watch::Sender<u64>,
}

impl Log {
    pub(super) fn new(floor: u64) -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            floor,
            latest: watch::Sender::new(floor),
        }
    }

    pub(super) fn push(&mut self, event: Event) {
        let revision = event.object.revision;
        self.bytes += event.object.body.len();
        self.events.push_back(event);
        while self.events.len() > EVENTS || (self.bytes > BYTES && self.events.len() > 1) {
            if let Some(old) = self.events.pop_front() {
                self.bytes -= old.object.body.len();
                self.floor = old.object.revision;
            }
        }
        self.latest.send_replace(revision);
    }

    pub(super) fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    pub(super) fn subscribe(&self, since: u64) -> Result<watch::Receiver<u64>, Expired> {
        self.check(since)?;
        Ok(self.changed())
    }

    fn check(&self, since: u64) -> Result<(), Expired> {
        if since < self.floor {
            return Err(Expired {
                asked: since,
                oldest: self.floor,
            });
        }
        Ok(())
    }

    fn after(&self, since: u64) -> Result<Vec<Event>, Expired> {
        self.check(since)?;
        let first = self.events.partition_point(|event| event.object.revision <= since);
        Ok(self.events.range(first..).cloned().collect())
    }
}

/// Reads the changes of a collection in order. It holds a position, no queue: one that is too slow is told so and starts over.
pub struct Watcher {
    state: Arc<RwLock<State>>,
    collection: Arc<str>,
    position: u64,
    changed: watch::Receiver<u64>,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("collection", &self.collection)
            .field("position", &self.position)
            .finish()
    }
}

impl Watcher {
    pub(super) fn new(
        state: Arc<RwLock<State>>,
        collection: Arc<str>,
        position: u64,
        changed: watch::Receiver<u64>,
    ) -> Self {
        Self {
            state,
            collection,
            position,
            changed,
        }
    }

    /// The revision up to which everything has been read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The changes since the last call, none where nothing changed. The position moves to the store's revision.
    pub fn ready(&mut self) -> Result<Vec<Event>, Expired> {
        self.changed.mark_unchanged();
        let state = self.state.read();
        let events = match state.collections.get(&self.collection) {
            Some(collection) => collection.log.after(self.position)?,
            None => Vec::new(),
        };
        // A watch may have been started at a revision that is still to come.
        self.position = self.position.max(state.revision);
        Ok(events)
    }

    /// Waits until something changed in the collection. May be dropped and called again.
    pub async fn changed(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }
}
