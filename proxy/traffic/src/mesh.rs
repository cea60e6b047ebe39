//! The configuration as a worker sees it: by name, on demand, cached.
//!
//! In: a [`Source`] (the ADS client's cache, or a fixed set in tests). Out: shared, immutable resources. A worker keeps what it
//! looked up until the source's generation moves on, so a lookup on the request path is one atomic read and one hash;
//! waiting for an answer that was never asked for holds the connection or request, bounded by [`WAIT`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mizzen_proxy_config::{Kind, Resource, XdsType};
use tokio::sync::watch;

/// How long a connection or request is held while discovery has not answered.
pub const WAIT: Duration = Duration::from_secs(5);

/// What a source knows of a name.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The resource.
    Present(Resource),
    /// Discovery says that there is none.
    Absent,
    /// Asked for; the answer is not here yet.
    Requested,
}

/// Where resources come from. Asking subscribes.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// What is known of this name; subscribes to it.
    fn ask(&self, kind: Kind, name: &str) -> Answer;

    /// All resources of this kind that are present, for listeners that are subscribed as a whole (gateways).
    fn all(&self, kind: Kind) -> Vec<Resource>;

    /// A number that moves with every change of any answer.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// A typed answer.
#[derive(Debug)]
pub enum Lookup<T> {
    /// The resource.
    Present(Arc<T>),
    /// There is none.
    Absent,
    /// Not known yet.
    Requested,
}

impl<T> Lookup<T> {
    /// The resource, if it is here.
    pub fn present(self) -> Option<Arc<T>> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Requested => None,
        }
    }
}

/// A worker's view of a source.
#[derive(Debug)]
pub struct View {
    source: Arc<dyn Source>,
    changes: watch::Receiver<u64>,
    cache: RefCell<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    generation: u64,
    kinds: [HashMap<Box<str>, Answer>; Kind::ALL.len()],
}

fn slot(kind: Kind) -> usize {
    match kind {
        Kind::Cluster => 0,
        Kind::Endpoints => 1,
        Kind::Listener => 2,
        Kind::RouteConfig => 3,
        Kind::VirtualHost => 4,
    }
}

impl View {
    /// A view with an empty cache.
    pub fn new(source: Arc<dyn Source>) -> Self {
        let changes = source.changes();
        Self {
            source,
            changes,
            cache: RefCell::default(),
        }
    }

    /// The source's generation, for what is derived from resources.
    pub fn generation(&self) -> u64 {
        *self.changes.borrow()
    }

    /// What is known of this name now.
    pub fn lookup<T: XdsType>(&self, name: &str) -> Lookup<T> {
        let generation = self.generation();
        let mut cache = self.cache.borrow_mut();
        if cache.generation != generation {
            for kind in &mut cache.kinds {
                kind.clear();
            }
            cache.generation = generation;
        }
        let known = cache.kinds.get(slot(T::KIND)).and_then(|kind| kind.get(name)).cloned();
        let answer = known.unwrap_or_else(|| {
            let answer = self.source.ask(T::KIND, name);
            if !matches!(answer, Answer::Requested)
                && let Some(kind) = cache.kinds.get_mut(slot(T::KIND))
            {
                kind.insert(name.into(), answer.clone());
            }
            answer
        });
        match answer {
            Answer::Present(resource) => T::unwrap(&resource).cloned().map_or(Lookup::Absent, Lookup::Present),
            Answer::Absent => Lookup::Absent,
            Answer::Requested => Lookup::Requested,
        }
    }

    /// Looks up, waiting up to [`WAIT`] for an answer; `Requested` when none came.
    pub async fn resolve<T: XdsType>(&self, name: &str) -> Lookup<T> {
        let first = self.lookup(name);
        if !matches!(first, Lookup::Requested) {
            return first;
        }
        let mut changes = self.changes.clone();
        let waiting = async {
            loop {
                changes.mark_unchanged();
                match self.lookup(name) {
                    Lookup::Requested => {}
                    answer => return answer,
                }
                if changes.changed().await.is_err() {
                    // The source ended: nothing will come any more.
                    return Lookup::Requested;
                }
            }
        };
        tokio::time::timeout(WAIT, waiting).await.unwrap_or(Lookup::Requested)
    }

    /// All present resources of a kind.
    pub fn all<T: XdsType>(&self) -> Vec<Arc<T>> {
        self.source
            .all(T::KIND)
            .iter()
            .filter_map(|resource| T::unwrap(resource).cloned())
            .collect()
    }

    /// Waits until something changed since the last call on this receiver.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

impl Source for mizzen_ads::Cache {
    fn ask(&self, kind: Kind, name: &str) -> Answer {
        match Self::ask(self, kind, name) {
            mizzen_ads::Answer::Present(resource) => Answer::Present(resource),
            mizzen_ads::Answer::Absent => Answer::Absent,
            mizzen_ads::Answer::Requested => Answer::Requested,
        }
    }

    fn all(&self, kind: Kind) -> Vec<Resource> {
        Self::all(self, kind)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        Self::changes(self)
    }
}

/// A fixed set of resources that can be replaced: for tests and measurements.
#[derive(Debug)]
pub struct Fixed {
    resources: parking_lot::RwLock<HashMap<(Kind, String), Resource>>,
    generation: watch::Sender<u64>,
}

impl Fixed {
    /// A source with these resources; every other name is absent.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> Self {
        let (generation, _) = watch::channel(1);
        let fixed = Self {
            resources: parking_lot::RwLock::default(),
            generation,
        };
        fixed.put(resources);
        fixed
    }

    /// Adds or replaces resources.
    pub fn put(&self, resources: impl IntoIterator<Item = Resource>) {
        let mut known = self.resources.write();
        for resource in resources {
            known.insert((resource.kind(), resource.name().to_owned()), resource);
        }
        drop(known);
        self.generation.send_modify(|generation| *generation += 1);
    }
}

impl Source for Fixed {
    fn ask(&self, kind: Kind, name: &str) -> Answer {
        match self.resources.read().get(&(kind, name.to_owned())) {
            Some(resource) => Answer::Present(resource.clone()),
            None => Answer::Absent,
        }
    }

    fn all(&self, kind: Kind) -> Vec<Resource> {
        let known = self.resources.read();
        let mut found: Vec<_> = known.iter().filter(|((of, _), _)| *of == kind).collect();
        found.sort_by(|(a, _), (b, _)| a.1.cmp(&b.1));
        found.into_iter().map(|(_, resource)| resource.clone()).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
