//! What single HTTP filters do otherwise on a route: faults, other origins.

use std::collections::HashMap;

use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common_fault;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;
use envoy_types::pb::google::protobuf::Any;
use mizzen_model::{Abort, AbortStatus, Cors, Fault, HttpRoute, Percent};

use crate::proto::{ZERO, any, boolean, duration, fraction, ordered, runtime_fraction, string_matcher};

/// What single filters do otherwise on this route.
pub(super) fn of(http: &HttpRoute) -> HashMap<String, Any> {
    let mut filters = Vec::new();
    if let Some(policy) = &http.cors {
        filters.push(("envoy.filters.http.cors", any(cors_policy(policy))));
    }
    if let Some(config) = http
        .fault
        .as_ref()
        .map(faults)
        .filter(|config| *config != fault::HttpFault::default())
    {
        filters.push(("envoy.filters.http.fault", any(config)));
    }
    ordered(filters)
}

fn cors_policy(wanted: &Cors) -> cors::CorsPolicy {
    let list = |names: &[std::sync::Arc<str>]| names.join(",");
    cors::CorsPolicy {
        allow_origin_string_match: wanted
            .allow_origins
            .iter()
            .map(|origin| string_matcher(origin, false))
            .collect(),
        allow_methods: list(&wanted.allow_methods),
        allow_headers: list(&wanted.allow_headers),
        expose_headers: list(&wanted.expose_headers),
        max_age: wanted.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: wanted.allow_credentials.and_then(boolean),
        filter_enabled: runtime_fraction(Percent::ALL),
        forward_not_matching_preflights: wanted.forward_unmatched_preflights.and_then(boolean),
        ..Default::default()
    }
}

fn faults(wanted: &Fault) -> fault::HttpFault {
    use common_fault::fault_delay::FaultDelaySecifier;
    use fault::fault_abort::ErrorType;
    let error = |abort: &Abort| match abort.status {
        AbortStatus::Http(status) => ErrorType::HttpStatus(u32::from(status)),
        AbortStatus::Grpc(status) => ErrorType::GrpcStatus(status),
    };
    let delay = wanted.delay.filter(|delay| delay.duration > ZERO);
    fault::HttpFault {
        delay: delay.and_then(|delay| {
            Some(common_fault::FaultDelay {
                percentage: Some(fraction(delay.percent)),
                fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(delay.duration)?)),
            })
        }),
        abort: wanted.abort.as_ref().map(|abort| fault::FaultAbort {
            percentage: Some(fraction(abort.percent)),
            error_type: Some(error(abort)),
            ..Default::default()
        }),
        ..Default::default()
    }
}
