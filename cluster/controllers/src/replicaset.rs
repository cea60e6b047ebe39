//! ReplicaSet: as many pods as asked for. In: a ReplicaSet and its pods. Out: pods to create or delete and its status.

use crate::{
    plan::{Event, Plan, Verb, Write},
    pods::{self, by_deletion, claim, count, is_active, is_available, is_ready},
    work::{Failure, Turn},
};
use k8s_openapi::{
    api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

/// Who tells the events.
pub(crate) const NAME: &str = "replicaset-controller";
/// How many pods one plan creates or deletes at most.
const BURST: usize = 500;

/// One look at one ReplicaSet.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = turn.world.replica_sets.get(turn.key) else {
        return plan;
    };
    let Some(spec) = &set.spec else { return plan };
    let candidates = turn.world.pods.list(&turn.key.namespace);
    let Some(all) = claim(&*set, &spec.selector, candidates, &mut plan) else {
        return plan;
    };
    let active: Vec<_> = all.into_iter().filter(|pod| is_active(pod)).collect();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
    let template = spec.template.clone().unwrap_or_default();

    let ready = active.iter().filter(|pod| is_ready(pod)).count();
    let available = active
        .iter()
        .filter(|pod| is_available(pod, spec.min_ready_seconds, turn.now, &mut plan))
        .count();
    let labels = template.metadata.clone().unwrap_or_default().labels.unwrap_or_default();
    let carries_all = |pod: &pods::Map| labels.iter().all(|(name, value)| pod.get(name) == Some(value));
    let labelled = active
        .iter()
        .filter(|pod| pod.metadata.labels.as_ref().is_some_and(carries_all))
        .count();
    let failing = turn
        .failure
        .filter(|f| active.len() != wanted && f.path.ends_with("/pods") || f.verb == Verb::Delete);
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        ready_replicas: Some(count(ready)).filter(|n| *n > 0),
        available_replicas: Some(count(available)).filter(|n| *n > 0),
        fully_labeled_replicas: Some(count(labelled)).filter(|n| *n > 0),
        observed_generation: set.metadata.generation,
        conditions: conditions(&old, failing, turn.now),
        ..ReplicaSetStatus::default()
    };
    if status != old {
        let mut set = (*set).clone();
        set.status = Some(status);
        plan.push(Write::status(&set));
    }
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }

    let event = |reason, message: &str| Event::new(NAME, &*set, reason, message.to_owned());
    for _ in active.len()..wanted.min(active.len() + BURST) {
        let pod = pods::from_template(&*set, &template);
        plan.push(
            Write::create::<k8s_openapi::api::core::v1::Pod>(&turn.key.namespace, pod).tell(
                event("SuccessfulCreate", "Created pod: {}"),
                event("FailedCreate", "Error creating: {}").warning(),
            ),
        );
    }
    let excess = active.len().saturating_sub(wanted).min(BURST);
    for pod in by_deletion(active).into_iter().take(excess) {
        plan.push(Write::delete(&*pod).tell(
            event("SuccessfulDelete", "Deleted pod: {}"),
            event("FailedDelete", "Error deleting: {}").warning(),
        ));
    }
    plan
}

/// `ReplicaFailure` while pods can be neither created nor deleted.
fn conditions(old: &ReplicaSetStatus, failing: Option<&Failure>, now: Timestamp) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions: Vec<_> = old.conditions.clone().unwrap_or_default();
    match failing {
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
        Some(_) if conditions.iter().any(|c| c.type_ == "ReplicaFailure") => {}
        Some(failure) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(
                if failure.verb == Verb::Delete {
                    "FailedDelete"
                } else {
                    "FailedCreate"
                }
                .to_owned(),
            ),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
    }
    Some(conditions).filter(|c| !c.is_empty())
}
