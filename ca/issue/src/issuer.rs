//! Who signs: a CA certificate with its key, the chain above it and the roots that everybody trusts.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::leaf::{SKEW, Serial};
use crate::pem;

/// The longest life of a root that is made here: dates in certificates end with the year 9999.
const MAX_ROOT_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A CA that can sign. Its key never leaves it but through [`Issuer::to_pem`].
pub struct Issuer {
    pub(crate) signer: rcgen::Issuer<'static, KeyPair>,
    pub(crate) validity: Validity,
    /// What goes behind a leaf so that it leads to a root: the signing certificate and those above it, without roots.
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    pem: CaPem,
}

/// A CA as text; the fields are the keys of the secrets `istio-ca-secret` and `cacerts`.
#[derive(Clone, PartialEq, Eq)]
pub struct CaPem {
    /// `ca-cert.pem`: the certificate that signs.
    pub ca_cert: String,
    /// `ca-key.pem`: its private key (PKCS#8, SEC1 or PKCS#1).
    pub ca_key: String,
    /// `cert-chain.pem`: the certificates from the signing one up; may be empty and may hold the root.
    pub cert_chain: String,
    /// `root-cert.pem`: what clients trust; one or more. Empty means: the signing certificate itself.
    pub root_cert: String,
}

/// When a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before this.
    pub not_before: SystemTime,
    /// Not after this.
    pub not_after: SystemTime,
}

/// Why a CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// A field is not PEM.
    #[error(
        "{field} is not PEM text with certificates: write the certificate between BEGIN CERTIFICATE and END CERTIFICATE"
    )]
    Pem {
        /// The key in the secret.
        field: &'static str,
    },
    /// A field holds no certificate.
    #[error("{field} holds no certificate")]
    Empty {
        /// The key in the secret.
        field: &'static str,
    },
    /// A certificate that does not parse.
    #[error("{field} holds a certificate that cannot be read")]
    Certificate {
        /// The key in the secret.
        field: &'static str,
    },
    /// A private key that does not parse.
    #[error("ca-key.pem holds no private key that can be used: write an unencrypted PKCS#8, SEC1 or PKCS#1 key")]
    Key(#[source] rcgen::Error),
    /// The certificate is another key's.
    #[error("ca-key.pem is not the key of ca-cert.pem")]
    KeyMismatch,
    /// The certificate may not sign others.
    #[error(
        "ca-cert.pem is not a CA certificate: it needs basic constraints CA:TRUE and the key usage certificate sign"
    )]
    NotCa,
    /// The chain does not lead to a root.
    #[error("ca-cert.pem with cert-chain.pem does not lead to a certificate in root-cert.pem")]
    NotRooted,
    /// The root could not be made.
    #[error("a root certificate cannot be made")]
    SelfSign(#[source] rcgen::Error),
}

impl Issuer {
    /// Makes a self-signed root.
    ///
    /// `key_pem` is a private key in PKCS#8 (ECDSA P-256 unless there is a reason), `organization` appears in its name (the
    /// trust domain). More than 100 years are cut to 100.
    pub fn self_signed(
        organization: &str,
        key_pem: &str,
        now: SystemTime,
        lifetime: Duration,
        serial: Serial,
    ) -> Result<Self, IssuerError> {
        let key = KeyPair::from_pem(key_pem).map_err(IssuerError::Key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{organization} mesh root"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::from(now - SKEW);
        params.not_after = OffsetDateTime::from(now + lifetime.min(MAX_ROOT_LIFETIME));
        params.serial_number = Some(serial.0.to_vec().into());
        let root = params.self_signed(&key).map_err(IssuerError::SelfSign)?;
        let root_pem = pem::certificate(root.der());
        Self::from_pem(CaPem {
            ca_cert: root_pem.clone(),
            ca_key: key_pem.to_owned(),
            cert_chain: String::new(),
            root_cert: root_pem,
        })
    }

    /// Reads a CA and checks that its parts belong together.
    pub fn from_pem(pem: CaPem) -> Result<Self, IssuerError> {
        const CERT: &str = "ca-cert.pem";
        const CHAIN: &str = "cert-chain.pem";
        const ROOT: &str = "root-cert.pem";
        let certificate = first(pem::certificates(&pem.ca_cert), CERT)?;
        let key = KeyPair::from_pem(&pem.ca_key).map_err(IssuerError::Key)?;

        let parsed = parse(&certificate, CERT)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(IssuerError::KeyMismatch);
        }
        let may_sign = match parsed.key_usage() {
            Ok(Some(usage)) => usage.value.key_cert_sign(),
            Ok(None) => true,
            Err(_) => false,
        };
        if !parsed.is_ca() || !may_sign {
            return Err(IssuerError::NotCa);
        }
        let validity = Validity::of(&parsed);

        let above = pem::certificates(&pem.cert_chain).ok_or(IssuerError::Pem { field: CHAIN })?;
        let roots = if pem.root_cert.trim().is_empty() {
            vec![certificate.clone()]
        } else {
            pem::certificates(&pem.root_cert).ok_or(IssuerError::Pem { field: ROOT })?
        };
        if roots.is_empty() {
            return Err(IssuerError::Empty { field: ROOT });
        }
        let chain = chain_to_root(&certificate, &above, &roots)?;
        let signer = rcgen::Issuer::from_ca_cert_der(&certificate, key).map_err(IssuerError::SelfSign)?;
        Ok(Self {
            signer,
            validity,
            chain,
            roots,
            pem,
        })
    }

    /// The CA as text, private key included: for the secret that keeps it.
    pub fn to_pem(&self) -> &CaPem {
        &self.pem
    }

    /// What clients trust, as PEM text.
    pub fn root_pem(&self) -> String {
        self.roots.iter().map(|der| pem::certificate(der)).collect()
    }

    /// What clients trust.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// What goes behind a leaf: from the signing certificate up to, but without, the root; empty if the root itself signs.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// When the signing certificate counts.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

impl Validity {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            not_before: instant(validity.not_before.timestamp()),
            not_after: instant(validity.not_after.timestamp()),
        }
    }

    /// Reads the validity of a certificate in DER.
    pub fn of_der(certificate: &[u8]) -> Option<Self> {
        X509Certificate::from_der(certificate)
            .ok()
            .map(|(_, parsed)| Self::of(&parsed))
    }

    /// The moment at which `percent` of the certificate's life are over.
    pub fn after_percent(&self, percent: u32) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + life / 100 * percent.min(100)
    }

    /// Whether it counts at `now`.
    pub fn contains(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// Times before 1970 do not occur in certificates that count today; they become 1970.
fn instant(unix_seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0))
}

fn first(
    certificates: Option<Vec<CertificateDer<'static>>>,
    field: &'static str,
) -> Result<CertificateDer<'static>, IssuerError> {
    certificates
        .ok_or(IssuerError::Pem { field })?
        .into_iter()
        .next()
        .ok_or(IssuerError::Empty { field })
}

fn parse<'a>(der: &'a [u8], field: &'static str) -> Result<X509Certificate<'a>, IssuerError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IssuerError::Certificate { field }),
    }
}

/// Walks from the signing certificate up through `above` until a root has signed (or is) the last one.
fn chain_to_root(
    certificate: &CertificateDer<'static>,
    above: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Result<Vec<CertificateDer<'static>>, IssuerError> {
    let mut chain: Vec<CertificateDer<'static>> = Vec::new();
    let mut current = certificate.clone();
    loop {
        if roots.contains(&current) {
            return Ok(chain);
        }
        chain.push(current.clone());
        let below = parse(&current, "cert-chain.pem")?;
        for root in roots {
            if signed_by(&below, &parse(root, "root-cert.pem")?) {
                return Ok(chain);
            }
        }
        let mut next = None;
        for candidate in above {
            if !chain.contains(candidate) && signed_by(&below, &parse(candidate, "cert-chain.pem")?) {
                next = Some(candidate.clone());
                break;
            }
        }
        current = next.ok_or(IssuerError::NotRooted)?;
    }
}

fn signed_by(below: &X509Certificate<'_>, above: &X509Certificate<'_>) -> bool {
    below.issuer() == above.subject() && below.verify_signature(Some(above.public_key())).is_ok()
}

#[cfg(test)]
mod tests;
