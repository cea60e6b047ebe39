//! The CA as a value that the control plane holds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kube::Client;
use mizzen_identity::{SpiffeId, TrustDomain};
use mizzen_issue::{Csr, CsrError, IssueError, Issued, Issuer, Serial, TtlPolicy};
use prometheus_client::registry::Registry;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::authenticate::{Authenticator, TokenReviewer};
use crate::metrics::Metrics;
use crate::service::CertificateService;
use crate::serving::{ServingCertificate, ServingError};
use crate::storage::{self, StorageError};
use crate::token_review::KubeTokenReviewer;

/// How a CA is kept and how long its certificates live.
#[derive(Debug, Clone)]
pub struct CaSettings {
    /// Default `cluster.local`.
    pub trust_domain: TrustDomain,
    /// The Secret that keeps a self-signed root. Default `istio-ca-secret`.
    pub secret: String,
    /// The Secret that, where it exists, brings a CA along. Default `cacerts`.
    pub plugged_in_secret: Option<String>,
    /// Life of a self-signed root. Default 10 years.
    pub root_lifetime: Duration,
    /// Life of workloads' certificates. Default 24 h, at most 90 d.
    pub workload_ttl: TtlPolicy,
    /// Life of the certificates of the mesh's own servers; they are renewed after half of it. Default 24 h.
    pub server_ttl: Duration,
}

impl Default for CaSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            trust_domain: TrustDomain::default(),
            secret: "istio-ca-secret".to_owned(),
            plugged_in_secret: Some("cacerts".to_owned()),
            root_lifetime: 3650 * DAY,
            workload_ttl: TtlPolicy::default(),
            server_ttl: DAY,
        }
    }
}

/// A certificate authority. Cheap to clone.
#[derive(Clone)]
pub struct Ca {
    inner: Arc<Inner>,
}

struct Inner {
    issuer: Issuer,
    settings: CaSettings,
    metrics: Metrics,
}

/// Why a workload gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The request itself is bad.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The request is sound and refused.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl CaError {
    /// A bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Csr(_) => "bad_request",
            Self::Issue(error) => error.category(),
        }
    }
}

impl Ca {
    /// Takes the CA that lives in `namespace` (see [`CaSettings`] for where), or makes one.
    pub async fn load_or_create(client: Client, namespace: &str, settings: CaSettings) -> Result<Self, StorageError> {
        let issuer = storage::load_or_create(client, namespace, &settings).await?;
        Ok(Self::new(issuer, settings))
    }

    /// A CA that is kept nowhere: for tests and for one machine.
    pub fn ephemeral(settings: CaSettings) -> Result<Self, StorageError> {
        Ok(Self::new(new_root(&settings)?, settings))
    }

    /// A CA around an issuer.
    pub fn new(issuer: Issuer, settings: CaSettings) -> Self {
        let metrics = Metrics::default();
        if let Ok(ends) = issuer.validity().not_after.duration_since(SystemTime::UNIX_EPOCH) {
            metrics
                .root_expiry
                .set(i64::try_from(ends.as_secs()).unwrap_or(i64::MAX));
        }
        Self {
            inner: Arc::new(Inner {
                issuer,
                settings,
                metrics,
            }),
        }
    }

    /// What clients trust, as PEM: for the ConfigMap `istio-ca-root-cert`, key `root-cert.pem`, and for CA bundles.
    pub fn root_pem(&self) -> String {
        self.inner.issuer.root_pem()
    }

    /// When the CA's own certificate ends.
    pub fn ends(&self) -> SystemTime {
        self.inner.issuer.validity().not_after
    }

    /// Who vouches for the identities that it certifies.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.inner.settings.trust_domain
    }

    /// Signs a request (PEM or DER) of somebody who was proven to be `caller`.
    pub fn issue(&self, csr: &[u8], caller: &SpiffeId, ttl: Option<Duration>) -> Result<Issued, CaError> {
        let Inner {
            issuer,
            settings,
            metrics,
        } = &*self.inner;
        let result = Csr::parse(csr).map_err(CaError::from).and_then(|csr| {
            Ok(issuer.issue(&csr, caller, ttl, &settings.workload_ttl, SystemTime::now(), serial())?)
        });
        match &result {
            Ok(_) => metrics.issued(),
            Err(error) => metrics.refused(error.category()),
        }
        result
    }

    /// Proves callers by TokenReview and by certificates of this CA.
    pub fn authenticator(&self, client: Client) -> Authenticator {
        self.authenticator_with(Arc::new(KubeTokenReviewer::new(client)))
    }

    /// Proves callers by tokens that `reviewer` knows and by certificates of this CA.
    pub fn authenticator_with(&self, reviewer: Arc<dyn TokenReviewer>) -> Authenticator {
        Authenticator::new(self.trust_domain().clone(), reviewer, self.inner.metrics.clone())
    }

    /// The gRPC service `istio.v1.auth.IstioCertificateService`.
    pub fn service(&self, authenticator: Authenticator) -> CertificateService {
        CertificateService::new(self.clone(), authenticator)
    }

    /// A certificate for a server of the mesh, which renews itself.
    pub fn serving(&self, names: &[String]) -> Result<Arc<ServingCertificate>, ServingError> {
        ServingCertificate::new(self.clone(), names.to_vec(), self.inner.settings.server_ttl)
    }

    /// TLS for port 15012: HTTP/2; a client certificate is asked for, and where one is shown it must lead to our root.
    pub fn server_config(&self, names: &[String]) -> Result<Arc<ServerConfig>, ServingError> {
        let provider = provider();
        let mut roots = RootCertStore::empty();
        for root in self.inner.issuer.roots() {
            roots.add(root.clone())?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.serving(names)?);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS for webhooks: HTTP/1.1 and HTTP/2, no client certificates.
    pub fn webhook_config(&self, names: &[String]) -> Result<Arc<ServerConfig>, ServingError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.serving(names)?);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Adds the CA's metrics.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.inner.metrics.register(registry);
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.inner.issuer
    }
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub(crate) fn serial() -> Serial {
    Serial(rand::random())
}

/// A self-signed ECDSA P-256 root with a key of its own.
pub(crate) fn new_root(settings: &CaSettings) -> Result<Issuer, StorageError> {
    let key = rcgen::KeyPair::generate().map_err(StorageError::Key)?.serialize_pem();
    Issuer::self_signed(
        settings.trust_domain.as_str(),
        &key,
        SystemTime::now(),
        settings.root_lifetime,
        serial(),
    )
    .map_err(StorageError::SelfSign)
}
