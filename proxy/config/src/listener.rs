//! Listeners: what happens to a connection before there is a request.

use crate::cluster::ServiceRef;
use crate::format::Format;
use crate::name::{ListenerName, RouteConfigName};
use crate::route::{RouteConfig, WeightedClusters};
use crate::tls::DownstreamTls;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A listener. In a sidecar most are not sockets: a captured connection is handed to the one that its original
/// destination names.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name.
    pub name: ListenerName,
    /// Where it listens (gateways), or which destination it stands for (sidecars).
    pub address: SocketAddr,
    /// It has a socket of its own.
    pub bind: bool,
    /// Which way its traffic goes.
    pub direction: Direction,
    /// Its filter chains; `mizzen-decide` picks one by [`ChainMatch`].
    pub chains: Box<[Arc<FilterChain>]>,
    /// Used when no chain matches; without one the connection is closed.
    pub default_chain: Option<Arc<FilterChain>>,
    /// What is read from the first bytes before a chain is picked.
    pub inspect: Inspect,
    /// How long the first bytes are waited for; zero: for ever.
    pub inspect_timeout: Duration,
    /// After that time: go on with what is known (`true`) or close (`false`).
    pub continue_after_inspect_timeout: bool,
    /// Access logs of connections for which no chain was found.
    pub access_logs: Box<[Arc<AccessLog>]>,
}

impl Listener {
    /// A listener that closes every connection; it has no socket.
    #[must_use]
    pub fn closed(name: &str, why: Arc<str>) -> Self {
        Self {
            name: name.into(),
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            bind: false,
            direction: Direction::Unspecified,
            chains: Box::default(),
            default_chain: Some(Arc::new(FilterChain {
                name: "".into(),
                matches: ChainMatch::default(),
                transport: ChainTransport::Raw,
                protocol: Protocol::Closed(why),
            })),
            inspect: Inspect::default(),
            inspect_timeout: Duration::ZERO,
            continue_after_inspect_timeout: false,
            access_logs: Box::default(),
        }
    }
}

/// Which way a listener's traffic goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Not said (gateways).
    #[default]
    Unspecified,
    /// Into the workload.
    Inbound,
    /// Out of the workload.
    Outbound,
}

/// What is read from a connection's first bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspect {
    /// Is it TLS, with which server name and protocols.
    pub tls: bool,
    /// Is it HTTP/1 or HTTP/2 in plain text.
    pub http: bool,
    /// Destination ports (first and last) for which HTTP is not looked for (server-first protocols).
    pub http_disabled_ports: Box<[(u16, u16)]>,
    /// Destination ports (first and last) for which TLS is not looked for.
    pub tls_disabled_ports: Box<[(u16, u16)]>,
}

/// One filter chain.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterChain {
    /// Its name, for logs.
    pub name: Arc<str>,
    /// Which connections it takes.
    pub matches: ChainMatch,
    /// TLS that ends here.
    pub transport: ChainTransport,
    /// What is spoken inside.
    pub protocol: Protocol,
}

/// The transport of a filter chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainTransport {
    /// Bytes as they come (plain text, or TLS that is passed on).
    Raw,
    /// TLS ends here.
    Tls(Arc<DownstreamTls>),
}

/// Which connections a filter chain takes. Empty lists and `None` match everything, but a chain that says more wins, in
/// the order of the fields (Envoy's `FilterChainMatch`: no going back once a field has decided).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainMatch {
    /// The original destination's port.
    pub destination_port: Option<u16>,
    /// Networks of which one holds the original destination; the longest wins.
    pub destination_nets: Box<[IpNet]>,
    /// Server names (SNI): exact, or `*.suffix`; lower-case.
    pub server_names: Box<[Arc<str>]>,
    /// TLS or plain text.
    pub transport_protocol: Option<TransportProtocol>,
    /// ALPN names, of which the client offers one (`http/1.1`, `h2`, `h2c` for HTTP that was found in plain text).
    pub application_protocols: Box<[Arc<str>]>,
    /// Networks of which one holds the peer's address.
    pub source_nets: Box<[IpNet]>,
}

impl Inspect {
    /// Whether the first bytes of a connection to `port` are looked at for TLS.
    #[must_use]
    pub fn tls_for(&self, port: u16) -> bool {
        self.tls && !within(&self.tls_disabled_ports, port)
    }

    /// Whether the first bytes of a connection to `port` are looked at for HTTP.
    #[must_use]
    pub fn http_for(&self, port: u16) -> bool {
        self.http && !within(&self.http_disabled_ports, port)
    }
}

fn within(ranges: &[(u16, u16)], port: u16) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
}

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransportProtocol {
    /// A TLS client hello.
    Tls,
    /// Anything else.
    Raw,
}

/// What is spoken in a filter chain.
#[derive(Clone, Debug, PartialEq)]
pub enum Protocol {
    /// HTTP.
    Http(Arc<HttpConnection>),
    /// Bytes.
    Tcp(Arc<TcpProxy>),
    /// This chain cannot be served (an unknown or wrong filter): connections are closed at once; the text says why.
    Closed(Arc<str>),
}

/// How HTTP is spoken on a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConnection {
    /// Prefix of statistics, for instance `inbound_0.0.0.0_9080;`.
    pub stat_prefix: Arc<str>,
    /// Which HTTP is spoken.
    pub codec: Codec,
    /// Where routes come from.
    pub routes: RouteSource,
    /// Access logs.
    pub access_logs: Box<[Arc<AccessLog>]>,
    /// What happens to `x-forwarded-client-cert`.
    pub client_cert: ForwardClientCert,
    /// What is told of the client's certificate when it is set.
    pub client_cert_details: ClientCertDetails,
    /// The peer's address is the client's: `x-forwarded-for` is appended to and external `x-envoy-*` headers removed.
    pub use_remote_address: bool,
    /// `x-forwarded-for` is left alone.
    pub skip_xff_append: bool,
    /// Trusted proxies in front.
    pub xff_trusted_hops: u32,
    /// The `server` response header's value.
    pub server_name: Arc<str>,
    /// What happens to the upstream's `server` header.
    pub server_header: ServerHeader,
    /// `x-request-id` is made when there is none.
    pub generate_request_id: bool,
    /// An `x-request-id` from outside is kept even at the edge.
    pub preserve_external_request_id: bool,
    /// `x-request-id` is also put on responses.
    pub request_id_in_response: bool,
    /// A connection without requests is closed after this; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// A request on which nothing moves ends after this; `None`: never.
    pub stream_idle_timeout: Option<Duration>,
    /// The whole request must have arrived within this; `None`: no limit.
    pub request_timeout: Option<Duration>,
    /// The request's head must have arrived within this; `None`: no limit.
    pub request_headers_timeout: Option<Duration>,
    /// Longest life of a connection; `None`: no limit.
    pub max_connection_duration: Option<Duration>,
    /// Longest life of a request and its response; `None`: no limit.
    pub max_stream_duration: Option<Duration>,
    /// Time between "go away" and the end when draining.
    pub drain_timeout: Duration,
    /// Largest request head.
    pub max_request_head_bytes: u32,
    /// Protocols a client may upgrade to, lower-case (`websocket`, `connect`).
    pub upgrades: Box<[Arc<str>]>,
    /// `.` and `..` segments are resolved before matching.
    pub normalize_path: bool,
    /// Adjacent slashes become one before matching.
    pub merge_slashes: bool,
    /// A port in the authority is removed.
    pub strip_port: StripPort,
    /// Faults in routes have effect.
    pub fault_filter: bool,
    /// CORS policies in routes have effect.
    pub cors_filter: bool,
    /// HTTP/1.0 requests are accepted.
    pub accept_http_10: bool,
    /// Most streams at once on one HTTP/2 connection; `None`: the codec's own limit.
    pub max_concurrent_streams: Option<u32>,
}

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Found out by ALPN or the first bytes.
    #[default]
    Auto,
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// Where an HTTP connection's routes come from.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteSource {
    /// They are here.
    Inline(Arc<RouteConfig>),
    /// The route configuration of this name (which may itself be filled by virtual-host discovery).
    Named(RouteConfigName),
}

/// What happens to `x-forwarded-client-cert` (Envoy's `forward_client_cert_details`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// It is removed.
    #[default]
    Sanitize,
    /// Passed on under mutual TLS, else removed.
    ForwardOnly,
    /// The client's certificate is appended under mutual TLS; removed otherwise.
    AppendForward,
    /// Replaced by the client's certificate under mutual TLS; removed otherwise.
    SanitizeSet,
    /// Passed on always.
    AlwaysForwardOnly,
}

/// What is told of the client's certificate besides `By` and `Hash`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// `Subject`
    pub subject: bool,
    /// `Cert`
    pub cert: bool,
    /// `Chain`
    pub chain: bool,
    /// `DNS`
    pub dns: bool,
    /// `URI`
    pub uri: bool,
}

/// What happens to the upstream's `server` response header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerHeader {
    /// Replaced by our name.
    #[default]
    Overwrite,
    /// Our name, when there is none.
    AppendIfAbsent,
    /// Left as it is.
    PassThrough,
}

/// Whether a port in the authority is removed before matching and forwarding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StripPort {
    /// Kept.
    #[default]
    Keep,
    /// Removed when it is the listener's own.
    Matching,
    /// Always removed.
    Any,
}

/// How bytes are passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpProxy {
    /// Prefix of statistics.
    pub stat_prefix: Arc<str>,
    /// Where to.
    pub clusters: WeightedClusters,
    /// A connection on which nothing moves is closed after this; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// How often another endpoint is tried when a connection cannot be made; at least 1.
    pub max_connect_attempts: u32,
    /// Access logs.
    pub access_logs: Box<[Arc<AccessLog>]>,
    /// The service that this chain stands for, where discovery says so (metadata of the chain).
    pub service: Option<Arc<ServiceRef>>,
}

/// One access log: to standard output, unless a file is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where to; `None`: standard output.
    pub file: Option<Arc<str>>,
    /// What is written.
    pub format: AccessLogFormat,
    /// Which requests or connections are logged.
    pub only: LogFilter,
}

/// Which requests or connections an access log takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogFilter {
    /// All.
    #[default]
    All,
    /// Those with one of these response flags (short names); with any flag when empty.
    Flags(Box<[Arc<str>]>),
}

/// What an access log writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// A line of text; the line end is part of it.
    Text(Format),
    /// One JSON object per line: names (sorted) and values.
    Json(Box<[(Arc<str>, Format)]>),
}
