//! What the index is told about its mesh before it sees the first object.

use mizzen_model::{MeshConfig, Namespace, ObjectName};

/// Which namespaces are in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// All of them (`ClusterWide`).
    All,
    /// The mesh's own, and those labelled `maistra.io/member-of=<the mesh's own>` (`MultiTenant`).
    Labelled,
}

/// The label by which a namespace is a member of a mesh; its value is the mesh's own namespace.
pub const MEMBER_OF: &str = "maistra.io/member-of";

/// What the index is told about its mesh.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which namespaces are in the mesh.
    pub membership: Membership,
    /// The ConfigMap with the mesh configuration (key `mesh`), in the mesh's own namespace. None: `defaults` hold.
    pub mesh_config_map: Option<ObjectName>,
    /// What holds where the ConfigMap says nothing, or as long as it is not there. Its root namespace, cluster domain and
    /// cluster id are not taken from the ConfigMap.
    pub defaults: MeshConfig,
}

impl Settings {
    /// A mesh over all namespaces whose configuration is `defaults`.
    #[must_use]
    pub fn new(defaults: MeshConfig) -> Self {
        Self {
            membership: Membership::All,
            mesh_config_map: None,
            defaults,
        }
    }

    /// The mesh's own namespace.
    #[must_use]
    pub fn root_namespace(&self) -> &Namespace {
        &self.defaults.root_namespace
    }
}
