use super::*;
use crate::config::Images;

fn config() -> InjectConfig {
    let images: Images = serde_json::from_str(r#"{"registry": "r", "tag": "t"}"#).unwrap();
    InjectConfig::new("basic", "mesh", images)
}

fn pod() -> Value {
    json!({"metadata": {"generateName": "cart-"}, "spec": {"containers": [{"name": "app", "image": "i"}]}})
}

// B7
#[test]
fn an_injected_pod_stays_as_it_is() {
    let once = inject(&pod(), &config(), "shop", None).unwrap();
    let twice = inject(&once.pod, &config(), "shop", None).unwrap();
    assert_eq!(twice.pod, once.pod);
    // Another version of the mesh does not change it either: that is a rollout's work.
    let mut newer = config();
    newer.images.tag = "newer".into();
    assert_eq!(inject(&once.pod, &newer, "shop", None).unwrap().pod, once.pod);
}

// B7
#[test]
fn a_status_without_a_sidecar_does_not_keep_a_pod_out() {
    let mut forged = pod();
    forged["metadata"]["annotations"] = json!({STATUS: "{}"});
    let injected = inject(&forged, &config(), "shop", None).unwrap();
    assert!(
        injected
            .pod
            .pointer("/spec/initContainers/1/name")
            .is_some_and(|name| name == SIDECAR)
    );
}

// B3, E1
#[test]
fn an_application_that_would_pass_by_its_sidecar_is_refused() {
    let mut container = pod();
    container["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1337});
    let error = inject(&container, &config(), "shop", None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "container app runs as user 1337, whose traffic passes by the sidecar: choose another runAsUser"
    );
    let mut whole = pod();
    whole["spec"]["securityContext"] = json!({"runAsUser": 1337});
    assert!(matches!(
        inject(&whole, &config(), "shop", None),
        Err(InjectError::ReservedUser { .. })
    ));
}

// B5
#[test]
fn what_cannot_be_injected_says_why() {
    let with = |change: fn(&mut Value)| {
        let mut pod = pod();
        change(&mut pod);
        inject(&pod, &config(), "shop", None).unwrap_err()
    };
    let named = with(|pod| pod["spec"]["initContainers"] = json!([{"name": "istio-init"}]));
    assert!(matches!(named, InjectError::ReservedName));
    // Without it the API server would only say that there are no containers.
    let alone = with(|pod| pod["spec"]["containers"][0]["name"] = json!(SIDECAR));
    assert!(matches!(alone, InjectError::NoApplication));
    let tproxy = with(|pod| pod["metadata"]["annotations"] = json!({"sidecar.istio.io/interceptionMode": "TPROXY"}));
    assert!(matches!(tproxy, InjectError::Tproxy));
    let no_spec = with(|pod| pod["spec"] = Value::Null);
    assert!(matches!(no_spec, InjectError::NoSpec));
    let no_pod = with(|pod| pod["spec"]["containers"] = json!("none"));
    assert!(matches!(no_pod, InjectError::Pod(_)));
}

// B3, B6
#[test]
fn a_native_sidecar_starts_before_everything_but_the_redirection() {
    let mut with_init = pod();
    with_init["spec"]["initContainers"] = json!([{"name": "migrate", "image": "i"}]);
    let names = |pod: &Value, list: &str| -> Vec<String> {
        let containers = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array).unwrap();
        containers
            .iter()
            .map(|container| container["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let native = inject(&with_init, &config(), "shop", None).unwrap().pod;
    assert_eq!(names(&native, "initContainers"), [INIT, SIDECAR, "migrate"]);
    assert_eq!(
        native.pointer("/spec/initContainers/1/restartPolicy"),
        Some(&json!("Always"))
    );

    let mut plain = config();
    plain.native_sidecar = false;
    let held = inject(&with_init, &plain, "shop", None).unwrap().pod;
    assert_eq!(names(&held, "initContainers"), ["migrate", INIT]);
    assert_eq!(names(&held, "containers"), [SIDECAR, "app"]);
    plain.hold_application_until_proxy_starts = false;
    let last = inject(&with_init, &plain, "shop", None).unwrap().pod;
    assert_eq!(names(&last, "containers"), ["app", SIDECAR]);
}

// B3
#[test]
fn fields_newer_than_our_types_survive() {
    let mut newer = pod();
    newer["spec"]["containers"][0]["newInKubernetes99"] = json!({"a": 1});
    newer["spec"]["initContainers"] = json!([{"name": "first", "newToo": true}]);
    newer["spec"]["newField"] = json!([1, 2]);
    let injected = inject(&newer, &config(), "shop", None).unwrap().pod;
    assert_eq!(
        injected.pointer("/spec/containers/0/newInKubernetes99/a"),
        Some(&json!(1))
    );
    assert_eq!(injected.pointer("/spec/initContainers/2/newToo"), Some(&json!(true)));
    assert_eq!(injected.pointer("/spec/initContainers/0/newToo"), None);
    assert_eq!(injected.pointer("/spec/newField"), Some(&json!([1, 2])));
}
