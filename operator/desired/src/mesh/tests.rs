use super::*;
use serde_json::json;

fn settings() -> Settings {
    Settings {
        operator_namespace: "mizzen-operator".to_owned(),
        operator_version: "9.8.7".to_owned(),
        image_registry: "registry.example/mizzen".to_owned(),
        image_tag: "1.2.3".to_owned(),
    }
}

fn smcp(spec: Value) -> Value {
    json!({
        "apiVersion": "maistra.io/v2", "kind": "ServiceMeshControlPlane",
        "metadata": {"name": "basic", "namespace": "istio-system", "generation": 4}, "spec": spec,
    })
}

fn errors(spec: Value) -> Vec<String> {
    let errors = ValidatedMesh::check_raw(&smcp(spec), &settings()).unwrap_err();
    errors
        .errors()
        .iter()
        .map(|error| format!("{}: {}", error.field, error.problem.category()))
        .collect()
}

// A1, A2
#[test]
fn an_empty_spec_is_a_mesh() {
    let mesh = ValidatedMesh::check_raw(&smcp(json!({})), &settings()).unwrap();
    assert_eq!(mesh.key().to_string(), "istio-system/basic");
    assert_eq!(mesh.version(), "v1.0");
    assert_eq!(mesh.generation(), 4);
    assert_eq!(mesh.components().len(), 3);
}

#[test]
fn every_error_is_told_with_object_field_reason_and_remedy() {
    let spec = json!({
        "version": "v9",
        "policy": {"type": "Mixer"},
        "techPreview": {"mizzen": {"dataPlane": "carrier-pigeon"}},
        "gateways": {"ingres": {"enabled": true}},
        "proxy": {"networking": {"trafficControl": {"outbound": {"includedIPRanges": ["10.0.0.0/40"]}}}},
    });
    let text = ValidatedMesh::check_raw(&smcp(spec), &settings())
        .unwrap_err()
        .to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "ServiceMeshControlPlane istio-system/basic: spec.gateways.ingres: unknown field; did you mean ingress?",
            "ServiceMeshControlPlane istio-system/basic: spec.version: there is no version `v9`; use `v1.0` or leave it out",
            "ServiceMeshControlPlane istio-system/basic: spec.policy.type: Mixer no longer exists; use `Istiod` or leave \
             it out",
            "ServiceMeshControlPlane istio-system/basic: \
             spec.proxy.networking.trafficControl.outbound.includedIPRanges[0]: `10.0.0.0/40` is not an address range; \
             write it as 10.0.0.0/8, or `*` for all",
            "ServiceMeshControlPlane istio-system/basic: spec.techPreview.mizzen.dataPlane: `carrier-pigeon` is not \
             known; use one of `native`, `envoy`",
        ]
    );
}

#[test]
fn a_wrong_type_is_refused() {
    let spec = json!({
        "tracing": {"sampling": "all"},
        "gateways": {"ingress": {"runtime": {"deployment": {"replicas": "two"}}}},
        "profiles": "demo",
        "mode": "clusterWide",
    });
    assert_eq!(
        errors(spec.clone()),
        [
            "spec.gateways.ingress.runtime.deployment.replicas: wrong_shape",
            "spec.mode: wrong_shape",
            "spec.profiles: wrong_shape",
            "spec.tracing.sampling: wrong_shape",
        ]
    );
    let text = ValidatedMesh::check_raw(&smcp(spec), &settings())
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with(
            "ServiceMeshControlPlane istio-system/basic: spec.gateways.ingress.runtime.deployment.replicas: must be of \
             type integer, not string; write a whole number, without quotes\n"
        ),
        "{text}"
    );
    // As Kubernetes does.
    let whole = json!({"gateways": {"ingress": {"runtime": {"deployment": {"replicas": 2.0}}}}});
    assert!(ValidatedMesh::check_raw(&smcp(whole), &settings()).is_ok());
}

#[test]
fn values_out_of_bounds_are_refused() {
    let spec = json!({
        "tracing": {"sampling": 10001},
        "runtime": {"components": {"pilot": {"deployment": {"replicas": -1}}}},
        "security": {"trust": {"domain": "Not A Domain"}, "controlPlane": {"mtls": false}},
        "gateways": {"additionalIngress": {"istio-ingressgateway": {}}},
    });
    assert_eq!(
        errors(spec),
        [
            "spec.tracing.sampling: value",
            "spec.security.trust.domain: value",
            "spec.security.controlPlane.mtls: value",
            "spec.gateways.additionalIngress.istio-ingressgateway: value",
            "spec.runtime.components.pilot.deployment.replicas: value",
        ]
    );
}

#[test]
fn amounts_images_and_services_that_kubernetes_would_refuse_are_refused() {
    let resources = json!({"requests": {"cpu": "banana"}, "limits": {"memory": "-1Gi"}});
    let container = json!({"imageRegistry": "a b", "imageTag": "", "resources": resources});
    let spec = json!({
        "runtime": {
            "defaults": {"container": container},
            "components": {"pilot": {"container": {"resources": {"limits": {"cpu": "1 core"}}}}},
        },
        "proxy": {"runtime": {"container": {"imageTag": "a:b"}}},
        "gateways": {"ingress": {"service": {"type": "Nodeport"}}},
    });
    let mut found = errors(spec);
    found.sort();
    assert_eq!(
        found,
        [
            "spec.gateways.ingress.service.type: value",
            "spec.proxy.runtime.container.imageTag: value",
            "spec.runtime.components.pilot.container.resources.limits.cpu: value",
            "spec.runtime.defaults.container.imageRegistry: value",
            "spec.runtime.defaults.container.imageTag: value",
            "spec.runtime.defaults.container.resources.limits.memory: value",
            "spec.runtime.defaults.container.resources.requests.cpu: value",
        ]
    );
}

#[test]
fn no_mesh_is_in_the_operators_namespace() {
    let mut raw = smcp(json!({}));
    raw["metadata"]["namespace"] = json!("mizzen-operator");
    let errors = ValidatedMesh::check_raw(&raw, &settings()).unwrap_err();
    assert_eq!(errors.errors()[0].problem.category(), "place");
}

#[test]
fn images_come_from_component_mesh_or_operator_in_this_order() {
    let image = |spec: Value| {
        let mesh = ValidatedMesh::check_raw(&smcp(spec), &settings()).unwrap();
        let container = mesh.pilot().container.unwrap_or_default();
        mesh.image("mizzen", &container)
    };
    assert_eq!(image(json!({})), "registry.example/mizzen/mizzen:1.2.3");
    let defaults = json!({"container": {"imageRegistry": "quay.io/m", "imageTag": "2"}});
    assert_eq!(image(json!({"runtime": {"defaults": defaults}})), "quay.io/m/mizzen:2");
    let digest = format!("sha256:{}", "ab".repeat(32));
    let pilot = json!({"pilot": {"container": {"imageTag": digest, "imageName": "p"}}});
    assert_eq!(
        image(json!({"runtime": {"defaults": defaults, "components": pilot}})),
        format!("quay.io/m/p@{digest}")
    );
    let whole = json!({"pilot": {"container": {"imageName": "docker.io/x/y:3"}}});
    assert_eq!(image(json!({"runtime": {"components": whole}})), "docker.io/x/y:3");
}

#[test]
fn a_second_mesh_conflicts_in_its_namespace_and_with_a_cluster_wide_one() {
    let object = |name: &str, namespace: &str, mode: &str| -> ServiceMeshControlPlane {
        serde_json::from_value(json!({
            "apiVersion": "maistra.io/v2", "kind": "ServiceMeshControlPlane",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"mode": mode},
        }))
        .unwrap()
    };
    let mesh = object("basic", "a", "MultiTenant");
    let fields = |others: &[ServiceMeshControlPlane]| -> Vec<String> {
        conflicts(&mesh, others).into_iter().map(|e| e.field).collect()
    };
    assert_eq!(
        fields(&[mesh.clone(), object("basic", "b", "MultiTenant")]),
        Vec::<String>::new()
    );
    assert_eq!(fields(&[object("second", "a", "MultiTenant")]), ["metadata.namespace"]);
    assert_eq!(fields(&[object("basic", "b", "ClusterWide")]), ["spec.mode"]);
}
