//! Nodes: which may run which pods (taints, node selectors, node affinity), and the taints that follow from their conditions.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

use serde_json::json;

use crate::{
    plan::{Plan, Write},
    pods::{Map, name},
    work::Turn,
};

/// Whether the pod's node selector and required node affinity take this node.
pub(crate) fn selected(spec: &PodSpec, node: &Node) -> bool {
    let empty = Map::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    spec.node_selector
        .iter()
        .flatten()
        .all(|(name, value)| labels.get(name) == Some(value))
        && required.is_none_or(|selector| {
            selector
                .node_selector_terms
                .iter()
                .any(|term| takes(term, node, labels))
        })
}

fn takes(term: &NodeSelectorTerm, node: &Node, labels: &Map) -> bool {
    let expressions = || term.match_expressions.iter().flatten();
    let fields = || term.match_fields.iter().flatten();
    let mut own = Map::new();
    own.insert("metadata.name".to_owned(), name(node).to_owned());
    // A term without requirements takes nothing.
    expressions().chain(fields()).next().is_some()
        && expressions().all(|requirement| holds(requirement, labels))
        && fields().all(|requirement| holds(requirement, &own))
}

fn holds(requirement: &NodeSelectorRequirement, labels: &Map) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
    let numbers = number(value).zip(number(values.first()));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers.is_some_and(|(value, limit)| value > limit),
        "Lt" => numbers.is_some_and(|(value, limit)| value < limit),
        _ => false,
    }
}

/// The first taint with one of these effects that no toleration takes.
pub(crate) fn untolerated<'a>(node: &'a Node, tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    let tolerated = |taint: &Taint| tolerations.iter().any(|toleration| tolerates(toleration, taint));
    taints
        .iter()
        .find(|taint| effects.contains(&taint.effect.as_str()) && !tolerated(taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let or = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (or(&toleration.effect), or(&toleration.key));
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            _ => or(&toleration.value) == or(&taint.value) && !key.is_empty(),
        }
}

const TAINT: &str = "node.kubernetes.io/";

/// One look at one node: the taints that follow from what it says of itself and from `kubectl cordon`.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = turn.world.nodes.get(turn.key) else {
        return plan;
    };
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let status = |type_: &str| conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str());
    let spec = node.spec.clone().unwrap_or_default();
    let wanted = [
        (
            "not-ready",
            status("Ready") == Some("False") || status("Ready").is_none(),
        ),
        ("unreachable", status("Ready") == Some("Unknown")),
        ("memory-pressure", status("MemoryPressure") == Some("True")),
        ("disk-pressure", status("DiskPressure") == Some("True")),
        ("pid-pressure", status("PIDPressure") == Some("True")),
        ("network-unavailable", status("NetworkUnavailable") == Some("True")),
        ("unschedulable", spec.unschedulable == Some(true)),
    ];
    let old = spec.taints.unwrap_or_default();
    let mut taints = old.clone();
    for (name, wanted) in wanted {
        let is = |taint: &Taint| taint.effect == "NoSchedule" && taint.key.strip_prefix(TAINT) == Some(name);
        if !wanted {
            taints.retain(|taint| !is(taint));
        } else if !taints.iter().any(is) {
            taints.push(Taint {
                key: format!("{TAINT}{name}"),
                effect: "NoSchedule".to_owned(),
                ..Taint::default()
            });
        }
    }
    if taints != old {
        plan.push(Write::patch(&*node, json!({"spec": {"taints": taints}})));
    }
    plan
}
