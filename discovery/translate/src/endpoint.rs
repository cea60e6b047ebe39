//! The addresses behind outbound clusters.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use mizzen_model::{Endpoint, EndpointHealth, Labels, Locality};

use crate::name::ClusterName;
use crate::proto::{address, metadata, number, text};
use crate::view::View;

/// The endpoints of a cluster, by locality; none if it has none by its kind, an empty list if it has none now.
pub(crate) fn endpoints(view: &View<'_>, name: &ClusterName) -> Option<endpoint::ClusterLoadAssignment> {
    let ClusterName::Outbound {
        port,
        subset,
        host,
        bytes: false,
    } = name
    else {
        return None;
    };
    let service = view.service(host)?;
    service.port(*port).filter(|port| port.protocol.is_carried())?;
    let everything = Labels::default();
    let wanted = match subset {
        None => &everything,
        Some(subset) => &view.rules(host).subset(subset)?.labels,
    };
    let mut localities: BTreeMap<&Locality, Vec<endpoint::LbEndpoint>> = BTreeMap::new();
    for found in view.mesh.endpoints(host).iter().flat_map(|endpoints| endpoints.iter()) {
        let Some(target) = found.ports.get(port) else { continue };
        if found.health != EndpointHealth::NotReady && wanted.selects(&found.labels) {
            localities
                .entry(&found.locality)
                .or_default()
                .push(lb_endpoint(view, found, *target));
        }
    }
    Some(endpoint::ClusterLoadAssignment {
        cluster_name: name.to_string(),
        endpoints: localities
            .into_iter()
            .map(|(locality, endpoints)| group(locality, endpoints))
            .collect(),
        ..Default::default()
    })
}

fn group(locality: &Locality, endpoints: Vec<endpoint::LbEndpoint>) -> endpoint::LocalityLbEndpoints {
    endpoint::LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: locality.region.to_string(),
            zone: locality.zone.to_string(),
            sub_zone: locality.subzone.to_string(),
        }),
        load_balancing_weight: number(u32::try_from(endpoints.len()).unwrap_or(u32::MAX)),
        lb_endpoints: endpoints,
        ..Default::default()
    }
}

fn lb_endpoint(view: &View<'_>, found: &Endpoint, port: u16) -> endpoint::LbEndpoint {
    let mut about = Vec::new();
    if view.mesh.takes_mtls(found, port) {
        about.push(("envoy.transport_socket_match", vec![("tlsMode", text("istio"))]));
    }
    let workload = format!(
        "{};{};{};{};{}",
        found.workload.as_ref().map_or("", |name| name.as_str()),
        found.namespace,
        found.canonical_name,
        found.canonical_revision,
        view.config().cluster_id,
    );
    about.push(("istio", vec![("workload", text(workload))]));
    let health = match found.health {
        EndpointHealth::Ready | EndpointHealth::NotReady => core::HealthStatus::Healthy,
        EndpointHealth::Draining => core::HealthStatus::Draining,
    };
    endpoint::LbEndpoint {
        health_status: health.into(),
        metadata: metadata(about),
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: address(found.address, port),
            ..Default::default()
        })),
        ..Default::default()
    }
}
