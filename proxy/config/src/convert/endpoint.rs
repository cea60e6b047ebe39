//! Cluster load assignments.

use super::Result;
use super::fields::{RawAddress, Texts, missing, number, out_of_range, raw_address, struct_text, unsupported};
use crate::endpoint::{Endpoint, EndpointAddress, EndpointSet, Health, Locality, WorkloadRef};
use crate::error::{At, Problems};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

type Label = (Arc<str>, Arc<str>);
type Labels = Arc<[Label]>;

/// Envoy's default overprovisioning factor, percent.
const OVERPROVISIONING: u32 = 140;

pub(super) fn endpoint_set(
    at: &At<'_>,
    set: pb::ClusterLoadAssignment,
    _problems: &mut Problems,
) -> Result<EndpointSet> {
    let mut shared = Shared::default();
    let mut endpoints = Vec::with_capacity(set.endpoints.iter().map(|locality| locality.lb_endpoints.len()).sum());
    let mut localities = Vec::with_capacity(set.endpoints.len());
    for (i, group) in set.endpoints.into_iter().enumerate() {
        let at = at.index("endpoints", i);
        if group.lb_config.is_some() {
            return Err(unsupported(at.field("lb_config"), "endpoints by another discovery"));
        }
        let priority = u8::try_from(group.priority)
            .ok()
            .filter(|priority| *priority < 128)
            .ok_or_else(|| out_of_range(at.field("priority"), group.priority, "0 to 127"))?;
        let position = u16::try_from(i).map_err(|_| out_of_range(at, i, "at most 65536 localities"))?;
        let locality = group.locality.unwrap_or_default();
        localities.push(Locality {
            region: shared.texts.share(&locality.region),
            zone: shared.texts.share(&locality.zone),
            sub_zone: shared.texts.share(&locality.sub_zone),
            weight: number(group.load_balancing_weight),
            priority,
        });
        for (j, endpoint) in group.lb_endpoints.into_iter().enumerate() {
            endpoints.push(convert(
                at.index("lb_endpoints", j),
                endpoint,
                position,
                priority,
                &mut shared,
            )?);
        }
    }
    let policy = set.policy.unwrap_or_default();
    Ok(EndpointSet {
        name: set.cluster_name.into(),
        endpoints: endpoints.into(),
        localities: localities.into(),
        overprovisioning: number(policy.overprovisioning_factor)
            .unwrap_or(OVERPROVISIONING)
            .max(100),
    })
}

/// What endpoints of one set have in common, kept once.
#[derive(Default)]
struct Shared {
    texts: Texts,
    labels: BTreeMap<Vec<Label>, Labels>,
    workloads: BTreeMap<String, Arc<WorkloadRef>>,
}

impl Shared {
    fn socket_labels(&mut self, at: At<'_>, metadata: &core::Metadata) -> Result<Labels> {
        use envoy_types::pb::google::protobuf::value::Kind;
        let mut labels = Vec::new();
        if let Some(fields) = metadata.filter_metadata.get("envoy.transport_socket_match") {
            for (name, value) in &fields.fields {
                match value.kind.as_ref() {
                    Some(Kind::StringValue(text)) => labels.push((self.texts.share(name), self.texts.share(text))),
                    // Dropping a label could turn mutual TLS into plain text.
                    _ => {
                        return Err(unsupported(
                            at.named("transport_socket_match", name),
                            "a label that is not text",
                        ));
                    }
                }
            }
        }
        labels.sort();
        if let Some(shared) = self.labels.get(&labels) {
            return Ok(Arc::clone(shared));
        }
        let shared: Labels = labels.clone().into();
        self.labels.insert(labels, Arc::clone(&shared));
        Ok(shared)
    }

    fn workload(&mut self, metadata: &core::Metadata) -> Option<Arc<WorkloadRef>> {
        let text = struct_text(metadata.filter_metadata.get("istio")?, "workload")?;
        if let Some(shared) = self.workloads.get(text) {
            return Some(Arc::clone(shared));
        }
        let mut parts = text.split(';');
        let mut part = || self.texts.share(parts.next().unwrap_or_default());
        let workload = Arc::new(WorkloadRef {
            name: part(),
            namespace: part(),
            canonical_name: part(),
            canonical_revision: part(),
            cluster: part(),
        });
        self.workloads.insert(text.to_owned(), Arc::clone(&workload));
        Some(workload)
    }
}

fn convert(at: At<'_>, raw: pb::LbEndpoint, locality: u16, priority: u8, shared: &mut Shared) -> Result<Endpoint> {
    let health = match raw.health_status() {
        core::HealthStatus::Unknown | core::HealthStatus::Healthy => Health::Healthy,
        core::HealthStatus::Degraded => Health::Degraded,
        core::HealthStatus::Draining => Health::Draining,
        core::HealthStatus::Unhealthy | core::HealthStatus::Timeout => Health::Unhealthy,
    };
    let endpoint = match raw.host_identifier {
        Some(pb::lb_endpoint::HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(pb::lb_endpoint::HostIdentifier::EndpointName(_)) => {
            return Err(unsupported(at.field("endpoint_name"), "a named endpoint"));
        }
        None => return Err(missing(at.field("endpoint"))),
    };
    let metadata = raw.metadata.unwrap_or_default();
    let address = match raw_address(at.field("endpoint").field("address"), endpoint.address)? {
        RawAddress::Socket(host, port) => match host.parse() {
            Ok(ip) => EndpointAddress::Ip(SocketAddr::new(ip, port)),
            Err(_) => EndpointAddress::Name(shared.texts.share(&host), port),
        },
        RawAddress::Pipe(path) => EndpointAddress::Pipe(path.into()),
    };
    Ok(Endpoint {
        address,
        weight: number(raw.load_balancing_weight).unwrap_or(1).max(1),
        health,
        locality,
        priority,
        socket_labels: shared.socket_labels(at.field("metadata"), &metadata)?,
        hostname: shared.texts.share(&endpoint.hostname),
        workload: shared.workload(&metadata),
    })
}
