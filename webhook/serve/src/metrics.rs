//! What the webhooks count.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// `path` is one of the served paths, `allowed` true or false, `category` from the closed enums of the review.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    path: &'static str,
    allowed: &'static str,
    category: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Path {
    path: &'static str,
}

/// Cheap to clone; clones count together.
#[derive(Clone)]
pub(crate) struct Metrics {
    admissions: Family<Outcome, Counter>,
    duration: Family<Path, Histogram>,
    in_flight: Gauge,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            admissions: Family::default(),
            // 50 µs to 1.6 s: an injection takes a few hundred microseconds, a question to the API server milliseconds.
            duration: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_05, 2.0, 16))),
            in_flight: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("mizzen_webhook");
        registry.register(
            "admissions",
            "Admission reviews by path and how they ended",
            metrics.admissions.clone(),
        );
        registry.register_with_unit(
            "duration",
            "Time from the whole request to the answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "in_flight",
            "Admission reviews being worked on",
            metrics.in_flight.clone(),
        );
        metrics
    }

    pub(crate) fn start(&self) {
        self.in_flight.inc();
    }

    pub(crate) fn end(&self, path: &'static str, allowed: bool, category: &'static str, took: Duration) {
        self.in_flight.dec();
        let allowed = if allowed { "true" } else { "false" };
        self.admissions
            .get_or_create(&Outcome {
                path,
                allowed,
                category,
            })
            .inc();
        self.duration.get_or_create(&Path { path }).observe(took.as_secs_f64());
    }
}
