//! Readiness, metrics and debugging over plain HTTP.
//!
//! `/ready`, `/version` and `/metrics` answer everybody. What tells about the mesh answers only callers on the pod's own
//! loopback (`kubectl port-forward`, `kubectl exec`): it names services and pods of all members.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Query, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use mizzen_webhook::IstiodWebhooks;
use mizzen_xds::Ads;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::hub::Hub;

/// Connections at a time: probes, Prometheus and a person.
const CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the pages show.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) registry: Arc<Registry>,
    pub(crate) parts: Arc<Parts>,
    pub(crate) stop: CancellationToken,
}

/// What the pages tell about.
pub(crate) struct Parts {
    pub(crate) hub: Arc<Hub>,
    pub(crate) ads: Ads,
    pub(crate) webhooks: IstiodWebhooks,
}

impl Admin {
    /// The pages of 8080 and of 15014, which are the same.
    pub(crate) fn router(&self) -> Router {
        let debug = Router::new()
            .route("/debug/syncz", get(syncz))
            .route("/debug/config_dump", get(config_dump))
            .route("/debug/mesh", get(mesh))
            .layer(middleware::from_fn(loopback_only));
        Router::new()
            .route("/ready", get(ready))
            .route("/version", get(version))
            .route("/metrics", get(metrics))
            .merge(debug)
            .with_state(self.clone())
    }
}

/// Serves until cancelled.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let router = router.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let service = tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ConnectInfo(peer));
                router.clone().oneshot(request.map(axum::body::Body::new))
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT);
            let _ = builder
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                .await;
        });
    }
}

async fn loopback_only(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    if peer.ip().to_canonical().is_loopback() {
        next.run(request).await
    } else {
        (
            StatusCode::FORBIDDEN,
            "only from the pod itself: use kubectl port-forward\n",
        )
            .into_response()
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let reason = if admin.stop.is_cancelled() {
        Some("shutting down")
    } else if !admin.parts.hub.is_ready() {
        Some("starting: not all kinds have been listed")
    } else if !admin.parts.webhooks.is_ready() {
        Some("starting: the injector's configuration or the namespaces are not known")
    } else {
        None
    };
    match reason {
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
        None => "ready\n".into_response(),
    }
}

async fn version() -> &'static str {
    concat!("mizzen ", env!("CARGO_PKG_VERSION"), "\n")
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.registry) {
        Ok(()) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Each proxy and how far it is with each type.
async fn syncz(State(admin): State<Admin>) -> Response {
    let proxies: Vec<Value> = admin
        .parts
        .ads
        .status(Instant::now())
        .into_iter()
        .map(|stream| {
            let types: BTreeMap<_, _> = stream
                .types
                .iter()
                .map(|status| {
                    let rejected: BTreeMap<_, _> = status
                        .rejected
                        .iter()
                        .map(|(name, message)| (name.to_string(), message.clone()))
                        .collect();
                    let nonce = |nonce: Option<mizzen_xds::Nonce>| nonce.map(|nonce| nonce.to_string());
                    let value = json!({
                        "state": status.state.as_str(),
                        "wildcard": status.wildcard,
                        "subscribed": status.subscribed,
                        "resources": status.resources,
                        "absent": status.absent,
                        "sent": nonce(status.sent),
                        "acknowledged": nonce(status.acknowledged),
                        "rejected": rejected,
                    });
                    (status.kind.short(), value)
                })
                .collect();
            json!({
                "proxy": stream.proxy,
                "stream": stream.stream,
                "protocol": match stream.protocol {
                    mizzen_xds::Protocol::Delta => "delta",
                    mizzen_xds::Protocol::StateOfTheWorld => "state of the world",
                },
                "connectedSeconds": stream.connected.as_secs(),
                "types": types,
            })
        })
        .collect();
    Json(proxies).into_response()
}

/// What one proxy (`?proxy=<pod>.<namespace>`) is sent without asking by name: names, versions and sizes.
async fn config_dump(State(admin): State<Admin>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let Some(proxy) = query.get("proxy") else {
        return (StatusCode::BAD_REQUEST, "which proxy? add ?proxy=<pod>.<namespace>\n").into_response();
    };
    let stream = admin
        .parts
        .ads
        .status(Instant::now())
        .into_iter()
        .rev()
        .find(|stream| stream.proxy == *proxy);
    let Some(types) = stream.and_then(|stream| admin.parts.hub.dump(stream.stream)) else {
        return (
            StatusCode::NOT_FOUND,
            "no such proxy is connected here: see /debug/syncz\n",
        )
            .into_response();
    };
    let types: BTreeMap<_, Vec<Value>> = types
        .into_iter()
        .map(|(kind, resources)| {
            let rows = resources.iter().map(|resource| {
                json!({
                    "name": &**resource.name(),
                    "version": resource.version().to_string(),
                    "bytes": resource.encoded_length(),
                })
            });
            (kind, rows.collect())
        })
        .collect();
    Json(types).into_response()
}

/// How large the mesh is.
async fn mesh(State(admin): State<Admin>) -> Response {
    let mesh = admin.parts.hub.mesh();
    let Some(mesh) = mesh else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let hosts: Vec<_> = mesh
        .services()
        .map(|service| {
            let endpoints = mesh.endpoints(&service.host).map_or(0, |endpoints| endpoints.len());
            json!({ "host": service.host.as_str(), "endpoints": endpoints })
        })
        .collect();
    Json(json!({
        "services": hosts,
        "workloads": mesh.workloads().count(),
        "virtualServices": mesh.virtual_services().map(|route| route.key.to_string()).collect::<Vec<_>>(),
        "destinationRules": mesh.destination_rules().map(|rule| rule.key.to_string()).collect::<Vec<_>>(),
        "gateways": mesh.gateways().map(|gateway| gateway.key.to_string()).collect::<Vec<_>>(),
        "peerAuthentications": mesh.peer_authentications().map(|policy| policy.key.to_string()).collect::<Vec<_>>(),
    }))
    .into_response()
}
