//! What follows from a write at once, inside the API: custom resources come and go with their definitions, aggregated roles gather
//! their rules.

use crate::api::Api;
use crate::apply::{self, Writer};
use crate::convert;
use crate::json;
use crate::kinds::Resource;
use crate::rbac;
use crate::schema::crd;
use crate::store::Expect;
use crate::timestamp::{parse, rfc3339};
use crate::verbs::object::{commit, is_finished};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Holds a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
/// How long events are kept, as by Kubernetes.
const EVENT_SECONDS: i64 = 3600;
const EVENTS_PRUNED_EVERY: i64 = 300;
/// How often aggregation is gone through: roles may gather from roles that gather.
const AGGREGATION_PASSES: usize = 4;

/// After an object was created or changed.
pub(crate) async fn written(api: &Api, resource: &Resource, value: &Value) {
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        let name = json::text(value, "/metadata/name");
        establish(api, resource, name).await;
        api.take_definitions().await;
        if value.pointer("/metadata/deletionTimestamp").is_some() {
            clean_up(api, name).await;
        }
    } else if resource.is("rbac.authorization.k8s.io", "clusterroles") {
        aggregate(api).await;
    } else if &*resource.collection == "events" {
        prune_events(api).await;
    }
}

/// Removes events that nobody has added to for an hour, at most every few minutes.
async fn prune_events(api: &Api) {
    let now = api.now().unix_timestamp();
    if now - api.inner.events_pruned.load(Ordering::Relaxed) < EVENTS_PRUNED_EVERY {
        return;
    }
    api.inner.events_pruned.store(now, Ordering::Relaxed);
    let kinds = api.inner.registry.current();
    let Some(resource) = kinds.resource("", "v1", "events") else {
        return;
    };
    let (_, all) = api.inner.store.list("events", "", None);
    for stored in all {
        let event = convert::value(resource, &stored);
        let times = [
            "/lastTimestamp",
            "/series/lastObservedTime",
            "/eventTime",
            "/metadata/creationTimestamp",
        ];
        let last = times
            .iter()
            .filter_map(|pointer| parse(json::text(&event, pointer)))
            .max();
        if last.is_some_and(|last| now - last.unix_timestamp() > EVENT_SECONDS)
            && let Err(error) = commit(api, resource, event, Expect::Revision(stored.revision), true).await
        {
            tracing::debug!(%error, "an event changed while it was removed");
        }
    }
}

/// After an object is gone.
pub(crate) async fn deleted(api: &Api, resource: &Resource, _value: &Value) {
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        // Names that were in conflict with this one's are free now.
        let (_, all) = api.inner.store.list(DEFINITIONS, "", None);
        for other in all {
            establish(api, resource, &other.key.1).await;
        }
        api.take_definitions().await;
    } else if resource.is("rbac.authorization.k8s.io", "clusterroles") {
        aggregate(api).await;
    } else if let Some(custom) = &resource.custom {
        let definition = api.find(DEFINITIONS, "", &custom.definition);
        let terminating =
            definition.is_some_and(|definition| definition.pointer("/metadata/deletionTimestamp").is_some());
        if terminating {
            clean_up(api, &custom.definition).await;
        }
    }
}

/// Writes the conditions of a definition.
async fn establish(api: &Api, resource: &Resource, name: &str) {
    let (_, all) = api.inner.store.list(DEFINITIONS, "", None);
    let Some(stored) = all.iter().find(|stored| &*stored.key.1 == name) else {
        return;
    };
    let old = convert::value(resource, stored);
    let group = json::text(&old, "/spec/group").to_owned();
    let others: Vec<Value> = all
        .iter()
        .filter(|other| &*other.key.1 != name)
        .map(|other| other.value())
        .filter(|other| json::text(other, "/spec/group") == group)
        .collect();
    let others: Vec<&Value> = others.iter().collect();
    let mut new = old.clone();
    if new.pointer("/status/conditions").is_some_and(Value::is_null) {
        json::object(&mut new, "status").remove("conditions");
    }
    crd::set_status(&mut new, &others, &rfc3339(api.now()));
    if new == old {
        return;
    }
    if let Some(schema) = api.inner.registry.schema(resource) {
        let now = rfc3339(api.now());
        let writer = Writer {
            manager: "kube-apiserver",
            api_version: "apiextensions.k8s.io/v1",
            subresource: "status",
            now: &now,
        };
        apply::track_update(&schema, Some(&old), &mut new, writer);
    }
    // A change in between brings its own call.
    if let Err(error) = commit(api, resource, new, Expect::Revision(stored.revision), false).await {
        tracing::debug!(%error, name, "the definition changed meanwhile");
    }
}

/// Deletes the objects of a definition that is being deleted, and lets it go when none is left.
async fn clean_up(api: &Api, name: &str) {
    let kinds = api.inner.registry.current();
    let Some(resource) = kinds.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions") else {
        return;
    };
    let Some(stored) = api.inner.store.get(DEFINITIONS, "", name) else {
        return;
    };
    let definition = convert::value(resource, &stored);
    let (group, plural) = (
        json::text(&definition, "/spec/group"),
        json::text(&definition, "/spec/names/plural"),
    );
    if let Some(custom) = kinds.any_version(group, plural) {
        delete_all(api, custom).await;
        if api.inner.store.count(&custom.collection) > 0 {
            return;
        }
    }
    let mut new = definition;
    let rest: Vec<String> = json::texts(&new, "/metadata/finalizers")
        .into_iter()
        .filter(|one| one != CLEANUP)
        .collect();
    json::put(
        json::object(&mut new, "metadata"),
        "finalizers",
        (!rest.is_empty()).then(|| json!(rest)),
    );
    let gone = is_finished(resource, &new);
    match commit(api, resource, new, Expect::Revision(stored.revision), gone).await {
        Ok(_) => api.take_definitions().await,
        Err(error) => tracing::debug!(%error, name, "the definition changed meanwhile"),
    }
}

async fn delete_all(api: &Api, resource: &Arc<Resource>) {
    let (_, all) = api.inner.store.list(&resource.collection, "", None);
    for stored in all {
        let mut value = convert::value(resource, &stored);
        let held = !json::list(&value, "/metadata/finalizers").is_empty();
        if held {
            if value.pointer("/metadata/deletionTimestamp").is_some() {
                continue;
            }
            json::set(&mut value, "/metadata/deletionTimestamp", rfc3339(api.now()));
            json::set(&mut value, "/metadata/deletionGracePeriodSeconds", 0);
        }
        if let Err(error) = commit(api, resource, value, Expect::Revision(stored.revision), !held).await {
            tracing::debug!(%error, name = &*stored.key.1, "an object changed while its definition is deleted");
        }
    }
}

/// Gathers the rules of ClusterRoles with an aggregation rule.
pub(crate) async fn aggregate(api: &Api) {
    let kinds = api.inner.registry.current();
    let Some(resource) = kinds.resource("rbac.authorization.k8s.io", "v1", "clusterroles") else {
        return;
    };
    for _ in 0..AGGREGATION_PASSES {
        let (_, stored) = api.inner.store.list(CLUSTER_ROLES, "", None);
        let all: Vec<Arc<Value>> = stored
            .iter()
            .map(|one| Arc::new(convert::value(resource, one)))
            .collect();
        let mut changed = false;
        for (role, stored) in all.iter().zip(&stored) {
            let Some(rules) = rbac::aggregate(role, &all) else {
                continue;
            };
            if json::list(role, "/rules") == rules {
                continue;
            }
            let mut new = (**role).clone();
            json::set(&mut new, "/rules", rules);
            match commit(api, resource, new, Expect::Revision(stored.revision), false).await {
                Ok(_) => changed = true,
                Err(error) => tracing::debug!(%error, "a role changed while its rules were gathered"),
            }
        }
        if !changed {
            return;
        }
    }
}
