//! What users write: the kinds that Mizzen reads from the Kubernetes API, as types with their schemas.
//!
//! In: nothing but Kubernetes' own types. Out: one Rust type per kind (raw: text is still text, nothing is checked beyond
//! its JSON shape) and the [`definitions`] that tell the API server about them, with field descriptions taken from the doc
//! comments here. Never: a client, a clock, or a rule that needs more than one object; the checked types are made by
//! `mizzen-index`, the operator's by `mizzen-desired`.
//!
//! API groups and field names are those already in use (Istio's `networking.istio.io` and `security.istio.io`, Maistra's
//! `maistra.io`), so existing manifests apply unchanged. Networking and security kinds are served as `v1`, `v1beta1` (and
//! `v1alpha3` for networking) with one schema; the Rust types carry `v1`, the version that is stored.

#![expect(
    clippy::duplicated_attributes,
    reason = "the lint takes the fields of several printcolumn attributes for one's"
)]

pub mod definitions;
pub mod duration;
pub mod maistra;
pub mod networking;
pub mod schema;
pub mod security;
pub mod selector;
pub mod status;
pub mod yaml;

pub use definitions::definitions;
pub use duration::DurationText;
pub use networking::{DestinationRule, Gateway, VirtualService};
pub use security::PeerAuthentication;
pub use selector::WorkloadSelector;
pub use status::ConfigStatus;
