//! One scrape for the whole pod: the data plane's metrics, the agent's, and the application's.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::Deserialize;

use super::server::Call;
use super::{AgentError, Shared, dial};

/// More than this is no metrics page; it would be held in memory.
const LIMIT: usize = 16 * 1024 * 1024;
/// Prometheus' own default; the header of its request tells another.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    r#type: &'static str,
}

/// The agent's own counters.
#[derive(Debug, Default)]
pub struct AgentMetrics {
    probes: Family<Code, Counter>,
    scrape_failures: Family<Kind, Counter>,
    pub(super) refused: Counter,
}

impl AgentMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mizzen_agent_app_probes",
            "Probes of the application by answered status",
            self.probes.clone(),
        );
        registry.register(
            "istio_agent_scrape_failures",
            "Failed scrapes of the application behind the merged metrics",
            self.scrape_failures.clone(),
        );
        registry.register(
            "mizzen_agent_connections_refused",
            "Connections to the agent's ports closed because there were too many",
            self.refused.clone(),
        );
    }

    pub(super) fn probed(&self, status: StatusCode) {
        self.probes.get_or_create(&Code { code: status.as_u16() }).inc();
    }
}

/// Where the application's metrics are: the pod's own annotations before injection changed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scrape {
    port: u16,
    path: String,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(default, alias = "Scrape")]
    scrape: String,
    #[serde(default, alias = "Path")]
    path: String,
    #[serde(default, alias = "Port")]
    port: String,
}

impl Scrape {
    pub(super) fn parse(json: Option<&str>) -> Result<Option<Self>, AgentError> {
        let Some(json) = json.filter(|json| !json.trim().is_empty()) else {
            return Ok(None);
        };
        let annotations: Annotations = serde_json::from_str(json).map_err(|error| AgentError::Scrape {
            reason: format!("not JSON: {error}"),
        })?;
        if !annotations.scrape.eq_ignore_ascii_case("true") {
            return Ok(None);
        }
        // Prometheus' convention: without the annotations it is port 80 and /metrics.
        let text = if annotations.port.is_empty() {
            "80"
        } else {
            &annotations.port
        };
        let port = text
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| AgentError::Scrape {
                reason: format!("port {text:?} is not a number from 1 to 65535"),
            })?;
        let path = match annotations.path.as_str() {
            "" => "/metrics".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        Ok(Some(Self { port, path }))
    }
}

/// The agent's own metrics.
pub(super) fn own(shared: &Shared) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _infallible = encode_registry(&mut text, &shared.registry.lock());
    text
}

/// Everything. What cannot be had is left out and counted: the sidecar's metrics must not vanish with the application's.
pub(super) async fn all(shared: &Shared, call: &Call) -> String {
    let app = async {
        let scrape = shared.scrape.as_ref()?;
        let timeout = scrape_timeout(call);
        let result = tokio::time::timeout(timeout, fetch(scrape, shared.app, call)).await;
        match result.unwrap_or_else(|_elapsed| Err(format!("no answer within {} ms", timeout.as_millis()))) {
            Ok(text) => Some(text),
            Err(error) => {
                shared
                    .metrics
                    .scrape_failures
                    .get_or_create(&Kind { r#type: "application" })
                    .inc();
                tracing::warn!(%error, port = scrape.port, path = scrape.path, "application metrics not scraped");
                None
            }
        }
    };
    let (mut text, app) = futures::join!(shared.plane.metrics(), app);
    text.push_str(&own(shared));
    if let Some(app) = app {
        append(&mut text, &app);
    }
    text
}

/// Ours end in a line break; an end-of-exposition mark in the middle would hide what follows.
fn append(text: &mut String, more: &str) {
    for line in more.lines() {
        if line.trim_end() != "# EOF" {
            text.push_str(line);
            text.push('\n');
        }
    }
}

/// A little less than Prometheus waits, so that it gets at least our own.
fn scrape_timeout(call: &Call) -> Duration {
    let header = call.request.headers().get("x-prometheus-scrape-timeout-seconds");
    let told = header
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<f64>().ok());
    let told = told.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    told.unwrap_or(TIMEOUT)
        .clamp(Duration::from_millis(100), Duration::from_secs(60))
        .mul_f64(0.9)
}

async fn fetch(scrape: &Scrape, app: IpAddr, call: &Call) -> Result<String, String> {
    // Prometheus would ask at the pod's address; some applications listen on loopback only.
    let stream = match dial::connect(app, scrape.port).await {
        Ok(stream) => stream,
        Err(_refused) => {
            let loopback = if app.is_ipv4() {
                IpAddr::from([127, 0, 0, 1])
            } else {
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
            };
            dial::connect(loopback, scrape.port)
                .await
                .map_err(|error| error.to_string())?
        }
    };
    let mut request = Request::get(scrape.path.as_str())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let host = std::net::SocketAddr::new(app, scrape.port).to_string();
    let headers = request.headers_mut();
    headers.insert(
        http::header::HOST,
        HeaderValue::from_str(&host).map_err(|error| error.to_string())?,
    );
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    // The text format only: it can be joined with ours, OpenMetrics and protobuf cannot.
    headers.insert(
        http::header::ACCEPT,
        HeaderValue::from_static("text/plain;version=0.0.4"),
    );
    if let Some(agent) = call.request.headers().get(http::header::USER_AGENT) {
        headers.insert(http::header::USER_AGENT, agent.clone());
    }
    let exchange = dial::exchange(stream, request)
        .await
        .map_err(|error| error.to_string())?;
    let status = exchange.response.status();
    if status != StatusCode::OK {
        return Err(format!("answered {status}"));
    }
    let body = Limited::new(exchange.response, LIMIT)
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "not UTF-8".to_owned())
}
