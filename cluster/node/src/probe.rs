//! Probes: a container's answers come in, what changed goes out. A startup probe holds the others back.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::config::NodeConfig;
use crate::events::Recorder;
use crate::exec::{self, Running};

/// Of a body no more is read.
const BODY_BYTES: usize = 10 << 10;

/// What a prober says of a container's `attempt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Started,
    Ready(bool),
    /// To be restarted, because this kind of probe failed too often; with the probe's own grace.
    Unhealthy(&'static str, Option<i64>),
}

/// What is probed.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) config: NodeConfig,
    pub(crate) recorder: Recorder,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) field: String,
    pub(crate) running: Arc<Running>,
    pub(crate) address: Ipv4Addr,
}

/// Probes until it is dropped; `index` and the attempt go along with each finding.
pub(crate) async fn watch(target: Target, index: usize, findings: mpsc::Sender<(usize, i32, Finding)>) {
    let attempt = target.running.attempt;
    let say = async |finding| _ = findings.send((index, attempt, finding)).await;
    if let Some(probe) = &target.container.startup_probe {
        let mut state = State::new(probe, false);
        loop {
            match state.step(&target, probe, "Startup").await {
                Some(true) => break,
                Some(false) => {
                    say(Finding::Unhealthy("startup", probe.termination_grace_period_seconds)).await;
                    return;
                }
                None => {}
            }
        }
    }
    say(Finding::Started).await;
    let liveness = async {
        let Some(probe) = &target.container.liveness_probe else {
            return;
        };
        let mut state = State::new(probe, true);
        loop {
            if state.step(&target, probe, "Liveness").await == Some(false) {
                say(Finding::Unhealthy("liveness", probe.termination_grace_period_seconds)).await;
                return;
            }
        }
    };
    let readiness = async {
        let Some(probe) = &target.container.readiness_probe else {
            return;
        };
        let mut state = State::new(probe, false);
        loop {
            if let Some(ready) = state.step(&target, probe, "Readiness").await {
                say(Finding::Ready(ready)).await;
            }
        }
    };
    tokio::join!(liveness, readiness);
}

/// Answers in a row and what they amount to.
#[derive(Debug, PartialEq, Eq)]
struct State {
    first: bool,
    holds: Option<bool>,
    row: (bool, i32),
}

impl State {
    fn new(_: &Probe, holds: bool) -> Self {
        // What does not hold at first is not told again when it fails.
        Self {
            first: true,
            holds: holds.then_some(true),
            row: (holds, 0),
        }
    }

    /// Waits, probes once, and says what changed by it.
    async fn step(&mut self, target: &Target, probe: &Probe, kind: &str) -> Option<bool> {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        let wait = match std::mem::take(&mut self.first) {
            true => seconds(probe.initial_delay_seconds, 0),
            false => seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
        };
        tokio::time::sleep(wait).await;
        let answer = once(
            target,
            probe,
            seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
        )
        .await;
        if let Err(message) = &answer {
            let message = format!("{kind} probe failed: {message}");
            target
                .recorder
                .tell(&target.pod, Some(target.field.clone()), true, "Unhealthy", message);
        }
        self.count(answer.is_ok(), probe)
    }

    fn count(&mut self, success: bool, probe: &Probe) -> Option<bool> {
        self.row = if self.row.0 == success {
            (success, self.row.1.saturating_add(1))
        } else {
            (success, 1)
        };
        let needed = match success {
            true => probe.success_threshold.unwrap_or(1),
            false => probe.failure_threshold.unwrap_or(3),
        };
        let changed = self.row.1 >= needed.max(1) && self.holds != Some(success);
        if changed {
            self.holds = Some(success);
        }
        changed.then_some(success)
    }
}

/// One probe; an error is told as kubelet tells it.
async fn once(target: &Target, probe: &Probe, limit: Duration) -> Result<(), String> {
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        return match exec::run(&target.config, &target.running, command.clone(), limit).await {
            Ok(Some((0, _))) => Ok(()),
            Ok(Some((_, output))) => Err(output),
            Ok(None) => Err(format!(
                "command timed out: {:?} timed out after {}s",
                command.join(" "),
                limit.as_secs()
            )),
            Err(error) => Err(error.to_string()),
        };
    }
    if let Some(action) = &probe.http_get {
        return http(action, &target.container, target.address, limit).await.map(|_| ());
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.clone().unwrap_or_else(|| target.address.to_string());
        return connect(&host, port(&action.port, &target.container)?, limit)
            .await
            .map(|_| ());
    }
    if let Some(action) = &probe.grpc {
        let number = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
        let service = action.service.clone().unwrap_or_default();
        let asked = health(target.address, number, &service, limit);
        return tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
            Err(format!(
                "timeout: health rpc did not complete within {}s",
                limit.as_secs()
            ))
        });
    }
    Err("missing probe handler".to_owned())
}

/// A port's number, looked up by name among the container's.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => name.parse().ok().or_else(|| {
            let ports = container.ports.iter().flatten();
            ports
                .clone()
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port)
        }),
    };
    let number = number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0);
    number.ok_or_else(|| format!("couldn't find port: {port:?} in container {}", container.name))
}

async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    match tokio::time::timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let reason = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
                _ => error.to_string(),
            };
            Err(format!("dial tcp {host}:{port}: connect: {reason}"))
        }
        Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}

/// A GET as probes and hooks make it; certificates are not checked.
pub(crate) async fn http(
    action: &HTTPGetAction,
    container: &Container,
    address: Ipv4Addr,
    limit: Duration,
) -> Result<String, String> {
    let host = action
        .host
        .clone()
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| address.to_string());
    let number = port(&action.port, container)?;
    let secure = action.scheme.as_deref() == Some("HTTPS");
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!(
        "{}://{host}:{number}{slash}{path}",
        if secure { "https" } else { "http" }
    );
    let exchange = async {
        let stream = connect(&host, number, limit)
            .await
            .map_err(|error| format!("Get {url:?}: {error}"))?;
        let mut request = http::Request::get(format!("{slash}{path}"))
            .header("Host", format!("{host}:{number}"))
            .header("User-Agent", "kube-probe/1.33")
            .header("Accept", "*/*")
            .header("Connection", "close");
        for header in action.http_headers.iter().flatten() {
            if header.name.eq_ignore_ascii_case("host")
                && let Some(headers) = request.headers_mut()
            {
                headers.remove("Host");
            }
            request = request.header(&header.name, &header.value);
        }
        let request = request
            .body(String::new())
            .map_err(|error| format!("Get {url:?}: {error}"))?;
        let told = |error: &dyn std::fmt::Display| format!("Get {url:?}: {error}");
        if secure {
            let name = rustls_pki_types::ServerName::from(std::net::IpAddr::V4(address));
            let stream = insecure().connect(name, stream).await.map_err(|error| told(&error))?;
            get(TokioIo::new(stream), request).await.map_err(|error| told(&error))
        } else {
            get(TokioIo::new(stream), request).await.map_err(|error| told(&error))
        }
    };
    let (status, body) = tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
        Err(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        ))
    })?;
    match status.as_u16() {
        200..=399 => Ok(body),
        code => Err(format!("HTTP probe failed with statuscode: {code}")),
    }
}

async fn get<I>(io: I, request: http::Request<String>) -> hyper::Result<(http::StatusCode, String)>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let task = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_BYTES).collect().await;
    task.abort();
    Ok((
        status,
        body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned())
            .unwrap_or_default(),
    ))
}

/// grpc.health.v1.Health/Check, of which the answer's first field is the status.
async fn health(address: Ipv4Addr, port: u16, service: &str, limit: Duration) -> Result<(), String> {
    let stream = connect(&address.to_string(), port, limit).await.map_err(|_| {
        format!(
            "timeout: failed to connect service \"{address}:{port}\" within {}s: context deadline exceeded",
            limit.as_secs()
        )
    })?;
    let failed = |error: &dyn std::fmt::Display| format!("error: health rpc probe failed: {error}");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    let task = tokio::spawn(connection);
    let mut message = vec![0; 5];
    if !service.is_empty() {
        message.push(0x0a);
        message.push(u8::try_from(service.len()).unwrap_or(u8::MAX));
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len() - 5).unwrap_or(0).to_be_bytes();
    if let Some(place) = message.get_mut(1..5) {
        place.copy_from_slice(&length);
    }
    let request = http::Request::post(format!("http://{address}:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.33")
        .body(Full::new(bytes::Bytes::from(message)))
        .map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let early = response.headers().get("grpc-status").cloned();
    let body = response.into_body().collect().await.map_err(|error| failed(&error))?;
    let late = body
        .trailers()
        .and_then(|trailers| trailers.get("grpc-status").cloned());
    task.abort();
    let code = early
        .or(late)
        .and_then(|code| code.to_str().ok().map(str::to_owned))
        .unwrap_or_default();
    let bytes = body.to_bytes();
    match (code.as_str(), bytes.get(5..)) {
        ("0", Some([0x08, 1, ..])) => Ok(()),
        ("0", Some([0x08, 2, ..])) => Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
        ("0", Some([0x08, 3, ..])) => Err("service unhealthy (responded with \"SERVICE_UNKNOWN\")".to_owned()),
        ("0", _) => Err("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
        ("12", _) => {
            Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned())
        }
        (code, _) => Err(format!("error: health rpc probe failed with status {code}")),
    }
}

fn insecure() -> tokio_rustls::TlsConnector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Anyone(Arc::clone(&provider)));
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    // The default versions are always among those that the provider knows.
    let config = match builder {
        Ok(builder) => builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth(),
        Err(_) => rustls::ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth(),
    };
    Arc::new(config).into()
}

/// A probe asks whether something answers, not who.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let probe = Probe {
            failure_threshold: Some(2),
            success_threshold: Some(2),
            ..Probe::default()
        };
        let mut state = State::new(&probe, false);
        let answers = [true, false, true, true, true, false, true, false, false, false];
        let changes: Vec<_> = answers.iter().map(|answer| state.count(*answer, &probe)).collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(changes, [None, None, None, yes, None, None, None, None, no, None]);
    }

    #[test]
    fn ports_are_found_by_name() {
        let container: Container =
            serde_json::from_value(serde_json::json!({"name": "c", "ports": [{"name": "http", "containerPort": 80}]}))
                .unwrap();
        assert_eq!(port(&IntOrString::String("http".into()), &container), Ok(80));
        assert_eq!(port(&IntOrString::String("8080".into()), &container), Ok(8080));
        assert!(port(&IntOrString::String("none".into()), &container).is_err());
        assert!(port(&IntOrString::Int(70000), &container).is_err());
    }
}
