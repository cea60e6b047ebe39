//! Nodes: where pods run.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use mizzen_model::Locality;

/// The locality of a node, by its labels.
pub(crate) fn locality(raw: &core::Node) -> Locality {
    let label = |keys: [&str; 2]| {
        let labels = raw.metadata.labels.as_ref();
        let value = keys.iter().find_map(|key| labels.and_then(|labels| labels.get(*key)));
        Arc::from(value.map_or("", String::as_str))
    };
    Locality {
        region: label([
            "topology.kubernetes.io/region",
            "failure-domain.beta.kubernetes.io/region",
        ]),
        zone: label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
        subzone: label(["topology.istio.io/subzone", "topology.istio.io/subzone"]),
    }
}
