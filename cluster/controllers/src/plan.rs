//! What a controller decided: writes and events in order, and when to look again. Values only; `work` carries them out.

use k8s_openapi::{
    Metadata,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use serde::Serialize;
use serde_json::{Value, json};

/// A kind that controllers write.
pub(crate) trait Kind: Metadata<Ty = ObjectMeta> + Serialize {}
impl<K: Metadata<Ty = ObjectMeta> + Serialize> Kind for K {}

/// The outcome of one look at one object.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Carried out in order; the first write that fails ends the plan.
    pub(crate) actions: Vec<Action>,
    /// Look again at this time even if nothing changes.
    pub(crate) again: Option<Timestamp>,
}

impl Plan {
    /// Adds a step.
    pub(crate) fn push(&mut self, action: impl Into<Action>) {
        self.actions.push(action.into());
    }

    /// Asks for another look at a time; the earliest asked for counts.
    pub(crate) fn again(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |known| known.min(at)));
    }
}

/// A step of a plan.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// A request that changes an object.
    Write(Box<Write>),
    /// Something to tell about an object.
    Event(Event),
}

impl From<Write> for Action {
    fn from(write: Write) -> Self {
        Self::Write(Box::new(write))
    }
}

impl From<Event> for Action {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

/// How an object is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// POST of the body to the collection, or to a subresource of a named object.
    Create,
    /// PUT of the body to a subresource.
    Replace,
    /// Merge patch.
    Patch,
    /// DELETE with the body as options; an object that is gone already counts as deleted.
    Delete,
}

/// A request that changes an object.
#[derive(Debug, PartialEq)]
pub(crate) struct Write {
    /// How.
    pub(crate) verb: Verb,
    /// `apps/v1`.
    pub(crate) api_version: &'static str,
    /// `deployments`.
    pub(crate) plural: &'static str,
    /// The namespace, if the object has one.
    pub(crate) namespace: Option<String>,
    /// The name; empty where the server is to generate one.
    pub(crate) name: String,
    /// `status`, `binding` or nothing.
    pub(crate) subresource: &'static str,
    /// What is sent.
    pub(crate) body: Value,
    /// Told when it succeeded; `{}` in the message stands for the object's name.
    pub(crate) done: Option<Event>,
    /// Told when it failed; `{}` in the message stands for the error.
    pub(crate) failed: Option<Event>,
}

impl Write {
    fn new<K: Kind>(verb: Verb, meta: &ObjectMeta, subresource: &'static str, body: Value) -> Self {
        let (namespace, name) = (meta.namespace.clone(), meta.name.clone().unwrap_or_default());
        let (api_version, plural) = (K::API_VERSION, K::URL_PATH_SEGMENT);
        Self {
            verb,
            api_version,
            plural,
            namespace,
            name,
            subresource,
            body,
            done: None,
            failed: None,
        }
    }

    /// Makes an object of a typed body, or of a value that needs no `apiVersion` and `kind`.
    pub(crate) fn create<K: Kind>(namespace: &str, body: impl Serialize) -> Self {
        let mut body = serde_json::to_value(body).unwrap_or_default();
        put(&mut body, &["apiVersion"], K::API_VERSION.into());
        put(&mut body, &["kind"], K::KIND.into());
        let meta = ObjectMeta {
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        };
        Self::new::<K>(Verb::Create, &meta, "", body)
    }

    /// Writes the status of `object`; refused by the server if the object has changed since it was read.
    pub(crate) fn status<K: Kind>(object: &K) -> Self {
        let body = serde_json::to_value(object).unwrap_or_default();
        Self::new::<K>(Verb::Replace, object.metadata(), "status", body)
    }

    /// Merges `change` into an object that is as it was read.
    pub(crate) fn patch<K: Kind>(object: &K, mut change: Value) -> Self {
        let meta = object.metadata();
        put(
            &mut change,
            &["metadata", "resourceVersion"],
            json!(meta.resource_version),
        );
        Self::new::<K>(Verb::Patch, meta, "", change)
    }

    /// Deletes just this object, never one that took its name.
    pub(crate) fn delete<K: Kind>(object: &K) -> Self {
        let meta = object.metadata();
        Self::new::<K>(Verb::Delete, meta, "", json!({"preconditions": {"uid": meta.uid}}))
    }

    /// What becomes of a deleted object's dependents: `Foreground`, `Background` or `Orphan`.
    pub(crate) fn propagation(mut self, policy: &str) -> Self {
        put(&mut self.body, &["propagationPolicy"], policy.into());
        self
    }

    /// Creates a subresource (`binding`) of an object.
    pub(crate) fn sub<K: Kind>(object: &K, subresource: &'static str, body: Value) -> Self {
        Self::new::<K>(Verb::Create, object.metadata(), subresource, body)
    }

    /// Tells of the outcome.
    pub(crate) fn tell(mut self, done: Event, failed: Event) -> Self {
        self.done = Some(done);
        self.failed = Some(failed);
        self
    }

    /// Tells of success.
    pub(crate) fn tell_done(mut self, done: Event) -> Self {
        self.done = Some(done);
        self
    }

    /// The path of the request.
    pub(crate) fn path(&self) -> String {
        let root = if self.api_version.contains('/') {
            "/apis/"
        } else {
            "/api/"
        };
        let namespace = self.namespace.as_deref().filter(|n| !n.is_empty());
        let namespace = namespace.map(|n| format!("/namespaces/{n}")).unwrap_or_default();
        let mut path = format!("{root}{}{namespace}/{}", self.api_version, self.plural);
        for part in [self.name.as_str(), self.subresource]
            .into_iter()
            .filter(|part| !part.is_empty())
        {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

/// Something to tell about an object: what `kubectl events` shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// Who tells it: `deployment-controller`.
    pub(crate) component: &'static str,
    /// `Warning` rather than `Normal`.
    pub(crate) warning: bool,
    /// A word in CamelCase.
    pub(crate) reason: &'static str,
    /// A sentence.
    pub(crate) message: String,
    /// The object, as `involvedObject` has it.
    pub(crate) regarding: Value,
}

impl Event {
    /// An event about an object.
    pub(crate) fn new<K: Kind>(component: &'static str, object: &K, reason: &'static str, message: String) -> Self {
        let meta = object.metadata();
        let regarding = json!({
            "apiVersion": K::API_VERSION, "kind": K::KIND, "namespace": meta.namespace, "name": meta.name,
            "uid": meta.uid, "resourceVersion": meta.resource_version,
        });
        Self {
            component,
            warning: false,
            reason,
            message,
            regarding,
        }
    }

    /// The same as a warning.
    pub(crate) fn warning(mut self) -> Self {
        self.warning = true;
        self
    }
}

/// Sets a field, given by its path; objects on the way are made.
pub(crate) fn put(object: &mut Value, path: &[&str], value: Value) {
    let mut at = object;
    for field in path {
        if !at.is_object() {
            *at = json!({});
        }
        let Some(fields) = at.as_object_mut() else { return };
        at = fields.entry(*field).or_insert(Value::Null);
    }
    *at = value;
}

/// The reference that makes `owner` the controller of an object.
pub(crate) fn controller_reference<K: Kind>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
