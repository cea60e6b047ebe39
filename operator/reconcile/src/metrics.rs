//! The operator's own metrics.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Which controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Controller {
    ControlPlane,
    MemberRoll,
    Member,
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    Done,
    Failed,
}

/// What was done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Wrote {
    Applied,
    Recreated,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciled {
    controller: Controller,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Written {
    write: Wrote,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Took {
    controller: Controller,
}

pub(crate) struct Metrics {
    registry: Registry,
    reconciliations: Family<Reconciled, Counter>,
    durations: Family<Took, Histogram>,
    writes: Family<Written, Counter>,
    leading: Gauge,
}

impl Metrics {
    /// Adds the operator's own metrics to those that are in `all` already.
    pub(crate) fn new(mut all: Registry) -> Self {
        let registry = all.sub_registry_with_prefix("mizzen_operator");
        let reconciliations = Family::default();
        let durations = Family::<Took, Histogram>::new_with_constructor(|| {
            // From nothing to compare to a whole mesh over a slow API server.
            Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
        });
        let writes = Family::default();
        let leading = Gauge::default();
        registry.register("reconciliations", "Reconciliations that ended", reconciliations.clone());
        registry.register_with_unit("reconciliation", "How long one took", Unit::Seconds, durations.clone());
        registry.register("writes", "Objects of meshes that were written", writes.clone());
        registry.register("leading", "1 while this replica leads", leading.clone());
        Self {
            registry: all,
            reconciliations,
            durations,
            writes,
            leading,
        }
    }

    pub(crate) fn reconciled(&self, controller: Controller, outcome: Outcome, took: Duration) {
        self.reconciliations
            .get_or_create(&Reconciled { controller, outcome })
            .inc();
        self.durations
            .get_or_create(&Took { controller })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn wrote(&self, write: Wrote) {
        self.writes.get_or_create(&Written { write }).inc();
    }

    pub(crate) fn leads(&self) {
        self.leading.set(1);
    }

    /// In OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}
