//! The mesh's certificate authority: it keeps the root, proves who asks and hands out certificates.
//!
//! In: signing requests over gRPC with a service account token; TLS handshakes of the mesh's own servers. Out: certificates
//! for the proven identity; TLS configurations whose certificates renew themselves; the root certificate that clients trust.
//! Never: trusts a name from a request, logs a token or a key, overwrites a CA that exists, signs for a certificate alone
//! (that says who calls, for xDS too; but one that was stolen could renew itself for ever).
//!
//! ```no_run
//! # async fn run(client: kube::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use mizzen_ca::{Ca, CaSettings};
//! let ca = Ca::load_or_create(client.clone(), "istio-system", CaSettings::default()).await?;
//! let authenticator = ca.authenticator(client);
//! let names = vec!["istiod-basic.istio-system.svc".to_owned()];
//! let tls = ca.server_config(&names)?; // 15012: asks for client certificates, serves HTTP/2
//! let routes = tonic::service::Routes::new(ca.service(authenticator));
//! # Ok(()) }
//! ```

mod authenticate;
mod ca;
mod metrics;
mod proto;
mod service;
mod serving;
mod storage;
mod token_review;

/// An error with its causes, for a log line or a status that shows one text.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub use authenticate::{
    AuthError, Authenticator, Caller, Credentials, PeerCertificates, Pod, ReviewedToken, TokenReviewer, bearer_token,
};
pub use ca::{Ca, CaError, CaSettings};
pub use mizzen_identity::{SpiffeId, TrustDomain};
pub use mizzen_issue::{Issued, TtlPolicy};
pub use proto::{CREATE_CERTIFICATE_PATH, IstioCertificateRequest, IstioCertificateResponse, SERVICE_NAME};
pub use service::CertificateService;
pub use serving::{ServingCertificate, ServingError};
pub use storage::StorageError;
pub use token_review::{KubeTokenReviewer, TOKEN_AUDIENCE};
