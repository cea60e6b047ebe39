use super::*;

#[test]
fn built_in_resources_are_found_by_group_version_and_plural() {
    let registry = Registry::new().unwrap();
    let kinds = registry.current();
    let deployments = kinds.resource("apps", "v1", "deployments").unwrap();
    assert_eq!(deployments.kind, "Deployment");
    assert_eq!(deployments.short_names, ["deploy"]);
    assert!(deployments.namespaced && deployments.has_status());
    assert_eq!(deployments.subresource("scale").unwrap().group, "autoscaling");
    assert_eq!(
        &*kinds.resource("events.k8s.io", "v1", "events").unwrap().collection,
        "events"
    );
    assert_eq!(kinds.kind("", "v1", "Pod").unwrap().plural, "pods");
    assert!(kinds.resource("apps", "v2", "deployments").is_none());
    assert!(kinds.resource("", "v1", "componentstatuses").is_none());
}

#[test]
fn schemas_are_named_as_published() {
    let text = builtin::components("rbac.authorization.k8s.io", "v1").unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    let name = builtin::schema_name("rbac.authorization.k8s.io", "v1", "ClusterRole");
    assert!(all.get(name).is_some());
    let text = builtin::components("apiextensions.k8s.io", "v1").unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    let name = builtin::schema_name("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    assert!(all.get(name).is_some());
}
