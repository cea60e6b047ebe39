//! Format strings and header changes.

use super::Result;
use super::fields::{lower, missing};
use crate::error::{At, ConfigError};
use crate::format::{Field, Format, Part};
use crate::header::{HeaderAppend, HeaderOp, HeaderOps, SetHeader};
use envoy_types::pb::envoy::config::core::v3 as core;
use std::sync::Arc;

/// Parses a format string.
pub(super) fn format(at: At<'_>, text: &str) -> Result<Format> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            plain.push('%');
            rest = after;
            continue;
        }
        let bad = |reason| ConfigError::Format {
            at: at.to_string(),
            near: shortened(after),
            reason,
        };
        let (operator, after) =
            operator(after).ok_or_else(|| bad("an operator ends with `%`; write `%%` for a percent sign"))?;
        let part = parse_operator(operator).map_err(bad)?;
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain).into()));
        }
        parts.push(part);
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain.into()));
    }
    Ok(Format { parts: parts.into() })
}

/// Splits after the `%` that ends an operator; one inside its parentheses does not.
fn operator(text: &str) -> Option<(&str, &str)> {
    let close = match (text.find('('), text.find('%')?) {
        (Some(open), percent) if open < percent => text.find(")").filter(|close| *close > open)?,
        _ => 0,
    };
    let (_, tail) = text.split_at_checked(close)?;
    let end = close + tail.find('%')?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

fn parse_operator(operator: &str) -> std::result::Result<Part, &'static str> {
    let (call, max) = match operator.rsplit_once(':') {
        // The colon of a pseudo header is inside the parentheses.
        Some((call, max)) if !max.contains(')') => {
            (call, Some(max.parse().map_err(|_| "the length after `:` is a number")?))
        }
        _ => (operator, None),
    };
    let (name, argument) = match call.split_once('(') {
        Some((name, argument)) => (
            name,
            Some(argument.strip_suffix(')').ok_or("a parenthesis is not closed")?),
        ),
        None => (call, None),
    };
    let field = field(name, argument)?;
    Ok(Part::Field { field, max })
}

fn field(name: &str, argument: Option<&str>) -> std::result::Result<Field, &'static str> {
    let headers = |argument: Option<&str>| -> std::result::Result<(Arc<str>, Option<Arc<str>>), &'static str> {
        let argument = argument
            .filter(|argument| !argument.is_empty())
            .ok_or("a header's name is missing")?;
        Ok(match argument.split_once('?') {
            Some((name, alternative)) => (lower(name), Some(lower(alternative))),
            None => (lower(argument), None),
        })
    };
    match name {
        "REQ" => headers(argument).map(|(name, alternative)| Field::Request { name, alternative }),
        "RESP" => headers(argument).map(|(name, alternative)| Field::Response { name, alternative }),
        "TRAILER" => headers(argument).map(|(name, alternative)| Field::Trailer { name, alternative }),
        "START_TIME" => match argument {
            None => Ok(Field::StartTime),
            Some("%s") => Ok(Field::StartEpoch { millis: false }),
            Some("%s%3f") => Ok(Field::StartEpoch { millis: true }),
            Some(_) => Err("of START_TIME's formats only `%s` and `%s%3f` are supported"),
        },
        "GRPC_STATUS" => Ok(Field::GrpcStatus),
        _ if argument.is_some() => Err("this operator is not supported"),
        "PROTOCOL" => Ok(Field::Protocol),
        "RESPONSE_CODE" => Ok(Field::ResponseCode),
        "RESPONSE_CODE_DETAILS" => Ok(Field::ResponseCodeDetails),
        "RESPONSE_FLAGS" => Ok(Field::ResponseFlags),
        "CONNECTION_TERMINATION_DETAILS" => Ok(Field::ConnectionTerminationDetails),
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Ok(Field::UpstreamTransportFailureReason),
        "BYTES_RECEIVED" => Ok(Field::BytesReceived),
        "BYTES_SENT" => Ok(Field::BytesSent),
        "DURATION" => Ok(Field::Duration),
        "REQUEST_DURATION" => Ok(Field::RequestDuration),
        "RESPONSE_DURATION" => Ok(Field::ResponseDuration),
        "UPSTREAM_HOST" => Ok(Field::UpstreamHost),
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Ok(Field::UpstreamCluster),
        "UPSTREAM_LOCAL_ADDRESS" => Ok(Field::UpstreamLocalAddress),
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Ok(Field::UpstreamAttempts),
        "DOWNSTREAM_LOCAL_ADDRESS" => Ok(Field::DownstreamLocalAddress),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Ok(Field::DownstreamLocalIp),
        "DOWNSTREAM_LOCAL_PORT" => Ok(Field::DownstreamLocalPort),
        "DOWNSTREAM_REMOTE_ADDRESS" => Ok(Field::DownstreamRemoteAddress),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Ok(Field::DownstreamRemoteIp),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Ok(Field::DownstreamDirectRemoteAddress),
        "DOWNSTREAM_PEER_URI_SAN" => Ok(Field::DownstreamPeerUriSan),
        "DOWNSTREAM_LOCAL_URI_SAN" => Ok(Field::DownstreamLocalUriSan),
        "DOWNSTREAM_TLS_VERSION" => Ok(Field::DownstreamTlsVersion),
        "REQUESTED_SERVER_NAME" => Ok(Field::RequestedServerName),
        "ROUTE_NAME" => Ok(Field::RouteName),
        "VIRTUAL_CLUSTER_NAME" => Ok(Field::Empty),
        "HOSTNAME" => Ok(Field::Hostname),
        "GRPC_STATUS_NUMBER" => Ok(Field::GrpcStatusNumber),
        "CONNECTION_ID" => Ok(Field::ConnectionId),
        _ => Err("this operator is not supported"),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(32).collect()
}

/// Removals, then additions.
#[expect(
    deprecated,
    reason = "`append` is the old spelling of the append action and still valid in xDS v3"
)]
pub(super) fn header_ops(at: At<'_>, add: &[core::HeaderValueOption], remove: &[String]) -> Result<HeaderOps> {
    let mut ops = Vec::with_capacity(add.len() + remove.len());
    for name in remove {
        let name = header_name(at.field("headers_to_remove"), name)?;
        if name.starts_with(':') || &*name == "host" {
            return Err(bad_header(at, &name, "may not be removed"));
        }
        ops.push(HeaderOp::Remove(name));
    }
    for (i, option) in add.iter().enumerate() {
        let at = at.index("headers_to_add", i);
        let header = option.header.as_ref().ok_or_else(|| missing(at.field("header")))?;
        let mut name = header_name(at, &header.key)?;
        if &*name == "host" {
            name = ":authority".into();
        }
        if name.starts_with(':') && &*name != ":authority" {
            return Err(bad_header(at, &name, "may not be set"));
        }
        if header
            .value
            .bytes()
            .any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f)
        {
            return Err(bad_header(at, &name, "the value has control characters"));
        }
        let value = format(at.field("value"), &header.value)?;
        let append = match (option.append, option.append_action()) {
            (Some(append), _) if append.value => HeaderAppend::Append,
            (Some(_), _) => HeaderAppend::Overwrite,
            (None, core::header_value_option::HeaderAppendAction::AppendIfExistsOrAdd) => HeaderAppend::Append,
            (None, core::header_value_option::HeaderAppendAction::AddIfAbsent) => HeaderAppend::AddIfAbsent,
            (None, core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd) => HeaderAppend::Overwrite,
            (None, core::header_value_option::HeaderAppendAction::OverwriteIfExists) => HeaderAppend::OverwriteIfExists,
        };
        // A second authority would make the request ambiguous.
        let append = if &*name == ":authority" {
            HeaderAppend::Overwrite
        } else {
            append
        };
        ops.push(HeaderOp::Set(SetHeader {
            name,
            value,
            append,
            keep_empty: option.keep_empty_value,
        }));
    }
    Ok(HeaderOps { ops: ops.into() })
}

fn bad_header(at: At<'_>, name: &str, reason: &'static str) -> ConfigError {
    ConfigError::Header {
        at: at.to_string(),
        name: name.to_owned(),
        reason,
    }
}

/// A lower-case header name of allowed characters; one `:` may lead.
pub(super) fn header_name(at: At<'_>, name: &str) -> Result<Arc<str>> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let rest = name.strip_prefix(':').unwrap_or(name);
    if rest.is_empty() || !rest.bytes().all(token) {
        return Err(bad_header(at, name, "is not a header name"));
    }
    // Framing belongs to the codec; a route that sets it could smuggle requests.
    if ["content-length", "transfer-encoding", "connection"]
        .iter()
        .any(|own| name.eq_ignore_ascii_case(own))
    {
        return Err(bad_header(at, name, "belongs to the proxy"));
    }
    Ok(lower(name))
}
