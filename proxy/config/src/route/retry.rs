//! When a request is tried again.

use crate::matcher::HeaderMatch;
use std::fmt;
use std::time::Duration;

/// When and how often a request is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// On what.
    pub on: RetryOn,
    /// Response statuses that count under `retriable-status-codes`, sorted.
    pub statuses: Box<[u16]>,
    /// Response headers that count under `retriable-headers`.
    pub response_headers: Box<[HeaderMatch]>,
    /// Only requests with these headers are retried; empty: all.
    pub request_headers: Box<[HeaderMatch]>,
    /// Tries after the first.
    pub retries: u32,
    /// Limit of each try; `None`: only the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Limit of silence in each try; `None`: none.
    pub per_try_idle_timeout: Option<Duration>,
    /// First pause; doubles with each retry, and a random part of it is waited (Envoy: full jitter).
    pub backoff_base: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// Endpoints already tried are avoided.
    pub avoid_previous: bool,
    /// How often another endpoint is drawn when the drawn one was already tried.
    pub host_draws: u32,
}

/// Conditions of a retry, as a set of flags.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RetryOn(pub u32);

impl RetryOn {
    /// `5xx`: any 5xx answer, or none at all (connection failure, reset, timeout of the try).
    pub const FIVE_XX: Self = Self(1);
    /// `gateway-error`: 502, 503, 504, or none at all.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// `reset`: the upstream did not answer (disconnect, reset, timeout of the try).
    pub const RESET: Self = Self(1 << 2);
    /// `connect-failure`: no connection.
    pub const CONNECT_FAILURE: Self = Self(1 << 3);
    /// `refused-stream`: HTTP/2 REFUSED_STREAM.
    pub const REFUSED_STREAM: Self = Self(1 << 4);
    /// `retriable-4xx`: 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 5);
    /// `retriable-status-codes`.
    pub const STATUS_CODES: Self = Self(1 << 6);
    /// `retriable-headers`.
    pub const HEADERS: Self = Self(1 << 7);
    /// `reset-before-request`: reset before anything of the request was sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 8);
    /// `envoy-ratelimited`: 429 from the rate limiter.
    pub const RATE_LIMITED: Self = Self(1 << 9);
    /// gRPC status 1.
    pub const GRPC_CANCELLED: Self = Self(1 << 10);
    /// gRPC status 4.
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 11);
    /// gRPC status 13.
    pub const GRPC_INTERNAL: Self = Self(1 << 12);
    /// gRPC status 8.
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 13);
    /// gRPC status 14.
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 14);

    /// Whether all flags of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is retried.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryOn({:#x})", self.0)
    }
}
