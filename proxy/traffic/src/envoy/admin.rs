//! Envoy's admin port as the agent's data plane: readiness, metrics, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use tokio::sync::Notify;

use crate::agent::{DataPlane, dial};
use crate::telemetry::Telemetry;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's metrics of a large mesh are some megabytes.
const LIMIT: usize = 64 * 1024 * 1024;

/// What tells whether Envoy has its configuration: once listeners and clusters have come, they stay.
const READINESS: &str = "/stats?filter=^(cluster_manager.cds.update_success|listener_manager.lds.update_success|listener_manager.workers_started|server.state)$";

/// Envoy, asked over its admin port.
#[derive(Debug)]
pub struct EnvoyAdmin {
    address: SocketAddr,
    router: bool,
    was_ready: AtomicBool,
    drain: Notify,
    quit: Notify,
    telemetry: Arc<Telemetry>,
}

impl EnvoyAdmin {
    /// The Envoy with its admin port here, whose requests are counted there.
    pub fn new(address: SocketAddr, router: bool, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let was_ready = AtomicBool::new(false);
        let (drain, quit) = (Notify::new(), Notify::new());
        Arc::new(Self {
            address,
            router,
            was_ready,
            drain,
            quit,
            telemetry,
        })
    }

    /// Ends when a drain was asked for.
    pub(super) async fn drain_asked(&self) {
        self.drain.notified().await;
    }

    /// Ends when the end was asked for.
    pub(super) async fn quit_asked(&self) {
        self.quit.notified().await;
    }

    /// Tells Envoy to take no new work and to say so to its clients.
    pub(super) async fn drain_now(&self) {
        // Sidecars keep the way out open: the application may need it to finish.
        let path = if self.router {
            "/drain_listeners?graceful"
        } else {
            "/drain_listeners?inboundonly&graceful"
        };
        if let Err(reason) = self.ask(Method::POST, path).await {
            tracing::warn!(reason, "envoy was not told to drain");
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Result<String, String> {
        tokio::time::timeout(TIMEOUT, self.exchange(method, path))
            .await
            .unwrap_or_else(|_elapsed| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<String, String> {
        let stream = dial::connect(self.address.ip(), self.address.port())
            .await
            .map_err(|error| error.to_string())?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, self.address.to_string())
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let exchange = dial::exchange(stream, request)
            .await
            .map_err(|error| error.to_string())?;
        let status = exchange.response.status();
        let body = Limited::new(exchange.response, LIMIT)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        if status == StatusCode::OK {
            Ok(text)
        } else {
            Err(format!("answered {status}: {}", text.trim()))
        }
    }

    async fn check(&self) -> Result<(), String> {
        if self.was_ready.load(Ordering::Relaxed) {
            return self
                .ask(Method::GET, "/ready")
                .await
                .map(|_live| ())
                .map_err(|error| format!("envoy: {error}"));
        }
        let stats = self
            .ask(Method::GET, READINESS)
            .await
            .map_err(|error| format!("envoy: {error}"))?;
        configured(&stats)?;
        self.was_ready.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether these statistics are those of an Envoy that can work.
fn configured(stats: &str) -> Result<(), String> {
    let value = |name: &str| {
        stats
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.trim().parse::<u64>().ok())
    };
    let some = |name| value(name).unwrap_or(0) > 0;
    if !some("cluster_manager.cds.update_success") {
        return Err("envoy: no clusters from discovery yet".to_owned());
    }
    if !some("listener_manager.lds.update_success") {
        return Err("envoy: no listeners from discovery yet".to_owned());
    }
    if !some("listener_manager.workers_started") {
        return Err("envoy: workers not started".to_owned());
    }
    match value("server.state") {
        Some(0) => Ok(()),
        state => Err(format!(
            "envoy: server state {}",
            state.map_or("unknown".to_owned(), |state| state.to_string())
        )),
    }
}

impl DataPlane for EnvoyAdmin {
    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        self.check().boxed()
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        async move {
            let asked = self.ask(Method::GET, "/stats/prometheus?usedonly").await;
            let mut text = asked.unwrap_or_else(|reason| {
                tracing::warn!(reason, "envoy's metrics cannot be had");
                String::new()
            });
            self.telemetry.render(&mut text);
            text
        }
        .boxed()
    }

    fn drain(&self) {
        self.drain.notify_one();
    }

    fn quit(&self) {
        self.quit.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_needs_clusters_listeners_workers_and_a_live_server() {
        let good = "cluster_manager.cds.update_success: 2\nlistener_manager.lds.update_success: 1\nlistener_manager.workers_started: 1\nserver.state: 0\n";
        assert_eq!(configured(good), Ok(()));
        for (from, to, says) in [
            ("cds.update_success: 2", "cds.update_success: 0", "no clusters"),
            ("listener_manager.lds.update_success: 1\n", "", "no listeners"),
            ("workers_started: 1", "workers_started: 0", "workers"),
            ("state: 0", "state: 2", "state 2"),
        ] {
            let error = configured(&good.replace(from, to)).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
