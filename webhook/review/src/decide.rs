//! Which pods get a sidecar: Istio's table of namespace label × pod label × pod annotation × policy, and membership in a
//! member roll.
//!
//! Two stages, as in Istio. The first asks whether a pod is this control plane's at all; the API server asks the same by the
//! selectors of the webhook configuration, which may therefore be coarser but never finer than it. The second asks whether
//! the pod wants a sidecar.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::config::{InjectConfig, Policy};
use crate::selector;

/// Namespaces whose pods make the cluster run; a sidecar there could take the cluster down with the mesh.
const SYSTEM_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// The wish of one pod, as a label or as an annotation.
pub const INJECT: &str = "sidecar.istio.io/inject";
/// The revision that a namespace or a pod chooses.
pub const REVISION: &str = "istio.io/rev";
/// Set on a namespace: `enabled` has its pods injected, everything else has not.
pub const NAMESPACE_INJECTION: &str = "istio-injection";
/// Set on a namespace by the operator: the mesh namespace that it is a member of.
pub const MEMBER_OF: &str = "maistra.io/member-of";
/// Set on a namespace that the mesh shall ignore.
pub const IGNORE_NAMESPACE: &str = "maistra.io/ignore-namespace";

type Labels = BTreeMap<String, String>;

/// What the decision is about.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The namespace's labels. Where they are not known (`mizzen inject` of a file), the first stage passes: whoever runs it
    /// has chosen the mesh by hand.
    pub namespace_labels: Option<&'a Labels>,
    /// The pod's labels.
    pub labels: &'a Labels,
    /// The pod's annotations.
    pub annotations: &'a Labels,
    /// `spec.hostNetwork`.
    pub host_network: bool,
}

/// Why a pod gets a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// It asks for one.
    PodAsks,
    /// A selector of the mesh wants it.
    AlwaysSelector,
    /// It is selected and says nothing, and the mesh injects such pods.
    Policy,
}

/// Why a pod gets none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// It lives in the node's network: redirecting its traffic would redirect the node's.
    HostNetwork,
    /// It lives in a namespace of the cluster itself.
    SystemNamespace,
    /// It is a control plane.
    ControlPlane,
    /// It says no.
    PodRefuses,
    /// Its namespace is not a member of this mesh.
    NotAMember {
        /// Where this mesh's member roll is.
        mesh_namespace: String,
    },
    /// Its namespace carries `maistra.io/ignore-namespace`.
    NamespaceIgnored,
    /// Its namespace carries `istio-injection` with another value than `enabled`.
    NamespaceRefuses,
    /// Its namespace or itself chose another control plane.
    OtherRevision {
        /// Which.
        chosen: String,
    },
    /// Neither it nor its namespace asks.
    NobodyAsks,
    /// A selector of the mesh does not want it.
    NeverSelector,
    /// It is selected and says nothing, and the mesh does not inject such pods.
    Policy,
}

/// Whether a pod gets a sidecar, and why.
pub type Decision = Result<Because, Skip>;

/// Decides about one pod.
pub fn decide(config: &InjectConfig, pod: &Candidate<'_>) -> Decision {
    if pod.host_network {
        return Err(Skip::HostNetwork);
    }
    if SYSTEM_NAMESPACES.contains(&pod.namespace) {
        return Err(Skip::SystemNamespace);
    }
    if pod.labels.get("app").is_some_and(|app| app == "istiod") {
        return Err(Skip::ControlPlane);
    }
    if pod.labels.get(INJECT).is_some_and(|value| value == "false") {
        return Err(Skip::PodRefuses);
    }
    if let Some(namespace_labels) = pod.namespace_labels {
        selected(config, namespace_labels, pod)?;
    }
    wanted(config, pod)
}

/// Stage 1: is the pod this control plane's?
fn selected(config: &InjectConfig, namespace: &Labels, pod: &Candidate<'_>) -> Result<(), Skip> {
    let is_member = namespace
        .get(MEMBER_OF)
        .is_some_and(|mesh| *mesh == config.mesh_namespace);
    if !is_member && !config.cluster_wide {
        return Err(Skip::NotAMember {
            mesh_namespace: config.mesh_namespace.clone(),
        });
    }
    if namespace.contains_key(IGNORE_NAMESPACE) {
        return Err(Skip::NamespaceIgnored);
    }
    let default_revision = |reached: bool| match (reached, config.default_revision) {
        (false, _) => Err(Skip::NobodyAsks),
        (true, true) => Ok(()),
        (true, false) => Err(Skip::OtherRevision {
            chosen: "default".to_owned(),
        }),
    };
    match namespace.get(NAMESPACE_INJECTION).map(String::as_str) {
        Some("enabled") => return default_revision(true),
        Some(_) => return Err(Skip::NamespaceRefuses),
        None => {}
    }
    if let Some(chosen) = namespace.get(REVISION).or_else(|| pod.labels.get(REVISION)) {
        return if *chosen == config.revision {
            Ok(())
        } else {
            Err(Skip::OtherRevision { chosen: chosen.clone() })
        };
    }
    let asks = pod.labels.get(INJECT).is_some_and(|value| value == "true")
        // Members are selected whole, so there the annotation counts as well.
        || (is_member && wish(pod) == Some(true));
    default_revision(asks || config.auto_inject)
}

/// Stage 2: does it want a sidecar?
fn wanted(config: &InjectConfig, pod: &Candidate<'_>) -> Decision {
    match wish(pod) {
        Some(true) => return Ok(Because::PodAsks),
        Some(false) => return Err(Skip::PodRefuses),
        None => {}
    }
    let matches =
        |selectors: &[LabelSelector]| selectors.iter().any(|selector| selector::matches(selector, pod.labels));
    if matches(&config.never_inject_selector) {
        return Err(Skip::NeverSelector);
    }
    if matches(&config.always_inject_selector) {
        return Ok(Because::AlwaysSelector);
    }
    match config.policy {
        Policy::Enabled => Ok(Because::Policy),
        Policy::Disabled => Err(Skip::Policy),
    }
}

/// The pod's own word: its label, else its annotation. Anything but `true` and `false` says nothing.
fn wish(pod: &Candidate<'_>) -> Option<bool> {
    match pod
        .labels
        .get(INJECT)
        .or_else(|| pod.annotations.get(INJECT))
        .map(String::as_str)
    {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    }
}

impl Skip {
    /// A bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::HostNetwork => "host_network",
            Self::SystemNamespace => "system_namespace",
            Self::ControlPlane => "control_plane",
            Self::PodRefuses => "pod_refuses",
            Self::NotAMember { .. } => "not_a_member",
            Self::NamespaceIgnored => "namespace_ignored",
            Self::NamespaceRefuses => "namespace_refuses",
            Self::OtherRevision { .. } => "other_revision",
            Self::NobodyAsks => "nobody_asks",
            Self::NeverSelector => "never_selector",
            Self::Policy => "policy",
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => f.write_str("it uses the network of its node (hostNetwork)"),
            Self::SystemNamespace => f.write_str("its namespace belongs to the cluster itself"),
            Self::ControlPlane => f.write_str("it is a control plane (label app=istiod)"),
            Self::PodRefuses => write!(f, "it says {INJECT}: \"false\""),
            Self::NotAMember { mesh_namespace } => write!(
                f,
                "its namespace is no member of the mesh: add it to the ServiceMeshMemberRoll default in {mesh_namespace}"
            ),
            Self::NamespaceIgnored => write!(f, "its namespace has the label {IGNORE_NAMESPACE}"),
            Self::NamespaceRefuses => write!(f, "its namespace has {NAMESPACE_INJECTION} other than enabled"),
            Self::OtherRevision { chosen } => write!(f, "the control plane of revision {chosen} is chosen for it"),
            Self::NobodyAsks => write!(f, "neither it nor its namespace asks: label the pod {INJECT}: \"true\""),
            Self::NeverSelector => f.write_str("a neverInjectSelector of the mesh matches it"),
            Self::Policy => write!(
                f,
                "the mesh injects pods that ask only: label the pod {INJECT}: \"true\""
            ),
        }
    }
}

#[cfg(test)]
mod tests;
