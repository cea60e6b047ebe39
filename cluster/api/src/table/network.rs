//! Services and what leads to them.

use super::row::{Row, first_of, scalar, text};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) fn service(row: &Row<'_>) -> Vec<Value> {
    let ports: Vec<String> = row
        .list("/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (scalar(port.get("port"), "0"), text(port, "protocol"));
            match port.get("nodePort").and_then(Value::as_i64) {
                Some(node @ 1..) => format!("{number}:{node}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    let ports = if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(",")
    };
    vec![
        row.name(),
        row.text("/spec/type").into(),
        row.text_or("/spec/clusterIPs/0", "<none>"),
        external_address(row).into(),
        ports.into(),
        row.age(),
        row.labels("/spec/selector"),
    ]
}

fn external_address(row: &Row<'_>) -> String {
    let own = row.list("/spec/externalIPs").iter().map(|ip| scalar(Some(ip), ""));
    let (all, none) = match row.text("/spec/type") {
        "ClusterIP" | "NodePort" => (own.collect::<Vec<_>>(), "<none>"),
        "LoadBalancer" => (balancers(row).into_iter().chain(own).collect(), "<pending>"),
        "ExternalName" => return row.text("/spec/externalName").to_owned(),
        _ => return "<unknown>".to_owned(),
    };
    if all.is_empty() { none.to_owned() } else { all.join(",") }
}

/// The addresses of load balancers, in order.
fn balancers(row: &Row<'_>) -> BTreeSet<String> {
    let ingress = row.list("/status/loadBalancer/ingress").iter();
    let address = |one: &Value| match text(one, "ip") {
        "" => text(one, "hostname").to_owned(),
        ip => ip.to_owned(),
    };
    ingress.map(address).filter(|address| !address.is_empty()).collect()
}

pub(super) fn endpoints(row: &Row<'_>) -> Vec<Value> {
    let subsets = row.list("/subsets");
    let mut all = Vec::new();
    for subset in subsets {
        let list = |name: &str| {
            subset
                .get(name)
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default()
        };
        let addresses = list("addresses").iter().map(|address| text(address, "ip"));
        if list("ports").is_empty() {
            all.extend(addresses.map(str::to_owned));
            continue;
        }
        for port in list("ports") {
            let port = scalar(port.get("port"), "0");
            let with_port = |ip: &str| {
                if ip.contains(':') {
                    format!("[{ip}]:{port}")
                } else {
                    format!("{ip}:{port}")
                }
            };
            all.extend(list("addresses").iter().map(|address| with_port(text(address, "ip"))));
        }
    }
    let shown = if subsets.is_empty() {
        "<none>".to_owned()
    } else {
        first_of(&all, 3, ",")
    };
    vec![row.name(), shown.into(), row.age()]
}

pub(super) fn endpoint_slice(row: &Row<'_>) -> Vec<Value> {
    let or_unset = |all: Vec<String>| {
        let shown = first_of(&all, 3, ",");
        Value::from(if shown.is_empty() { "<unset>".to_owned() } else { shown })
    };
    let port = |port: &Value| match (port.get("port").filter(|port| !port.is_null()), text(port, "name")) {
        (Some(number), _) => number.to_string(),
        (None, "") => "*".to_owned(),
        (None, name) => name.to_owned(),
    };
    let addresses = row
        .list("/endpoints")
        .iter()
        .flat_map(|endpoint| {
            endpoint
                .get("addresses")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        })
        .map(|address| scalar(Some(address), ""));
    vec![
        row.name(),
        row.text("/addressType").into(),
        or_unset(row.list("/ports").iter().map(port).collect()),
        or_unset(addresses.collect()),
        row.age(),
    ]
}

pub(super) fn ingress(row: &Row<'_>) -> Vec<Value> {
    let hosts: Vec<String> = row
        .list("/spec/rules")
        .iter()
        .map(|rule| text(rule, "host").to_owned())
        .collect();
    let named: Vec<String> = hosts.iter().filter(|host| !host.is_empty()).cloned().collect();
    let hosts = if named.is_empty() {
        "*".to_owned()
    } else {
        first_of(&named, 3, ",")
    };
    let ports = if row.list("/spec/tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        row.name(),
        row.text_or("/spec/ingressClassName", "<none>"),
        hosts.into(),
        balancers(row).into_iter().collect::<Vec<_>>().join(",").into(),
        ports.into(),
        row.age(),
    ]
}

pub(super) fn ingress_class(row: &Row<'_>) -> Vec<Value> {
    let parameters = row.at("/spec/parameters").map_or_else(
        || "<none>".to_owned(),
        |parameters| {
            let group = match text(parameters, "apiGroup") {
                "" => String::new(),
                group => format!(".{group}"),
            };
            format!("{}{group}/{}", text(parameters, "kind"), text(parameters, "name"))
        },
    );
    vec![
        row.name(),
        row.text("/spec/controller").into(),
        parameters.into(),
        row.age(),
    ]
}

pub(super) fn network_policy(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.selector("/spec/podSelector"), row.age()]
}
