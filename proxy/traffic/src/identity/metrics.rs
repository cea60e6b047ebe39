//! How obtaining certificates goes.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
    reason: &'static str,
}

/// Counters of certificate requests, and when the current certificate ends.
#[derive(Debug, Default)]
pub struct IdentityMetrics {
    requests: Family<Result, Counter>,
    expiry: Gauge<f64, AtomicU64>,
}

impl IdentityMetrics {
    /// Makes them part of what is scraped.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "mizzen_certificate_requests",
            "Certificate requests to the CA by result",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "mizzen_certificate_expiry_timestamp",
            "When the workload's certificate expires, in seconds since 1970",
            Unit::Seconds,
            self.expiry.clone(),
        );
    }

    /// Certificates obtained so far.
    pub fn obtained_count(&self) -> u64 {
        self.requests
            .get_or_create(&Result {
                result: "success",
                reason: "",
            })
            .get()
    }

    pub(super) fn obtained(&self, not_after: SystemTime) {
        self.requests
            .get_or_create(&Result {
                result: "success",
                reason: "",
            })
            .inc();
        let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.expiry.set(seconds.as_secs_f64());
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.requests
            .get_or_create(&Result {
                result: "failure",
                reason,
            })
            .inc();
    }
}
