//! Where objects are kept: a memory of all of them, a window of what changed, and a file that survives.
//!
//! In: writes with a precondition. Out: revisions, objects, events in order. One thread writes: it takes what is waiting, checks
//! each write against what is there, commits the batch to the file once, and only then shows it to readers, so nothing is seen
//! that a crash could take back. Never: a schema, a user; objects are bodies with a name.

mod disk;
mod watch;

pub use disk::OpenError;
pub use watch::{Change, Event, Expired, Watcher};

use bytes::Bytes;
use disk::Row;
use parking_lot::RwLock;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use watch::Log;

/// Namespace and name; the namespace is empty for cluster-wide objects.
pub type Key = (Arc<str>, Arc<str>);

/// An object at a revision: its JSON text, and its labels for selectors.
#[derive(Debug)]
pub struct Stored {
    /// Namespace and name.
    pub key: Key,
    /// Its `metadata.resourceVersion`.
    pub revision: u64,
    /// `metadata.labels`.
    pub labels: Option<Map<String, Value>>,
    /// The object as JSON.
    pub body: Bytes,
}

impl Stored {
    /// The object, parsed.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no such object.
    Absent,
    /// The object is at this revision.
    Revision(u64),
}

/// One write.
#[derive(Debug)]
pub struct Write {
    /// The collection, such as `deployments.apps`.
    pub collection: Arc<str>,
    /// The object's key.
    pub key: Key,
    /// The precondition.
    pub expect: Expect,
    /// The new object; for a deletion its last state. `metadata.resourceVersion` is set by the store.
    pub value: Value,
    /// Whether the object goes.
    pub delete: bool,
}

/// Why a write did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// There is such an object already.
    #[error("the object exists already")]
    Exists,
    /// The object is at another revision.
    #[error("the object has been modified")]
    Conflict,
    /// There is no such object.
    #[error("the object does not exist")]
    Missing,
    /// The file could not be written; nothing was changed. Free the disk, then try again.
    #[error("the state could not be written: {0}")]
    Disk(String),
    /// The writer has ended.
    #[error("the storage is closed")]
    Closed,
}

struct Collection {
    objects: BTreeMap<Key, Arc<Stored>>,
    log: Log,
}

struct State {
    revision: u64,
    /// Changes before this revision are known to nobody: those of an earlier process.
    start: u64,
    collections: HashMap<Arc<str>, Collection>,
}

impl State {
    fn collection(&mut self, name: &Arc<str>) -> &mut Collection {
        let start = self.start;
        self.collections.entry(name.clone()).or_insert_with(|| Collection {
            objects: BTreeMap::new(),
            log: Log::new(start),
        })
    }
}

struct Job {
    write: Write,
    reply: oneshot::Sender<Result<Arc<Stored>, WriteError>>,
}

/// The objects. Cheap to clone; the last clone ends the writer.
#[derive(Clone)]
pub struct Store {
    state: Arc<RwLock<State>>,
    jobs: mpsc::Sender<Job>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("revision", &self.revision()).finish()
    }
}

/// Writes that may wait before callers wait themselves.
const QUEUE: usize = 1024;
/// Writes per commit: enough to share one flush among many, few enough that none waits long for the others.
const BATCH: usize = 256;

impl Store {
    /// Opens the file at `path` (made where there is none), or keeps everything in memory.
    pub fn open(path: Option<&Path>) -> Result<Self, OpenError> {
        let mut state = State {
            revision: 1,
            start: 1,
            collections: HashMap::new(),
        };
        let disk = match path {
            None => None,
            Some(path) => {
                let (disk, revision, objects) = disk::Disk::open(path)?;
                state.revision = revision.max(1);
                state.start = state.revision;
                for (collection, stored) in objects {
                    let stored = Arc::new(stored);
                    let objects = &mut state.collection(&collection).objects;
                    objects.insert(stored.key.clone(), stored);
                }
                Some(disk)
            }
        };
        let state = Arc::new(RwLock::new(state));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let shared = state.clone();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_loop(&shared, disk, queue))
            .map_err(OpenError::Thread)?;
        Ok(Self { state, jobs })
    }

    /// Makes one write durable and visible, or changes nothing.
    pub async fn write(&self, write: Write) -> Result<Arc<Stored>, WriteError> {
        let (reply, answer) = oneshot::channel();
        let job = Job { write, reply };
        self.jobs.send(job).await.map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// The revision of the latest write.
    pub fn revision(&self) -> u64 {
        self.state.read().revision
    }

    /// One object.
    pub fn get(&self, collection: &str, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        let state = self.state.read();
        let key = (Arc::from(namespace), Arc::from(name));
        state.collections.get(collection)?.objects.get(&key).cloned()
    }

    /// The objects of a collection in order of their keys, of one namespace where it is not empty, from after `start`; and the
    /// revision at which this is so.
    pub fn list(&self, collection: &str, namespace: &str, start: Option<&Key>) -> (u64, Vec<Arc<Stored>>) {
        let state = self.state.read();
        let mut found = Vec::new();
        if let Some(collection) = state.collections.get(collection) {
            let first = match start {
                Some(key) => Bound::Excluded(key.clone()),
                None => Bound::Included((Arc::from(namespace), Arc::from(""))),
            };
            let range = collection.objects.range((first, Bound::Unbounded));
            let inside = range.take_while(|(key, _)| namespace.is_empty() || &*key.0 == namespace);
            found.extend(inside.map(|(_, stored)| stored.clone()));
        }
        (state.revision, found)
    }

    /// How many objects a collection has.
    pub fn count(&self, collection: &str) -> usize {
        let state = self.state.read();
        state.collections.get(collection).map_or(0, |all| all.objects.len())
    }

    /// The revision of the latest change in a collection: unequal numbers mean that something changed.
    pub fn latest(&self, collection: &str) -> u64 {
        let state = self.state.read();
        state.collections.get(collection).map_or(0, |all| all.log.latest())
    }

    /// Watches a collection for changes after `since`.
    pub fn watch(&self, collection: &Arc<str>, since: u64) -> Result<Watcher, Expired> {
        let mut state = self.state.write();
        let changed = state.collection(collection).log.subscribe(since)?;
        Ok(Watcher::new(self.state.clone(), collection.clone(), since, changed))
    }

    /// Watches a collection from now on, with the objects of a namespace (all where it is empty) as they are now.
    pub fn list_and_watch(&self, collection: &Arc<str>, namespace: &str) -> (Vec<Arc<Stored>>, Watcher) {
        let mut state = self.state.write();
        let revision = state.revision;
        let all = state.collection(collection);
        let inside = all
            .objects
            .iter()
            .filter(|(key, _)| namespace.is_empty() || &*key.0 == namespace);
        let found = inside.map(|(_, stored)| stored.clone()).collect();
        let changed = all.log.changed();
        (
            found,
            Watcher::new(self.state.clone(), collection.clone(), revision, changed),
        )
    }
}

/// What a batch has decided and readers do not see yet.
struct Decided {
    collection: Arc<str>,
    stored: Arc<Stored>,
    previous: Option<Arc<Stored>>,
    delete: bool,
    reply: oneshot::Sender<Result<Arc<Stored>, WriteError>>,
}

impl Decided {
    fn row(&self) -> Row {
        Row {
            collection: self.collection.clone(),
            stored: self.stored.clone(),
            delete: self.delete,
        }
    }
}

/// All objects.
fn rows_of(state: &State) -> Vec<Row> {
    let objects = state
        .collections
        .iter()
        .flat_map(|(name, all)| all.objects.values().map(move |stored| (name, stored)));
    let rows = objects.map(|(collection, stored)| Row {
        collection: collection.clone(),
        stored: stored.clone(),
        delete: false,
    });
    rows.collect()
}

fn write_loop(state: &RwLock<State>, mut disk: Option<disk::Disk>, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut revision = state.read().revision;
        let mut batch: Vec<Decided> = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            if let Some(decided) = decide(state, &batch, job, &mut revision) {
                batch.push(decided);
            }
            next = if batch.len() < BATCH {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        if batch.is_empty() {
            continue;
        }
        let rows: Vec<Row> = batch.iter().map(Decided::row).collect();
        let everything = || rows_of(&state.read());
        if let Some(Err(error)) = disk.as_mut().map(|disk| disk.commit(revision, &rows, everything)) {
            tracing::error!(error = %error, "storage cannot write");
            for one in batch {
                let _ = one.reply.send(Err(WriteError::Disk(error.to_string())));
            }
            continue;
        }
        let mut replies = Vec::with_capacity(batch.len());
        let mut state = state.write();
        state.revision = revision;
        for one in batch {
            let collection = state.collection(&one.collection);
            let change = match (one.delete, &one.previous) {
                (true, _) => Change::Deleted,
                (false, Some(_)) => Change::Modified,
                (false, None) => Change::Added,
            };
            if one.delete {
                collection.objects.remove(&one.stored.key);
            } else {
                collection.objects.insert(one.stored.key.clone(), one.stored.clone());
            }
            collection.log.push(Event {
                change,
                object: one.stored.clone(),
                previous: one.previous,
            });
            replies.push((one.reply, one.stored));
        }
        drop(state);
        for (reply, stored) in replies {
            let _ = reply.send(Ok(stored));
        }
    }
}

/// Checks one write against the state and the batch before it; answers it where it fails.
fn decide(state: &RwLock<State>, batch: &[Decided], job: Job, revision: &mut u64) -> Option<Decided> {
    let Job { mut write, reply } = job;
    let pending = batch
        .iter()
        .rev()
        .find(|one| one.collection == write.collection && one.stored.key == write.key);
    let current = match pending {
        Some(one) => (!one.delete).then(|| one.stored.clone()),
        None => {
            let state = state.read();
            let collection = state.collections.get(&write.collection);
            collection.and_then(|all| all.objects.get(&write.key)).cloned()
        }
    };
    let refusal = match (&current, write.expect) {
        (Some(_), Expect::Absent) => Some(WriteError::Exists),
        (None, Expect::Revision(_)) => Some(WriteError::Missing),
        (Some(stored), Expect::Revision(wanted)) if stored.revision != wanted => Some(WriteError::Conflict),
        _ => None,
    };
    if let Some(error) = refusal {
        let _ = reply.send(Err(error));
        return None;
    }
    *revision += 1;
    if let Some(metadata) = write.value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
    }
    Some(Decided {
        collection: write.collection,
        stored: Arc::new(Stored {
            key: write.key,
            revision: *revision,
            labels: labels(&write.value),
            body: Bytes::from(write.value.to_string()),
        }),
        previous: current,
        delete: write.delete,
        reply,
    })
}

fn labels(value: &Value) -> Option<Map<String, Value>> {
    value.pointer("/metadata/labels").and_then(Value::as_object).cloned()
}

#[cfg(test)]
mod tests;
