//! All objects that controllers look at: one cache per kind, shared by all controllers, so that each kind is watched once.

use std::sync::{Arc, OnceLock};

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{Config, watcher},
    },
};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    cache::Cache,
    plan::{Verb, Write},
    queue::Key,
};

macro_rules! world {
    ($($(#[$doc:meta])* $field:ident: $kind:ty, $fields:literal;)*) => {
        /// See the module.
        #[derive(Default)]
        pub(crate) struct World {
            $($(#[$doc])* pub(crate) $field: Cache<$kind>,)*
            /// The certificates by which pods know the API server, as PEM.
            pub(crate) root_ca: OnceLock<String>,
        }

        impl World {
            /// Starts to watch all kinds; the tasks end when the set is dropped.
            pub(crate) fn watch(self: &Arc<Self>, client: &Client, tasks: &mut JoinSet<()>) {
                $({
                    let (world, api) = (self.clone(), Api::<$kind>::all(client.clone()));
                    tasks.spawn(async move {
                        let mut events = watcher(api, Config::default().fields($fields)).default_backoff().boxed();
                        while let Some(event) = events.next().await {
                            match event {
                                Ok(event) => world.$field.apply(event),
                                Err(error) => tracing::debug!(kind = stringify!($field), %error, "watch interrupted"),
                            }
                        }
                    });
                })*
            }

            /// Waits until every kind has been listed.
            pub(crate) async fn synced(&self) {
                $(self.$field.synced().await;)*
            }

            /// Takes in the server's answer to a write of ours, ahead of the watch.
            pub(crate) fn answered(&self, write: &Write, answer: Value) {
                $(if write.plural == <$kind as k8s_openapi::Resource>::URL_PATH_SEGMENT
                    && write.api_version == <$kind as k8s_openapi::Resource>::API_VERSION
                {
                    return answered(&self.$field, write, answer);
                })*
            }
        }
    };
}

world! {
    /// core/v1
    config_maps: ConfigMap, "metadata.name=kube-root-ca.crt";
    /// core/v1
    endpoints: Endpoints, "";
    /// core/v1
    namespaces: Namespace, "";
    /// core/v1
    nodes: Node, "";
    /// core/v1
    claims: PersistentVolumeClaim, "";
    /// core/v1
    pods: Pod, "";
    /// core/v1
    services: Service, "";
    /// core/v1
    service_accounts: ServiceAccount, "metadata.name=default";
    /// apps/v1
    revisions: ControllerRevision, "";
    /// apps/v1
    daemon_sets: DaemonSet, "";
    /// apps/v1
    deployments: Deployment, "";
    /// apps/v1
    replica_sets: ReplicaSet, "";
    /// apps/v1
    stateful_sets: StatefulSet, "";
    /// batch/v1
    cron_jobs: CronJob, "";
    /// batch/v1
    jobs: Job, "";
    /// discovery.k8s.io/v1
    endpoint_slices: EndpointSlice, "";
    /// policy/v1
    budgets: PodDisruptionBudget, "";
}

fn answered<K>(cache: &Cache<K>, write: &Write, answer: Value)
where
    K: k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
    K: serde::de::DeserializeOwned,
{
    // A deletion is answered by a Status, by the object as it was, or by the object that now waits for its end.
    let meta = |name: &str| answer.pointer(&format!("/metadata/{name}"));
    let waits = meta("finalizers").is_some_and(|f| f.as_array().is_some_and(|f| !f.is_empty()))
        || meta("deletionGracePeriodSeconds")
            .and_then(Value::as_i64)
            .unwrap_or_default()
            > 0;
    let deleted = write.verb == Verb::Delete;
    match serde_json::from_value::<K>(answer) {
        Ok(object) if deleted && !waits => cache.gone(&object),
        Ok(object) => cache.put(object),
        // a Status: it is gone
        Err(_) if write.verb == Verb::Delete => {
            let key = Key::new(write.namespace.as_deref().unwrap_or_default(), &write.name);
            cache.forget(&key, write.body.pointer("/preconditions/uid").and_then(Value::as_str));
        }
        Err(_) => {}
    }
}
