//! `spec.runtime`, and the shapes that gateways and sidecars share with it.

use super::schema::{bare, bare_list, section};
use k8s_openapi::api::apps::v1::DeploymentStrategy;
use k8s_openapi::api::core::v1::{LocalObjectReference, NodeAffinity, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

section! {
    /// Deployments, pods and containers of the control plane.
    RuntimeConfig {
        /// For every component that does not say otherwise.
        defaults: DefaultRuntimeConfig,
        /// By component: `pilot` is the control plane.
        components: BTreeMap<String, ComponentRuntimeConfig>,
    }
    /// For every component that does not say otherwise.
    DefaultRuntimeConfig {
        /// Deployments.
        deployment: CommonDeploymentRuntimeConfig,
        /// Pods.
        pod: CommonPodRuntimeConfig,
        /// Containers.
        container: CommonContainerConfig,
    }
    /// Deployments.
    CommonDeploymentRuntimeConfig {
        /// How many pods may be away at a time.
        pod_disruption: PodDisruptionBudget,
    }
    /// How many pods may be away at a time.
    PodDisruptionBudget {
        /// Whether that is limited; by default where there is more than one replica.
        enabled: bool,
        /// How many must be there.
        #[schemars(schema_with = "bare::<IntOrString>")]
        min_available: IntOrString,
        /// How many may be away.
        #[schemars(schema_with = "bare::<IntOrString>")]
        max_unavailable: IntOrString,
    }
    /// Where pods run.
    CommonPodRuntimeConfig {
        /// Labels of the nodes.
        node_selector: BTreeMap<String, String>,
        /// Taints that are accepted.
        #[schemars(schema_with = "bare_list::<Toleration>")]
        tolerations: Vec<Toleration>,
        /// How important they are.
        priority_class_name: String,
    }
    /// Images and resources.
    CommonContainerConfig {
        /// Where images come from.
        image_registry: String,
        /// Which tag.
        image_tag: String,
        /// When images are pulled.
        image_pull_policy: String,
        /// Secrets for pulling.
        #[schemars(schema_with = "bare_list::<LocalObjectReference>")]
        image_pull_secrets: Vec<LocalObjectReference>,
        /// Requests and limits.
        #[schemars(schema_with = "bare::<ResourceRequirements>")]
        resources: ResourceRequirements,
    }
    /// One component's Deployment, pods and container.
    ComponentRuntimeConfig {
        /// Its Deployment.
        deployment: DeploymentRuntimeConfig,
        /// Its pods.
        pod: PodRuntimeConfig,
        /// Its container.
        container: ContainerConfig,
    }
    /// A Deployment.
    DeploymentRuntimeConfig {
        /// How many pods.
        replicas: i32,
        /// How they are replaced.
        #[schemars(schema_with = "bare::<DeploymentStrategy>")]
        strategy: DeploymentStrategy,
        /// How their number follows load.
        auto_scaling: AutoScalerConfig,
    }
    /// How the number of pods follows load.
    AutoScalerConfig {
        /// Whether it does.
        enabled: bool,
        /// At least so many.
        min_replicas: i32,
        /// At most so many.
        max_replicas: i32,
        /// CPU use that is aimed at, in percent of the request.
        #[serde(rename = "targetCPUUtilizationPercentage")]
        target_cpu_utilization_percentage: i32,
    }
    /// Pods.
    PodRuntimeConfig {
        /// Labels of the nodes.
        node_selector: BTreeMap<String, String>,
        /// Taints that are accepted.
        #[schemars(schema_with = "bare_list::<Toleration>")]
        tolerations: Vec<Toleration>,
        /// How important they are.
        priority_class_name: String,
        /// Labels and annotations.
        metadata: MetadataConfig,
        /// Nearness to nodes and to other pods.
        affinity: AffinityConfig,
    }
    /// Labels and annotations.
    MetadataConfig {
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
    }
    /// Nearness to nodes and to other pods.
    AffinityConfig {
        /// To nodes.
        #[schemars(schema_with = "bare::<NodeAffinity>")]
        node_affinity: NodeAffinity,
        /// To other pods.
        pod_affinity: PodAffinityConfig,
        /// Away from other pods.
        pod_anti_affinity: PodAffinityConfig,
    }
    /// Nearness to other pods.
    PodAffinityConfig {
        /// What must hold.
        required_during_scheduling: Vec<PodAffinityTerm>,
        /// What should hold.
        preferred_during_scheduling: Vec<PodAffinityTerm>,
    }
    /// A container.
    ContainerConfig {
        /// Where its image comes from.
        image_registry: String,
        /// Which tag.
        image_tag: String,
        /// Which image; a full reference stands alone.
        image_name: String,
        /// When it is pulled.
        image_pull_policy: String,
        /// Secrets for pulling.
        #[schemars(schema_with = "bare_list::<LocalObjectReference>")]
        image_pull_secrets: Vec<LocalObjectReference>,
        /// Requests and limits.
        #[schemars(schema_with = "bare::<ResourceRequirements>")]
        resources: ResourceRequirements,
        /// Environment variables.
        env: BTreeMap<String, String>,
    }
}

/// Pods with certain labels, and how near is meant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodAffinityTerm {
    /// The label.
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: String,
    /// The label's values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
    /// Which label of the nodes says what is near; the host when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_key: Option<String>,
}
