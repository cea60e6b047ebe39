//! What discovery counts beside its streams.

use std::time::Duration;

use mizzen_model::{Kind, Mesh};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: KindValue,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct KindValue(Kind);

impl EncodeLabelValue for KindValue {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_str().encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// How a status write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "label values are lower-case")]
pub(crate) enum Outcome {
    written,
    unchanged,
    failed,
}

/// The meters. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    events: Family<KindLabel, Counter>,
    states: Counter,
    changes: Counter,
    services: Gauge,
    workloads: Gauge,
    virtual_services: Gauge,
    index_time: Histogram,
    status: Family<OutcomeLabel, Counter>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            events: Family::default(),
            states: Counter::default(),
            changes: Counter::default(),
            services: Gauge::default(),
            workloads: Gauge::default(),
            virtual_services: Gauge::default(),
            index_time: Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0]),
            status: Family::default(),
        };
        registry.register(
            "pilot_k8s_reg_events",
            "Events from Kubernetes, by kind",
            metrics.events.clone(),
        );
        registry.register(
            "mizzen_mesh_states",
            "States of the mesh that were published",
            metrics.states.clone(),
        );
        registry.register(
            "mizzen_mesh_changes",
            "Changes of the mesh that were published",
            metrics.changes.clone(),
        );
        registry.register("pilot_services", "Services in the mesh", metrics.services.clone());
        registry.register("mizzen_workloads", "Pods in the mesh", metrics.workloads.clone());
        registry.register(
            "pilot_virt_services",
            "VirtualServices in the mesh",
            metrics.virtual_services.clone(),
        );
        registry.register(
            "mizzen_mesh_publish_seconds",
            "Seconds from an event to the state of the mesh that holds it",
            metrics.index_time.clone(),
        );
        registry.register(
            "mizzen_status_writes",
            "Conditions of users' objects, by outcome",
            metrics.status.clone(),
        );
        metrics
    }

    pub(crate) fn event(&self, kind: Kind) {
        self.events.get_or_create(&KindLabel { kind: KindValue(kind) }).inc();
    }

    pub(crate) fn published(&self, mesh: &Mesh, changes: usize, took: Duration) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.states.inc();
        self.changes.inc_by(changes as u64);
        self.services.set(count(mesh.services().count()));
        self.workloads.set(count(mesh.workloads().count()));
        self.virtual_services.set(count(mesh.virtual_services().count()));
        self.index_time.observe(took.as_secs_f64());
    }

    pub(crate) fn status(&self, outcome: Outcome) {
        self.status.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}
