//! Helpers for scalar fields, durations, addresses and extensions.

use super::Result;
use crate::error::{At, ConfigError};
use crate::route::Fraction;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::v3 as kind;
use envoy_types::pb::google::protobuf::{self, Any};
use ipnet::IpNet;
use prost::{Message, Name};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// No timeout in use is longer; more would overflow additions to an instant.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(super) fn missing(at: At<'_>) -> ConfigError {
    ConfigError::Missing { at: at.to_string() }
}

pub(super) fn unsupported(at: At<'_>, what: &'static str) -> ConfigError {
    ConfigError::Unsupported {
        at: at.to_string(),
        what,
    }
}

pub(super) fn out_of_range(at: At<'_>, value: impl ToString, allowed: &'static str) -> ConfigError {
    ConfigError::OutOfRange {
        at: at.to_string(),
        value: value.to_string(),
        allowed,
    }
}

/// A duration: not negative, at most ten years.
pub(super) fn duration(at: At<'_>, value: Option<protobuf::Duration>) -> Result<Option<Duration>> {
    let Some(value) = value else { return Ok(None) };
    let checked = u64::try_from(value.seconds)
        .ok()
        .zip(u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000))
        .map(|(seconds, nanos)| Duration::new(seconds, nanos));
    match checked {
        Some(checked) => Ok(Some(checked.min(LONGEST))),
        None => Err(out_of_range(
            at,
            format_args!("{}s {}ns", value.seconds, value.nanos),
            "a duration of 0s or more",
        )),
    }
}

/// A limit: as given, `default` when not given, none when zero.
pub(super) fn limit(
    at: At<'_>,
    value: Option<protobuf::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>> {
    Ok(duration(at, value)?.or(default).filter(|limit| !limit.is_zero()))
}

pub(super) fn flag(value: Option<protobuf::BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}

pub(super) fn number(value: Option<protobuf::UInt32Value>) -> Option<u32> {
    value.map(|value| value.value)
}

pub(super) fn port(at: At<'_>, value: u32) -> Result<u16> {
    u16::try_from(value).map_err(|_| out_of_range(at, value, "a port from 0 to 65535"))
}

pub(super) fn status(at: At<'_>, value: u32) -> Result<u16> {
    match u16::try_from(value) {
        Ok(status @ 200..=599) => Ok(status),
        _ => Err(out_of_range(at, value, "an HTTP status from 200 to 599")),
    }
}

/// A share of at most everything.
pub(super) fn fraction(value: Option<kind::FractionalPercent>, default: Fraction) -> Fraction {
    let Some(value) = value else { return default };
    let denominator = match value.denominator() {
        kind::fractional_percent::DenominatorType::Hundred => 100,
        kind::fractional_percent::DenominatorType::TenThousand => 10_000,
        kind::fractional_percent::DenominatorType::Million => 1_000_000,
    };
    Fraction {
        numerator: value.numerator,
        denominator,
    }
}

pub(super) fn runtime_fraction(value: Option<core::RuntimeFractionalPercent>, default: Fraction) -> Fraction {
    fraction(value.and_then(|value| value.default_value), default)
}

/// Lower-case text, shared.
pub(super) fn lower(text: &str) -> Arc<str> {
    text.to_ascii_lowercase().into()
}

pub(super) fn text_or(text: &str, default: &str) -> Arc<str> {
    if text.is_empty() { default.into() } else { text.into() }
}

pub(super) fn non_empty(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// An extension's message, when it is of type `M`.
pub(super) fn extension<M: Message + Name + Default>(at: At<'_>, any: &Any) -> Result<Option<M>> {
    if any.type_url != M::type_url() {
        return Ok(None);
    }
    M::decode(any.value.as_slice())
        .map(Some)
        .map_err(|source| ConfigError::Malformed {
            at: at.to_string(),
            source,
        })
}

pub(super) fn is_extension<M: Name>(any: &Any) -> bool {
    any.type_url == M::type_url()
}

pub(super) fn unknown_extension(at: At<'_>, type_url: &str) -> ConfigError {
    ConfigError::UnknownExtension {
        at: at.to_string(),
        type_url: type_url.to_owned(),
    }
}

pub(super) fn ip(at: At<'_>, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| ConfigError::Address {
        at: at.to_string(),
        value: text.to_owned(),
    })
}

/// An address as it stands in a message.
pub(super) enum RawAddress {
    Socket(String, u16),
    Pipe(String),
}

pub(super) fn raw_address(at: At<'_>, address: Option<core::Address>) -> Result<RawAddress> {
    match address.and_then(|address| address.address) {
        Some(core::address::Address::SocketAddress(socket)) => {
            if socket.protocol() != core::socket_address::Protocol::Tcp {
                return Err(unsupported(at.field("protocol"), "UDP"));
            }
            let port = match socket.port_specifier {
                Some(core::socket_address::PortSpecifier::PortValue(value)) => port(at.field("port_value"), value)?,
                Some(core::socket_address::PortSpecifier::NamedPort(_)) => {
                    return Err(unsupported(at.field("named_port"), "a named port"));
                }
                None => 0,
            };
            Ok(RawAddress::Socket(socket.address, port))
        }
        Some(core::address::Address::Pipe(pipe)) => Ok(RawAddress::Pipe(pipe.path)),
        Some(core::address::Address::EnvoyInternalAddress(_)) => Err(unsupported(at, "an internal listener's address")),
        None => Err(missing(at)),
    }
}

pub(super) fn socket_address(at: At<'_>, address: Option<core::Address>) -> Result<SocketAddr> {
    match raw_address(at, address)? {
        RawAddress::Socket(host, port) => Ok(SocketAddr::new(ip(at.field("address"), &host)?, port)),
        RawAddress::Pipe(_) => Err(unsupported(at, "a Unix socket")),
    }
}

pub(super) fn networks(at: At<'_>, ranges: &[core::CidrRange]) -> Result<Box<[IpNet]>> {
    ranges
        .iter()
        .map(|range| {
            let address = ip(at, &range.address_prefix)?;
            let full = if address.is_ipv4() { 32 } else { 128 };
            let length = number(range.prefix_len).unwrap_or(0).min(full);
            u8::try_from(length)
                .ok()
                .and_then(|length| IpNet::new(address, length).ok())
                .map(|net| net.trunc())
                .ok_or_else(|| out_of_range(at, length, "a prefix length that fits the address"))
        })
        .collect()
}

/// Shares equal texts of one resource: workloads and labels repeat from endpoint to endpoint.
#[derive(Default)]
pub(super) struct Texts(BTreeSet<Arc<str>>);

impl Texts {
    pub(super) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.0.get(text) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = text.into();
        self.0.insert(Arc::clone(&shared));
        shared
    }
}

/// The text of a field of a struct.
pub(super) fn struct_text<'a>(fields: &'a protobuf::Struct, name: &str) -> Option<&'a str> {
    match fields.fields.get(name)?.kind.as_ref()? {
        protobuf::value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}
