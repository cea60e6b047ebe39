//! The checked spec: what every other module of this crate may rely on.

use crate::error::Collector;
use crate::{Problem, SpecErrors, acted_on, checks, profile, shape};
use mizzen_crds::maistra::{
    CommonContainerConfig, ComponentRuntimeConfig, ContainerConfig, ControlPlaneMode, DefaultRuntimeConfig,
    ServiceMeshControlPlane, ServiceMeshControlPlaneSpec,
};
use serde_json::{Map, Value};
use std::fmt;

mod rules;

/// The only version there is; the newest when there are more.
pub const VERSION: &str = "v1.0";

/// Of several control planes in a namespace the oldest counts; this says so to users.
pub const OLDEST_FIRST: &str = "a namespace holds one mesh, and the oldest ServiceMeshControlPlane is it";

/// Which mesh: the namespace and name of its ServiceMeshControlPlane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshKey {
    /// The namespace.
    pub namespace: String,
    /// The name, which is the revision too.
    pub name: String,
}

impl fmt::Display for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the operator's own installation decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The namespace the operator runs in; no mesh may be in it, and it is never a member.
    pub operator_namespace: String,
    /// The operator's version, for labels and status.
    pub operator_version: String,
    /// Where images come from unless a spec says otherwise, such as `localhost/mizzen`.
    pub image_registry: String,
    /// Which tag unless a spec says otherwise.
    pub image_tag: String,
}

impl Settings {
    /// Checks where images come from.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(&self) -> Result<(), SpecErrors> {
        let mut errors = Collector::new("settings", "", "of the installation");
        errors.check("image registry (--registry)", checks::registry(&self.image_registry));
        errors.check("image tag (--tag)", checks::tag(&self.image_tag));
        errors.finish()
    }
}

/// Which program carries the traffic of pods that do not choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataPlane {
    /// Mizzen's own proxy.
    #[default]
    Native,
    /// Envoy.
    Envoy,
}

impl DataPlane {
    /// As specs and environments spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Envoy => "envoy",
        }
    }

    /// The image of the proxy.
    #[must_use]
    pub fn image_name(self) -> &'static str {
        match self {
            Self::Native => "mizzen-proxy",
            Self::Envoy => "mizzen-proxy-envoy",
        }
    }
}

/// A spec with its profiles merged in, and nothing wrong with it.
#[derive(Clone, Debug)]
pub struct ValidatedMesh {
    key: MeshKey,
    generation: i64,
    settings: Settings,
    applied: Value,
    spec: ServiceMeshControlPlaneSpec,
    data_plane: DataPlane,
    not_acted_on: Vec<String>,
}

impl ValidatedMesh {
    /// Checks an object that was read already.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(mesh: &ServiceMeshControlPlane, settings: &Settings) -> Result<Self, SpecErrors> {
        Self::check_raw(&serde_json::to_value(mesh).unwrap_or_default(), settings)
    }

    /// Checks an object as it was written; fields that do not exist are found too.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check_raw(raw: &Value, settings: &Settings) -> Result<Self, SpecErrors> {
        let text = |path: &str| raw.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = MeshKey {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        };
        let mut errors = Collector::new("ServiceMeshControlPlane", &key.namespace, &key.name);

        if let Err(problem) = checks::name(&key.name) {
            errors.add("metadata.name", problem);
        }
        if let Err(problem) = checks::name(&key.namespace) {
            errors.add("metadata.namespace", problem);
        }
        if key.namespace == settings.operator_namespace {
            let why = "is the operator's own";
            errors.add(
                "metadata.namespace",
                Problem::WrongNamespace {
                    namespace: key.namespace.clone(),
                    why,
                },
            );
        }
        let user = raw.get("spec").cloned().unwrap_or_else(|| Value::Object(Map::new()));
        let applied = match profile::apply(&user) {
            Ok(applied) => applied,
            Err(problem) => return Err(errors.fail("spec.profiles", problem)),
        };
        let spec = shape::read_mesh(&user, &applied, &mut errors);
        let spec: ServiceMeshControlPlaneSpec = errors.unless_missing(spec)?;
        let data_plane = rules::check(&spec, &mut errors);
        errors.finish()?;
        Ok(Self {
            key,
            generation: raw
                .pointer("/metadata/generation")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
            settings: settings.clone(),
            not_acted_on: acted_on::missing(&user),
            applied,
            spec,
            data_plane,
        })
    }

    /// Which mesh it is.
    #[must_use]
    pub fn key(&self) -> &MeshKey {
        &self.key
    }

    /// The generation of the object that was checked.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// The spec with its profiles merged in, for status.
    #[must_use]
    pub fn applied_spec(&self) -> &Value {
        &self.applied
    }

    /// The same, typed.
    #[must_use]
    pub fn spec(&self) -> &ServiceMeshControlPlaneSpec {
        &self.spec
    }

    /// Fields of the user's own spec that are accepted but change nothing yet, sorted.
    #[must_use]
    pub fn not_acted_on(&self) -> &[String] {
        &self.not_acted_on
    }

    /// The version of the control plane.
    #[must_use]
    pub fn version(&self) -> &str {
        self.spec.version.as_deref().unwrap_or(VERSION)
    }

    /// Whether the mesh sees every namespace.
    #[must_use]
    pub fn cluster_wide(&self) -> bool {
        self.spec.mode == Some(ControlPlaneMode::ClusterWide)
    }

    /// Which proxy pods get that do not choose.
    #[must_use]
    pub fn data_plane(&self) -> DataPlane {
        self.data_plane
    }

    /// What the operator's installation decided.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// `istiod-<name>`: Deployment, Service and ServiceAccount of the control plane.
    #[must_use]
    pub fn istiod(&self) -> String {
        format!("istiod-{}", self.key.name)
    }

    /// The name of this mesh's cluster-wide objects.
    pub(crate) fn cluster_name(&self) -> String {
        format!("istiod-{}-{}", self.key.name, self.key.namespace)
    }

    /// The domain of the cluster's services.
    pub(crate) fn cluster_domain(&self) -> &str {
        let networking = self.spec.proxy.as_ref().and_then(|p| p.networking.as_ref());
        networking
            .and_then(|n| n.cluster_domain.as_deref())
            .unwrap_or("cluster.local")
    }

    /// The trust domain of identities.
    pub(crate) fn trust_domain(&self) -> &str {
        let trust = self.spec.security.as_ref().and_then(|s| s.trust.as_ref());
        trust.and_then(|t| t.domain.as_deref()).unwrap_or("cluster.local")
    }

    /// The cluster's name in telemetry.
    pub(crate) fn cluster_id(&self) -> &str {
        self.spec
            .cluster
            .as_ref()
            .and_then(|c| c.name.as_deref())
            .unwrap_or("Kubernetes")
    }

    /// What holds for every component that does not say otherwise.
    pub(crate) fn defaults(&self) -> DefaultRuntimeConfig {
        self.spec
            .runtime
            .as_ref()
            .and_then(|r| r.defaults.clone())
            .unwrap_or_default()
    }

    /// The control plane's own Deployment, pods and container.
    pub(crate) fn pilot(&self) -> ComponentRuntimeConfig {
        let components = self.spec.runtime.as_ref().and_then(|r| r.components.as_ref());
        components.and_then(|c| c.get("pilot")).cloned().unwrap_or_default()
    }

    /// Defaults of containers.
    pub(crate) fn container_defaults(&self) -> CommonContainerConfig {
        self.defaults().container.unwrap_or_default()
    }

    /// Registry and tag of an image: the component's, the mesh's, or the operator's.
    pub(crate) fn image_source(&self, container: &ContainerConfig) -> (String, String) {
        let defaults = self.container_defaults();
        let registry = container.image_registry.clone().or(defaults.image_registry);
        let tag = container.image_tag.clone().or(defaults.image_tag);
        (
            registry.unwrap_or_else(|| self.settings.image_registry.clone()),
            tag.unwrap_or_else(|| self.settings.image_tag.clone()),
        )
    }

    /// The whole reference of an image. `imageName` may be a whole reference itself.
    pub(crate) fn image(&self, name: &str, container: &ContainerConfig) -> String {
        let name = container.image_name.as_deref().unwrap_or(name);
        if name.contains('/') {
            return name.to_owned();
        }
        let (registry, tag) = self.image_source(container);
        let separator = if tag.starts_with("sha256:") { '@' } else { ':' };
        format!("{registry}/{name}{separator}{tag}")
    }

    /// When images are pulled.
    pub(crate) fn pull_policy(&self, container: &ContainerConfig) -> String {
        let policy = container
            .image_pull_policy
            .clone()
            .or(self.container_defaults().image_pull_policy);
        policy.unwrap_or_else(|| "IfNotPresent".to_owned())
    }
}

/// What other control planes in the cluster have against this one: one mesh to a namespace, and a mesh of the whole
/// cluster is the only one.
#[must_use]
pub fn conflicts<'a>(
    mesh: &ServiceMeshControlPlane,
    others: impl IntoIterator<Item = &'a ServiceMeshControlPlane>,
) -> Vec<crate::SpecError> {
    let key = |m: &ServiceMeshControlPlane| MeshKey {
        namespace: m.metadata.namespace.clone().unwrap_or_default(),
        name: m.metadata.name.clone().unwrap_or_default(),
    };
    let own = key(mesh);
    let mut errors = Collector::new("ServiceMeshControlPlane", &own.namespace, &own.name);
    for other in others {
        let theirs = key(other);
        if theirs == own {
            continue;
        }
        let conflict = |why| Problem::Conflict {
            other: format!("ServiceMeshControlPlane {theirs}"),
            why,
        };
        if theirs.namespace == own.namespace {
            errors.add("metadata.namespace", conflict(OLDEST_FIRST));
        } else if [mesh, other]
            .iter()
            .any(|m| m.spec.mode == Some(ControlPlaneMode::ClusterWide))
        {
            errors.add(
                "spec.mode",
                conflict("a mesh of mode ClusterWide is the only one in a cluster"),
            );
        }
    }
    errors.into_errors()
}

#[cfg(test)]
mod tests;
