//! Whose certificate a peer has shown.

use std::time::SystemTime;

use mizzen_identity::{SpiffeId, SpiffeIdError};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::issuer::Validity;

/// Why a certificate does not name a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not an X.509 certificate.
    #[error("the peer's certificate cannot be read")]
    Malformed,
    /// It does not count at this moment; a connection may outlive the certificate that opened it.
    #[error("the peer's certificate does not count at this time")]
    NotValidNow,
    /// The X.509-SVID standard (section 2) wants exactly one URI.
    #[error("the peer's certificate has {count} URI names: an X.509-SVID has exactly one")]
    UriCount {
        /// How many there are.
        count: usize,
    },
    /// A CA's certificate is not an SVID (section 4.1).
    #[error("the peer's certificate is a CA's, not a workload's")]
    Ca,
    /// The URI is no workload's.
    #[error("the peer's certificate has a bad SPIFFE id")]
    SpiffeId(#[from] SpiffeIdError),
}

/// The workload that a certificate names.
///
/// That the certificate leads to a trusted root was checked by the TLS handshake; here only its content counts.
pub fn peer_identity(certificate: &[u8], now: SystemTime) -> Result<SpiffeId, PeerError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| PeerError::Malformed)?;
    if !Validity::of(&parsed).contains(now) {
        return Err(PeerError::NotValidNow);
    }
    if parsed.is_ca() {
        return Err(PeerError::Ca);
    }
    let san = parsed.subject_alternative_name().map_err(|_| PeerError::Malformed)?;
    let uris: Vec<&str> = san
        .iter()
        .flat_map(|san| &san.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok(SpiffeId::parse(uri)?),
        uris => Err(PeerError::UriCount { count: uris.len() }),
    }
}
