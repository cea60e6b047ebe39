//! What the pods of all components share: identity of objects, security, placement, budgets.

use crate::{Component, MeshKey, ValidatedMesh, labels};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, LocalObjectReference, ObjectFieldSelector,
    PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements,
    SeccompProfile, SecurityContext, WeightedPodAffinityTerm,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mizzen_crds::maistra::{
    AffinityConfig, ContainerConfig, PodAffinityConfig, PodAffinityTerm as Term, PodRuntimeConfig,
};
use std::collections::BTreeMap;

/// The user that every container of the mesh runs as; 1337 is the one whose traffic is never redirected.
pub(crate) const USER: i64 = 1337;

type Labels = BTreeMap<String, String>;

/// A map of texts.
pub(crate) fn texts<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Name, labels and, for namespaced kinds, the mesh's namespace.
pub(crate) fn meta(mesh: &ValidatedMesh, component: Component, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(mesh.key().namespace.clone()),
        ..cluster_meta(mesh, component, name)
    }
}

/// Name and labels of a cluster-scoped object.
pub(crate) fn cluster_meta(mesh: &ValidatedMesh, component: Component, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels::owned(mesh.key(), component, &mesh.settings().operator_version)),
        ..ObjectMeta::default()
    }
}

/// As [`meta`], with more labels.
pub(crate) fn labelled(mesh: &ValidatedMesh, component: Component, name: &str, more: &Labels) -> ObjectMeta {
    let mut meta = meta(mesh, component, name);
    meta.labels.get_or_insert_default().extend(more.clone());
    meta
}

/// The labels of pods: those that say whose they are, and the component's own, which win.
pub(crate) fn pod_labels(key: &MeshKey, own: &Labels, runtime: &PodRuntimeConfig) -> Labels {
    let mut all = texts([(labels::OWNER, &key.namespace), (labels::OWNER_NAME, &key.name)]);
    all.extend(
        runtime
            .metadata
            .iter()
            .flat_map(|m| m.labels.clone().unwrap_or_default()),
    );
    all.extend(own.clone());
    all
}

/// What the pods of a Deployment are made from.
pub(crate) fn template(
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    spec: PodSpec,
) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    }
}

pub(crate) fn selector(labels: &Labels) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels.clone()),
        ..LabelSelector::default()
    }
}

pub(crate) fn env(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.into()),
        ..EnvVar::default()
    }
}

/// An environment variable from the pod itself.
pub(crate) fn env_from_pod(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: path.to_owned(),
    };
    let from = EnvVarSource {
        field_ref: Some(field),
        ..EnvVarSource::default()
    };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(from),
        ..EnvVar::default()
    }
}

/// The user's variables win over ours of the same name.
pub(crate) fn with_user_env(mut own: Vec<EnvVar>, container: &ContainerConfig) -> Vec<EnvVar> {
    for (name, value) in container.env.iter().flatten() {
        own.retain(|variable| variable.name != *name);
        own.push(env(name, value.clone()));
    }
    own
}

pub(crate) fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// What Pod Security `restricted` asks of a pod.
pub(crate) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

/// What Pod Security `restricted` asks of a container, and a root file system that cannot be written.
pub(crate) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        ..SecurityContext::default()
    }
}

/// Requests and limits: the component's, or the mesh's defaults.
pub(crate) fn resources(mesh: &ValidatedMesh, container: &ContainerConfig) -> Option<ResourceRequirements> {
    container
        .resources
        .clone()
        .or_else(|| mesh.container_defaults().resources)
}

/// A pod of the mesh's own: its container secured and placed as the spec says.
pub(crate) fn pod(
    mesh: &ValidatedMesh,
    runtime: &PodRuntimeConfig,
    own_labels: &Labels,
    replicas: i32,
    mut container: Container,
    config: &ContainerConfig,
) -> PodSpec {
    container.security_context = Some(container_security());
    container.image_pull_policy = Some(mesh.pull_policy(config));
    container.resources = resources(mesh, config);
    container.env = Some(with_user_env(container.env.unwrap_or_default(), config));
    let defaults = mesh.defaults().pod.unwrap_or_default();
    let secrets = config
        .image_pull_secrets
        .clone()
        .or_else(|| mesh.container_defaults().image_pull_secrets);
    PodSpec {
        containers: vec![container],
        security_context: Some(pod_security()),
        image_pull_secrets: secrets.filter(|secrets: &Vec<LocalObjectReference>| !secrets.is_empty()),
        node_selector: runtime.node_selector.clone().or(defaults.node_selector),
        tolerations: runtime.tolerations.clone().or(defaults.tolerations),
        priority_class_name: runtime.priority_class_name.clone().or(defaults.priority_class_name),
        affinity: affinity(runtime.affinity.as_ref(), own_labels, replicas),
        ..PodSpec::default()
    }
}

/// What the spec says; replicas keep away from each other where it says nothing.
fn affinity(config: Option<&AffinityConfig>, own_labels: &Labels, replicas: i32) -> Option<Affinity> {
    let Some(config) = config else {
        let apart = WeightedPodAffinityTerm {
            weight: 100,
            pod_affinity_term: PodAffinityTerm {
                label_selector: Some(selector(own_labels)),
                topology_key: "kubernetes.io/hostname".to_owned(),
                ..PodAffinityTerm::default()
            },
        };
        let anti = PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![apart]),
            ..PodAntiAffinity::default()
        };
        return (replicas > 1).then(|| Affinity {
            pod_anti_affinity: Some(anti),
            ..Affinity::default()
        });
    };
    let near = config.pod_affinity.as_ref().map(terms);
    let apart = config.pod_anti_affinity.as_ref().map(terms);
    Some(Affinity {
        node_affinity: config.node_affinity.clone(),
        pod_affinity: near.map(|(required, preferred)| k8s_openapi::api::core::v1::PodAffinity {
            required_during_scheduling_ignored_during_execution: required,
            preferred_during_scheduling_ignored_during_execution: preferred,
        }),
        pod_anti_affinity: apart.map(|(required, preferred)| PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: required,
            preferred_during_scheduling_ignored_during_execution: preferred,
        }),
    })
}

type Terms = (Option<Vec<PodAffinityTerm>>, Option<Vec<WeightedPodAffinityTerm>>);

fn terms(config: &PodAffinityConfig) -> Terms {
    let weighted = |term: &Term| WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: one_term(term),
    };
    (
        config
            .required_during_scheduling
            .as_ref()
            .map(|terms| terms.iter().map(one_term).collect()),
        config
            .preferred_during_scheduling
            .as_ref()
            .map(|terms| terms.iter().map(weighted).collect()),
    )
}

fn one_term(term: &Term) -> PodAffinityTerm {
    let requirement = LabelSelectorRequirement {
        key: term.key.clone(),
        operator: term.operator.clone(),
        values: term.values.clone(),
    };
    PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_expressions: Some(vec![requirement]),
            ..LabelSelector::default()
        }),
        topology_key: term
            .topology_key
            .clone()
            .unwrap_or_else(|| "kubernetes.io/hostname".to_owned()),
        ..PodAffinityTerm::default()
    }
}

/// A budget where the spec asks for one, and where there is more than one replica unless it refuses one.
pub(crate) fn disruption_budget(
    mesh: &ValidatedMesh,
    component: Component,
    name: &str,
    pods: &Labels,
    replicas: i32,
) -> Option<PodDisruptionBudget> {
    let config = mesh
        .defaults()
        .deployment
        .and_then(|d| d.pod_disruption)
        .unwrap_or_default();
    if !config.enabled.unwrap_or(replicas > 1) {
        return None;
    }
    let max_unavailable = config.max_unavailable;
    let min_available = match (&config.min_available, &max_unavailable) {
        (None, None) => Some(IntOrString::Int(1)),
        (said, _) => said.clone(),
    };
    Some(PodDisruptionBudget {
        metadata: meta(mesh, component, name),
        spec: Some(PodDisruptionBudgetSpec {
            // The API takes one of the two; the stricter reading of "both" is the number that must be there.
            max_unavailable: if min_available.is_some() { None } else { max_unavailable },
            min_available,
            selector: Some(selector(pods)),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
