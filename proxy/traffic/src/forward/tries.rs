//! The way there: an endpoint, a connection, one try.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use mizzen_decide::retry::{RetryState, TryResult, Verdict};
use mizzen_decide::timeout::Timeouts;
use mizzen_decide::{HostId, Limit, Pick, Report, hash, matching};
use mizzen_http::HeadError;
use mizzen_proxy_config::{Cluster, RetryPolicy, UpstreamProtocol};
use smallvec::SmallVec;

use super::record::{Record, values};
use super::{Stop, number};
use crate::balance::{Chosen, Permit, Wanted};
use crate::exchange::{Deadlines, Exchange, Fail};
use crate::heads::{self, RequestContext};
use crate::info::Info;
use crate::plan::Routed;
use crate::reply::Local;
use crate::request::View;
use crate::upstream::{self, ConnectError, Speaks, Target, Upstream};

pub(super) fn set_limits(
    info: &Info,
    x: &mut Exchange<'_>,
    record: &Record,
    policy: Option<&RetryPolicy>,
) -> RetryState {
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

pub(super) async fn pause_for_retry(
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

pub(super) async fn choose(
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
pub(super) async fn connect(
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

pub(super) fn connect_failure(error: &ConnectError) -> Local {
    match error {
        ConnectError::Timeout => Local::connect_failure("connection timeout", String::new()),
        ConnectError::Failed(error) => {
            Local::connect_failure("connection failure", format!("delayed connect error: {error}"))
        }
        other => Local::connect_failure("connection failure", other.to_string()),
    }
}

/// One try up to the response head.
pub(super) async fn attempt(
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
    let upgrade;
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
        upgrade = upgrade_allowed(info, record.routed.as_ref(), &view);
        let context = RequestContext {
            info,
            routed: record.routed.as_ref(),
            entry: record.routed.as_ref().and_then(Routed::entry),
            attempt: retry.attempts(),
            id: record.id.as_ref(),
            upgrade,
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
    poll_fn(|cx| x.poll_response_head(cx, upstream)).await?;
    // Bytes would pass both ways unseen, though the client never asked for another protocol.
    if !upgrade && x.scratch.response.head().status() == 101 {
        return Err(Fail::Protocol(HeadError::UpgradeNotAsked));
    }
    Ok(())
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
pub(super) fn after_response(
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
