//! TLS of the mesh: configurations derived from an identity, and what is known of a peer after the handshake.
//!
//! In: an [`Svid`] and which side, which ALPN. Out: rustls configurations and [`Peer`]. The mesh's roots are the only
//! ones ever trusted here; the system's are never loaded. Names are not checked by the TLS library (workload
//! certificates carry SPIFFE URIs, no DNS names): [`Peer::spiffe`] must be compared with who may run the service before
//! the first byte is sent.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::svid::{Svid, spiffe_of};

/// ALPN of HTTP/1.1 between sidecars.
pub const ALPN_MESH_HTTP1: &[u8] = b"istio-http/1.1";
/// ALPN of HTTP/2 between sidecars.
pub const ALPN_MESH_H2: &[u8] = b"istio-h2";
/// ALPN of opaque TCP between sidecars.
pub const ALPN_MESH_TCP: &[u8] = b"istio";

/// Protocols that are negotiated by ALPN; a closed set, so that configurations can be cached by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alpn {
    /// None offered or none in common.
    None,
    /// `istio-http/1.1`
    MeshHttp1,
    /// `istio-h2`
    MeshH2,
    /// `istio`
    MeshTcp,
    /// `http/1.1`
    Http1,
    /// `h2`
    H2,
}

impl Alpn {
    /// The protocol with this name; unknown names are [`Alpn::None`].
    pub fn parse(name: &[u8]) -> Self {
        match name {
            b"istio-http/1.1" => Self::MeshHttp1,
            b"istio-h2" => Self::MeshH2,
            b"istio" => Self::MeshTcp,
            b"http/1.1" => Self::Http1,
            b"h2" => Self::H2,
            _ => Self::None,
        }
    }

    /// The name on the wire; empty for none.
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::None => b"",
            Self::MeshHttp1 => ALPN_MESH_HTTP1,
            Self::MeshH2 => ALPN_MESH_H2,
            Self::MeshTcp => ALPN_MESH_TCP,
            Self::Http1 => b"http/1.1",
            Self::H2 => b"h2",
        }
    }

    /// Whether HTTP/2 follows.
    pub fn is_h2(self) -> bool {
        matches!(self, Self::MeshH2 | Self::H2)
    }

    /// Whether HTTP/1.1 follows.
    pub fn is_http1(self) -> bool {
        matches!(self, Self::MeshHttp1 | Self::Http1)
    }
}

/// What a TLS server demands and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerKind {
    /// A client certificate of the mesh is required.
    pub mutual: bool,
    /// The protocol to select.
    pub alpn: Alpn,
}

/// What a TLS client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKind {
    /// The protocol to offer.
    pub alpn: Alpn,
}

/// What the handshake proved about the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its SPIFFE id.
    pub spiffe: Arc<str>,
    /// Lower-case hex SHA-256 of its certificate, as XFCC carries it.
    pub hash: Arc<str>,
}

impl Peer {
    /// Reads the peer from its certificate chain; `None` when there is no certificate or no single SPIFFE id in it.
    pub fn from_chain(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let leaf = chain?.first()?;
        let spiffe = spiffe_of(leaf)?;
        let digest = digest::digest(&digest::SHA256, leaf);
        let mut hash = String::with_capacity(64);
        for byte in digest.as_ref() {
            for nibble in [byte >> 4, byte & 15] {
                hash.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        Some(Self {
            spiffe,
            hash: Arc::from(hash),
        })
    }
}

/// The one crypto provider: AES-128-GCM first (cheapest with AES instructions), X25519 first.
pub fn crypto() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            Arc::new(CryptoProvider {
                cipher_suites: vec![
                    provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
                    provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
                    provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
                    provider::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                    provider::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
                ],
                kx_groups: vec![provider::kx_group::X25519, provider::kx_group::SECP256R1],
                ..provider::default_provider()
            })
        })
        .clone()
}

pub(crate) fn certified_key(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(chain.to_vec(), key.clone_key(), &crypto())
}

fn protocols(alpn: Alpn) -> Vec<Vec<u8>> {
    if alpn == Alpn::None {
        Vec::new()
    } else {
        vec![alpn.name().to_vec()]
    }
}

pub(crate) fn server_config(svid: &Svid, kind: ServerKind) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = if kind.mutual {
        let verifier = WebPkiClientVerifier::builder_with_provider(svid.root_store().clone(), crypto())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(svid.chain().to_vec(), svid.key().clone_key())?;
    config.alpn_protocols = protocols(kind.alpn);
    // One ticket: a second one is never used by clients that pool their connections.
    config.send_tls13_tickets = 1;
    Ok(config)
}

pub(crate) fn client_config(svid: &Svid, kind: ClientKind) -> Result<ClientConfig, rustls::Error> {
    let verifier = MeshServerVerifier {
        roots: svid.root_store().clone(),
        algorithms: crypto().signature_verification_algorithms,
    };
    let mut config = ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(svid.chain().to_vec(), svid.key().clone_key())?;
    config.alpn_protocols = protocols(kind.alpn);
    config.resumption = Resumption::in_memory_sessions(64);
    Ok(config)
}

/// Verifies the chain against the mesh's roots and leaves the name to the caller (see the module's head).
#[derive(Debug)]
struct MeshServerVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for MeshServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
