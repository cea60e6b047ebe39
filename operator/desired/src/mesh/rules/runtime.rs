//! The rules for what runs: replicas, images, amounts of resources.

use crate::error::Collector;
use crate::{Problem, checks};
use k8s_openapi::api::core::v1::ResourceRequirements;
use mizzen_crds::maistra::{ComponentRuntimeConfig, ContainerConfig};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

pub(super) fn component_rules(field: &str, component: &ComponentRuntimeConfig, errors: &mut Collector) {
    if let Some(replicas) = component.deployment.as_ref().and_then(|d| d.replicas) {
        errors.check(
            format!("{field}.deployment.replicas"),
            checks::range(replicas.into(), 0, 1000),
        );
    }
    if let Some(container) = &component.container {
        container_rules(&format!("{field}.container"), container, errors);
    }
}

pub(super) fn container_rules(field: &str, container: &ContainerConfig, errors: &mut Collector) {
    image_rules(
        field,
        container.image_registry.as_deref(),
        container.image_tag.as_deref(),
        container.image_pull_policy.as_deref(),
        errors,
    );
    resource_rules(field, container.resources.as_ref(), errors);
}

pub(super) fn resource_rules(field: &str, resources: Option<&ResourceRequirements>, errors: &mut Collector) {
    let Some(resources) = resources else { return };
    for (list, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        for (name, amount) in amounts.iter().flatten() {
            errors.check(format!("{field}.resources.{list}.{name}"), checks::quantity(&amount.0));
        }
    }
}

pub(super) fn image_rules(
    field: &str,
    registry: Option<&str>,
    tag: Option<&str>,
    policy: Option<&str>,
    errors: &mut Collector,
) {
    if let Some(tag) = tag {
        errors.check(format!("{field}.imageTag"), checks::tag(tag));
    }
    if let Some(registry) = registry {
        errors.check(format!("{field}.imageRegistry"), checks::registry(registry));
    }
    if let Some(policy) = policy.filter(|p| !PULL_POLICIES.contains(p)) {
        let problem = Problem::UnknownValue {
            value: policy.to_owned(),
            allowed: "`Always`, `IfNotPresent`, `Never`",
        };
        errors.add(format!("{field}.imagePullPolicy"), problem);
    }
}
