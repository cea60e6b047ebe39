//! Routes: what happens to a request.

use crate::header::HeaderOps;
use crate::matcher::{HeaderMatch, Pattern, QueryMatch};
use crate::name::{ClusterName, RouteConfigName, RouteName, VirtualHostName};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A route configuration: virtual hosts, found by authority.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Its name.
    pub name: RouteConfigName,
    /// Its virtual hosts.
    pub virtual_hosts: Box<[Arc<VirtualHost>]>,
    /// Which of them answers to which authority.
    pub domains: DomainIndex,
    /// Virtual hosts that are not here are asked for by name: `<name>/<authority>` (VHDS).
    pub vhds: bool,
    /// A port in the authority does not count when a virtual host is looked for.
    pub ignore_port: bool,
    /// Applied to every request after the route's and the virtual host's own.
    pub request_headers: HeaderOps,
    /// Applied to every response after the route's and the virtual host's own.
    pub response_headers: HeaderOps,
    /// Cluster-first order of header changes is turned round (`most_specific_header_mutations_wins`).
    pub most_specific_wins: bool,
}

impl RouteConfig {
    /// Routes that answer 503 to everything.
    #[must_use]
    pub fn closed(name: &str, why: Arc<str>) -> Self {
        Self {
            name: name.into(),
            virtual_hosts: Box::new([Arc::new(VirtualHost::closed(name, why))]),
            domains: DomainIndex {
                any: Some(0),
                ..DomainIndex::default()
            },
            vhds: false,
            ignore_port: false,
            request_headers: HeaderOps::default(),
            response_headers: HeaderOps::default(),
            most_specific_wins: false,
        }
    }
}

/// Finds a virtual host by authority in Envoy's order: the exact domain, the longest `*suffix`, the longest `prefix*`,
/// then `*`. Values are positions in [`RouteConfig::virtual_hosts`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainIndex {
    /// Exact domains, lower-case.
    pub exact: HashMap<Box<str>, u32>,
    /// `*suffix` without the star, longest first.
    pub suffixes: Box<[(Box<str>, u32)]>,
    /// `prefix*` without the star, longest first.
    pub prefixes: Box<[(Box<str>, u32)]>,
    /// `*`.
    pub any: Option<u32>,
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualHost {
    /// Its name.
    pub name: VirtualHostName,
    /// The authorities it answers to, lower-case; with `*` at one end, or alone.
    pub domains: Box<[Arc<str>]>,
    /// Its routes; the first that matches decides.
    pub routes: Box<[Arc<Route>]>,
    /// Plain-text requests are redirected to https.
    pub require_tls: bool,
    /// Applied after the route's own.
    pub request_headers: HeaderOps,
    /// Applied after the route's own.
    pub response_headers: HeaderOps,
    /// For routes that have no retry policy of their own.
    pub retry: Option<Arc<RetryPolicy>>,
    /// For routes that have no fault of their own.
    pub fault: Option<Arc<Fault>>,
    /// For routes that have no CORS policy of their own.
    pub cors: Option<Arc<Cors>>,
    /// The number of attempts is told to the upstream in `x-envoy-attempt-count`.
    pub attempt_count_to_upstream: bool,
    /// … and to the client.
    pub attempt_count_to_client: bool,
}

impl VirtualHost {
    /// A virtual host that answers 503 to everything.
    #[must_use]
    pub fn closed(name: &str, why: Arc<str>) -> Self {
        Self {
            name: name.into(),
            domains: Box::new(["*".into()]),
            routes: Box::new([Arc::new(Route::unavailable(RouteMatch::all(), "".into(), why))]),
            require_tls: false,
            request_headers: HeaderOps::default(),
            response_headers: HeaderOps::default(),
            retry: None,
            fault: None,
            cors: None,
            attempt_count_to_upstream: false,
            attempt_count_to_client: false,
        }
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name, may be empty.
    pub name: RouteName,
    /// Which requests it takes.
    pub matches: RouteMatch,
    /// What happens to them.
    pub action: Action,
    /// Changes to the request.
    pub request_headers: HeaderOps,
    /// Changes to the response.
    pub response_headers: HeaderOps,
    /// Faults for its requests.
    pub fault: Option<Arc<Fault>>,
    /// Its CORS policy.
    pub cors: Option<Arc<Cors>>,
    /// Name of the operation in traces.
    pub operation: Option<Arc<str>>,
    /// Most bytes of the request kept for a retry or a mirror; `None`: the proxy's own limit.
    pub body_buffer_limit: Option<u64>,
}

impl Route {
    /// A route that answers 503.
    #[must_use]
    pub fn unavailable(matches: RouteMatch, name: RouteName, why: Arc<str>) -> Self {
        Self {
            name,
            matches,
            action: Action::Unavailable(why),
            request_headers: HeaderOps::default(),
            response_headers: HeaderOps::default(),
            fault: None,
            cors: None,
            operation: None,
            body_buffer_limit: None,
        }
    }
}

/// Which requests a route takes: all that is said here must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The path's case counts.
    pub case_sensitive: bool,
    /// Headers, pseudo headers included.
    pub headers: Box<[HeaderMatch]>,
    /// Query parameters.
    pub query: Box<[QueryMatch]>,
    /// Only gRPC requests.
    pub grpc: bool,
    /// Only this share of the requests.
    pub fraction: Option<Fraction>,
}

impl RouteMatch {
    /// Every request.
    #[must_use]
    pub fn all() -> Self {
        Self {
            path: PathMatch::Prefix("".into()),
            case_sensitive: true,
            headers: Box::default(),
            query: Box::default(),
            grpc: false,
            fraction: None,
        }
    }
}

/// A test on the path (without the query).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// Its beginning.
    Prefix(Arc<str>),
    /// Its beginning, up to a `/` or the end. Has no `/` at its end.
    SeparatedPrefix(Arc<str>),
    /// The whole path against an expression.
    Regex(Pattern),
    /// CONNECT requests.
    Connect,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It is forwarded.
    Forward(Box<Forward>),
    /// The client is sent elsewhere.
    Redirect(Box<Redirect>),
    /// It is answered here.
    Direct(Direct),
    /// This route cannot be served: 503; the text says why.
    Unavailable(Arc<str>),
}

/// Where and how a request is forwarded.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Where to.
    pub clusters: WeightedClusters,
    /// Status when the chosen cluster does not exist (503, 404 or 500).
    pub cluster_not_found_status: u16,
    /// From the end of the request to the end of the response, retries included; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Nothing moves for so long; `None`: as the connection says; zero: no limit.
    pub idle_timeout: Option<Duration>,
    /// Longest life of the request and its response, upgrades included; `None`: as the connection says.
    pub max_stream_duration: Option<Duration>,
    /// Longest `grpc-timeout` that is honoured; `None`: the header is not looked at; zero: no limit.
    pub max_grpc_timeout: Option<Duration>,
    /// Retries.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Change of the path.
    pub path_rewrite: PathRewrite,
    /// Change of the authority.
    pub host_rewrite: HostRewrite,
    /// The old authority is told in `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// What a consistent-hash balancer hashes.
    pub hash: Box<[HashPolicy]>,
    /// Copies are sent here too.
    pub mirrors: Box<[Mirror]>,
    /// High priority for circuit breakers.
    pub high_priority: bool,
    /// Upgrades allowed or forbidden, over what the connection says; lower-case names.
    pub upgrades: Box<[(Arc<str>, bool)]>,
}

/// Clusters, one of which is chosen by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedClusters {
    /// At least one.
    pub entries: Box<[WeightedCluster]>,
    /// Sum of the weights; never zero.
    pub total: u64,
}

/// One of several clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Its name.
    pub cluster: ClusterName,
    /// Its weight; zero: never chosen.
    pub weight: u32,
    /// Changes to the request, before the route's own.
    pub request_headers: HeaderOps,
    /// Changes to the response, before the route's own.
    pub response_headers: HeaderOps,
    /// A new authority.
    pub host: Option<Arc<str>>,
}

/// A change of the path. The query is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PathRewrite {
    /// None.
    #[default]
    None,
    /// What the route matched (exact path or prefix; the whole path for an expression) is replaced.
    Prefix(Arc<str>),
    /// Every match of the expression is replaced.
    Regex(Box<Substitution>),
    /// The whole path is replaced.
    Full(Arc<str>),
}

/// A replacement by expression.
#[derive(Clone)]
pub struct Substitution {
    /// What is replaced, wherever it matches.
    pub regex: regex::bytes::Regex,
    /// By what.
    pub parts: Box<[SubstitutionPart]>,
}

impl fmt::Debug for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substitution")
            .field("regex", &self.regex.as_str())
            .field("parts", &self.parts)
            .finish()
    }
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str() && self.parts == other.parts
    }
}

/// A piece of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubstitutionPart {
    /// Text.
    Text(Arc<str>),
    /// A group of the expression (`\1`); 0 is the whole match.
    Group(u8),
}

/// A change of the authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostRewrite {
    /// None.
    #[default]
    None,
    /// To this.
    To(Arc<str>),
    /// To the name of the chosen endpoint (clusters found by DNS).
    Endpoint,
    /// To the value of this request header, when there is one.
    Header(Arc<str>),
}

/// What a consistent-hash balancer hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashPolicy {
    /// The source.
    pub on: HashOn,
    /// When this one gives a hash, the following are not looked at.
    pub terminal: bool,
}

/// Sources of a request's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// A header (lower-case name).
    Header(Arc<str>),
    /// A cookie; made when missing and a lifetime is given (zero: a session cookie).
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Lifetime of one that is made.
        ttl: Option<Duration>,
        /// Path of one that is made.
        path: Arc<str>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Arc<str>),
}

/// A copy of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where to.
    pub cluster: ClusterName,
    /// What share.
    pub fraction: Fraction,
    /// `-shadow` is not appended to the authority.
    pub keep_host: bool,
}

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

/// The client is sent elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// New scheme; `None`: as it was.
    pub scheme: Option<Arc<str>>,
    /// New host; `None`: as it was.
    pub host: Option<Arc<str>>,
    /// New port; `None`: as it was (dropped when the scheme changes away from its default).
    pub port: Option<u16>,
    /// Change of the path. `Full` may carry its own query, which then replaces the old.
    pub path: PathRewrite,
    /// The query is dropped.
    pub strip_query: bool,
}

/// An answer without an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Status.
    pub status: u16,
    /// Body, may be empty.
    pub body: Arc<[u8]>,
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
    pub allow_origins: Box<[crate::matcher::StringMatch]>,
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
