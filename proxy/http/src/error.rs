//! Every way in which a message can be wrong, and the status that answers it.

use thiserror::Error;

/// Why a request or response head is refused. The connection cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// A line ended in LF without CR.
    #[error("head: line ends in LF without CR; end lines with CRLF")]
    BareLf,
    /// A CR that is not followed by LF.
    #[error("head: CR inside a line; CR may only stand before LF")]
    BareCr,
    /// A NUL byte.
    #[error("head: NUL byte; remove it")]
    Nul,
    /// Another control character.
    #[error("head: control character; encode it")]
    ControlCharacter,
    /// A field value continued on the next line (obsolete line folding).
    #[error("head: folded field line; write the value in one line")]
    ObsFold,
    /// More than one empty line before the message.
    #[error("head: more than one empty line before the message")]
    LeadingLines,
    /// The head is longer than [`Limits::head`](crate::Limits).
    #[error("head: over the size limit; send fewer or shorter fields")]
    TooLarge,
    /// More fields than [`Limits::fields`](crate::Limits).
    #[error("head: too many fields; send fewer")]
    TooManyFields,
    /// The request line has not exactly three parts separated by one space each.
    #[error("request line: not `method SP target SP version`")]
    RequestLine,
    /// The method is not a token.
    #[error("request line: the method is not a token")]
    Method,
    /// The target is empty, has bytes that must be encoded, or has a form that its method does not allow.
    #[error("request line: invalid target")]
    Target,
    /// Not `HTTP/digit.digit`.
    #[error("start line: malformed HTTP version")]
    Version,
    /// A version that is well-formed but neither 1.0 nor 1.1.
    #[error("start line: HTTP version is neither 1.0 nor 1.1")]
    VersionUnsupported,
    /// The status line is not `version SP three digits [SP reason]`.
    #[error("status line: not `version SP status SP reason`")]
    StatusLine,
    /// A field line without a colon.
    #[error("field line: no colon")]
    FieldWithoutColon,
    /// White space between name and colon.
    #[error("field line: white space before the colon")]
    SpaceBeforeColon,
    /// A field name that is empty or not a token.
    #[error("field line: the name is not a token")]
    FieldName,
    /// HTTP/1.1 without `Host`.
    #[error("host: missing; HTTP/1.1 requires it")]
    HostMissing,
    /// More than one `Host`.
    #[error("host: given more than once")]
    HostRepeated,
    /// `Host` is not a host with an optional port.
    #[error("host: not `host[:port]`")]
    HostInvalid,
    /// More than one `Content-Length`, or a list of lengths.
    #[error("content-length: given more than once")]
    LengthRepeated,
    /// `Content-Length` is not a decimal number below 2^63.
    #[error("content-length: not a decimal number")]
    LengthInvalid,
    /// `Content-Length` and `Transfer-Encoding` together.
    #[error("content-length: given together with transfer-encoding")]
    LengthWithTransferEncoding,
    /// `Transfer-Encoding` in HTTP/1.0.
    #[error("transfer-encoding: not allowed in HTTP/1.0")]
    TransferEncodingInOldVersion,
    /// `Transfer-Encoding` is empty, malformed, or `chunked` stands more than once or not last.
    #[error("transfer-encoding: malformed, or chunked is repeated or not last")]
    TransferEncodingInvalid,
    /// A transfer coding other than `chunked`.
    #[error("transfer-encoding: only chunked is supported")]
    TransferEncodingUnsupported,
    /// `Transfer-Encoding`, or a length over 0, in a response that cannot have a body (1xx, 204).
    #[error("response: 1xx and 204 must not announce a body")]
    BodyNotAllowed,
    /// `101 Switching Protocols` where no change of protocol was asked for.
    #[error("response: 101 to a request without upgrade; only answer 101 when asked")]
    UpgradeNotAsked,
    /// `Connection` is not a list of tokens.
    #[error("connection: not a list of tokens")]
    ConnectionInvalid,
    /// `Connection` names a field that must reach the end (`host`, `content-length`).
    #[error("connection: names host or content-length, which must not be removed")]
    ConnectionNamesFraming,
}

impl HeadError {
    /// The status that a server answers to a request with this fault. (For a response the proxy answers 502.)
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyFields => 431,
            Self::VersionUnsupported => 505,
            Self::TransferEncodingUnsupported => 501,
            _ => 400,
        }
    }

    /// A short name from a closed set, for metrics and logs.
    pub fn category(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::Nul => "nul",
            Self::ControlCharacter => "control_character",
            Self::ObsFold => "obs_fold",
            Self::LeadingLines => "leading_lines",
            Self::TooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::RequestLine => "request_line",
            Self::Method => "method",
            Self::Target => "target",
            Self::Version => "version",
            Self::VersionUnsupported => "version_unsupported",
            Self::StatusLine => "status_line",
            Self::FieldWithoutColon => "field_without_colon",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::FieldName => "field_name",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::LengthRepeated => "length_repeated",
            Self::LengthInvalid => "length_invalid",
            Self::LengthWithTransferEncoding => "length_with_transfer_encoding",
            Self::TransferEncodingInOldVersion => "transfer_encoding_in_old_version",
            Self::TransferEncodingInvalid => "transfer_encoding_invalid",
            Self::TransferEncodingUnsupported => "transfer_encoding_unsupported",
            Self::BodyNotAllowed => "body_not_allowed",
            Self::UpgradeNotAsked => "upgrade_not_asked",
            Self::ConnectionInvalid => "connection_invalid",
            Self::ConnectionNamesFraming => "connection_names_framing",
        }
    }
}

/// Why a body is refused. Where it ends is unknown, so the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BodyError {
    /// A chunk size that is empty, not hexadecimal or followed by something else than an extension.
    #[error("chunked body: bad chunk size")]
    ChunkSize,
    /// A chunk size of 2^60 or more, or written with more than 16 digits.
    #[error("chunked body: chunk size out of range")]
    ChunkSizeRange,
    /// Chunk extensions over 256 bytes in one chunk or over 16 KiB in the message, or with control characters.
    #[error("chunked body: chunk extension too long or malformed")]
    ChunkExtension,
    /// A line of the chunked coding does not end in CRLF.
    #[error("chunked body: line does not end in CRLF")]
    ChunkLineEnd,
    /// Chunk data are not followed by CRLF.
    #[error("chunked body: data longer than the chunk size")]
    ChunkDataEnd,
    /// A trailer field line is malformed.
    #[error("trailers: {0}")]
    Trailer(HeadError),
    /// A trailer field that decides framing, routing or the connection.
    #[error("trailers: field is not allowed in trailers")]
    TrailerForbidden,
    /// Trailers over 8 KiB.
    #[error("trailers: over the size limit of 8 KiB")]
    TrailersTooLarge,
    /// The peer closed before the announced end.
    #[error("body: connection closed before the end of the body")]
    Incomplete,
}

/// Why a change to a head is refused: it would break the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EditError {
    /// The field name is not a token.
    #[error("field name is not a token")]
    Name,
    /// The value has control characters.
    #[error("field value has control characters")]
    Value,
    /// The new path does not begin with `/` or `*`, or has bytes that must be encoded.
    #[error("path is not a valid request target")]
    Path,
    /// The new authority is not `host[:port]`.
    #[error("authority is not host[:port]")]
    Authority,
    /// Framing and connection fields are written by [`Edit`](crate::Edit) itself.
    #[error("field is written by the codec; set it through framing or connection")]
    Reserved,
}
