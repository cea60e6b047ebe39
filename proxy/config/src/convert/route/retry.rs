//! Retry policies.

use crate::convert::Result;
use crate::convert::fields::{is_extension, limit, number, status, unknown_extension, unsupported};
use crate::convert::matchers::header_matches;
use crate::error::At;
use crate::route::{RetryOn, RetryPolicy};
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default first pause before a retry.
const BACKOFF: Duration = Duration::from_millis(25);

/// A retry policy; none without conditions or tries.
pub(in crate::convert) fn retry(at: At<'_>, raw: Option<&pb::RetryPolicy>) -> Result<Option<Arc<RetryPolicy>>> {
    let Some(raw) = raw else { return Ok(None) };
    let at = at.field("retry_policy");
    if raw.retry_priority.is_some() || raw.rate_limited_retry_back_off.is_some() {
        return Err(unsupported(at, "a retry priority or a back-off told by the upstream"));
    }
    let mut avoid_previous = false;
    for predicate in &raw.retry_host_predicate {
        let at = at.field("retry_host_predicate");
        match predicate.config_type.as_ref() {
            Some(pb::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any))
                if is_extension::<PreviousHostsPredicate>(any) =>
            {
                avoid_previous = true;
            }
            None if predicate.name == "envoy.retry_host_predicates.previous_hosts" => avoid_previous = true,
            Some(pb::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any)) => {
                return Err(unknown_extension(at, &any.type_url));
            }
            None => return Err(unknown_extension(at, &predicate.name)),
        }
    }
    let mut statuses = raw
        .retriable_status_codes
        .iter()
        .map(|code| status(at.field("retriable_status_codes"), *code))
        .collect::<Result<Vec<_>>>()?;
    statuses.sort_unstable();
    statuses.dedup();
    let back_off = raw.retry_back_off.unwrap_or_default();
    let base = limit(at.field("base_interval"), back_off.base_interval, None)?.unwrap_or(BACKOFF);
    let max = limit(at.field("max_interval"), back_off.max_interval, None)?;
    Ok(Some(Arc::new(RetryPolicy {
        on: retry_on(&raw.retry_on),
        statuses: statuses.into(),
        response_headers: header_matches(at.field("retriable_headers"), &raw.retriable_headers)?,
        request_headers: header_matches(at.field("retriable_request_headers"), &raw.retriable_request_headers)?,
        retries: number(raw.num_retries).unwrap_or(1),
        per_try_timeout: limit(at.field("per_try_timeout"), raw.per_try_timeout, None)?,
        per_try_idle_timeout: limit(at.field("per_try_idle_timeout"), raw.per_try_idle_timeout, None)?,
        backoff_base: base,
        backoff_max: max.unwrap_or(base.saturating_mul(10)).max(base),
        avoid_previous,
        host_draws: u32::try_from(raw.host_selection_retry_max_attempts)
            .unwrap_or(0)
            .clamp(1, 64),
    })))
}

/// Conditions by name; unknown ones are left out, as Envoy does: to retry less is safe.
fn retry_on(text: &str) -> RetryOn {
    text.split(',').fold(RetryOn::default(), |on, word| {
        on.with(match word.trim() {
            "5xx" => RetryOn::FIVE_XX,
            "gateway-error" => RetryOn::GATEWAY_ERROR,
            "reset" => RetryOn::RESET,
            "reset-before-request" => RetryOn::RESET_BEFORE_REQUEST,
            "connect-failure" => RetryOn::CONNECT_FAILURE,
            "refused-stream" => RetryOn::REFUSED_STREAM,
            "retriable-4xx" => RetryOn::RETRIABLE_4XX,
            "retriable-status-codes" => RetryOn::STATUS_CODES,
            "retriable-headers" => RetryOn::HEADERS,
            "envoy-ratelimited" => RetryOn::RATE_LIMITED,
            "cancelled" => RetryOn::GRPC_CANCELLED,
            "deadline-exceeded" => RetryOn::GRPC_DEADLINE_EXCEEDED,
            "internal" => RetryOn::GRPC_INTERNAL,
            "resource-exhausted" => RetryOn::GRPC_RESOURCE_EXHAUSTED,
            "unavailable" => RetryOn::GRPC_UNAVAILABLE,
            _ => RetryOn::default(),
        })
    })
}
