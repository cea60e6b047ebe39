use super::*;

fn place() -> Place {
    Place {
        node: "n1".into(),
        host: Ipv4Addr::new(10, 0, 0, 1),
        address: Some(Ipv4Addr::new(10, 244, 0, 2)),
        cores: 4,
        memory: 1 << 30,
    }
}

fn sources() -> Sources {
    let map =
        serde_json::json!({"metadata": {"name": "settings"}, "data": {"color": "red"}, "binaryData": {"b": "AAE="}});
    let secret = serde_json::json!({"metadata": {"name": "key"}, "data": {"password": "c2VjcmV0"}});
    Sources {
        config_maps: BTreeMap::from([("settings".into(), serde_json::from_value(map).unwrap())]),
        secrets: BTreeMap::from([("key".into(), serde_json::from_value(secret).unwrap())]),
    }
}

fn pod(env: serde_json::Value, from: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "a", "uid": "u", "labels": {"app": "shop", "v": "1"}},
        "spec": {"serviceAccountName": "sa", "containers": [{"name": "c", "env": env, "envFrom": from,
            "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}}))
    .unwrap()
}

fn services() -> Vec<Arc<Service>> {
    serde_json::from_value(serde_json::json!([
        {"metadata": {"name": "kubernetes", "namespace": "default"},
         "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}},
        {"metadata": {"name": "db", "namespace": "b"}, "spec": {"clusterIP": "10.96.0.2", "ports": [{"port": 1}]}},
    ]))
    .unwrap()
}

fn built(env: serde_json::Value, from: serde_json::Value) -> Result<BTreeMap<String, String>, String> {
    let pod = pod(env, from);
    let containers = pod.spec.clone().unwrap_or_default().containers;
    let image = BTreeMap::from([("COLOR".into(), "image".into())]);
    environment(&pod, &containers[0], &image, &sources(), &services(), &place())
}

#[test]
fn variables_come_from_where_they_are_said_to() {
    let env = built(
        serde_json::json!([
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "password"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
            {"name": "CORES", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x", "optional": true}}},
            {"name": "URL", "value": "$(APP)-$(KUBERNETES_SERVICE_HOST)-$(LATER)-$$(APP)"},
            {"name": "LATER", "value": "x"}
        ]),
        serde_json::json!([{"prefix": "S_", "configMapRef": {"name": "settings"}}]),
    )
    .unwrap();
    let value = |name: &str| env.get(name).map(String::as_str);
    assert_eq!(value("COLOR"), Some("image"));
    assert_eq!(value("S_color"), Some("red"));
    assert_eq!(value("PASSWORD"), Some("secret"));
    assert_eq!(value("IP"), Some("10.244.0.2"));
    assert_eq!(value("MEMORY"), Some("64"));
    assert_eq!(value("CPU"), Some("250"));
    assert_eq!(value("CORES"), Some("4"));
    assert_eq!(value("GONE"), None);
    assert_eq!(value("URL"), Some("shop-10.96.0.1-$(LATER)-$(APP)"));
    assert_eq!(value("KUBERNETES_PORT_443_TCP_ADDR"), Some("10.96.0.1"));
    assert_eq!(value("DB_SERVICE_HOST"), None, "another namespace");
}

#[test]
fn what_does_not_exist_is_named() {
    let missing = |kind: &str, name: &str| {
        let env = serde_json::json!([{"name": "X", "valueFrom": {kind: {"name": name, "key": "k"}}}]);
        built(env, serde_json::json!([])).unwrap_err()
    };
    assert_eq!(missing("configMapKeyRef", "none"), "configmap \"none\" not found");
    assert_eq!(
        missing("configMapKeyRef", "settings"),
        "couldn't find key k in ConfigMap a/settings"
    );
    assert_eq!(missing("secretKeyRef", "none"), "secret \"none\" not found");
}

#[test]
fn quantities_have_decimal_and_binary_units() {
    for (text, value) in [
        ("1", 1.0),
        ("1.5Gi", 1_610_612_736.0),
        ("250m", 0.25),
        ("2k", 2000.0),
        ("1e3", 1000.0),
    ] {
        assert_eq!(quantity(&Quantity(text.into())), value, "{text}");
    }
}

#[test]
fn labels_are_one_quoted_line_each() {
    let field = ObjectFieldSelector {
        field_path: "metadata.labels".into(),
        ..ObjectFieldSelector::default()
    };
    let pod = pod(serde_json::json!([]), serde_json::json!([]));
    assert_eq!(pod_field(&pod, &field, &place()).unwrap(), "app=\"shop\"\nv=\"1\"");
}
