//! The rules for gateways.

use super::runtime::component_rules;
use crate::error::Collector;
use crate::{Problem, checks};
use mizzen_crds::maistra::{GatewayConfig, GatewaysConfig};
use std::collections::BTreeSet;

const DEFAULT_GATEWAYS: [&str; 2] = ["istio-ingressgateway", "istio-egressgateway"];
const SERVICE_TYPES: [&str; 3] = ["ClusterIP", "NodePort", "LoadBalancer"];

pub(super) fn gateways_rules(gateways: &GatewaysConfig, errors: &mut Collector) {
    let mut names = BTreeSet::new();
    if let Some(ingress) = &gateways.ingress {
        gateway_rules("spec.gateways.ingress", &ingress.gateway, errors);
    }
    if let Some(egress) = &gateways.egress {
        gateway_rules("spec.gateways.egress", &egress.gateway, errors);
    }
    let ingress = gateways
        .additional_ingress
        .iter()
        .flatten()
        .map(|(name, g)| ("additionalIngress", name, &g.gateway));
    let egress = gateways
        .additional_egress
        .iter()
        .flatten()
        .map(|(name, g)| ("additionalEgress", name, &g.gateway));
    for (list, name, gateway) in ingress.chain(egress) {
        let field = format!("spec.gateways.{list}.{name}");
        errors.check(&field, checks::name(name));
        if DEFAULT_GATEWAYS.contains(&name.as_str()) {
            errors.add(&field, Problem::ReservedName(name.clone()));
        }
        if !names.insert(name) {
            errors.add(&field, Problem::Duplicate(name.clone()));
        }
        gateway_rules(&field, gateway, errors);
    }
}

fn gateway_rules(field: &str, gateway: &GatewayConfig, errors: &mut Collector) {
    if let Some(namespace) = &gateway.namespace {
        errors.check(format!("{field}.namespace"), checks::name(namespace));
    }
    if let Some(runtime) = &gateway.runtime {
        component_rules(&format!("{field}.runtime"), runtime, errors);
    }
    let service_type = gateway.service.as_ref().and_then(|s| s.spec.type_.as_ref());
    if let Some(kind) = service_type.filter(|kind| !SERVICE_TYPES.contains(&kind.as_str())) {
        let problem = Problem::UnknownValue {
            value: kind.clone(),
            allowed: "`ClusterIP`, `NodePort`, `LoadBalancer`",
        };
        errors.add(format!("{field}.service.type"), problem);
    }
    for (n, port) in gateway
        .service
        .iter()
        .flat_map(|s| s.spec.ports.iter().flatten())
        .enumerate()
    {
        errors.check(
            format!("{field}.service.ports[{n}].port"),
            checks::port(port.port.into(), 1),
        );
        if let Some(node_port) = port.node_port {
            errors.check(
                format!("{field}.service.ports[{n}].nodePort"),
                checks::port(node_port.into(), 0),
            );
        }
    }
}
