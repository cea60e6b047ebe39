//! The cluster, as install and uninstall need it: apply and delete anything, and say why it did not work.

use crate::connect::{Options, refused};
use crate::failure::Failure;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, oneshot};
use kube::{Api, Client};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const FIELD_MANAGER: &str = "mizzen-install";

pub(crate) struct Cluster {
    pub(crate) client: Client,
    kinds: BTreeMap<(String, String), (ApiResource, bool)>,
}

impl Cluster {
    /// The cluster, if it answers.
    pub(crate) async fn connect(options: &Options) -> Result<Self, Failure> {
        Ok(Self::of(options.reach().await?))
    }

    /// The cluster of a client.
    pub(crate) fn of(client: Client) -> Self {
        Self {
            client,
            kinds: BTreeMap::new(),
        }
    }

    /// Whether objects of this kind are in namespaces. A kind that is not there yet is taken to be.
    pub(crate) async fn is_namespaced(&mut self, object: &Value) -> Result<bool, Failure> {
        let found = self.api(object).await;
        found.map_err(|error| refused(&format!("the kind of {} cannot be looked up", describe(object)), &error))?;
        Ok(self.kinds.get(&kind(object)).is_none_or(|(_, namespaced)| *namespaced))
    }

    /// How the cluster names a kind; None if it does not have it.
    pub(crate) async fn api(&mut self, object: &Value) -> Result<Option<Api<DynamicObject>>, kube::Error> {
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let key = kind(object);
        if !self.kinds.contains_key(&key) {
            let (group, version) = key.0.split_once('/').unwrap_or(("", &key.0));
            match oneshot::pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, &key.1)).await {
                Ok((resource, capabilities)) => {
                    self.kinds
                        .insert(key.clone(), (resource, capabilities.scope == Scope::Namespaced));
                }
                Err(kube::Error::Discovery(_)) => return Ok(None),
                // By the code: a group that is just gone answers with no reason.
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let Some((resource, namespaced)) = self.kinds.get(&key) else {
            return Ok(None);
        };
        Ok(Some(if *namespaced {
            let namespace = text("/metadata/namespace");
            let namespace = if namespace.is_empty() {
                "default".to_owned()
            } else {
                namespace
            };
            Api::namespaced_with(self.client.clone(), &namespace, resource)
        } else {
            Api::all_with(self.client.clone(), resource)
        }))
    }

    /// Server-side apply. A webhook or a kind that is not there yet is waited for until `deadline`.
    pub(crate) async fn apply(&mut self, object: &Value, deadline: Instant) -> Result<DynamicObject, Failure> {
        let name = object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        loop {
            let applied = match self.api(object).await {
                Ok(Some(api)) => api.patch(&name, &params, &Patch::Apply(object)).await,
                Ok(None) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    continue;
                }
                Ok(None) => {
                    let what = format!("{} cannot be applied", describe(object));
                    return Err(Failure::new(
                        what,
                        "the cluster does not have this kind",
                        "see whether its CRD is there: kubectl get crd",
                    ));
                }
                Err(error) => Err(error),
            };
            match applied {
                Ok(object) => return Ok(object),
                // Services need a moment until their pods are known everywhere.
                Err(kube::Error::Api(status))
                    if status.message.contains("failed calling webhook") && Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(refused(&format!("{} cannot be applied", describe(object)), &error)),
            }
        }
    }

    /// Deletes the object. Returns whether it was there.
    pub(crate) async fn delete(&mut self, object: &Value) -> Result<bool, Failure> {
        let what = || format!("{} cannot be deleted", describe(object));
        let name = object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some(api) = self.api(object).await.map_err(|error| refused(&what(), &error))? else {
            return Ok(false);
        };
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(refused(&what(), &error)),
        }
    }
}

fn kind(object: &Value) -> (String, String) {
    let text = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    (text("/apiVersion"), text("/kind"))
}

/// `Kind namespace/name`.
pub(crate) fn describe(object: &Value) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    match text("/metadata/namespace") {
        "" => format!("{} {}", text("/kind"), text("/metadata/name")),
        namespace => format!("{} {namespace}/{}", text("/kind"), text("/metadata/name")),
    }
}
