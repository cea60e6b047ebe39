use super::*;
use serde_json::{Value, json};

#[test]
fn crds_fit_into_kubectls_annotation() {
    for crd in crds() {
        let size = serde_json::to_string(&crd).unwrap().len();
        assert!(
            size < 200_000,
            "{} has {size} bytes; kubectl apply refuses 262144",
            crd.spec.names.kind
        );
    }
}

#[test]
fn schemas_are_structural() {
    fn walk(path: &str, schema: &Value, kind: &str) {
        let Some(object) = schema.as_object() else { return };
        let typed = object.contains_key("type")
            || object.contains_key("x-kubernetes-int-or-string")
            || object.contains_key("x-kubernetes-preserve-unknown-fields");
        assert!(typed, "{kind}: {path} has no type: {schema}");
        for forbidden in ["$ref", "oneOf", "allOf", "anyOf", "definitions", "uniqueItems"] {
            assert!(
                !object.contains_key(forbidden),
                "{kind}: {path} has {forbidden}: {schema}"
            );
        }
        for (name, child) in object
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            walk(&format!("{path}.{name}"), child, kind);
        }
        for nested in ["items", "additionalProperties"] {
            if let Some(child) = object.get(nested) {
                walk(&format!("{path}[]"), child, kind);
            }
        }
    }
    for crd in crds() {
        let kind = crd.spec.names.kind.clone();
        for version in &crd.spec.versions {
            let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
            walk("", &serde_json::to_value(schema).unwrap(), &kind);
        }
    }
}

#[test]
fn a_control_plane_survives_a_round_trip() {
    let spec = json!({
        "profiles": ["small"],
        "version": "v1.0",
        "mode": "ClusterWide",
        "techPreview": {"mizzen": {"dataPlane": "envoy"}},
        "security": {"dataPlane": {"mtls": true}, "certificateAuthority": {"type": "cert-manager", "cert-manager": {"address": "a:1"}}},
        "proxy": {"logging": {"level": "warning"}, "networking": {"trafficControl": {"outbound": {"includedIPRanges": ["10.0.0.0/8"], "policy": "REGISTRY_ONLY"}}}},
        "gateways": {"ingress": {"enabled": true, "service": {"metadata": {"labels": {"a": "b"}}, "type": "NodePort"}, "ingress": false},
                     "additionalIngress": {"edge": {"enabled": true, "namespace": "other"}}},
        "runtime": {"components": {"pilot": {"container": {"resources": {"requests": {"cpu": "100m"}}}}}},
        "addons": {"3scale": {"enabled": false, "listen_addr": 3333}},
    });
    let parsed: ServiceMeshControlPlaneSpec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(serde_json::to_value(parsed).unwrap(), spec);
}

#[test]
fn readiness_is_always_written() {
    let status = serde_json::to_value(ControlPlaneStatus::default()).unwrap();
    assert_eq!(
        status,
        json!({"readiness": {"components": {"ready": [], "unready": [], "pending": []}}})
    );
}

#[test]
fn names_and_columns_are_those_users_know() {
    let [smcp, smmr, smm] = crds().try_into().unwrap();
    assert_eq!(smcp.spec.names.short_names, Some(vec!["smcp".to_owned()]));
    assert_eq!(smmr.spec.names.short_names, Some(vec!["smmr".to_owned()]));
    assert_eq!(smm.spec.names.categories, Some(vec!["maistra-io".to_owned()]));
    let columns: Vec<_> = smcp.spec.versions[0]
        .additional_printer_columns
        .iter()
        .flatten()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(
        columns,
        ["Ready", "Status", "Profiles", "Version", "Age", "Image Registry"]
    );
}
