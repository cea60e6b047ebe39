//! Where a webhook's Service is reached.

use crate::json;
use crate::store::Store;
use futures::future::BoxFuture;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// A Service's port that is to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The Service's namespace.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// The port of the Service.
    pub port: u16,
}

/// Finds the addresses behind a Service.
pub trait Resolve: Send + Sync {
    /// Addresses to try in turn; the error says why there are none.
    fn resolve(&self, address: Address) -> BoxFuture<'static, Result<Vec<SocketAddr>, String>>;
}

/// The ready endpoints of a Service, from its EndpointSlices.
pub(super) async fn from_store(store: &Store, address: &Address) -> Result<Vec<SocketAddr>, String> {
    let name = &address.service;
    let service = store
        .get("services", &address.namespace, name)
        .map(|stored| stored.value());
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
    if json::text(&service, "/spec/type") == "ExternalName" {
        let host = json::text(&service, "/spec/externalName").to_owned();
        let found = tokio::net::lookup_host((host, address.port)).await;
        return found.map(Iterator::collect).map_err(|error| error.to_string());
    }
    let port = json::list(&service, "/spec/ports")
        .iter()
        .find(|port| port.get("port").and_then(Value::as_u64) == Some(u64::from(address.port)));
    let port = port.ok_or_else(|| format!("service {name:?} has no port {}", address.port))?;
    let port_name = json::text(port, "/name");
    let (_, slices) = store.list("endpointslices.discovery.k8s.io", &address.namespace, None);
    let mut found = Vec::new();
    for slice in slices {
        let owner = slice
            .labels
            .as_ref()
            .and_then(|labels| labels.get("kubernetes.io/service-name"));
        if owner.and_then(Value::as_str) == Some(name) {
            ready(&slice.value(), port_name, &mut found);
        }
    }
    if found.is_empty() {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    Ok(found)
}

fn ready(slice: &Value, port_name: &str, found: &mut Vec<SocketAddr>) {
    let ports = json::list(slice, "/ports")
        .iter()
        .filter(|port| json::text(port, "/name") == port_name);
    for port in ports.filter_map(|port| port.get("port").and_then(Value::as_u64)) {
        for endpoint in json::list(slice, "/endpoints") {
            if endpoint.pointer("/conditions/ready").and_then(Value::as_bool) == Some(false) {
                continue;
            }
            let addresses = json::list(endpoint, "/addresses").iter().filter_map(Value::as_str);
            let addresses = addresses.filter_map(|text| text.parse::<IpAddr>().ok());
            found.extend(addresses.map(|ip| SocketAddr::new(ip, u16::try_from(port).unwrap_or(0))));
        }
    }
}
