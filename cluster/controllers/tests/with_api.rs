//! The controllers on the API of this workspace, both in this process, with the test as the node: what `kubectl` would see from the
//! creation of a Deployment to the end of its namespace. Every wait is a watch; the limit only ends a test that hangs.

// N1

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may fail loudly")]

use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Namespace, Node, Pod, Service, ServiceAccount},
        discovery::v1::EndpointSlice,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
    runtime::wait::{Condition as _, await_condition, conditions},
};
use mizzen_api::user::User;
use mizzen_controllers::{Options, run};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A hang is a failure; nothing here takes this long.
const LIMIT: Duration = Duration::from_secs(60);

struct Cluster {
    client: Client,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
        let api = mizzen_api::Api::open(mizzen_api::Options::default()).await.unwrap();
        let client = |user| Client::new(api.service(user), "default");
        let shutdown = CancellationToken::new();
        let options = Options {
            root_ca: api.ca().to_owned(),
            schedule: true,
        };
        let controllers = client(User::system("system:kube-controller-manager"));
        let task = tokio::spawn(run(controllers, options, shutdown.clone()));
        Self {
            client: client(User::admin()),
            shutdown,
            task,
        }
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

async fn create<K: Clone + DeserializeOwned + Serialize + std::fmt::Debug>(api: &Api<K>, object: Value) -> K {
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .unwrap()
}

/// Waits until an object is as it should be.
async fn until<K>(api: &Api<K>, name: &str, holds: impl Fn(&K) -> bool)
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + DeserializeOwned + 'static,
{
    let condition = |object: Option<&K>| object.is_some_and(&holds);
    let outcome = tokio::time::timeout(LIMIT, await_condition(api.clone(), name, condition)).await;
    outcome.unwrap_or_else(|_| panic!("{name} never gets there")).unwrap();
}

async fn gone<K>(api: &Api<K>, object: &K)
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + DeserializeOwned + 'static,
{
    let (name, uid) = (object.name_any(), object.uid().unwrap());
    let wait = await_condition(api.clone(), &name, conditions::is_deleted(&uid));
    tokio::time::timeout(LIMIT, wait)
        .await
        .unwrap_or_else(|_| panic!("{name} never goes"))
        .unwrap();
}

async fn status<K: Clone + DeserializeOwned + std::fmt::Debug>(api: &Api<K>, name: &str, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn node(cluster: &Cluster) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    create(&nodes, json!({"metadata": {"name": "n1"}})).await;
    let ready = json!({
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "conditions": [{"type": "Ready", "status": "True"}],
    });
    status(&nodes, "n1", ready).await;
}

fn deployment() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "c", "image": "image", "ports": [{"name": "http", "containerPort": 8080}]}]}},
    }})
}

/// Waits until all pods of the Deployment are bound, and makes them ready.
async fn start_pods(cluster: &Cluster, namespace: &str) {
    let pods: Api<Pod> = cluster.api(namespace);
    until::<Deployment>(&cluster.api(namespace), "web", |web| {
        web.status.as_ref().is_some_and(|status| status.replicas == Some(2))
    })
    .await;
    for (number, pod) in pods.list(&ListParams::default()).await.unwrap().into_iter().enumerate() {
        until(&pods, &pod.name_any(), |pod: &Pod| {
            pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
        })
        .await;
        let ip = format!("10.244.0.{}", number + 1);
        let running = json!({
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T00:00:00Z"}],
        });
        status(&pods, &pod.name_any(), running).await;
    }
}

#[tokio::test]
async fn a_deployment_becomes_pods_and_endpoints_and_goes_with_its_namespace() {
    let cluster = Cluster::start().await;
    node(&cluster).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = create(&namespaces, json!({"metadata": {"name": "shop"}})).await;
    until::<ServiceAccount>(&cluster.api("shop"), "default", |_| true).await;
    until::<ConfigMap>(&cluster.api("shop"), "kube-root-ca.crt", |map| {
        map.data
            .as_ref()
            .is_some_and(|data| data["ca.crt"].contains("BEGIN CERTIFICATE"))
    })
    .await;

    let services: Api<Service> = cluster.api("shop");
    create(
        &services,
        json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
    )
    .await;
    let deployments: Api<Deployment> = cluster.api("shop");
    create(&deployments, deployment()).await;
    start_pods(&cluster, "shop").await;
    until(&deployments, "web", |web| {
        let conditions = web.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut reasons: Vec<_> = conditions.filter_map(|c| c.reason.as_deref()).collect();
        reasons.sort_unstable();
        reasons == ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]
    })
    .await;
    let slices: Api<EndpointSlice> = cluster.api("shop");
    let slice = slices.list(&ListParams::default()).await.unwrap().items.remove(0);
    until(&slices, &slice.name_any(), |slice: &EndpointSlice| {
        let ready = |e: &k8s_openapi::api::discovery::v1::Endpoint| {
            e.conditions.as_ref().is_some_and(|c| c.ready == Some(true))
        };
        let ports: Vec<_> = slice.ports.iter().flatten().filter_map(|port| port.port).collect();
        slice.endpoints.len() == 2 && slice.endpoints.iter().all(ready) && ports == [8080]
    })
    .await;

    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    // The node ends the pods, as it is told.
    let pods: Api<Pod> = cluster.api("shop");
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        until(&pods, &pod.name_any(), |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_some()
        })
        .await;
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
            .await
            .unwrap();
    }
    gone(&namespaces, &namespace).await;
    assert_eq!(deployments.list(&ListParams::default()).await.unwrap().items.len(), 0);
    cluster.end().await;
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner_in_the_foreground_in_the_background_or_not_at_all() {
    let cluster = Cluster::start().await;
    node(&cluster).await;
    let deployments: Api<Deployment> = cluster.api("default");
    let sets: Api<ReplicaSet> = cluster.api("default");
    let pods: Api<Pod> = cluster.api("default");

    create(&deployments, deployment()).await;
    start_pods(&cluster, "default").await;
    let web = deployments.get("web").await.unwrap();
    deployments.delete("web", &DeleteParams::orphan()).await.unwrap();
    gone(&deployments, &web).await;
    let set = sets.list(&ListParams::default()).await.unwrap().items.remove(0);
    assert_eq!(set.owner_references().len(), 0);

    // Made anew, the Deployment takes its ReplicaSet back, and waits for it and its pods when it ends.
    let web = create(&deployments, deployment()).await;
    until(&sets, &set.name_any(), |set: &ReplicaSet| {
        set.owner_references()
            .iter()
            .any(|o| Some(&o.uid) == web.uid().as_ref())
    })
    .await;
    deployments.delete("web", &DeleteParams::foreground()).await.unwrap();
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        until(&pods, &pod.name_any(), |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_some()
        })
        .await;
        assert!(deployments.get_opt("web").await.unwrap().is_some());
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
            .await
            .unwrap();
    }
    gone(&deployments, &web).await;
    assert_eq!(sets.list(&ListParams::default()).await.unwrap().items.len(), 0);
    cluster.end().await;
}

#[tokio::test]
async fn an_owner_of_a_kind_that_came_later_is_known() {
    let cluster = Cluster::start().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    create(&definitions, json!({"metadata": {"name": "things.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}))
    .await;
    until(&definitions, "things.example.com", |d| {
        conditions::is_crd_established().matches_object(Some(d))
    })
    .await;
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.com", "v1", "Thing"), "things");
    let things: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), "default", &resource);
    let thing = things
        .create(&PostParams::default(), &DynamicObject::new("t", &resource))
        .await
        .unwrap();
    let maps: Api<ConfigMap> = cluster.api("default");
    let owner = json!([{"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": thing.uid()}]);
    let map = create(&maps, json!({"metadata": {"name": "m", "ownerReferences": owner}})).await;
    things.delete("t", &DeleteParams::default()).await.unwrap();
    gone(&maps, &map).await;
    cluster.end().await;
}
