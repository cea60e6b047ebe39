//! Custom resources: what an established CustomResourceDefinition adds.

use super::{Group, Kinds, Resource, Subresource, qualified};
use crate::schema::{Schema, crd};
use crate::table::Columns;
use serde_json::Value;
use std::cmp::Reverse;
use std::sync::Arc;

/// Where a custom resource keeps what its `scale` shows, as JSON pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// `specReplicasPath`.
    pub spec: String,
    /// `statusReplicasPath`.
    pub status: String,
    /// `labelSelectorPath`.
    pub selector: Option<String>,
}

/// What a definition says of one version.
#[derive(Debug)]
pub struct Custom {
    /// The definition's revision, to tell whether this is of the present one.
    pub revision: String,
    /// The name of the definition.
    pub definition: String,
    /// The version that objects are stored at.
    pub storage_version: String,
    /// What may be in an object.
    pub schema: Schema,
    /// The published schema as it was given, for OpenAPI.
    pub open_api: Value,
    /// The columns of tables.
    pub columns: Columns,
    /// Fields for field selectors, such as `spec.color`.
    pub selectable: Vec<String>,
    /// The paths of `scale`, if it is offered.
    pub scale: Option<ScalePaths>,
    /// What to warn users of this version of.
    pub deprecation: Option<String>,
    /// Whether the definition is being deleted: nothing new may be created.
    pub terminating: bool,
}

const VERBS: &[&str] = &[
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];

fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let list = value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Adds the versions that a definition serves. A resource of an unchanged definition is taken over from `before`.
pub(super) fn add(kinds: &mut Kinds, definition: &Value, before: &Kinds) {
    if !crd::is_established(definition) {
        return;
    }
    let group = text(definition, "/spec/group");
    let plural = text(definition, "/status/acceptedNames/plural");
    let versions = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let storage = versions
        .iter()
        .find(|one| one.get("storage").and_then(Value::as_bool) == Some(true));
    let storage = storage.map(|one| text(one, "/name")).unwrap_or_default();
    let revision = text(definition, "/metadata/resourceVersion");
    for version in versions
        .iter()
        .filter(|one| one.get("served").and_then(Value::as_bool) == Some(true))
    {
        let name = text(version, "/name");
        let kept = before.resource(&group, &name, &plural);
        let kept = kept.filter(|old| old.custom.as_ref().is_some_and(|custom| custom.revision == revision));
        let resource = match kept {
            Some(old) => old.clone(),
            None => Arc::new(resource(definition, version, &group, &plural, &storage)),
        };
        let Group { versions } = kinds.groups.entry(group.clone()).or_default();
        match versions.iter_mut().find(|(known, _)| *known == name) {
            Some((_, resources)) => resources.push(resource),
            None => versions.push((name, vec![resource])),
        }
    }
}

fn resource(definition: &Value, version: &Value, group: &str, plural: &str, storage: &str) -> Resource {
    let kind = text(definition, "/status/acceptedNames/kind");
    let name = text(version, "/name");
    let mut subresources = Vec::new();
    let mut subresource = |name: &str, kind: &str, group: &str, version: &str| {
        subresources.push(Subresource {
            name: name.to_owned(),
            kind: kind.to_owned(),
            group: group.to_owned(),
            version: version.to_owned(),
            verbs: ["get", "patch", "update"].map(str::to_owned).to_vec(),
        });
    };
    if version.pointer("/subresources/status").is_some() {
        subresource("status", &kind, "", "");
    }
    let scale = version.pointer("/subresources/scale").map(|scale| {
        subresource("scale", "Scale", "autoscaling", "v1");
        ScalePaths {
            spec: pointer(&text(scale, "/specReplicasPath")),
            status: pointer(&text(scale, "/statusReplicasPath")),
            selector: scale.get("labelSelectorPath").and_then(Value::as_str).map(pointer),
        }
    });
    let deprecated = version.get("deprecated").and_then(Value::as_bool) == Some(true);
    let warning = version
        .get("deprecationWarning")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let open_api = version.pointer("/schema/openAPIV3Schema").cloned();
    let selectable = version
        .get("selectableFields")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    Resource {
        group: group.to_owned(),
        version: name.clone(),
        plural: plural.to_owned(),
        singular: text(definition, "/status/acceptedNames/singular"),
        list_kind: text(definition, "/status/acceptedNames/listKind"),
        short_names: texts(definition, "/status/acceptedNames/shortNames"),
        categories: texts(definition, "/status/acceptedNames/categories"),
        namespaced: text(definition, "/spec/scope") == "Namespaced",
        verbs: VERBS.iter().map(|verb| (*verb).to_owned()).collect(),
        subresources,
        storage_hash: storage_hash(group, storage, &kind),
        collection: Arc::from(qualified(plural, group)),
        custom: Some(Custom {
            revision: text(definition, "/metadata/resourceVersion"),
            definition: text(definition, "/metadata/name"),
            storage_version: storage.to_owned(),
            schema: Schema::from_crd(open_api.as_ref()),
            open_api: open_api.unwrap_or_default(),
            columns: Columns::of_crd(version.get("additionalPrinterColumns")),
            selectable: selectable
                .iter()
                .map(|field| text(field, "/jsonPath").trim_start_matches('.').to_owned())
                .collect(),
            scale,
            deprecation: deprecated.then(|| {
                warning.unwrap_or_else(|| match newer(definition) {
                    Some(newer) => format!("{group}/{name} {kind} is deprecated; use {group}/{newer} {kind}"),
                    None => format!("{group}/{name} {kind} is deprecated"),
                })
            }),
            terminating: definition.pointer("/metadata/deletionTimestamp").is_some(),
        }),
        kind,
    }
}

/// The best version that is served and not deprecated.
fn newer(definition: &Value) -> Option<String> {
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array)?;
    let flag = |version: &Value, field: &str| version.get(field).and_then(Value::as_bool) == Some(true);
    let good = versions
        .iter()
        .filter(|version| flag(version, "served") && !flag(version, "deprecated"));
    good.map(|version| text(version, "/name")).max_by_key(|name| rank(name))
}

/// `/spec/replicas` of `.spec.replicas`: the paths of `scale` have no lists.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

fn storage_hash(group: &str, version: &str, kind: &str) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(format!("{group}/{version}/{kind}").as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest.get(..8).unwrap_or_default())
}

/// Orders versions as Kubernetes does: general availability before beta before alpha, the higher number first.
pub(super) fn order_versions(kinds: &mut Kinds) {
    for group in kinds.groups.values_mut() {
        group.versions.sort_by_cached_key(|(name, _)| Reverse(rank(name)));
    }
}

/// Higher is preferred; a name that is no version comes last, in alphabetical order.
fn rank(version: &str) -> (u8, u64, u64, Reverse<String>) {
    let number = |text: &str| text.parse::<u64>().ok();
    let parsed = version.strip_prefix('v').and_then(|rest| {
        if let Some((major, minor)) = rest.split_once("alpha") {
            return Some((1, number(major)?, number(minor)?));
        }
        if let Some((major, minor)) = rest.split_once("beta") {
            return Some((2, number(major)?, number(minor)?));
        }
        Some((3, number(rest)?, 0))
    });
    match parsed {
        Some((stage, major, minor)) => (stage, major, minor, Reverse(String::new())),
        None => (0, 0, 0, Reverse(version.to_owned())),
    }
}
