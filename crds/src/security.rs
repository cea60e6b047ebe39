//! Who may talk to whom, API group `security.istio.io`.

pub mod peer_authentication;

pub use peer_authentication::{PeerAuthentication, PeerAuthenticationSpec};

/// The API group of the security kinds.
pub const GROUP: &str = "security.istio.io";
