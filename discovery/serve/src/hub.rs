//! What proxies see: translated and encoded once for all that see the same, kept until a change touches it.
//!
//! Each resource has a shared key (from `mizzen-translate`): proxies with the same key get the same bytes, so they share one
//! encoded resource. A change of the mesh drops just what it may touch and marks those names in the mailboxes of the
//! streams; what is dropped is translated again when the first stream looks at it. Nothing is translated for nobody.

mod source;
mod store;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mizzen_model::{Change, Changes, Mesh};
use mizzen_translate::{Scope, TypeUrl};
use mizzen_xds::{Dirty, Mailbox, Resource, ResourceSet, ResourceType, StreamId, View};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use tracing::debug;

use crate::status::StatusEvent;
pub(crate) use source::HubSource;
use store::Store;

/// The state of the mesh, what is encoded of it, and the streams that are to be told of changes.
pub(crate) struct Hub {
    gate: Arc<RwLock<()>>,
    mesh: RwLock<Option<Arc<Mesh>>>,
    store: Store,
    streams: Mutex<BTreeMap<StreamId, Stream>>,
    states: watch::Sender<u64>,
    status_tx: mpsc::Sender<StatusEvent>,
}

struct Stream {
    view: Arc<ScopeView>,
    mailbox: Arc<Mailbox>,
    /// What decides about sharing, as it was when the stream was told last.
    keys: Keys,
}

/// The shared keys that stand for all others: what the workload's own listeners depend on, and what it sees.
#[derive(Debug, PartialEq, Eq)]
struct Keys {
    own: String,
    seen: String,
}

impl Hub {
    pub(crate) fn new(status_tx: mpsc::Sender<StatusEvent>) -> Arc<Self> {
        Arc::new(Self {
            gate: Arc::default(),
            mesh: RwLock::new(None),
            store: Store::default(),
            streams: Mutex::default(),
            states: watch::Sender::new(0),
            status_tx,
        })
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
        let affected = self.store.affected(&mesh, changes);
        let mut marked = 0;
        {
            let _gate = self.gate.write();
            *self.mesh.write() = Some(mesh.clone());
            let dirty = self.store.invalidate(&mesh, affected, changes);
            // Endpoints never change who shares with whom.
            let may_regroup = first || changes.iter().any(|change| !matches!(change, Change::Endpoints(_)));
            for stream in self.streams.lock().values_mut() {
                let regrouped = may_regroup && stream.regroup(&mesh);
                if regrouped {
                    stream.mailbox.publish(stream.view.clone(), &Dirty::everything(), at);
                    marked += 1;
                } else if !dirty.is_empty() {
                    stream.mailbox.publish(stream.view.clone(), &dirty, at);
                    marked += 1;
                }
            }
        }
        self.states.send_modify(|state| *state += 1);
        debug!(changes = changes.len(), streams = marked, took = ?started.elapsed(), "mesh published");
    }

    /// Forgets what no stream has used since the last call.
    pub(crate) fn sweep(&self) {
        self.store.sweep();
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
    /// Whether another set of proxies sees the same as this one now.
    fn regroup(&mut self, mesh: &Mesh) -> bool {
        let keys = Keys::of(mesh, &self.view.scope);
        let regrouped = self.keys != keys;
        self.keys = keys;
        regrouped
    }
}

impl Keys {
    fn of(mesh: &Mesh, scope: &Scope) -> Self {
        Self {
            own: scope.shared_key(mesh, TypeUrl::Listener, "*"),
            // Any virtual host: these are never a workload's own.
            seen: scope.shared_key(mesh, TypeUrl::VirtualHost, "0/*"),
        }
    }
}

/// What one proxy sees. Looks into the shared store under the proxy's keys.
pub(crate) struct ScopeView {
    hub: Arc<Hub>,
    scope: Arc<Scope>,
}

impl View for ScopeView {
    fn resource(&self, kind: ResourceType, name: &str) -> Arc<Resource> {
        match self.hub.mesh() {
            Some(mesh) => self.hub.store.resource(&mesh, &self.scope, kind, name),
            None => Arc::new(Resource::absent(name)),
        }
    }

    fn wildcard(&self, kind: ResourceType) -> Arc<ResourceSet> {
        self.hub
            .mesh()
            .map(|mesh| self.hub.store.wildcard(&mesh, &self.scope, kind))
            .unwrap_or_default()
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
