//! Admission: what is decided about a write beyond its form.
//!
//! In: the object before it is stored. Out: the object changed, or a refusal. First what is built in (namespaces, service accounts,
//! priorities, tolerations, no escalation of rights), then the webhooks that the objects of `admissionregistration.k8s.io` name.

mod builtin;
mod call;
mod conditions;
mod matching;
mod resolve;

pub use resolve::{Address, Resolve};

use crate::json;
use crate::service::Call;
use crate::status::ApiError;
use crate::store::Store;
use call::Response;
use futures::future::join_all;
use matching::Request;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;

pub(crate) use builtin::{may_be_deleted, namespace_exists};
pub(crate) use conditions::compile;

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

type Hooks = Arc<Vec<Value>>;

/// The configured webhooks, read once per change.
#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    mutating: Mutex<(u64, Hooks)>,
    validating: Mutex<(u64, Hooks)>,
}

impl Webhooks {
    fn all(cache: &Mutex<(u64, Hooks)>, store: &Store, collection: &str) -> Hooks {
        let latest = store.latest(collection);
        let mut cached = cache.lock();
        if cached.0 != latest {
            // In the order of the configurations' names, as Kubernetes has it.
            let (_, all) = store.list(collection, "", None);
            let hooks = all
                .iter()
                .flat_map(|stored| json::list(&stored.value(), "/webhooks").to_vec())
                .collect();
            *cached = (latest, Arc::new(hooks));
        }
        cached.1.clone()
    }
}

/// Whether webhooks see this request. What belongs to them is kept from them, so that a broken one can be removed; a scale is another
/// kind than its object.
fn is_exempt(call: &Call) -> bool {
    call.resource.group == "admissionregistration.k8s.io" || call.info.subresource == "scale"
}

/// Changes the object as what is built in and the mutating webhooks want it.
pub(crate) async fn mutate(
    call: &mut Call,
    operation: Operation,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    builtin::mutate(call, operation, new)?;
    let hooks = Webhooks::all(&call.api.inner.webhooks.mutating, &call.api.inner.store, MUTATING);
    if hooks.is_empty() || is_exempt(call) {
        return Ok(());
    }
    // What each webhook left behind: one that wants to be asked again is, if another changed the object since.
    let mut left: Vec<(usize, Value)> = Vec::new();
    let before = new.clone();
    for (position, hook) in hooks.iter().enumerate() {
        if mutate_once(call, hook, operation, new, old).await? {
            left.push((position, new.clone()));
        }
    }
    if *new == before {
        return Ok(());
    }
    builtin::mutate(call, operation, new)?;
    for (position, after) in left {
        let Some(hook) = hooks.get(position) else { continue };
        if json::text(hook, "/reinvocationPolicy") == "IfNeeded" && after != *new {
            mutate_once(call, hook, operation, new, old).await?;
        }
    }
    Ok(())
}

/// Asks one webhook, if it is concerned; whether it was.
async fn mutate_once(
    call: &mut Call,
    hook: &Value,
    operation: Operation,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<bool, ApiError> {
    let Some(request) = Request::of(call, hook, operation, Some(new), old)? else {
        return Ok(false);
    };
    let Some(response) = ask(call, hook, &request).await? else {
        return Ok(true);
    };
    call.warnings.extend(response.warnings);
    if let Some(patch) = response.patch {
        let name = json::text(hook, "/name");
        let patched = crate::patch::json(&request.object, &patch);
        let mut patched = patched.map_err(|error| {
            ApiError::internal(format!(
                "failed calling webhook {name:?}: the patch cannot be applied: {error}"
            ))
        })?;
        let map = json::as_object(&mut patched);
        map.insert("kind".to_owned(), call.resource.kind.clone().into());
        map.insert("apiVersion".to_owned(), call.resource.api_version().into());
        if let Some(schema) = call.api.inner.registry.schema(&call.resource) {
            schema.prune(&mut patched);
        }
        *new = patched;
    }
    Ok(true)
}

/// Asks a webhook and obeys its failure policy: `None` where it failed and that is to be ignored.
async fn ask(call: &Call, hook: &Value, request: &Request) -> Result<Option<Response>, ApiError> {
    match call::ask(&call.api, hook, request).await {
        Ok(response) => match response.refusal {
            Some(refusal) => Err(refusal),
            None => Ok(Some(response)),
        },
        Err(error) => failed(hook, &error).map(|()| None),
    }
}

/// What a failure of a webhook means.
fn failed(hook: &Value, error: &str) -> Result<(), ApiError> {
    let name = json::text(hook, "/name");
    if json::text(hook, "/failurePolicy") == "Ignore" {
        tracing::warn!(webhook = name, error, "a failed webhook is ignored, as its policy says");
        return Ok(());
    }
    Err(ApiError::internal(format!("failed calling webhook {name:?}: {error}")))
}

/// Refuses what may not be, by what is built in and by the validating webhooks, which are asked at once.
pub(crate) async fn validate(
    call: &mut Call,
    operation: Operation,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    if let Some(new) = new {
        builtin::no_escalation(call, new, old)?;
    }
    let hooks = Webhooks::all(&call.api.inner.webhooks.validating, &call.api.inner.store, VALIDATING);
    if hooks.is_empty() || is_exempt(call) {
        return Ok(());
    }
    let mut concerned = Vec::new();
    for hook in hooks.iter() {
        if let Some(request) = Request::of(call, hook, operation, new, old)? {
            concerned.push((hook, request));
        }
    }
    let here: &Call = call;
    let answers = join_all(concerned.iter().map(|(hook, request)| ask(here, hook, request))).await;
    for answer in answers {
        if let Some(response) = answer? {
            call.warnings.extend(response.warnings);
        }
    }
    Ok(())
}

/// Asks all webhooks about a deletion.
pub(crate) async fn validate_delete(call: &mut Call, old: &Value) -> Result<(), ApiError> {
    let hooks = Webhooks::all(&call.api.inner.webhooks.mutating, &call.api.inner.store, MUTATING);
    if !is_exempt(call) {
        for hook in hooks.iter() {
            if let Some(request) = Request::of(call, hook, Operation::Delete, None, Some(old))?
                && let Some(response) = ask(call, hook, &request).await?
            {
                call.warnings.extend(response.warnings);
            }
        }
    }
    validate(call, Operation::Delete, None, Some(old)).await
}

/// The innermost cause of an error, which says what happened.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
