//! The webhooks as a real API server calls them.
//!
//! It runs where `MIZZEN_TEST_KUBECONFIG` names the kubeconfig of an API server on this machine that may be written to.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config, Resource};
use mizzen_ca::{Ca, CaSettings};
use mizzen_desired::Settings;
use mizzen_webhook::{IstiodWebhooks, OperatorWebhooks, ServicePort};
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const MESH: &str = "mizzen-webhook-mesh";
const MEMBER: &str = "mizzen-webhook-member";
const OPERATOR: &str = "mizzen-webhook-operator";

async fn config() -> Option<Config> {
    let Some(path) = std::env::var_os("MIZZEN_TEST_KUBECONFIG") else {
        eprintln!("skipped: set MIZZEN_TEST_KUBECONFIG to the kubeconfig of an API server on this machine");
        return None;
    };
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    Some(
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap(),
    )
}

async fn apply<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(object))
        .await
        .unwrap()
}

async fn namespace(client: &Client, name: &str, labels: Value) {
    let api: Api<Namespace> = Api::all(client.clone());
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    apply(&api, object).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    apply(
        &accounts,
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
    )
    .await;
}

async fn crds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/crd");
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let object: Value = serde_saphyr::from_str(&text).unwrap();
        if object["kind"] == "CustomResourceDefinition" {
            apply(&api, object).await;
        }
    }
    for _ in 0..100 {
        let served = api.list(&Default::default()).await.unwrap().items.iter().all(|crd| {
            let conditions = crd.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Established" && condition.status == "True")
        });
        if served {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the CRDs are not served");
}

fn dynamic(client: &Client, namespace: &str, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn object(api_version: &str, kind: &str, name: &str, spec: Value) -> DynamicObject {
    let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn pod(labels: Value, annotations: Value) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "cart-", "labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "i"}]},
    }))
    .unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        other => panic!("{other:?}"),
    }
}

/// Tries until webhooks have spread through the API server.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, attempt: impl Fn() -> F) -> T {
    for _ in 0..150 {
        if let Some(value) = attempt().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} did not happen within 15 s");
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn ca() -> Ca {
    Ca::ephemeral(CaSettings::default()).unwrap()
}

// B1, B3, B5, B7, C1
#[tokio::test(flavor = "multi_thread")]
async fn pods_and_routes_through_istiods_webhooks() {
    let Some(config) = config().await else { return };
    let client = Client::try_from(config).unwrap();
    namespace(&client, MESH, json!({})).await;
    namespace(&client, MEMBER, json!({"maistra.io/member-of": MESH})).await;
    crds(&client).await;
    let values = json!({"revision": "t5", "meshNamespace": MESH, "images": {"registry": "r", "tag": "t"}}).to_string();
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), MESH);
    let name = "istio-sidecar-injector-t5";
    let config_map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"values": values}});
    apply(&config_maps, config_map).await;

    let (listener, address) = listener().await;
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let (injection, validation) = (format!("istiod-t5-{MESH}"), format!("istio-validator-t5-{MESH}"));
    let webhook = |name: &str, path: &str, group: &str, resource: &str| {
        json!({
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "clientConfig": {"url": format!("https://{address}{path}")}, "timeoutSeconds": 5,
            "namespaceSelector": {"matchLabels": {"maistra.io/member-of": MESH}},
            "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE"], "resources": [resource]}],
        })
    };
    let configuration = |kind: &str, name: &str, webhook: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [webhook],
        })
    };
    let hook = webhook("pods.t5.mizzen.io", "/inject", "", "pods");
    apply(
        &mutating,
        configuration("MutatingWebhookConfiguration", &injection, hook),
    )
    .await;
    let hook = webhook(
        "routes.t5.mizzen.io",
        "/validate",
        "networking.istio.io",
        "virtualservices",
    );
    apply(
        &validating,
        configuration("ValidatingWebhookConfiguration", &validation, hook),
    )
    .await;

    let ca = ca();
    let tls = ca.webhook_config(&["127.0.0.1".to_owned()]).unwrap();
    let webhooks = IstiodWebhooks::new(client.clone(), "t5", MESH, &mut Registry::default());
    let stop = CancellationToken::new();
    let running = webhooks
        .clone()
        .run(listener, tls, ca.root_pem(), stop.clone(), Duration::from_secs(2));
    let running = tokio::spawn(running);

    // The CA bundle is written; then a pod that asks is injected.
    let pods: Api<Pod> = Api::namespaced(client.clone(), MEMBER);
    let asks = || json!({"sidecar.istio.io/inject": "true"});
    let injected = eventually("injection", || async {
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        pods.create(&dry, &pod(asks(), json!({}))).await.ok()
    })
    .await;
    assert!(webhooks.is_ready());
    let spec = injected.spec.unwrap();
    let names: Vec<_> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| container.name.as_str())
        .collect();
    assert_eq!(names, ["istio-init", "istio-proxy"]);
    assert_eq!(injected.metadata.annotations.unwrap()["istio.io/rev"], "t5");

    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let silent = pods.create(&dry, &pod(json!({}), json!({}))).await.unwrap();
    assert!(silent.spec.unwrap().init_containers.is_none());
    let bad = pod(asks(), json!({"traffic.sidecar.istio.io/excludeInboundPorts": "http"}));
    let (code, message) = refusal(pods.create(&dry, &bad).await);
    assert_eq!(code, 400);
    assert!(
        message.contains("annotation traffic.sidecar.istio.io/excludeInboundPorts has the value \"http\""),
        "{message}"
    );

    // A label that the watch cannot have seen yet counts at once.
    let labelled = json!({"maistra.io/member-of": MESH, "istio-injection": "enabled"});
    namespace(&client, MEMBER, labelled).await;
    let silent = pods.create(&dry, &pod(json!({}), json!({}))).await.unwrap();
    assert_eq!(silent.spec.unwrap().init_containers.unwrap().len(), 2);
    namespace(&client, MEMBER, json!({"maistra.io/member-of": MESH})).await;

    // Routes.
    let routes = dynamic(&client, MEMBER, "networking.istio.io", "v1", "VirtualService");
    let to = |weight: i32| json!([{"destination": {"host": "a"}, "weight": weight}, {"destination": {"host": "b"}, "weight": 10}]);
    let route = |weight: i32| {
        object(
            "networking.istio.io/v1",
            "VirtualService",
            "r",
            json!({"hosts": ["a"], "http": [{"route": to(weight)}]}),
        )
    };
    routes.create(&dry, &route(90)).await.unwrap();
    let (_, message) = refusal(routes.create(&dry, &route(-90)).await);
    assert!(message.contains("weight"), "{message}");

    // Somebody takes the bundle out: it comes back.
    let without = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    let without = Patch::Json::<()>(serde_json::from_value(without).unwrap());
    mutating
        .patch(&injection, &PatchParams::default(), &without)
        .await
        .unwrap();
    eventually("repair of the bundle", || async {
        let bundle = mutating
            .get(&injection)
            .await
            .ok()?
            .webhooks?
            .first()?
            .client_config
            .ca_bundle
            .clone()?;
        (bundle.0 == ca.root_pem().into_bytes()).then_some(())
    })
    .await;

    stop.cancel();
    running.await.unwrap();
    mutating.delete(&injection, &DeleteParams::default()).await.unwrap();
    validating.delete(&validation, &DeleteParams::default()).await.unwrap();
}

// A1, A3, A4
#[tokio::test(flavor = "multi_thread")]
async fn the_operators_kinds_through_its_webhooks() {
    let Some(config) = config().await else { return };
    let client = Client::try_from(config.clone()).unwrap();
    let (mesh, other, member) = ("mizzen-webhook-smcp", "mizzen-webhook-smcp2", "mizzen-webhook-smm");
    for name in [OPERATOR, mesh, other, member] {
        namespace(&client, name, json!({})).await;
    }
    crds(&client).await;
    let (listener, address) = listener().await;
    let services: Api<Service> = Api::namespaced(client.clone(), OPERATOR);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hooks"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    apply(&services, service).await;

    let settings = Settings {
        operator_namespace: OPERATOR.into(),
        operator_version: "1.0.0".into(),
        image_registry: "r".into(),
        image_tag: "t".into(),
    };
    let ca = ca();
    let tls = ca.webhook_config(&[format!("hooks.{OPERATOR}.svc")]).unwrap();
    let user = format!("system:serviceaccount:{OPERATOR}:mizzen-operator");
    let webhooks = OperatorWebhooks::new(client.clone(), settings, user, &mut Registry::default());
    let service = ServicePort {
        namespace: OPERATOR.into(),
        name: "hooks".into(),
        port: address.port().into(),
    };
    let stop = CancellationToken::new();
    let running = webhooks.run(
        listener,
        tls,
        service,
        ca.root_pem(),
        stop.clone(),
        Duration::from_secs(2),
    );
    let running = tokio::spawn(running);

    // Defaults are filled in as soon as the configuration is there.
    let meshes = dynamic(&client, mesh, "maistra.io", "v2", "ServiceMeshControlPlane");
    let control_plane = |name: &str, spec: Value| object("maistra.io/v2", "ServiceMeshControlPlane", name, spec);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let defaulted = eventually("mutation", || async {
        let created = meshes.create(&dry, &control_plane("basic", json!({}))).await.ok()?;
        (created.data["spec"]["version"] == mizzen_desired::VERSION).then_some(created)
    })
    .await;
    assert_eq!(defaulted.data["spec"]["profiles"], json!(["default"]));
    let _ = meshes.delete("basic", &DeleteParams::default()).await;
    meshes
        .create(&PostParams::default(), &control_plane("basic", json!({})))
        .await
        .unwrap();
    let (_, message) = refusal(meshes.create(&dry, &control_plane("second", json!({}))).await);
    assert!(message.contains(&format!("{mesh}/basic is there already")), "{message}");
    let elsewhere = dynamic(&client, other, "maistra.io", "v2", "ServiceMeshControlPlane");
    let (_, message) = refusal(
        elsewhere
            .create(&dry, &control_plane("x", json!({"profiles": ["none"]})))
            .await,
    );
    assert!(message.contains("there is no profile `none`"), "{message}");

    // A roll loses its own namespace and must be named default.
    let rolls = dynamic(&client, mesh, "maistra.io", "v1", "ServiceMeshMemberRoll");
    let roll = |name: &str| {
        object(
            "maistra.io/v1",
            "ServiceMeshMemberRoll",
            name,
            json!({"members": [member, mesh]}),
        )
    };
    let created = rolls.create(&dry, &roll("default")).await.unwrap();
    assert_eq!(created.data["spec"]["members"], json!([member]));
    assert_eq!(refusal(rolls.create(&dry, &roll("mine")).await).0 / 100, 4);

    // A user who may make members of her own namespace may join a mesh only with the right to use it.
    let ann = {
        let mut config = config;
        config.auth_info.impersonate = Some("ann".to_owned());
        Client::try_from(config).unwrap()
    };
    let rbac = "rbac.authorization.k8s.io/v1";
    let subject = json!([{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}]);
    let reference =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let cluster_roles: Api<ClusterRole> = Api::all(client.clone());
    let rules = json!([{"apiGroups": ["maistra.io"], "resources": ["servicemeshmembers"], "verbs": ["create"]}]);
    let role = json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "t5-members"}, "rules": rules});
    apply(&cluster_roles, role).await;
    let cluster_bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let binding = json!({
        "apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "t5-members"}, "subjects": subject,
        "roleRef": reference("ClusterRole", "t5-members"),
    });
    apply(&cluster_bindings, binding).await;
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), mesh);
    let _ = bindings.delete("t5-users", &DeleteParams::default()).await;

    let members = dynamic(&ann, member, "maistra.io", "v1", "ServiceMeshMember");
    let joins = json!({"controlPlaneRef": {"name": "basic", "namespace": mesh}});
    let joins = object("maistra.io/v1", "ServiceMeshMember", "default", joins);
    let message = eventually("refusal by right", || async {
        match members.create(&dry, &joins).await {
            Err(kube::Error::Api(status)) if status.message.contains("ann may not") => Some(status.message.clone()),
            _ => None,
        }
    })
    .await;
    assert!(
        message.contains(&format!("joining the mesh {mesh}/basic needs the right to use")),
        "{message}"
    );
    let roles: Api<Role> = Api::namespaced(client.clone(), mesh);
    let rules = json!([{"apiGroups": ["maistra.io"], "resources": ["servicemeshcontrolplanes"], "verbs": ["use"]}]);
    apply(
        &roles,
        json!({"apiVersion": rbac, "kind": "Role", "metadata": {"name": "t5-users"}, "rules": rules}),
    )
    .await;
    let binding = json!({
        "apiVersion": rbac, "kind": "RoleBinding", "metadata": {"name": "t5-users"}, "subjects": subject,
        "roleRef": reference("Role", "t5-users"),
    });
    apply(&bindings, binding).await;
    eventually("joining", || async { members.create(&dry, &joins).await.ok() }).await;

    meshes.delete("basic", &DeleteParams::default()).await.unwrap();
    stop.cancel();
    running.await.unwrap();
    let name = format!("{OPERATOR}.servicemesh-resources.maistra.io");
    Api::<MutatingWebhookConfiguration>::all(client.clone())
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    Api::<ValidatingWebhookConfiguration>::all(client)
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
}
