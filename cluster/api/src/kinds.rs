//! Which resources there are: the built-in ones and those that CustomResourceDefinitions add while the API runs.
//!
//! In: the published resource list, definitions. Out: a [`Resource`] for a group, version and plural, and the groups in order for
//! discovery. Never: objects.

mod builtin;
mod custom;

pub use custom::{Custom, ScalePaths};

use crate::schema::Schema;
use crate::status::qualified;
use crate::table::Columns;
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A part of an object with its own path, such as `status` or `scale`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// The last segment of the path.
    pub name: String,
    /// The kind that is sent and answered.
    pub kind: String,
    /// Its group, where it differs from the resource's.
    pub group: String,
    /// Its version, where it differs.
    pub version: String,
    /// What can be done.
    pub verbs: Vec<String>,
}

/// A resource at one version.
#[derive(Debug)]
pub struct Resource {
    /// The API group, empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural, as in paths.
    pub plural: String,
    /// The singular.
    pub singular: String,
    /// The kind.
    pub kind: String,
    /// The kind of its lists.
    pub list_kind: String,
    /// Abbreviations.
    pub short_names: Vec<String>,
    /// Groups of resources such as `all`.
    pub categories: Vec<String>,
    /// Whether objects are in a namespace.
    pub namespaced: bool,
    /// What can be done.
    pub verbs: Vec<String>,
    /// Its subresources.
    pub subresources: Vec<Subresource>,
    /// A short hash of how it is stored, for clients that migrate storage.
    pub storage_hash: String,
    /// The store's collection.
    pub collection: Arc<str>,
    /// What only custom resources have; `None` for built-in ones.
    pub custom: Option<Custom>,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `deployments.apps`, or `pods`.
    pub fn qualified(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    /// A subresource.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether `status` is written only through its subresource.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether this is the built-in resource of that group and plural.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.custom.is_none() && self.group == group && self.plural == plural
    }
}

/// `v1` or `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// `("apps", "v1")` of `apps/v1`.
pub fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// A group with its versions, the preferred one first, and their resources.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The versions in order of preference.
    pub versions: Vec<(String, Vec<Arc<Resource>>)>,
}

/// All resources at a moment.
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    /// The groups by name; core is the empty one.
    pub groups: BTreeMap<String, Group>,
}

impl Kinds {
    /// The resource of a path.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.version(group, version)?.iter().find(|one| one.plural == plural)
    }

    /// The resource that serves a kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.version(group, version)?.iter().find(|one| one.kind == kind)
    }

    /// The resources of a version.
    pub fn version(&self, group: &str, version: &str) -> Option<&Vec<Arc<Resource>>> {
        let versions = &self.groups.get(group)?.versions;
        versions.iter().find(|(name, _)| name == version).map(|(_, all)| all)
    }

    /// Any version of a resource.
    pub fn any_version(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        let versions = &self.groups.get(group)?.versions;
        versions
            .iter()
            .find_map(|(_, all)| all.iter().find(|one| one.plural == plural))
    }
}

/// The resources, their schemas and columns.
#[derive(Debug)]
pub struct Registry {
    builtin: Kinds,
    current: RwLock<Arc<Kinds>>,
    schemas: builtin::Schemas,
}

impl Registry {
    /// The built-in resources.
    pub fn new() -> Result<Self, BuiltinError> {
        let builtin = builtin::kinds()?;
        Ok(Self {
            current: RwLock::new(Arc::new(builtin.clone())),
            builtin,
            schemas: builtin::Schemas::default(),
        })
    }

    /// What there is now.
    pub fn current(&self) -> Arc<Kinds> {
        self.current.read().clone()
    }

    /// Takes the custom resources from all definitions there are; those not established are left out.
    pub fn set_definitions(&self, definitions: &[Value]) {
        let mut kinds = self.builtin.clone();
        let before = self.current();
        for definition in definitions {
            custom::add(&mut kinds, definition, &before);
        }
        custom::order_versions(&mut kinds);
        *self.current.write() = Arc::new(kinds);
    }

    /// The schema of a resource's objects.
    pub fn schema(&self, resource: &Resource) -> Option<Schema> {
        match &resource.custom {
            Some(custom) => Some(custom.schema.clone()),
            None => self.schemas.of(&resource.group, &resource.version, &resource.kind),
        }
    }

    /// The schema of a kind that has no resource of its own, such as `Scale`.
    pub fn schema_of(&self, group: &str, version: &str, kind: &str) -> Option<Schema> {
        self.schemas.of(group, version, kind)
    }

    /// `components.schemas` of a built-in group and version as JSON text.
    pub fn components(&self, group: &str, version: &str) -> Option<Vec<u8>> {
        builtin::components(group, version)
    }

    /// The columns of a resource's tables.
    pub fn columns(&self, resource: &Resource) -> Columns {
        match &resource.custom {
            Some(custom) => custom.columns.clone(),
            None => Columns::of(&resource.group, &resource.plural),
        }
    }
}

/// The published resource list that is built in cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the built-in resource list cannot be read: {0}; write it anew with openapi/generate")]
pub struct BuiltinError(String);

#[cfg(test)]
mod tests;
