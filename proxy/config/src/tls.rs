//! TLS settings of filter chains (downstream) and of clusters (upstream). Keys and certificates are never here: only
//! the names under which the certificate store has them, or the files that hold them.

use crate::matcher::StringMatch;
use crate::name::SecretName;
use std::sync::Arc;

/// How a filter chain ends TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownstreamTls {
    /// The server's certificate.
    pub certificate: Certificate,
    /// A client without a certificate is refused.
    pub require_client_certificate: bool,
    /// How a client's certificate is checked; `None`: a client certificate is not asked for.
    pub validation: Option<Validation>,
    /// Protocols offered, in order of preference.
    pub alpn: Box<[Arc<str>]>,
    /// Lowest version accepted.
    pub min_version: TlsVersion,
}

impl DownstreamTls {
    /// Mutual TLS: the client must show a certificate that is verified.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        self.require_client_certificate && self.validation.is_some()
    }
}

/// How a cluster's connections begin TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name asked for; `None`: no SNI, unless `sni_from_authority`.
    pub sni: Option<Arc<str>>,
    /// Ask for the request's authority instead.
    pub sni_from_authority: bool,
    /// Protocols offered, in order of preference.
    pub alpn: Box<[Arc<str>]>,
    /// Our certificate; with one, this is mutual TLS.
    pub certificate: Option<Certificate>,
    /// How the server's certificate is checked; `None`: not at all (only when the user asked for that).
    pub validation: Option<Validation>,
    /// Lowest version offered.
    pub min_version: TlsVersion,
}

impl UpstreamTls {
    /// Mutual TLS: we show a certificate.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        self.certificate.is_some()
    }
}

/// Where a certificate and its key come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// The certificate store's entry of this name.
    Secret(SecretName),
    /// PEM files.
    Files {
        /// The chain, leaf first.
        chain: Arc<str>,
        /// The private key.
        key: Arc<str>,
    },
}

/// How a peer's certificate is checked: it must chain to the roots, and have one of the names (when there are any).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validation {
    /// The trusted roots.
    pub roots: Roots,
    /// Names of which the certificate must have one; empty: any name.
    pub sans: Box<[SanMatch]>,
}

/// Where trusted roots come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The certificate store's entry of this name.
    Secret(SecretName),
    /// A PEM file.
    File(Arc<str>),
    /// The system's roots.
    System,
}

/// A test on one subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SanMatch {
    /// A URI name, for instance a SPIFFE id.
    Uri(StringMatch),
    /// A DNS name.
    Dns(StringMatch),
    /// An IP address.
    Ip(StringMatch),
}

/// TLS versions; older ones are not supported at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    #[default]
    V1_2,
    /// TLS 1.3
    V1_3,
}
