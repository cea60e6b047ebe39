//! The application's probes, which the kubelet sends to the agent since the application itself may accept mesh traffic only.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::dial;

/// The kubelet's own default.
const TIMEOUT: u64 = 1;
/// How much of an application's answer is read (and thrown away); the kubelet reads 10 KiB.
const BODY_LIMIT: usize = 64 * 1024;

/// `ISTIO_KUBE_APP_PROBERS` cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum ProbersError {
    /// Not JSON of the expected shape.
    #[error("ISTIO_KUBE_APP_PROBERS: not a JSON object of probes: {0}")]
    Json(String),
    /// A path that is not one of the agent's.
    #[error("ISTIO_KUBE_APP_PROBERS: path {path:?} does not begin with /app-health/ or /app-lifecycle/")]
    Path {
        /// The path.
        path: String,
    },
    /// Not exactly one action.
    #[error("ISTIO_KUBE_APP_PROBERS: {path}: expected exactly one of httpGet, tcpSocket, grpc")]
    Action {
        /// The path.
        path: String,
    },
    /// A port that is not a number.
    #[error("ISTIO_KUBE_APP_PROBERS: {path}: port {port:?} is not a number from 1 to 65535")]
    Port {
        /// The path.
        path: String,
        /// The port as given.
        port: String,
    },
}

/// One probe of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prober {
    action: Action,
    host: Option<String>,
    port: u16,
    timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Http {
        path: String,
        tls: bool,
        fields: Vec<(String, String)>,
    },
    Tcp,
    Grpc {
        service: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProber {
    http_get: Option<RawHttp>,
    tcp_socket: Option<RawTcp>,
    grpc: Option<RawGrpc>,
    timeout_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp {
    #[serde(default)]
    path: String,
    port: RawPort,
    host: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    http_headers: Vec<RawHeader>,
}

#[derive(Deserialize)]
struct RawHeader {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct RawTcp {
    port: RawPort,
    host: Option<String>,
}

#[derive(Deserialize)]
struct RawGrpc {
    port: RawPort,
    service: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawPort {
    Number(i64),
    Text(String),
}

impl std::fmt::Display for RawPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// Reads `ISTIO_KUBE_APP_PROBERS`: path on the agent → probe of the application.
pub fn parse_probers(json: Option<&str>) -> Result<BTreeMap<String, Prober>, ProbersError> {
    let Some(json) = json.filter(|json| !json.trim().is_empty()) else {
        return Ok(BTreeMap::new());
    };
    let raw: BTreeMap<String, RawProber> =
        serde_json::from_str(json).map_err(|error| ProbersError::Json(error.to_string()))?;
    raw.into_iter()
        .map(|(path, raw)| Ok((path.clone(), check(path, raw)?)))
        .collect()
}

fn check(path: String, raw: RawProber) -> Result<Prober, ProbersError> {
    if !path.starts_with("/app-health/") && !path.starts_with("/app-lifecycle/") {
        return Err(ProbersError::Path { path });
    }
    let timeout = Duration::from_secs(raw.timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or(TIMEOUT));
    let (action, host, port) = match (raw.http_get, raw.tcp_socket, raw.grpc) {
        (Some(http), None, None) => {
            let path = if http.path.starts_with('/') {
                http.path
            } else {
                format!("/{}", http.path)
            };
            let tls = http.scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
            let fields = http
                .http_headers
                .into_iter()
                .map(|field| (field.name, field.value))
                .collect();
            (Action::Http { path, tls, fields }, http.host, http.port)
        }
        (None, Some(tcp), None) => (Action::Tcp, tcp.host, tcp.port),
        (None, None, Some(grpc)) => (
            Action::Grpc {
                service: grpc.service.unwrap_or_default(),
            },
            None,
            grpc.port,
        ),
        _ => return Err(ProbersError::Action { path }),
    };
    match port.to_string().parse() {
        Ok(number) if number > 0 => Ok(Prober {
            action,
            host: host.filter(|host| !host.is_empty()),
            port: number,
            timeout,
        }),
        _ => Err(ProbersError::Port {
            path,
            port: port.to_string(),
        }),
    }
}

/// Probes the application at `app` as the kubelet would. An answer's status is passed on; anything else is 500 with the reason.
pub(super) async fn run(prober: &Prober, app: IpAddr, received: &Request<()>) -> (StatusCode, String) {
    let failed = |reason: String| (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n"));
    match tokio::time::timeout(prober.timeout, attempt(prober, app, received)).await {
        Ok(Ok(status)) => (status, String::new()),
        Ok(Err(reason)) => failed(format!("probe of port {} failed: {reason}", prober.port)),
        Err(_elapsed) => failed(format!(
            "probe of port {} failed: no answer within {} s",
            prober.port,
            prober.timeout.as_secs()
        )),
    }
}

async fn attempt(prober: &Prober, app: IpAddr, received: &Request<()>) -> Result<StatusCode, String> {
    let ip = match &prober.host {
        Some(host) => dial::resolve(host)
            .await
            .map_err(|error| format!("host {host}: {error}"))?,
        None => app,
    };
    if let Action::Grpc { service } = &prober.action {
        return grpc(ip, prober.port, service).await;
    }
    let stream = dial::connect(ip, prober.port)
        .await
        .map_err(|error| error.to_string())?;
    let Action::Http { path, tls, fields } = &prober.action else {
        return Ok(StatusCode::OK);
    };
    let request = http_request(prober, ip, path, fields, received)?;
    let exchange = if *tls {
        let stream = dial::over_tls(stream, ip).await.map_err(|error| error.to_string())?;
        dial::exchange(stream, request).await
    } else {
        dial::exchange(stream, request).await
    };
    let exchange = exchange.map_err(|error| error.to_string())?;
    let status = exchange.response.status();
    // Read to the end, so that a well-behaved application sees no broken connection.
    let _discarded = Limited::new(exchange.response, BODY_LIMIT).collect().await;
    Ok(status)
}

fn http_request(
    prober: &Prober,
    ip: IpAddr,
    path: &str,
    fields: &[(String, String)],
    received: &Request<()>,
) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(path)
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    // As the kubelet sends them: its own user agent, then what the probe says.
    for name in [http::header::USER_AGENT, http::header::ACCEPT] {
        if let Some(value) = received.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let host = prober.host.clone().unwrap_or_else(|| match ip {
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    });
    let host = HeaderValue::from_str(&format!("{host}:{}", prober.port)).map_err(|error| error.to_string())?;
    headers.insert(http::header::HOST, host);
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in fields {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| format!("header {name:?} is not a name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("header {name}: value cannot be sent"))?;
        if name == http::header::HOST {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    Ok(request)
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

/// `grpc.health.v1.HealthCheckResponse`; 1 is `SERVING`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

async fn grpc(ip: IpAddr, port: u16, service: &str) -> Result<StatusCode, String> {
    let authority = std::net::SocketAddr::new(ip, port);
    let channel = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|error| error.to_string())?
        .connect_with_connector(service_fn(move |_uri| async move {
            Ok::<_, io::Error>(TokioIo::new(dial::connect(ip, port).await?))
        }))
        .await
        .map_err(|error| error.to_string())?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthRequest, HealthResponse>::default();
    let request = tonic::Request::new(HealthRequest {
        service: service.to_owned(),
    });
    let response = client
        .unary(request, path, codec)
        .await
        .map_err(|status| status.to_string())?;
    match response.into_inner().status {
        1 => Ok(StatusCode::OK),
        other => Err(format!("health status {other}, expected 1 (SERVING)")),
    }
}
