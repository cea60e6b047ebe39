//! The index: all that is known of the cluster, and the mesh that follows from it.
//!
//! Facts are kept apart from what is derived from them. An event changes facts and marks what may follow from them;
//! `derive` then computes just that anew. What follows depends on the facts alone, never on the order in which they came.

mod derive;
mod diagnose;
mod learn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mizzen_model::{
    Changes, DestinationRule, Gateway, Labels, Locality, Mesh, MeshConfig, Namespace, ObjectKey, PeerAuthentication,
    Service, VirtualService,
};

pub use diagnose::Report;

use crate::diagnostic::Diagnostic;
use crate::facts::pod::Pod;
use crate::facts::slice::Slice;
use crate::facts::{Place, Places};
use crate::object::{Event, Object, ObjectRef};
use crate::settings::{MEMBER_OF, Membership, Settings};

/// All that is known of the cluster, and the mesh that follows from it.
#[derive(Debug)]
pub struct Index {
    settings: Settings,
    membership: Membership,
    mesh: Mesh,
    snapshot: Option<Arc<Mesh>>,

    namespaces: BTreeMap<Namespace, Labels>,
    nodes: BTreeMap<String, Locality>,
    services: Places<Arc<Service>>,
    slices: Places<Slice>,
    pods: Places<Pod>,
    /// Services of the mesh's own gateways as the operator keeps them. They say where a gateway listens while the Service
    /// itself is missing: a gateway that moved to another port would lose its connections.
    gateways: Places<Arc<Service>>,
    configs: BTreeMap<ObjectKey, Config>,
    mesh_config_diagnostics: Vec<Diagnostic>,

    slices_by_service: BTreeMap<Place, BTreeSet<Place>>,
    slices_by_pod: BTreeMap<Place, BTreeSet<Place>>,

    reports: BTreeMap<ObjectKey, Report>,
}

/// An object of one of our own kinds.
#[derive(Debug)]
struct Config {
    generation: Option<i64>,
    value: Value,
    /// What is wrong with the object by itself.
    diagnostics: Vec<Diagnostic>,
}

/// What of an object is acted on.
#[derive(Debug)]
enum Value {
    Gateway(Arc<Gateway>),
    VirtualService(Arc<VirtualService>),
    DestinationRule(Arc<DestinationRule>),
    PeerAuthentication(Arc<PeerAuthentication>),
    Nothing,
}

/// What has to be derived anew.
#[derive(Debug, Default)]
struct Dirty {
    config: Option<MeshConfig>,
    everything: bool,
    /// All that is in these namespaces, and whether they are in the mesh.
    namespaces: BTreeSet<Namespace>,
    services: BTreeSet<Place>,
    endpoints: BTreeSet<Place>,
    workloads: BTreeSet<Place>,
    configs: BTreeSet<ObjectKey>,
}

impl Index {
    /// An index that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            mesh: Mesh::new(settings.defaults.clone()),
            membership: settings.membership,
            settings,
            snapshot: None,
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            services: Places::default(),
            slices: Places::default(),
            pods: Places::default(),
            gateways: Places::default(),
            configs: BTreeMap::new(),
            mesh_config_diagnostics: Vec::new(),
            slices_by_service: BTreeMap::new(),
            slices_by_pod: BTreeMap::new(),
            reports: BTreeMap::new(),
        }
    }

    /// Takes in what happened and says what of the mesh changed. Nothing did if the object says what it said before.
    pub fn apply(&mut self, event: Event) -> Changes {
        self.apply_all([event])
    }

    /// Takes in several events as one step.
    pub fn apply_all(&mut self, events: impl IntoIterator<Item = Event>) -> Changes {
        let mut dirty = Dirty::default();
        for event in events {
            match event {
                Event::Apply(object) => self.learn(object, &mut dirty),
                Event::Delete(reference) => self.forget(&reference, &mut dirty),
                Event::Replace(kind, objects) => {
                    let remaining: BTreeSet<ObjectRef> = objects.iter().map(Object::reference).collect();
                    for gone in self.known(kind).difference(&remaining) {
                        self.forget(gone, &mut dirty);
                    }
                    for object in objects {
                        if object.reference().kind == kind {
                            self.learn(object, &mut dirty);
                        }
                    }
                }
            }
        }
        let changes = self.settle(dirty);
        if !changes.is_empty() {
            self.snapshot = None;
        }
        changes
    }

    /// The mesh as it is now. Shares everything that has not changed with earlier ones.
    pub fn snapshot(&mut self) -> Arc<Mesh> {
        self.snapshot.get_or_insert_with(|| Arc::new(self.mesh.clone())).clone()
    }

    /// The mesh as it is now, without a snapshot of it.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The namespaces that are in the mesh.
    pub fn members(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.keys().filter(|namespace| self.is_member(namespace))
    }

    /// Whether a namespace is in the mesh.
    #[must_use]
    pub fn is_member(&self, namespace: &Namespace) -> bool {
        let root = self.settings.root_namespace();
        match self.membership {
            Membership::All => true,
            Membership::Labelled => {
                let labels = self.namespaces.get(namespace);
                namespace == root || labels.and_then(|labels| labels.value(MEMBER_OF)) == Some(root.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests;
