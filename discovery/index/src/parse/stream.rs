//! TLS and TCP rules, and what they share with HTTP rules: destinations and weights.

use mizzen_crds::networking as raw;
use mizzen_crds::networking::virtual_service as vs;
use mizzen_model::{Destination, Headers, Host, L4Match, SubsetName, TcpRoute, TlsRoute, WeightedDestination};

use super::virtual_service::match_gateways;
use crate::error::Reason;
use crate::reader::Reader;

pub(super) fn tls(r: &mut Reader<'_>, route: &vs::TlsRoute, hosts: &[Host]) -> Option<TlsRoute> {
    if route.r#match.is_empty() {
        r.refuse_at(
            "match",
            Reason::Missing {
                remedy: "write at least one match with sniHosts",
            },
        );
    }
    let matches = r.each("match", &route.r#match, |r, condition| {
        if condition.sni_hosts.is_empty() {
            r.refuse_at(
                "sniHosts",
                Reason::Missing {
                    remedy: "name at least one server name",
                },
            );
        }
        let sni_hosts = r.each("sniHosts", &condition.sni_hosts, |r, text| {
            let sni = r.take("", Host::new(text))?;
            if !hosts.iter().any(|host| host.covers(&sni)) {
                r.refuse(Reason::SniOutsideHosts { sni: sni.to_string() });
            }
            Some(sni)
        });
        Some(L4Match {
            sni_hosts,
            destination_subnets: r.subnets("destinationSubnets", &condition.destination_subnets),
            port: r.port("port", condition.port),
            source_labels: r.labels("sourceLabels", &condition.source_labels),
            source_namespace: source_namespace(r, condition.source_namespace.as_ref()),
            gateways: match_gateways(r, &condition.gateways),
        })
    });
    let destinations = destinations(r, &route.route);
    Some(TlsRoute { matches, destinations })
}

pub(super) fn tcp(r: &mut Reader<'_>, route: &vs::TcpRoute) -> Option<TcpRoute> {
    let matches = r.each("match", &route.r#match, |r, condition| {
        r.not_acted_on("sourceSubnet", condition.source_subnet.is_some());
        Some(L4Match {
            sni_hosts: Vec::new(),
            destination_subnets: r.subnets("destinationSubnets", &condition.destination_subnets),
            port: r.port("port", condition.port),
            source_labels: r.labels("sourceLabels", &condition.source_labels),
            source_namespace: source_namespace(r, condition.source_namespace.as_ref()),
            gateways: match_gateways(r, &condition.gateways),
        })
    });
    let destinations = destinations(r, &route.route);
    Some(TcpRoute { matches, destinations })
}

pub(super) fn source_namespace(r: &mut Reader<'_>, text: Option<&String>) -> Option<mizzen_model::Namespace> {
    text.and_then(|text| r.namespace_named("sourceNamespace", text))
}

fn destinations(r: &mut Reader<'_>, raw: &[vs::RouteDestination]) -> Vec<WeightedDestination> {
    if raw.is_empty() {
        r.refuse_at(
            "route",
            Reason::Missing {
                remedy: "name at least one destination",
            },
        );
    }
    let shares = weights(
        r,
        raw.iter().map(|entry| (entry.destination.host.as_str(), entry.weight)),
    );
    let mut shares = shares.into_iter();
    r.each("route", raw, |r, entry| {
        let weight = shares.next().unwrap_or_default();
        let destination = destination(r, "destination", &entry.destination)?;
        Some(WeightedDestination {
            destination,
            weight,
            headers: Headers::default(),
        })
    })
}

/// The weights of a rule's destinations (hosts and what is written), as many as there are. A single destination gets everything, whatever it says.
pub(super) fn weights<'h>(r: &mut Reader<'_>, raw: impl ExactSizeIterator<Item = (&'h str, Option<i32>)>) -> Vec<u32> {
    let count = raw.len();
    let mut negative = false;
    let weights: Vec<u32> = raw
        .enumerate()
        .map(|(index, (host, weight))| {
            let weight = weight.unwrap_or(0);
            u32::try_from(weight).unwrap_or_else(|_| {
                negative = true;
                let destination = host.to_owned();
                r.refuse_at(
                    &format!("route[{index}].weight"),
                    Reason::NegativeWeight { weight, destination },
                );
                0
            })
        })
        .collect();
    let sum = weights.iter().fold(0u64, |sum, weight| sum + u64::from(*weight));
    if let [single] = weights.as_slice() {
        return vec![(*single).max(1)];
    }
    if sum == 0 && count > 1 && !negative {
        r.refuse_at("route", Reason::ZeroWeights { count });
    }
    if sum > u64::from(u32::MAX) {
        r.refuse_at("route", Reason::WeightSum { max: u32::MAX });
    }
    weights
}

pub(super) fn destination(r: &mut Reader<'_>, field: &str, raw: &raw::Destination) -> Option<Destination> {
    r.inside(field, |r| {
        let host = r.host("host", &raw.host);
        if raw.host == "*" {
            r.refuse_at("host", Reason::WildcardDestination);
        }
        let subset = raw.subset.as_ref().filter(|name| !name.is_empty());
        let subset = subset.and_then(|name| r.take("subset", SubsetName::new(name)));
        let port = r.inside("port", |r| {
            r.port("number", raw.port.as_ref().and_then(|port| port.number))
        });
        Some(Destination {
            host: host?,
            subset,
            port,
        })
    })
}
