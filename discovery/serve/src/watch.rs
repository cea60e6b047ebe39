//! What happens in Kubernetes, as events for the index.
//!
//! One list and watch per kind for the whole cluster; the index keeps the members' part of it, so that a namespace which joins
//! is known at once. Objects go to the index as they arrive and are not kept here. While the API server is away nothing
//! arrives: what is known stays in force.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Instant};

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Config, Event as WatchEvent},
    },
};
use mizzen_index::{Event, Object, ObjectRef};
use mizzen_model::{Kind, ObjectKey, ObjectName};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{debug, warn};

use crate::status::REFUSED;

/// An event and when it was seen.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) event: Event,
    pub(crate) at: Instant,
}

/// The kinds that must have been listed once before anything is served.
pub(crate) const KINDS: [Kind; 10] = [
    Kind::ConfigMap,
    Kind::DestinationRule,
    Kind::EndpointSlice,
    Kind::Gateway,
    Kind::Namespace,
    Kind::Node,
    Kind::PeerAuthentication,
    Kind::Pod,
    Kind::Service,
    Kind::VirtualService,
];

/// Virtual services of which their status says that proxies refuse them: what was found out before this process began, or by
/// another replica.
pub(crate) type Refused = Arc<Mutex<BTreeSet<ObjectKey>>>;

/// Starts all watches; they end with the set.
pub(crate) fn start(
    client: &Client,
    namespace: &str,
    config_map: &str,
    events_tx: &mpsc::Sender<Incoming>,
    refused: &Refused,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let all = Config::default();
    let mine = Config::default().fields(&format!("metadata.name={config_map}"));
    let watch = Watch {
        client: client.clone(),
        events_tx: events_tx.clone(),
        refused: refused.clone(),
    };
    tasks.spawn(
        watch
            .clone()
            .typed(Api::<Namespace>::all, all.clone(), Kind::Namespace, |o| {
                Object::Namespace(Box::new(o))
            }),
    );
    tasks.spawn(
        watch
            .clone()
            .typed(Api::<Node>::all, all.clone(), Kind::Node, |o| Object::Node(Box::new(o))),
    );
    tasks.spawn(
        watch
            .clone()
            .typed(Api::<Service>::all, all.clone(), Kind::Service, |o| {
                Object::Service(Box::new(o))
            }),
    );
    tasks.spawn(
        watch
            .clone()
            .typed(Api::<EndpointSlice>::all, all.clone(), Kind::EndpointSlice, |o| {
                Object::EndpointSlice(Box::new(o))
            }),
    );
    tasks.spawn(
        watch
            .clone()
            .typed(Api::<Pod>::all, all, Kind::Pod, |o| Object::Pod(Box::new(o))),
    );
    let namespace = namespace.to_owned();
    tasks.spawn(watch.clone().typed(
        move |client| Api::<ConfigMap>::namespaced(client, &namespace),
        mine,
        Kind::ConfigMap,
        |o| Object::ConfigMap(Box::new(o)),
    ));
    for kind in [
        Kind::Gateway,
        Kind::VirtualService,
        Kind::DestinationRule,
        Kind::PeerAuthentication,
    ] {
        tasks.spawn(watch.clone().ours(kind));
    }
    tasks
}

/// How the API server calls one of our kinds.
pub(crate) fn api_resource(kind: Kind) -> ApiResource {
    let group = match kind {
        Kind::PeerAuthentication => mizzen_crds::security::GROUP,
        _ => mizzen_crds::networking::GROUP,
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind.as_str()))
}

#[derive(Clone)]
struct Watch {
    client: Client,
    events_tx: mpsc::Sender<Incoming>,
    refused: Refused,
}

impl Watch {
    async fn typed<K>(
        self,
        api: impl FnOnce(Client) -> Api<K> + Send,
        config: Config,
        kind: Kind,
        object: fn(K) -> Object,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let api = api(self.client.clone());
        self.follow(api, config, kind, move |o| Some(object(o))).await;
    }

    /// Our own kinds come as JSON: one object that cannot be read must not hide the others.
    async fn ours(self, kind: Kind) {
        let resource = api_resource(kind);
        let (version, name) = (resource.api_version.clone(), resource.kind.clone());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let refused = self.refused.clone();
        let object = move |mut o: DynamicObject| {
            if kind == Kind::VirtualService
                && let Some(key) = is_refused(&o)
            {
                refused.lock().insert(key);
            }
            o.metadata.managed_fields = None;
            // The items of a list do not say what they are.
            o.types.get_or_insert_with(|| kube::core::TypeMeta {
                api_version: version.clone(),
                kind: name.clone(),
            });
            serde_json::to_value(o).ok().and_then(Object::from_json)
        };
        self.follow(api, Config::default(), kind, object).await;
    }

    async fn follow<K>(self, api: Api<K>, config: Config, kind: Kind, object: impl Fn(K) -> Option<Object>)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let events = watcher::watcher(api, config).default_backoff();
        pin_mut!(events);
        let mut listed = Vec::new();
        let mut first = true;
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(WatchEvent::Init) => {
                    listed.clear();
                    continue;
                }
                Ok(WatchEvent::InitApply(o)) => {
                    listed.extend(object(o));
                    continue;
                }
                Ok(WatchEvent::InitDone) => {
                    debug!(kind = kind.as_str(), count = listed.len(), "listed");
                    first = false;
                    Event::Replace(kind, std::mem::take(&mut listed))
                }
                Ok(WatchEvent::Apply(o)) => match object(o) {
                    Some(object) => Event::Apply(object),
                    None => continue,
                },
                Ok(WatchEvent::Delete(o)) => Event::Delete(ObjectRef {
                    kind,
                    namespace: o.namespace().unwrap_or_default(),
                    name: o.name_any(),
                }),
                Err(error) if first && is_unknown_kind(&error) => {
                    warn!(
                        kind = kind.as_str(),
                        "the API server does not know this kind: its CRD is missing"
                    );
                    first = false;
                    Event::Replace(kind, Vec::new())
                }
                Err(error) => {
                    warn!(kind = kind.as_str(), %error, "watch interrupted; what is known stays in force");
                    continue;
                }
            };
            if self
                .events_tx
                .send(Incoming {
                    event,
                    at: Instant::now(),
                })
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// The virtual service, if its status says that proxies refuse it as it is.
fn is_refused(object: &DynamicObject) -> Option<ObjectKey> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    let mut refused = conditions.iter().filter(|condition| {
        let seen = condition.get("observedGeneration").and_then(serde_json::Value::as_i64);
        condition.get("reason").and_then(serde_json::Value::as_str) == Some(REFUSED)
            && seen == object.metadata.generation
    });
    refused.next()?;
    Some(ObjectKey::new(
        Kind::VirtualService,
        mizzen_model::Namespace::new(object.metadata.namespace.as_deref()?).ok()?,
        ObjectName::new(object.metadata.name.as_deref()?).ok()?,
    ))
}

fn is_unknown_kind(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // G1
    #[test]
    fn what_proxies_refused_is_known_from_its_status_as_long_as_it_has_not_changed() {
        let object = |generation: i64, reason: &str| -> DynamicObject {
            let condition =
                json!({ "type": "Reconciled", "status": "False", "reason": reason, "observedGeneration": 3 });
            serde_json::from_value(json!({
                "metadata": { "namespace": "shop", "name": "cart", "generation": generation },
                "status": { "conditions": [condition] },
            }))
            .unwrap()
        };
        assert_eq!(is_refused(&object(3, REFUSED)).unwrap().name.as_str(), "cart");
        assert_eq!(is_refused(&object(4, REFUSED)), None);
        assert_eq!(is_refused(&object(3, "Accepted")), None);
    }
}
