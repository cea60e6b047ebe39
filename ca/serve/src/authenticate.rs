//! Who is calling: proven by a token that the API server knows, or by a certificate of our CA.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use futures::future::BoxFuture;
use mizzen_identity::{Namespace, ServiceAccount, SpiffeId, TrustDomain};
use mizzen_issue::{PeerError, peer_identity};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::metrics::{Metrics, Outcome, Verdict};
use crate::token_review::TOKEN_AUDIENCE;

/// The longest token that is looked at. Projected tokens have 1 to 2 KiB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// How long a proven token is believed without asking again. A deleted pod's token stays good for so long at most.
const BELIEVED: Duration = Duration::from_secs(60);

/// How many proven tokens are remembered: several times the pods of the largest mesh we test, about 1 MiB.
const REMEMBERED: usize = 8192;

/// How long a token that the API server has refused is refused without asking again: who repeats it is not to keep the API
/// server busy, and a token that becomes good (its pod was too new to be known) is not refused for long.
const DISBELIEVED: Duration = Duration::from_secs(10);

/// How many refused tokens are remembered. More of them at a time are asked about again, [`REVIEWS_AT_A_TIME`] bounding that.
const REFUSED: usize = 4096;

/// How many tokens the API server is asked about at a time.
const REVIEWS_AT_A_TIME: usize = 32;

/// Somebody whose identity was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The service account.
    pub identity: SpiffeId,
    /// The pod that holds the token. A certificate does not name one.
    pub pod: Option<Pod>,
}

/// A pod, as a token bound to it names it. It is in the namespace of the caller's identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The certificates that a peer has shown in its TLS handshake, leaf first. The accept loop puts it into the extensions of
/// every request of the connection; only certificates that rustls has verified may get here.
#[derive(Debug, Clone, Default)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// What a caller has shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The token after `Bearer ` in `authorization`.
    pub token: Option<&'a str>,
    /// The verified certificates of the connection.
    pub certificates: Option<&'a PeerCertificates>,
}

/// What a reviewer found out about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewedToken {
    /// Of the service account.
    pub namespace: Namespace,
    /// The service account.
    pub service_account: ServiceAccount,
    /// The pod that it is bound to, if it is.
    pub pod: Option<Pod>,
}

/// Tells whose a token is.
pub trait TokenReviewer: Send + Sync + 'static {
    /// The owner of a token that counts now and is meant for the mesh's CA; an error otherwise.
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<ReviewedToken, AuthError>>;
}

/// Why a caller is nobody. Messages never hold a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Neither a token nor a certificate.
    #[error(
        "no credentials: send a service account token with audience istio-ca as `authorization: Bearer …`, or a mesh certificate"
    )]
    Missing,
    /// A certificate alone, where a token is needed.
    #[error(
        "a certificate does not buy another one: send a service account token with audience istio-ca as `authorization: Bearer …`"
    )]
    TokenNeeded,
    /// Not a token at all.
    #[error("the bearer token is not a service account token")]
    NotAToken,
    /// The API server does not accept it.
    #[error("the API server does not accept the token: {reason}")]
    Refused {
        /// What it says.
        reason: String,
    },
    /// Made for somebody else.
    #[error("the token is not meant for the mesh: project one with audience istio-ca")]
    Audience,
    /// Not a service account's.
    #[error("the token is {user}'s, not a service account's")]
    NotAServiceAccount {
        /// Whose it is.
        user: String,
    },
    /// The certificate is not a workload's of this mesh.
    #[error("the client certificate does not prove an identity")]
    Certificate(#[from] PeerError),
    /// The certificate is of another trust domain.
    #[error("the client certificate is of trust domain {found}, this mesh is {expected}")]
    TrustDomain {
        /// Of the certificate.
        found: TrustDomain,
        /// Ours.
        expected: TrustDomain,
    },
    /// The API server cannot be asked just now. The caller may try again.
    #[error("the API server cannot be asked about the token: {reason}")]
    Unavailable {
        /// What went wrong.
        reason: String,
    },
}

impl AuthError {
    /// A bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Missing => "no_credentials",
            Self::TokenNeeded => "token_needed",
            Self::NotAToken => "not_a_token",
            Self::Refused { .. } => "token_refused",
            Self::Audience => "audience",
            Self::NotAServiceAccount { .. } => "not_a_service_account",
            Self::Certificate(_) | Self::TrustDomain { .. } => "certificate",
            Self::Unavailable { .. } => "api_unavailable",
        }
    }

    /// As gRPC says it: `UNAVAILABLE` where trying again may help, `UNAUTHENTICATED` otherwise.
    pub fn status(&self) -> tonic::Status {
        match self {
            Self::Unavailable { .. } => tonic::Status::unavailable(crate::with_causes(self)),
            _ => tonic::Status::unauthenticated(crate::with_causes(self)),
        }
    }
}

/// Proves callers. Cheap to clone; clones share what they remember.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

struct Inner {
    trust_domain: TrustDomain,
    reviewer: Arc<dyn TokenReviewer>,
    metrics: Metrics,
    proven: Mutex<HashMap<[u8; 32], Proven>>,
    refused: Mutex<HashMap<[u8; 32], (AuthError, Instant)>>,
    reviews: Semaphore,
}

struct Proven {
    token: ReviewedToken,
    until: Instant,
}

impl Authenticator {
    pub(crate) fn new(trust_domain: TrustDomain, reviewer: Arc<dyn TokenReviewer>, metrics: Metrics) -> Self {
        let proven = Mutex::new(HashMap::new());
        let refused = Mutex::new(HashMap::new());
        let reviews = Semaphore::new(REVIEWS_AT_A_TIME);
        Self {
            inner: Arc::new(Inner {
                trust_domain,
                reviewer,
                metrics,
                proven,
                refused,
                reviews,
            }),
        }
    }

    /// Proves the sender of a gRPC request by its `authorization` metadata, else by the [`PeerCertificates`] among its
    /// extensions.
    pub async fn authenticate_request<T>(&self, request: &tonic::Request<T>) -> Result<Caller, AuthError> {
        let token = match request.metadata().get("authorization") {
            Some(value) => Some(value.to_str().ok().and_then(bearer_token).ok_or(AuthError::NotAToken)?),
            None => None,
        };
        let certificates = request.extensions().get::<PeerCertificates>();
        self.authenticate(Credentials { token, certificates }).await
    }

    /// Proves a caller. A token decides where there is one, because it names the pod too: a bad token is refused even beside
    /// a good certificate.
    pub async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Caller, AuthError> {
        self.authenticate_at(credentials, Instant::now()).await
    }

    async fn authenticate_at(&self, credentials: Credentials<'_>, now: Instant) -> Result<Caller, AuthError> {
        match (
            credentials.token,
            credentials.certificates.and_then(|shown| shown.0.first()),
        ) {
            (Some(token), _) => self.by_token(token, now).await,
            (None, Some(leaf)) => self.by_certificate(leaf),
            (None, None) => Err(AuthError::Missing),
        }
    }

    fn by_certificate(&self, leaf: &[u8]) -> Result<Caller, AuthError> {
        let identity = peer_identity(leaf, SystemTime::now())?;
        let expected = &self.inner.trust_domain;
        if identity.trust_domain() != expected {
            return Err(AuthError::TrustDomain {
                found: identity.trust_domain().clone(),
                expected: expected.clone(),
            });
        }
        Ok(Caller { identity, pod: None })
    }

    async fn by_token(&self, token: &str, now: Instant) -> Result<Caller, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::NotAToken);
        }
        // What cannot be good is not worth a question to the API server.
        let life = remaining_life(token, SystemTime::now())?;
        if life.is_zero() {
            return Err(AuthError::Refused {
                reason: "it has expired".to_owned(),
            });
        }
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.inner.recall(&hash, now) {
            return known.map(|token| self.caller(token));
        }
        let reviewed = {
            let _permit = self.inner.reviews.acquire().await;
            // Another stream of the same pod may have asked while this one waited.
            match self.inner.recall(&hash, now) {
                Some(known) => known,
                None => {
                    let reviewed = self.inner.review(token).await;
                    match &reviewed {
                        Ok(proven) => self.inner.remember(hash, proven.clone(), now, now + life.min(BELIEVED)),
                        Err(error) => self.inner.refuse(hash, error, now),
                    }
                    reviewed
                }
            }
        }?;
        Ok(self.caller(reviewed))
    }

    fn caller(&self, token: ReviewedToken) -> Caller {
        let identity = SpiffeId::new(self.inner.trust_domain.clone(), token.namespace, token.service_account);
        Caller {
            identity,
            pod: token.pod,
        }
    }
}

impl Inner {
    async fn review(&self, token: &str) -> Result<ReviewedToken, AuthError> {
        let result = self.reviewer.review(token).await;
        let outcome = match &result {
            Ok(_) => Outcome {
                outcome: Verdict::issued,
                reason: "",
            },
            Err(error) => Outcome {
                outcome: Verdict::refused,
                reason: error.category(),
            },
        };
        self.metrics.token_reviews.get_or_create(&outcome).inc();
        result
    }

    /// What the API server has said about a token not long ago.
    fn recall(&self, hash: &[u8; 32], now: Instant) -> Option<Result<ReviewedToken, AuthError>> {
        if let Some(proven) = self.proven.lock().get(hash).filter(|proven| now < proven.until) {
            return Some(Ok(proven.token.clone()));
        }
        let refused = self.refused.lock();
        let (error, _) = refused.get(hash).filter(|(_, until)| now < *until)?;
        Some(Err(error.clone()))
    }

    fn refuse(&self, hash: [u8; 32], error: &AuthError, now: Instant) {
        // That the API server is away says nothing about the token.
        if matches!(error, AuthError::Unavailable { .. }) {
            return;
        }
        let mut refused = self.refused.lock();
        if refused.len() >= REFUSED {
            refused.retain(|_, (_, until)| now < *until);
            if refused.len() >= REFUSED {
                return;
            }
        }
        refused.insert(hash, (error.clone(), now + DISBELIEVED));
    }

    fn remember(&self, hash: [u8; 32], token: ReviewedToken, now: Instant, until: Instant) {
        let mut proven = self.proven.lock();
        if proven.len() >= REMEMBERED {
            proven.retain(|_, entry| now < entry.until);
            if proven.len() >= REMEMBERED {
                // Forgetting costs a question to the API server; being wrong costs nothing.
                proven.clear();
            }
        }
        proven.insert(hash, Proven { token, until });
    }
}

/// The token in the value of an `authorization` header; the scheme's case does not count (RFC 9110 11.1).
pub fn bearer_token(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// How long a JWT says that it counts; an error if it is no JWT with an expiry, or if it says that it is for somebody else.
/// The signature is the reviewer's matter, and so is whether any of this is true.
fn remaining_life(token: &str, now: SystemTime) -> Result<Duration, AuthError> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: u64,
        aud: Option<Audiences>,
    }
    /// RFC 7519 4.1.3: one or several.
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Audiences {
        One(String),
        Several(Vec<String>),
    }
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(AuthError::NotAToken);
    };
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .map_err(|_| AuthError::NotAToken)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| AuthError::NotAToken)?;
    let ours = match &claims.aud {
        // A token that counts for an audience names it.
        None => false,
        Some(Audiences::One(audience)) => audience == TOKEN_AUDIENCE,
        Some(Audiences::Several(audiences)) => audiences.iter().any(|audience| audience == TOKEN_AUDIENCE),
    };
    if !ours {
        return Err(AuthError::Audience);
    }
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| AuthError::NotAToken)?;
    Ok(Duration::from_secs(claims.exp).saturating_sub(now))
}

#[cfg(test)]
pub(crate) mod tests;
