//! `spec.cluster`: the cluster's place among others.

use super::GatewayConfig;
use super::schema::section;
use std::collections::BTreeMap;

section! {
    /// The cluster and the networks that the mesh spans.
    ClusterConfig {
        /// The cluster's name in telemetry and discovery; `Kubernetes` when not said.
        name: String,
        /// The network this cluster's pods are on.
        network: String,
        /// Meshes over several clusters.
        multi_cluster: MultiClusterConfig,
        /// Workloads outside Kubernetes.
        mesh_expansion: MeshExpansionConfig,
    }
    /// Meshes over several clusters.
    MultiClusterConfig {
        /// Whether several clusters form one mesh.
        enabled: bool,
        /// The other networks, by name.
        mesh_networks: BTreeMap<String, MeshNetworkConfig>,
    }
    /// One network.
    MeshNetworkConfig {
        /// Which endpoints are on it.
        endpoints: Vec<MeshEndpointConfig>,
        /// How it is entered.
        gateways: Vec<MeshGatewayConfig>,
    }
    /// Endpoints of a network.
    MeshEndpointConfig {
        /// The cluster whose registry names them.
        from_registry: String,
        /// The address range they are in.
        #[serde(rename = "fromCIDR")]
        from_cidr: String,
    }
    /// One way into a network.
    MeshGatewayConfig {
        /// The name of a gateway service.
        service: String,
        /// The full name of a gateway service in the registry.
        registry_service_name: String,
        /// An address outside the registry.
        address: String,
        /// The port.
        port: i32,
    }
    /// Workloads outside Kubernetes.
    MeshExpansionConfig {
        /// Whether they may join.
        enabled: bool,
        /// The internal load balancer they join through.
        ilb_gateway: GatewayConfig,
    }
}
