//! The operator's API: `maistra.io`.
//!
//! In: what a user writes as ServiceMeshControlPlane (v2), ServiceMeshMemberRoll (v1) or ServiceMeshMember (v1).
//! Out: typed values, and the CRDs that the API server needs. Never: defaults, merging or checks across fields; those are
//! `mizzen-desired`'s.
//!
//! Every optional field is an `Option`, so that "not said" and "said to be the default" stay different: profiles are
//! merged by that difference.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, ValidationRule};
use kube_core::CustomResourceExt;

mod addons;
mod cluster;
mod control_plane;
mod gateways;
mod legacy;
mod member;
mod member_roll;
mod mesh_config;
mod proxy;
mod runtime;
mod schema;
mod security;
mod status;

pub use addons::*;
pub use cluster::*;
pub use control_plane::*;
pub use gateways::*;
pub use legacy::*;
pub use member::*;
pub use member_roll::*;
pub use mesh_config::*;
pub use proxy::*;
pub use runtime::*;
pub use security::*;
pub use status::*;

/// The API group of the operator's kinds.
pub const GROUP: &str = "maistra.io";

/// The only name a ServiceMeshMemberRoll or a ServiceMeshMember may have.
pub const SINGLETON_NAME: &str = "default";

/// The CRDs of this group, with the rules across the whole object that a derive cannot express.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut roll = ServiceMeshMemberRoll::crd();
    let mut member = ServiceMeshMember::crd();
    rule(
        &mut roll,
        "self.metadata.name == 'default'",
        "a ServiceMeshMemberRoll must be named `default`",
    );
    rule(
        &mut member,
        "self.metadata.name == 'default'",
        "a ServiceMeshMember must be named `default`",
    );
    rule(
        &mut member,
        "self.spec.controlPlaneRef == oldSelf.spec.controlPlaneRef",
        "spec.controlPlaneRef cannot be changed: delete the ServiceMeshMember and create it anew",
    );
    vec![ServiceMeshControlPlane::crd(), roll, member]
}

fn rule(crd: &mut CustomResourceDefinition, rule: &str, message: &str) {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            schema
                .x_kubernetes_validations
                .get_or_insert_default()
                .push(ValidationRule {
                    rule: rule.to_owned(),
                    message: Some(message.to_owned()),
                    ..ValidationRule::default()
                });
        }
    }
}

#[cfg(test)]
mod tests;
