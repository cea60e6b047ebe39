//! The built-in resources: what the published lists and schemas in `openapi/` say.

use super::{BuiltinError, Group, Kinds, Resource, Subresource, api_version, qualified};
use crate::schema::{Definitions, Schema};
use flate2::read::GzDecoder;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

macro_rules! published {
    ($($name:literal),* $(,)?) => {
        /// Group and version as `group__version` with the compressed `components.schemas`.
        const PUBLISHED: &[(&str, &[u8])] = &[$(($name, include_bytes!(concat!("../../openapi/", $name, ".json.gz")))),*];
    };
}

published!(
    "core__v1",
    "apps__v1",
    "events.k8s.io__v1",
    "authentication.k8s.io__v1",
    "authorization.k8s.io__v1",
    "autoscaling__v2",
    "autoscaling__v1",
    "batch__v1",
    "networking.k8s.io__v1",
    "policy__v1",
    "rbac.authorization.k8s.io__v1",
    "storage.k8s.io__v1",
    "admissionregistration.k8s.io__v1",
    "apiextensions.k8s.io__v1",
    "scheduling.k8s.io__v1",
    "coordination.k8s.io__v1",
    "discovery.k8s.io__v1",
);

const RESOURCES: &[u8] = include_bytes!("../../openapi/resources.json.gz");

/// What is published and not served: nothing on one machine does what they ask for.
const NOT_SERVED: &[&str] = &[
    "componentstatuses",
    "nodes/proxy",
    "pods/proxy",
    "services/proxy",
    "pods/ephemeralcontainers",
    "pods/resize",
    "validatingadmissionpolicies",
    "validatingadmissionpolicies/status",
    "validatingadmissionpolicybindings",
    "ipaddresses",
    "servicecidrs",
    "servicecidrs/status",
];

fn inflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut text).ok()?;
    Some(text)
}

pub(super) fn kinds() -> Result<Kinds, BuiltinError> {
    let text = inflate(RESOURCES).ok_or_else(|| BuiltinError("it is not compressed".to_owned()))?;
    let lists: BTreeMap<String, Vec<Value>> =
        serde_json::from_slice(&text).map_err(|error| BuiltinError(error.to_string()))?;
    let mut kinds = Kinds::default();
    for (name, _) in PUBLISHED {
        let (group, version) = name.split_once("__").unwrap_or((name, ""));
        let rows = lists
            .get(&format!("{group}/{version}"))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let group = if group == "core" { "" } else { group };
        let mut resources: Vec<Resource> = Vec::new();
        for row in rows {
            add(&mut resources, group, version, row);
        }
        let Group { versions } = kinds.groups.entry(group.to_owned()).or_default();
        versions.push((version.to_owned(), resources.into_iter().map(Arc::new).collect()));
    }
    Ok(kinds)
}

fn add(resources: &mut Vec<Resource>, group: &str, version: &str, row: &Value) {
    let text = |field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |field: &str| -> Vec<String> {
        let items = row
            .get(field)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let name = text("name");
    if NOT_SERVED.contains(&name.as_str()) {
        return;
    }
    if let Some((parent, sub)) = name.split_once('/') {
        let parent = resources.iter_mut().find(|one| one.plural == parent);
        if let Some(parent) = parent {
            parent.subresources.push(Subresource {
                name: sub.to_owned(),
                kind: text("kind"),
                group: text("group"),
                version: text("version"),
                verbs: list("verbs"),
            });
        }
        return;
    }
    let kind = text("kind");
    // Events have one storage and two groups.
    let storage_group = if group == "events.k8s.io" { "" } else { group };
    resources.push(Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        singular: text("singularName"),
        list_kind: format!("{kind}List"),
        kind,
        short_names: list("shortNames"),
        categories: list("categories"),
        namespaced: row.get("namespaced").and_then(Value::as_bool).unwrap_or_default(),
        verbs: list("verbs"),
        subresources: Vec::new(),
        storage_hash: text("storageVersionHash"),
        collection: Arc::from(qualified(&name, storage_group)),
        plural: name,
        custom: None,
    });
}

pub(super) fn components(group: &str, version: &str) -> Option<Vec<u8>> {
    let group = if group.is_empty() { "core" } else { group };
    let name = format!("{group}__{version}");
    let (_, bytes) = PUBLISHED.iter().find(|(published, _)| **published == name)?;
    inflate(bytes)
}

/// The schemas of built-in kinds, read when first asked for.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    definitions: Definitions,
    loaded: Mutex<BTreeSet<String>>,
}

impl Schemas {
    pub(super) fn of(&self, group: &str, version: &str, kind: &str) -> Option<Schema> {
        let mut loaded = self.loaded.lock();
        let name = api_version(group, version);
        if !loaded.contains(&name) {
            let text = components(group, version)?;
            self.definitions.load(&serde_json::from_slice(&text).ok()?);
            loaded.insert(name);
        }
        drop(loaded);
        self.definitions.schema(&schema_name(group, version, kind))
    }
}

/// `io.k8s.api.apps.v1.Deployment`.
pub(super) fn schema_name(group: &str, version: &str, kind: &str) -> String {
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "apiextensions.k8s.io" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}"),
        _ => {
            let first = group.split('.').next().unwrap_or(group);
            format!("io.k8s.api.{first}.{version}.{kind}")
        }
    }
}
