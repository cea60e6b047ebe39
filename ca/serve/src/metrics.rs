//! What the CA counts.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How a signing request ended. `reason` comes from closed enums.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    pub(crate) outcome: Verdict,
    pub(crate) reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "label values are lower case")]
pub(crate) enum Verdict {
    issued,
    refused,
}

/// The CA's metrics; cheap to clone, all clones count together.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: Family<Outcome, Counter>,
    pub(crate) token_reviews: Family<Outcome, Counter>,
    pub(crate) root_expiry: Gauge,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mizzen_ca_requests",
            "Signing requests by how they ended",
            self.requests.clone(),
        );
        registry.register(
            "mizzen_ca_token_reviews",
            "Service account tokens that were shown to the API server",
            self.token_reviews.clone(),
        );
        registry.register(
            "citadel_server_root_cert_expiry_timestamp",
            "When the CA's signing certificate ends, in seconds since 1970",
            self.root_expiry.clone(),
        );
    }

    pub(crate) fn issued(&self) {
        self.requests
            .get_or_create(&Outcome {
                outcome: Verdict::issued,
                reason: "",
            })
            .inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.requests
            .get_or_create(&Outcome {
                outcome: Verdict::refused,
                reason,
            })
            .inc();
    }
}
