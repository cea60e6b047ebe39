//! The compact form of a schema, and how it is read from OpenAPI.

use super::{Definitions, Schema, Slot, validate::Checks};
use serde_json::{Map, Value, json};
use std::sync::{Arc, OnceLock};

/// The JSON type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// Anything.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// A resource quantity: text or number.
    Quantity,
}

/// How a list is merged and owned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    /// By these keys.
    Map(Box<[Box<str>]>),
}

/// One schema.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The name of the definition, where it has one.
    pub(crate) name: Option<Box<str>>,
    pub(crate) kind: Kind,
    pub(crate) format: Option<Box<str>>,
    /// Whether it is of a built-in kind, which the server decodes into types of its own.
    pub(crate) builtin: bool,
    /// Sorted by name.
    pub(crate) properties: Box<[(Box<str>, Child)]>,
    pub(crate) required: Box<[Box<str>]>,
    pub(crate) additional: Option<Child>,
    pub(crate) items: Option<Child>,
    pub(crate) list: ListType,
    pub(crate) atomic_map: bool,
    pub(crate) patch_merge_key: Option<Box<str>>,
    /// Unknown fields are kept.
    pub(crate) preserve: bool,
    /// The value is an object with `apiVersion`, `kind` and `metadata`.
    pub(crate) embedded: bool,
    pub(crate) nullable: bool,
    /// What else a custom resource must satisfy.
    pub(crate) checks: Option<Box<Checks>>,
}

/// A schema in its place: the same definition may have other defaults elsewhere.
#[derive(Debug)]
pub(crate) struct Child {
    target: Target,
    default: Option<Box<Value>>,
    /// The server's type leaves the field out when it is empty.
    pub(crate) fleeting: bool,
}

#[derive(Debug)]
enum Target {
    Own(Schema),
    Named(Arc<Slot>),
}

/// How one key of an object is described.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) default: Option<&'a Value>,
    /// Whether the server's type leaves the field out when it is empty.
    pub(crate) fleeting: bool,
}

impl Child {
    pub(crate) fn schema(&self) -> &Schema {
        match &self.target {
            Target::Own(schema) => schema,
            Target::Named(slot) => slot.schema.get().unwrap_or_else(|| Schema::any()),
        }
    }

    pub(crate) fn default(&self) -> Option<&Value> {
        self.default.as_deref()
    }

    fn own(node: Node) -> Self {
        Self {
            target: Target::Own(Schema(Arc::new(node))),
            default: None,
            fleeting: false,
        }
    }
}

impl Node {
    pub(crate) fn field(&self, name: &str) -> Option<Field<'_>> {
        if let Some(child) = self.property(name) {
            return Some(Field {
                schema: child.schema(),
                default: child.default(),
                fleeting: child.fleeting,
            });
        }
        if let Some(child) = &self.additional {
            return Some(Field {
                schema: child.schema(),
                default: child.default(),
                fleeting: false,
            });
        }
        let keeps = self.preserve || self.kind == Kind::Any;
        keeps.then(|| Field {
            schema: Schema::any(),
            default: None,
            fleeting: false,
        })
    }

    pub(crate) fn property(&self, name: &str) -> Option<&Child> {
        let index = self.properties.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        self.properties.get(index).map(|(_, child)| child)
    }
}

/// A schema of the published OpenAPI of built-in kinds.
pub(super) fn builtin(name: Option<&str>, raw: &Value, definitions: &Definitions) -> Node {
    let child = |raw: &Value| {
        let reference = raw
            .get("$ref")
            .or_else(|| raw.pointer("/allOf/0/$ref"))
            .and_then(Value::as_str);
        let target = match reference.and_then(|path| path.rsplit('/').next()) {
            Some(name) => Target::Named(definitions.slot(name)),
            None => Target::Own(Schema(Arc::new(builtin(None, raw, definitions)))),
        };
        Child {
            target,
            default: raw.get("default").cloned().map(Box::new),
            fleeting: false,
        }
    };
    let mut node = common(raw, child);
    node.name = name.map(Into::into);
    node.builtin = true;
    for (field, child) in &mut node.properties {
        let declared = name.and_then(|name| crate::protobuf::leaves_out_empty(name, field));
        // Of types whose declarations are not known, texts and collections that are not required.
        child.fleeting = declared.unwrap_or_else(|| {
            let is_scalar = matches!(child.schema().kind(), Kind::Integer | Kind::Number | Kind::Boolean);
            !is_scalar && !node.required.contains(field) && !matches!(&**field, "path" | "url")
        });
    }
    if raw.get("oneOf").is_some() && node.kind == Kind::Any {
        node.kind = Kind::Quantity;
    }
    // RawExtension, FieldsV1 and the like: an object of which nothing is said holds anything.
    let holds_anything = raw.get("properties").is_none() && node.additional.is_none();
    node.preserve |= node.kind == Kind::Object && holds_anything && node.name.is_some();
    node.patch_merge_key = text(raw, "x-kubernetes-patch-strategy")
        .filter(|strategy| strategy.split(',').any(|word| word == "merge"))
        .map(|_| text(raw, "x-kubernetes-patch-merge-key").unwrap_or_default().into());
    if raw.get("x-kubernetes-list-type").is_none()
        && let Some(key) = &node.patch_merge_key
    {
        node.list = if key.is_empty() {
            ListType::Set
        } else {
            ListType::Map(Box::new([key.clone()]))
        };
    }
    node
}

/// A schema of a custom resource definition, below the root.
pub(super) fn custom(raw: &Value) -> Node {
    let mut node = common(raw, |raw| Child {
        target: Target::Own(Schema(Arc::new(custom(raw)))),
        default: raw.get("default").cloned().map(Box::new),
        fleeting: false,
    });
    node.checks = Checks::read(raw);
    if node.embedded {
        add_resource_fields(&mut node);
    }
    node
}

/// The root of a custom resource's schema.
pub(super) fn custom_root(raw: Option<&Value>) -> Node {
    let mut node = match raw {
        Some(raw) => custom(raw),
        None => Node {
            kind: Kind::Object,
            preserve: true,
            ..Node::default()
        },
    };
    add_resource_fields(&mut node);
    node
}

/// What every object has; what a definition says of `metadata` are only checks of its name.
fn add_resource_fields(node: &mut Node) {
    let mut properties: Vec<(Box<str>, Child)> = std::mem::take(&mut node.properties).into_vec();
    properties.retain(|(name, _)| !matches!(&**name, "apiVersion" | "kind" | "metadata"));
    for name in ["apiVersion", "kind"] {
        properties.push((
            name.into(),
            Child::own(Node {
                kind: Kind::String,
                ..Node::default()
            }),
        ));
    }
    let metadata = Child {
        target: Target::Own(object_meta().clone()),
        default: None,
        fleeting: false,
    };
    properties.push(("metadata".into(), metadata));
    properties.sort_by(|a, b| a.0.cmp(&b.0));
    node.properties = properties.into_boxed_slice();
}

fn common(raw: &Value, child: impl Fn(&Value) -> Child) -> Node {
    let flag = |name: &str| raw.get(name).and_then(Value::as_bool).unwrap_or_default();
    let format = text(raw, "format");
    let kind = match text(raw, "type") {
        _ if format == Some("int-or-string") || flag("x-kubernetes-int-or-string") => Kind::IntOrString,
        Some("object") => Kind::Object,
        Some("array") => Kind::Array,
        Some("string") => Kind::String,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        _ if raw.get("properties").is_some() => Kind::Object,
        _ => Kind::Any,
    };
    let mut properties: Vec<(Box<str>, Child)> = raw
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, raw)| (name.as_str().into(), child(raw)))
        .collect();
    properties.sort_by(|a, b| a.0.cmp(&b.0));
    let additional = match raw.get("additionalProperties") {
        Some(schema @ Value::Object(_)) => Some(child(schema)),
        Some(Value::Bool(true)) => Some(Child::own(Node::default())),
        _ => None,
    };
    let list = match text(raw, "x-kubernetes-list-type") {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(texts(raw, "x-kubernetes-list-map-keys")),
        _ => ListType::Atomic,
    };
    Node {
        kind,
        format: format.map(Into::into),
        properties: properties.into_boxed_slice(),
        required: texts(raw, "required"),
        additional,
        items: raw.get("items").map(child),
        list,
        atomic_map: text(raw, "x-kubernetes-map-type") == Some("atomic"),
        preserve: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        nullable: flag("nullable"),
        ..Node::default()
    }
}

pub(super) fn text<'a>(raw: &'a Value, name: &str) -> Option<&'a str> {
    raw.get(name).and_then(Value::as_str)
}

fn texts(raw: &Value, name: &str) -> Box<[Box<str>]> {
    let list: Option<&Vec<Value>> = raw.get(name).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect()
}

/// `metav1.ObjectMeta`.
fn object_meta() -> &'static Schema {
    static META: OnceLock<Schema> = OnceLock::new();
    META.get_or_init(|| {
        let string = json!({"type": "string"});
        let strings = json!({"type": "object", "additionalProperties": string});
        let reference: Map<String, Value> = ["apiVersion", "kind", "name", "uid"]
            .into_iter()
            .map(|name| (name.to_owned(), string.clone()))
            .chain(["blockOwnerDeletion", "controller"].map(|name| (name.to_owned(), json!({"type": "boolean"}))))
            .collect();
        let entry: Map<String, Value> = [
            "apiVersion",
            "fieldsType",
            "manager",
            "operation",
            "subresource",
            "time",
        ]
        .into_iter()
        .map(|name| (name.to_owned(), string.clone()))
        .chain([("fieldsV1".to_owned(), json!({}))])
        .collect();
        let raw = json!({"type": "object", "properties": {
            "annotations": strings,
            "creationTimestamp": {"type": "string", "format": "date-time"},
            "deletionGracePeriodSeconds": {"type": "integer", "format": "int64"},
            "deletionTimestamp": {"type": "string", "format": "date-time"},
            "finalizers": {"type": "array", "items": string, "x-kubernetes-list-type": "set",
                "x-kubernetes-patch-strategy": "merge"},
            "generateName": string,
            "generation": {"type": "integer", "format": "int64"},
            "labels": strings,
            "managedFields": {"type": "array", "items": {"type": "object", "properties": entry}},
            "name": string,
            "namespace": string,
            "ownerReferences": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
                "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "uid",
                "items": {"type": "object", "properties": reference, "required": ["apiVersion", "kind", "name", "uid"],
                    "x-kubernetes-map-type": "atomic"}},
            "resourceVersion": string,
            "selfLink": string,
            "uid": string,
        }});
        let name = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        Schema(Arc::new(builtin(Some(name), &raw, &Definitions::default())))
    })
}
