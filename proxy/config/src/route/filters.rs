//! What is done to a route's requests on the way: faults, cross-origin checks, shares.

use crate::matcher::{HeaderMatch, StringMatch};
use std::sync::Arc;
use std::time::Duration;

/// A share: `numerator` of `denominator` (100, 10 000 or 1 000 000). A numerator of at least the denominator is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// How many …
    pub numerator: u32,
    /// … of how many.
    pub denominator: u32,
}

impl Fraction {
    /// Every one.
    pub const ALL: Self = Self {
        numerator: 100,
        denominator: 100,
    };
}

/// Faults that are put in on purpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Wait first.
    pub delay: Option<Delay>,
    /// Then answer at once.
    pub abort: Option<Abort>,
    /// Only for requests with these headers.
    pub headers: Box<[HeaderMatch]>,
    /// Most at once; `None`: no limit.
    pub max_active: Option<u32>,
}

/// A wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub time: Duration,
    /// For what share of the requests.
    pub fraction: Fraction,
}

/// An answer in place of the upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// With what.
    pub with: AbortWith,
    /// For what share of the requests.
    pub fraction: Fraction,
}

/// What an abort answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortWith {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
}

/// Cross-origin requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Origins that are allowed.
    pub allow_origins: Box<[StringMatch]>,
    /// `access-control-allow-methods`, may be empty.
    pub allow_methods: Arc<str>,
    /// `access-control-allow-headers`, may be empty.
    pub allow_headers: Arc<str>,
    /// `access-control-expose-headers`, may be empty.
    pub expose_headers: Arc<str>,
    /// `access-control-max-age`, may be empty.
    pub max_age: Arc<str>,
    /// `access-control-allow-credentials: true`.
    pub allow_credentials: bool,
    /// Preflights of origins that do not match are forwarded (`true`) or answered here.
    pub forward_not_matching: bool,
}
