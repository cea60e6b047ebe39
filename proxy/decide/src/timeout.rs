//! Which time limits a request has.

use crate::matching::Request;
use mizzen_proxy_config::{Forward, HttpConnection, RetryPolicy};
use std::time::Duration;

/// A request's time limits; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request to the end of the response, all tries together: 504 `upstream request timeout`.
    pub request: Option<Duration>,
    /// One try, in the same way.
    pub per_try: Option<Duration>,
    /// Silence within one try.
    pub per_try_idle: Option<Duration>,
    /// Silence: 408 before the request has arrived, 504 after.
    pub idle: Option<Duration>,
    /// From the beginning to the end, whatever moves.
    pub stream: Option<Duration>,
}

impl Timeouts {
    /// For one request. The `x-envoy-upstream-rq-timeout-ms` and `x-envoy-upstream-rq-per-try-timeout-ms` headers are
    /// honoured (callers at the edge must have removed them), `grpc-timeout` as far as the route allows it.
    pub fn new(
        forward: &Forward,
        retry: Option<&RetryPolicy>,
        connection: &HttpConnection,
        request: &(impl Request + ?Sized),
    ) -> Self {
        let from_header = |name| {
            let value = request.header(name)?;
            let millis = std::str::from_utf8(&value).ok()?.parse::<u32>().ok()?;
            Some(Duration::from_millis(millis.into()))
        };
        let zero_is_none = |limit: Duration| (!limit.is_zero()).then_some(limit);
        let overall = match from_header("x-envoy-upstream-rq-timeout-ms") {
            Some(asked) => zero_is_none(asked),
            None => forward.timeout,
        };
        let per_try = from_header("x-envoy-upstream-rq-per-try-timeout-ms")
            .map_or_else(|| retry.and_then(|policy| policy.per_try_timeout), zero_is_none);
        let grpc = forward.max_grpc_timeout.and_then(|longest| {
            let asked = request.header("grpc-timeout").and_then(|value| grpc_timeout(&value))?;
            Some(if longest.is_zero() { asked } else { asked.min(longest) })
        });
        Self {
            request: overall,
            // A try cannot outlast the whole; Envoy drops a per-try limit that is not shorter.
            per_try: per_try.filter(|limit| overall.is_none_or(|overall| *limit < overall)),
            per_try_idle: retry.and_then(|policy| policy.per_try_idle_timeout),
            idle: match forward.idle_timeout {
                Some(limit) => zero_is_none(limit),
                None => connection.stream_idle_timeout,
            },
            stream: grpc.or(forward.max_stream_duration).or(connection.max_stream_duration),
        }
    }
}

/// `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2).
#[must_use]
pub fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}
