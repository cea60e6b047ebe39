//! Envoy's discovery stream, passed on to discovery with the pod's current token.
//!
//! The bytes of the messages are not looked at. Each stream gets a connection of its own, with token and roots read anew.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;

use super::{EnvoyConfig, EnvoyError, socket};
use crate::identity::{self, IdentityConfig};
use crate::svid::SvidStore;

const SERVICE: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";

struct Upstream {
    address: String,
    identity: IdentityConfig,
    store: SvidStore,
}

pub(super) fn serve(config: &EnvoyConfig, store: SvidStore) -> Result<AbortOnDropHandle<()>, EnvoyError> {
    let listener = socket("discovery socket", &config.discovery_socket)?;
    let upstream = Arc::new(Upstream {
        address: config.discovery.clone(),
        identity: config.identity.clone(),
        store,
    });
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let upstream = upstream.clone();
                    connections.spawn(async move {
                        let service = service_fn(move |request| pass(upstream.clone(), request));
                        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .timer(TokioTimer::new())
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                        if let Err(error) = served {
                            tracing::debug!(%error, "envoy's discovery connection ended");
                        }
                    });
                }
                Some(_ended) = connections.join_next() => {}
            }
        }
    });
    Ok(AbortOnDropHandle::new(task))
}

async fn pass(upstream: Arc<Upstream>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if !request.uri().path().starts_with(SERVICE) {
        return Ok(Status::unimplemented("only aggregated discovery is passed on").into_http());
    }
    Ok(match upstream.call(request).await {
        Ok(response) => {
            tracing::info!(discovery = upstream.address, "connected to discovery");
            response
        }
        Err(reason) => {
            // Envoy tries again, with pauses of its own.
            tracing::warn!(discovery = upstream.address, reason, "discovery cannot be reached");
            Status::unavailable(reason).into_http()
        }
    })
}

impl Upstream {
    async fn call(&self, request: Request<Incoming>) -> Result<Response<Body>, String> {
        let text = |error: identity::IdentityError| error.to_string();
        let roots = identity::read("root certificate", &self.identity.root_file).map_err(text)?;
        let token = identity::read("token", &self.identity.token_file);
        let current = self.store.current().filter(|svid| !svid.expired(SystemTime::now()));
        let shown = if token.is_err() { current.as_deref() } else { None };
        let (mut parts, body) = request.into_parts();
        match (token, shown) {
            (Ok(token), _) => {
                let bearer = format!("Bearer {}", String::from_utf8_lossy(&token).trim());
                let value = HeaderValue::try_from(bearer).map_err(|_| "the token file holds no token".to_owned())?;
                parts.headers.insert(http::header::AUTHORIZATION, value);
            }
            (Err(error), None) => return Err(text(error)),
            (Err(_), Some(_)) => {}
        }
        let mut channel = identity::connect(&self.address, &roots, shown).await.map_err(text)?;
        std::future::poll_fn(|cx| channel.poll_ready(cx))
            .await
            .map_err(|error| error.to_string())?;
        channel
            .call(Request::from_parts(parts, Body::new(body)))
            .await
            .map_err(|error| error.to_string())
    }
}
