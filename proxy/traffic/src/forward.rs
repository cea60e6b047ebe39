//! Serves one request: plan, tries, response, telemetry.
//!
//! In: an [`Exchange`] with a parsed request head. Out: whether the client's connection can carry another request. Whatever
//! happens is counted once and logged once.

use std::future::poll_fn;
use std::time::{Duration, Instant, SystemTime};

use mizzen_decide::retry::{RetryState, TryResult, Verdict};
use mizzen_decide::timeout::Timeouts;
use mizzen_decide::{HostId, Limit, Pick, Report, Request as _, hash, matching};
use mizzen_http::{Connection, Framing, ResponseHead, Version};
use mizzen_proxy_config::{Cluster, RetryPolicy, UpstreamProtocol};
use smallvec::SmallVec;

use crate::balance::{Chosen, Permit, Wanted};
use crate::exchange::{Deadlines, Ended, Exchange, Fail, Which};
use crate::format::Values;
use crate::heads::{self, RequestContext, RequestId, ResponseContext};
use crate::info::Info;
use crate::plan::{self, Plan, Routed};
use crate::reply::{How, Local};
use crate::request::View;
use crate::telemetry::{Flags, Observation, PeerId, Protocol};
use crate::tunnel;
use crate::upstream::{self, ConnectError, Speaks, Target, Upstream};
use crate::worker::Phase;

/// What is remembered of a request for its one observation and log line.
#[derive(Debug)]
struct Record {
    started: Instant,
    wall: SystemTime,
    first_byte: Option<Duration>,
    status: u16,
    flags: Flags,
    details: &'static str,
    transport_failure: String,
    grpc: bool,
    grpc_status: Option<u8>,
    attempts: u32,
    id: Option<RequestId>,
    routed: Option<Routed>,
    cluster: Option<std::sync::Arc<Cluster>>,
    peer: Option<PeerId>,
    upstream: Option<std::net::SocketAddr>,
    upstream_local: Option<std::net::SocketAddr>,
    /// The response head as it was sent, when a log wants it.
    response: Vec<u8>,
}

/// Why a request was not answered by an upstream.
enum Stop {
    Reply(Box<Local>),
    ClientGone,
}

impl From<Local> for Stop {
    fn from(local: Local) -> Self {
        Self::Reply(Box::new(local))
    }
}

/// Serves the request at the front of `x`. Says whether the connection goes on.
pub async fn serve(info: &Info, x: &mut Exchange<'_>) -> bool {
    let view = View {
        head: x.scratch.request.head(),
        bytes: x.input.filled(),
        secure: info.secure,
        edge: info.http.use_remote_address,
    };
    let generate = info.http.generate_request_id
        && (view.header("x-request-id").is_none() || (view.edge && !info.http.preserve_external_request_id));
    let mut record = Record {
        started: Instant::now(),
        // Only logs and header values show the time of day; reading it costs as much as reading the other clock.
        wall: SystemTime::now(),
        first_byte: None,
        status: 0,
        flags: Flags::NONE,
        details: "",
        transport_failure: String::new(),
        grpc: matching::is_grpc(&view),
        grpc_status: None,
        attempts: 0,
        id: generate.then(|| RequestId::new(rand::random(), rand::random())),
        routed: None,
        cluster: None,
        peer: None,
        upstream: None,
        upstream_local: None,
        response: Vec::new(),
    };
    if let Some(told) = view.head.fields().value(view.bytes, crate::metadata::PEER) {
        info.hear(told);
    }
    let keep = match drive(info, x, &mut record).await {
        Ok(keep) => keep,
        Err(Stop::ClientGone) => {
            record.flags.add(Flags::DOWNSTREAM_GONE);
            record.details = "downstream_remote_disconnect";
            false
        }
        Err(Stop::Reply(local)) => answer(info, x, &mut record, &local).await,
    };
    tell(info, x, &record);
    keep
}

/// Sends an answer of our own.
async fn answer(info: &Info, x: &mut Exchange<'_>, record: &mut Record, local: &Local) -> bool {
    record.status = if record.grpc { 200 } else { local.status };
    record.flags.add(local.flags);
    record.details = local.details;
    record.transport_failure.clone_from(&local.transport_failure);
    let head = x.scratch.request.head();
    let codec_error = local.flags.has(Flags::DOWNSTREAM_PROTOCOL);
    let mut keep = head.keep_alive() && !closing(info) && !codec_error;
    // A body that is announced but will not come (the client waits for 100) is not waited for.
    keep &= x.request_done() || !head.expect_continue();
    let connection = match (keep, head.version()) {
        (false, _) => Connection::Close,
        (true, Version::Http10) => Connection::KeepAlive,
        (true, Version::Http11) => Connection::Persistent,
    };
    let date = info.worker.date();
    let how = How {
        grpc: record.grpc,
        head_only: head.method() == mizzen_http::Method::Head,
        connection,
        server: info.http.server_name.as_bytes(),
        date: date.as_bytes(),
    };
    if record.grpc {
        record.grpc_status = u8::try_from(local.grpc.unwrap_or_else(|| crate::reply::grpc_status(local.status))).ok();
    }
    let mut text = Vec::with_capacity(256 + local.body.len());
    local.write(&how, &mut text);
    if x.send(&text).await.is_err() {
        record.flags.add(Flags::DOWNSTREAM_GONE);
        return false;
    }
    if !info.http.access_logs.is_empty() {
        record.response = text;
    }
    keep && (x.request_done() || x.drain_request().await)
}

/// Whether connections are closed after the request that they carry.
pub fn closing(info: &Info) -> bool {
    match info.worker.phase() {
        Phase::Running => false,
        // Outbound stays until the application is gone.
        Phase::Draining => !info.outbound() || info.direction == mizzen_proxy_config::Direction::Unspecified,
        Phase::Ended => true,
    }
}

async fn drive(info: &Info, x: &mut Exchange<'_>, record: &mut Record) -> Result<bool, Stop> {
    let random: u64 = rand::random();
    let planned = {
        let view = View {
            head: x.scratch.request.head(),
            bytes: x.input.filled(),
            secure: info.secure,
            edge: info.http.use_remote_address,
        };
        plan::plan(info, &view, random).await
    };
    let (delay, planned) = match planned {
        Ok(plan) => (plan.delay, Ok(plan)),
        Err(answer) => (answer.delay, Err(answer)),
    };
    if let Some(delay) = delay {
        record.flags.add(Flags::DELAY_INJECTED);
        info.faults.set(info.faults.get().saturating_add(1));
        tokio::time::sleep(delay).await;
        info.faults.set(info.faults.get().saturating_sub(1));
    }
    let Plan { routed, cluster, .. } = match planned {
        Ok(plan) => plan,
        Err(answer) => {
            record.routed = answer.routed;
            return Err(Stop::Reply(answer.local));
        }
    };
    record.routed = routed;
    record.cluster = Some(cluster.clone());
    let high = record
        .routed
        .as_ref()
        .and_then(Routed::forward)
        .is_some_and(|forward| forward.high_priority);
    let state = info.worker.clusters.state(&cluster);
    let Some(_running) = state.permit(Limit::Request, high) else {
        return Err(Local::overflow().into());
    };
    let policy = record
        .routed
        .as_ref()
        .and_then(|routed| routed.forward()?.retry.clone().or_else(|| routed.host.retry.clone()));
    let mut retry = set_limits(info, x, record, policy.as_deref());
    x.arm(record.started);

    let mut tried: SmallVec<[HostId; 4]> = SmallVec::new();
    let mut stale = false;
    let mut _retrying: Option<Permit> = None;
    loop {
        record.attempts = retry.attempts();
        let (chosen, target) = choose(info, x, record, &cluster, policy.as_deref(), &tried, random).await?;
        let connected = connect(info, x, &target, stale).await;
        stale = false;
        let (result, local) = match connected {
            Ok(mut upstream) => {
                chosen.report(Report::Connected);
                match attempt(info, x, record, &chosen, &mut upstream, &mut retry).await {
                    Ok(()) => {
                        let again = after_response(x, record, &chosen, &mut retry, policy.as_deref(), random);
                        match again {
                            Verdict::Done | Verdict::Exhausted => {
                                if again == Verdict::Exhausted {
                                    record.flags.add(Flags::RETRY_LIMIT);
                                }
                                return commit(info, x, record, upstream, &cluster).await;
                            }
                            Verdict::Again(pause) => {
                                drop(upstream);
                                _retrying = pause_for_retry(&state, high, pause, &mut tried, &chosen).await;
                                if _retrying.is_none() {
                                    return Err(Local::overflow().into());
                                }
                                continue;
                            }
                        }
                    }
                    Err(Fail::ClientGone) => return Err(Stop::ClientGone),
                    Err(Fail::ClientBody(_)) => return Err(Local::bad_request(400).into()),
                    Err(Fail::Timeout(Which::Request)) => {
                        chosen.report(Report::Status(504));
                        return Err(Local::timeout().into());
                    }
                    Err(Fail::Timeout(Which::Idle)) => return Err(Local::idle(x.request_done()).into()),
                    Err(Fail::Timeout(Which::Try)) => (TryResult::TryTimeout, Local::try_timeout()),
                    Err(Fail::Protocol(_)) => return Err(Local::upstream_protocol().into()),
                    // A pooled connection that the peer closed meanwhile is no failure of the endpoint: once more on a new
                    // one, where that cannot do anything twice.
                    Err(Fail::Closed)
                        if upstream.is_reused()
                            && x.can_replay()
                            && x.scratch.request.head().method().is_idempotent() =>
                    {
                        stale = true;
                        continue;
                    }
                    Err(Fail::Closed) => (
                        TryResult::Reset {
                            refused: false,
                            request_sent: true,
                        },
                        Local::closed(),
                    ),
                    Err(Fail::Refused) => (
                        TryResult::Reset {
                            refused: true,
                            request_sent: false,
                        },
                        Local::reset(),
                    ),
                }
            }
            Err(Some(error)) => (TryResult::ConnectFailure, connect_failure(&error)),
            Err(None) => return Err(Local::timeout().into()),
        };
        chosen.report(match result {
            TryResult::TryTimeout => Report::Status(504),
            _ => Report::LocalFailure,
        });
        if !x.can_replay() {
            retry.give_up();
        }
        match retry.after(policy.as_deref(), &result, random) {
            Verdict::Done => return Err(local.into()),
            Verdict::Exhausted => {
                record.flags.add(Flags::RETRY_LIMIT);
                return Err(local.into());
            }
            Verdict::Again(pause) => {
                _retrying = pause_for_retry(&state, high, pause, &mut tried, &chosen).await;
                if _retrying.is_none() {
                    return Err(local.into());
                }
            }
        }
    }
}

fn set_limits(info: &Info, x: &mut Exchange<'_>, record: &Record, policy: Option<&RetryPolicy>) -> RetryState {
    let view = View {
        head: x.scratch.request.head(),
        bytes: x.input.filled(),
        secure: info.secure,
        edge: info.http.use_remote_address,
    };
    let retry = RetryState::new(policy, &view);
    let limits = match record.routed.as_ref().and_then(Routed::forward) {
        Some(forward) => Timeouts::new(forward, policy, &info.http, &view),
        None => Timeouts {
            idle: info.http.stream_idle_timeout,
            ..Timeouts::default()
        },
    };
    x.deadlines = Deadlines {
        total: limits.request,
        // A limit on the whole stream counts from its beginning.
        request: limits.stream.map(|limit| record.started + limit),
        per_try: limits.per_try,
        this_try: None,
        idle: limits.idle,
    };
    x.keep = retry.may_retry();
    retry
}

async fn pause_for_retry(
    state: &std::rc::Rc<crate::balance::ClusterState>,
    high: bool,
    pause: Duration,
    tried: &mut SmallVec<[HostId; 4]>,
    chosen: &Chosen,
) -> Option<Permit> {
    let permit = state.permit(Limit::Retry, high)?;
    tried.extend(chosen.id());
    tokio::time::sleep(pause).await;
    Some(permit)
}

async fn choose(
    info: &Info,
    x: &Exchange<'_>,
    record: &Record,
    cluster: &std::sync::Arc<Cluster>,
    policy: Option<&RetryPolicy>,
    tried: &[HostId],
    random: u64,
) -> Result<(Chosen, Target), Stop> {
    let view = View {
        head: x.scratch.request.head(),
        bytes: x.input.filled(),
        secure: info.secure,
        edge: info.http.use_remote_address,
    };
    let hash = record
        .routed
        .as_ref()
        .and_then(Routed::forward)
        .filter(|forward| !forward.hash.is_empty())
        .and_then(|forward| hash::request_hash(&forward.hash, &view, info.remote.ip()));
    let pick = Pick {
        random: mizzen_decide::mix(random, 7 + u64::from(record.attempts)),
        hash,
        tried: if policy.is_some_and(|policy| policy.avoid_previous) {
            tried
        } else {
            &[]
        },
        draws: policy.map_or(0, |policy| policy.host_draws),
    };
    let wanted = Wanted {
        pick,
        original: info.local,
    };
    let chosen = info.worker.clusters.choose(&info.worker.view, cluster, &wanted).await;
    let Some(chosen) = chosen else {
        return Err(Local::no_healthy_upstream().into());
    };
    let speaks = match cluster.protocol {
        UpstreamProtocol::Http1 => Speaks::Http1,
        UpstreamProtocol::Http2 => Speaks::Http2,
        UpstreamProtocol::UseDownstream | UpstreamProtocol::Auto if info.h2 => Speaks::Http2,
        UpstreamProtocol::UseDownstream | UpstreamProtocol::Auto => Speaks::Http1,
    };
    let target = Target {
        cluster: cluster.clone(),
        address: chosen.address,
        socket: chosen.socket.clone(),
        speaks,
        workload: chosen.workload.clone(),
        reporter: info.reporter(),
    };
    Ok((chosen, target))
}

/// A connection for the next try; `None` as error: the request's own time is over.
async fn connect(
    info: &Info,
    x: &Exchange<'_>,
    target: &Target,
    stale: bool,
) -> Result<Upstream, Option<ConnectError>> {
    if !stale && let Some(upstream) = upstream::take_idle(&info.worker, target) {
        return Ok(upstream);
    }
    // Boxed: dialling is rare and its future is large.
    let dial = Box::pin(async {
        if stale {
            upstream::fresh(&info.worker, target).await
        } else {
            upstream::acquire(&info.worker, target).await
        }
    });
    match x.deadlines.request {
        None => dial.await.map_err(Some),
        Some(at) => match tokio::time::timeout_at(at.into(), dial).await {
            Ok(result) => result.map_err(Some),
            Err(_) => Err(None),
        },
    }
}

fn connect_failure(error: &ConnectError) -> Local {
    match error {
        ConnectError::Timeout => Local::connect_failure("connection timeout", String::new()),
        ConnectError::Failed(error) => {
            Local::connect_failure("connection failure", format!("delayed connect error: {error}"))
        }
        other => Local::connect_failure("connection failure", other.to_string()),
    }
}

/// One try up to the response head.
async fn attempt(
    info: &Info,
    x: &mut Exchange<'_>,
    record: &mut Record,
    chosen: &Chosen,
    upstream: &mut Upstream,
    retry: &mut RetryState,
) -> Result<(), Fail> {
    record.upstream = Some(upstream.address);
    record.upstream_local = upstream.local;
    if info.outbound() {
        record.peer = Some(upstream.peer);
    }
    {
        let (mut text, mut edit) = (std::mem::take(&mut x.scratch.text), std::mem::take(&mut x.scratch.edit));
        let head = x.scratch.request.head();
        let bytes = x.input.filled();
        let view = View {
            head,
            bytes,
            secure: info.secure,
            edge: info.http.use_remote_address,
        };
        let context = RequestContext {
            info,
            routed: record.routed.as_ref(),
            entry: record.routed.as_ref().and_then(Routed::entry),
            attempt: retry.attempts(),
            id: record.id.as_ref(),
            upgrade: upgrade_allowed(info, record.routed.as_ref(), &view),
            hostname: &chosen.hostname,
            values: values(info, record, Some(view), None, (0, 0)),
        };
        heads::request(&mut edit, head, bytes, &context, upstream, &mut text);
        x.scratch.edit = edit;
        x.scratch.text = text;
    }
    x.begin_try();
    x.arm(if retry.attempts() == 1 {
        record.started
    } else {
        Instant::now()
    });
    poll_fn(|cx| x.poll_response_head(cx, upstream)).await
}

fn upgrade_allowed(info: &Info, routed: Option<&Routed>, view: &View<'_>) -> bool {
    let Some(protocol) = view.head.upgrade() else {
        return false;
    };
    let Ok(protocol) = std::str::from_utf8(protocol.of(view.bytes)) else {
        return false;
    };
    let by_route = routed.and_then(Routed::forward).and_then(|forward| {
        forward
            .upgrades
            .iter()
            .find(|(name, _)| protocol.eq_ignore_ascii_case(name))
    });
    match by_route {
        Some((_, allowed)) => *allowed,
        None => info
            .http
            .upgrades
            .iter()
            .any(|name| protocol.eq_ignore_ascii_case(name)),
    }
}

/// Looks at a response: what it says about the endpoint, and whether another try is worth it.
fn after_response(
    x: &Exchange<'_>,
    record: &mut Record,
    chosen: &Chosen,
    retry: &mut RetryState,
    policy: Option<&RetryPolicy>,
    random: u64,
) -> Verdict {
    let head = x.scratch.response.head();
    let bytes = x.response_bytes();
    let status = head.status();
    let grpc = head.fields().value(bytes, b"grpc-status").and_then(number);
    chosen.report(Report::Status(status));
    record.grpc_status = grpc.and_then(|status| u8::try_from(status).ok());
    if !retry.may_retry() || (status < 400 && grpc.is_none_or(|status| status == 0)) {
        return Verdict::Done;
    }
    if !x.can_replay() || !x.request_done() {
        retry.give_up();
    }
    let header = |test: &mizzen_proxy_config::HeaderMatch| {
        let value = crate::request::joined(head.fields().values(bytes, test.name.as_bytes()));
        matching::header_test(test, value.as_deref())
    };
    let result = TryResult::Response {
        status,
        grpc_status: grpc,
        header: &header,
        rate_limited: head.fields().value(bytes, b"x-envoy-ratelimited").is_some(),
    };
    retry.after(policy, &result, random)
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Passes the response on.
async fn commit(
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
        return Ok(tunnel(info, x, upstream).await);
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
async fn tunnel(info: &Info, x: &mut Exchange<'_>, mut upstream: Upstream) -> bool {
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

fn values<'a>(
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
fn tell(info: &Info, x: &Exchange<'_>, record: &Record) {
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
