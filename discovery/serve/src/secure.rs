//! The TLS server at port 15012: xDS and the certificate authority, for callers who prove who they are.
//!
//! Plain text is refused by not being TLS. A client certificate is optional in the handshake and, where shown, verified by
//! it; who the caller is, is decided per request by [`Authenticated`].

use std::{convert::Infallible, net::SocketAddr, sync::Arc, task, time::Duration};

use futures::future::BoxFuture;
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use mizzen_ca::{Authenticator, Credentials, PeerCertificates, bearer_token};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, server::NamedService};
use tower::{Service, ServiceExt as _};
use tracing::{debug, warn};

/// A handshake takes a few round trips; who needs longer holds a connection for nothing.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection that nobody who is proven has used by then is closed: it would hold a place for nothing.
const PROVEN: Duration = Duration::from_secs(10);
/// Connections at a time. More wait in the kernel's queue.
const CONNECTIONS: usize = 20_000;
/// A proxy that does not answer a ping for so long is gone, though its node may not have said so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of one stream that wait for the peer's window.
const SEND_BUFFER: usize = 256 * 1_024;

/// Serves until cancelled, then lets requests end within `drain`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    routes: axum::Router,
    stop: CancellationToken,
    drain: Duration,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (stream, peer, permit) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room) => match accepted {
                Some(accepted) => accepted,
                None => continue,
            },
        };
        let (acceptor, routes, watcher) = (acceptor.clone(), routes.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            match acceptor {
                None => connection(stream, PeerCertificates::default(), routes, watcher, PROVEN).await,
                Some(acceptor) => match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                        let certificates =
                            PeerCertificates(certificates.iter().map(|c| c.clone().into_owned()).collect());
                        connection(stream, certificates, routes, watcher, PROVEN).await;
                    }
                    Ok(Err(error)) => debug!(%peer, %error, "no TLS connection"),
                    Err(_) => debug!(%peer, "TLS handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    if timeout(drain, graceful.shutdown()).await.is_err() {
        warn!("connections did not end in time and are cut");
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Small messages answer each other: waiting to fill a packet would only add delay.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, permit))
        }
        Err(error) => {
            // Mostly too many open files: trying again at once would spin.
            warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn connection<S>(
    stream: S,
    certificates: PeerCertificates,
    routes: axum::Router,
    watcher: hyper_util::server::graceful::Watcher,
    first: Duration,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let proven = Arc::new(Notify::new());
    let prove = proven.clone();
    let service = tower::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(certificates.clone());
        let (routes, prove) = (routes.clone(), prove.clone());
        async move {
            let response = routes.oneshot(request.map(axum::body::Body::new)).await;
            // Who is refused, by whichever service, hears it in the head.
            if let Ok(response) = &response
                && !response.headers().contains_key(tonic::Status::GRPC_STATUS)
            {
                prove.notify_one();
            }
            response
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(64)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let connection = watcher.watch(connection);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        used = timeout(first, proven.notified()) => match used {
            Ok(()) => connection.await,
            Err(_) => return debug!("nobody who is proven has used the connection in time"),
        },
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// Lets a gRPC service see only requests whose caller is proven, with the [`mizzen_ca::Caller`] among their extensions.
#[derive(Clone)]
pub(crate) struct Authenticated<S> {
    service: S,
    authenticator: Authenticator,
}

impl<S> Authenticated<S> {
    pub(crate) fn new(service: S, authenticator: Authenticator) -> Self {
        Self { service, authenticator }
    }
}

impl<S: NamedService> NamedService for Authenticated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Authenticated<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let authenticator = self.authenticator.clone();
        let fresh = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, fresh);
        Box::pin(async move {
            let caller = {
                let header = request.headers().get(http::header::AUTHORIZATION);
                let token = header.and_then(|value| value.to_str().ok()).and_then(bearer_token);
                // A header that holds no token is not the same as none: nobody falls back to a certificate by mistake.
                if header.is_some() && token.is_none() {
                    return Ok(mizzen_ca::AuthError::NotAToken.status().into_http());
                }
                let certificates = request
                    .extensions()
                    .get::<PeerCertificates>()
                    .filter(|shown| !shown.0.is_empty());
                authenticator.authenticate(Credentials { token, certificates }).await
            };
            match caller {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    service.call(request).await
                }
                Err(error) => {
                    warn!(category = error.category(), %error, "caller refused");
                    Ok(error.status().into_http())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::{response::IntoResponse as _, routing::post};
    use hyper::client::conn::http2 as client;

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    type Requests = client::SendRequest<axum::body::Body>;

    /// A connection at whose other end are `/fine`, and `/refused` as gRPC refuses.
    async fn connect() -> (Requests, tokio::task::JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(4096);
        let refused = || async { tonic::Status::unauthenticated("who are you?").into_http::<axum::body::Body>() };
        let routes = axum::Router::new()
            .route("/fine", post(|| async { "fine".into_response() }))
            .route("/refused", post(refused));
        let server = tokio::spawn(async move {
            let graceful = GracefulShutdown::new();
            let watcher = graceful.watcher();
            connection(far, PeerCertificates::default(), routes, watcher, SHORT).await;
            drop(graceful);
        });
        let (requests, connection) = client::handshake(TokioExecutor::new(), TokioIo::new(near))
            .await
            .unwrap();
        tokio::spawn(connection);
        (requests, server)
    }

    async fn ask(requests: &mut Requests, path: &str) {
        let request = http::Request::post(format!("http://h{path}")).body(axum::body::Body::empty());
        requests.send_request(request.unwrap()).await.unwrap();
    }

    // E7
    #[tokio::test]
    async fn a_connection_that_nobody_proven_uses_is_closed() {
        let (_idle, silent) = connect().await;
        let (mut requests, refused) = connect().await;
        ask(&mut requests, "/refused").await;
        for server in [silent, refused] {
            timeout(Duration::from_secs(9), server).await.unwrap().unwrap();
        }
    }

    // E7
    #[tokio::test]
    async fn a_connection_that_somebody_proven_uses_stays() {
        let (mut requests, server) = connect().await;
        ask(&mut requests, "/fine").await;
        tokio::time::sleep(SHORT * 3).await;
        assert!(!server.is_finished());
        ask(&mut requests, "/refused").await;
        drop(requests);
        timeout(Duration::from_secs(9), server).await.unwrap().unwrap();
    }
}
