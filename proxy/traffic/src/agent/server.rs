//! A small HTTP/1.1 server: bounded connections, heads and times; answers are short and whole.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;

/// The kubelet and a few scrapers; more than that is somebody else.
const CONNECTIONS: usize = 64;
/// How long a connection may wait for a request.
const IDLE: Duration = Duration::from_secs(60);
/// How long an answer may take to be made and sent; the longest are merged metrics of a slow application.
const LONGEST: Duration = Duration::from_secs(90);

pub(super) type Answer = Response<Full<Bytes>>;
pub(super) type Handler = fn(Arc<Shared>, Call) -> BoxFuture<'static, Answer>;

/// A request; its body is not read (nothing here has one).
pub(super) struct Call {
    pub(super) request: Request<()>,
    pub(super) peer: SocketAddr,
}

impl Call {
    pub(super) fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// From inside the pod's own network namespace, by loopback.
    pub(super) fn is_local(&self) -> bool {
        self.peer.ip().to_canonical().is_loopback()
    }
}

pub(super) async fn serve(
    address: SocketAddr,
    handler: Handler,
    shared: Arc<Shared>,
) -> io::Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // Over the limit the connection is closed at once; the caller tries again.
                        if let Ok(permit) = permits.clone().try_acquire_owned() {
                            let shared = shared.clone();
                            connections.spawn(async move {
                                let _permit = permit;
                                connection(stream, peer, handler, shared).await;
                            });
                        } else {
                            shared.metrics.refused.inc();
                        }
                    }
                    // Out of file descriptors: closing connections will free some.
                    Err(_full) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
                Some(_ended) = connections.join_next() => {}
            }
        }
    });
    Ok((bound, AbortOnDropHandle::new(task)))
}

async fn connection(stream: tokio::net::TcpStream, peer: SocketAddr, handler: Handler, shared: Arc<Shared>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = shared.clone();
        async move {
            let (parts, _body) = request.into_parts();
            let call = Call {
                request: Request::from_parts(parts, ()),
                peer,
            };
            let answer = tokio::time::timeout(LONGEST, handler(shared, call)).await;
            Ok::<_, Infallible>(answer.unwrap_or_else(|_elapsed| text(StatusCode::GATEWAY_TIMEOUT, "took too long\n")))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "agent connection ended");
    }
}

/// A plain text answer.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

/// An answer of some content type.
pub(super) fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    answer
}
