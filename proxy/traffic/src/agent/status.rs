//! Readiness, probes, metrics, drain and quit.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, StatusCode};

use super::server::{Answer, Call, text, typed};
use super::{Shared, merge, probe};

/// Prometheus' text format.
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// 15021.
pub(super) fn readiness(shared: Arc<Shared>, call: Call) -> BoxFuture<'static, Answer> {
    async move {
        match call.path() {
            "/healthz/ready" => ready(&shared).await,
            _ => not_found(),
        }
    }
    .boxed()
}

/// 15090.
pub(super) fn metrics(shared: Arc<Shared>, call: Call) -> BoxFuture<'static, Answer> {
    async move {
        match call.path() {
            "/stats/prometheus" | "/metrics" => typed(StatusCode::OK, PROMETHEUS, shared.plane.metrics().await),
            _ => not_found(),
        }
    }
    .boxed()
}

/// 15020.
pub(super) fn agent(shared: Arc<Shared>, call: Call) -> BoxFuture<'static, Answer> {
    async move {
        match call.path() {
            "/healthz/ready" => ready(&shared).await,
            "/stats/prometheus" => typed(StatusCode::OK, PROMETHEUS, merge::all(&shared, &call).await),
            "/metrics" => typed(StatusCode::OK, PROMETHEUS, merge::own(&shared)),
            "/quitquitquit" => local_post(&call, || shared.plane.quit()),
            "/drain" => local_post(&call, || shared.plane.drain()),
            path => match shared.probers.get(path) {
                Some(prober) => {
                    let (status, reason) = probe::run(prober, shared.app, &call.request).await;
                    shared.metrics.probed(status);
                    text(status, reason)
                }
                None => not_found(),
            },
        }
    }
    .boxed()
}

pub(super) async fn ready(shared: &Shared) -> Answer {
    match shared.plane.ready().await {
        Ok(()) => text(StatusCode::OK, ""),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

/// Only the pod itself may end its sidecar.
pub(super) fn local_post(call: &Call, act: impl FnOnce()) -> Answer {
    if !call.is_local() {
        return text(StatusCode::FORBIDDEN, "only from inside the pod\n");
    }
    if call.request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n");
    }
    act();
    text(StatusCode::OK, "ok\n")
}

pub(super) fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "not found\n")
}
