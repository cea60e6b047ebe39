//! Virtual services: which request goes where, and what happens to it on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mizzen_identity::Namespace;

use crate::host::Host;
use crate::name::{ExportTo, Labels, ObjectKey, ObjectName, SubsetName, Timestamp};

mod value;

pub use value::{HeaderMatch, HeaderName, Pattern, Percent, StringMatch};

/// Where a rule is in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayRef {
    /// At the sidecars (`mesh`).
    Mesh,
    /// At a gateway.
    Gateway {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: ObjectName,
    },
}

/// Conditions on a request, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpMatch {
    /// A name, for logs.
    pub name: Option<Arc<str>>,
    /// The path, without the query.
    pub uri: Option<StringMatch>,
    /// Compare the path's case-insensitively.
    pub ignore_uri_case: bool,
    /// The scheme.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The authority.
    pub authority: Option<StringMatch>,
    /// Headers that must compare.
    pub headers: BTreeMap<HeaderName, HeaderMatch>,
    /// Headers that must not.
    pub without_headers: BTreeMap<HeaderName, HeaderMatch>,
    /// Query parameters that must compare.
    pub query_params: BTreeMap<Arc<str>, HeaderMatch>,
    /// The port that the client addressed.
    pub port: Option<u16>,
    /// Labels of the client workload.
    pub source_labels: Labels,
    /// The client workload's namespace.
    pub source_namespace: Option<Namespace>,
    /// Where the condition is in force; where the virtual service is if none.
    pub gateways: Option<BTreeSet<GatewayRef>>,
    /// A prefix for the route's statistics.
    pub stat_prefix: Option<Arc<str>>,
}

/// A service, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The service.
    pub host: Host,
    /// The part of it.
    pub subset: Option<SubsetName>,
    /// The port; the service's only one, or the one that the client addressed, if none.
    pub port: Option<u16>,
}

/// Changes to headers: removed first, then set, then added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// Replaced or made.
    pub set: BTreeMap<HeaderName, Arc<str>>,
    /// Added beside what is there.
    pub add: BTreeMap<HeaderName, Arc<str>>,
    /// Taken away.
    pub remove: BTreeSet<HeaderName>,
}

impl HeaderOps {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// Changes to the headers of request and response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Of the request, before it is sent on.
    pub request: HeaderOps,
    /// Of the response, before it is sent back.
    pub response: HeaderOps,
}

/// A destination and its share. Shares are relative to their sum; the index sees that the sum is not zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedDestination {
    /// Where.
    pub destination: Destination,
    /// How much. Zero gets nothing; the only destination of a route has a weight above zero.
    pub weight: u32,
    /// Changes to headers for this destination alone.
    pub headers: Headers,
}

/// The port of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The scheme's own.
    FromScheme,
    /// The one that the client addressed.
    FromRequest,
}

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The new path; a plain one stands for the whole of the old one, whatever was matched.
    pub uri: Option<RoutePathRewrite>,
    /// The new authority.
    pub authority: Option<Arc<str>>,
    /// The new port.
    pub port: Option<RedirectPort>,
    /// The new scheme.
    pub scheme: Option<Arc<str>>,
    /// The status: 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The body of a direct response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Text.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
}

/// An answer without an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// The status, 200 to 599.
    pub status: u16,
    /// The body, if any.
    pub body: Option<Body>,
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAction {
    /// It is sent to one of these; at least one.
    Forward(Vec<WeightedDestination>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// It is answered.
    Direct(DirectResponse),
    /// Another virtual service (one without hosts) decides.
    Delegate(ObjectKey),
}

/// How a path becomes another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutePathRewrite {
    /// In place of the matched prefix (which is `/` where nothing is asked of the path), or of the whole path where all of
    /// it was matched.
    Path(Arc<str>),
    /// In place of what the expression matches; `\1` stands for its first group.
    Regex {
        /// The expression.
        pattern: Pattern,
        /// What stands instead.
        substitution: Arc<str>,
    },
}

/// What of a request is replaced before it is sent on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The path.
    pub uri: Option<RoutePathRewrite>,
    /// The authority.
    pub authority: Option<Arc<str>>,
}

/// How often and when a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often at most, beyond the first time; zero switches retries off.
    pub attempts: u32,
    /// How long one try may take; the route's timeout if none.
    pub per_try_timeout: Option<Duration>,
    /// When, in Envoy's words, separated by commas.
    pub retry_on: Arc<str>,
    /// Statuses that `retriable-status-codes` stands for.
    pub status_codes: Vec<u16>,
    /// Try endpoints of other localities.
    pub other_localities: bool,
    /// Do not use an endpoint again that failed this request.
    pub other_hosts: bool,
    /// The shortest wait before a try; Envoy's 25 ms if none.
    pub backoff: Option<Duration>,
}

impl Default for RetryPolicy {
    /// Istio's: twice, when the request cannot have been acted on, on another endpoint.
    fn default() -> Self {
        Self {
            attempts: 2,
            per_try_timeout: None,
            retry_on: Arc::from("connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"),
            status_codes: vec![503],
            other_localities: false,
            other_hosts: true,
            backoff: None,
        }
    }
}

/// A delay put on some requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub duration: Duration,
    /// On how many.
    pub percent: Percent,
}

/// What an aborted request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
}

/// An end put to some requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    /// The answer.
    pub status: AbortStatus,
    /// To how many.
    pub percent: Percent,
}

/// Faults put on requests for the sake of a test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault {
    /// A delay.
    pub delay: Option<Delay>,
    /// An end.
    pub abort: Option<Abort>,
}

/// Where a copy of requests goes; its answer is thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where.
    pub destination: Destination,
    /// Of how many.
    pub percent: Percent,
}

/// What other origins may do (CORS).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Which origins.
    pub allow_origins: Vec<StringMatch>,
    /// Which methods.
    pub allow_methods: Vec<Arc<str>>,
    /// Which request headers.
    pub allow_headers: Vec<Arc<str>>,
    /// Which response headers they may read.
    pub expose_headers: Vec<Arc<str>>,
    /// How long an answer to a preflight may be kept.
    pub max_age: Option<Duration>,
    /// Whether they may send credentials.
    pub allow_credentials: Option<bool>,
    /// Whether preflights of other origins are sent on; they are unless this says no.
    pub forward_unmatched_preflights: Option<bool>,
}

/// One rule for HTTP. The first one of which a match holds decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    /// A name, for logs.
    pub name: Option<Arc<str>>,
    /// One of these must hold; always if empty.
    pub matches: Vec<HttpMatch>,
    /// What is done.
    pub action: HttpAction,
    /// What is replaced.
    pub rewrite: Option<Rewrite>,
    /// How long it may take, retries included; without limit if none.
    pub timeout: Option<Duration>,
    /// How it is tried again; as the mesh says if none.
    pub retries: Option<RetryPolicy>,
    /// Faults.
    pub fault: Option<Fault>,
    /// Copies.
    pub mirrors: Vec<Mirror>,
    /// Other origins.
    pub cors: Option<Cors>,
    /// Changes to headers.
    pub headers: Headers,
}

/// Conditions on a connection, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct L4Match {
    /// Server names (TLS only), perhaps wildcards; one must compare.
    pub sni_hosts: Vec<Host>,
    /// The addresses that the client may have connected to.
    pub destination_subnets: Vec<IpNet>,
    /// The port that the client connected to.
    pub port: Option<u16>,
    /// Labels of the client workload.
    pub source_labels: Labels,
    /// The client workload's namespace.
    pub source_namespace: Option<Namespace>,
    /// Where the condition is in force; where the virtual service is if none.
    pub gateways: Option<BTreeSet<GatewayRef>>,
}

/// One rule for TLS that is not ended here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRoute {
    /// One of these must hold; at least one, each with a server name.
    pub matches: Vec<L4Match>,
    /// Where connections go; at least one.
    pub destinations: Vec<WeightedDestination>,
}

/// One rule for bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRoute {
    /// One of these must hold; always if empty.
    pub matches: Vec<L4Match>,
    /// Where connections go; at least one.
    pub destinations: Vec<WeightedDestination>,
}

/// A VirtualService.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualService {
    /// Which object.
    pub key: ObjectKey,
    /// When it was created: of two for the same host and place the older one decides.
    pub created: Timestamp,
    /// For which hosts; none if others delegate to it.
    pub hosts: Vec<Host>,
    /// Where it is in force; at least one.
    pub gateways: BTreeSet<GatewayRef>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Rules for HTTP, first match wins.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS that is not ended here.
    pub tls: Vec<TlsRoute>,
    /// Rules for bytes.
    pub tcp: Vec<TcpRoute>,
}
