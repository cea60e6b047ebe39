//! The way back: the upstream's response to the client, and tunnels after a change of protocol.

use std::future::poll_fn;

use mizzen_http::{Framing, Version};
use mizzen_proxy_config::Cluster;

use super::record::{Record, values};
use super::{Stop, closing, number};
use crate::exchange::{Ended, Exchange, Which};
use crate::heads::{self, ResponseContext};
use crate::info::Info;
use crate::plan::Routed;
use crate::reply::Local;
use crate::request::View;
use crate::telemetry::Flags;
use crate::tunnel;
use crate::upstream::{self, Upstream};

/// Passes the response on.
pub(super) async fn commit(
    info: &Info,
    x: &mut Exchange<'_>,
    record: &mut Record,
    mut upstream: Upstream,
    cluster: &Cluster,
) -> Result<bool, Stop> {
    let elapsed = record.started.elapsed();
    record.first_byte = Some(elapsed);
    record.details = "via_upstream";
    let request = x.scratch.request.head();
    let (version, client_keeps) = (request.version(), request.keep_alive());
    let response = x.scratch.response.head();
    record.status = response.status();
    let framing = response.framing();
    let upgrade = record.status == 101;
    let decode = version == Version::Http10 && framing == Framing::Chunked;
    let keep = client_keeps
        && !closing(info)
        && !decode
        && (framing != Framing::Close || info.h2)
        && framing != Framing::Tunnel;
    {
        let (mut text, mut edit) = (std::mem::take(&mut x.scratch.text), std::mem::take(&mut x.scratch.edit));
        let view = View {
            head: x.scratch.request.head(),
            bytes: x.input.filled(),
            secure: info.secure,
            edge: info.http.use_remote_address,
        };
        let context = ResponseContext {
            info,
            routed: record.routed.as_ref(),
            entry: record.routed.as_ref().and_then(Routed::entry),
            upstream_millis: elapsed.as_millis(),
            attempts: record.attempts,
            version,
            keep_alive: keep,
            upgrade,
            values: values(
                info,
                record,
                Some(view),
                Some((x.scratch.response.head(), x.response_bytes())),
                (0, 0),
            ),
        };
        heads::response(
            &mut edit,
            x.scratch.response.head(),
            x.response_bytes(),
            &context,
            &mut text,
        );
        if decode {
            edit.framing(Framing::Close);
        }
        x.scratch.edit = edit;
        x.scratch.text = text;
    }
    let Ok(length) = x.accept_response(decode) else {
        return Err(Local::upstream_protocol().into());
    };
    if !info.http.access_logs.is_empty() {
        record.response = x.outgoing().get(..length).unwrap_or_default().to_vec();
    }
    if framing == Framing::Tunnel {
        return Ok(change(info, x, upstream).await);
    }
    x.deadlines.this_try = None;
    let ended = poll_fn(|cx| x.poll_relay(cx, &mut upstream)).await;
    if record.grpc
        && record.grpc_status.is_none()
        && let Some((_, status)) = x.trailers().find(|(name, _)| name.eq_ignore_ascii_case(b"grpc-status"))
    {
        record.grpc_status = number(status).and_then(|status| u8::try_from(status).ok());
    }
    let (flag, details) = match ended {
        Ended::Complete => {
            if x.upstream_reusable() {
                upstream::release(&info.worker, upstream, cluster.max_requests_per_connection);
            }
            return Ok(keep && x.request_done());
        }
        Ended::ClientGone => (Flags::DOWNSTREAM_GONE, "downstream_remote_disconnect"),
        Ended::Truncated => (
            Flags::UPSTREAM_CLOSED,
            "upstream_reset_after_response_started{connection_termination}",
        ),
        Ended::Malformed => (
            Flags::UPSTREAM_PROTOCOL,
            "upstream_reset_after_response_started{protocol_error}",
        ),
        Ended::Timeout(Which::Idle) => (Flags::IDLE_TIMEOUT, "stream_idle_timeout"),
        Ended::Timeout(_) => (Flags::UPSTREAM_TIMEOUT, "response_timeout"),
    };
    record.flags.add(flag);
    record.details = details;
    if let Some(stream) = x.down.h2() {
        stream.reset();
    }
    Ok(false)
}

/// After `101 Switching Protocols`: bytes both ways until the end.
async fn change(info: &Info, x: &mut Exchange<'_>, mut upstream: Upstream) -> bool {
    if poll_fn(|cx| x.poll_relay_head(cx)).await.is_err() {
        return false;
    }
    let (from_client, from_upstream) = (x.client_rest(), x.response_rest());
    let idle = info.http.stream_idle_timeout;
    let (passed, _) = tunnel::run(
        x.down,
        from_client,
        &mut upstream.conn,
        from_upstream,
        x.timer,
        idle,
        |_| {},
    )
    .await;
    x.seen.received += passed.up;
    x.seen.sent += passed.down;
    false
}
