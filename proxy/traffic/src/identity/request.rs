//! One signing request: `istio.v1.auth.IstioCertificateService/CreateCertificate` over TLS.

use std::time::Duration;

use http::uri::PathAndQuery;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as ClientIdentity};
use tonic_prost::ProstCodec;

use super::{IdentityConfig, IdentityError, pem, read};
use crate::svid::Svid;

const CONNECT: Duration = Duration::from_secs(5);

/// `IstioCertificateRequest` of Istio's `security/v1alpha1/ca.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CertificateRequest {
    /// PKCS#10 in PEM.
    #[prost(string, tag = "1")]
    pub(super) csr: String,
    /// Wished life in seconds.
    #[prost(int64, tag = "3")]
    pub(super) validity_duration: i64,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CertificateResponse {
    /// PEM: leaf, intermediates, root.
    #[prost(string, repeated, tag = "1")]
    pub(super) cert_chain: Vec<String>,
}

/// A fresh P-256 key and a request that names the identity.
pub(super) fn key_and_csr(spiffe: &str) -> Result<(KeyPair, String), IdentityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    // Identities are in the URI alone; without this a common name would be put in.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(spiffe.try_into()?)];
    let csr = params.serialize_request(&key)?.pem()?;
    Ok((key, csr))
}

/// Sends the request. Who asks is proven by the token; a current certificate alone would not buy another one.
pub(super) async fn sign(config: &IdentityConfig, csr: String) -> Result<Vec<String>, IdentityError> {
    let token = read("token", &config.token_file)?;
    let bearer = String::from_utf8_lossy(&token);
    let value = format!("Bearer {}", bearer.trim())
        .parse()
        .map_err(|_invalid| IdentityError::File {
            what: "token",
            path: config.token_file.display().to_string(),
            reason: "not a token".to_owned(),
        })?;
    let mut request = Request::new(CertificateRequest {
        csr,
        validity_duration: i64::try_from(config.life.as_secs()).unwrap_or(i64::MAX),
    });
    request.metadata_mut().insert("authorization", value);
    let channel = connect(&config.ca, &read("root certificate", &config.root_file)?, None).await?;
    let mut client = Grpc::new(channel);
    let refused = |status: tonic::Status| IdentityError::Refused {
        address: config.ca.clone(),
        code: status.code(),
        message: status.message().to_owned(),
    };
    client.ready().await.map_err(|error| IdentityError::Connect {
        address: config.ca.clone(),
        reason: chain(&error),
    })?;
    let path = PathAndQuery::from_static("/istio.v1.auth.IstioCertificateService/CreateCertificate");
    let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let response = client.unary(request, path, codec).await.map_err(refused)?;
    Ok(response.into_inner().cert_chain)
}

/// A connection of its own each time: requests are hours apart, and the root may have changed.
pub(crate) async fn connect(address: &str, roots: &[u8], shown: Option<&Svid>) -> Result<Channel, IdentityError> {
    let bad = || IdentityError::Address {
        address: address.to_owned(),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(bad());
    }
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(roots))
        .domain_name(host.trim_start_matches('[').trim_end_matches(']'));
    if let Some(svid) = shown {
        tls = tls.identity(ClientIdentity::from_pem(
            pem::certificates(svid.chain()),
            pem::private_key(svid.key()),
        ));
    }
    let refused = |error: tonic::transport::Error| IdentityError::Connect {
        address: address.to_owned(),
        reason: chain(&error),
    };
    Endpoint::from_shared(format!("https://{address}"))
        .map_err(|_invalid| bad())?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_while_idle(true)
        .tls_config(tls)
        .map_err(refused)?
        .connect()
        .await
        .map_err(refused)
}

/// An error with its causes: tonic's own text is only `transport error`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
