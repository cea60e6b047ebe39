//! What a workload accepts from its peers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::name::{Labels, ObjectKey, Timestamp};

/// Whether a workload's ports take mutual TLS, plain text or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum MtlsMode {
    /// Plain text only.
    Disable,
    /// Both, told apart by the first bytes.
    #[default]
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// A PeerAuthentication. Without a selector it is for its namespace, or, in the mesh's own namespace, for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Which object.
    pub key: ObjectKey,
    /// When it was created: of several for the same workloads the oldest counts.
    pub created: Timestamp,
    /// Whose; all workloads of the namespace if none.
    pub selector: Option<Labels>,
    /// What the workload accepts; as the next wider policy says if none (`UNSET`).
    pub mode: Option<MtlsMode>,
    /// The same for single ports of the workload (not of the service); `None` is as [`PeerAuthentication::mode`] says.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}
