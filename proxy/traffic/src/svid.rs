//! The workload's own identity at run time.
//!
//! In: a certificate chain, its private key and the mesh roots, published by whoever obtains them (the CSR client).
//! Out: immutable snapshots ([`Svid`]) that connections take when they start, with the TLS configurations derived from
//! them, each built once per snapshot. A rotation publishes a new snapshot: new connections use it, running ones keep
//! the one they began with, so no request fails. The private key never leaves the process through this module.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls;

/// Why a certificate, key and bundle do not make an identity.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// The chain holds no certificate.
    #[error("certificate chain: empty, expected the workload's certificate first")]
    EmptyChain,
    /// The leaf is not a readable X.509 certificate.
    #[error("certificate chain: the first certificate cannot be read: {0}")]
    BadLeaf(String),
    /// The leaf has not exactly one SPIFFE URI among its subject alternative names.
    #[error("certificate chain: the first certificate carries {0} spiffe:// URIs, expected exactly one")]
    SpiffeIds(usize),
    /// A root cannot be used as a trust anchor.
    #[error("trust bundle: certificate {index} cannot be a trust anchor: {reason}")]
    BadRoot {
        /// Position in the bundle, from zero.
        index: usize,
        /// What the TLS library says.
        reason: String,
    },
    /// No roots at all: nothing could be verified.
    #[error("trust bundle: empty, expected at least one root certificate")]
    NoRoots,
    /// The key does not fit the certificate or cannot be used.
    #[error("private key: {0}")]
    BadKey(String),
}

/// One snapshot of the workload's identity. Cheap to share (`Arc`), never changed.
pub struct Svid {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Vec<CertificateDer<'static>>,
    root_store: Arc<RootCertStore>,
    spiffe: Arc<str>,
    not_before: SystemTime,
    not_after: SystemTime,
    servers: Mutex<BTreeMap<tls::ServerKind, Arc<ServerConfig>>>,
    clients: Mutex<BTreeMap<tls::ClientKind, Arc<ClientConfig>>>,
}

impl std::fmt::Debug for Svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Svid")
            .field("spiffe", &self.spiffe)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Svid {
    /// Checks that chain, key and roots belong together. The leaf comes first in `chain`; intermediates follow.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, SvidError> {
        let leaf = chain.first().ok_or(SvidError::EmptyChain)?;
        let parsed = parse_leaf(leaf)?;
        let root_store = root_store(&roots)?;
        // Fails here rather than in the first handshake when key and certificate do not belong together.
        tls::certified_key(&chain, &key).map_err(|error| SvidError::BadKey(error.to_string()))?;
        Ok(Self {
            chain,
            key,
            roots,
            root_store: Arc::new(root_store),
            spiffe: parsed.spiffe,
            not_before: parsed.not_before,
            not_after: parsed.not_after,
            servers: Mutex::default(),
            clients: Mutex::default(),
        })
    }

    /// The same certificate and key with another trust bundle (the bundle can change on its own).
    pub fn with_roots(&self, roots: Vec<CertificateDer<'static>>) -> Result<Self, SvidError> {
        Self::new(self.chain.clone(), self.key.clone_key(), roots)
    }

    /// The workload's certificate chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key; for TLS and for Envoy's SDS inside the pod only.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The mesh's root certificates.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The roots as trust anchors.
    pub fn root_store(&self) -> &Arc<RootCertStore> {
        &self.root_store
    }

    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn spiffe(&self) -> &Arc<str> {
        &self.spiffe
    }

    /// Start of the certificate's validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of the certificate's validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether the certificate is no longer valid at `now`.
    pub fn expired(&self, now: SystemTime) -> bool {
        now >= self.not_after
    }

    /// Half of the certificate's life, when it should be renewed.
    pub fn half_life(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or(Duration::ZERO);
        self.not_before + life / 2
    }

    /// The TLS server configuration of this kind, built at first use.
    pub fn server_config(&self, kind: tls::ServerKind) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut servers = self.servers.lock();
        if let Some(config) = servers.get(&kind) {
            return Ok(config.clone());
        }
        let config = Arc::new(tls::server_config(self, kind)?);
        servers.insert(kind, config.clone());
        Ok(config)
    }

    /// The TLS client configuration of this kind, built at first use.
    pub fn client_config(&self, kind: tls::ClientKind) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut clients = self.clients.lock();
        if let Some(config) = clients.get(&kind) {
            return Ok(config.clone());
        }
        let config = Arc::new(tls::client_config(self, kind)?);
        clients.insert(kind, config.clone());
        Ok(config)
    }
}

/// Where the current [`Svid`] lives: one writer, any number of lock-free readers.
#[derive(Debug, Clone)]
pub struct SvidStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    current: ArcSwapOption<Svid>,
    generation: watch::Sender<u64>,
}

impl Default for SvidStore {
    fn default() -> Self {
        Self::new()
    }
}

impl SvidStore {
    /// A store with no identity yet.
    pub fn new() -> Self {
        let (generation, _) = watch::channel(0);
        Self {
            inner: Arc::new(Inner {
                current: ArcSwapOption::empty(),
                generation,
            }),
        }
    }

    /// Makes `svid` the current identity and wakes everyone who waits on [`SvidStore::subscribe`].
    pub fn publish(&self, svid: Svid) {
        self.inner.current.store(Some(Arc::new(svid)));
        self.inner.generation.send_modify(|generation| *generation += 1);
    }

    /// The current identity, if there is one.
    pub fn current(&self) -> Option<Arc<Svid>> {
        self.inner.current.load_full()
    }

    /// Changes with every publication; the value counts them (0 = none yet).
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.generation.subscribe()
    }

    /// Waits until there is an identity.
    pub async fn wait(&self) -> Arc<Svid> {
        let mut changes = self.subscribe();
        loop {
            if let Some(svid) = self.current() {
                return svid;
            }
            // The sender lives in `self`, so waiting cannot fail while this runs.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

struct Leaf {
    spiffe: Arc<str>,
    not_before: SystemTime,
    not_after: SystemTime,
}

fn parse_leaf(der: &CertificateDer<'_>) -> Result<Leaf, SvidError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| SvidError::BadLeaf(error.to_string()))?;
    let uris = spiffe_uris(&certificate);
    let [spiffe] = uris.as_slice() else {
        return Err(SvidError::SpiffeIds(uris.len()));
    };
    Ok(Leaf {
        spiffe: Arc::from(*spiffe),
        not_before: system_time(certificate.validity().not_before.timestamp()),
        not_after: system_time(certificate.validity().not_after.timestamp()),
    })
}

/// The SPIFFE URI of a certificate; `None` unless there is exactly one (SPIFFE X.509-SVID, section 2).
pub fn spiffe_of(der: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    match spiffe_uris(&certificate).as_slice() {
        [one] => Some(Arc::from(*one)),
        _ => None,
    }
}

fn spiffe_uris<'a>(certificate: &'a X509Certificate<'a>) -> Vec<&'a str> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some(*uri),
            _ => None,
        })
        .collect()
}

fn system_time(timestamp: i64) -> SystemTime {
    u64::try_from(timestamp).map_or(SystemTime::UNIX_EPOCH, |seconds| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    })
}

fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, SvidError> {
    let mut store = RootCertStore::empty();
    for (index, root) in roots.iter().enumerate() {
        store.add(root.clone()).map_err(|error| SvidError::BadRoot {
            index,
            reason: error.to_string(),
        })?;
    }
    if store.is_empty() {
        return Err(SvidError::NoRoots);
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ca;

    // E1
    #[test]
    fn identity_is_read_from_the_certificate() {
        let ca = Ca::new("root-a");
        let svid = ca.svid("spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(&**svid.spiffe(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert!(!svid.expired(SystemTime::now()));
        assert!(svid.half_life() > svid.not_before() && svid.half_life() < svid.not_after());
    }

    #[test]
    fn key_of_another_certificate_is_refused() {
        let ca = Ca::new("root-a");
        let (one, two) = (ca.svid("spiffe://td/ns/a/sa/x"), ca.svid("spiffe://td/ns/a/sa/y"));
        let error = Svid::new(one.chain().to_vec(), two.key().clone_key(), one.roots().to_vec()).unwrap_err();
        assert!(matches!(error, SvidError::BadKey(_)), "{error}");
    }

    #[test]
    fn empty_bundle_and_chain_are_refused() {
        let svid = Ca::new("root-a").svid("spiffe://td/ns/a/sa/x");
        assert!(matches!(svid.with_roots(Vec::new()), Err(SvidError::NoRoots)));
        let none = Svid::new(Vec::new(), svid.key().clone_key(), svid.roots().to_vec());
        assert!(matches!(none, Err(SvidError::EmptyChain)));
    }

    #[tokio::test]
    async fn waiters_see_the_first_publication() {
        let store = SvidStore::new();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.wait().await.spiffe().clone() }
        });
        store.publish(Ca::new("root-a").svid("spiffe://td/ns/a/sa/x"));
        assert_eq!(&*waiting.await.unwrap(), "spiffe://td/ns/a/sa/x");
    }
}
