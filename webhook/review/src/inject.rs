//! A pod with its sidecar.
//!
//! In: a pod as JSON, the mesh's configuration, the namespace, what runs the pod. Out: the pod with init container, sidecar,
//! volumes, labels and annotations; or the reason why that is not possible. Injecting twice changes nothing.
//! Fields that are newer than the types here pass through untouched.

mod containers;
mod overlay;
mod probe;
mod prometheus;
mod volume;
mod workload;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, LocalObjectReference, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::annotation::{AnnotationError, PodOptions};
use crate::config::{InjectConfig, InterceptionMode};

pub use workload::Workload;

/// The sidecar's name.
pub const SIDECAR: &str = "istio-proxy";
/// The init container's name.
pub const INIT: &str = "istio-init";
/// What the injector has done to a pod, as JSON.
pub const STATUS: &str = "sidecar.istio.io/status";
/// The user that traffic is not captured of: the sidecar's own.
pub(crate) const PROXY_UID: i64 = 1337;

/// A pod after injection.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// The whole pod.
    pub pod: Value,
    /// What the user should know though nothing is wrong.
    pub warnings: Vec<String>,
}

/// Why a pod that should get a sidecar cannot. Messages are whole: what a parser says is in them, not behind them.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// It is not a pod.
    #[error("the pod cannot be read: {0}")]
    Pod(serde_json::Error),
    /// It has no spec.
    #[error("the pod has no spec: write spec.containers")]
    NoSpec,
    /// One of its annotations is wrong.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// It runs as the sidecar's user, whose traffic is not captured.
    #[error("{place} runs as user {PROXY_UID}, whose traffic passes by the sidecar: choose another runAsUser")]
    ReservedUser {
        /// The container, or the pod.
        place: String,
    },
    /// Nothing is left of it without its own `istio-proxy`.
    #[error(
        "container {SIDECAR} is the only one of the pod, and the name is the sidecar's: call the application's container \
         something else, or set sidecar.istio.io/inject: \"false\""
    )]
    NoApplication,
    /// It has a container of the injector's own.
    #[error("container {INIT} is the injector's: choose another name, or set sidecar.istio.io/inject: \"false\"")]
    ReservedName,
    /// Its metrics are said to be on a port of the sidecar.
    #[error(
        "annotation prometheus.io/port has the value {port:?}, a port of the sidecar: write the application's port"
    )]
    PrometheusPort {
        /// What it says.
        port: String,
    },
    /// Its traffic is to be captured in a way that is not there yet.
    #[error("interception mode TPROXY is not there yet: write REDIRECT or NONE in sidecar.istio.io/interceptionMode")]
    Tproxy,
    /// Its own `istio-proxy` container does not fit into the template.
    #[error("container {SIDECAR} cannot be laid over the injected one: {0}")]
    Overlay(serde_json::Error),
    /// The result cannot be written.
    #[error("the injected pod cannot be written: {0}")]
    Write(serde_json::Error),
}

impl InjectError {
    /// A bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Pod(_) | Self::NoSpec => "pod",
            Self::Annotation(_) => "annotation",
            Self::ReservedUser { .. } => "reserved_user",
            Self::ReservedName | Self::NoApplication => "reserved_name",
            Self::PrometheusPort { .. } => "prometheus_port",
            Self::Tproxy => "tproxy",
            Self::Overlay(_) => "overlay",
            Self::Write(_) => "write",
        }
    }
}

/// Whether a pod has been injected before.
pub fn is_injected(pod: &Pod) -> bool {
    let has_status = pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(STATUS));
    let named = |containers: &[Container]| containers.iter().any(|container| container.name == SIDECAR);
    has_status
        && pod
            .spec
            .as_ref()
            .is_some_and(|spec| named(&spec.containers) || spec.init_containers.as_deref().is_some_and(named))
}

/// Gives a pod its sidecar. A pod that has one comes back as it is.
///
/// `workload` is what runs the pod where the caller knows it (a Deployment's template); otherwise it is read from the pod's
/// owner.
pub fn inject(
    raw: &Value,
    config: &InjectConfig,
    namespace: &str,
    workload: Option<Workload>,
) -> Result<Injected, InjectError> {
    inject_read(raw, read(raw)?, config, namespace, workload)
}

/// Reads a pod.
pub(crate) fn read(raw: &Value) -> Result<Pod, InjectError> {
    use serde::Deserialize as _;
    Pod::deserialize(raw).map_err(InjectError::Pod)
}

/// Injects a pod that was read from `raw`.
pub(crate) fn inject_read(
    raw: &Value,
    before: Pod,
    config: &InjectConfig,
    namespace: &str,
    workload: Option<Workload>,
) -> Result<Injected, InjectError> {
    if is_injected(&before) {
        return Ok(Injected {
            pod: raw.clone(),
            warnings: Vec::new(),
        });
    }
    let mut after = before.clone();
    let warnings = inject_typed(&mut after, config, namespace, workload)?;
    let before = serde_json::to_value(&before).map_err(InjectError::Write)?;
    let mut after = serde_json::to_value(&after).map_err(InjectError::Write)?;
    // A template of a workload says neither.
    for field in ["apiVersion", "kind"] {
        if let (None, Some(fields)) = (raw.get(field), after.as_object_mut()) {
            fields.remove(field);
        }
    }
    Ok(Injected {
        pod: overlay::keep_unknown(raw, &before, after),
        warnings,
    })
}

fn inject_typed(
    pod: &mut Pod,
    config: &InjectConfig,
    namespace: &str,
    workload: Option<Workload>,
) -> Result<Vec<String>, InjectError> {
    let workload = workload.unwrap_or_else(|| Workload::of_pod(&pod.metadata));
    let Pod {
        metadata,
        spec: Some(spec),
        ..
    } = pod
    else {
        return Err(InjectError::NoSpec);
    };
    let annotations = metadata.annotations.get_or_insert_default();
    let mut options = PodOptions::read(config, annotations)?;
    let mut warnings = std::mem::take(&mut options.warnings);

    if options.capture.interception_mode == InterceptionMode::Tproxy {
        return Err(InjectError::Tproxy);
    }
    let own = overlay::take_own_sidecar(spec);
    if own.is_some() && spec.containers.is_empty() {
        return Err(InjectError::NoApplication);
    }
    check_users(spec)?;
    if spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .any(|container| container.name == INIT)
    {
        return Err(InjectError::ReservedName);
    }
    // Read before the sidecar is there: these are the application's containers.
    let facts = containers::AppFacts::of(spec);
    let probers = if options.rewrite_probes && options.status_port != 0 {
        probe::rewrite(spec, options.status_port, &mut warnings)
    } else {
        BTreeMap::new()
    };
    let scrape = if options.merge_prometheus && options.status_port != 0 {
        prometheus::lead_to_agent(annotations, options.status_port)?
    } else {
        None
    };

    let context = containers::Context {
        config,
        options: &options,
        namespace,
        workload: &workload,
    };
    let mut sidecar = context.sidecar(&facts, &probers, scrape);
    if let Some(own) = own {
        sidecar = overlay::lay_over(sidecar, &own).map_err(InjectError::Overlay)?;
    }
    let init = (options.capture.interception_mode != InterceptionMode::None).then(|| context.init());
    let status = place(spec, config, &options, sidecar, init);

    for (key, value) in &config.injected_annotations {
        annotations.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if let Some(first) = facts.names.first() {
        for key in [
            "kubectl.kubernetes.io/default-container",
            "kubectl.kubernetes.io/default-logs-container",
        ] {
            annotations.entry(key.to_owned()).or_insert_with(|| first.clone());
        }
    }
    annotations.insert(crate::decide::REVISION.to_owned(), config.revision.clone());
    annotations.insert(STATUS.to_owned(), status.to_string());
    label(metadata, &workload);
    Ok(warnings)
}

/// Puts containers and volumes where they belong, and tells what was added.
fn place(
    spec: &mut PodSpec,
    config: &InjectConfig,
    options: &PodOptions,
    sidecar: Container,
    init: Option<Container>,
) -> Value {
    let mut init_names: Vec<String> = init.iter().map(|container| container.name.clone()).collect();
    let mut container_names = Vec::new();
    let inits = spec.init_containers.get_or_insert_default();
    if options.native_sidecar {
        // Before everything else, so that other init containers have their traffic in the mesh too.
        init_names.push(sidecar.name.clone());
        let rest = std::mem::take(inits);
        inits.extend(init.into_iter().chain([sidecar]).chain(rest));
    } else {
        // Last, so that other init containers still reach the network while no sidecar runs.
        inits.extend(init);
        container_names.push(sidecar.name.clone());
        if options.hold_application {
            spec.containers.insert(0, sidecar);
        } else {
            spec.containers.push(sidecar);
        }
    }
    if inits.is_empty() {
        spec.init_containers = None;
    }

    let volumes = volume::volumes(config.token_expiration_seconds)
        .into_iter()
        .chain(options.volumes.iter().cloned());
    let mut volume_names = Vec::new();
    let present = spec.volumes.get_or_insert_default();
    for volume in volumes {
        if !present.iter().any(|there| there.name == volume.name) {
            volume_names.push(volume.name.clone());
            present.push(volume);
        }
    }
    let mut secret_names = Vec::new();
    for name in &config.images.pull_secrets {
        let secrets = spec.image_pull_secrets.get_or_insert_default();
        if !secrets.iter().any(|there| there.name == *name) {
            secret_names.push(name.clone());
            secrets.push(LocalObjectReference { name: name.clone() });
        }
    }
    let or_null = |names: Vec<String>| if names.is_empty() { Value::Null } else { json!(names) };
    json!({
        "initContainers": or_null(init_names),
        "containers": or_null(container_names),
        "volumes": or_null(volume_names),
        "imagePullSecrets": or_null(secret_names),
        "revision": config.revision,
    })
}

/// An application that runs as the sidecar's user would never be captured, and nobody would notice.
fn check_users(spec: &PodSpec) -> Result<(), InjectError> {
    let pod_user = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    if pod_user == Some(PROXY_UID) {
        return Err(InjectError::ReservedUser {
            place: "the pod".to_owned(),
        });
    }
    for container in &spec.containers {
        let user = container
            .security_context
            .as_ref()
            .and_then(|context| context.run_as_user);
        if user == Some(PROXY_UID) {
            return Err(InjectError::ReservedUser {
                place: format!("container {}", container.name),
            });
        }
    }
    Ok(())
}

fn label(metadata: &mut ObjectMeta, workload: &Workload) {
    const NAME: &str = "service.istio.io/canonical-name";
    const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
    let labels = metadata.labels.get_or_insert_default();
    let first = |keys: [&str; 2]| keys.iter().find_map(|key| labels.get(*key)).cloned();
    let name = first(["app.kubernetes.io/name", "app"]).unwrap_or_else(|| workload.as_label());
    let revision = first(["app.kubernetes.io/version", "version"]).unwrap_or_else(|| "latest".to_owned());
    labels.entry(NAME.to_owned()).or_insert(name);
    labels.entry(CANONICAL_REVISION.to_owned()).or_insert(revision);
    labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
}

#[cfg(test)]
mod tests;
