//! Connections to the application in this pod that are not captured, and requests over them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::tls;

/// Connects as if the kubelet did. Coming from the address that the capture rules leave alone, the connection reaches the
/// application and not this sidecar; where that address cannot be used (no rules, no such address) it connects plainly.
pub(crate) async fn connect(ip: IpAddr, port: u16) -> io::Result<TcpStream> {
    let target = SocketAddr::new(ip, port);
    let passthrough = match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
    };
    if ip.is_loopback() {
        return TcpStream::connect(target).await;
    }
    let socket = if ip.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    match socket.bind(SocketAddr::new(passthrough, 0)) {
        Ok(()) => match socket.connect(target).await {
            // From loopback there is no way to an address outside this pod.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NetworkUnreachable
                ) =>
            {
                TcpStream::connect(target).await
            }
            connected => connected,
        },
        Err(_no_such_address) => TcpStream::connect(target).await,
    }
}

/// A name or an address as a probe gives it.
pub(crate) async fn resolve(host: &str) -> io::Result<IpAddr> {
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(ip);
    }
    let mut found = tokio::net::lookup_host((host, 0)).await?;
    found
        .next()
        .map(|address| address.ip())
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// A response with the task that drives its connection: the body can be read as long as it is kept.
pub(crate) struct Exchange {
    pub(crate) response: Response<Incoming>,
    _connection: AbortOnDropHandle<()>,
}

/// One request over a fresh connection.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Exchange, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ended = connection.await;
    }));
    let response = sender.send_request(request).await?;
    Ok(Exchange {
        response,
        _connection: connection,
    })
}

/// TLS without looking at the certificate: the kubelet does the same for probes, since it knows no name to compare.
pub(crate) async fn over_tls(stream: TcpStream, ip: IpAddr) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = ClientConfig::builder_with_provider(tls::crypto())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(ServerName::IpAddress(ip.into()), stream)
        .await
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &tls::crypto().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &tls::crypto().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::crypto().signature_verification_algorithms.supported_schemes()
    }
}
