//! Small pieces of messages.

use std::collections::HashMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3 as types;
use envoy_types::pb::google::protobuf::{
    Any, BoolValue, Duration, ListValue, Struct, UInt32Value, UInt64Value, Value, value,
};
use envoy_types::util::pack_any;
use mizzen_model::{Pattern, Percent, StringMatch};
use prost::{Message, Name};

pub(crate) fn any<T: Name + Message>(message: T) -> Any {
    pack_any(message)
}

pub(crate) fn boolean(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(crate) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(crate) fn big(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

pub(crate) fn duration(value: std::time::Duration) -> Option<Duration> {
    // protobuf's largest duration, 10,000 years, is far below i64's range
    let seconds = i64::try_from(value.as_secs()).unwrap_or(i64::MAX).min(315_576_000_000);
    let nanos = i32::try_from(value.subsec_nanos()).unwrap_or_default();
    Some(Duration { seconds, nanos })
}

pub(crate) const ZERO: std::time::Duration = std::time::Duration::ZERO;

/// A map that is encoded in the order of its keys.
///
/// The generated types have hash maps, which are encoded in the order of their iteration; that order hangs on a random
/// seed. A new map has a new seed: it is made again until the order is right. The maps here have at most four keys, so that
/// takes 24 attempts on average at worst. (Larger ones are encoded from sorted maps of our own, see `access_log`.)
pub(crate) fn ordered<V: Clone>(entries: Vec<(&str, V)>) -> HashMap<String, V> {
    loop {
        let map: HashMap<String, V> = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        if map.keys().is_sorted() {
            return map;
        }
    }
}

pub(crate) fn text(text: impl Into<String>) -> Value {
    Value {
        kind: Some(value::Kind::StringValue(text.into())),
    }
}

pub(crate) fn numeric(number: u16) -> Value {
    Value {
        kind: Some(value::Kind::NumberValue(f64::from(number))),
    }
}

pub(crate) fn list(values: Vec<Value>) -> Value {
    Value {
        kind: Some(value::Kind::ListValue(ListValue { values })),
    }
}

pub(crate) fn object(fields: Vec<(&str, Value)>) -> Value {
    Value {
        kind: Some(value::Kind::StructValue(fields_of(fields))),
    }
}

pub(crate) fn fields_of(fields: Vec<(&str, Value)>) -> Struct {
    Struct {
        fields: ordered(fields),
    }
}

pub(crate) fn metadata(entries: Vec<(&str, Vec<(&str, Value)>)>) -> Option<core::Metadata> {
    let entries = entries
        .into_iter()
        .map(|(key, fields)| (key, fields_of(fields)))
        .collect();
    Some(core::Metadata {
        filter_metadata: ordered(entries),
        ..Default::default()
    })
}

pub(crate) fn socket_address(address: IpAddr, port: u16) -> core::SocketAddress {
    core::SocketAddress {
        address: address.to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(port))),
        ..Default::default()
    }
}

pub(crate) fn address(address: IpAddr, port: u16) -> Option<core::Address> {
    let socket = core::address::Address::SocketAddress(socket_address(address, port));
    Some(core::Address { address: Some(socket) })
}

/// From the stream that this came on. Nothing else waits for it: without a limit Envoy would go on without it.
pub(crate) fn ads() -> Option<core::ConfigSource> {
    Some(core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        initial_fetch_timeout: duration(ZERO),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource::default(),
        )),
        ..Default::default()
    })
}

pub(crate) fn regex(pattern: &Pattern) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: pattern.as_str().to_owned(),
        ..Default::default()
    }
}

pub(crate) fn string_matcher(wanted: &StringMatch, ignore_case: bool) -> matcher::StringMatcher {
    use matcher::string_matcher::MatchPattern;
    let pattern = match wanted {
        StringMatch::Exact(text) => MatchPattern::Exact(text.to_string()),
        // an empty prefix is one that Envoy refuses
        StringMatch::Prefix(text) if text.is_empty() => MatchPattern::SafeRegex(anything()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.to_string()),
        StringMatch::Regex(pattern) => MatchPattern::SafeRegex(regex(pattern)),
    };
    let ignore_case = ignore_case && !matches!(pattern, MatchPattern::SafeRegex(_));
    matcher::StringMatcher {
        ignore_case,
        match_pattern: Some(pattern),
    }
}

fn anything() -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: ".*".to_owned(),
        ..Default::default()
    }
}

pub(crate) fn exactly(text: &str) -> matcher::StringMatcher {
    let pattern = matcher::string_matcher::MatchPattern::Exact(text.to_owned());
    matcher::StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    }
}

pub(crate) fn starting_with(text: &str) -> matcher::StringMatcher {
    let pattern = matcher::string_matcher::MatchPattern::Prefix(text.to_owned());
    matcher::StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    }
}

pub(crate) fn fraction(percent: Percent) -> types::FractionalPercent {
    types::FractionalPercent {
        numerator: percent.millionths(),
        denominator: types::fractional_percent::DenominatorType::Million.into(),
    }
}

pub(crate) fn runtime_fraction(percent: Percent) -> Option<core::RuntimeFractionalPercent> {
    Some(core::RuntimeFractionalPercent {
        default_value: Some(fraction(percent)),
        ..Default::default()
    })
}
