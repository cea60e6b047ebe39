//! A client of the `kube` crate works in process: typed objects, watches, patches, custom resources.

#[path = "support/client.rs"]
mod support;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use mizzen_api::user::User;
use serde_json::json;
use support::memory;

#[tokio::test]
async fn a_typed_client_lists_watches_and_applies() {
    let api = memory().await;
    let client = kube::Client::new(api.service(User::admin()), "default");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    assert_eq!(namespaces.list(&ListParams::default()).await.unwrap().items.len(), 4);
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut events = watcher(maps.clone(), watcher::Config::default().streaming_lists())
        .applied_objects()
        .boxed();
    let object: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).unwrap();
    maps.create(&PostParams::default(), &object).await.unwrap();
    let seen = events.try_next().await.unwrap().unwrap();
    assert_eq!(seen.metadata.name.as_deref(), Some("a"));
    let change = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"l": "2"}});
    let applied = maps
        .patch("a", &PatchParams::apply("me"), &Patch::Apply(&change))
        .await
        .unwrap();
    assert_eq!(applied.data.unwrap().len(), 2);
    let seen = events.try_next().await.unwrap().unwrap();
    assert_eq!(seen.data.unwrap().len(), 2);
    let missing = maps.get("nope").await.unwrap_err();
    assert!(matches!(missing, kube::Error::Api(status) if status.code == 404));
}
