//! What is known of the mesh: resources by name, for any number of threads.
//!
//! A reader asks by name; the first question subscribes. Readers are expected to keep what they got until
//! [`Cache::changes`] moves, so that the request path takes no lock here.
//!
//! Names nobody asks for are forgotten. Since readers keep answers, being in use cannot be seen here directly: before
//! anything is forgotten the number is moved once, readers ask again for what they use, and only what nobody asked for
//! by the following sweep goes.

use crate::depends;
use mizzen_proxy_config::{Kind, Resource};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// What is known of a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The resource.
    Present(Resource),
    /// Discovery says that there is none.
    Absent,
    /// Asked for; the answer is not here yet.
    Requested,
}

/// Bounds of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Names of each kind. An application that calls many hosts that do not exist must not grow the proxy: at the limit
    /// absent names are forgotten first, and when that does not help, new names are answered with [`Answer::Requested`]
    /// though nobody asks for them: that there is no such name is not known, and readers let through what is absent.
    pub names: usize,
    /// Sweeps that a name nobody asks for survives.
    pub idle_sweeps: u8,
}

impl Default for Limits {
    /// 4096 names of each kind, three sweeps.
    fn default() -> Self {
        Self {
            names: 4096,
            idle_sweeps: 3,
        }
    }
}

#[derive(Debug)]
struct Entry {
    answer: Answer,
    /// Sweeps since it was last asked for.
    idle: AtomicU8,
    pinned: bool,
}

impl Entry {
    fn requested(pinned: bool) -> Self {
        Self {
            answer: Answer::Requested,
            idle: AtomicU8::new(0),
            pinned,
        }
    }
}

type Entries = HashMap<Arc<str>, Entry>;

/// What the session is to ask for or give up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Names to ask for.
    pub subscribe: BTreeMap<Kind, Vec<Arc<str>>>,
    /// Names to give up.
    pub unsubscribe: BTreeMap<Kind, Vec<Arc<str>>>,
    /// Kinds wanted as a whole.
    pub all: Vec<Kind>,
}

impl Wishes {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscribe.is_empty() && self.unsubscribe.is_empty() && self.all.is_empty()
    }
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    kinds: [RwLock<Entries>; Kind::ALL.len()],
    limits: Limits,
    wishes: Mutex<Wishes>,
    wished: Notify,
    generation: watch::Sender<u64>,
    /// The kinds of which everything is wanted, a bit each.
    all: AtomicU8,
    overflows: AtomicU64,
}

/// Each kind's place in a set of kinds.
fn bit(kind: Kind) -> u8 {
    match kind {
        Kind::Cluster => 1,
        Kind::Endpoints => 2,
        Kind::Listener => 4,
        Kind::RouteConfig => 8,
        Kind::VirtualHost => 16,
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let (generation, _) = watch::channel(0);
        Self {
            kinds: std::array::from_fn(|_| RwLock::default()),
            limits,
            wishes: Mutex::default(),
            wished: Notify::new(),
            generation,
            overflows: AtomicU64::new(0),
            all: AtomicU8::new(0),
        }
    }

    fn entries(&self, kind: Kind) -> &RwLock<Entries> {
        let [cluster, endpoints, listener, route_config, virtual_host] = &self.kinds;
        match kind {
            Kind::Cluster => cluster,
            Kind::Endpoints => endpoints,
            Kind::Listener => listener,
            Kind::RouteConfig => route_config,
            Kind::VirtualHost => virtual_host,
        }
    }

    /// What is known of a name; the first question subscribes to it.
    pub fn ask(&self, kind: Kind, name: &str) -> Answer {
        if let Some(entry) = self.entries(kind).read().get(name) {
            entry.idle.store(0, Ordering::Relaxed);
            return entry.answer.clone();
        }
        self.insert(kind, name.into(), false)
    }

    /// What is known of a name, without subscribing and without counting as use.
    #[must_use]
    pub fn peek(&self, kind: Kind, name: &str) -> Option<Answer> {
        self.entries(kind).read().get(name).map(|entry| entry.answer.clone())
    }

    /// Subscribes to a name for good.
    pub fn pin(&self, kind: Kind, name: &str) {
        if let Some(entry) = self.entries(kind).write().get_mut(name) {
            entry.pinned = true;
            return;
        }
        self.insert(kind, name.into(), true);
    }

    /// Subscribes to all resources of a kind (a gateway's listeners).
    pub fn want_all(&self, kind: Kind) {
        self.all.fetch_or(bit(kind), Ordering::Relaxed);
        self.wishes.lock().all.push(kind);
        self.wished.notify_one();
    }

    fn wants_all(&self, kind: Kind) -> bool {
        self.all.load(Ordering::Relaxed) & bit(kind) != 0
    }

    /// All present resources of a kind, by name.
    #[must_use]
    pub fn all(&self, kind: Kind) -> Vec<Resource> {
        let entries = self.entries(kind).read();
        let mut present: Vec<(&Arc<str>, &Resource)> = entries
            .iter()
            .filter_map(|(name, entry)| match &entry.answer {
                Answer::Present(resource) => Some((name, resource)),
                Answer::Absent | Answer::Requested => None,
            })
            .collect();
        present.sort_by(|a, b| a.0.cmp(b.0));
        present.into_iter().map(|(_, resource)| resource.clone()).collect()
    }

    /// Names and states of a kind, sorted: for a configuration dump.
    #[must_use]
    pub fn dump(&self, kind: Kind) -> Vec<(Arc<str>, Answer)> {
        let entries = self.entries(kind).read();
        let mut all: Vec<_> = entries
            .iter()
            .map(|(name, entry)| (Arc::clone(name), entry.answer.clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// How many names of a kind are known.
    #[must_use]
    pub fn len(&self, kind: Kind) -> usize {
        self.entries(kind).read().len()
    }

    /// How many questions were not asked because of [`Limits::names`].
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// A number that moves after any answer has changed, and sometimes without (see the module).
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Waits until a name is answered; for start-up (readers on the request path bound their waiting themselves).
    pub async fn answered(&self, kind: Kind, name: &str) -> Answer {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            match self.ask(kind, name) {
                Answer::Requested => {}
                answer => return answer,
            }
            if changes.changed().await.is_err() {
                return Answer::Requested;
            }
        }
    }

    fn insert(&self, kind: Kind, name: Arc<str>, pinned: bool) -> Answer {
        let mut entries = self.entries(kind).write();
        if let Some(entry) = entries.get_mut(&name) {
            entry.pinned |= pinned;
            entry.idle.store(0, Ordering::Relaxed);
            return entry.answer.clone();
        }
        let mut given_up = Vec::new();
        if entries.len() >= self.limits.names && !pinned {
            entries.retain(|name, entry| {
                let keep = entry.pinned || !matches!(entry.answer, Answer::Absent);
                if !keep {
                    given_up.push(Arc::clone(name));
                }
                keep
            });
            if given_up.is_empty() {
                self.overflows.fetch_add(1, Ordering::Relaxed);
                return Answer::Requested;
            }
        }
        let evicted = !given_up.is_empty();
        entries.insert(Arc::clone(&name), Entry::requested(pinned));
        // The order in which wishes are noted is the order in which entries came to be: still under the lock.
        self.wish(kind, vec![name], given_up);
        drop(entries);
        if evicted {
            // Readers hold the answers of these names, of which nothing will be heard any more: what they still use they ask
            // for anew. Told before the names went, they could have been given the old answers once more.
            self.moved();
        }
        Answer::Requested
    }

    fn wish(&self, kind: Kind, subscribe: Vec<Arc<str>>, unsubscribe: Vec<Arc<str>>) {
        let mut wishes = self.wishes.lock();
        if !unsubscribe.is_empty() {
            // A name that was wished for and given up before it was sent is not sent at all.
            if let Some(wanted) = wishes.subscribe.get_mut(&kind) {
                let given_up: HashSet<&str> = unsubscribe.iter().map(AsRef::as_ref).collect();
                wanted.retain(|name| !given_up.contains(name.as_ref()));
            }
            wishes.unsubscribe.entry(kind).or_default().extend(unsubscribe);
        }
        if !subscribe.is_empty() {
            wishes.subscribe.entry(kind).or_default().extend(subscribe);
        }
        drop(wishes);
        self.wished.notify_one();
    }

    /// Waits until there are wishes. For the client.
    pub async fn wished(&self) {
        self.wished.notified().await;
    }

    /// Takes the wishes. Names to give up go out before names to ask for, so that one that is in both ends up wanted.
    pub fn take_wishes(&self) -> Wishes {
        std::mem::take(&mut *self.wishes.lock())
    }

    /// Puts answers in; readers are told once, after all of them.
    pub fn apply(&self, answers: impl IntoIterator<Item = (Kind, Arc<str>, Answer)>) {
        let mut next = Vec::new();
        let mut changed = false;
        for (kind, name, answer) in answers {
            let mut entries = self.entries(kind).write();
            if let Some(entry) = entries.get_mut(&name) {
                if entry.answer == Answer::Requested
                    && let Answer::Present(resource) = &answer
                {
                    next.extend(depends::of(resource));
                }
                entry.answer = answer;
                changed = true;
            } else if let Answer::Present(_) = answer
                && self.wants_all(kind)
            {
                // From a wildcard: pinned, since discovery decides what is in it. Without one it is the late answer for a
                // name that was given up meanwhile: kept, it would never change again.
                entries.insert(
                    name,
                    Entry {
                        answer,
                        idle: AtomicU8::new(0),
                        pinned: true,
                    },
                );
                changed = true;
            }
        }
        for (kind, name) in next {
            self.insert(kind, name, false);
        }
        if changed {
            self.moved();
        }
    }

    /// Takes names out altogether (they left a wildcard).
    pub fn remove(&self, kind: Kind, name: &str) {
        if self.entries(kind).write().remove(name).is_some() {
            self.moved();
        }
    }

    fn moved(&self) {
        self.generation
            .send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    /// One round of forgetting; returns how many names went. Call it at a steady pace, for instance every minute.
    pub fn sweep(&self) -> usize {
        let mut gone = 0;
        let mut ask_again = false;
        for kind in Kind::ALL {
            let mut given_up = Vec::new();
            let mut entries = self.entries(kind).write();
            entries.retain(|name, entry| {
                if entry.pinned {
                    return true;
                }
                let idle = entry.idle.get_mut();
                *idle = idle.saturating_add(1);
                ask_again |= *idle == self.limits.idle_sweeps;
                let keep = *idle <= self.limits.idle_sweeps;
                if !keep {
                    given_up.push(Arc::clone(name));
                }
                keep
            });
            entries.shrink_to_fit();
            if !given_up.is_empty() {
                gone += given_up.len();
                self.wish(kind, Vec::new(), given_up);
            }
        }
        if ask_again || gone > 0 {
            self.moved();
        }
        gone
    }
}

#[cfg(test)]
mod tests;
