//! What proxies see: translated and encoded once for all that see the same, kept until a change touches it.
//!
//! Each resource has a shared key (from `mizzen-translate`): proxies with the same key get the same bytes, so they share one
//! encoded resource. A change of the mesh drops just what it may touch and marks those names in the mailboxes of the
//! streams; what is dropped is translated again when the first stream looks at it. Nothing is translated for nobody.

mod audience;
mod source;
mod store;
mod vetting;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use mizzen_model::{Change, Changes, Mesh, ObjectKey};
use mizzen_translate::{Scope, SharedKeys, TypeUrl};
use mizzen_xds::{Dirty, Mailbox, Resource, ResourceSet, ResourceType, StreamId, View};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use tracing::debug;

use crate::{status::StatusEvent, watch::Refused};
use audience::Vettings;
pub(crate) use source::HubSource;
use store::{Reader, Store};
use vetting::Verdict;

/// The state of the mesh, what is encoded of it, and the streams that are to be told of changes.
pub(crate) struct Hub {
    gate: Arc<RwLock<()>>,
    mesh: RwLock<Option<Arc<Mesh>>>,
    store: Store,
    vetting: Mutex<Vettings>,
    streams: Mutex<BTreeMap<StreamId, Stream>>,
    states: watch::Sender<u64>,
    status_tx: mpsc::Sender<StatusEvent>,
}

struct Stream {
    view: Arc<ScopeView>,
    mailbox: Arc<Mailbox>,
    /// The pod's, as it was when it was let in.
    uid: Arc<str>,
    /// The route configurations that an Envoy accepted last.
    accepted: BTreeMap<Arc<str>, Arc<Resource>>,
}

impl Hub {
    pub(crate) fn new(status_tx: mpsc::Sender<StatusEvent>) -> Arc<Self> {
        Arc::new(Self {
            gate: Arc::default(),
            mesh: RwLock::new(None),
            store: Store::default(),
            vetting: Mutex::default(),
            streams: Mutex::default(),
            states: watch::Sender::new(0),
            status_tx,
        })
    }

    /// Where to say of which virtual services it is known that proxies refuse them.
    pub(crate) fn refused(&self) -> Refused {
        self.vetting.lock().known.clone()
    }

    /// Whether there is something to serve.
    pub(crate) fn is_ready(&self) -> bool {
        self.mesh.read().is_some()
    }

    /// The mesh that is served now.
    pub(crate) fn mesh(&self) -> Option<Arc<Mesh>> {
        self.mesh.read().clone()
    }

    /// Serves another state of the mesh, which differs from the last one by `changes`, seen at `at`.
    pub(crate) fn publish(self: &Arc<Self>, mesh: Arc<Mesh>, changes: &Changes, at: Instant) {
        let first = !self.is_ready();
        let started = Instant::now();
        // Who may be in the mesh is found out below; what changed is tried as it is now.
        let pods = changes.iter().any(|change| matches!(change, Change::Workload(_)));
        let verdict = if first {
            Verdict::default()
        } else {
            self.repaired(&mesh, changes)
        };
        let affected = self.store.affected(&mesh, changes);
        let mut marked = 0;
        {
            let _gate = self.gate.write();
            *self.mesh.write() = Some(mesh.clone());
            let mut dirty = self.store.invalidate(&mesh, affected, changes);
            dirty.merge(&self.store.forget(ResourceType::Route, &verdict.tables));
            // Endpoints never change who shares with whom.
            let may_regroup = first || changes.iter().any(|change| !matches!(change, Change::Endpoints(_)));
            for stream in self.streams.lock().values_mut() {
                if pods {
                    stream.end_unless_known(&mesh);
                }
                let regrouped = may_regroup && stream.view.regroup(&mesh);
                let everything = regrouped.then(Dirty::everything);
                let dirty = everything.as_ref().unwrap_or(&dirty);
                if !dirty.is_empty() && stream.mailbox.publish(stream.view.clone(), dirty, at) {
                    marked += 1;
                }
            }
        }
        self.report(verdict);
        self.states.send_modify(|state| *state += 1);
        debug!(changes = changes.len(), streams = marked, took = ?started.elapsed(), "mesh published");
    }

    /// Forgets what no stream has used since the last call.
    pub(crate) fn sweep(&self) {
        self.store.sweep();
        let verdict = self.vetting.lock().sweep(Instant::now());
        self.act(verdict);
    }

    /// Lists a stream: it is told of changes from now on. Call it while no state of the mesh can pass.
    fn admit(
        self: &Arc<Self>,
        stream: StreamId,
        mesh: &Mesh,
        scope: Arc<Scope>,
        uid: Arc<str>,
        mailbox: &Arc<Mailbox>,
    ) -> Arc<ScopeView> {
        let view = Arc::new(ScopeView {
            hub: self.clone(),
            keys: RwLock::new(Arc::new(scope.shared_keys(mesh))),
            scope,
        });
        let listed = Stream {
            view: view.clone(),
            mailbox: mailbox.clone(),
            uid,
            accepted: BTreeMap::new(),
        };
        self.streams.lock().insert(stream, listed);
        view
    }

    /// Whose routes were left out and have changed.
    fn repaired(&self, mesh: &Mesh, changes: &Changes) -> Verdict {
        let routes = changes.iter().filter_map(|change| match change {
            Change::Route { key, .. } => Some(key),
            _ => None,
        });
        let keys: BTreeSet<&ObjectKey> = routes.collect();
        if keys.is_empty() {
            return Verdict::default();
        }
        let delegate = |key: &ObjectKey| mesh.virtual_service(key).is_none_or(|own| own.hosts.is_empty());
        let delegates = keys.iter().any(|key| delegate(key));
        self.vetting.lock().changed(&keys, delegates)
    }

    /// Has route configurations made anew, and tells who is guilty.
    fn act(&self, verdict: Verdict) {
        if !verdict.tables.is_empty() {
            let _gate = self.gate.write();
            let dirty = self.store.forget(ResourceType::Route, &verdict.tables);
            for stream in self.streams.lock().values() {
                stream.mailbox.publish(stream.view.clone(), &dirty, Instant::now());
            }
        }
        self.report(verdict);
    }

    fn report(&self, verdict: Verdict) {
        for object in verdict.cleared {
            self.tell(StatusEvent::Cleared(object));
        }
        for (object, message) in verdict.guilty {
            tracing::warn!(%object, error = message, "proxies refuse the routes of a VirtualService");
            self.tell(StatusEvent::Guilty { object, message });
        }
    }

    /// What one stream's proxy sees, by type: name, version and size.
    pub(crate) fn dump(self: &Arc<Self>, stream: StreamId) -> Option<BTreeMap<&'static str, Vec<Arc<Resource>>>> {
        let view = self.streams.lock().get(&stream).map(|stream| stream.view.clone())?;
        let _gate = self.gate.read();
        let wildcards = [ResourceType::Cluster, ResourceType::Listener];
        Some(
            wildcards
                .into_iter()
                .map(|kind| (kind.short(), view.wildcard(kind).iter().cloned().collect()))
                .collect(),
        )
    }
}

impl Stream {
    /// Ends the stream of a pod that is no longer there, or no longer in the mesh: what it knows it keeps, and it learns no more.
    fn end_unless_known(&self, mesh: &Mesh) {
        let key = self.view.scope.workload();
        if mesh.workload(key).is_none_or(|workload| workload.uid != self.uid) {
            self.mailbox.end(format!(
                "{key} is no longer in the mesh: it is gone, or its namespace is not a member"
            ));
        }
    }
}

/// What one proxy sees. Looks into the shared store under the proxy's keys.
pub(crate) struct ScopeView {
    hub: Arc<Hub>,
    scope: Arc<Scope>,
    /// With whom it shares what, in the mesh that is served now.
    keys: RwLock<Arc<SharedKeys>>,
}

impl ScopeView {
    /// Whether another set of proxies sees the same as this one now.
    fn regroup(&self, mesh: &Mesh) -> bool {
        let keys = self.scope.shared_keys(mesh);
        if **self.keys.read() == keys {
            return false;
        }
        *self.keys.write() = Arc::new(keys);
        true
    }

    fn keys(&self) -> Arc<SharedKeys> {
        self.keys.read().clone()
    }
}

impl View for ScopeView {
    fn resource(&self, kind: ResourceType, name: &str) -> Arc<Resource> {
        match self.hub.mesh() {
            Some(mesh) => {
                let reader = Reader {
                    mesh: &mesh,
                    scope: &self.scope,
                    keys: &self.keys(),
                    vetting: &self.hub.vetting,
                };
                self.hub.store.resource(&reader, kind, name)
            }
            None => Arc::new(Resource::absent(name)),
        }
    }

    fn wildcard(&self, kind: ResourceType) -> Arc<ResourceSet> {
        let Some(mesh) = self.hub.mesh() else {
            return Arc::default();
        };
        let reader = Reader {
            mesh: &mesh,
            scope: &self.scope,
            keys: &self.keys(),
            vetting: &self.hub.vetting,
        };
        self.hub.store.wildcard(&reader, kind)
    }
}

/// Sweeps for as long as it lives.
pub(crate) async fn sweep(hub: Arc<Hub>) {
    const INTERVAL: Duration = Duration::from_secs(60);
    loop {
        tokio::time::sleep(INTERVAL).await;
        hub.sweep();
    }
}

fn type_url(kind: ResourceType) -> TypeUrl {
    match kind {
        ResourceType::Cluster => TypeUrl::Cluster,
        ResourceType::Endpoint => TypeUrl::Endpoints,
        ResourceType::Listener => TypeUrl::Listener,
        ResourceType::Route => TypeUrl::Route,
        ResourceType::VirtualHost => TypeUrl::VirtualHost,
    }
}

#[cfg(test)]
mod tests;
