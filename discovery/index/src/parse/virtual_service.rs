//! VirtualService.

use std::collections::BTreeSet;

use mizzen_crds as crds;
use mizzen_model::{GatewayRef, Host, Namespace, ObjectKey, ObjectName, VirtualService};

use super::{http, stream};
use crate::error::Reason;
use crate::reader::{Reader, created};

pub(super) fn read(r: &mut Reader<'_>, key: ObjectKey, raw: &crds::VirtualService) -> Option<VirtualService> {
    let spec = &raw.spec;
    // One without hosts is for others to delegate to.
    let delegated_to = spec.hosts.is_empty();
    let gateways = gateways(r, &spec.gateways);
    if delegated_to && !spec.gateways.is_empty() {
        let remedy = "name the hosts, or remove spec.gateways if other VirtualServices delegate to this one";
        r.refuse_at("hosts", Reason::Missing { remedy });
    }
    let hosts = hosts(r, &spec.hosts, gateways.contains(&GatewayRef::Mesh));
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        r.refuse_at(
            "http",
            Reason::Missing {
                remedy: "write at least one rule in http, tls or tcp",
            },
        );
    }
    if delegated_to && !(spec.tls.is_empty() && spec.tcp.is_empty()) {
        r.refuse_at(
            "hosts",
            Reason::Missing {
                remedy: "name the hosts: only http rules can be delegated",
            },
        );
    }
    let http = http::routes(r, &spec.http, delegated_to);
    let tls = r.each("tls", &spec.tls, |r, route| stream::tls(r, route, &hosts));
    let tcp = r.each("tcp", &spec.tcp, stream::tcp);
    let export_to = r.export_to("exportTo", &spec.export_to);
    Some(VirtualService {
        created: created(&raw.metadata),
        key,
        hosts,
        gateways,
        export_to,
        http,
        tls,
        tcp,
    })
}

fn hosts(r: &mut Reader<'_>, texts: &[String], at_mesh: bool) -> Vec<Host> {
    let mut seen = BTreeSet::new();
    r.each("hosts", texts, |r, text| {
        let host = r.host("", text)?;
        if at_mesh && host.as_str() == "*" {
            r.refuse(Reason::WildcardAtMesh);
            return None;
        }
        if !seen.insert(host.clone()) {
            r.refuse(Reason::Duplicate {
                name: host.to_string(),
                remedy: "remove one",
            });
            return None;
        }
        Some(host)
    })
}

fn gateways(r: &mut Reader<'_>, texts: &[String]) -> BTreeSet<GatewayRef> {
    if texts.is_empty() {
        return BTreeSet::from([GatewayRef::Mesh]);
    }
    r.each("gateways", texts, |r, text| gateway_ref(r, text))
        .into_iter()
        .collect()
}

/// The places where a condition is in force; none if it says nothing.
pub(super) fn match_gateways(r: &mut Reader<'_>, texts: &[String]) -> Option<BTreeSet<GatewayRef>> {
    (!texts.is_empty()).then(|| gateways(r, texts))
}

/// `mesh`, `name`, `namespace/name`, `./name`, or (as in old manifests) `name.namespace.svc.cluster.local`.
fn gateway_ref(r: &mut Reader<'_>, text: &str) -> Option<GatewayRef> {
    if text == "mesh" {
        return Some(GatewayRef::Mesh);
    }
    let own = r.namespace.clone();
    let named = |namespace: Option<Namespace>, name: Option<ObjectName>| {
        Some(GatewayRef::Gateway {
            namespace: namespace?,
            name: name?,
        })
    };
    match (text.split_once('/'), text.split_once('.')) {
        (Some((".", name)), _) => {
            let name = r.take("", ObjectName::new(name));
            named(Some(own), name)
        }
        (Some((namespace, name)), _) => {
            let namespace = r.namespace_named("", namespace);
            let name = r.take("", ObjectName::new(name));
            named(namespace, name)
        }
        (None, Some((name, rest))) => {
            let namespace = rest.split_once('.').map_or(rest, |(namespace, _)| namespace);
            let namespace = r.namespace_named("", namespace);
            let name = r.take("", ObjectName::new(name));
            named(namespace, name)
        }
        (None, None) => {
            let name = r.take("", ObjectName::new(text));
            named(Some(own), name)
        }
    }
}
