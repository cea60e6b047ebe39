//! The whole plan: every object of a mesh, in the order in which they are applied.

use crate::{Component, Manifest, ValidatedMesh, gateway, injector, istiod, mesh_config, rbac, webhooks};

impl ValidatedMesh {
    /// The objects that should exist. What others refer to comes first; within that, the order is always the same.
    #[must_use]
    pub fn manifests(&self) -> Vec<Manifest> {
        let discovery = Component::IstioDiscovery;
        let config = Component::MeshConfig;
        let mut plan = vec![
            Manifest::of(discovery, &istiod::service_account(self)),
            Manifest::of(discovery, &rbac::cluster_role(self)),
            Manifest::of(discovery, &rbac::cluster_role_binding(self)),
            Manifest::of(discovery, &rbac::role(self)),
            Manifest::of(discovery, &rbac::role_binding(self)),
            Manifest::of(config, &rbac::mesh_user_role(self)),
            Manifest::of(config, &mesh_config::config_map(self)),
            Manifest::of(config, &injector::config_map(self)),
            Manifest::of(discovery, &istiod::service(self)),
            Manifest::of(config, &webhooks::injection(self)),
            Manifest::of(config, &webhooks::validation(self)),
            Manifest::of(discovery, &istiod::deployment(self)),
        ];
        plan.extend(istiod::disruption_budget(self).map(|object| Manifest::of(discovery, &object)));
        for gateway in gateway::gateways(self) {
            let ingress = Component::IstioIngress;
            plan.push(Manifest::of(ingress, &gateway::service_account(self, &gateway)));
            plan.push(Manifest::of(ingress, &gateway::service(self, &gateway)));
            plan.push(Manifest::of(ingress, &gateway::deployment(self, &gateway)));
            plan.extend(gateway::disruption_budget(self, &gateway).map(|object| Manifest::of(ingress, &object)));
        }
        // Last: its own webhook must be there to accept it.
        plan.extend(mesh_config::peer_authentication(self).map(|object| Manifest::of(config, &object)));
        plan
    }

    /// The components that status counts, in the order they are listed.
    #[must_use]
    pub fn components(&self) -> Vec<Component> {
        let mut components: Vec<_> = self.manifests().iter().map(Manifest::component).collect();
        components.sort_unstable();
        components.dedup();
        components
    }
}
