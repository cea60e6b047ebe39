//! An object on its way into the store: read, checked, prepared, admitted, written.

use crate::admission::{self, Operation};
use crate::api::Api;
use crate::apply::{self, Writer};
use crate::convert;
use crate::json;
use crate::kinds::Resource;
use crate::service::Call;
use crate::status::ApiError;
use crate::store::{Expect, Stored, Write, WriteError};
use crate::timestamp::rfc3339;
use crate::{defaults, hooks, schema::FieldError, strategy, validate};
use rand::RngCore as _;
use serde_json::Value;
use std::sync::Arc;

/// How often a write on a version that just changed is tried again, where the client named none.
const ATTEMPTS: usize = 10;

/// Built-in kinds that are only updated by those who say which version they saw.
const NOT_UNCONDITIONAL: &[&str] = &[
    "customresourcedefinitions",
    "leases",
    "mutatingwebhookconfigurations",
    "poddisruptionbudgets",
    "validatingwebhookconfigurations",
];

/// A random (version 4) UUID.
pub(crate) fn uuid() -> String {
    let mut bytes = [0u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    let number = u128::from_be_bytes(bytes);
    let number = (number & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{number:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
    format!(
        "{}-{}-{}-{}-{}",
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32)
    )
}

/// Letters that generated names end with: no vowels, so that no words come out.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name that begins with `base`, as `generateName` makes it.
pub(crate) fn generated_name(base: &str) -> String {
    let base = base.get(..base.len().min(58)).unwrap_or(base);
    let mut rng = rand::rng();
    let letter = || {
        let position = (rng.next_u32() as usize) % SUFFIX.len();
        SUFFIX.get(position).copied().map_or('x', char::from)
    };
    let suffix: String = std::iter::repeat_with(letter).take(5).collect();
    format!("{base}{suffix}")
}

/// Makes the path's namespace the object's.
pub(crate) fn settle_namespace(call: &Call, value: &mut Value) -> Result<(), ApiError> {
    let wanted = if call.resource.namespaced {
        call.info.namespace.as_str()
    } else {
        ""
    };
    let metadata = json::object(value, "metadata");
    let sent = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !sent.is_empty() && sent != wanted {
        return Err(ApiError::bad_request(if wanted.is_empty() {
            "namespace may not be set on cluster-wide objects".to_owned()
        } else {
            "the namespace of the provided object does not match the namespace sent on the request".to_owned()
        }));
    }
    json::put(metadata, "namespace", (!wanted.is_empty()).then(|| wanted.into()));
    Ok(())
}

/// Creates an object that has been read: everything between the request and the store.
pub(crate) async fn create(call: &mut Call, mut new: Value, applied: bool) -> Result<Value, ApiError> {
    settle_namespace(call, &mut new)?;
    let generate = {
        let metadata = json::object(&mut new, "metadata");
        if metadata
            .get("resourceVersion")
            .and_then(Value::as_str)
            .is_some_and(|text| !text.is_empty())
        {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(ApiError::new(500, "", message));
        }
        for field in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generation",
        ] {
            metadata.remove(field);
        }
        if !applied {
            metadata.remove("managedFields");
        }
        metadata.insert("uid".to_owned(), uuid().into());
        metadata.insert("creationTimestamp".to_owned(), rfc3339(call.now).into());
        let base = metadata
            .get("generateName")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let unnamed = metadata.get("name").and_then(Value::as_str).is_none_or(str::is_empty);
        (unnamed && !base.is_empty()).then_some(base)
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut object = new.clone();
        if let Some(base) = &generate {
            json::set(&mut object, "/metadata/name", generated_name(base));
        }
        match create_named(call, object, applied).await {
            Err(error) if error.reason == "AlreadyExists" && generate.is_some() && attempt < 8 => {}
            other => return other,
        }
    }
}

async fn create_named(call: &mut Call, mut new: Value, applied: bool) -> Result<Value, ApiError> {
    let resource = call.resource.clone();
    strategy::reset(&resource, &mut new, None, "");
    default(call, &mut new)?;
    admission::namespace_exists(call, Operation::Create)?;
    let before = new.clone();
    admission::mutate(call, Operation::Create, &mut new, None).await?;
    if new != before {
        strategy::reset(&resource, &mut new, None, "");
        default(call, &mut new)?;
    }
    if !applied {
        track(call, None, &mut new);
    } else if new != before {
        track(call, Some(&before), &mut new);
    }
    strategy::begin(&resource, &mut new);
    let allocation = strategy::allocate(&call.api, &resource, &mut new, None)
        .await
        .map_err(|errors| call.invalid(json::text(&new, "/metadata/name"), &errors))?;
    let mut errors = validate::metadata(&resource, &new, None);
    errors.extend(check(call, &new, None));
    let name = json::text(&new, "/metadata/name").to_owned();
    if !errors.is_empty() {
        return Err(call.invalid(&name, &errors));
    }
    validate::warnings(&resource, &new, &mut call.warnings);
    admission::validate(call, Operation::Create, Some(&new), None).await?;
    if let Some(custom) = &resource.custom
        && custom.terminating
    {
        let message = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::new(405, "MethodNotAllowed", message));
    }
    if call.dry_run() {
        let namespace = json::text(&new, "/metadata/namespace");
        if call
            .api
            .inner
            .store
            .get(&resource.collection, namespace, &name)
            .is_some()
        {
            return Err(ApiError::already_exists(&resource.group, &resource.plural, &name));
        }
        return Ok(new);
    }
    let stored = commit(&call.api, &resource, new, Expect::Absent, false).await?;
    drop(allocation);
    let value = call.api.value(&resource, &stored);
    hooks::written(&call.api, &resource, &value).await;
    Ok(value)
}

/// Sets defaults: by the schema for custom resources, by kind for built-in ones.
pub(crate) fn default(call: &Call, value: &mut Value) -> Result<(), ApiError> {
    if call.resource.custom.is_some() {
        if let Some(schema) = call.api.inner.registry.schema(&call.resource) {
            schema.set_defaults(value);
        }
    } else {
        defaults::set(&call.resource.group, &call.resource.kind, value);
    }
    Ok(())
}

/// What is wrong with the object apart from its metadata.
fn check(call: &Call, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if call.resource.custom.is_some() {
        let schema = call.api.inner.registry.schema(&call.resource);
        return schema.map(|schema| schema.validate(new, old)).unwrap_or_default();
    }
    validate::object(&call.api, &call.resource, new, old)
}

/// Records who wrote which fields.
fn track(call: &Call, old: Option<&Value>, new: &mut Value) {
    if call.info.subresource == "finalize" {
        return;
    }
    let Some(schema) = call.api.inner.registry.schema(&call.resource) else {
        return;
    };
    let (manager, api_version, now) = (call.manager(), call.resource.api_version(), rfc3339(call.now));
    let writer = Writer {
        manager: &manager,
        api_version: &api_version,
        subresource: &call.info.subresource,
        now: &now,
    };
    apply::track_update(&schema, old, new, writer);
}

/// What became of an update.
pub(crate) enum Outcome {
    /// The object as it is now, written or not.
    Object(Value),
    /// It was the last finalizer: the object is gone.
    Gone(Value),
}

impl Outcome {
    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Object(value) | Self::Gone(value) => value,
        }
    }
}

/// Changes the object that the path names: `make` says what it shall be, from what it is. Where someone else was faster and the
/// client named no version, it is asked again. `applied`: managed fields are set already.
pub(crate) async fn modify(
    call: &mut Call,
    applied: bool,
    mut make: impl FnMut(&mut Call, &Value) -> Result<Value, ApiError>,
) -> Result<Outcome, ApiError> {
    for _ in 0..ATTEMPTS {
        let stored = super::read::find(call)?;
        let resource = call.resource.clone();
        let old = call.api.value(&resource, &stored);
        let new = make(call, &old)?;
        let versioned = check_preconditions(call, &old, &new)?;
        match replace(call, &stored, &old, new, applied).await {
            Err(error) if error.reason == "Conflict" && error.message.contains("has been modified") && !versioned => {}
            other => return other,
        }
    }
    Err(ApiError::modified(
        &call.resource.group,
        &call.resource.plural,
        &call.info.name,
    ))
}

/// Whether the new object names the version it is to replace; refuses another one.
fn check_preconditions(call: &Call, old: &Value, new: &Value) -> Result<bool, ApiError> {
    let resource = &call.resource;
    let (uid, wanted) = (json::text(old, "/metadata/uid"), json::text(new, "/metadata/uid"));
    if !wanted.is_empty() && uid != wanted {
        if call.info.verb == "patch" {
            let error = FieldError::invalid("metadata.uid", wanted, "field is immutable");
            return Err(call.invalid(&call.info.name, &[error.clone(), error]));
        }
        let key = format!(
            "/registry/{}/{}/{}",
            resource.plural, call.info.namespace, call.info.name
        );
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        );
        return Err(ApiError::conflict(
            &resource.group,
            &resource.plural,
            &call.info.name,
            &why,
        ));
    }
    let revision = json::text(new, "/metadata/resourceVersion");
    if revision.is_empty() {
        let needed = resource.custom.is_some() || NOT_UNCONDITIONAL.contains(&resource.plural.as_str());
        if needed && call.info.verb == "update" {
            let error = FieldError {
                value: None,
                detail: "0x0: must be specified for an update".to_owned(),
                ..FieldError::invalid("metadata.resourceVersion", 0, "")
            };
            return Err(ApiError::invalid(
                &resource.group,
                &resource.plural,
                &call.info.name,
                &[error],
            ));
        }
        return Ok(false);
    }
    if revision != json::text(old, "/metadata/resourceVersion") {
        return Err(ApiError::modified(&resource.group, &resource.plural, &call.info.name));
    }
    Ok(call.info.verb == "update")
}

/// One attempt to put `new` in the place of `old`.
pub(crate) async fn replace(
    call: &mut Call,
    stored: &Arc<Stored>,
    old: &Value,
    mut new: Value,
    applied: bool,
) -> Result<Outcome, ApiError> {
    let resource = call.resource.clone();
    let subresource = call.info.subresource.clone();
    settle_namespace(call, &mut new)?;
    check_name(call, &mut new)?;
    strategy::reset(&resource, &mut new, Some(old), &subresource);
    default(call, &mut new)?;
    let before = new.clone();
    admission::mutate(call, Operation::Update, &mut new, Some(old)).await?;
    if new != before {
        strategy::reset(&resource, &mut new, Some(old), &subresource);
        default(call, &mut new)?;
    }
    if !applied {
        track(call, Some(old), &mut new);
    } else if new != before {
        track(call, Some(&before), &mut new);
    }
    strategy::progress(&resource, &mut new, old);
    let allocation = strategy::allocate(&call.api, &resource, &mut new, Some(old)).await;
    let allocation = allocation.map_err(|errors| call.invalid(&call.info.name, &errors))?;
    let mut errors = validate::metadata(&resource, &new, Some(old));
    // Kubernetes looks at the metadata of an update twice, and lists each cause twice.
    errors.extend(errors.clone());
    errors.extend(check(call, &new, Some(old)));
    if !errors.is_empty() {
        return Err(call.invalid(&call.info.name, &errors));
    }
    if subresource.is_empty() {
        validate::warnings(&resource, &new, &mut call.warnings);
    }
    admission::validate(call, Operation::Update, Some(&new), Some(old)).await?;
    if same(&new, old) {
        return Ok(Outcome::Object(old.clone()));
    }
    let gone = is_finished(&resource, &new);
    if call.dry_run() {
        return Ok(if gone { Outcome::Gone(new) } else { Outcome::Object(new) });
    }
    let expect = Expect::Revision(stored.revision);
    let written = commit(&call.api, &resource, new, expect, gone).await?;
    drop(allocation);
    let value = call.api.value(&resource, &written);
    if gone {
        hooks::deleted(&call.api, &resource, &value).await;
        return Ok(Outcome::Gone(value));
    }
    hooks::written(&call.api, &resource, &value).await;
    Ok(Outcome::Object(value))
}

fn check_name(call: &Call, new: &mut Value) -> Result<(), ApiError> {
    let sent = json::text(new, "/metadata/name").to_owned();
    if sent.is_empty() {
        json::set(new, "/metadata/name", call.info.name.clone());
    } else if sent != call.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({sent}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    Ok(())
}

/// Whether nothing is left to wait for: it is being deleted, and no finalizer and no grace period holds it.
pub(crate) fn is_finished(resource: &Resource, value: &Value) -> bool {
    let metadata = value.get("metadata").unwrap_or(&Value::Null);
    let deleting = metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null());
    let grace = metadata
        .get("deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let held = !json::list(metadata, "/finalizers").is_empty();
    let namespace = resource.is("", "namespaces") && !json::list(value, "/spec/finalizers").is_empty();
    deleting && grace == 0 && !held && !namespace
}

/// Whether a write would change nothing, apart from the times of managed fields.
fn same(new: &Value, old: &Value) -> bool {
    fn without_times(value: &Value) -> Value {
        let mut value = value.clone();
        for entry in json::items(&mut value, "/metadata/managedFields") {
            if let Some(map) = entry.as_object_mut() {
                map.remove("time");
            }
        }
        let metadata = json::object(&mut value, "metadata");
        metadata.remove("resourceVersion");
        value
    }
    without_times(new) == without_times(old)
}

/// Writes an object with `kind` and `apiVersion` to the store.
pub(crate) async fn commit(
    api: &Api,
    resource: &Resource,
    value: Value,
    expect: Expect,
    delete: bool,
) -> Result<Arc<Stored>, ApiError> {
    let namespace = if resource.namespaced {
        json::text(&value, "/metadata/namespace")
    } else {
        ""
    };
    let name = json::text(&value, "/metadata/name").to_owned();
    let write = Write {
        collection: resource.collection.clone(),
        key: (Arc::from(namespace), Arc::from(name.as_str())),
        expect,
        value: convert::to_storage(resource, value),
        delete,
    };
    api.inner.store.write(write).await.map_err(|error| match error {
        WriteError::Exists => ApiError::already_exists(&resource.group, &resource.plural, &name),
        WriteError::Conflict => ApiError::modified(&resource.group, &resource.plural, &name),
        WriteError::Missing => ApiError::not_found(&resource.group, &resource.plural, &name),
        other => ApiError::internal(other.to_string()),
    })
}
