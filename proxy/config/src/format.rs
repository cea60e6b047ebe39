//! Format strings (`%REQ(:METHOD)% …`) of access logs and of header values, parsed once.
//!
//! Source: Envoy's "access log format strings". Only what the native proxy can fill in is accepted; an operator it does
//! not know is an error, not an empty column.

use std::sync::Arc;

/// A parsed format string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// The parts in order.
    pub parts: Box<[Part]>,
}

/// One part of a format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it stands (`%%` is already `%`).
    Text(Arc<str>),
    /// A value of the request; `-` in access logs and nothing in headers when there is none.
    Field {
        /// Which value.
        field: Field,
        /// Longest length in bytes (`:NUMBER` after the operator).
        max: Option<usize>,
    },
}

/// The values a format string can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// `%REQ(NAME?ALTERNATIVE)%`: a request header, or the alternative; names are lower-case, pseudo headers included.
    Request {
        /// First choice.
        name: Arc<str>,
        /// Used when the first is missing.
        alternative: Option<Arc<str>>,
    },
    /// `%RESP(NAME?ALTERNATIVE)%`: a response header.
    Response {
        /// First choice.
        name: Arc<str>,
        /// Used when the first is missing.
        alternative: Option<Arc<str>>,
    },
    /// `%TRAILER(NAME?ALTERNATIVE)%`: a response trailer.
    Trailer {
        /// First choice.
        name: Arc<str>,
        /// Used when the first is missing.
        alternative: Option<Arc<str>>,
    },
    /// `%START_TIME%`, in UTC as `2024-01-01T00:00:00.000Z`.
    StartTime,
    /// `%START_TIME(%s)%`: seconds since 1970; `millis` for `%START_TIME(%s%3f)%`.
    StartEpoch {
        /// Milliseconds rather than seconds.
        millis: bool,
    },
    /// `%PROTOCOL%`
    Protocol,
    /// `%RESPONSE_CODE%`
    ResponseCode,
    /// `%RESPONSE_CODE_DETAILS%`
    ResponseCodeDetails,
    /// `%RESPONSE_FLAGS%`
    ResponseFlags,
    /// `%CONNECTION_TERMINATION_DETAILS%`
    ConnectionTerminationDetails,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`
    UpstreamTransportFailureReason,
    /// `%BYTES_RECEIVED%`
    BytesReceived,
    /// `%BYTES_SENT%`
    BytesSent,
    /// `%DURATION%`, milliseconds from start to the last byte out
    Duration,
    /// `%REQUEST_DURATION%`, milliseconds until the last byte of the request
    RequestDuration,
    /// `%RESPONSE_DURATION%`, milliseconds until the first byte of the response
    ResponseDuration,
    /// `%UPSTREAM_HOST%`
    UpstreamHost,
    /// `%UPSTREAM_CLUSTER%` and `%UPSTREAM_CLUSTER_RAW%`
    UpstreamCluster,
    /// `%UPSTREAM_LOCAL_ADDRESS%`
    UpstreamLocalAddress,
    /// `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`
    UpstreamAttempts,
    /// `%DOWNSTREAM_LOCAL_ADDRESS%`
    DownstreamLocalAddress,
    /// `%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%`
    DownstreamLocalIp,
    /// `%DOWNSTREAM_LOCAL_PORT%`
    DownstreamLocalPort,
    /// `%DOWNSTREAM_REMOTE_ADDRESS%`
    DownstreamRemoteAddress,
    /// `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`
    DownstreamRemoteIp,
    /// `%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%`
    DownstreamDirectRemoteAddress,
    /// `%DOWNSTREAM_PEER_URI_SAN%`
    DownstreamPeerUriSan,
    /// `%DOWNSTREAM_LOCAL_URI_SAN%`
    DownstreamLocalUriSan,
    /// `%DOWNSTREAM_TLS_VERSION%`
    DownstreamTlsVersion,
    /// `%REQUESTED_SERVER_NAME%`
    RequestedServerName,
    /// `%ROUTE_NAME%`
    RouteName,
    /// `%VIRTUAL_CLUSTER_NAME%` and other operators that are always empty here
    Empty,
    /// `%HOSTNAME%`
    Hostname,
    /// `%GRPC_STATUS%`
    GrpcStatus,
    /// `%GRPC_STATUS_NUMBER%`
    GrpcStatusNumber,
    /// `%CONNECTION_ID%`
    ConnectionId,
}
