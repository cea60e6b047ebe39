//! Certificates of the mesh's own servers, which renew themselves.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mizzen_issue::{CsrError, IssueError, PublicKey, Validity};
use parking_lot::Mutex;
use rcgen::PublicKeyData as _;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::ca::{self, Ca};

/// Renewed after this part of its life, in percent: there is as much time again to find out why renewing fails.
const RENEW_AFTER_PERCENT: u32 = 50;

/// Why a server has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// No key could be made.
    #[error("no private key can be made for the server")]
    Key(#[source] rcgen::Error),
    /// The key is not one that is certified.
    #[error("the server's key cannot be certified")]
    PublicKey(#[from] CsrError),
    /// The CA refused.
    #[error("the CA signs no certificate for the server")]
    Issue(#[from] IssueError),
    /// TLS cannot use it.
    #[error("TLS cannot use the certificate")]
    Tls(#[from] rustls::Error),
    /// TLS cannot verify clients against the root.
    #[error("TLS cannot verify clients against the root of the CA")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A certificate and its key, made by the CA in this process. The first handshake after half of its life renews it (a key
/// and a signature, a fraction of a millisecond), so there is no task that could die and no timer that sleep could stop.
pub struct ServingCertificate {
    ca: Ca,
    names: Vec<String>,
    ttl: Duration,
    current: ArcSwap<Current>,
    renewing: Mutex<()>,
}

struct Current {
    key: Arc<CertifiedKey>,
    validity: Validity,
}

impl ServingCertificate {
    pub(crate) fn new(ca: Ca, names: Vec<String>, ttl: Duration) -> Result<Arc<Self>, ServingError> {
        let current = make(&ca, &names, ttl, SystemTime::now())?;
        Ok(Arc::new(Self {
            ca,
            names,
            ttl,
            current: ArcSwap::from_pointee(current),
            renewing: Mutex::new(()),
        }))
    }

    /// The certificate to use at `now`.
    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let current = self.current.load();
        let is_fresh = |current: &Current| now < current.validity.after_percent(RENEW_AFTER_PERCENT);
        // Whoever comes while another renews takes the old one: it counts for as long again.
        if is_fresh(&current) {
            return current.key.clone();
        }
        let Some(_renewing) = self.renewing.try_lock() else {
            return current.key.clone();
        };
        let current = self.current.load();
        if is_fresh(&current) {
            return current.key.clone();
        }
        match make(&self.ca, &self.names, self.ttl, now) {
            Ok(renewed) => {
                let key = renewed.key.clone();
                self.current.store(Arc::new(renewed));
                tracing::info!(names = ?self.names, "serving certificate renewed");
                key
            }
            Err(error) => {
                let error = crate::with_causes(&error);
                tracing::error!(names = ?self.names, error, "serving certificate not renewed; the old one stays");
                current.key.clone()
            }
        }
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingCertificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

fn make(ca: &Ca, names: &[String], ttl: Duration, now: SystemTime) -> Result<Current, ServingError> {
    let key = rcgen::KeyPair::generate().map_err(ServingError::Key)?;
    let public = PublicKey::from_spki_der(&key.subject_public_key_info())?;
    let issued = ca.issuer().issue_server(&public, names, ttl, now, ca::serial())?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&private)?;
    Ok(Current {
        key: Arc::new(CertifiedKey::new(issued.chain_der(), signing)),
        validity: issued.validity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CaSettings;

    // B7
    #[test]
    fn a_serving_certificate_renews_after_half_its_life() {
        let ca = Ca::ephemeral(CaSettings::default()).unwrap();
        let names = vec!["istiod-basic.mesh.svc".to_owned()];
        let start = SystemTime::now();
        let serving = ca.serving(&names).unwrap();
        let hour = Duration::from_secs(3600);
        let first = serving.at(start + hour);
        assert!(Arc::ptr_eq(&first, &serving.at(start + 11 * hour)));
        let second = serving.at(start + 13 * hour);
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &serving.at(start + 14 * hour)));
    }
}
