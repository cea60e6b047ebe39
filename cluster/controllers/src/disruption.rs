//! PodDisruptionBudget: how many pods may be evicted now. In: a budget, the pods it takes and what controls them. Out: its status.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
};

use crate::{
    plan::{Plan, Write},
    pods::{self, count, is_ready, scaled, seconds, selects},
    queue::Key,
    work::Turn,
    world::World,
};

/// A pod whose eviction was granted this long ago and that still runs will stay.
const GRANTED: i64 = 120;

/// One look at one budget.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(budget) = turn.world.budgets.get(turn.key) else {
        return plan;
    };
    let Some(spec) = &budget.spec else { return plan };
    let mut pods = turn.world.pods.list(&turn.key.namespace);
    pods.retain(|pod| {
        spec.selector
            .as_ref()
            .is_some_and(|selector| selects(selector, &pod.metadata.labels))
    });
    let scale = expected(turn.world, &turn.key.namespace, &pods);
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(limit), _) => (scale, scale - scaled(Some(limit), scale, true, 0)),
        (None, Some(IntOrString::Int(least))) => (count(pods.len()), *least),
        (None, least) => (scale, scaled(least.as_ref(), scale, true, 1)),
    };
    let old = budget.status.clone().unwrap_or_default();
    let mut granted = BTreeMap::new();
    for (name, since) in old.disrupted_pods.clone().unwrap_or_default() {
        let ends = since.0.checked_add(seconds(GRANTED)).unwrap_or(turn.now);
        let runs = pods
            .iter()
            .any(|p| pods::name(&**p) == name && p.metadata.deletion_timestamp.is_none());
        if runs && ends > turn.now {
            plan.again(ends);
            granted.insert(name, since);
        }
    }
    let healthy = |pod: &&Arc<Pod>| {
        is_ready(pod) && pod.metadata.deletion_timestamp.is_none() && !granted.contains_key(pods::name(&***pod))
    };
    let current = count(pods.iter().filter(healthy).count());
    let desired = desired.max(0);
    let allowed = if expected > 0 { (current - desired).max(0) } else { 0 };
    let status = PodDisruptionBudgetStatus {
        current_healthy: current,
        desired_healthy: desired,
        disruptions_allowed: allowed,
        expected_pods: expected,
        disrupted_pods: Some(granted).filter(|granted| !granted.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: Some(vec![condition(&budget, &old, allowed > 0, Time(turn.now))]),
    };
    if status != old {
        let mut budget = (*budget).clone();
        budget.status = Some(status);
        plan.push(Write::status(&budget));
    }
    plan
}

fn condition(budget: &PodDisruptionBudget, old: &PodDisruptionBudgetStatus, allowed: bool, now: Time) -> Condition {
    let (status, reason) = if allowed {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let same = old
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "DisruptionAllowed" && c.status == status);
    Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: budget.metadata.generation,
        last_transition_time: same.map_or(now, |c| c.last_transition_time.clone()),
    }
}

/// How many pods the controllers of these pods are to run.
fn expected(world: &World, namespace: &str, pods: &[Arc<Pod>]) -> i32 {
    let controllers: BTreeMap<_, _> = pods
        .iter()
        .filter_map(|pod| pods::controller(&pod.metadata))
        .map(|c| (&c.uid, (&c.kind, &c.name)))
        .collect();
    let mut sizes = BTreeMap::new();
    for (uid, (kind, name)) in controllers {
        let key = Key::new(namespace, name);
        let (uid, size) = match kind.as_str() {
            "ReplicaSet" => {
                let Some(set) = world.replica_sets.get(&key) else {
                    continue;
                };
                let own = set.spec.as_ref().and_then(|spec| spec.replicas);
                let above = pods::controller(&set.metadata).filter(|c| c.kind == "Deployment");
                let above = above.and_then(|c| {
                    let deployment = world.deployments.get(&Key::new(namespace, &c.name))?;
                    Some((c.uid.clone(), deployment.spec.as_ref()?.replicas))
                });
                above.unwrap_or((uid.clone(), own))
            }
            "StatefulSet" => {
                let set = world.stateful_sets.get(&key);
                (uid.clone(), set.and_then(|set| set.spec.as_ref()?.replicas))
            }
            _ => continue,
        };
        sizes.insert(uid, size.unwrap_or(1));
    }
    sizes.into_values().fold(0, i32::saturating_add)
}
