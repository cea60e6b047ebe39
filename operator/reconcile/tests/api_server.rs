//! The operator against a real API server, without controllers or nodes: this test plays them.
//!
//! It runs where `MIZZEN_TEST_KUBECONFIG` names the kubeconfig of an API server that holds no mesh yet and may be written to.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]
// A1, A3, A4, A8, A12

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use mizzen_crds::maistra::{ServiceMeshControlPlane, ServiceMeshMember, ServiceMeshMemberRoll};
use mizzen_operator::{Args, apply};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const MESH: &str = "istio-system";

struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start(client: &Client, identity: &str) -> Self {
        let args = Args {
            namespace: "mizzen-operator".to_owned(),
            identity: identity.to_owned(),
            image_registry: "registry.example/mizzen".to_owned(),
            image_tag: "1".to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(mizzen_operator::run(
            client.clone(),
            args,
            Registry::default(),
            stop.clone(),
        ));
        Self { stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Waits until `look` gives something. It is a test of a live system: there is no clock to pause.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn dynamic(client: &Client, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let (version, _, _, _) = apply::KINDS.iter().find(|(_, k, _, _)| *k == kind).unwrap();
    let (resource, _): (ApiResource, bool) = apply::resource(version, kind).unwrap();
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn merge(api: &Api<DynamicObject>, name: &str, manager: &str, patch: Value) {
    let params = PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    };
    api.patch(name, &params, &Patch::Merge(patch)).await.unwrap();
}

async fn namespace(client: &Client, name: &str) {
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    let _ = Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await;
}

async fn member_of(client: &Client, name: &str) -> Option<String> {
    let found = Api::<Namespace>::all(client.clone()).get(name).await.unwrap();
    found.labels().get("maistra.io/member-of").cloned()
}

/// Plays the deployment controller: every pod of the Deployment is there.
async fn become_available(client: &Client, name: &str) {
    let api = dynamic(client, "Deployment", Some(MESH));
    let found = eventually(name, || async { api.get_opt(name).await.unwrap() }).await;
    let replicas = found.data["spec"]["replicas"].clone();
    let status = json!({"status": {
        "observedGeneration": found.metadata.generation, "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": replicas, "availableReplicas": replicas,
    }});
    let params = PatchParams {
        field_manager: Some("kube-controller-manager".to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(name, &params, &Patch::Merge(status)).await.unwrap();
}

/// Plays istiod: writes the bundle of its webhooks.
async fn write_bundles(client: &Client) {
    for (kind, name) in [
        ("MutatingWebhookConfiguration", "istiod-basic-istio-system"),
        ("ValidatingWebhookConfiguration", "istio-validator-basic-istio-system"),
    ] {
        let api = dynamic(client, kind, None);
        let found = eventually(name, || async { api.get_opt(name).await.unwrap() }).await;
        let webhooks = found.data["webhooks"].as_array().unwrap().len();
        let bundle = base64_of(include_str!("ca.pem"));
        let operations: Vec<_> = (0..webhooks)
            .map(|n| json!({"op": "add", "path": format!("/webhooks/{n}/clientConfig/caBundle"), "value": bundle}))
            .collect();
        let params = PatchParams {
            field_manager: Some("istiod".to_owned()),
            ..PatchParams::default()
        };
        let patch = serde_json::from_value(Value::Array(operations)).unwrap();
        api.patch(name, &params, &Patch::Json::<()>(patch)).await.unwrap();
    }
}

fn base64_of(text: &str) -> String {
    serde_json::to_value(k8s_openapi::ByteString(text.as_bytes().to_vec()))
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned()
}

async fn versions(client: &Client) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for (_, kind, _, _) in apply::KINDS {
        let owned = ListParams::default().labels("maistra.io/owner");
        for object in dynamic(client, kind, None).list(&owned).await.unwrap() {
            let id = format!(
                "{kind} {}/{}",
                object.namespace().unwrap_or_default(),
                object.name_any()
            );
            versions.insert(id, object.resource_version().unwrap());
        }
    }
    for mesh in Api::<ServiceMeshControlPlane>::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap()
    {
        versions.insert(format!("mesh {}", mesh.name_any()), mesh.resource_version().unwrap());
    }
    for roll in Api::<ServiceMeshMemberRoll>::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap()
    {
        versions.insert(format!("roll {}", roll.name_any()), roll.resource_version().unwrap());
    }
    versions
}

fn condition(mesh: &ServiceMeshControlPlane, kind: &str) -> String {
    let status = serde_json::to_value(&mesh.status).unwrap();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|c| c["type"] == kind);
    found
        .map(|c| format!("{} {}", c["status"].as_str().unwrap(), c["reason"].as_str().unwrap()))
        .unwrap_or_default()
}

async fn wait_for(
    meshes: &Api<ServiceMeshControlPlane>,
    name: &str,
    kind: &str,
    want: &str,
) -> ServiceMeshControlPlane {
    eventually(&format!("{name}: {kind} {want}"), || async {
        let mesh = meshes.get(name).await.unwrap();
        (condition(&mesh, kind) == want).then_some(mesh)
    })
    .await
}

async fn client() -> Option<Client> {
    let Some(path) = std::env::var_os("MIZZEN_TEST_KUBECONFIG") else {
        eprintln!("skipped: set MIZZEN_TEST_KUBECONFIG to the kubeconfig of an empty API server");
        return None;
    };
    let file = Kubeconfig::read_from(path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap();
    Some(Client::try_from(config).unwrap())
}

async fn install_crds(client: &Client) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/crd");
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("kustomization.yaml") {
            continue;
        }
        let crd: CustomResourceDefinition = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let name = crd.name_any();
        crds.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&crd))
            .await
            .unwrap();
        eventually(&name, || async {
            let found = crds.get(&name).await.unwrap();
            let conditions = found.status.and_then(|s| s.conditions).unwrap_or_default();
            conditions
                .iter()
                .any(|c| c.type_ == "Established" && c.status == "True")
                .then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_lives() {
    let Some(client) = client().await else { return };
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_test_writer()
        .init();
    install_crds(&client).await;
    for name in ["mizzen-operator", MESH, "tutorial"] {
        namespace(&client, name).await;
    }
    let meshes: Api<ServiceMeshControlPlane> = Api::namespaced(client.clone(), MESH);
    let mesh = |name: &str, spec: Value| -> ServiceMeshControlPlane {
        serde_json::from_value(json!({
            "apiVersion": "maistra.io/v2", "kind": "ServiceMeshControlPlane", "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap()
    };

    // Installing: the gateway waits for the control plane, then all is ready.
    let operator = Running::start(&client, "one");
    meshes
        .create(&PostParams::default(), &mesh("basic", json!({"profiles": ["demo"]})))
        .await
        .unwrap();
    wait_for(&meshes, "basic", "Reconciled", "False PausingInstall").await;
    assert!(
        dynamic(&client, "Deployment", Some(MESH))
            .get_opt("istio-ingressgateway")
            .await
            .unwrap()
            .is_none()
    );
    write_bundles(&client).await;
    become_available(&client, "istiod-basic").await;
    become_available(&client, "istio-ingressgateway").await;
    let ready = wait_for(&meshes, "basic", "Ready", "True ComponentsReady").await;
    assert_eq!(ready.status.unwrap().annotations.unwrap()["readyComponentCount"], "3/3");
    assert_eq!(member_of(&client, MESH).await.as_deref(), Some(MESH));

    // Members by roll, also one that does not exist yet.
    let rolls: Api<ServiceMeshMemberRoll> = Api::namespaced(client.clone(), MESH);
    let roll = serde_json::from_value(json!({
        "apiVersion": "maistra.io/v1", "kind": "ServiceMeshMemberRoll", "metadata": {"name": "default"},
        "spec": {"members": ["tutorial", "later"]},
    }))
    .unwrap();
    rolls.create(&PostParams::default(), &roll).await.unwrap();
    eventually("tutorial joins", || async { member_of(&client, "tutorial").await }).await;
    eventually("later is pending", || async {
        let status = rolls.get("default").await.unwrap().status?;
        (status.pending_members? == ["later"]).then_some(())
    })
    .await;
    namespace(&client, "later").await;
    eventually("later joins", || async { member_of(&client, "later").await }).await;
    eventually("both are configured", || async {
        let status = rolls.get("default").await.unwrap().status?;
        (status.annotations?["configuredMemberCount"] == "2/2").then_some(())
    })
    .await;

    // A restart writes nothing.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = versions(&client).await;
    assert!(before.len() > 15, "{before:?}");
    operator.end().await;
    let operator = Running::start(&client, "two");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(versions(&client).await, before);

    // Drift is repaired: deleted, changed, added to, and stripped of its labels.
    let services: Api<Service> = Api::namespaced(client.clone(), MESH);
    services.delete("istiod-basic", &DeleteParams::default()).await.unwrap();
    let deployments = dynamic(&client, "Deployment", Some(MESH));
    merge(
        &deployments,
        "istiod-basic",
        "kubectl-scale",
        json!({"spec": {"replicas": 5, "paused": true}}),
    )
    .await;
    let maps = dynamic(&client, "ConfigMap", Some(MESH));
    merge(
        &maps,
        "istio-basic",
        "kubectl-edit",
        json!({"data": {"mesh": "nonsense", "more": "x"}}),
    )
    .await;
    let webhooks = dynamic(&client, "MutatingWebhookConfiguration", None);
    let stripped = json!({"metadata": {"labels": {"maistra.io/owner": null}}});
    merge(&webhooks, "istiod-basic-istio-system", "kubectl-label", stripped).await;
    eventually("the service is back", || async {
        services.get_opt("istiod-basic").await.unwrap()
    })
    .await;
    eventually("the deployment is as it was", || async {
        let spec = deployments.get("istiod-basic").await.unwrap().data["spec"].clone();
        (spec["replicas"] == 1 && spec.get("paused").is_none_or(|p| *p == json!(false))).then_some(())
    })
    .await;
    eventually("the configuration is as it was", || async {
        let data = maps.get("istio-basic").await.unwrap().data["data"].clone();
        (data.get("more").is_none() && data["mesh"].as_str()?.contains("trustDomain")).then_some(())
    })
    .await;
    eventually("the label is back, and the bundle was kept", || async {
        let found = webhooks.get("istiod-basic-istio-system").await.unwrap();
        assert!(found.data["webhooks"][0]["clientConfig"]["caBundle"].is_string());
        found.labels().get("maistra.io/owner").cloned()
    })
    .await;

    // Another mesh in the namespace is refused and harms nothing; an invalid spec is told with field and remedy.
    meshes
        .create(&PostParams::default(), &mesh("second", json!({})))
        .await
        .unwrap();
    wait_for(&meshes, "second", "Reconciled", "False ErrMultipleSMCPs").await;
    meshes.delete("second", &DeleteParams::default()).await.unwrap();
    let spec = |spec: Value| Patch::Merge(json!({ "spec": spec }));
    meshes
        .patch("basic", &PatchParams::default(), &spec(json!({"version": "v7"})))
        .await
        .unwrap();
    let refused = wait_for(&meshes, "basic", "Reconciled", "False ValidationError").await;
    let text = serde_json::to_string(&refused.status).unwrap();
    assert!(text.contains("spec.version: there is no version `v7`"), "{text}");
    assert!(deployments.get_opt("istiod-basic").await.unwrap().is_some());

    // Another profile: what is no longer asked for goes.
    let minimal = json!({"version": null, "profiles": ["minimal"]});
    meshes
        .patch("basic", &PatchParams::default(), &spec(minimal))
        .await
        .unwrap();
    become_available(&client, "istiod-basic").await;
    let ready = wait_for(&meshes, "basic", "Ready", "True ComponentsReady").await;
    assert_eq!(ready.status.unwrap().annotations.unwrap()["readyComponentCount"], "2/2");
    assert!(deployments.get_opt("istio-ingressgateway").await.unwrap().is_none());
    assert!(services.get_opt("istio-ingressgateway").await.unwrap().is_none());

    // Leaving the roll cleans; a member's own wish keeps it in.
    let own = serde_json::from_value(json!({
        "apiVersion": "maistra.io/v1", "kind": "ServiceMeshMember", "metadata": {"name": "default"},
        "spec": {"controlPlaneRef": {"name": "basic", "namespace": MESH}},
    }))
    .unwrap();
    let members: Api<ServiceMeshMember> = Api::namespaced(client.clone(), "later");
    members.create(&PostParams::default(), &own).await.unwrap();
    let bundle: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "istio-ca-root-cert", "labels": {"maistra.io/member-of": MESH}},
    }))
    .unwrap();
    let bundles: Api<ConfigMap> = Api::namespaced(client.clone(), "tutorial");
    bundles.create(&PostParams::default(), &bundle).await.unwrap();
    rolls.delete("default", &DeleteParams::default()).await.unwrap();
    eventually("tutorial leaves", || async {
        member_of(&client, "tutorial").await.is_none().then_some(())
    })
    .await;
    eventually("and is clean", || async {
        bundles
            .get_opt("istio-ca-root-cert")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    eventually("later is ready by its own wish", || async {
        let status = serde_json::to_value(members.get("default").await.unwrap().status?).unwrap();
        (status["conditions"][1]["status"] == "True").then_some(())
    })
    .await;
    assert_eq!(member_of(&client, "later").await.as_deref(), Some(MESH));

    // Deleting removes all that was made, and nothing else.
    let mine: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "mine"}})).unwrap();
    let own_maps: Api<ConfigMap> = Api::namespaced(client.clone(), MESH);
    own_maps.create(&PostParams::default(), &mine).await.unwrap();
    meshes.delete("basic", &DeleteParams::default()).await.unwrap();
    eventually("the mesh is gone", || async {
        meshes.get_opt("basic").await.unwrap().is_none().then_some(())
    })
    .await;
    let left: Vec<_> = versions(&client)
        .await
        .into_keys()
        .filter(|id| !id.starts_with("roll "))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(member_of(&client, "later").await, None);
    assert_eq!(member_of(&client, MESH).await, None);
    assert!(own_maps.get_opt("mine").await.unwrap().is_some());
    operator.end().await;
}
