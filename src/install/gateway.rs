//! Where the mesh is entered.

use super::Installation;
use crate::connect::refused;
use crate::failure::Failure;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use kube::api::ListParams;

impl Installation<'_> {
    /// Tells the address of the ingress gateway, if there is one; `known` where the caller has it.
    pub(super) async fn gateway(&mut self, known: Option<&str>) -> Result<(), Failure> {
        self.progress.start("gateway");
        let client = self.cluster.client.clone();
        let services: Api<Service> = Api::namespaced(client.clone(), &self.args.namespace);
        let found = services.get_opt("istio-ingressgateway").await;
        let Some(service) = found.map_err(|error| refused("the gateway cannot be read", &error))? else {
            return Ok(());
        };
        if let Some(address) = known {
            self.progress.done(address, "");
            return Ok(());
        }
        let balanced = service
            .status
            .as_ref()
            .and_then(|s| s.load_balancer.as_ref())
            .and_then(|l| l.ingress.as_ref());
        let balanced = balanced
            .into_iter()
            .flatten()
            .find_map(|i| i.ip.clone().or_else(|| i.hostname.clone()));
        let spec = service.spec.unwrap_or_default();
        let http = spec
            .ports
            .iter()
            .flatten()
            .find(|p| matches!(p.name.as_deref(), Some("http2" | "http")));
        let address = match (balanced, http.and_then(|port| port.node_port)) {
            (Some(address), _) => format!("http://{address}"),
            (None, Some(port)) => {
                let nodes = Api::<Node>::all(client).list(&ListParams::default()).await;
                let nodes = nodes
                    .map_err(|error| refused("the nodes cannot be listed", &error))?
                    .items;
                let Some(address) = nodes.iter().find_map(address) else {
                    self.progress.done("node port", &port.to_string());
                    return Ok(());
                };
                if address.contains(':') {
                    format!("http://[{address}]:{port}")
                } else {
                    format!("http://{address}:{port}")
                }
            }
            (None, None) => {
                let command = format!(
                    "kubectl port-forward -n {} service/istio-ingressgateway 8080:80",
                    self.args.namespace
                );
                self.progress.done("inside only", &command);
                return Ok(());
            }
        };
        self.progress.done(&address, "");
        Ok(())
    }
}

/// The address under which a node that works is reached.
fn address(node: &Node) -> Option<String> {
    let status = node.status.as_ref()?;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    let addresses = status.addresses.iter().flatten();
    addresses
        .filter(|_| ready)
        .find(|a| a.type_ == "InternalIP")
        .map(|a| a.address.clone())
}
