//! The HTTPS server: accept, handshake, serve, drain.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The API server keeps few connections per webhook; more than this is not an API server.
const CONNECTIONS: usize = 1024;
/// Whoever has not finished the handshake by then is not going to.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A request's head comes in one packet; slower ones hold connections for nothing.
const HEAD: Duration = Duration::from_secs(10);

/// Serves until `stop`; then takes no more connections and lets requests end within `drain`.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    stop: CancellationToken,
    drain: Duration,
) {
    let acceptor = TlsAcceptor::from(tls);
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener) => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Some(tcp) = accepted else { continue };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            tracing::warn!(limit = CONNECTIONS, "too many webhook connections: one is turned away");
            continue;
        };
        let (acceptor, router, watcher) = (acceptor.clone(), router.clone(), graceful.watcher());
        connections.spawn(async move {
            let _permit = permit;
            let tls = match timeout(HANDSHAKE, acceptor.accept(tcp)).await {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => return tracing::debug!(%error, "webhook handshake failed"),
                Err(_) => return tracing::debug!("webhook handshake took too long"),
            };
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(256);
            let connection = builder
                .serve_connection(TokioIo::new(tls), TowerToHyperService::new(router))
                .into_owned();
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%error, "webhook connection ended");
            }
        });
    }
    drop(listener);
    if timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("webhook connections did not end in time and are cut");
    }
}

async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((tcp, _)) => {
            // Answers are one small write each: waiting for more would only delay them.
            let _ = tcp.set_nodelay(true);
            Some(tcp)
        }
        Err(error) => {
            // Out of file descriptors, mostly: give others time to end.
            tracing::warn!(%error, "webhook connection not accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}
