//! An object that should exist.

use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

/// The parts of a mesh that status counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// The control plane: its Deployment and what that needs.
    IstioDiscovery,
    /// Configuration and webhooks.
    MeshConfig,
    /// Gateways into the mesh.
    IstioIngress,
}

impl Component {
    /// The name in status, labels and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IstioDiscovery => "istio-discovery",
            Self::MeshConfig => "mesh-config",
            Self::IstioIngress => "istio-ingress",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which object, in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// `apps/v1`, or `v1` for the core group.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// The namespace, if the kind has one.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// An object that should exist, complete but for what the API server fills in.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    component: Component,
    id: ObjectId,
    body: Value,
}

impl Manifest {
    /// From a typed object. Its serialised form tells kind, name and namespace; a hash of it is noted in an annotation.
    pub(crate) fn of(component: Component, object: &impl Serialize) -> Self {
        // Kubernetes' types always serialise; if one did not, the API server would refuse the empty object by name.
        let mut body = serde_json::to_value(object).unwrap_or_default();
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let id = ObjectId {
            api_version: text("/apiVersion").unwrap_or_default(),
            kind: text("/kind").unwrap_or_default(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name").unwrap_or_default(),
        };
        let hash = format!("{:016x}", xxh3_64(body.to_string().as_bytes()));
        if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
            let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
            if let Some(annotations) = annotations.as_object_mut() {
                annotations.insert(crate::labels::APPLIED.to_owned(), hash.into());
            }
        }
        Self { component, id, body }
    }

    /// The part of the mesh it belongs to.
    #[must_use]
    pub fn component(&self) -> Component {
        self.component
    }

    /// Which object it is.
    #[must_use]
    pub fn id(&self) -> &ObjectId {
        &self.id
    }

    /// The object itself.
    #[must_use]
    pub fn body(&self) -> &Value {
        &self.body
    }
}
