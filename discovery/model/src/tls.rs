//! TLS as a client of the mesh starts it.

use std::sync::Arc;

use crate::name::CredentialName;

/// How connections to an upstream are protected (`DestinationRule.trafficPolicy.tls`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientTls {
    /// Not at all.
    Disable,
    /// TLS; the server proves who it is.
    Simple {
        /// The server name sent; if none, the host of the request.
        sni: Option<Arc<str>>,
        /// Names of which the server's certificate must hold one; any if empty.
        subject_alt_names: Vec<Arc<str>>,
        /// The Secret with the authorities to trust.
        credential: Option<CredentialName>,
        /// A file with the authorities to trust; the system's if neither is given.
        ca_file: Option<Arc<str>>,
        /// Do not check the server's certificate.
        insecure_skip_verify: bool,
    },
    /// TLS with a certificate of the client's own, which the user supplies.
    Mutual {
        /// The server name sent.
        sni: Option<Arc<str>>,
        /// Names of which the server's certificate must hold one; any if empty.
        subject_alt_names: Vec<Arc<str>>,
        /// The Secret with the client's certificate and the authorities to trust.
        credential: Option<CredentialName>,
        /// The client's certificate, where no Secret is named.
        certificate_file: Option<Arc<str>>,
        /// Its key.
        key_file: Option<Arc<str>>,
        /// A file with the authorities to trust.
        ca_file: Option<Arc<str>>,
        /// Do not check the server's certificate.
        insecure_skip_verify: bool,
    },
    /// The mesh's mutual TLS, with the workload's own identity.
    Mesh {
        /// The server name sent; the mesh's own form if none.
        sni: Option<Arc<str>>,
        /// Names of which the server must prove one; those of the service's endpoints if empty.
        subject_alt_names: Vec<Arc<str>>,
    },
}
