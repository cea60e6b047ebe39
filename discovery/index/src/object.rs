//! What the index is fed with: Kubernetes objects as they are, and what happened to them.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mizzen_crds as crds;
use mizzen_crds::schema::{Finding, check, structural, whole_numbers};
use mizzen_model::{Kind, Labels};
use serde_json::Value;

use crate::error::{Invalid, Reason};

/// An object of a kind that the index reads.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the variants are kinds")]
pub enum Object {
    Namespace(Box<core::Namespace>),
    Node(Box<core::Node>),
    Service(Box<core::Service>),
    EndpointSlice(Box<EndpointSlice>),
    Pod(Box<core::Pod>),
    ConfigMap(Box<core::ConfigMap>),
    Gateway(Box<crds::Gateway>),
    VirtualService(Box<crds::VirtualService>),
    DestinationRule(Box<crds::DestinationRule>),
    PeerAuthentication(Box<crds::PeerAuthentication>),
    /// An object of one of our own kinds that does not have the shape its schema asks for. It is reported, and acted on as
    /// little as an object that is refused.
    Unreadable(Box<Unreadable>),
}

/// An object of one of our own kinds that does not fit its schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Its kind.
    pub kind: Kind,
    /// Its metadata, as far as it could be read.
    pub metadata: ObjectMeta,
    /// The labels that it selects pods by, if that much could be read.
    pub selector: Option<Labels>,
    /// What is wrong with it.
    pub errors: Vec<Invalid>,
}

/// Which object, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// An object came or changed.
    Apply(Object),
    /// An object went.
    Delete(ObjectRef),
    /// All objects of a kind, after a list: whatever is not among them went.
    Replace(Kind, Vec<Object>),
}

impl Object {
    /// Which object it is.
    pub fn reference(&self) -> ObjectRef {
        let (kind, metadata) = self.kind_and_metadata();
        ObjectRef {
            kind,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Its `metadata.generation`.
    pub fn generation(&self) -> Option<i64> {
        self.kind_and_metadata().1.generation
    }

    fn kind_and_metadata(&self) -> (Kind, &ObjectMeta) {
        match self {
            Self::Namespace(object) => (Kind::Namespace, &object.metadata),
            Self::Node(object) => (Kind::Node, &object.metadata),
            Self::Service(object) => (Kind::Service, &object.metadata),
            Self::EndpointSlice(object) => (Kind::EndpointSlice, &object.metadata),
            Self::Pod(object) => (Kind::Pod, &object.metadata),
            Self::ConfigMap(object) => (Kind::ConfigMap, &object.metadata),
            Self::Gateway(object) => (Kind::Gateway, &object.metadata),
            Self::VirtualService(object) => (Kind::VirtualService, &object.metadata),
            Self::DestinationRule(object) => (Kind::DestinationRule, &object.metadata),
            Self::PeerAuthentication(object) => (Kind::PeerAuthentication, &object.metadata),
            Self::Unreadable(object) => (object.kind, &object.metadata),
        }
    }

    /// Reads an object of one of our own kinds from JSON, whatever its version. Never fails: what does not fit the schema
    /// becomes [`Object::Unreadable`]. Watch with a dynamic type and come through here, since a typed watch of a list
    /// fails as a whole when one object in it cannot be read.
    ///
    /// None if the kind is not one of ours (networking.istio.io, security.istio.io).
    pub fn from_json(json: Value) -> Option<Self> {
        let ours = OurKind::of(&json)?;
        let (findings, _) = ours.findings(&json);
        let unreadable = |errors: Vec<Invalid>, json: &Value| {
            let metadata = json.get("metadata").cloned().unwrap_or_default();
            let metadata = serde_json::from_value(metadata).unwrap_or_default();
            let labels = json.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
            let labels = labels.into_iter().flatten();
            let selector: Labels = labels
                .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
                .collect();
            let selector = (!selector.is_empty()).then_some(selector);
            Self::Unreadable(Box::new(Unreadable {
                kind: ours.kind(),
                metadata,
                selector,
                errors,
            }))
        };
        if !findings.is_empty() {
            return Some(unreadable(findings, &json));
        }
        let read = ours.read(&json);
        Some(read.unwrap_or_else(|error| {
            unreadable(
                vec![Invalid {
                    field: String::new(),
                    reason: Reason::Shape(error.to_string()),
                }],
                &json,
            )
        }))
    }
}

/// The kinds that come as custom resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OurKind {
    Gateway,
    VirtualService,
    DestinationRule,
    PeerAuthentication,
}

static GATEWAY: LazyLock<Value> = LazyLock::new(structural::<crds::Gateway>);
static VIRTUAL_SERVICE: LazyLock<Value> = LazyLock::new(structural::<crds::VirtualService>);
static DESTINATION_RULE: LazyLock<Value> = LazyLock::new(structural::<crds::DestinationRule>);
static PEER_AUTHENTICATION: LazyLock<Value> = LazyLock::new(structural::<crds::PeerAuthentication>);

impl OurKind {
    /// The kind of an object by its `apiVersion` and `kind`.
    pub(crate) fn of(json: &Value) -> Option<Self> {
        let text = |field| json.get(field).and_then(Value::as_str).unwrap_or_default();
        let (group, _) = text("apiVersion").split_once('/')?;
        match (group, text("kind")) {
            (crds::networking::GROUP, "Gateway") => Some(Self::Gateway),
            (crds::networking::GROUP, "VirtualService") => Some(Self::VirtualService),
            (crds::networking::GROUP, "DestinationRule") => Some(Self::DestinationRule),
            (crds::security::GROUP, "PeerAuthentication") => Some(Self::PeerAuthentication),
            _ => None,
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Gateway => Kind::Gateway,
            Self::VirtualService => Kind::VirtualService,
            Self::DestinationRule => Kind::DestinationRule,
            Self::PeerAuthentication => Kind::PeerAuthentication,
        }
    }

    fn schema(self) -> &'static Value {
        match self {
            Self::Gateway => &GATEWAY,
            Self::VirtualService => &VIRTUAL_SERVICE,
            Self::DestinationRule => &DESTINATION_RULE,
            Self::PeerAuthentication => &PEER_AUTHENTICATION,
        }
    }

    /// What keeps the object from being read, and which fields nobody knows. The status is its writer's business.
    pub(crate) fn findings(self, json: &Value) -> (Vec<Invalid>, Vec<Invalid>) {
        let findings = check(self.schema(), json)
            .into_iter()
            .filter(|finding| !finding.path.starts_with("status"));
        let (unknown, wrong): (Vec<Finding>, Vec<Finding>) =
            findings.partition(|finding| finding.problem.is_unknown_field());
        let wrong = wrong.into_iter().map(|finding| Invalid {
            field: finding.path,
            reason: Reason::Shape(finding.problem.to_string()),
        });
        let unknown = unknown.into_iter().map(|finding| Invalid {
            field: finding.path,
            reason: Reason::UnknownField(finding.problem.to_string()),
        });
        (wrong.collect(), unknown.collect())
    }

    /// The object as its type.
    pub(crate) fn read(self, json: &Value) -> Result<Object, serde_json::Error> {
        fn typed<T: serde::de::DeserializeOwned>(json: &Value) -> Result<Box<T>, serde_json::Error> {
            // The status may hold what other writers put there; it is not read here.
            let mut json = json.clone();
            if let Some(fields) = json.as_object_mut() {
                fields.remove("status");
            }
            whole_numbers(&mut json);
            serde_json::from_value(json).map(Box::new)
        }
        Ok(match self {
            Self::Gateway => Object::Gateway(typed(json)?),
            Self::VirtualService => Object::VirtualService(typed(json)?),
            Self::DestinationRule => Object::DestinationRule(typed(json)?),
            Self::PeerAuthentication => Object::PeerAuthentication(typed(json)?),
        })
    }
}
