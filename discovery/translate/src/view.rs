//! The mesh from where one proxy stands.

use mizzen_model::{
    Destination, DestinationRules, GatewayRef, Host, Labels, Mesh, MeshConfig, Namespace, Service, SubsetName, Workload,
};
use std::sync::Arc;

use crate::name::ClusterName;
use crate::scope::{NodeKind, Scope};

/// The mesh, the proxy, and what the mesh knows of the proxy's workload.
pub(crate) struct View<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) scope: &'a Scope,
    pub(crate) workload: Option<&'a Arc<Workload>>,
    no_labels: Labels,
}

impl<'a> View<'a> {
    pub(crate) fn new(mesh: &'a Mesh, scope: &'a Scope) -> Self {
        Self {
            mesh,
            scope,
            workload: mesh.workload(scope.workload()),
            no_labels: Labels::default(),
        }
    }

    pub(crate) fn config(&self) -> &'a MeshConfig {
        self.mesh.config()
    }

    pub(crate) fn namespace(&self) -> &'a Namespace {
        &self.scope.workload().namespace
    }

    /// The workload's labels; none once it is gone.
    pub(crate) fn labels(&self) -> &Labels {
        self.workload.map_or(&self.no_labels, |workload| &workload.labels)
    }

    pub(crate) fn is_gateway(&self) -> bool {
        self.scope.kind() == NodeKind::Gateway
    }

    /// The gateways that this proxy is; none at a sidecar.
    pub(crate) fn gateways(&self) -> Vec<&'a Arc<mizzen_model::Gateway>> {
        if !self.is_gateway() || self.workload.is_none() {
            return Vec::new();
        }
        self.mesh.gateways_for(self.labels())
    }

    pub(crate) fn service(&self, host: &Host) -> Option<&'a Arc<Service>> {
        self.mesh.visible_service(host, self.namespace())
    }

    pub(crate) fn rules(&self, host: &Host) -> DestinationRules<'a> {
        self.mesh.destination_rules_for(host, self.namespace(), self.labels())
    }

    /// The cluster of a destination. One that leads nowhere keeps its name, of a cluster that does not exist: 503.
    pub(crate) fn cluster_of(&self, destination: &Destination, addressed: u16, bytes: bool) -> ClusterName {
        let resolved = self
            .mesh
            .resolve(destination, self.namespace(), self.labels(), addressed);
        let auto = resolved.as_ref().is_ok_and(|found| found.port.protocol.is_auto());
        ClusterName::Outbound {
            port: resolved.map_or(destination.port.unwrap_or(addressed), |found| found.port.number),
            subset: destination.subset.clone(),
            host: destination.host.clone(),
            bytes: bytes && auto,
        }
    }

    /// The cluster of a service's port, whole.
    pub(crate) fn cluster_of_port(&self, host: &Host, port: u16, subset: Option<SubsetName>, bytes: bool) -> String {
        self.cluster_of(
            &Destination {
                host: host.clone(),
                subset,
                port: Some(port),
            },
            port,
            bytes,
        )
        .to_string()
    }

    /// The place where this sidecar's routes are in force.
    pub(crate) const MESH: GatewayRef = GatewayRef::Mesh;
}
