//! DaemonSet: one pod on every node that may run it. In: a DaemonSet, its pods and revisions, all nodes. Out: pods to create or
//! delete, and its status. A surge (`maxSurge`) is not done: an old pod always goes before the new one comes.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    nodes,
    plan::{Event, Plan, Write},
    pods::{self, claim, is_available, is_ready, name, phase, scaled, text},
    revision,
    work::Turn,
};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus},
    core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration},
};

/// Who tells the events.
pub(crate) const NAME: &str = "daemonset-controller";
/// The label of a pod that names its revision.
const REVISION: &str = "controller-revision-hash";
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// One look at one DaemonSet.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = turn.world.daemon_sets.get(turn.key) else {
        return plan;
    };
    let Some(spec) = &set.spec else { return plan };
    let candidates = turn.world.pods.list(&turn.key.namespace);
    let Some(owned) = claim(&*set, &spec.selector, candidates, &mut plan) else {
        return plan;
    };
    let owner = revision::Owner {
        object: &*set,
        selector: &spec.selector,
        template: &spec.template,
        label: REVISION,
        limit: spec.revision_history_limit,
    };
    let hashes: BTreeSet<_> = owned
        .iter()
        .map(|pod| format!("{}-{}", name(&*set), text(&pod.metadata.labels, REVISION)))
        .collect();
    let live = hashes.iter().map(String::as_str).collect();
    let Some(revisions) = revision::sync(&owner, &live, turn, &mut plan) else {
        return plan;
    };
    let hash = revisions
        .last()
        .map(|r| text(&r.metadata.labels, REVISION))
        .unwrap_or_default()
        .to_owned();
    let tolerations = tolerations(spec);

    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        collision_count: set.status.as_ref().and_then(|status| status.collision_count),
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available, mut outdated) = (0, 0, Vec::new());
    let mut changes = Plan::default();
    for node in turn.world.nodes.all() {
        let mut here: Vec<_> = owned.iter().filter(|pod| node_of(pod) == Some(name(&*node))).collect();
        here.sort_by_key(|pod| {
            (
                pod.metadata.creation_timestamp.as_ref().map(|t| t.0),
                pod.metadata.name.clone(),
            )
        });
        let (runs, stays) = may(spec, &tolerations, &node);
        if !runs {
            status.number_misscheduled += i32::from(!here.is_empty());
            let leaving = here
                .iter()
                .filter(|pod| !stays && pod.metadata.deletion_timestamp.is_none());
            leaving.for_each(|pod| changes.push(delete(&set, pod)));
            continue;
        }
        status.desired_number_scheduled += 1;
        status.current_number_scheduled += i32::from(!here.is_empty());
        if here.is_empty() && set.metadata.deletion_timestamp.is_none() {
            changes.push(create(&set, spec, &hash, name(&*node)));
        }
        let mut living = here.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let Some(pod) = living.next() else { continue };
        living.for_each(|pod| changes.push(delete(&set, pod)));
        if matches!(phase(pod), "Failed" | "Succeeded") {
            let (way, reason) = match phase(pod) {
                "Failed" => ("failed", "FailedDaemonPod"),
                _ => ("succeeded", "SucceededDaemonPod"),
            };
            let what = if way == "failed" { "kill it" } else { "delete it" };
            let message = format!(
                "Found {way} daemon pod {}/{} on node {}, will try to {what}",
                turn.key.namespace,
                name(&**pod),
                name(&*node)
            );
            let event = Event::new(NAME, &*set, reason, message);
            changes.push(if way == "failed" { event.warning() } else { event });
            changes.push(delete(&set, pod));
            continue;
        }
        let current = text(&pod.metadata.labels, REVISION) == hash;
        let serves = is_available(pod, spec.min_ready_seconds, turn.now, &mut plan);
        status.number_ready += i32::from(is_ready(pod));
        updated += i32::from(current);
        available += i32::from(serves);
        if !current {
            outdated.push((serves, pod));
        }
    }
    status.updated_number_scheduled = Some(updated).filter(|n| *n > 0);
    status.number_available = Some(available).filter(|n| *n > 0);
    status.number_unavailable = Some(status.desired_number_scheduled - available).filter(|n| *n > 0);
    if set.metadata.deletion_timestamp.is_none() {
        let strategy = spec.update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() != Some("OnDelete") {
            let limit = strategy.rolling_update.and_then(|rolling| rolling.max_unavailable);
            let desired = status.desired_number_scheduled;
            let mut spare = scaled(limit.as_ref(), desired, true, 1).max(1) - (desired - available);
            outdated.sort_by_key(|(serves, _)| *serves); // what serves nobody costs nothing
            for (serves, pod) in outdated {
                if serves && spare <= 0 {
                    break;
                }
                spare -= i32::from(serves);
                changes.push(delete(&set, pod));
            }
        }
    }
    if set.status.as_ref() != Some(&status) {
        let mut set = (*set).clone();
        set.status = Some(status);
        plan.push(Write::status(&set));
    }
    plan.actions.extend(changes.actions);
    plan
}

/// The node of a pod: where it is, or where it is meant to be.
fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    let meant = || {
        let required = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = required.required_during_scheduling_ignored_during_execution.as_ref()?;
        let fields = required
            .node_selector_terms
            .iter()
            .flat_map(|term| term.match_fields.iter().flatten());
        fields
            .filter(|field| field.key == "metadata.name")
            .find_map(|field| field.values.as_ref()?.first())
            .map(String::as_str)
    };
    spec.node_name.as_deref().or_else(meant)
}

/// The tolerations of daemon pods: they come before a node is ready and stay when it is not.
fn tolerations(spec: &DaemonSetSpec) -> Vec<Toleration> {
    let pod = spec.template.spec.clone().unwrap_or_default();
    let toleration = |taint: &str, effect: &str| Toleration {
        key: Some(format!("node.kubernetes.io/{taint}")),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    let mut all = pod.tolerations.unwrap_or_default();
    all.extend(["not-ready", "unreachable"].map(|taint| toleration(taint, "NoExecute")));
    all.extend(
        ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"]
            .map(|taint| toleration(taint, "NoSchedule")),
    );
    if pod.host_network == Some(true) {
        all.push(toleration("network-unavailable", "NoSchedule"));
    }
    all
}

/// Whether a node is to run the pod, and whether a pod that is there may stay.
fn may(spec: &DaemonSetSpec, tolerations: &[Toleration], node: &Node) -> (bool, bool) {
    let pod = spec.template.spec.clone().unwrap_or_default();
    let selected = pod.node_name.as_deref().is_none_or(|wanted| wanted == name(node)) && nodes::selected(&pod, node);
    let welcome = |effects: &[&str]| nodes::untolerated(node, tolerations, effects).is_none();
    (
        selected && welcome(&["NoSchedule", "NoExecute"]),
        selected && welcome(&["NoExecute"]),
    )
}

fn create(set: &Arc<DaemonSet>, spec: &DaemonSetSpec, hash: &str, node: &str) -> Write {
    let mut pod = pods::from_template(&**set, &spec.template);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION.to_owned(), hash.to_owned());
    if let Some(generation) = Some(text(&set.metadata.annotations, GENERATION)).filter(|text| !text.is_empty()) {
        labels.insert("pod-template-generation".to_owned(), generation.to_owned());
    }
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm {
        match_fields: Some(vec![field]),
        ..NodeSelectorTerm::default()
    };
    let pod_spec = pod.spec.get_or_insert_default();
    let affinity = pod_spec
        .affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![term],
    });
    pod_spec.tolerations = Some(tolerations(spec));
    let event = |reason, message: &str| Event::new(NAME, &**set, reason, message.to_owned());
    Write::create::<Pod>(set.metadata.namespace.as_deref().unwrap_or_default(), pod).tell(
        event("SuccessfulCreate", "Created pod: {}"),
        event("FailedCreate", "Error creating: {}").warning(),
    )
}

fn delete(set: &Arc<DaemonSet>, pod: &Pod) -> Write {
    let event = |reason, message: &str| Event::new(NAME, &**set, reason, message.to_owned());
    Write::delete(pod).tell(
        event("SuccessfulDelete", "Deleted pod: {}"),
        event("FailedDelete", "Error deleting: {}").warning(),
    )
}

#[cfg(test)]
mod tests;
