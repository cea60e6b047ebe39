//! Fills in format strings: access logs, and header values that routes set.
//!
//! In: a parsed [`Format`] and the [`Values`] known at that moment. Out: bytes. What is not known is written as the caller's
//! stand-in (`-` in logs, nothing in headers).

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use mizzen_http::ResponseHead;
use mizzen_proxy_config::{AccessLog, Field, Format, Part};

use crate::log_writer::LogWriter;
use crate::request::View;
use crate::telemetry::Flags;

/// Everything that a format string can name.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The request as it came; `None` for TCP.
    pub request: Option<View<'a>>,
    /// Its id, when the proxy made it.
    pub request_id: Option<&'a [u8]>,
    /// The response head as it was sent.
    pub response: Option<(&'a ResponseHead, &'a [u8])>,
    /// When the first byte came.
    pub start: SystemTime,
    /// From then to the end.
    pub duration: Duration,
    /// From then to the first byte of the response.
    pub first_byte: Option<Duration>,
    /// Status sent; 0 for none.
    pub status: u16,
    /// Response flags.
    pub flags: Flags,
    /// `via_upstream` or why not.
    pub details: &'a str,
    /// Why the upstream's transport failed.
    pub transport_failure: &'a str,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
    /// Endpoint.
    pub upstream: Option<SocketAddr>,
    /// Cluster.
    pub cluster: &'a str,
    /// Our address towards the endpoint.
    pub upstream_local: Option<SocketAddr>,
    /// Where the client wanted to go.
    pub local: Option<SocketAddr>,
    /// The client.
    pub remote: Option<SocketAddr>,
    /// The client's SPIFFE id.
    pub peer: &'a str,
    /// Ours.
    pub own: &'a str,
    /// TLS version with the client.
    pub tls_version: &'a str,
    /// Server name asked for.
    pub server_name: &'a str,
    /// Route name.
    pub route: &'a str,
    /// Tries.
    pub attempts: u32,
    /// gRPC status.
    pub grpc: Option<u8>,
    /// Pod name.
    pub hostname: &'a str,
    /// Number of the connection.
    pub connection: u64,
}

/// Writes `format` to `out`.
pub fn write(format: &Format, values: &Values<'_>, missing: &str, out: &mut Vec<u8>) {
    for part in &format.parts {
        match part {
            Part::Text(text) => out.extend_from_slice(text.as_bytes()),
            Part::Field { field, max } => {
                let before = out.len();
                write_field(field, values, out);
                if out.len() == before {
                    out.extend_from_slice(missing.as_bytes());
                } else if let Some(max) = max {
                    out.truncate(before.saturating_add(*max).min(out.len()));
                }
            }
        }
    }
}

fn write_field(field: &Field, values: &Values<'_>, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let mut put = |text: &dyn std::fmt::Display| {
        let _infallible = write!(out, "{text}");
    };
    let millis = |duration: Duration| duration.as_millis();
    let ip = |address: Option<SocketAddr>| address.map(|address| address.ip());
    match field {
        Field::Request { name, alternative } => {
            if !request_field(values, name, out)
                && let Some(alternative) = alternative
            {
                request_field(values, alternative, out);
            }
        }
        Field::Response { name, alternative } => {
            if !response_field(values, name, out)
                && let Some(alternative) = alternative
            {
                response_field(values, alternative, out);
            }
        }
        Field::StartTime => put(&Stamp(values.start)),
        Field::StartEpoch { millis: false } => put(&since_epoch(values.start).as_secs()),
        Field::StartEpoch { millis: true } => put(&since_epoch(values.start).as_millis()),
        Field::Protocol => {
            if let Some(request) = values.request {
                out.extend_from_slice(match request.head.version() {
                    mizzen_http::Version::Http10 => b"HTTP/1.0",
                    mizzen_http::Version::Http11 => b"HTTP/1.1",
                });
            }
        }
        Field::ResponseCode => put(&values.status),
        Field::ResponseCodeDetails => out.extend_from_slice(values.details.as_bytes()),
        Field::ResponseFlags => {
            let mut text = String::new();
            let _infallible = values.flags.write(&mut text);
            out.extend_from_slice(text.as_bytes());
        }
        Field::UpstreamTransportFailureReason => out.extend_from_slice(values.transport_failure.as_bytes()),
        Field::BytesReceived => put(&values.received),
        Field::BytesSent => put(&values.sent),
        Field::Duration | Field::RequestDuration => put(&millis(values.duration)),
        Field::ResponseDuration => {
            if let Some(first) = values.first_byte {
                put(&millis(first));
            }
        }
        Field::UpstreamHost => optional(values.upstream, out),
        Field::UpstreamCluster => out.extend_from_slice(values.cluster.as_bytes()),
        Field::UpstreamLocalAddress => optional(values.upstream_local, out),
        Field::UpstreamAttempts => put(&values.attempts),
        Field::DownstreamLocalAddress => optional(values.local, out),
        Field::DownstreamLocalIp => optional(ip(values.local), out),
        Field::DownstreamLocalPort => optional(values.local.map(|address| address.port()), out),
        Field::DownstreamRemoteAddress | Field::DownstreamDirectRemoteAddress => optional(values.remote, out),
        Field::DownstreamRemoteIp => optional(ip(values.remote), out),
        Field::DownstreamPeerUriSan => out.extend_from_slice(values.peer.as_bytes()),
        Field::DownstreamLocalUriSan => out.extend_from_slice(values.own.as_bytes()),
        Field::DownstreamTlsVersion => out.extend_from_slice(values.tls_version.as_bytes()),
        Field::RequestedServerName => out.extend_from_slice(values.server_name.as_bytes()),
        Field::RouteName => out.extend_from_slice(values.route.as_bytes()),
        Field::Hostname => out.extend_from_slice(values.hostname.as_bytes()),
        Field::GrpcStatusNumber => optional(values.grpc, out),
        Field::GrpcStatus => optional(values.grpc.map(grpc_name), out),
        Field::ConnectionId => put(&values.connection),
        Field::Trailer { .. } | Field::ConnectionTerminationDetails | Field::Empty => {}
    }
}

fn optional(value: Option<impl std::fmt::Display>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        let _infallible = write!(out, "{value}");
    }
}

fn request_field(values: &Values<'_>, name: &str, out: &mut Vec<u8>) -> bool {
    let Some(request) = values.request else { return false };
    if name == "x-request-id"
        && let Some(id) = values.request_id
    {
        out.extend_from_slice(id);
        return true;
    }
    match mizzen_decide::matching::header_value(&request, name) {
        Some(value) if !value.is_empty() => {
            out.extend_from_slice(&value);
            true
        }
        _ => false,
    }
}

fn response_field(values: &Values<'_>, name: &str, out: &mut Vec<u8>) -> bool {
    let Some((head, bytes)) = values.response else {
        return false;
    };
    match head.fields().value(bytes, name.as_bytes()) {
        Some(value) if !value.is_empty() => {
            out.extend_from_slice(value);
            true
        }
        _ => false,
    }
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// `2024-01-01T00:00:00.000Z`
struct Stamp(SystemTime);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = time::OffsetDateTime::from(self.0);
        let (date, month) = (at.date(), u8::from(at.month()));
        let (hour, minute, second, millis) = (at.hour(), at.minute(), at.second(), at.millisecond());
        write!(
            f,
            "{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z",
            date.year(),
            date.day()
        )
    }
}

/// Names of gRPC statuses as Envoy's access log writes them.
fn grpc_name(status: u8) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(usize::from(status)).copied().unwrap_or("InvalidCode")
}

/// Writes one entry to each of `logs`.
pub fn log(logs: &[std::sync::Arc<AccessLog>], values: &Values<'_>, writer: &LogWriter) {
    use mizzen_proxy_config::listener::AccessLogFormat;
    let mut line = Vec::with_capacity(512);
    for log in logs {
        line.clear();
        match &log.format {
            AccessLogFormat::Text(format) => write(format, values, "-", &mut line),
            AccessLogFormat::Json(entries) => {
                line.push(b'{');
                let mut value = Vec::new();
                for (index, (name, format)) in entries.iter().enumerate() {
                    if index > 0 {
                        line.push(b',');
                    }
                    json_string(name.as_bytes(), &mut line);
                    line.push(b':');
                    value.clear();
                    write(format, values, "-", &mut value);
                    json_string(&value, &mut line);
                }
                line.extend_from_slice(b"}\n");
            }
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        writer.line(&line);
    }
}

fn json_string(text: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(text);
    // A string always serialises.
    out.extend_from_slice(serde_json::to_string(&*text).unwrap_or_default().as_bytes());
}
