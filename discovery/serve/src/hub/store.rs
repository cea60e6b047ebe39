//! Encoded resources by type, name and shared key.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, OnceLock},
};

use mizzen_model::{Changes, Mesh};
use mizzen_translate::{Scope, SharedKeys, affected, names, names_affected, resource};
use mizzen_xds::{Dirty, Resource, ResourceSet, ResourceType};
use parking_lot::Mutex;

use super::{
    audience::{Audience, Vettings},
    type_url,
};

#[derive(Default)]
pub(crate) struct Store {
    resources: Mutex<Resources>,
    wildcards: Mutex<Wildcards>,
}

/// By type and shared key.
type Wildcards = HashMap<(ResourceType, Arc<str>), Arc<Wildcard>>;

#[derive(Default)]
struct Resources {
    kinds: BTreeMap<ResourceType, HashMap<Arc<str>, Vec<Slot>>>,
    /// What was added since the last look at what a change touches.
    added: BTreeSet<(ResourceType, Arc<str>)>,
}

/// Who looks, and at what.
pub(crate) struct Reader<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) scope: &'a Arc<Scope>,
    /// The scope's keys in this mesh.
    pub(crate) keys: &'a SharedKeys,
    pub(crate) vetting: &'a Mutex<Vettings>,
}

/// One resource as proxies of one shared key get it.
struct Slot {
    key: Arc<str>,
    /// One of the proxies.
    scope: Arc<Scope>,
    /// Translated by the first who looks; others wait for it.
    cell: Arc<OnceLock<Arc<Resource>>>,
    /// Nobody used it at the last sweep.
    idle: bool,
}

/// All resources of a type as proxies of one shared key get them.
struct Wildcard {
    scope: Arc<Scope>,
    content: Mutex<WildcardContent>,
}

#[derive(Default)]
struct WildcardContent {
    set: Arc<ResourceSet>,
    /// Other names may have come or gone.
    names_stale: bool,
    /// These may have changed.
    stale: BTreeSet<Arc<str>>,
    idle: bool,
}

/// Names that a change may touch.
pub(crate) type Affected = BTreeMap<ResourceType, BTreeSet<Arc<str>>>;

impl Store {
    pub(crate) fn resource(&self, reader: &Reader<'_>, kind: ResourceType, name: &str) -> Arc<Resource> {
        let Reader { mesh, scope, keys, .. } = reader;
        let key = keys.of(mesh, type_url(kind), name);
        let cell = self.resources.lock().cell(scope, kind, name, key);
        let made = cell.get_or_init(|| {
            let body = resource(mesh, scope, type_url(kind), name).map(|found| found.body);
            Arc::new(match body {
                Some(body) => {
                    let vetted = if kind == ResourceType::Route {
                        reader.vetting.lock().vet(&Audience::of(scope), &body)
                    } else {
                        None
                    };
                    Resource::present(kind, name, &[], vetted.as_deref().unwrap_or(&body))
                }
                None => Resource::absent(name),
            })
        });
        made.clone()
    }

    pub(crate) fn wildcard(&self, reader: &Reader<'_>, kind: ResourceType) -> Arc<ResourceSet> {
        let Reader { mesh, scope, keys, .. } = reader;
        let key = keys.of(mesh, type_url(kind), "*");
        let wildcard = self
            .wildcards
            .lock()
            .entry((kind, key))
            .or_insert_with(|| {
                let content = WildcardContent {
                    names_stale: true,
                    ..WildcardContent::default()
                };
                Arc::new(Wildcard {
                    scope: (*scope).clone(),
                    content: Mutex::new(content),
                })
            })
            .clone();
        let mut content = wildcard.content.lock();
        content.idle = false;
        if !content.names_stale && content.stale.is_empty() {
            return content.set.clone();
        }
        let stale = std::mem::take(&mut content.stale);
        let old = content.set.clone();
        let now = |name: &str| match old.find(name).filter(|_| !stale.contains(name)) {
            Some(known) => known.clone(),
            None => self.resource(reader, kind, name),
        };
        let set: ResourceSet = if std::mem::take(&mut content.names_stale) {
            names(mesh, scope, type_url(kind))
                .iter()
                .map(|name| now(name))
                .collect()
        } else {
            old.iter().map(|known| now(known.name())).collect()
        };
        if set != *old {
            content.set = Arc::new(set);
        }
        content.set.clone()
    }

    /// What a change may touch of that which is here.
    pub(crate) fn affected(&self, mesh: &Mesh, changes: &Changes) -> Affected {
        let mut resources = self.resources.lock();
        resources.added.clear();
        let mut hit = Affected::new();
        for (kind, names) in &resources.kinds {
            for (name, slots) in names {
                if slots
                    .iter()
                    .any(|slot| affected(mesh, changes, &slot.scope, type_url(*kind), name))
                {
                    hit.entry(*kind).or_default().insert(name.clone());
                }
            }
        }
        hit
    }

    /// Drops what a change touched (`hit`, and what was added since that was found out) and says what streams must look at.
    pub(crate) fn invalidate(&self, mesh: &Mesh, mut hit: Affected, changes: &Changes) -> Dirty {
        let mut dirty = Dirty::new();
        {
            let mut resources = self.resources.lock();
            for (kind, name) in std::mem::take(&mut resources.added) {
                let slots = resources.kinds.get(&kind).and_then(|names| names.get(&name));
                if slots
                    .into_iter()
                    .flatten()
                    .any(|slot| affected(mesh, changes, &slot.scope, type_url(kind), &name))
                {
                    hit.entry(kind).or_default().insert(name);
                }
            }
            for (kind, names) in &hit {
                for name in names {
                    if let Some(slots) = resources.kinds.get_mut(kind) {
                        slots.remove(name);
                    }
                    dirty.mark(*kind, name.clone());
                }
            }
        }
        for ((kind, _), wildcard) in &*self.wildcards.lock() {
            let mut content = wildcard.content.lock();
            let touched = hit.get(kind).into_iter().flatten();
            let touched: Vec<_> = touched
                .filter(|name| content.set.find(name).is_some())
                .cloned()
                .collect();
            content.names_stale |= names_affected(mesh, changes, &wildcard.scope, type_url(*kind));
            content.stale.extend(touched);
            if content.names_stale || !content.stale.is_empty() {
                dirty.mark_wildcard(*kind);
            }
        }
        dirty
    }

    /// Drops resources, to be translated anew, and says what streams must look at.
    pub(crate) fn forget(&self, kind: ResourceType, names: &BTreeSet<Arc<str>>) -> Dirty {
        let mut dirty = Dirty::new();
        let mut resources = self.resources.lock();
        for name in names {
            if let Some(slots) = resources.kinds.get_mut(&kind) {
                slots.remove(name);
            }
            dirty.mark(kind, name.clone());
        }
        dirty
    }

    /// Forgets what nobody has used since the call before.
    pub(crate) fn sweep(&self) {
        self.wildcards.lock().retain(|_, wildcard| {
            let mut content = wildcard.content.lock();
            let unused = Arc::strong_count(&content.set) == 1;
            let keep = !(unused && content.idle);
            content.idle = unused;
            keep
        });
        for names in self.resources.lock().kinds.values_mut() {
            names.retain(|_, slots| {
                slots.retain_mut(|slot| {
                    let unused = slot.cell.get().is_none_or(|resource| Arc::strong_count(resource) == 1);
                    let keep = !(unused && slot.idle);
                    slot.idle = unused;
                    keep
                });
                !slots.is_empty()
            });
        }
    }
}

impl Resources {
    fn cell(
        &mut self,
        scope: &Arc<Scope>,
        kind: ResourceType,
        name: &str,
        key: Arc<str>,
    ) -> Arc<OnceLock<Arc<Resource>>> {
        let names = self.kinds.entry(kind).or_default();
        if !names.contains_key(name) {
            let name: Arc<str> = Arc::from(name);
            names.insert(name.clone(), Vec::new());
            self.added.insert((kind, name));
        }
        let Some(slots) = names.get_mut(name) else {
            return Arc::default();
        };
        if let Some(slot) = slots.iter_mut().find(|slot| slot.key == key) {
            slot.idle = false;
            return slot.cell.clone();
        }
        let slot = Slot {
            key,
            scope: scope.clone(),
            cell: Arc::default(),
            idle: false,
        };
        let cell = slot.cell.clone();
        slots.push(slot);
        // Another scope may be touched by what did not touch those that were here.
        self.added.insert((kind, Arc::from(name)));
        cell
    }
}
