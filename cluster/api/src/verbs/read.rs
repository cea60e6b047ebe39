//! get and list, and the forms in which objects are shown.

use crate::convert;
use crate::json;
use crate::kinds::Resource;
use crate::negotiate::{Body, Form, join, respond, respond_value};
use crate::schema::FieldError;
use crate::selector::{FieldSelector, LabelSelector};
use crate::service::Call;
use crate::status::ApiError;
use crate::store::{Key, Stored};
use crate::table::Columns;
use base64::Engine as _;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// Which objects a request is about.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    pub(crate) fn of(call: &Call) -> Result<Self, ApiError> {
        let query = &call.info.query;
        let wrong = |error: crate::selector::SelectorError| ApiError::bad_request(error.0);
        let labels = LabelSelector::parse(query.text("labelSelector")).map_err(wrong)?;
        let fields = FieldSelector::parse(query.text("fieldSelector")).map_err(wrong)?;
        let resource = &call.resource;
        let extra: Vec<&str> = match &resource.custom {
            Some(custom) => custom.selectable.iter().map(String::as_str).collect(),
            None => Vec::new(),
        };
        fields
            .check(&resource.group, &resource.plural, &resource.kind, &extra)
            .map_err(wrong)?;
        Ok(Self { labels, fields })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, resource: &Resource, stored: &Stored) -> bool {
        (self.labels.is_empty() || self.labels.matches(stored.labels.as_ref()))
            && (self.fields.is_empty() || self.fields.matches(&convert::value(resource, stored)))
    }
}

/// Shows objects in the form that was asked for.
pub(crate) struct Presenter {
    resource: Arc<Resource>,
    form: Form,
    columns: Option<Columns>,
    include: String,
    now: i64,
}

impl Presenter {
    pub(crate) fn of(call: &Call) -> Self {
        let form = call.accept.form;
        let columns = (form == Form::Table).then(|| call.api.inner.registry.columns(&call.resource));
        Self {
            resource: call.resource.clone(),
            form,
            columns,
            include: call.info.query.text("includeObject").to_owned(),
            now: call.now.unix_timestamp(),
        }
    }

    fn metadata(&self, value: &Value) -> Value {
        let metadata = value.get("metadata").cloned().unwrap_or_default();
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
    }

    fn row(&self, columns: &Columns, value: &Value) -> Value {
        let object = match self.include.as_str() {
            "None" => Value::Null,
            "Object" => value.clone(),
            _ => self.metadata(value),
        };
        json!({"cells": columns.cells(value, self.now), "object": object})
    }

    /// One object. `again` leaves the column definitions of a table out: a watch tells them once.
    pub(crate) fn one(&self, stored: &Stored, again: bool) -> Bytes {
        match (self.form, &self.columns) {
            (Form::Table, Some(columns)) => {
                let value = convert::value(&self.resource, stored);
                Bytes::from(self.table(columns, &value, again).to_string())
            }
            (Form::Metadata, _) => {
                let value = convert::value(&self.resource, stored);
                Bytes::from(self.metadata(&value).to_string())
            }
            _ => convert::body(&self.resource, stored),
        }
    }

    fn table(&self, columns: &Columns, value: &Value, again: bool) -> Value {
        let revision = json::text(value, "/metadata/resourceVersion");
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision},
            "columnDefinitions": if again { Value::Null } else { columns.definitions() },
            "rows": [self.row(columns, value)]
        })
    }

    /// An object that is not in the store, such as the result of a dry run.
    pub(crate) fn value(&self, value: &Value) -> Value {
        match (self.form, &self.columns) {
            (Form::Table, Some(columns)) => self.table(columns, value, false),
            (Form::Metadata, _) => self.metadata(value),
            _ => value.clone(),
        }
    }

    fn list(&self, metadata: &Value, all: &[Arc<Stored>]) -> Bytes {
        let values = || all.iter().map(|stored| convert::value(&self.resource, stored));
        match (self.form, &self.columns) {
            (Form::Table, Some(columns)) => {
                let rows: Vec<Value> = values().map(|value| self.row(columns, &value)).collect();
                let table = json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                    "columnDefinitions": columns.definitions(), "rows": rows});
                Bytes::from(table.to_string())
            }
            (Form::Metadata, _) => {
                let items: Vec<Value> = values().map(|value| self.metadata(&value)).collect();
                let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata, "items": items});
                Bytes::from(list.to_string())
            }
            _ => {
                let head = format!(
                    "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
                    self.resource.list_kind,
                    self.resource.api_version()
                );
                let items = all.iter().map(|stored| convert::item(&self.resource, stored));
                join(&head, items, "]}")
            }
        }
    }
}

/// Answers with an object that may or may not be in the store.
pub(crate) fn respond_object(call: &Call, code: u16, value: &Value) -> Response<Body> {
    respond_value(code, call.accept, &Presenter::of(call).value(value))
}

pub(crate) fn get(call: &Call) -> Result<Response<Body>, ApiError> {
    let stored = find(call)?;
    let asked = revision(call)?;
    let current = call.api.inner.store.revision();
    if asked > current {
        return Err(ApiError::too_large_revision(asked, current));
    }
    Ok(respond(200, call.accept, Presenter::of(call).one(&stored, false)))
}

/// The object that the path names.
pub(crate) fn find(call: &Call) -> Result<Arc<Stored>, ApiError> {
    let namespace = if call.resource.namespaced {
        call.info.namespace.as_str()
    } else {
        ""
    };
    let store = &call.api.inner.store;
    store
        .get(&call.resource.collection, namespace, &call.info.name)
        .ok_or_else(|| call.not_found())
}

/// The `resourceVersion` of the query, 0 where there is none.
pub(crate) fn revision(call: &Call) -> Result<u64, ApiError> {
    let text = call.info.query.text("resourceVersion");
    if text.is_empty() {
        return Ok(0);
    }
    text.parse()
        .map_err(|_| ApiError::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        )))
}

fn list_options_error(error: FieldError) -> ApiError {
    ApiError::invalid("meta.k8s.io", "ListOptions", "", &[error])
}

/// Refuses combinations of revision and match that make no sense.
pub(crate) fn check_match(call: &Call, watch: bool) -> Result<(), ApiError> {
    let query = &call.info.query;
    let (revision, rule) = (query.text("resourceVersion"), query.text("resourceVersionMatch"));
    let initial = query.has("sendInitialEvents");
    let field = "resourceVersionMatch";
    if initial && !watch {
        let error = FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        return Err(list_options_error(error));
    }
    let error = match rule {
        "" if initial && query.flag("sendInitialEvents") => Some(FieldError::forbidden(
            field,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
        "" => None,
        _ if watch && !initial => Some(FieldError::forbidden(
            field,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
        "NotOlderThan" if watch => None,
        _ if watch => Some(FieldError::forbidden(
            field,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
        _ if revision.is_empty() => Some(FieldError::forbidden(
            field,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        "Exact" if revision == "0" => Some(FieldError::forbidden(
            field,
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        "Exact" | "NotOlderThan" => None,
        other => Some(FieldError::not_supported(field, other, &["Exact", "NotOlderThan", ""])),
    };
    error.map_or(Ok(()), |error| Err(list_options_error(error)))
}

/// Where a list goes on: the revision of its first page and the last key given out.
struct Continue {
    revision: u64,
    key: Key,
}

impl Continue {
    fn read(text: &str) -> Result<Self, ApiError> {
        let wrong =
            |why: String| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| wrong(error.to_string()))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| match bytes.first() {
            Some(byte) => wrong(format!(
                "invalid character '{}' looking for beginning of value",
                char::from(*byte)
            )),
            None => wrong(error.to_string()),
        })?;
        let start = json::text(&value, "/start");
        let revision = value.get("rv").and_then(Value::as_u64);
        match (start.split_once('/'), revision) {
            (Some((namespace, name)), Some(revision)) => Ok(Self {
                revision,
                key: (Arc::from(namespace), Arc::from(name)),
            }),
            _ => Err(wrong("it names no start".to_owned())),
        }
    }

    fn write(revision: u64, key: &Key) -> String {
        let value = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{}/{}", key.0, key.1)});
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
    }
}

pub(crate) fn list(call: &Call) -> Result<Response<Body>, ApiError> {
    let filter = Filter::of(call)?;
    check_match(call, false)?;
    let query = &call.info.query;
    let limit = usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    query.number("timeoutSeconds")?;
    let resume = match query.text("continue") {
        "" => None,
        text => Some(Continue::read(text)?),
    };
    let store = &call.api.inner.store;
    let namespace = if call.resource.namespaced {
        call.info.namespace.as_str()
    } else {
        ""
    };
    let (current, mut found) = store.list(&call.resource.collection, namespace, resume.as_ref().map(|at| &at.key));
    let asked = revision(call)?;
    if asked > current {
        return Err(ApiError::too_large_revision(asked, current));
    }
    if query.text("resourceVersionMatch") == "Exact"
        && asked != current
        && asked < store.latest(&call.resource.collection)
    {
        return Err(ApiError::expired(
            "The resourceVersion for the provided list is too old.",
        ));
    }
    // The pages of a list carry the revision of the first one, so that a watch from there misses nothing.
    let revision = resume.as_ref().map_or(current, |at| at.revision);
    if !filter.is_empty() {
        found.retain(|stored| filter.matches(&call.resource, stored));
    }
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    // With resourceVersion=0 and no token, Kubernetes answers from its cache and gives everything.
    let whole = query.text("resourceVersion") == "0" && resume.is_none();
    if limit > 0 && found.len() > limit && !whole {
        let rest = found.len() - limit;
        found.truncate(limit);
        if let Some(last) = found.last() {
            json::set(&mut metadata, "/continue", Continue::write(revision, &last.key));
        }
        if filter.is_empty() {
            json::set(&mut metadata, "/remainingItemCount", rest);
        }
    }
    Ok(respond(200, call.accept, Presenter::of(call).list(&metadata, &found)))
}
