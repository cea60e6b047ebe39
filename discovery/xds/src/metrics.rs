//! What the streams count. Names are those of Istio's control plane, so that existing boards show them.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::resource::ResourceType;

/// `type="cds"` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    r#type: TypeValue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the label's values are lower-case in use")]
enum TypeValue {
    cds,
    eds,
    lds,
    rds,
    vhds,
    unknown,
}

impl From<Option<ResourceType>> for TypeLabel {
    fn from(kind: Option<ResourceType>) -> Self {
        let r#type = match kind {
            Some(ResourceType::Cluster) => TypeValue::cds,
            Some(ResourceType::Endpoint) => TypeValue::eds,
            Some(ResourceType::Listener) => TypeValue::lds,
            Some(ResourceType::Route) => TypeValue::rds,
            Some(ResourceType::VirtualHost) => TypeValue::vhds,
            None => TypeValue::unknown,
        };
        Self { r#type }
    }
}

/// The meters of all streams together. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) streams: Gauge,
    // Existing boards ask for these names without the suffix `_total`, which a counter here would always carry.
    pub(crate) pushes: Family<TypeLabel, Gauge>,
    pub(crate) rejects: Family<TypeLabel, Gauge>,
    pub(crate) bytes: Family<TypeLabel, Counter>,
    pub(crate) push_delay: Histogram,
    pub(crate) convergence: Histogram,
    pub(crate) refused: Counter,
    pub(crate) waited: Counter,
}

impl Metrics {
    /// Registers the meters.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 30.0]);
        let metrics = Self {
            streams: Gauge::default(),
            pushes: Family::default(),
            rejects: Family::default(),
            bytes: Family::default(),
            push_delay: seconds(),
            convergence: seconds(),
            refused: Counter::default(),
            waited: Counter::default(),
        };
        registry.register("pilot_xds", "Proxies connected over xDS", metrics.streams.clone());
        registry.register(
            "pilot_xds_pushes",
            "xDS responses sent, by type",
            metrics.pushes.clone(),
        );
        registry.register(
            "pilot_total_xds_rejects",
            "xDS responses that proxies rejected, by type",
            metrics.rejects.clone(),
        );
        registry.register(
            "mizzen_xds_sent_bytes",
            "Bytes of xDS responses sent, by type",
            metrics.bytes.clone(),
        );
        registry.register(
            "pilot_xds_push_time",
            "Seconds from a change in Kubernetes to the response that carries it",
            metrics.push_delay.clone(),
        );
        registry.register(
            "pilot_proxy_convergence_time",
            "Seconds from a change in Kubernetes to the proxy's acknowledgement",
            metrics.convergence.clone(),
        );
        registry.register(
            "mizzen_xds_refused_streams",
            "Streams ended for breaking a limit",
            metrics.refused.clone(),
        );
        registry.register(
            "mizzen_xds_waited_responses",
            "Responses that waited for the shared send budget",
            metrics.waited.clone(),
        );
        metrics
    }
}
