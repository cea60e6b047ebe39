//! Whether and when a request is tried again.

use crate::matching::{self, Request};
use mizzen_proxy_config::{HeaderMatch, RetryOn, RetryPolicy};
use std::time::Duration;

/// How a try ended.
#[derive(Clone, Copy)]
pub enum TryResult<'a> {
    /// A response head arrived.
    Response {
        /// Its status.
        status: u16,
        /// `grpc-status` of a response without a body (it stands in the head).
        grpc_status: Option<u32>,
        /// Looks up a response header by lower-case name and tests it: [`header_test`](matching::header_test).
        header: &'a dyn Fn(&HeaderMatch) -> bool,
        /// The rate limiter refused it (`x-envoy-ratelimited`).
        rate_limited: bool,
    },
    /// No connection could be made: refused, timed out, TLS failed.
    ConnectFailure,
    /// The connection or stream ended before a response head.
    Reset {
        /// HTTP/2 REFUSED_STREAM: the upstream did nothing with it.
        refused: bool,
        /// Some of the request had been sent.
        request_sent: bool,
    },
    /// The try's own timeout.
    TryTimeout,
    /// A circuit breaker or "no healthy endpoint": trying again would not help.
    Local,
}

/// What to do after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Give the result to the client.
    Done,
    /// Retries were wanted but are used up: the same, with flag `URX`.
    Exhausted,
    /// Try again after this pause.
    Again(Duration),
}

/// How many retries a request has had. Starts as `RetryState::new`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryState {
    used: u32,
    enabled: bool,
}

impl RetryState {
    /// For a request under `policy`: retries are off when there is no policy, when it has no condition or no try, or
    /// when the request lacks the headers that the policy asks for.
    pub fn new(policy: Option<&RetryPolicy>, request: &(impl Request + ?Sized)) -> Self {
        let enabled = policy.is_some_and(|policy| {
            policy.retries > 0
                && !policy.on.is_empty()
                && (policy.request_headers.is_empty()
                    || policy
                        .request_headers
                        .iter()
                        .any(|test| matching::header(test, request)))
        });
        Self { used: 0, enabled }
    }

    /// Whether the request's body must be kept for another try.
    #[must_use]
    pub const fn may_retry(&self) -> bool {
        self.enabled
    }

    /// The body grew beyond what is kept: no more retries.
    pub const fn give_up(&mut self) {
        self.enabled = false;
    }

    /// Tries so far, the first included.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.used.saturating_add(1)
    }

    /// Decides after a try. `random` spreads the pause. The caller then still has to get a retry from the circuit
    /// breaker ([`crate::Limit::Retry`]).
    pub fn after(&mut self, policy: Option<&RetryPolicy>, result: &TryResult<'_>, random: u64) -> Verdict {
        let Some(policy) = policy.filter(|_| self.enabled) else {
            return Verdict::Done;
        };
        if !wanted(policy, result) {
            return Verdict::Done;
        }
        if self.used >= policy.retries {
            return Verdict::Exhausted;
        }
        let pause = pause(policy, self.used, random);
        self.used += 1;
        Verdict::Again(pause)
    }
}

/// Envoy's full jitter: any time below `base · 2ⁿ`, at most below the longest interval.
fn pause(policy: &RetryPolicy, retry: u32, random: u64) -> Duration {
    let interval = policy
        .backoff_base
        .saturating_mul(1_u32.checked_shl(retry.min(30)).unwrap_or(u32::MAX))
        .min(policy.backoff_max);
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(crate::mix(random, 3 + u64::from(retry)) % nanos)
}

fn wanted(policy: &RetryPolicy, result: &TryResult<'_>) -> bool {
    let on = policy.on;
    match *result {
        TryResult::Local => false,
        TryResult::Response {
            status,
            grpc_status,
            header,
            rate_limited,
        } => {
            if rate_limited {
                // 429 with this mark is retried only when asked for, whatever else the policy says.
                return on.has(RetryOn::RATE_LIMITED);
            }
            (on.has(RetryOn::FIVE_XX) && (500..600).contains(&status))
                || (on.has(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
                || (on.has(RetryOn::RETRIABLE_4XX) && status == 409)
                || (on.has(RetryOn::STATUS_CODES) && policy.statuses.binary_search(&status).is_ok())
                || (on.has(RetryOn::HEADERS) && policy.response_headers.iter().any(header))
                || grpc_status.is_some_and(|grpc| grpc_condition(grpc).is_some_and(|flag| on.has(flag)))
        }
        // No answer counts as a 5xx, since it will become one.
        TryResult::ConnectFailure => {
            on.has(RetryOn::CONNECT_FAILURE) || no_answer(on) || on.has(RetryOn::RESET_BEFORE_REQUEST)
        }
        TryResult::Reset { refused, request_sent } => {
            no_answer(on)
                || (refused && on.has(RetryOn::REFUSED_STREAM))
                || (!request_sent && on.has(RetryOn::RESET_BEFORE_REQUEST))
        }
        TryResult::TryTimeout => no_answer(on),
    }
}

const fn no_answer(on: RetryOn) -> bool {
    on.has(RetryOn::RESET) || on.has(RetryOn::FIVE_XX) || on.has(RetryOn::GATEWAY_ERROR)
}

const fn grpc_condition(status: u32) -> Option<RetryOn> {
    match status {
        1 => Some(RetryOn::GRPC_CANCELLED),
        4 => Some(RetryOn::GRPC_DEADLINE_EXCEEDED),
        8 => Some(RetryOn::GRPC_RESOURCE_EXHAUSTED),
        13 => Some(RetryOn::GRPC_INTERNAL),
        14 => Some(RetryOn::GRPC_UNAVAILABLE),
        _ => None,
    }
}
