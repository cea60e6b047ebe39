//! What should exist: a ServiceMeshControlPlane in, the objects of its mesh out.
//!
//! In: the object as the API server (or a file) has it, and [`Settings`] that the operator's own installation decides.
//! Out: a [`ValidatedMesh`], or every reason why there is none; from it the [`Manifest`]s that should exist, in the order
//! in which they are applied. Member rolls and members are checked here too, so that the webhook and the controllers,
//! which call the same functions, cannot disagree.
//! Never: a client, a clock, the environment; nothing here knows what exists already, except [`drift`], which is handed it.
//!
//! ```text
//! raw spec -> profiles merged (profile) -> checked (mesh) -> one function per component -> manifests (plan)
//! ```

mod acted_on;
mod checks;
pub mod drift;
mod error;
mod gateway;
mod injector;
mod istiod;
pub mod labels;
mod manifest;
mod member;
mod mesh;
mod mesh_config;
mod plan;
mod pod;
mod profile;
mod rbac;
mod roll;
mod shape;
mod webhooks;

pub use checks::is_quantity;
pub use error::{Problem, SpecError, SpecErrors};
pub use manifest::{Component, Manifest, ObjectId};
pub use member::ValidatedMember;
pub use mesh::{DataPlane, MeshKey, OLDEST_FIRST, Settings, VERSION, ValidatedMesh, conflicts};
pub use profile::PROFILES;
pub use roll::{Members, Resolved, ValidatedRoll};
pub use shape::{read_member, read_roll};

/// The name under which the operator applies objects; what it owns is told apart from what others wrote by it.
pub const FIELD_MANAGER: &str = "mizzen-operator";
