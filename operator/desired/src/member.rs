//! ServiceMeshMember: a namespace's own wish to be in a mesh.

use crate::error::Collector;
use crate::{Problem, SpecErrors, checks};
use mizzen_crds::maistra::{ControlPlaneRef, SINGLETON_NAME, ServiceMeshMember};

/// A member with nothing wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedMember {
    namespace: String,
    control_plane: ControlPlaneRef,
}

impl ValidatedMember {
    /// Checks a member.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(member: &ServiceMeshMember, operator_namespace: &str) -> Result<Self, SpecErrors> {
        let name = member.metadata.name.clone().unwrap_or_default();
        let namespace = member.metadata.namespace.clone().unwrap_or_default();
        let control_plane = member.spec.control_plane_ref.clone();
        let mut errors = Collector::new("ServiceMeshMember", &namespace, &name);
        if name != SINGLETON_NAME {
            errors.add("metadata.name", Problem::WrongName(name));
        }
        let wrong = |why| Problem::WrongNamespace {
            namespace: namespace.clone(),
            why,
        };
        if namespace == operator_namespace {
            errors.add("metadata.namespace", wrong("is the operator's own"));
        }
        if matches!(namespace.as_str(), "kube-system" | "kube-public" | "kube-node-lease") {
            errors.add("metadata.namespace", wrong("is the cluster's own"));
        }
        if namespace == control_plane.namespace {
            errors.add("metadata.namespace", wrong("is the mesh's own, which is in it anyway"));
        }
        errors.check("spec.controlPlaneRef.name", checks::name(&control_plane.name));
        errors.check("spec.controlPlaneRef.namespace", checks::name(&control_plane.namespace));
        errors.finish()?;
        Ok(Self {
            namespace,
            control_plane,
        })
    }

    /// Checks a change; the control plane stays the same.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check_update(
        old: &ServiceMeshMember,
        new: &ServiceMeshMember,
        operator_namespace: &str,
    ) -> Result<Self, SpecErrors> {
        let member = Self::check(new, operator_namespace)?;
        let before = &old.spec.control_plane_ref;
        if *before != member.control_plane {
            let mut errors = Collector::new("ServiceMeshMember", &member.namespace, SINGLETON_NAME);
            let before = format!("{}/{}", before.namespace, before.name);
            errors.add("spec.controlPlaneRef", Problem::Immutable(before));
            errors.finish()?;
        }
        Ok(member)
    }

    /// The namespace that wants to be a member.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Of which mesh.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlaneRef {
        &self.control_plane
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn member(name: &str, namespace: &str, mesh: &str) -> ServiceMeshMember {
        serde_json::from_value(json!({
            "apiVersion": "maistra.io/v1", "kind": "ServiceMeshMember",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"controlPlaneRef": {"name": "basic", "namespace": mesh}},
        }))
        .unwrap()
    }

    // A4
    #[test]
    fn the_control_plane_cannot_change() {
        let (old, new) = (member("default", "one", "mesh"), member("default", "one", "other"));
        assert!(ValidatedMember::check_update(&old, &old, "op").is_ok());
        let text = ValidatedMember::check_update(&old, &new, "op").unwrap_err().to_string();
        assert_eq!(
            text,
            "ServiceMeshMember one/default: spec.controlPlaneRef: cannot be changed from `mesh/basic`; delete the object \
             and create it anew"
        );
    }

    #[test]
    fn it_has_one_name_and_a_namespace_of_its_own() {
        for bad in [
            member("x", "one", "mesh"),
            member("default", "op", "mesh"),
            member("default", "mesh", "mesh"),
        ] {
            assert!(ValidatedMember::check(&bad, "op").is_err());
        }
    }
}
