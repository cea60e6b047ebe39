//! The ConfigMap `istio-ca-root-cert` in every member namespace: what proxies trust when they come to get a certificate.
//!
//! Level-triggered: who is a member and what the ConfigMaps hold are looked at together, whatever changed. A ConfigMap that
//! somebody edits or deletes is put back; that of a namespace which is no member any more is removed if it is ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Config, Event},
    },
};
use serde_json::json;
use tokio::sync::watch;
use tracing::{info, warn};

/// Its name in every member namespace.
const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
/// Whose trust bundle it is: the mesh's own namespace. Another mesh's is left alone.
const OWNER: &str = "maistra.io/member-of";
const MANAGER: &str = "mizzen-discovery";
/// After a failed write, and to notice what a lost watch event hid.
const AGAIN: Duration = Duration::from_secs(5);

/// What the ConfigMaps of a mesh hold, and who has one.
struct Writer {
    client: Client,
    mesh: String,
    root: String,
    /// Per namespace: whether it is ours, and whether it is as it should be.
    found: BTreeMap<String, Found>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    ours: bool,
    right: bool,
    uid: Option<String>,
}

/// Keeps the ConfigMaps right for as long as it lives.
pub(crate) async fn keep(
    client: Client,
    mesh: String,
    root: String,
    mut members: watch::Receiver<Option<BTreeSet<String>>>,
) {
    let api: Api<ConfigMap> = Api::all(client.clone());
    let config = Config::default().fields(&format!("metadata.name={NAME}"));
    let events = watcher::watcher(api, config).default_backoff();
    pin_mut!(events);
    let mut writer = Writer {
        client,
        mesh,
        root,
        found: BTreeMap::new(),
    };
    let mut listed = false;
    let mut again = false;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => listed |= writer.see(event),
                Some(Err(error)) => warn!(%error, "watch of the trust bundles interrupted"),
                None => return,
            },
            changed = members.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if again => {}
        }
        // Before it is known who is a member nobody has left.
        let members = members.borrow_and_update().clone();
        if let Some(members) = members.filter(|_| listed) {
            again = writer.repair(&members).await;
        }
    }
}

impl Writer {
    /// Takes an event in; tells whether the list is complete.
    fn see(&mut self, event: Event<ConfigMap>) -> bool {
        match event {
            Event::Init => self.found.clear(),
            Event::InitApply(map) | Event::Apply(map) => {
                let found = self.look(&map);
                self.found.insert(map.namespace().unwrap_or_default(), found);
            }
            Event::Delete(map) => {
                self.found.remove(&map.namespace().unwrap_or_default());
            }
            Event::InitDone => return true,
        }
        false
    }

    fn look(&self, map: &ConfigMap) -> Found {
        let holds = map.data.as_ref().and_then(|data| data.get(KEY)) == Some(&self.root);
        let owner = map.labels().get(OWNER);
        Found {
            ours: owner == Some(&self.mesh),
            right: holds && owner == Some(&self.mesh),
            uid: map.metadata.uid.clone(),
        }
    }

    /// Writes what is missing or wrong and removes what is left over; tells whether something failed.
    async fn repair(&mut self, members: &BTreeSet<String>) -> bool {
        let mut failed = false;
        for namespace in members {
            if self.found.get(namespace).is_some_and(|found| found.right) {
                continue;
            }
            match self.write(namespace).await {
                Ok(map) => {
                    info!(namespace, "trust bundle written");
                    let found = self.look(&map);
                    self.found.insert(namespace.clone(), found);
                }
                Err(error) => {
                    // A namespace that is being deleted takes nothing new; it leaves the members by itself.
                    warn!(namespace, %error, "trust bundle not written");
                    failed = true;
                }
            }
        }
        let left: Vec<_> = self
            .found
            .iter()
            .filter(|(namespace, found)| found.ours && !members.contains(*namespace))
            .map(|(namespace, found)| (namespace.clone(), found.uid.clone()))
            .collect();
        for (namespace, uid) in left {
            match self.remove(&namespace, uid).await {
                Ok(()) => {
                    info!(namespace, "trust bundle removed: not a member any more");
                    self.found.remove(&namespace);
                }
                Err(error) => {
                    warn!(namespace, %error, "trust bundle not removed");
                    failed = true;
                }
            }
        }
        failed
    }

    async fn write(&self, namespace: &str) -> Result<ConfigMap, kube::Error> {
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": NAME, "labels": { OWNER: self.mesh, "istio.io/config": "true" } },
            "data": { KEY: self.root },
        });
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        api.patch(NAME, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map))
            .await
    }

    async fn remove(&self, namespace: &str, uid: Option<String>) -> Result<(), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid,
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(NAME, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }
}
