//! Binds pods to nodes. In: a pod without a node, all nodes and pods. Out: a binding to the node that takes the pod and runs the
//! fewest, or the reason why none does. Pod affinity, spreading, volumes and preemption are not looked at.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Node, Pod, PodCondition, PodSpec},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use serde_json::json;

use crate::{
    nodes,
    plan::{Event, Plan, Write},
    pods::{is_finished, name, seconds},
    work::Turn,
};

/// Who binds and tells the events.
pub(crate) const NAME: &str = "default-scheduler";
/// A pod that fits nowhere is looked at again after so many seconds; a change of a node brings it back at once.
const AGAIN: i64 = 2;

/// One look at one pod.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = turn.world.pods.get(turn.key) else {
        return plan;
    };
    let Some(spec) = pod.spec.as_ref().filter(|_| is_waiting(&pod)) else {
        return plan;
    };
    let all = turn.world.pods.all();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut candidates = Vec::new();
    let nodes = turn.world.nodes.all();
    for node in &nodes {
        let on = |other: &&Arc<Pod>| {
            !is_finished(other)
                && other
                    .spec
                    .as_ref()
                    .is_some_and(|spec| spec.node_name.as_deref() == Some(name(&**node)))
        };
        let here: Vec<_> = all.iter().filter(on).collect();
        let why = obstacles(spec, node, &here);
        if why.is_empty() {
            candidates.push((here.len(), name(&**node)));
        }
        why.into_iter()
            .for_each(|reason| *reasons.entry(reason).or_default() += 1);
    }
    if let Some((_, node)) = candidates.into_iter().min() {
        let target = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": turn.key.name, "namespace": turn.key.namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let message = format!("Successfully assigned {} to {node}", turn.key);
        plan.push(Write::sub(&*pod, "binding", target).tell_done(Event::new(NAME, &*pod, "Scheduled", message)));
        return plan;
    }
    let message = explain(nodes.len(), &reasons);
    let mut pod = (*pod).clone();
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let old = conditions
        .iter()
        .position(|c| c.type_ == "PodScheduled")
        .map(|index| conditions.remove(index));
    if old.as_ref().is_none_or(|c| c.message.as_ref() != Some(&message)) {
        conditions.push(PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some("Unschedulable".to_owned()),
            message: Some(message.clone()),
            last_transition_time: old.and_then(|c| c.last_transition_time).or(Some(Time(turn.now))),
            ..PodCondition::default()
        });
        plan.push(Write::status(&pod));
        plan.push(Event::new(NAME, &pod, "FailedScheduling", message).warning());
    }
    plan.again(turn.now.checked_add(seconds(AGAIN)).unwrap_or(turn.now));
    plan
}

/// Whether a pod waits for a node from us.
pub(crate) fn is_waiting(pod: &Pod) -> bool {
    let ours = |spec: &PodSpec| {
        spec.node_name.is_none()
            && spec.scheduler_name.as_deref().is_none_or(|scheduler| scheduler == NAME)
            && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
    };
    pod.metadata.deletion_timestamp.is_none() && !is_finished(pod) && pod.spec.as_ref().is_some_and(ours)
}

fn explain(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut parts: Vec<_> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    parts.sort();
    let full = |reason: &&String| {
        reason.starts_with("Insufficient") || *reason == "Too many pods" || reason.contains("free ports")
    };
    let full = reasons.keys().any(|reason| full(&reason));
    let preemption = if full {
        "No preemption victims found for incoming pod."
    } else {
        "Preemption is not helpful for scheduling."
    };
    format!(
        "0/{nodes} nodes are available: {}. preemption: 0/{nodes} nodes are available: {nodes} {preemption}",
        parts.join(", ")
    )
}

/// Why a node does not take a pod.
fn obstacles(spec: &PodSpec, node: &Node, here: &[&Arc<Pod>]) -> Vec<String> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let unschedulable = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let tolerated = |t: &k8s_openapi::api::core::v1::Toleration| {
        t.key.as_deref() == Some("node.kubernetes.io/unschedulable") && t.operator.as_deref() == Some("Exists")
    };
    if unschedulable && !tolerations.iter().any(tolerated) {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    if let Some(taint) = nodes::untolerated(node, tolerations, &["NoSchedule", "NoExecute"]) {
        return vec![format!(
            "node(s) had untolerated taint {{{}: {}}}",
            taint.key,
            taint.value.as_deref().unwrap_or_default()
        )];
    }
    if !nodes::selected(spec, node) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    let ports = |spec: &PodSpec| -> Vec<_> {
        let all = spec.containers.iter().flat_map(|c| c.ports.clone().unwrap_or_default());
        all.filter_map(|p| {
            Some((
                p.host_port.filter(|n| *n > 0)?,
                p.protocol.unwrap_or_else(|| "TCP".to_owned()),
            ))
        })
        .collect()
    };
    let used: Vec<_> = here
        .iter()
        .filter_map(|pod| pod.spec.as_ref())
        .flat_map(ports)
        .collect();
    if ports(spec).iter().any(|port| used.contains(port)) {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    let room = node
        .status
        .as_ref()
        .and_then(|status| status.allocatable.clone())
        .unwrap_or_default();
    let mut why = Vec::new();
    let pods = room.get("pods").map_or(0.0, number);
    if count(here.len() + 1) > pods {
        why.push("Too many pods".to_owned());
    }
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        let asked = request(spec, resource);
        let taken: f64 = here
            .iter()
            .filter_map(|pod| pod.spec.as_ref())
            .map(|spec| request(spec, resource))
            .sum();
        if asked > 0.0 && asked + taken > room.get(resource).map_or(0.0, number) {
            why.push(format!("Insufficient {resource}"));
        }
    }
    why
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}

/// What a pod asks for: its containers and sidecars together, or its largest init container with the sidecars before it.
fn request(spec: &PodSpec, resource: &str) -> f64 {
    let of = |c: &k8s_openapi::api::core::v1::Container| {
        c.resources
            .as_ref()
            .and_then(|r| r.requests.as_ref()?.get(resource))
            .map_or(0.0, number)
    };
    let (mut sidecars, mut largest) = (0.0, 0.0_f64);
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars += of(container);
            largest = largest.max(sidecars);
        } else {
            largest = largest.max(sidecars + of(container));
        }
    }
    let overhead = spec.overhead.as_ref().and_then(|o| o.get(resource)).map_or(0.0, number);
    largest.max(sidecars + spec.containers.iter().map(of).sum::<f64>()) + overhead
}

/// The number that a quantity stands for: `500m`, `64Mi`, `1e3`.
fn number(quantity: &Quantity) -> f64 {
    const UNITS: [(&str, f64); 16] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("", 1.0),
    ];
    let read = |(unit, factor): &(&str, f64)| Some(quantity.0.strip_suffix(unit)?.parse::<f64>().ok()? * factor);
    UNITS.iter().find_map(read).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        for (text, expected) in [
            ("500m", 0.5),
            ("2", 2.0),
            ("64Mi", 67_108_864.0),
            ("1e3", 1000.0),
            ("3M", 3e6),
            ("x", 0.0),
        ] {
            assert!((number(&Quantity(text.to_owned())) - expected).abs() < 1e-9, "{text}");
        }
    }
}
