//! Structural schemas: what may be in an object.
//!
//! In: the published OpenAPI documents of the built-in kinds, or the `openAPIV3Schema` of a custom resource definition. Out: a
//! compact [`Schema`] and what it decides: pruning, defaulting, validation with the messages of Kubernetes 1.33, and the list and
//! map types that patches and server-side apply merge by. Never: I/O, a clock, an object it has not been given.

use parking_lot::RwLock;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

mod cel;
pub mod crd;
mod decode;
mod error;
mod format;
mod json;
mod node;
mod prune;
#[cfg(test)]
pub(crate) mod tests;
mod validate;

pub use error::{ErrorKind, FieldError};
pub(crate) use error::{go_map, go_print, go_syntax};
pub use json::parse as parse_json;
pub(crate) use node::{Field, Kind, ListType};

/// The named schemas of the built-in kinds; a schema refers to others by name, also to itself.
#[derive(Debug, Default)]
pub struct Definitions {
    slots: RwLock<HashMap<Box<str>, Arc<Slot>>>,
}

/// A named schema, which may be referred to before it is loaded.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    schema: OnceLock<Schema>,
}

impl Definitions {
    /// Adds the `components.schemas` of an OpenAPI v3 document; a name that is there already keeps its schema.
    pub fn load(&self, schemas: &Value) {
        for (name, raw) in schemas.as_object().into_iter().flatten() {
            let slot = self.slot(name);
            if slot.schema.get().is_none() {
                let _ = slot.schema.set(Schema(Arc::new(node::builtin(Some(name), raw, self))));
            }
        }
    }

    /// The schema of that name, such as `io.k8s.api.apps.v1.Deployment`.
    pub fn schema(&self, name: &str) -> Option<Schema> {
        self.slots.read().get(name).and_then(|slot| slot.schema.get().cloned())
    }

    fn slot(&self, name: &str) -> Arc<Slot> {
        if let Some(slot) = self.slots.read().get(name) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot::default());
        Arc::clone(self.slots.write().entry(name.into()).or_insert(slot))
    }
}

/// The shape of a value. Cheap to clone.
#[derive(Clone)]
pub struct Schema(Arc<node::Node>);

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A schema may contain itself.
        f.debug_struct("Schema")
            .field("name", &self.0.name)
            .field("kind", &self.0.kind)
            .finish_non_exhaustive()
    }
}

impl Schema {
    /// The schema of a custom resource version from its `openAPIV3Schema`; `None` preserves everything. `apiVersion`, `kind` and
    /// `metadata` are added as the server does.
    pub fn from_crd(open_api: Option<&Value>) -> Schema {
        Schema(Arc::new(node::custom_root(open_api)))
    }

    /// The schema that knows nothing and keeps everything.
    pub(crate) fn any() -> &'static Schema {
        static ANY: OnceLock<Schema> = OnceLock::new();
        ANY.get_or_init(|| Schema(Arc::new(node::Node::default())))
    }

    /// Removes what the schema does not know and returns the removed paths, such as `spec.template.foo` (the caller adds the words
    /// `unknown field "…"`). Of a built-in kind it also removes what the server does not store: `null`, and empty lists, maps and
    /// texts of optional fields.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(self, object)
    }

    /// Sets the schema's defaults where a field is missing. Custom resources only: the schemas of built-in kinds tell few of
    /// their defaults.
    pub fn set_defaults(&self, object: &mut Value) {
        prune::set_defaults(self, object);
    }

    /// What is wrong with `new`, in the order in which the server reports it. `old` is the object before an update: transition
    /// rules compare with it and what was wrong and unchanged is let through (ratcheting).
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        validate::validate(self, new, old)
    }

    /// For built-in kinds: the error with which the server's decoder refuses a value of the wrong type, such as
    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
    pub fn decode_error(&self, object: &Value) -> Option<String> {
        decode::error(self, object)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// How a key of an object is described; `None` where the schema does not know it.
    pub(crate) fn field(&self, name: &str) -> Option<Field<'_>> {
        self.0.field(name)
    }

    /// Whether a key is one of the schema's own, not one of a map's.
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.0.property(name).is_some()
    }

    /// What the server's types always have for a field that is not set: an empty struct, or null for a list that is always written.
    pub(crate) fn stand_in(&self, name: &str) -> Option<&'static Value> {
        static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
        let child = self.0.property(name).filter(|_| self.0.builtin)?;
        if child.default().and_then(Value::as_object).is_some_and(Map::is_empty) {
            return Some(&EMPTY);
        }
        let is_list = matches!(child.schema().kind(), Kind::Array) && self.0.required.iter().any(|key| &**key == name);
        is_list.then_some(&Value::Null)
    }

    /// How the items of a list are described.
    pub(crate) fn items(&self) -> &Schema {
        self.0.items.as_ref().map_or(Schema::any(), node::Child::schema)
    }

    /// How a list is merged.
    pub(crate) fn list_type(&self) -> &ListType {
        &self.0.list
    }

    /// Whether a map is owned and replaced as a whole.
    pub(crate) fn is_atomic_map(&self) -> bool {
        self.0.atomic_map
    }

    /// The key by which a strategic merge patch merges a list; empty for a list of scalars; `None` where it replaces.
    pub(crate) fn patch_merge_key(&self) -> Option<&str> {
        self.0.patch_merge_key.as_deref()
    }
}
