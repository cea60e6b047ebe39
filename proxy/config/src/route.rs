//! Routes: what happens to a request.

mod action;
mod filters;
mod retry;

pub use action::{
    Direct, Forward, HashOn, HashPolicy, HostRewrite, Mirror, PathRewrite, Redirect, Substitution, SubstitutionPart,
    WeightedCluster, WeightedClusters,
};
pub use filters::{Abort, AbortWith, Cors, Delay, Fault, Fraction};
pub use retry::{RetryOn, RetryPolicy};

use crate::header::HeaderOps;
use crate::matcher::{HeaderMatch, Pattern, QueryMatch};
use crate::name::{RouteConfigName, RouteName, VirtualHostName};
use std::collections::HashMap;
use std::sync::Arc;

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
