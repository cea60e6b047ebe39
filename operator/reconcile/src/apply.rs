//! One object: compare what exists with what should, and write only if they differ.

use json_patch::{Patch as JsonPatch, PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use mizzen_desired::{FIELD_MANAGER, ObjectId, drift};
use serde_json::Value;

/// Every kind the operator makes: apiVersion, kind, plural, namespaced. Pruning looks at each of them.
pub const KINDS: &[(&str, &str, &str, bool)] = &[
    ("apps/v1", "Deployment", "deployments", true),
    ("v1", "Service", "services", true),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("v1", "ConfigMap", "configmaps", true),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    (
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        false,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    ),
    (
        "security.istio.io/v1",
        "PeerAuthentication",
        "peerauthentications",
        true,
    ),
];

/// Why an object could not be made as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused.
    #[error("{id}: {message}")]
    Refused {
        /// The object.
        id: Box<ObjectId>,
        /// The API server's words.
        message: String,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// It is somebody else's.
    #[error("{0} exists and was not made by the operator; delete or rename it")]
    NotOurs(Box<ObjectId>),
    /// The operator does not know the kind.
    #[error("{0} has a kind that the operator does not know")]
    UnknownKind(Box<ObjectId>),
    /// The comparison could not be written down.
    #[error("{id}: what was added by hand cannot be removed: {message}")]
    Patch {
        /// The object.
        id: Box<ObjectId>,
        /// Why.
        message: String,
    },
}

impl ApplyError {
    fn refused(id: &ObjectId, source: kube::Error) -> Self {
        let message = match &source {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        };
        Self::Refused {
            id: Box::new(id.clone()),
            message,
            source: Box::new(source),
        }
    }
}

/// What was done about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing: it was right.
    Right,
    /// It was made.
    Created,
    /// It was changed.
    Changed,
    /// It was deleted and made anew, since the change is not allowed on an object that exists.
    Recreated,
}

/// How the API server names a kind.
#[must_use]
pub fn resource(api_version: &str, kind: &str) -> Option<(ApiResource, bool)> {
    let (_, _, plural, namespaced) = KINDS.iter().find(|(v, k, _, _)| *v == api_version && *k == kind)?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural: (*plural).to_owned(),
    };
    Some((resource, *namespaced))
}

/// The whole status at once: merging would keep what no longer holds.
pub(crate) async fn status<K, S>(api: &Api<K>, name: &str, next: &S) -> Result<(), kube::Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    S: serde::Serialize,
{
    let patch = serde_json::json!([{ "op": "add", "path": "/status", "value": next }]);
    let patch = serde_json::from_value(patch).map_err(kube::Error::SerdeError)?;
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(name, &params, &Patch::Json::<()>(patch)).await?;
    Ok(())
}

fn api(client: &Client, id: &ObjectId) -> Result<Api<DynamicObject>, ApplyError> {
    let (resource, _) =
        resource(&id.api_version, &id.kind).ok_or_else(|| ApplyError::UnknownKind(Box::new(id.clone())))?;
    Ok(match &id.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}

/// The object as it exists.
///
/// # Errors
/// When the API server refuses.
pub async fn fetch(client: &Client, id: &ObjectId) -> Result<Option<Value>, ApplyError> {
    let found = api(client, id)?
        .get_opt(&id.name)
        .await
        .map_err(|error| ApplyError::refused(id, error))?;
    Ok(found.map(|object| value(id, &object)))
}

/// Lists and watches leave out `apiVersion` and `kind` of their items; comparing needs them.
fn value(id: &ObjectId, object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("apiVersion".to_owned(), id.api_version.clone().into());
        object.insert("kind".to_owned(), id.kind.clone().into());
    }
    value
}

/// Makes the object as `desired` says. Returns what was done and the object as it is now.
///
/// # Errors
/// When it belongs to somebody else or the API server refuses.
pub async fn apply(
    client: &Client,
    id: &ObjectId,
    desired: &Value,
    live: Option<Value>,
) -> Result<(Applied, Value), ApplyError> {
    let api = api(client, id)?;
    let Some(mut live) = live else {
        let made = patch(&api, id, desired)
            .await
            .map_err(|error| ApplyError::refused(id, error))?;
        return Ok((Applied::Created, made));
    };
    if !drift::is_ours(&live) {
        return Err(ApplyError::NotOurs(Box::new(id.clone())));
    }
    let mut done = Applied::Right;
    let foreign = drift::foreign(desired, &live);
    if !foreign.is_empty() {
        live = remove(&api, id, &live, &foreign).await?;
        done = Applied::Changed;
    }
    if drift::matches(desired, &live) {
        return Ok((done, live));
    }
    match patch(&api, id, desired).await {
        Ok(now) => Ok((Applied::Changed, now)),
        Err(kube::Error::Api(status)) if status.is_invalid() && status.message.contains("immutable") => {
            delete(client, id).await?;
            let made = patch(&api, id, desired)
                .await
                .map_err(|error| ApplyError::refused(id, error))?;
            Ok((Applied::Recreated, made))
        }
        Err(error) => Err(ApplyError::refused(id, error)),
    }
}

async fn patch(api: &Api<DynamicObject>, id: &ObjectId, desired: &Value) -> kube::Result<Value> {
    // Forced: what the operator asks for is its own; what others may set it never asks for.
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let object = api.patch(&id.name, &params, &Patch::Apply(desired)).await?;
    Ok(value(id, &object))
}

/// Removes what others added, if nobody wrote meanwhile.
async fn remove(api: &Api<DynamicObject>, id: &ObjectId, live: &Value, paths: &[String]) -> Result<Value, ApplyError> {
    let pointer = |path: &str| {
        PointerBuf::parse(path).map_err(|error| ApplyError::Patch {
            id: Box::new(id.clone()),
            message: format!("{path}: {error:?}"),
        })
    };
    let version = live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let mut operations = vec![PatchOperation::Test(TestOperation {
        path: pointer("/metadata/resourceVersion")?,
        value: version,
    })];
    for path in paths {
        operations.push(PatchOperation::Remove(RemoveOperation { path: pointer(path)? }));
    }
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let object = api
        .patch(&id.name, &params, &Patch::Json::<()>(JsonPatch(operations)))
        .await;
    object
        .map(|object| value(id, &object))
        .map_err(|error| ApplyError::refused(id, error))
}

/// Deletes the object; one that is gone already is fine.
///
/// # Errors
/// When the API server refuses.
pub async fn delete(client: &Client, id: &ObjectId) -> Result<(), ApplyError> {
    match api(client, id)?.delete(&id.name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(ApplyError::refused(id, error)),
    }
}

/// Every object of a mesh, by its labels. A kind that the cluster does not have holds none.
///
/// # Errors
/// When the API server refuses.
pub async fn owned(client: &Client, selector: &str) -> Result<Vec<ObjectId>, ApplyError> {
    let mut found = Vec::new();
    for (api_version, kind, _, _) in KINDS {
        let Some((resource, _)) = resource(api_version, kind) else {
            continue;
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let params = kube::api::ListParams::default().labels(selector);
        let id = |namespace: Option<String>, name: String| ObjectId {
            api_version: (*api_version).to_owned(),
            kind: (*kind).to_owned(),
            namespace,
            name,
        };
        match api.list_metadata(&params).await {
            Ok(list) => {
                let objects = list
                    .items
                    .into_iter()
                    .filter(|object| object.metadata.deletion_timestamp.is_none());
                found.extend(objects.map(|object| id(object.namespace(), object.name_any())));
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(ApplyError::refused(&id(None, "*".to_owned()), error)),
        }
    }
    Ok(found)
}
