//! Garbage collection: an object whose owners are all gone goes too. In: metadata of every object of every resource, also of those that
//! come with a CustomResourceDefinition. Out: deletions, and finalizers and owner references taken away. Nothing is deleted on the
//! word of a watch: the object and its owners are asked for first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{
    Api, Client,
    core::{DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use self::graph::{Decision, Ending, FOREGROUND, Graph, ORPHAN, Owner, decide};
use crate::{
    plan::put,
    queue::{Key, Queue},
    resources::{Resource, metadata, resources},
    work::request,
};

mod graph;

/// Resources are discovered anew this often, and at once when a CustomResourceDefinition changes.
const REFRESH: Duration = Duration::from_secs(30);
/// A definition that changed is served a moment later.
const SETTLE: Duration = Duration::from_millis(300);
/// An object that could not be looked at is looked at again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// An object that has changed since it was looked at is looked at again after this.
const SOON: Duration = Duration::from_millis(20);
/// Events are many and nobody owns them or is owned by them.
const IGNORED: &str = "events";

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    /// Every resource that was ever watched, by the index that the graph knows.
    resources: Mutex<Vec<Resource>>,
    looks: Queue,
    definitions: Notify,
    /// Objects with an owner of a kind that was not served: looked at again when new kinds are.
    unsure: Mutex<BTreeSet<String>>,
}

/// Collects garbage forever.
pub(crate) async fn run(client: Client) {
    let collector = Arc::new(Collector {
        client,
        graph: Mutex::default(),
        resources: Mutex::default(),
        looks: Queue::default(),
        definitions: Notify::new(),
        unsure: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    let (ready_tx, mut ready) = watch::channel(false);
    tasks.spawn(collector.clone().watch(ready_tx));
    // Who waits for dependents is let go only when all that could depend on it is known.
    if ready.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    loop {
        let key = collector.looks.next().await;
        if let Err(error) = collector.look(&key.name).await {
            tracing::debug!(uid = key.name, %error, "garbage will be looked at again");
            let conflict = matches!(&error, kube::Error::Api(status) if status.code == 409);
            collector
                .looks
                .add_at(key, Instant::now() + if conflict { SOON } else { AGAIN });
        }
    }
}

impl Collector {
    /// Keeps a watch on each resource that is served.
    async fn watch(self: Arc<Self>, ready: watch::Sender<bool>) {
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut watched: BTreeMap<String, AbortHandle> = BTreeMap::new();
        loop {
            match resources(&self.client).await {
                Ok(served) => {
                    let watchable =
                        |r: &Resource| r.can("list") && r.can("watch") && r.can("delete") && r.api.plural != IGNORED;
                    let served: BTreeMap<_, _> = served
                        .into_iter()
                        .filter(watchable)
                        .map(|r| (r.path("", ""), r))
                        .collect();
                    watched.retain(|path, task| {
                        let keep = served.contains_key(path);
                        if !keep {
                            task.abort();
                        }
                        keep
                    });
                    let mut listed = Vec::new();
                    for (path, resource) in served {
                        watched.entry(path).or_insert_with(|| {
                            let (listed_tx, listed_rx) = watch::channel(false);
                            listed.push(listed_rx);
                            tasks.spawn(self.clone().follow(resource, listed_tx))
                        });
                    }
                    let new = !listed.is_empty();
                    for mut listed in listed {
                        // A resource that cannot be listed must not keep all others from being collected.
                        let _ = tokio::time::timeout(REFRESH, listed.wait_for(|listed| *listed)).await;
                    }
                    ready.send_replace(true);
                    if new {
                        let unsure = std::mem::take(&mut *self.unsure.lock());
                        unsure.iter().for_each(|uid| self.looks.add(Key::new("", uid)));
                    }
                }
                Err(error) => tracing::debug!(%error, "discovery failed"),
            }
            let pause = if *ready.borrow() { REFRESH } else { AGAIN };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.definitions.notified() => tokio::time::sleep(SETTLE).await,
            }
        }
    }

    /// Brings the objects of one resource into the graph.
    async fn follow(self: Arc<Self>, resource: Resource, listed: watch::Sender<bool>) {
        let index = {
            let mut resources = self.resources.lock();
            resources.push(resource.clone());
            resources.len() - 1
        };
        let definitions = resource.api.plural == "customresourcedefinitions";
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(self.client.clone(), &resource.api);
        let mut events = watcher(api, Config::default()).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let Ok(event) = event else { continue };
            let done = matches!(event, Event::InitDone);
            let looks = {
                let mut graph = self.graph.lock();
                match event {
                    Event::Apply(object) | Event::InitApply(object) => graph.put(index, &object.metadata),
                    Event::Delete(object) => graph.remove(object.metadata.uid.as_deref().unwrap_or_default()),
                    Event::Init => {
                        graph.list(index);
                        Vec::new()
                    }
                    Event::InitDone => graph.listed(index),
                }
            };
            looks.into_iter().for_each(|uid| self.looks.add(Key::new("", &uid)));
            if done {
                listed.send_replace(true);
            }
            if definitions {
                self.definitions.notify_one();
            }
        }
    }

    /// Looks at one object and does what is to be done with it.
    async fn look(&self, uid: &str) -> Result<(), kube::Error> {
        let Some(node) = self.graph.lock().node(uid).cloned() else {
            return Ok(());
        };
        let Some(resource) = self.resources.lock().get(node.resource).cloned() else {
            return Ok(());
        };
        let path = resource.path(&node.namespace, &node.name);
        let Some(meta) = self.meta(&path).await?.filter(|meta| meta.uid.as_deref() == Some(uid)) else {
            return Ok(());
        };
        match Ending::of(&meta) {
            Ending::Foreground => return self.foreground(uid, &path, &meta).await,
            Ending::Orphan => return self.orphan(uid, &path, &meta).await,
            Ending::Plain => return Ok(()),
            Ending::No => {}
        }
        let mut owners = Vec::new();
        for owner in meta.owner_references.clone().unwrap_or_default() {
            let how = self.owner(uid, &owner, &node.namespace).await?;
            owners.push((owner, how));
        }
        let has_dependents = !self.graph.lock().dependents(uid).is_empty();
        match decide(&owners, has_dependents) {
            Decision::Keep => Ok(()),
            Decision::Owners(rest) => self.patch(&path, &meta, json!({"ownerReferences": rest})).await,
            Decision::Delete { foreground } => {
                let policy = if foreground { "Foreground" } else { "Background" };
                let conditions = json!({"uid": uid, "resourceVersion": meta.resource_version});
                let options = json!({"propagationPolicy": policy, "preconditions": conditions});
                accept(request(&self.client, Method::DELETE, &path, "application/json", &options).await)
            }
        }
    }

    /// Lets an object go whose dependents are gone, and looks at those that are not.
    async fn foreground(&self, uid: &str, path: &str, meta: &ObjectMeta) -> Result<(), kube::Error> {
        let blockers = self.graph.lock().blockers(uid);
        if blockers.is_empty() {
            return self.let_go(path, meta, FOREGROUND).await;
        }
        blockers.into_iter().for_each(|uid| self.looks.add(Key::new("", &uid)));
        Ok(())
    }

    /// Takes an owner that leaves its dependents from them, and lets it go.
    async fn orphan(&self, uid: &str, path: &str, meta: &ObjectMeta) -> Result<(), kube::Error> {
        let dependents = self.graph.lock().dependents(uid);
        for dependent in dependents {
            let Some(node) = self.graph.lock().node(&dependent).cloned() else {
                continue;
            };
            let Some(resource) = self.resources.lock().get(node.resource).cloned() else {
                continue;
            };
            let path = resource.path(&node.namespace, &node.name);
            let Some(meta) = self.meta(&path).await? else { continue };
            let rest: Vec<_> = meta
                .owner_references
                .iter()
                .flatten()
                .filter(|owner| owner.uid != uid)
                .collect();
            self.patch(&path, &meta, json!({"ownerReferences": rest})).await?;
        }
        self.let_go(path, meta, ORPHAN).await
    }

    async fn let_go(&self, path: &str, meta: &ObjectMeta, finalizer: &str) -> Result<(), kube::Error> {
        let rest: Vec<_> = meta
            .finalizers
            .iter()
            .flatten()
            .filter(|known| *known != finalizer)
            .collect();
        self.patch(path, meta, json!({"finalizers": rest})).await
    }

    /// What an owner is; it is in the namespace of its dependent or in none.
    async fn owner(&self, dependent: &str, owner: &OwnerReference, namespace: &str) -> Result<Owner, kube::Error> {
        let known = self.graph.lock().node(&owner.uid).cloned();
        let resource = self
            .resources
            .lock()
            .iter()
            .rev()
            .find(|r| {
                let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
                r.api.kind == owner.kind && r.api.group == group
            })
            .cloned();
        let Some(resource) = resource else {
            // A kind that is not served: its objects may come back with it, so nothing is deleted for now.
            self.unsure.lock().insert(dependent.to_owned());
            return Ok(Owner::Solid);
        };
        if let Some(node) = known {
            // What the graph knows may be out of date only in that the owner is gone: the watch will tell.
            let right_place = !resource.namespaced || node.namespace == namespace;
            return Ok(match node.ending {
                _ if !right_place => Owner::Gone,
                Ending::Foreground => Owner::Waiting,
                _ => Owner::Solid,
            });
        }
        let found = self.meta(&resource.path(namespace, &owner.name)).await?;
        Ok(match found.filter(|meta| meta.uid.as_ref() == Some(&owner.uid)) {
            None => Owner::Gone,
            Some(meta) if Ending::of(&meta) == Ending::Foreground => Owner::Waiting,
            Some(_) => Owner::Solid,
        })
    }

    async fn meta(&self, path: &str) -> Result<Option<ObjectMeta>, kube::Error> {
        match metadata(&self.client, path, false).await {
            Ok(object) => serde_json::from_value(object.get("metadata").cloned().unwrap_or_default())
                .map(Some)
                .map_err(kube::Error::SerdeError),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn patch(&self, path: &str, meta: &ObjectMeta, mut change: Value) -> Result<(), kube::Error> {
        put(&mut change, &["uid"], json!(meta.uid));
        put(&mut change, &["resourceVersion"], json!(meta.resource_version));
        let body = json!({"metadata": change});
        accept(request(&self.client, Method::PATCH, path, "application/merge-patch+json", &body).await)
    }
}

/// What is gone already is as good as done.
fn accept(outcome: Result<Value, (u16, String)>) -> Result<(), kube::Error> {
    match outcome {
        Ok(_) | Err((404, _)) => Ok(()),
        Err((code, message)) => {
            let status = kube::core::Status::failure(&message, "").with_code(code);
            Err(kube::Error::Api(status.boxed()))
        }
    }
}
