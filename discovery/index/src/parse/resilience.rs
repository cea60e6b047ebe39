//! What an HTTP rule does when things go wrong, or so that they do: retries and faults.

use std::sync::Arc;

use mizzen_crds::networking::virtual_service as vs;
use mizzen_model::{Abort, AbortStatus, Delay, Fault, Percent, RetryPolicy};

use super::http_action::status;
use crate::error::{Caution, Reason};
use crate::reader::Reader;

/// The conditions of a retry that Envoy knows, for HTTP and gRPC.
const RETRY_ON: [&str; 17] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "unknown",
];

pub(super) fn retries(r: &mut Reader<'_>, raw: &vs::HttpRetry) -> RetryPolicy {
    let attempts = r.count("attempts", raw.attempts).unwrap_or(0);
    let says_more = raw.per_try_timeout.is_some() || raw.retry_on.is_some() || raw.retry_remote_localities.is_some();
    if attempts == 0 && says_more && raw.attempts.is_none_or(|attempts| attempts == 0) {
        r.refuse_at(
            "attempts",
            Reason::Missing {
                remedy: "write how often to try again, or remove the other retry settings",
            },
        );
    }
    let default = RetryPolicy::default();
    let (retry_on, status_codes) = match raw.retry_on.as_deref().filter(|text| !text.trim().is_empty()) {
        Some(text) => retry_on(r, text),
        None => (default.retry_on, default.status_codes),
    };
    RetryPolicy {
        attempts,
        per_try_timeout: r.duration("perTryTimeout", raw.per_try_timeout.as_ref()),
        retry_on,
        status_codes,
        other_localities: raw.retry_remote_localities.unwrap_or(false),
        other_hosts: raw.retry_ignore_previous_hosts.unwrap_or(true),
        backoff: r.duration("backoff", raw.backoff.as_ref()),
    }
}

/// Conditions by name, and statuses by number.
pub(super) fn retry_on(r: &mut Reader<'_>, text: &str) -> (Arc<str>, Vec<u16>) {
    let mut names: Vec<&str> = Vec::new();
    let mut statuses = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if let Ok(number) = part.parse::<u16>() {
            if (100..=599).contains(&number) {
                statuses.push(number);
            } else {
                r.refuse_at(
                    "retryOn",
                    Reason::Range {
                        number: number.to_string(),
                        range: "a status from 100 to 599",
                    },
                );
            }
        } else if RETRY_ON.contains(&part) {
            names.push(part);
        } else {
            let allowed =
                "names such as 5xx, gateway-error, reset, connect-failure, refused-stream, unavailable, or statuses";
            r.refuse_at(
                "retryOn",
                Reason::Unknown {
                    text: part.to_owned(),
                    allowed,
                },
            );
        }
    }
    if !statuses.is_empty() && !names.contains(&"retriable-status-codes") {
        names.push("retriable-status-codes");
    }
    statuses.sort_unstable();
    statuses.dedup();
    (Arc::from(names.join(",")), statuses)
}

pub(super) fn fault(r: &mut Reader<'_>, raw: &vs::HttpFaultInjection) -> Fault {
    if raw.delay.is_none() && raw.abort.is_none() {
        r.refuse(Reason::Missing {
            remedy: "write delay, abort or both",
        });
    }
    let delay = raw
        .delay
        .as_ref()
        .and_then(|delay| r.inside("delay", |r| fault_delay(r, delay)));
    let abort = raw
        .abort
        .as_ref()
        .and_then(|abort| r.inside("abort", |r| fault_abort(r, abort)));
    Fault { delay, abort }
}

fn fault_delay(r: &mut Reader<'_>, raw: &vs::FaultDelay) -> Option<Delay> {
    let whole = r.percentage("percent", raw.percent);
    if raw.percent.is_some() {
        r.caution(
            "percent",
            &Caution::Deprecated {
                modern: "percentage.value",
            },
        );
    }
    let percent = match &raw.percentage {
        Some(percentage) => percent(r, "percentage", Some(percentage), Percent::default()),
        None => whole
            .and_then(|whole| Percent::new(f64::from(whole)))
            .unwrap_or_default(),
    };
    if raw.exponential_delay.is_some() {
        let text = "exponentialDelay".to_owned();
        r.refuse_at(
            "exponentialDelay",
            Reason::Unknown {
                text,
                allowed: "fixedDelay",
            },
        );
        return None;
    }
    if raw.fixed_delay.is_none() {
        r.refuse_at(
            "fixedDelay",
            Reason::Missing {
                remedy: "write how long to delay",
            },
        );
    }
    let duration = r.duration("fixedDelay", raw.fixed_delay.as_ref())?;
    Some(Delay { duration, percent })
}

fn fault_abort(r: &mut Reader<'_>, raw: &vs::FaultAbort) -> Option<Abort> {
    let percent = percent(r, "percentage", raw.percentage.as_ref(), Percent::default());
    if raw.http2_error.is_some() {
        let text = "http2Error".to_owned();
        r.refuse_at(
            "http2Error",
            Reason::Unknown {
                text,
                allowed: "httpStatus or grpcStatus",
            },
        );
    }
    let status = match (raw.http_status, &raw.grpc_status) {
        (Some(_), Some(_)) => {
            r.refuse_at(
                "grpcStatus",
                Reason::Excludes {
                    this: "grpcStatus",
                    other: "httpStatus",
                },
            );
            None
        }
        (Some(number), None) => status(r, "httpStatus", i64::from(number)).map(AbortStatus::Http),
        (None, Some(name)) => {
            let code = grpc_status(name);
            if code.is_none() {
                let allowed = "a gRPC status such as UNAVAILABLE, or its number from 0 to 16";
                r.refuse_at(
                    "grpcStatus",
                    Reason::Unknown {
                        text: name.clone(),
                        allowed,
                    },
                );
            }
            code.map(AbortStatus::Grpc)
        }
        (None, None) => {
            if raw.http2_error.is_none() {
                r.refuse(Reason::Missing {
                    remedy: "write httpStatus or grpcStatus",
                });
            }
            None
        }
    };
    Some(Abort {
        status: status?,
        percent,
    })
}

/// The statuses of gRPC, by number.
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn grpc_status(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return (number <= 16).then_some(number);
    }
    let position = GRPC_STATUSES.iter().position(|name| *name == text)?;
    u32::try_from(position).ok()
}

pub(super) fn percent(r: &mut Reader<'_>, field: &str, raw: Option<&vs::Percent>, absent: Percent) -> Percent {
    let Some(raw) = raw else { return absent };
    let value = raw.value.unwrap_or(0.0);
    Percent::new(value).unwrap_or_else(|| {
        let reason = Reason::Range {
            number: value.to_string(),
            range: "0 to 100",
        };
        r.refuse_at(&format!("{field}.value"), reason);
        absent
    })
}
