//! StatefulSet: pods with a number, a name and claims of their own, one after the other. In: a StatefulSet, its pods and
//! revisions. Out: at most one pod to create or delete (any number with podManagementPolicy Parallel), and its status.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus},
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
};
use serde_json::json;

use crate::{
    plan::{Event, Plan, Write},
    pods::{self, claim, count, is_available, is_finished, is_ready, name, text},
    queue::Key,
    revision,
    work::Turn,
};

/// Who tells the events.
pub(crate) const NAME: &str = "statefulset-controller";
/// The label of a pod that names its revision.
const REVISION: &str = "controller-revision-hash";

/// A StatefulSet in one look at it.
struct Look<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    turn: &'a Turn<'a>,
    /// Name and template of the revision that is left, and of the one that is aimed at.
    current: (String, PodTemplateSpec),
    update: (String, PodTemplateSpec),
    /// No pod before its predecessors are ready.
    ordered: bool,
}

/// One look at one StatefulSet.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = turn.world.stateful_sets.get(turn.key) else {
        return plan;
    };
    let Some(spec) = &set.spec else { return plan };
    let candidates = turn.world.pods.list(&turn.key.namespace);
    let Some(pods) = claim(&*set, &spec.selector, candidates, &mut plan) else {
        return plan;
    };
    let old = set.status.clone().unwrap_or_default();
    let left = old.current_revision.clone().unwrap_or_default();
    let mut live: BTreeSet<&str> = pods.iter().map(|pod| text(&pod.metadata.labels, REVISION)).collect();
    live.insert(&left);
    let owner = revision::Owner {
        object: &*set,
        selector: &spec.selector,
        template: &spec.template,
        label: "controller.kubernetes.io/hash",
        limit: spec.revision_history_limit,
    };
    let Some(revisions) = revision::sync(&owner, &live, turn, &mut plan) else {
        return plan;
    };
    let update = revisions.last().map(|r| name(&**r).to_owned()).unwrap_or_default();
    let current = revisions
        .iter()
        .find(|r| name(&***r) == left)
        .and_then(|r| revision::template(r));
    let look = Look {
        set: &set,
        spec,
        turn,
        current: current.map_or((update.clone(), spec.template.clone()), |template| (left, template)),
        update: (update, spec.template.clone()),
        ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
    };
    look.sync(pods, &old, &mut plan);
    plan
}

impl Look<'_> {
    fn sync(&self, pods: Vec<Arc<Pod>>, old: &StatefulSetStatus, plan: &mut Plan) {
        let wanted = usize::try_from(self.spec.replicas.unwrap_or(1)).unwrap_or_default();
        let start = self.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or_default();
        let start = usize::try_from(start).unwrap_or_default();
        let mut numbered: Vec<_> = pods
            .into_iter()
            .filter_map(|pod| Some((self.ordinal(&pod)?, pod)))
            .collect();
        numbered.sort_by_key(|(ordinal, _)| *ordinal);
        self.status(&numbered, old, plan);
        if self.set.metadata.deletion_timestamp.is_some() {
            return;
        }
        let healthy = |pod: &Pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
        let available = |pod: &Pod, plan: &mut Plan| {
            healthy(pod) && is_available(pod, self.spec.min_ready_seconds, self.turn.now, plan)
        };
        let find = |ordinal| numbered.iter().find(|(known, _)| *known == ordinal).map(|(_, pod)| pod);
        for ordinal in start..start + wanted {
            match find(ordinal) {
                None => {
                    self.create(ordinal, start, plan);
                    if self.ordered {
                        return;
                    }
                }
                Some(pod) if is_finished(pod) => {
                    if pod.metadata.deletion_timestamp.is_none() {
                        plan.push(self.delete(pod));
                    }
                    return;
                }
                Some(pod) if self.ordered && !available(pod, plan) => return,
                Some(_) => {}
            }
        }
        // From the last on; one that is not ready only after those before it are.
        let (kept, condemned): (Vec<_>, Vec<_>) = numbered
            .iter()
            .partition(|(ordinal, _)| (start..start + wanted).contains(ordinal));
        let unhealthy = condemned
            .iter()
            .find(|(_, pod)| !healthy(pod))
            .map(|(ordinal, _)| *ordinal);
        for (ordinal, pod) in condemned.into_iter().rev() {
            if pod.metadata.deletion_timestamp.is_none() {
                if self.ordered && !healthy(pod) && unhealthy != Some(*ordinal) {
                    return;
                }
                plan.push(self.delete(pod));
            }
            if self.ordered {
                return;
            }
        }
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return;
        }
        for (ordinal, pod) in kept.into_iter().rev() {
            if *ordinal < start + self.partition() {
                return;
            }
            if text(&pod.metadata.labels, REVISION) != self.update.0 && pod.metadata.deletion_timestamp.is_none() {
                plan.push(self.delete(pod));
                return;
            }
            if !available(pod, plan) {
                return;
            }
        }
    }

    /// The number at the end of a pod's name.
    fn ordinal(&self, pod: &Pod) -> Option<usize> {
        name(pod).strip_prefix(name(self.set))?.strip_prefix('-')?.parse().ok()
    }

    /// Pods with lower numbers keep the revision they have.
    fn partition(&self) -> usize {
        let rolling = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|s| s.rolling_update.as_ref());
        usize::try_from(rolling.and_then(|r| r.partition).unwrap_or_default()).unwrap_or_default()
    }

    fn event(&self, reason: &'static str, message: String) -> Event {
        Event::new(NAME, self.set, reason, message)
    }

    fn delete(&self, pod: &Pod) -> Write {
        let what = format!("delete Pod {} in StatefulSet {}", name(pod), name(self.set));
        Write::delete(pod).tell(
            self.event("SuccessfulDelete", format!("{what} successful")),
            self.event("FailedDelete", format!("{what} failed error: {{}}"))
                .warning(),
        )
    }

    fn create(&self, ordinal: usize, start: usize, plan: &mut Plan) {
        let set = name(self.set);
        let pod_name = format!("{set}-{ordinal}");
        let (revision, template) = if ordinal < start + self.partition() {
            &self.current
        } else {
            &self.update
        };
        let mut pod = pods::from_template(self.set, template);
        pod.metadata.name = Some(pod_name.clone());
        pod.metadata.labels.get_or_insert_default().extend([
            (REVISION.to_owned(), revision.clone()),
            ("statefulset.kubernetes.io/pod-name".to_owned(), pod_name.clone()),
            ("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string()),
        ]);
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(pod_name.clone());
        spec.subdomain = self.spec.service_name.clone();
        for claim in self.spec.volume_claim_templates.iter().flatten() {
            let claim_name = format!("{}-{pod_name}", name(claim));
            let volumes = spec.volumes.get_or_insert_default();
            volumes.retain(|volume| volume.name != name(claim));
            volumes.push(Volume {
                name: name(claim).to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim_name.clone(),
                    ..PersistentVolumeClaimVolumeSource::default()
                }),
                ..Volume::default()
            });
            let key = Key::new(&self.turn.key.namespace, &claim_name);
            if self.turn.world.claims.get(&key).is_none() {
                let labels = self.spec.selector.match_labels.clone().unwrap_or_default();
                let body = json!({"metadata": {"name": claim_name, "labels": labels}, "spec": claim.spec});
                let what = format!("Claim {claim_name} Pod {pod_name} in StatefulSet {set}");
                plan.push(
                    Write::create::<PersistentVolumeClaim>(&key.namespace, body).tell(
                        self.event("SuccessfulCreate", format!("create {what} success")),
                        self.event("FailedCreate", format!("create {what} failed error: {{}}"))
                            .warning(),
                    ),
                );
            }
        }
        let what = format!("create Pod {pod_name} in StatefulSet {set}");
        plan.push(
            Write::create::<Pod>(&self.turn.key.namespace, pod).tell(
                self.event("SuccessfulCreate", format!("{what} successful")),
                self.event("FailedCreate", format!("{what} failed error: {{}}"))
                    .warning(),
            ),
        );
    }

    fn status(&self, pods: &[(usize, Arc<Pod>)], old: &StatefulSetStatus, plan: &mut Plan) {
        let of = |revision: &str| {
            let has = |pod: &Pod| text(&pod.metadata.labels, REVISION) == revision;
            let living = pods
                .iter()
                .filter(|(_, pod)| pod.metadata.deletion_timestamp.is_none() && has(pod));
            Some(count(living.count())).filter(|n| *n > 0)
        };
        let available = pods
            .iter()
            .filter(|(_, pod)| is_available(pod, self.spec.min_ready_seconds, self.turn.now, plan));
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: count(pods.len()),
            available_replicas: Some(count(available.count())),
            ready_replicas: Some(count(pods.iter().filter(|(_, pod)| is_ready(pod)).count())).filter(|n| *n > 0),
            current_revision: Some(self.current.0.clone()),
            current_replicas: of(&self.current.0),
            update_revision: Some(self.update.0.clone()),
            updated_replicas: of(&self.update.0),
            collision_count: Some(old.collision_count.unwrap_or_default()),
            conditions: old.conditions.clone(),
        };
        let all = |n: Option<i32>| n.unwrap_or_default() == self.spec.replicas.unwrap_or(1);
        if all(status.updated_replicas) && all(status.ready_replicas) && all(Some(status.replicas)) {
            status.current_replicas = status.updated_replicas;
            status.current_revision = status.update_revision.clone();
        }
        if status != *old {
            let mut set = self.set.clone();
            set.status = Some(status);
            plan.push(Write::status(&set));
        }
    }
}

#[cfg(test)]
mod tests;
