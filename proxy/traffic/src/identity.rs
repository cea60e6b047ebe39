//! Obtains and renews the workload's certificate.
//!
//! In: the address of the mesh's CA, the projected token, the mesh's root certificate. Out: identities published in a
//! [`SvidStore`]. The private key is made here and never leaves the process. A certificate is renewed at half of its
//! remaining life, and soon after the trust bundle changed; while that fails the old one stays, and trying goes on with
//! growing, random pauses. The root file is read again and again, so a changed bundle takes effect without a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::Rng;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::Instant;

use crate::settings::Settings;
use crate::svid::{Svid, SvidError, SvidStore};

mod metrics;
pub(crate) mod pem;
mod request;
mod schedule;

pub use metrics::IdentityMetrics;
pub(crate) use request::connect;

/// How often the root file is looked at. The kubelet takes about a minute to bring a changed ConfigMap into the pod.
const ROOT_INTERVAL: Duration = Duration::from_secs(15);
/// One attempt to get a certificate, connection included.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Root files and tokens are small; anything larger is a mistake.
const FILE_LIMIT: u64 = 1 << 20;

/// Where the certificate comes from and what it should say.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// `host:port` of the CA.
    pub ca: String,
    /// The SPIFFE id that the CA must certify.
    pub spiffe: String,
    /// Wished life of a certificate; the CA may shorten it.
    pub life: Duration,
    /// Projected service-account token; read at each request, since the kubelet renews it.
    pub token_file: PathBuf,
    /// The mesh's root certificates.
    pub root_file: PathBuf,
    /// How often the root file is looked at.
    pub root_interval: Duration,
}

impl From<&Settings> for IdentityConfig {
    fn from(settings: &Settings) -> Self {
        Self {
            ca: settings.ca.clone(),
            spiffe: format!(
                "spiffe://{}/ns/{}/sa/{}",
                settings.trust_domain, settings.namespace, settings.service_account
            ),
            life: settings.certificate_life,
            token_file: settings.token_file.clone(),
            root_file: settings.root_file.clone(),
            root_interval: ROOT_INTERVAL,
        }
    }
}

/// Why there is no (new) certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing, empty, too large or not readable.
    #[error("{what} {path}: {reason}; check the pod's volumes")]
    File {
        /// What the file is for.
        what: &'static str,
        /// Where it was looked for.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The address is not `host:port`.
    #[error("CA address {address:?}: not host:port; check CA_ADDR")]
    Address {
        /// As configured.
        address: String,
    },
    /// No connection.
    #[error("CA {address}: cannot connect: {reason}")]
    Connect {
        /// Of the CA.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The CA refused.
    #[error("CA {address}: refused the certificate request ({code:?}): {message}")]
    Refused {
        /// Of the CA.
        address: String,
        /// The gRPC status.
        code: tonic::Code,
        /// What it said.
        message: String,
    },
    /// No answer in time.
    #[error("CA {address}: no answer within {} s", ATTEMPT.as_secs())]
    Timeout {
        /// Of the CA.
        address: String,
    },
    /// A key or request could not be made.
    #[error("certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// The CA's answer is not a certificate chain.
    #[error("CA {address}: its answer is not a chain of PEM certificates: {reason}")]
    Answer {
        /// Of the CA.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The certificate is for somebody else.
    #[error("CA {address}: certified {found}, expected {expected}; check TRUST_DOMAIN and the service account")]
    OtherIdentity {
        /// Of the CA.
        address: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// Certificate, key and roots do not belong together.
    #[error(transparent)]
    Svid(#[from] SvidError),
}

impl IdentityError {
    /// A bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Address { .. } => "address",
            Self::Connect { .. } => "connect",
            Self::Refused { .. } => "refused",
            Self::Timeout { .. } => "timeout",
            Self::Request(_) => "request",
            Self::Answer { .. } => "answer",
            Self::OtherIdentity { .. } => "other_identity",
            Self::Svid(_) => "svid",
        }
    }
}

/// Keeps an [`SvidStore`] filled.
#[derive(Debug)]
pub struct Identity {
    config: IdentityConfig,
    store: SvidStore,
    metrics: Arc<IdentityMetrics>,
    /// Roots that the CA itself named last. Trusted beside those of the file: after the CA's root was replaced the file may lag.
    named_roots: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// Publishes into `store` once [`run`](Self::run).
    pub fn new(config: IdentityConfig, store: SvidStore) -> Self {
        Self {
            config,
            store,
            metrics: Arc::new(IdentityMetrics::default()),
            named_roots: Vec::new(),
        }
    }

    /// Counters and the expiry, for the agent to render.
    pub fn metrics(&self) -> Arc<IdentityMetrics> {
        self.metrics.clone()
    }

    /// Obtains and renews for ever. Dropping the future stops it.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            let pause = match self.obtain().await {
                Ok(svid) => {
                    failures = 0;
                    let left = svid.not_after().duration_since(SystemTime::now()).unwrap_or_default();
                    let pause = schedule::renewal(left, random());
                    tracing::info!(spiffe = %svid.spiffe(), life_s = left.as_secs(), renew_in_s = pause.as_secs(), "certificate obtained");
                    self.metrics.obtained(svid.not_after());
                    self.store.publish(svid);
                    pause
                }
                Err(error) => {
                    failures += 1;
                    self.metrics.failed(error.category());
                    let pause = schedule::backoff(failures, random());
                    let kept = self
                        .store
                        .current()
                        .is_some_and(|svid| !svid.expired(SystemTime::now()));
                    tracing::warn!(%error, failures, retry_in_ms = pause.as_millis(), kept, "certificate not obtained");
                    pause
                }
            };
            self.wait(pause).await;
        }
    }

    /// Asks for one certificate with a fresh key.
    pub async fn obtain(&mut self) -> Result<Svid, IdentityError> {
        let (key, csr) = request::key_and_csr(&self.config.spiffe)?;
        let roots = self.file_roots()?;
        let answer = tokio::time::timeout(ATTEMPT, request::sign(&self.config, csr))
            .await
            .map_err(|_elapsed| IdentityError::Timeout {
                address: self.config.ca.clone(),
            })??;
        let wrong = |reason: String| IdentityError::Answer {
            address: self.config.ca.clone(),
            reason,
        };
        // Leaf, intermediates, root: the last entry is what the CA trusts, the others are what peers are shown.
        let (trusted, shown) = match answer.split_last() {
            Some((root, shown)) if !shown.is_empty() => (certificates(root.as_bytes()), shown.concat()),
            Some((leaf, _)) => (Ok(Vec::new()), leaf.clone()),
            None => return Err(wrong("it is empty".to_owned())),
        };
        let chain = certificates(shown.as_bytes()).map_err(wrong)?;
        self.named_roots = trusted.map_err(wrong)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let svid = Svid::new(chain, key, self.with_named(roots))?;
        if **svid.spiffe() != *self.config.spiffe {
            return Err(IdentityError::OtherIdentity {
                address: self.config.ca.clone(),
                found: svid.spiffe().to_string(),
                expected: self.config.spiffe.clone(),
            });
        }
        Ok(svid)
    }

    /// Waits, looking at the root file now and then. Ends early when the certificate has expired by the wall clock, which
    /// goes on while a machine sleeps.
    async fn wait(&self, pause: Duration) {
        let mut until = Instant::now() + pause;
        let mut known = self.store.current().map(|svid| svid.roots().to_vec());
        while Instant::now() < until {
            tokio::time::sleep_until(until.min(Instant::now() + self.config.root_interval)).await;
            let Some(svid) = self.store.current() else { continue };
            if svid.expired(SystemTime::now()) && pause > self.config.root_interval {
                return;
            }
            // A file that cannot be read now changes nothing: the roots that are known stay.
            let Ok(roots) = self.file_roots() else { continue };
            let roots = self.with_named(roots);
            if known.as_ref() != Some(&roots) {
                match svid.with_roots(roots.clone()) {
                    Ok(svid) => {
                        tracing::info!(roots = roots.len(), "trust bundle changed");
                        self.store.publish(svid);
                        // The CA may sign with another key now, and peers stop to trust certificates of the old one. Not
                        // all at once: every proxy of the mesh sees the change at about the same time.
                        until = until.min(Instant::now() + self.config.root_interval.mul_f64(random()));
                    }
                    Err(error) => tracing::warn!(%error, "changed trust bundle is not used"),
                }
                known = Some(roots);
            }
        }
    }

    fn file_roots(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let bytes = read("root certificate", &self.config.root_file)?;
        let wrong = |reason: String| IdentityError::File {
            what: "root certificate",
            path: self.config.root_file.display().to_string(),
            reason,
        };
        let roots = certificates(&bytes).map_err(wrong)?;
        if roots.is_empty() {
            Err(wrong("no certificate in it".to_owned()))
        } else {
            Ok(roots)
        }
    }

    fn with_named(&self, mut roots: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
        roots.extend(self.named_roots.iter().cloned());
        // The same root twice is one anchor; the order must not make a bundle look changed.
        roots.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        roots.dedup();
        roots
    }
}

fn random() -> f64 {
    rand::rng().random()
}

/// Reads a small file without a thread of its own: it is on a tmpfs.
pub(crate) fn read(what: &'static str, path: &std::path::Path) -> Result<Vec<u8>, IdentityError> {
    let wrong = |reason: String| IdentityError::File {
        what,
        path: path.display().to_string(),
        reason,
    };
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size > FILE_LIMIT {
        return Err(wrong(format!("{size} bytes, at most {FILE_LIMIT} are read")));
    }
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    if bytes.is_empty() {
        Err(wrong("empty".to_owned()))
    } else {
        Ok(bytes)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
