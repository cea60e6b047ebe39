//! Responses of the proxy's own, with Envoy's texts.
//!
//! In: what went wrong. Out: a whole response. gRPC callers get a gRPC status instead of an HTTP one, as their libraries
//! expect.

use mizzen_http::{Connection, LocalReply};

use crate::telemetry::Flags;

/// A response of the proxy's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// HTTP status.
    pub status: u16,
    /// Text.
    pub body: Vec<u8>,
    /// Value of `location`, for redirects.
    pub location: Option<Vec<u8>>,
    /// gRPC status, when it does not follow from the HTTP status.
    pub grpc: Option<u32>,
    /// Why, for telemetry.
    pub flags: Flags,
    /// Why, for access logs (Envoy's response code details).
    pub details: &'static str,
    /// Why the upstream's transport failed, for access logs.
    pub transport_failure: String,
}

impl Local {
    /// A reply with this text.
    pub fn new(status: u16, body: impl Into<Vec<u8>>, flags: Flags, details: &'static str) -> Self {
        Self {
            status,
            body: body.into(),
            location: None,
            grpc: None,
            flags,
            details,
            transport_failure: String::new(),
        }
    }

    /// No route, or no virtual host: 404 without text.
    pub fn no_route() -> Self {
        Self::new(404, "", Flags::NO_ROUTE, "route_not_found")
    }

    /// The cluster does not exist.
    pub fn no_cluster(status: u16) -> Self {
        Self::new(status, "", Flags::NO_CLUSTER, "cluster_not_found")
    }

    /// A service that is not in the registry, where only those may be called.
    pub fn blocked() -> Self {
        Self::new(502, "", Flags::NONE, "direct_response")
    }

    /// No endpoint to send to.
    pub fn no_healthy_upstream() -> Self {
        Self::new(
            503,
            "no healthy upstream",
            Flags::NO_HEALTHY_UPSTREAM,
            "no_healthy_upstream",
        )
    }

    /// A circuit breaker is open.
    pub fn overflow() -> Self {
        let text = "upstream connect error or disconnect/reset before headers. reset reason: overflow";
        Self::new(
            503,
            text,
            Flags::OVERFLOW,
            "upstream_reset_before_response_started{overflow}",
        )
    }

    /// No connection could be made.
    pub fn connect_failure(reason: &str, transport: String) -> Self {
        let mut text = format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
        if !transport.is_empty() {
            text.push_str(", transport failure reason: ");
            text.push_str(&transport);
        }
        let details = "upstream_reset_before_response_started{connection_failure}";
        Self {
            transport_failure: transport,
            ..Self::new(503, text, Flags::UPSTREAM_FAILURE, details)
        }
    }

    /// The connection ended before the response.
    pub fn closed() -> Self {
        let text = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
        let details = "upstream_reset_before_response_started{connection_termination}";
        Self::new(503, text, Flags::UPSTREAM_CLOSED, details)
    }

    /// The stream was reset before the response.
    pub fn reset() -> Self {
        let text = "upstream connect error or disconnect/reset before headers. reset reason: remote reset";
        Self::new(
            503,
            text,
            Flags::UPSTREAM_RESET,
            "upstream_reset_before_response_started{remote_reset}",
        )
    }

    /// The upstream spoke something that is not HTTP.
    pub fn upstream_protocol() -> Self {
        let text = "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
        let details = "upstream_reset_before_response_started{protocol_error}";
        Self::new(502, text, Flags::UPSTREAM_PROTOCOL, details)
    }

    /// The request took too long.
    pub fn timeout() -> Self {
        Self::new(
            504,
            "upstream request timeout",
            Flags::UPSTREAM_TIMEOUT,
            "response_timeout",
        )
    }

    /// A try took too long, and there is none left.
    pub fn try_timeout() -> Self {
        Self::new(
            504,
            "upstream request timeout",
            Flags::UPSTREAM_TIMEOUT,
            "upstream_per_try_timeout",
        )
    }

    /// Nothing moved for too long.
    pub fn idle(request_done: bool) -> Self {
        let status = if request_done { 504 } else { 408 };
        Self::new(status, "stream timeout", Flags::IDLE_TIMEOUT, "stream_idle_timeout")
    }

    /// The client's message is malformed.
    pub fn bad_request(status: u16) -> Self {
        let text = mizzen_http::reason(status);
        Self::new(status, text, Flags::DOWNSTREAM_PROTOCOL, "http1.codec_error")
    }

    /// The path has no normal form.
    pub fn bad_path() -> Self {
        Self::new(400, "", Flags::DOWNSTREAM_PROTOCOL, "path_normalization_failed")
    }

    /// Writes the response.
    pub fn write(&self, how: &How<'_>, out: &mut Vec<u8>) {
        if how.grpc {
            let status = self.grpc.unwrap_or_else(|| grpc_status(self.status)).to_string();
            let message = percent_encode(&self.body);
            let fields: [(&[u8], &[u8]); 4] = [
                (b"content-type", b"application/grpc"),
                (b"grpc-status", status.as_bytes()),
                (b"grpc-message", &message),
                (b"server", how.server),
            ];
            LocalReply {
                status: 200,
                fields: &fields,
                date: Some(how.date),
                connection: how.connection,
                ..LocalReply::default()
            }
            .write(out);
            return;
        }
        let location = self.location.as_deref().map(|location| (&b"location"[..], location));
        let server = (!how.server.is_empty()).then_some((&b"server"[..], how.server));
        let fields: smallvec::SmallVec<[(&[u8], &[u8]); 2]> = location.into_iter().chain(server).collect();
        LocalReply {
            status: self.status,
            body: &self.body,
            fields: &fields,
            date: Some(how.date),
            connection: how.connection,
            head_only: how.head_only,
        }
        .write(out);
    }
}

/// How a reply is sent to this client.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// The request was gRPC.
    pub grpc: bool,
    /// The request was HEAD.
    pub head_only: bool,
    /// What is said of the connection.
    pub connection: Connection,
    /// `server` header; empty: none.
    pub server: &'a [u8],
    /// `date` header.
    pub date: &'a [u8],
}

/// gRPC over HTTP: mapping of HTTP statuses.
pub fn grpc_status(http: u16) -> u32 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `grpc-message` allows printable ASCII but `%`.
fn percent_encode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' '..=b'~' if *byte != b'%' => out.push(*byte),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(grpc: bool) -> How<'static> {
        How {
            grpc,
            head_only: false,
            connection: Connection::Persistent,
            server: b"istio-envoy",
            date: b"now",
        }
    }

    #[test]
    fn texts_and_fields_are_envoys() {
        let mut out = Vec::new();
        Local::no_healthy_upstream().write(&how(false), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 19\r\ncontent-type: text/plain\r\n\
             server: istio-envoy\r\ndate: now\r\n\r\nno healthy upstream"
        );
    }

    #[test]
    fn grpc_callers_get_a_grpc_status() {
        let mut out = Vec::new();
        Local::timeout().write(&how(true), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(
            text.contains("grpc-status: 14\r\ngrpc-message: upstream request timeout\r\n"),
            "{text}"
        );
    }
}
