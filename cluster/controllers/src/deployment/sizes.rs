//! How large each ReplicaSet of a Deployment is to be. Numbers only.

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::api::apps::v1::{DeploymentStatus, ReplicaSet};

use super::{DESIRED, MAX, Rollout, active, total};
use crate::pods::{scaled, text};

/// A ReplicaSet and the size it is to have.
pub(super) type Change<'a> = (&'a ReplicaSet, i32);

/// `spec.replicas`.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or_default()
}

/// (maxSurge, maxUnavailable) as counts; if both came to nothing, one pod may be missing, else nothing could ever move.
fn limits(rollout: &Rollout<'_>) -> (i32, i32) {
    if rollout.recreates() {
        return (0, 0);
    }
    let rolling = rollout.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let replicas = rollout.replicas();
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), replicas, true, 1);
    let missing = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), replicas, false, 0);
    (
        surge,
        if surge == 0 && missing == 0 {
            1
        } else {
            missing.min(replicas)
        },
    )
}

/// How many pods may be missing.
pub(super) fn max_unavailable(rollout: &Rollout<'_>) -> i32 {
    if rollout.replicas() == 0 { 0 } else { limits(rollout).1 }
}

/// How many pods there may be in all.
pub(super) fn max_total(rollout: &Rollout<'_>) -> i32 {
    rollout.replicas() + limits(rollout).0
}

/// Whether the Deployment's size has changed since its ReplicaSets got theirs.
pub(super) fn is_scaling(rollout: &Rollout<'_>) -> bool {
    let differs = |set: &Arc<ReplicaSet>| {
        let desired = text(&set.metadata.annotations, DESIRED).parse::<i32>();
        desired.is_ok_and(|desired| desired != rollout.replicas())
    };
    rollout.sets().any(|set| size(set) > 0 && differs(set))
}

/// Whether the newest template runs in full and nothing else does.
pub(super) fn is_complete(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let all = Some(rollout.replicas());
    let or_zero = |n: Option<i32>| Some(n.unwrap_or_default());
    or_zero(status.updated_replicas) == all
        && or_zero(status.replicas) == all
        && or_zero(status.available_replicas) == all
        && status.observed_generation >= rollout.deployment.metadata.generation
}

/// The first size of a ReplicaSet that is not there yet.
pub(super) fn of_new(rollout: &Rollout<'_>) -> i32 {
    if rollout.recreates() {
        return rollout.replicas();
    }
    let present = total(rollout.old.iter().map(|set| size(set)));
    (max_total(rollout) - present).clamp(0, rollout.replicas())
}

/// RollingUpdate: first up with the new as far as `maxSurge` lets, then down with the old as far as `maxUnavailable` lets.
pub(super) fn rolling<'a>(rollout: &'a Rollout<'_>) -> Vec<Change<'a>> {
    let Some(new) = &rollout.new else { return Vec::new() };
    let (present, wanted) = (size(new), rollout.replicas());
    let all = total(rollout.sets().map(|set| size(set)));
    let up = (max_total(rollout) - all).max(0).min(wanted - present);
    if present > wanted || up > 0 {
        return vec![(&**new, if present > wanted { wanted } else { present + up })];
    }
    let floor = wanted - max_unavailable(rollout);
    let mut sizes: Vec<_> = rollout.old.iter().map(|set| (&**set, size(set))).collect();
    let mut excess = all - floor - (present - available(new));
    // Pods that serve nobody go first: that makes nothing less available.
    for (set, size) in &mut sizes {
        let useless = (*size - available(set)).clamp(0, excess.max(0));
        *size -= useless;
        excess -= useless;
    }
    let mut spare = total(rollout.sets().map(|set| available(set))) - floor;
    for (_, size) in &mut sizes {
        let down = (*size).clamp(0, spare.max(0)).min(excess.max(0));
        *size -= down;
        spare -= down;
        excess -= down;
    }
    sizes
        .into_iter()
        .filter(|(set, to)| size(set) != *to)
        .chain([(&**new, present)])
        .collect()
}

/// Recreate: everything old down, and the new up when the old is gone.
pub(super) fn recreate<'a>(rollout: &'a Rollout<'_>, waits: bool) -> Vec<Change<'a>> {
    if waits {
        return rollout
            .old
            .iter()
            .filter(|set| size(set) > 0)
            .map(|set| (&**set, 0))
            .collect();
    }
    rollout.new.iter().map(|new| (&**new, rollout.replicas())).collect()
}

/// A Deployment that changes its size in the middle of a rollout, or while it is paused: each ReplicaSet keeps its share.
pub(super) fn proportional<'a>(rollout: &'a Rollout<'_>) -> Vec<Change<'a>> {
    let wanted = rollout.replicas();
    let mut running: Vec<_> = rollout.sets().filter(|set| size(set) > 0).collect();
    if active(&running) <= 1 {
        let newest = rollout.new.as_ref().or(rollout.old.last());
        return running
            .pop()
            .or(newest)
            .map(|set| (&**set, wanted))
            .into_iter()
            .collect();
    }
    if let Some(new) = rollout
        .new
        .as_ref()
        .filter(|new| size(new) == wanted && available(new) == wanted)
    {
        return rollout
            .old
            .iter()
            .filter(|set| size(set) > 0)
            .map(|set| (&**set, 0))
            .chain([(&**new, wanted)])
            .collect();
    }
    if rollout.recreates() {
        return Vec::new();
    }
    let allowed = if wanted > 0 { max_total(rollout) } else { 0 };
    let mut rest = allowed - total(running.iter().map(|set| size(set)));
    // Largest first; of equals the newer grows and the older shrinks. `sets` gives the oldest first.
    if rest > 0 {
        running.reverse();
    }
    running.sort_by_key(|set| Reverse(size(set)));
    let mut changes = Vec::new();
    for set in running {
        let before = i64::from(size(set));
        let was = text(&set.metadata.annotations, MAX)
            .parse()
            .unwrap_or(i64::from(wanted))
            .max(1);
        // Rounded half away from zero.
        let share = ((before * i64::from(allowed) * 2 + was) / (was * 2)) - before;
        let share = i32::try_from(share).unwrap_or_default();
        let share = if rest > 0 {
            share.clamp(0, rest)
        } else {
            share.clamp(rest, 0)
        };
        rest -= share;
        changes.push((&**set, size(set) + share));
    }
    if let Some((_, first)) = changes.first_mut() {
        *first = (*first + rest).max(0);
    }
    changes
}
