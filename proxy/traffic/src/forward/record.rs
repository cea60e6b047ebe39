//! What is remembered of a request while it is served, for its one observation and one log line.

use std::time::{Duration, Instant, SystemTime};

use mizzen_http::ResponseHead;
use mizzen_proxy_config::Cluster;

use crate::exchange::Exchange;
use crate::format::Values;
use crate::heads::RequestId;
use crate::info::Info;
use crate::plan::Routed;
use crate::request::View;
use crate::telemetry::{Flags, Observation, PeerId, Protocol};

/// What is remembered of a request for its one observation and log line.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) started: Instant,
    pub(super) wall: SystemTime,
    pub(super) first_byte: Option<Duration>,
    pub(super) status: u16,
    pub(super) flags: Flags,
    pub(super) details: &'static str,
    pub(super) transport_failure: String,
    pub(super) grpc: bool,
    pub(super) grpc_status: Option<u8>,
    pub(super) attempts: u32,
    pub(super) id: Option<RequestId>,
    pub(super) routed: Option<Routed>,
    pub(super) cluster: Option<std::sync::Arc<Cluster>>,
    pub(super) peer: Option<PeerId>,
    pub(super) upstream: Option<std::net::SocketAddr>,
    pub(super) upstream_local: Option<std::net::SocketAddr>,
    /// The response head as it was sent, when a log wants it.
    pub(super) response: Vec<u8>,
}

pub(super) fn values<'a>(
    info: &'a Info,
    record: &'a Record,
    request: Option<View<'a>>,
    response: Option<(&'a ResponseHead, &'a [u8])>,
    (received, sent): (u64, u64),
) -> Values<'a> {
    Values {
        request,
        request_id: record.id.as_ref().map(RequestId::as_bytes),
        response,
        start: record.wall,
        duration: Duration::ZERO,
        first_byte: record.first_byte,
        status: record.status,
        flags: record.flags,
        details: record.details,
        transport_failure: &record.transport_failure,
        received,
        sent,
        upstream: record.upstream,
        cluster: record
            .cluster
            .as_ref()
            .map(|cluster| cluster.name.as_str())
            .unwrap_or_default(),
        upstream_local: record.upstream_local,
        local: Some(info.local),
        remote: Some(info.remote),
        peer: info.peer.as_ref().map(|peer| &*peer.spiffe).unwrap_or_default(),
        own: &info.own,
        tls_version: info.tls_version,
        server_name: &info.server_name,
        route: record
            .routed
            .as_ref()
            .map(|routed| routed.route.name.as_str())
            .unwrap_or_default(),
        attempts: record.attempts,
        grpc: record.grpc_status,
        hostname: &info.worker.shared.settings.pod,
        connection: info.id,
    }
}

/// Counts and logs the request.
pub(super) fn tell(info: &Info, x: &Exchange<'_>, record: &Record) {
    let elapsed = record.started.elapsed();
    let service = record.cluster.as_ref().and_then(|cluster| cluster.service.as_ref());
    let peer = record.peer.unwrap_or_else(|| info.labels(service));
    info.worker.shard.request(&Observation {
        peer,
        protocol: if record.grpc {
            Protocol::Grpc(record.grpc_status)
        } else {
            Protocol::Http
        },
        status: record.status,
        flags: record.flags,
        micros: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        request_bytes: x.head_len() as u64 + x.seen.received,
        response_bytes: x.seen.head_sent + x.seen.sent,
    });
    if info.http.access_logs.is_empty() {
        return;
    }
    let limits = mizzen_http::Limits {
        head: 65_535,
        fields: 128,
    };
    let response = ResponseHead::parse(&record.response, limits, mizzen_http::Method::Head)
        .ok()
        .flatten();
    let view = View {
        head: x.scratch.request.head(),
        bytes: x.head_bytes(),
        secure: info.secure,
        edge: info.http.use_remote_address,
    };
    let response = response.as_ref().map(|head| (head, record.response.as_slice()));
    let mut values = values(info, record, Some(view), response, (x.seen.received, x.seen.sent));
    values.duration = elapsed;
    crate::format::log(&info.http.access_logs, &values, &info.worker.shared.log);
}
