//! Faults made on purpose.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Percent;
use crate::DurationText;

/// Delays or errors made on purpose.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpFaultInjection {
    /// Delays requests before they are forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// Answers requests with an error instead of forwarding them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
}

/// A delay.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-mizzen-at-most-one-of" = [["fixedDelay", "exponentialDelay"]]))]
pub struct FaultDelay {
    /// The share of requests in whole percent. Use percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i32>,
    /// How long each is delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_delay: Option<DurationText>,
    /// Reserved; no proxy does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponential_delay: Option<DurationText>,
    /// The share of requests; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
}

/// An error.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-mizzen-at-most-one-of" = [["httpStatus", "grpcStatus", "http2Error"]]))]
pub struct FaultAbort {
    /// The HTTP status, from 200 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<i32>,
    /// The gRPC status by name, for instance `UNAVAILABLE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<String>,
    /// Reserved; no proxy does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2_error: Option<String>,
    /// The share of requests; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
}
