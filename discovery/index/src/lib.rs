//! Kubernetes objects become the mesh's model, and what is wrong with them is said.
//!
//! In: [`Event`]s with objects as Kubernetes has them, in any order. Out: [`Changes`](mizzen_model::Changes) of the
//! [`Mesh`](mizzen_model::Mesh), snapshots of it, and a [`Report`] per object of ours; for the webhook, the [`Verdict`] on
//! one object. The conversions in [`parse`] are the one validator: whoever admits an object and whoever acts on it call the
//! same functions.
//!
//! Never: waits, reads a clock, talks to a cluster, or fails. An object that cannot be acted on is left out (a policy: is
//! replaced by the strictest one) and reported; the others are not touched by it.
//!
//! ```
//! use mizzen_index::{Event, Index, Object, Settings};
//! use mizzen_model::{MeshConfig, Namespace, TrustDomain};
//!
//! let root = Namespace::new("istio-system")?;
//! let mut index = Index::new(Settings::new(MeshConfig::new(root, TrustDomain::new("cluster.local")?)));
//! let object = serde_json::json!({
//!     "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
//!     "metadata": {"namespace": "tutorial", "name": "reviews"},
//!     "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
//! });
//! if let Some(object) = Object::from_json(object) {
//!     let changes = index.apply(Event::Apply(object));
//!     assert_eq!(changes.len(), 1);
//! }
//! assert_eq!(index.snapshot().virtual_services().count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod diagnostic;
mod error;
mod facts;
mod index;
mod object;
pub mod parse;
mod reader;
mod settings;
mod validate;

pub use diagnostic::{Diagnostic, Severity};
pub use error::{Caution, Invalid, Reason, Rejection};
pub use index::{Index, Report};
pub use object::{Event, Object, ObjectRef, Unreadable};
pub use settings::{MEMBER_OF, Membership, Settings};
pub use validate::{VALIDATED, Verdict, validate};
