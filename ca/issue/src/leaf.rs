//! What is signed: certificates of workloads and of the mesh's own servers.

use std::time::{Duration, SystemTime};

use mizzen_identity::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::csr::{Csr, PublicKey, RequestedName};
use crate::issuer::{Issuer, Validity};
use crate::pem;

/// How far apart clocks in a cluster may be: certificates count from this long before they were made.
pub(crate) const SKEW: Duration = Duration::from_secs(120);

/// How long workload certificates live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TtlPolicy {
    /// If the request does not say. Default 24 h.
    pub default: Duration,
    /// The most that a request may say. Default 90 d.
    pub max: Duration,
}

/// A certificate's serial number: 16 bytes from a random source, as RFC 5280 4.1.2.2 wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial(pub [u8; 16]);

/// What was signed.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, in DER.
    pub leaf: CertificateDer<'static>,
    /// What goes behind it in a handshake (without the root).
    pub chain: Vec<CertificateDer<'static>>,
    /// When it counts.
    pub validity: Validity,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request asks for another identity than the one that was proven.
    #[error("the signing request asks for {requested}, but its sender is {caller}: ask for that or for no name at all")]
    ForeignName {
        /// What it asks for.
        requested: RequestedName,
        /// Who was proven to have sent it.
        caller: SpiffeId,
    },
    /// The request asks for too long a life.
    #[error("the signing request asks for a life of {} s: at most {} s are given", .requested.as_secs(), .max.as_secs())]
    TtlTooLong {
        /// What it asks for.
        requested: Duration,
        /// What the policy allows.
        max: Duration,
    },
    /// The CA's own certificate has ended.
    #[error("the certificate of the CA has expired: replace the secret that holds it")]
    IssuerExpired,
    /// The CA's own certificate does not count yet.
    #[error("the certificate of the CA does not count yet: check the clock of the control plane")]
    IssuerNotYetValid,
    /// A server without a name.
    #[error("a server's certificate needs at least one DNS name or address")]
    NoServerName,
    /// A server's name that cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate as a server's name")]
    ServerName {
        /// The name.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The signature could not be made.
    #[error("the certificate cannot be signed")]
    Sign(#[source] rcgen::Error),
}

impl IssueError {
    /// A bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::ForeignName { .. } => "foreign_name",
            Self::TtlTooLong { .. } => "ttl_too_long",
            Self::IssuerExpired | Self::IssuerNotYetValid => "issuer_not_valid",
            Self::NoServerName | Self::ServerName { .. } => "server_name",
            Self::Sign(_) => "sign",
        }
    }
}

impl Default for TtlPolicy {
    fn default() -> Self {
        Self {
            default: Duration::from_secs(24 * 3600),
            max: Duration::from_secs(90 * 24 * 3600),
        }
    }
}

impl TtlPolicy {
    /// What a request gets that asks for `requested` (zero or nothing: the default).
    fn decide(&self, requested: Option<Duration>) -> Result<Duration, IssueError> {
        match requested {
            Some(requested) if requested > self.max => Err(IssueError::TtlTooLong {
                requested,
                max: self.max,
            }),
            Some(requested) if !requested.is_zero() => Ok(requested),
            _ => Ok(self.default.min(self.max)),
        }
    }
}

impl Issuer {
    /// Certifies a workload.
    ///
    /// The certificate holds one name, the URI of `caller`, and an empty subject; it counts for clients and servers. It ends
    /// with the issuer's own certificate at the latest.
    pub fn issue(
        &self,
        csr: &Csr,
        caller: &SpiffeId,
        requested_ttl: Option<Duration>,
        policy: &TtlPolicy,
        now: SystemTime,
        serial: Serial,
    ) -> Result<Issued, IssueError> {
        let uri = caller.to_string();
        for requested in csr.requested_names() {
            match requested {
                RequestedName::Uri(asked) if *asked == uri => {}
                _ => {
                    return Err(IssueError::ForeignName {
                        requested: requested.clone(),
                        caller: caller.clone(),
                    });
                }
            }
        }
        let ttl = policy.decide(requested_ttl)?;
        let name = SanType::URI(uri.try_into().map_err(IssueError::Sign)?);
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(csr.public_key(), vec![name], usages, ttl, now, serial)
    }

    /// Certifies a server of the mesh itself (discovery, webhooks) under DNS names or addresses.
    pub fn issue_server(
        &self,
        key: &PublicKey,
        names: &[String],
        ttl: Duration,
        now: SystemTime,
        serial: Serial,
    ) -> Result<Issued, IssueError> {
        if names.is_empty() {
            return Err(IssueError::NoServerName);
        }
        let names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => name
                    .as_str()
                    .try_into()
                    .map(SanType::DnsName)
                    .map_err(|source| IssueError::ServerName {
                        name: name.clone(),
                        source,
                    }),
            })
            .collect::<Result<_, _>>()?;
        self.sign(key, names, vec![ExtendedKeyUsagePurpose::ServerAuth], ttl, now, serial)
    }

    fn sign(
        &self,
        key: &PublicKey,
        names: Vec<SanType>,
        extended_key_usages: Vec<ExtendedKeyUsagePurpose>,
        ttl: Duration,
        now: SystemTime,
        serial: Serial,
    ) -> Result<Issued, IssueError> {
        if now > self.validity.not_after {
            return Err(IssueError::IssuerExpired);
        }
        if now < self.validity.not_before {
            return Err(IssueError::IssuerNotYetValid);
        }
        // A tenth of the life at most, so that half of a certificate of seconds is not over before it is delivered.
        let skew = SKEW.min(ttl / 10);
        let not_before = whole_seconds(now - skew).max(self.validity.not_before);
        let not_after = whole_seconds(now + ttl).min(self.validity.not_after);

        let mut params = CertificateParams::default();
        // Not the library's default name: two certificates of one name look self-signed to OpenSSL.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if key.is_rsa {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = extended_key_usages;
        params.use_authority_key_identifier_extension = true;
        params.not_before = OffsetDateTime::from(not_before);
        params.not_after = OffsetDateTime::from(not_after);
        params.serial_number = Some(serial.0.to_vec().into());
        let certificate = params.signed_by(&key.spki, &self.signer).map_err(IssueError::Sign)?;
        Ok(Issued {
            leaf: certificate.der().clone(),
            chain: self.chain().to_vec(),
            validity: Validity { not_before, not_after },
        })
    }
}

impl Issued {
    /// The certificate and what goes behind it, each as PEM text, without the root.
    pub fn chain_pem(&self) -> Vec<String> {
        std::iter::once(&self.leaf)
            .chain(&self.chain)
            .map(|der| pem::certificate(der))
            .collect()
    }

    /// The certificate and what goes behind it, for a TLS handshake.
    pub fn chain_der(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(&self.leaf).chain(&self.chain).cloned().collect()
    }
}

/// Certificates count in seconds.
fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}
