//! Certificates: what the mesh's CA signs, for whom and for how long.
//!
//! In: a signing request, the identity that its sender has *proven*, a policy, the time, a serial number, the issuer. Out: a
//! certificate chain, or the reason why there is none. Of a request only the key counts, and the signature that proves that
//! its sender holds it; every name in the certificate comes from the proven identity.
//! Never: the clock, randomness (beyond what signing itself needs), storage, Kubernetes.

mod csr;
mod issuer;
mod leaf;
mod peer;
mod pem;

pub use csr::{Csr, CsrError, PublicKey, RequestedName};
pub use issuer::{CaPem, Issuer, IssuerError, Validity};
pub use leaf::{IssueError, Issued, Serial, TtlPolicy};
pub use peer::{PeerError, peer_identity};
pub use rustls_pki_types::CertificateDer;
