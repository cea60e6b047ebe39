//! The status of a Deployment: counts and the conditions Available, Progressing and ReplicaFailure.

use k8s_openapi::{
    api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{HISTORY, REVISION, Rollout, sizes, total};
use crate::{
    plan::{Plan, Write},
    pods::{hashes, name, seconds, text},
    work::Turn,
};

/// Writes the status if it differs, and looks again when the progress deadline passes.
pub(super) fn sync(rollout: &Rollout<'_>, turn: &Turn<'_>, plan: &mut Plan) {
    let old = rollout.deployment.status.clone().unwrap_or_default();
    let mut status = counts(rollout, &old);
    let mut conditions = Conditions {
        list: old.conditions.clone().unwrap_or_default(),
        now: turn.now,
    };
    let floor = rollout.replicas() - sizes::max_unavailable(rollout);
    if status.available_replicas.unwrap_or_default() >= floor {
        conditions.set(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        );
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set("Available", "False", "MinimumReplicasUnavailable", message);
    }
    progress(rollout, turn, &old, &status, &mut conditions, plan);
    let failure = rollout.new.iter().chain(&rollout.old).find_map(|set| {
        set.status
            .as_ref()?
            .conditions
            .as_ref()?
            .iter()
            .find(|c| c.type_ == "ReplicaFailure")
            .cloned()
    });
    match failure {
        Some(f) => {
            let (reason, message) = (f.reason.unwrap_or_default(), f.message.unwrap_or_default());
            conditions.set("ReplicaFailure", &f.status, &reason, &message);
        }
        None => conditions.remove("ReplicaFailure"),
    }
    status.conditions = Some(conditions.list).filter(|list| !list.is_empty());
    // The Deployment says which revision it is at; as in Kubernetes its status carries that, so that no generation is counted.
    let revision = rollout
        .new
        .as_ref()
        .map(|new| text(&new.metadata.annotations, REVISION).to_owned());
    let revision = revision.filter(|revision| *revision != text(&rollout.deployment.metadata.annotations, REVISION));
    if status != old || revision.is_some() {
        let mut deployment = rollout.deployment.clone();
        deployment.status = Some(status);
        let annotations = deployment.metadata.annotations.get_or_insert_default();
        annotations.extend(revision.map(|revision| (REVISION.to_owned(), revision)));
        plan.push(Write::status(&deployment));
    }
}

fn counts(rollout: &Rollout<'_>, old: &DeploymentStatus) -> DeploymentStatus {
    let sum = |field: fn(&ReplicaSetStatus) -> Option<i32>| {
        total(rollout.sets().filter_map(|set| field(set.status.as_ref()?)))
    };
    let some = |n: i32| Some(n).filter(|n| *n > 0);
    let available = sum(|s| s.available_replicas);
    let asked = total(rollout.sets().map(|set| sizes::size(set)));
    let updated = rollout
        .new
        .as_ref()
        .and_then(|new| new.status.as_ref())
        .map_or(0, |status| status.replicas);
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some(sum(|s| Some(s.replicas))),
        updated_replicas: some(updated),
        ready_replicas: some(sum(|s| s.ready_replicas)),
        available_replicas: some(available),
        unavailable_replicas: some(asked - available),
        collision_count: old.collision_count,
        ..DeploymentStatus::default()
    }
}

fn progress(
    rollout: &Rollout<'_>,
    turn: &Turn<'_>,
    old: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut Conditions,
    plan: &mut Plan,
) {
    const TYPE: &str = "Progressing";
    let deadline = rollout
        .spec
        .progress_deadline_seconds
        .filter(|seconds| *seconds != i32::MAX);
    let Some(deadline) = deadline else {
        return conditions.remove(TYPE);
    };
    let current = conditions.find(TYPE).cloned();
    let reason = current.as_ref().and_then(|c| c.reason.clone()).unwrap_or_default();
    let paused = rollout.spec.paused == Some(true);
    if reason != "ProgressDeadlineExceeded" && paused != (reason == "DeploymentPaused") {
        if paused {
            return conditions.set(TYPE, "Unknown", "DeploymentPaused", "Deployment is paused");
        } else if reason == "DeploymentPaused" {
            return conditions.set(TYPE, "Unknown", "DeploymentResumed", "Deployment is resumed");
        }
    }
    if paused {
        return;
    }
    if let Some(failure) = turn
        .failure
        .filter(|f| rollout.new.is_none() && f.path.ends_with("/replicasets"))
    {
        let hash = hashes(&rollout.spec.template).next().unwrap_or_default();
        let set = format!("{}-{hash}", name(rollout.deployment));
        let message = format!("Failed to create new replica set \"{set}\": {}", failure.message);
        return conditions.set(TYPE, "False", "ReplicaSetCreateError", &message);
    }
    let n = |count: Option<i32>| count.unwrap_or_default();
    if n(status.replicas) == n(status.updated_replicas) && reason == "NewReplicaSetAvailable" {
        return; // a finished rollout: pods that come and go are no progress of it
    }
    let subject = match &rollout.new {
        Some(new) => format!("ReplicaSet \"{}\"", name(&**new)),
        None => format!("Deployment \"{}\"", name(rollout.deployment)),
    };
    let progressed = n(status.updated_replicas) > n(old.updated_replicas)
        || n(status.replicas) - n(status.updated_replicas) < n(old.replicas) - n(old.updated_replicas)
        || n(status.ready_replicas) > n(old.ready_replicas)
        || n(status.available_replicas) > n(old.available_replicas);
    let since = current.as_ref().and_then(|c| c.last_update_time.as_ref()).map(|t| t.0);
    let ends = since.and_then(|since| since.checked_add(seconds(deadline.into())).ok());
    if sizes::is_complete(rollout, status) {
        let message = format!("{subject} has successfully progressed.");
        conditions.set(TYPE, "True", "NewReplicaSetAvailable", &message);
    } else if progressed {
        conditions.renew(TYPE, "True", "ReplicaSetUpdated", &format!("{subject} is progressing."));
    } else if let Some(new) = rollout
        .new
        .as_ref()
        .filter(|_| matches!(reason.as_str(), "" | "NewReplicaSetAvailable"))
    {
        // The start of a rollout: of a template that ran before, or of one that never did.
        let (reason, verb) = match text(&new.metadata.annotations, HISTORY) {
            "" => ("NewReplicaSetCreated", "Created"),
            _ => ("FoundNewReplicaSet", "Found"),
        };
        conditions.set(
            TYPE,
            "True",
            reason,
            &format!("{verb} new replica set \"{}\"", name(&**new)),
        );
    } else if ends.is_some_and(|at| at <= turn.now) && reason != "NewReplicaSetAvailable" {
        let message = format!("{subject} has timed out progressing.");
        conditions.set(TYPE, "False", "ProgressDeadlineExceeded", &message);
    }
    let reason = conditions
        .find(TYPE)
        .and_then(|c| c.reason.as_deref())
        .unwrap_or_default();
    if !matches!(reason, "NewReplicaSetAvailable" | "ProgressDeadlineExceeded") {
        let renewed = conditions
            .find(TYPE)
            .and_then(|c| c.last_update_time.as_ref())
            .map(|t| t.0);
        if let Some(at) = renewed.and_then(|at| at.checked_add(seconds(i64::from(deadline) + 1)).ok()) {
            plan.again(at);
        }
    }
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn find(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|c| c.type_ == type_)
    }

    fn remove(&mut self, type_: &str) {
        self.list.retain(|c| c.type_ != type_);
    }

    /// Sets a condition; one with the same status and reason stays as it is.
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        if self
            .find(type_)
            .is_none_or(|c| c.status != status || c.reason.as_deref() != Some(reason))
        {
            self.renew(type_, status, reason, message);
        }
    }

    /// Sets a condition with a new time of update; the time of transition moves only with the status.
    fn renew(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let same = self.find(type_).filter(|c| c.status == status);
        let since = same
            .and_then(|c| c.last_transition_time.clone())
            .unwrap_or(Time(self.now));
        self.remove(type_);
        self.list.push(DeploymentCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(since),
        });
    }
}
