//! delete and deletecollection: preconditions, grace, propagation, finalizers.

use super::object::{Outcome, commit, is_finished};
use super::read::{Filter, Presenter, respond_object};
use crate::admission;
use crate::json;
use crate::kinds::Resource;
use crate::negotiate::{self, Body, respond_value};
use crate::schema::FieldError;
use crate::service::Call;
use crate::status::ApiError;
use crate::store::Expect;
use crate::timestamp::rfc3339;
use crate::{hooks, strategy};
use http::Response;
use serde_json::{Value, json};
use time::Duration;

/// `metav1.DeleteOptions`.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) revision: Option<String>,
}

impl DeleteOptions {
    /// From the body, or from the query where there is none.
    pub(crate) fn read(call: &mut Call, body: &[u8]) -> Result<Self, ApiError> {
        let mut options = Self::default();
        if body.is_empty() {
            let query = &call.info.query;
            options.grace = query.number("gracePeriodSeconds")?;
            options.propagation = Some(query.text("propagationPolicy").to_owned()).filter(|text| !text.is_empty());
            if query.has("orphanDependents") {
                options.set_orphan(query.flag("orphanDependents"));
            }
        } else {
            let value = negotiate::decode(&call.headers, body, "DeleteOptions")?.value;
            options = Self::of(&value);
            if value
                .get("dryRun")
                .and_then(Value::as_array)
                .is_some_and(|list| !list.is_empty())
                && !call.dry_run()
            {
                call.info.query = crate::request::Query::parse("dryRun=All");
            }
        }
        options.check()?;
        Ok(options)
    }

    /// From the object.
    pub(crate) fn of(value: &Value) -> Self {
        let text = |pointer: &str| Some(json::text(value, pointer).to_owned()).filter(|text| !text.is_empty());
        let mut options = Self {
            grace: value.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: text("/propagationPolicy"),
            uid: text("/preconditions/uid"),
            revision: text("/preconditions/resourceVersion"),
        };
        if let Some(orphan) = value.get("orphanDependents").and_then(Value::as_bool) {
            options.set_orphan(orphan);
        }
        options
    }

    fn set_orphan(&mut self, orphan: bool) {
        let policy = if orphan { "Orphan" } else { "Background" };
        self.propagation.get_or_insert_with(|| policy.to_owned());
    }

    fn check(&self) -> Result<(), ApiError> {
        let policy = self.propagation.as_deref().unwrap_or("Background");
        let mut errors = Vec::new();
        if !matches!(policy, "Foreground" | "Background" | "Orphan") {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported("propagationPolicy", policy, &supported));
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &errors))
    }
}

pub(crate) async fn delete(call: &mut Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = DeleteOptions::read(call, body)?;
    match remove(call, &options).await? {
        Outcome::Object(value) => Ok(respond_object(call, 200, &value)),
        Outcome::Gone(value) if strategy::shows_deleted(&call.resource) => Ok(respond_object(call, 200, &value)),
        Outcome::Gone(value) => Ok(respond_value(200, call.accept, &success(&call.resource, &value))),
    }
}

/// The `Status` of a deletion.
fn success(resource: &Resource, value: &Value) -> Value {
    let mut details = json!({"name": json::text(value, "/metadata/name"), "kind": resource.plural,
        "uid": json::text(value, "/metadata/uid")});
    if !resource.group.is_empty() {
        json::set(&mut details, "/group", resource.group.clone());
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Deletes the object that the path names, at once or by marking it.
pub(crate) async fn remove(call: &mut Call, options: &DeleteOptions) -> Result<Outcome, ApiError> {
    let resource = call.resource.clone();
    let mut admitted = false;
    loop {
        let stored = super::read::find(call)?;
        let old = call.api.value(&resource, &stored);
        check_preconditions(&resource, &old, options)?;
        admission::may_be_deleted(call)?;
        if !admitted {
            admission::validate_delete(call, &old).await?;
            admitted = true;
        }
        let new = marked(call, &old, options);
        let gone = is_finished(&resource, &new);
        if call.dry_run() {
            return Ok(if gone { Outcome::Gone(old) } else { Outcome::Object(new) });
        }
        if !gone && new == old {
            return Ok(Outcome::Object(old));
        }
        // Only pods show in the end that they were given no time.
        let kept = if gone && !resource.is("", "pods") { old } else { new };
        match commit(&call.api, &resource, kept, Expect::Revision(stored.revision), gone).await {
            Ok(written) => {
                let value = call.api.value(&resource, &written);
                if gone {
                    hooks::deleted(&call.api, &resource, &value).await;
                    return Ok(Outcome::Gone(value));
                }
                hooks::written(&call.api, &resource, &value).await;
                return Ok(Outcome::Object(value));
            }
            // It changed meanwhile: the preconditions decide again.
            Err(error) if error.reason == "Conflict" => {}
            Err(error) => return Err(error),
        }
    }
}

fn check_preconditions(resource: &Resource, old: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    let name = json::text(old, "/metadata/name");
    let checks = [
        ("UID", &options.uid, "/metadata/uid", "deleted and then recreated"),
        (
            "ResourceVersion",
            &options.revision,
            "/metadata/resourceVersion",
            "modified",
        ),
    ];
    for (what, wanted, pointer, perhaps) in checks {
        let found = json::text(old, pointer);
        if let Some(wanted) = wanted
            && wanted != found
        {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have \
                 been {perhaps}"
            );
            return Err(ApiError::conflict(&resource.group, &resource.kind, name, &why));
        }
    }
    Ok(())
}

/// The object marked as being deleted, with the finalizers that the propagation policy asks for.
fn marked(call: &Call, old: &Value, options: &DeleteOptions) -> Value {
    let resource = &call.resource;
    let mut new = old.clone();
    let already = old
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|at| !at.is_null());
    let grace = strategy::grace_period(resource, old, options.grace);
    let mut finalizers = json::texts(old, "/metadata/finalizers");
    let policy = options
        .propagation
        .as_deref()
        .or_else(|| strategy::default_propagation(resource, old));
    if let Some(policy) = policy {
        finalizers.retain(|name| !matches!(name.as_str(), "orphan" | "foregroundDeletion"));
        match policy {
            "Orphan" => finalizers.push("orphan".to_owned()),
            "Foreground" => finalizers.push("foregroundDeletion".to_owned()),
            _ => {}
        }
    }
    let metadata = json::object(&mut new, "metadata");
    let list = (!finalizers.is_empty()).then(|| Value::from(finalizers));
    json::put(metadata, "finalizers", list);
    let present = metadata
        .get("deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    if already && grace >= present {
        return new;
    }
    let start = match (
        already,
        crate::timestamp::parse(json::text(old, "/metadata/deletionTimestamp")),
    ) {
        (true, Some(end)) => end - Duration::seconds(present),
        _ => call.now,
    };
    let metadata = json::object(&mut new, "metadata");
    metadata.insert(
        "deletionTimestamp".to_owned(),
        rfc3339(start + Duration::seconds(grace)).into(),
    );
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64)
        && !already
    {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
    if resource.is("", "namespaces") {
        // A namespace has no grace period; its content goes first.
        json::object(&mut new, "metadata").remove("deletionGracePeriodSeconds");
        json::set(&mut new, "/status/phase", "Terminating");
    }
    new
}

pub(crate) async fn delete_collection(call: &mut Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = DeleteOptions::read(call, body)?;
    let filter = Filter::of(call)?;
    let namespace = if call.resource.namespaced {
        call.info.namespace.clone()
    } else {
        String::new()
    };
    let (revision, all) = call.api.inner.store.list(&call.resource.collection, &namespace, None);
    let mut items = Vec::new();
    for stored in all {
        if !filter.matches(&call.resource, &stored) {
            continue;
        }
        call.info.name = stored.key.1.to_string();
        match remove(call, &options).await {
            Ok(outcome) => items.push(outcome.into_value()),
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    if call.accept.form != negotiate::Form::Object {
        let rows: Vec<Value> = items.iter().map(|item| Presenter::of(call).value(item)).collect();
        items = rows;
    }
    if call.resource.custom.is_none() && call.accept.form == negotiate::Form::Object {
        for item in &mut items {
            let map = json::as_object(item);
            map.remove("kind");
            map.remove("apiVersion");
        }
    }
    let list = json!({"kind": call.resource.list_kind, "apiVersion": call.resource.api_version(),
        "metadata": {"resourceVersion": revision.to_string()}, "items": items});
    Ok(respond_value(200, call.accept, &list))
}
