//! Serves one request: plan, tries, response, telemetry.
//!
//! In: an [`Exchange`] with a parsed request head. Out: whether the client's connection can carry another request. Whatever
//! happens is counted once and logged once.

use std::time::{Instant, SystemTime};

use mizzen_decide::retry::{TryResult, Verdict};
use mizzen_decide::{HostId, Limit, Report, Request as _, matching, path};
use mizzen_http::{Connection, Version};
use smallvec::SmallVec;

use crate::balance::Permit;
use crate::exchange::{Exchange, Fail, Which};
use crate::heads::RequestId;
use crate::info::Info;
use crate::plan::{self, Plan, Routed};
use crate::reply::{How, Local};
use crate::request::View;
use crate::telemetry::Flags;
use crate::worker::Phase;

mod commit;
mod record;
mod tries;

use commit::commit;
use record::{Record, tell};
use tries::{after_response, attempt, choose, connect, connect_failure, pause_for_retry, set_limits};

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
    let rules = path::Rules {
        dot_segments: info.http.normalize_path,
        merge_slashes: info.http.merge_slashes,
    };
    if !x.normalize_path(rules) {
        return Err(Local::bad_path().into());
    }
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
    // Whether a connection was found stale already: a second time it is a failure like any other.
    let mut excused = false;
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
                        if !excused
                            && upstream.may_be_stale()
                            && x.can_replay()
                            && x.scratch.request.head().method().is_idempotent() =>
                    {
                        stale = true;
                        excused = true;
                        continue;
                    }
                    Err(Fail::Closed | Fail::Reset) => (
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

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
