//! A signing request, checked: its signature holds, its key is strong enough.

use std::fmt;
use std::net::IpAddr;

use rcgen::{PublicKeyData as _, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

/// The longest request that is looked at: a request with an RSA key of 8192 bits needs a quarter of it.
const MAX_BYTES: usize = 16 * 1024;

/// The least RSA modulus, in bits (NIST SP 800-57 allows no less since 2014).
const MIN_RSA_BITS: usize = 2048;

/// A signing request whose signature was verified with the key inside it.
pub struct Csr {
    key: PublicKey,
    names: Vec<RequestedName>,
}

/// A public key that may be certified: ECDSA P-256 or P-384, Ed25519, or RSA of at least 2048 bits.
pub struct PublicKey {
    pub(crate) spki: SubjectPublicKeyInfo,
    pub(crate) is_rsa: bool,
}

/// A subject alternative name that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedName {
    /// A URI, such as a SPIFFE id.
    Uri(String),
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// Any other kind.
    Other(&'static str),
}

/// Why a signing request is not looked at any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than any sensible request.
    #[error("the signing request has {length} bytes: at most {MAX_BYTES} are read")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// Neither PEM nor DER of a PKCS#10 request.
    #[error("the signing request is not a PKCS#10 request in PEM or DER")]
    Malformed,
    /// Bytes after the request.
    #[error("there are bytes after the end of the signing request")]
    TrailingBytes,
    /// The signature does not fit the key: the sender may not hold it.
    #[error("the signature of the signing request does not fit the key in it")]
    Signature,
    /// A key of a kind that is not certified.
    #[error("the key of the signing request is of no supported kind: use ECDSA P-256 or P-384, Ed25519 or RSA")]
    KeyKind,
    /// An RSA key that is too short.
    #[error("the RSA key of the signing request has {bits} bits: at least {MIN_RSA_BITS} are needed")]
    KeyTooShort {
        /// Its length.
        bits: usize,
    },
    /// A name that cannot be read.
    #[error("a name in the signing request is malformed")]
    Name,
}

impl Csr {
    /// Reads a request in PEM or in DER and verifies its signature.
    pub fn parse(pem_or_der: &[u8]) -> Result<Self, CsrError> {
        if pem_or_der.len() > MAX_BYTES {
            return Err(CsrError::TooLong {
                length: pem_or_der.len(),
            });
        }
        // DER of a request begins with the tag SEQUENCE, which no PEM text does.
        if pem_or_der.first() == Some(&0x30) {
            return Self::from_der(pem_or_der);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem_or_der).map_err(|_| CsrError::Malformed)?;
        Self::from_der(&der)
    }

    fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::TrailingBytes);
        }
        let key = PublicKey::from_spki_der(request.certification_request_info.subject_pki.raw)?;
        request.verify_signature().map_err(|_| CsrError::Signature)?;

        let mut names = Vec::new();
        for attribute in request.certification_request_info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
                continue;
            };
            for extension in &requested.extensions {
                match extension.parsed_extension() {
                    ParsedExtension::SubjectAlternativeName(san) => {
                        for name in &san.general_names {
                            names.push(RequestedName::read(name)?);
                        }
                    }
                    ParsedExtension::ParseError { .. } => return Err(CsrError::Malformed),
                    _ => {}
                }
            }
        }
        Ok(Self { key, names })
    }

    /// The key to certify.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// What the sender would like to be called. It is compared with what was proven, never copied.
    pub fn requested_names(&self) -> &[RequestedName] {
        &self.names
    }
}

impl PublicKey {
    /// Checks the DER of a SubjectPublicKeyInfo.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, CsrError> {
        let spki = SubjectPublicKeyInfo::from_der(der).map_err(|_| CsrError::KeyKind)?;
        let (_, parsed) = x509_parser::x509::SubjectPublicKeyInfo::from_der(der).map_err(|_| CsrError::KeyKind)?;
        let is_rsa = match parsed.parsed() {
            Ok(x509_parser::public_key::PublicKey::RSA(rsa)) => {
                let bits = rsa.key_size();
                if bits < MIN_RSA_BITS {
                    return Err(CsrError::KeyTooShort { bits });
                }
                true
            }
            Ok(x509_parser::public_key::PublicKey::EC(_)) => false,
            _ if *spki.algorithm() == rcgen::PKCS_ED25519 => false,
            _ => return Err(CsrError::KeyKind),
        };
        Ok(Self { spki, is_rsa })
    }
}

impl RequestedName {
    fn read(name: &GeneralName<'_>) -> Result<Self, CsrError> {
        Ok(match name {
            GeneralName::URI(uri) => Self::Uri((*uri).to_owned()),
            GeneralName::DNSName(dns) => Self::Dns((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => Self::Ip(match *bytes {
                [a, b, c, d] => IpAddr::from([*a, *b, *c, *d]),
                bytes => IpAddr::from(<[u8; 16]>::try_from(bytes).map_err(|_| CsrError::Name)?),
            }),
            GeneralName::RFC822Name(_) => Self::Other("an e-mail address"),
            GeneralName::DirectoryName(_) => Self::Other("a directory name"),
            GeneralName::Invalid(..) => return Err(CsrError::Name),
            _ => Self::Other("a name of another kind"),
        })
    }
}

impl fmt::Display for RequestedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => write!(f, "the URI {uri:?}"),
            Self::Dns(dns) => write!(f, "the DNS name {dns:?}"),
            Self::Ip(ip) => write!(f, "the address {ip}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}
