//! The API over HTTPS.

use crate::api::Api;
use crate::auth;
use crate::negotiate::{Accept, Body, respond_error};
use crate::pki::PkiError;
use crate::user::User;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often an idle HTTP/2 connection is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

impl Api {
    /// Serves on a listener until `shutdown` ends, then closes all connections. Clients show certificates of this API's authority, or
    /// tokens, or nothing.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), PkiError> {
        let acceptor = self.acceptor()?;
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection(self.clone(), acceptor.clone(), stream));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection failed");
                        // Most often too many open files: wait until some are closed.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        connections.shutdown().await;
        Ok(())
    }

    fn acceptor(&self) -> Result<TlsAcceptor, PkiError> {
        let tls = |error: &dyn std::fmt::Display| PkiError::Tls(error.to_string());
        let options = &self.inner.options;
        let mut names: Vec<String> = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
            "::1",
        ]
        .map(str::to_owned)
        .to_vec();
        names.push(crate::bootstrap::api_address(options).to_string());
        names.extend(options.advertise.map(|address| address.ip().to_string()));
        names.extend(options.names.iter().cloned());
        names.sort();
        names.dedup();
        let identity = self.inner.pki.server(&names)?;
        let mut chain = Vec::new();
        for pem in [identity.certificate.as_str(), self.ca()] {
            chain.push(CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| tls(&error))?);
        }
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|error| tls(&error))?;
        let mut roots = RootCertStore::empty();
        for certificate in chain.iter().skip(1) {
            roots.add(certificate.clone()).map_err(|error| tls(&error))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| tls(&error))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| tls(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

async fn connection(api: Api, acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        return;
    };
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let user = peer
        .and_then(|certificate| auth::certificate_user(certificate))
        .map(Arc::new);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (api, user) = (api.clone(), user.clone());
        async move { Ok::<_, Infallible>(answer(&api, user.as_deref(), request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_streams(1000);
    if let Err(error) = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer(api: &Api, certificate: Option<&User>, request: Request<Incoming>) -> Response<Body> {
    let user = match auth::authenticate(api, request.headers(), certificate) {
        Ok(user) => user,
        Err(error) => return respond_error(&error, Accept::json()),
    };
    api.handle(user, request.map(|body| body.map_err(Into::into).boxed_unsync()))
        .await
}
