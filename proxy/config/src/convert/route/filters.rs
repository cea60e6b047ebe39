//! Settings of filters in routes and virtual hosts: faults and cross-origin checks.

use crate::convert::Result;
use crate::convert::fields::{
    duration, extension, flag, fraction, missing, number, status, unknown_extension, unsupported,
};
use crate::convert::matchers::{header_matches, string_match};
use crate::error::At;
use crate::matcher::StringMatch;
use crate::route::{Abort, AbortWith, Cors, Delay, Fault, Fraction};
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::{common::fault::v3 as delay_pb, http as filter_pb};
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use envoy_types::pb::google::protobuf::Any;
use std::collections::HashMap;
use std::sync::Arc;

/// Settings of filters in a route or virtual host.
#[derive(Default)]
pub(in crate::convert) struct FilterConfigs {
    pub(in crate::convert) fault: Option<Arc<Fault>>,
    pub(in crate::convert) cors: Option<Arc<Cors>>,
}

/// What we do not know may be a policy: it is refused unless it is marked optional.
pub(in crate::convert) fn filter_configs(at: At<'_>, raw: &HashMap<String, Any>) -> Result<FilterConfigs> {
    let mut configs = FilterConfigs::default();
    for (name, any) in raw {
        let at = at.named("typed_per_filter_config", name);
        let wrapper = extension::<pb::FilterConfig>(at, any)?;
        let (any, optional) = match wrapper.as_ref() {
            Some(wrapper) if wrapper.disabled => continue,
            Some(wrapper) => match wrapper.config.as_ref() {
                Some(inner) => (inner, wrapper.is_optional),
                None => continue,
            },
            None => (any, false),
        };
        if let Some(raw) = extension::<filter_pb::fault::v3::HttpFault>(at, any)? {
            configs.fault = Some(Arc::new(fault(at, &raw)?));
        } else if let Some(raw) = extension::<filter_pb::cors::v3::CorsPolicy>(at, any)? {
            configs.cors = Some(Arc::new(cors(at, &raw)?));
        } else if !optional {
            return Err(unknown_extension(at, &any.type_url));
        }
    }
    Ok(configs)
}

fn fault(at: At<'_>, raw: &filter_pb::fault::v3::HttpFault) -> Result<Fault> {
    use filter_pb::fault::v3::fault_abort::ErrorType;
    if raw.response_rate_limit.is_some() || !raw.upstream_cluster.is_empty() || !raw.downstream_nodes.is_empty() {
        return Err(unsupported(at, "a fault by rate, upstream cluster or downstream node"));
    }
    const NONE: Fraction = Fraction {
        numerator: 0,
        denominator: 100,
    };
    let delay = match raw.delay.as_ref() {
        None => None,
        Some(delay) => {
            let at = at.field("delay");
            let Some(delay_pb::fault_delay::FaultDelaySecifier::FixedDelay(time)) = delay.fault_delay_secifier else {
                return Err(unsupported(at, "a delay told by a header"));
            };
            let time = duration(at.field("fixed_delay"), Some(time))?.unwrap_or_default();
            Some(Delay {
                time,
                fraction: fraction(delay.percentage, NONE),
            })
        }
    };
    let abort = match raw.abort.as_ref() {
        None => None,
        Some(abort) => {
            let at = at.field("abort");
            let with = match abort.error_type.as_ref() {
                Some(ErrorType::HttpStatus(code)) => AbortWith::Http(status(at.field("http_status"), *code)?),
                Some(ErrorType::GrpcStatus(code)) => AbortWith::Grpc(*code),
                Some(ErrorType::HeaderAbort(_)) => return Err(unsupported(at, "an abort told by a header")),
                None => return Err(missing(at.field("error_type"))),
            };
            Some(Abort {
                with,
                fraction: fraction(abort.percentage, NONE),
            })
        }
    };
    Ok(Fault {
        delay,
        abort,
        headers: header_matches(at, &raw.headers)?,
        max_active: number(raw.max_active_faults),
    })
}

fn cors(at: At<'_>, raw: &filter_pb::cors::v3::CorsPolicy) -> Result<Cors> {
    Ok(Cors {
        allow_origins: origins(at, &raw.allow_origin_string_match)?,
        allow_methods: raw.allow_methods.as_str().into(),
        allow_headers: raw.allow_headers.as_str().into(),
        expose_headers: raw.expose_headers.as_str().into(),
        max_age: raw.max_age.as_str().into(),
        allow_credentials: flag(raw.allow_credentials, false),
        forward_not_matching: flag(raw.forward_not_matching_preflights, true),
    })
}

pub(in crate::convert) fn old_cors(at: At<'_>, raw: &pb::CorsPolicy) -> Result<Cors> {
    Ok(Cors {
        allow_origins: origins(at, &raw.allow_origin_string_match)?,
        allow_methods: raw.allow_methods.as_str().into(),
        allow_headers: raw.allow_headers.as_str().into(),
        expose_headers: raw.expose_headers.as_str().into(),
        max_age: raw.max_age.as_str().into(),
        allow_credentials: flag(raw.allow_credentials, false),
        forward_not_matching: flag(raw.forward_not_matching_preflights, true),
    })
}

fn origins(at: At<'_>, raw: &[matcher_pb::StringMatcher]) -> Result<Box<[StringMatch]>> {
    raw.iter()
        .enumerate()
        .map(|(i, matcher)| string_match(at.index("allow_origin_string_match", i), matcher))
        .collect()
}
