//! What the control plane may do: exactly what it uses.

use crate::pod::{cluster_meta, meta, texts};
use crate::{Component, ValidatedMesh, webhooks};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};

const COMPONENT: Component = Component::IstioDiscovery;
const RBAC: &str = "rbac.authorization.k8s.io";
const READ: &[&str] = &["get", "list", "watch"];

/// The trust bundle that istiod writes into each member namespace.
const TRUST_BUNDLE: &str = "istio-ca-root-cert";

fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> PolicyRule {
    let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(list(groups)),
        resources: Some(list(resources)),
        resource_names: (!names.is_empty()).then(|| list(names)),
        verbs: list(verbs),
        non_resource_urls: None,
    }
}

/// Cluster-wide: what discovery reads, what attests callers, and the webhook configurations of this mesh by name.
pub(crate) fn cluster_role(mesh: &ValidatedMesh) -> ClusterRole {
    let injection = webhooks::injection_name(mesh);
    let validation = webhooks::validation_name(mesh);
    ClusterRole {
        metadata: cluster_meta(mesh, COMPONENT, &mesh.cluster_name()),
        rules: Some(vec![
            rule(&[""], &["services", "pods", "namespaces", "nodes"], &[], READ),
            rule(&["discovery.k8s.io"], &["endpointslices"], &[], READ),
            rule(
                &["networking.istio.io"],
                &["gateways", "virtualservices", "destinationrules"],
                &[],
                READ,
            ),
            rule(
                &["networking.istio.io"],
                &["gateways/status", "virtualservices/status", "destinationrules/status"],
                &[],
                &["patch", "update"],
            ),
            rule(&["security.istio.io"], &["peerauthentications"], &[], READ),
            rule(
                &["security.istio.io"],
                &["peerauthentications/status"],
                &[],
                &["patch", "update"],
            ),
            rule(&["authentication.k8s.io"], &["tokenreviews"], &[], &["create"]),
            rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &[], &["create"]),
            // The trust bundle in member namespaces. `create` cannot be limited to a name; lists are by name.
            rule(&[""], &["configmaps"], &[], &["create"]),
            rule(
                &[""],
                &["configmaps"],
                &[TRUST_BUNDLE],
                &["get", "list", "watch", "update", "patch", "delete"],
            ),
            rule(
                &["admissionregistration.k8s.io"],
                &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
                &[],
                READ,
            ),
            rule(
                &["admissionregistration.k8s.io"],
                &["mutatingwebhookconfigurations"],
                &[&injection],
                &["patch", "update"],
            ),
            rule(
                &["admissionregistration.k8s.io"],
                &["validatingwebhookconfigurations"],
                &[&validation],
                &["patch", "update"],
            ),
            rule(&["", "events.k8s.io"], &["events"], &[], &["create", "patch"]),
        ]),
        ..ClusterRole::default()
    }
}

pub(crate) fn cluster_role_binding(mesh: &ValidatedMesh) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: cluster_meta(mesh, COMPONENT, &mesh.cluster_name()),
        role_ref: role_ref("ClusterRole", mesh.cluster_name()),
        subjects: Some(vec![istiod(mesh)]),
    }
}

/// In the mesh's namespace: its configuration, its keys, certificates of gateways, its leases.
pub(crate) fn role(mesh: &ValidatedMesh) -> Role {
    Role {
        metadata: meta(mesh, COMPONENT, &mesh.istiod()),
        rules: Some(vec![
            rule(&[""], &["configmaps"], &[], READ),
            rule(
                &[""],
                &["secrets"],
                &[],
                &["get", "list", "watch", "create", "update", "patch"],
            ),
            rule(
                &["coordination.k8s.io"],
                &["leases"],
                &[],
                &["get", "list", "watch", "create", "update", "patch"],
            ),
        ]),
    }
}

pub(crate) fn role_binding(mesh: &ValidatedMesh) -> RoleBinding {
    RoleBinding {
        metadata: meta(mesh, COMPONENT, &mesh.istiod()),
        role_ref: role_ref("Role", mesh.istiod()),
        subjects: Some(vec![istiod(mesh)]),
    }
}

/// For an administrator to bind: whoever has it may put namespaces into this mesh.
pub(crate) fn mesh_user_role(mesh: &ValidatedMesh) -> Role {
    let mut metadata = meta(mesh, Component::MeshConfig, "mesh-user");
    metadata.annotations = Some(texts([(
        "description",
        "Lets those it is bound to put a namespace into this mesh with a ServiceMeshMember.",
    )]));
    let name = mesh.key().name.as_str();
    Role {
        metadata,
        rules: Some(vec![rule(
            &["maistra.io"],
            &["servicemeshcontrolplanes"],
            &[name],
            &["use"],
        )]),
    }
}

fn role_ref(kind: &str, name: String) -> RoleRef {
    RoleRef {
        api_group: RBAC.to_owned(),
        kind: kind.to_owned(),
        name,
    }
}

fn istiod(mesh: &ValidatedMesh) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: mesh.istiod(),
        namespace: Some(mesh.key().namespace.clone()),
        api_group: None,
    }
}
