//! Deployment: one ReplicaSet per template, rolled from the old to the new one. In: a Deployment and its ReplicaSets. Out: one
//! ReplicaSet to create, sizes to change, revisions that `kubectl rollout` reads, and the status. Sizes are decided in `sizes`.

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec},
    api::core::v1::PodTemplateSpec,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};

use crate::{
    plan::{Event, Plan, Write, controller_reference, put},
    pods::{self, Map, claim, count, name, text},
    queue::Key,
    work::Turn,
};

mod sizes;
mod status;

/// Who tells the events.
pub(crate) const NAME: &str = "deployment-controller";
/// The label that tells the ReplicaSets of a Deployment apart.
const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that are not handed on to its ReplicaSets.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// A Deployment and its ReplicaSets, told apart.
struct Rollout<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    /// The ReplicaSet of the present template.
    new: Option<Arc<ReplicaSet>>,
    /// The others, oldest first.
    old: Vec<Arc<ReplicaSet>>,
}

impl Rollout<'_> {
    fn sets(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn recreates(&self) -> bool {
        self.spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
    }

    fn event(&self, reason: &'static str, message: String) -> Event {
        Event::new(NAME, self.deployment, reason, message)
    }
}

/// One look at one Deployment.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(deployment) = turn.world.deployments.get(turn.key) else {
        return plan;
    };
    let Some(spec) = &deployment.spec else { return plan };
    let sets = turn.world.replica_sets.list(&turn.key.namespace);
    let Some(mut owned) = claim(&*deployment, &spec.selector, sets, &mut plan) else {
        return plan;
    };
    owned.sort_by_key(|set| {
        (
            set.metadata.creation_timestamp.as_ref().map(|t| t.0),
            set.metadata.name.clone(),
        )
    });
    let new = owned.iter().find(|set| same_template(set, &spec.template)).cloned();
    let old = owned
        .into_iter()
        .filter(|set| new.as_ref().is_none_or(|new| !Arc::ptr_eq(new, set)))
        .collect();
    let rollout = Rollout {
        deployment: &deployment,
        spec,
        new,
        old,
    };
    let paused = spec.paused == Some(true);
    if deployment.metadata.deletion_timestamp.is_none() {
        if let Some(new) = &rollout.new {
            sync_revision(&rollout, new, &mut plan);
            if !plan.actions.is_empty() {
                return plan; // what was read is outdated by this
            }
        } else if !paused && !sizes::is_scaling(&rollout) && !waits_for_old_pods(&rollout, turn) {
            create(&rollout, turn, &mut plan);
            return plan;
        }
        let changes = if paused || sizes::is_scaling(&rollout) {
            sizes::proportional(&rollout)
        } else if rollout.recreates() {
            sizes::recreate(&rollout, waits_for_old_pods(&rollout, turn))
        } else {
            sizes::rolling(&rollout)
        };
        for (set, size) in changes {
            resize(&rollout, set, size, &mut plan);
        }
        if sizes::is_complete(&rollout, &deployment.status.clone().unwrap_or_default()) {
            clean_up(&rollout, &mut plan);
        }
    }
    status::sync(&rollout, turn, &mut plan);
    plan
}

/// Whether a ReplicaSet was made of this template.
fn same_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let mut theirs = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.clone())
        .unwrap_or_default();
    let mut ours = template.clone();
    for template in [&mut theirs, &mut ours] {
        let meta = template.metadata.get_or_insert_default();
        meta.creation_timestamp = None;
        let mut labels = meta.labels.take().unwrap_or_default();
        labels.remove(HASH);
        meta.labels = Some(labels);
    }
    theirs == ours
}

/// Whether a Recreate has to wait until the pods of old ReplicaSets are gone.
fn waits_for_old_pods(rollout: &Rollout<'_>, turn: &Turn<'_>) -> bool {
    let old = |meta: &ObjectMeta| rollout.old.iter().any(|set| pods::controlled_by(meta, &set.metadata));
    let runs = || {
        turn.world
            .pods
            .list(&turn.key.namespace)
            .iter()
            .any(|p| old(&p.metadata) && !pods::is_finished(p))
    };
    rollout.recreates() && (rollout.old.iter().any(|set| sizes::size(set) > 0) || runs())
}

fn revision(set: &ReplicaSet) -> i64 {
    text(&set.metadata.annotations, REVISION).parse().unwrap_or_default()
}

/// Annotations that a ReplicaSet gets from its Deployment.
fn handed_on(deployment: &Deployment) -> Map {
    let annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations
        .into_iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .collect()
}

/// Creates the ReplicaSet of the present template.
fn create(rollout: &Rollout<'_>, turn: &Turn<'_>, plan: &mut Plan) {
    let (deployment, spec) = (rollout.deployment, rollout.spec);
    let free = |hash: &String| {
        let key = Key::new(&turn.key.namespace, &format!("{}-{hash}", name(deployment)));
        turn.world.replica_sets.get(&key).is_none()
    };
    let Some(hash) = pods::hashes(&spec.template).find(free) else {
        return;
    };
    let set_name = format!("{}-{hash}", name(deployment));
    if turn
        .failure
        .is_some_and(|failure| failure.path.ends_with("/replicasets"))
    {
        status::sync(rollout, turn, plan);
    }
    let size = sizes::of_new(rollout);
    let revision = rollout.old.iter().map(|set| revision(set)).max().unwrap_or_default() + 1;
    let mut annotations = handed_on(deployment);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.insert(DESIRED.to_owned(), rollout.replicas().to_string());
    annotations.insert(MAX.to_owned(), sizes::max_total(rollout).to_string());
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH.to_owned(), hash);
    let body = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(set_name.clone()),
            labels: Some(labels.clone()),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    let done = rollout.event(
        "ScalingReplicaSet",
        format!("Scaled up replica set {set_name} from 0 to {size}"),
    );
    let message = format!("Failed to create new replica set \"{set_name}\": {{}}");
    let mut write = Write::create::<ReplicaSet>(&turn.key.namespace, body);
    write.done = Some(done).filter(|_| size > 0);
    write.failed = Some(rollout.event("ReplicaSetCreateError", message).warning());
    plan.push(write);
}

/// The newest template has the highest revision, also when it is an old one again.
fn sync_revision(rollout: &Rollout<'_>, new: &ReplicaSet, plan: &mut Plan) {
    let theirs = &new.metadata.annotations;
    let next = rollout.old.iter().map(|set| revision(set)).max().unwrap_or_default() + 1;
    let mut change = serde_json::Map::new();
    for (name, value) in handed_on(rollout.deployment) {
        if text(theirs, &name) != value {
            change.insert(name, value.into());
        }
    }
    let before = revision(new);
    if before < next {
        if before > 0 {
            let mut history = text(theirs, HISTORY).to_owned();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&before.to_string());
            change.insert(HISTORY.to_owned(), history.into());
        }
        change.insert(REVISION.to_owned(), next.to_string().into());
    }
    let seconds = rollout.spec.min_ready_seconds.unwrap_or_default();
    let theirs = new
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or_default();
    if !change.is_empty() || theirs != seconds {
        let mut patch = json!({"metadata": {"annotations": change}});
        if theirs != seconds {
            put(&mut patch, &["spec", "minReadySeconds"], json!(seconds));
        }
        plan.push(Write::patch(new, patch));
    }
}

/// Gives a ReplicaSet a size and notes for which size of the Deployment that was decided.
fn resize(rollout: &Rollout<'_>, set: &ReplicaSet, size: i32, plan: &mut Plan) {
    let before = sizes::size(set);
    let (desired, max) = (rollout.replicas().to_string(), sizes::max_total(rollout).to_string());
    let annotations = &set.metadata.annotations;
    if before == size && text(annotations, DESIRED) == desired && text(annotations, MAX) == max {
        return;
    }
    let mut patch: Value = json!({"metadata": {"annotations": {DESIRED: desired, MAX: max}}});
    if before != size {
        put(&mut patch, &["spec", "replicas"], json!(size));
    }
    let mut write = Write::patch(set, patch);
    if before != size {
        let way = if before < size { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {} from {before} to {size}", name(set));
        write = write.tell_done(rollout.event("ScalingReplicaSet", message));
    }
    plan.push(write);
}

/// Deletes the oldest ReplicaSets that are more than `revisionHistoryLimit`.
fn clean_up(rollout: &Rollout<'_>, plan: &mut Plan) {
    let Some(limit) = rollout.spec.revision_history_limit else {
        return;
    };
    let mut old: Vec<_> = rollout
        .old
        .iter()
        .filter(|set| set.metadata.deletion_timestamp.is_none())
        .collect();
    old.sort_by_key(|set| Reverse(revision(set)));
    for set in old.into_iter().skip(usize::try_from(limit).unwrap_or_default()) {
        let status = set.status.clone().unwrap_or_default();
        if status.replicas == 0 && sizes::size(set) == 0 && status.observed_generation >= set.metadata.generation {
            plan.push(Write::delete(&**set));
        }
    }
}

fn total(sets: impl Iterator<Item = i32>) -> i32 {
    sets.fold(0, i32::saturating_add)
}

/// How many ReplicaSets still have pods to run.
fn active(sets: &[&Arc<ReplicaSet>]) -> i32 {
    count(sets.iter().filter(|set| sizes::size(set) > 0).count())
}

#[cfg(test)]
mod tests;
