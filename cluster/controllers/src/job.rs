//! Job: pods until enough have succeeded or too many failed. In: a Job and its pods. Out: pods to create or delete and the
//! status. A finished pod is first noted in the status (`uncountedTerminatedPods`), then let go (its finalizer), then counted:
//! whatever fails in between, each pod is counted once. Pod failure policies, success policies and limits per index are not done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods},
        core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::json;

use crate::{
    plan::{Event, Plan, Write},
    pods::{self, by_deletion, count, is_active, is_ready, name, phase, seconds, text},
    work::Turn,
};

/// Who tells the events.
pub(crate) const NAME: &str = "job-controller";
/// Holds a finished pod until it is counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// After a failed pod the next one waits 10 s, then 20 s and so on up to 10 minutes.
const PAUSES: (i64, i64) = (10, 600);

/// One look at one Job.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let all = turn.world.pods.list(&turn.key.namespace);
    let job = turn
        .world
        .jobs
        .get(turn.key)
        .filter(|job| job.metadata.deletion_timestamp.is_none());
    let Some(job) = job else {
        // Nobody will count the pods of a Job that is gone.
        let of_job = |pod: &&Arc<Pod>| {
            pods::controller(&pod.metadata).is_some_and(|c| c.kind == "Job" && c.name == turn.key.name)
        };
        all.iter().filter(of_job).for_each(|pod| let_go(pod, &mut plan));
        return plan;
    };
    let Some(spec) = &job.spec else { return plan };
    let pods: Vec<_> = all
        .into_iter()
        .filter(|pod| pods::controlled_by(&pod.metadata, &job.metadata))
        .collect();
    let old = job.status.clone().unwrap_or_default();
    if let Some(finished) = condition(&old, "Complete").or(condition(&old, "Failed")) {
        pods.iter().for_each(|pod| let_go(pod, &mut plan));
        let ends = finished
            .last_transition_time
            .as_ref()
            .zip(spec.ttl_seconds_after_finished);
        if let Some(at) = ends.and_then(|(since, ttl)| since.0.checked_add(seconds(ttl.into())).ok()) {
            if at <= turn.now {
                plan.push(Write::delete(&*job).propagation("Foreground"));
            } else {
                plan.again(at);
            }
        }
        return plan;
    }
    Look {
        job: &job,
        spec,
        now: turn.now,
        pods,
    }
    .sync(&old, &mut plan);
    plan
}

fn let_go(pod: &Pod, plan: &mut Plan) {
    if tracked(pod) {
        let rest: Vec<_> = pod
            .metadata
            .finalizers
            .iter()
            .flatten()
            .filter(|f| *f != TRACKING)
            .collect();
        plan.push(Write::patch(pod, json!({"metadata": {"finalizers": rest}})));
    }
}

fn tracked(pod: &Pod) -> bool {
    pod.metadata
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == TRACKING)
}

/// A condition that holds.
pub(crate) fn condition<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == type_ && c.status == "True")
}

/// A Job in one look at it.
struct Look<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    now: Timestamp,
    pods: Vec<Arc<Pod>>,
}

impl Look<'_> {
    fn sync(&self, old: &JobStatus, plan: &mut Plan) {
        let mut status = old.clone();
        status.start_time.get_or_insert(Time(self.now));
        let done = self.count(&mut status);
        let noted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let pending = noted.failed.iter().flatten().count() + noted.succeeded.iter().flatten().count();
        let failed = status.failed.unwrap_or_default() + count(noted.failed.iter().flatten().count());
        let succeeded = match &done {
            Some(indexes) => count(indexes.len()),
            None => status.succeeded.unwrap_or_default() + count(noted.succeeded.iter().flatten().count()),
        };
        let mut active: Vec<_> = self.pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        let ending = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_some() && !pods::is_finished(pod);
        let terminating = self.pods.iter().filter(ending).count();
        let suspended = self.spec.suspend == Some(true);
        if suspended {
            status.start_time = None;
        } else if let Some((reason, message)) = self.failure(failed, &active, &status, plan) {
            set(&mut status, "FailureTarget", "True", reason, message, self.now);
        } else if self.enough(succeeded, active.len()) && condition(&status, "FailureTarget").is_none() {
            let message = "Reached expected number of succeeded pods";
            set(
                &mut status,
                "SuccessCriteriaMet",
                "True",
                "CompletionsReached",
                message,
                self.now,
            );
        }
        let ends = condition(&status, "FailureTarget")
            .or(condition(&status, "SuccessCriteriaMet"))
            .cloned();
        let mut changes = Plan::default();
        if ends.is_some() || suspended {
            active.drain(..).for_each(|pod| changes.push(self.delete(&pod)));
        } else {
            self.manage(&mut active, succeeded, failed, done.as_ref(), &mut changes);
        }
        let events = self.suspension(&mut status, suspended);
        if let Some(ends) =
            ends.filter(|_| pending == 0 && active.is_empty() && terminating == 0 && changes.actions.is_empty())
        {
            let (reason, message) = (ends.reason.unwrap_or_default(), ends.message.unwrap_or_default());
            let event = if ends.type_ == "FailureTarget" {
                set(&mut status, "Failed", "True", &reason, &message, self.now);
                let reason = if reason == "DeadlineExceeded" {
                    "DeadlineExceeded"
                } else {
                    "BackoffLimitExceeded"
                };
                Event::new(NAME, self.job, reason, message).warning()
            } else {
                set(&mut status, "Complete", "True", &reason, &message, self.now);
                status.completion_time = Some(Time(self.now));
                Event::new(NAME, self.job, "Completed", "Job completed".to_owned())
            };
            changes.push(event);
        }
        status.active = Some(count(active.len())).filter(|n| *n > 0);
        status.ready = Some(count(active.iter().filter(|pod| is_ready(pod)).count()));
        status.terminating = Some(count(terminating));
        if status != *old {
            let mut job = self.job.clone();
            job.status = Some(status);
            plan.push(Write::status(&job));
        } else {
            // Only what the stored status has noted may go.
            self.pods
                .iter()
                .filter(|pod| ended(pod).is_some())
                .for_each(|pod| let_go(pod, plan));
        }
        plan.actions.extend(events.into_iter().map(Into::into));
        plan.actions.extend(changes.actions);
        plan.again = plan.again.into_iter().chain(changes.again).min();
    }

    /// Notes pods that ended and counts those that were noted and let go; of an Indexed Job, the indexes that are done.
    fn count(&self, status: &mut JobStatus) -> Option<BTreeSet<i32>> {
        let noted = status.uncounted_terminated_pods.take().unwrap_or_default();
        let mut done = self
            .indexed()
            .then(|| parse_indexes(status.completed_indexes.as_deref().unwrap_or_default()));
        let held: BTreeMap<_, _> = self
            .pods
            .iter()
            .filter(|pod| tracked(pod))
            .map(|pod| (uid(pod), pod))
            .collect();
        let keep = |uids: Option<Vec<String>>, counter: &mut Option<i32>| {
            let (keep, counted): (Vec<_>, Vec<_>) = uids
                .into_iter()
                .flatten()
                .partition(|uid| held.contains_key(uid.as_str()));
            if !counted.is_empty() {
                *counter = Some(counter.unwrap_or_default() + count(counted.len()));
            }
            keep
        };
        let mut failed = keep(noted.failed, &mut status.failed);
        let mut succeeded = keep(noted.succeeded, &mut status.succeeded);
        for (uid, pod) in &held {
            match (ended(pod), &mut done) {
                (Some(true), Some(done)) => done.extend(index(pod)),
                (Some(true), None) if !succeeded.iter().any(|known| known == uid) => succeeded.push((*uid).to_owned()),
                (Some(false), _) if !failed.iter().any(|known| known == uid) => failed.push((*uid).to_owned()),
                _ => {}
            }
        }
        if let Some(done) = &mut done {
            done.retain(|index| *index < self.spec.completions.unwrap_or_default());
            status.completed_indexes = Some(print_indexes(done)).filter(|text| !text.is_empty());
            status.succeeded = Some(count(done.len())).filter(|n| *n > 0);
        }
        let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            failed: some(failed),
            succeeded: some(succeeded),
        });
        done
    }

    fn indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn enough(&self, succeeded: i32, active: usize) -> bool {
        match self.spec.completions {
            Some(completions) => succeeded >= completions,
            None => succeeded > 0 && active == 0,
        }
    }

    /// Why the Job has failed.
    fn failure(
        &self,
        failed: i32,
        active: &[Arc<Pod>],
        status: &JobStatus,
        plan: &mut Plan,
    ) -> Option<(&'static str, &'static str)> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let policy = self
            .spec
            .template
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref());
        let restarts = |pod: &Arc<Pod>| -> i32 {
            let status = pod.status.iter();
            status
                .flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten())
                .map(|c| c.restart_count)
                .sum()
        };
        let restarted: i32 = active.iter().map(restarts).sum();
        if failed > limit || policy == Some("OnFailure") && restarted > 0 && restarted >= limit {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        let deadline = status.start_time.as_ref().zip(self.spec.active_deadline_seconds);
        let at = deadline.and_then(|(since, after)| since.0.checked_add(seconds(after)).ok())?;
        if at > self.now {
            plan.again(at);
            return None;
        }
        Some(("DeadlineExceeded", "Job was active longer than specified deadline"))
    }

    /// Brings the number of active pods to what is wanted.
    fn manage(
        &self,
        active: &mut Vec<Arc<Pod>>,
        succeeded: i32,
        failed: i32,
        done: Option<&BTreeSet<i32>>,
        plan: &mut Plan,
    ) {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            Some(completions) => parallelism.min(completions - succeeded),
            None if succeeded > 0 => parallelism.min(count(active.len())),
            None => parallelism,
        };
        let wanted = usize::try_from(wanted).unwrap_or_default();
        if active.len() > wanted {
            let excess = active.len() - wanted;
            *active = by_deletion(std::mem::take(active));
            active.drain(..excess).for_each(|pod| plan.push(self.delete(&pod)));
        }
        let missing = wanted - active.len();
        if missing == 0 {
            return;
        }
        if let Some(at) = self.next_try(failed).filter(|at| *at > self.now) {
            return plan.again(at);
        }
        match done {
            None => (0..missing).for_each(|_| plan.push(self.create(None))),
            Some(done) => {
                let taken: BTreeSet<_> = active.iter().filter_map(|pod| index(pod)).collect();
                let free =
                    (0..self.spec.completions.unwrap_or_default()).filter(|i| !done.contains(i) && !taken.contains(i));
                free.take(missing).for_each(|index| plan.push(self.create(Some(index))));
            }
        }
    }

    /// When a pod may follow the last one that failed.
    fn next_try(&self, failed: i32) -> Option<Timestamp> {
        let finish = |pod: &&Arc<Pod>| {
            let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
            let ends = statuses.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
            ends.map(|time| time.0)
                .max()
                .or(pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
        };
        let last = self
            .pods
            .iter()
            .filter(|pod| phase(pod) == "Failed")
            .filter_map(|pod| finish(&pod))
            .max()?;
        let pause = PAUSES
            .0
            .saturating_mul(1 << failed.saturating_sub(1).clamp(0, 10))
            .min(PAUSES.1);
        last.checked_add(seconds(pause)).ok()
    }

    fn create(&self, index: Option<i32>) -> Write {
        let mut pod = pods::from_template(self.job, &self.spec.template);
        pod.metadata.finalizers = Some(vec![TRACKING.to_owned()]);
        if let Some(index) = index {
            let host = format!("{}-{index}", name(self.job));
            pod.metadata.generate_name = Some(format!("{host}-"));
            for map in [&mut pod.metadata.labels, &mut pod.metadata.annotations] {
                map.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
            }
            let spec = pod.spec.get_or_insert_default();
            spec.hostname = Some(host);
            let env = EnvVar {
                name: "JOB_COMPLETION_INDEX".to_owned(),
                value_from: Some(EnvVarSource {
                    field_ref: Some(ObjectFieldSelector {
                        field_path: format!("metadata.labels['{INDEX}']"),
                        ..ObjectFieldSelector::default()
                    }),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            };
            let all = spec
                .containers
                .iter_mut()
                .chain(spec.init_containers.iter_mut().flatten());
            all.for_each(|container| container.env.get_or_insert_default().push(env.clone()));
        }
        let event = |reason, message: &str| Event::new(NAME, self.job, reason, message.to_owned());
        Write::create::<Pod>(self.job.metadata.namespace.as_deref().unwrap_or_default(), pod).tell(
            event("SuccessfulCreate", "Created pod: {}"),
            event("FailedCreate", "Error creating: {}").warning(),
        )
    }

    fn delete(&self, pod: &Pod) -> Write {
        let event = |reason, message: &str| Event::new(NAME, self.job, reason, message.to_owned());
        Write::delete(pod).tell(
            event("SuccessfulDelete", "Deleted pod: {}"),
            event("FailedDelete", "Error deleting: {}").warning(),
        )
    }

    fn suspension(&self, status: &mut JobStatus, suspended: bool) -> Option<Event> {
        let was = condition(status, "Suspended").is_some();
        if suspended == was {
            return None;
        }
        let (value, reason, message) = match suspended {
            true => ("True", "JobSuspended", "Job suspended"),
            false => ("False", "JobResumed", "Job resumed"),
        };
        set(status, "Suspended", value, reason, message, self.now);
        Some(Event::new(
            NAME,
            self.job,
            if suspended { "Suspended" } else { "Resumed" },
            message.to_owned(),
        ))
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether a pod that ended has succeeded; one that is deleted before its end has failed.
fn ended(pod: &Pod) -> Option<bool> {
    match phase(pod) {
        "Succeeded" => Some(true),
        "Failed" => Some(false),
        _ => pod.metadata.deletion_timestamp.as_ref().map(|_| false),
    }
}

fn index(pod: &Pod) -> Option<i32> {
    text(&pod.metadata.annotations, INDEX).parse().ok()
}

fn set(status: &mut JobStatus, type_: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|c| c.type_ == type_ && c.status == value) {
        return;
    }
    conditions.retain(|c| c.type_ != type_);
    conditions.push(JobCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

/// `1,3-5,7`
fn parse_indexes(text: &str) -> BTreeSet<i32> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse::<i32>().ok()?..=to.parse::<i32>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

fn print_indexes(indexes: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, to)) if *to + 1 == *index => *to = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let print = |(from, to): (i32, i32)| match to - from {
        0 => from.to_string(),
        1 => format!("{from},{to}"),
        _ => format!("{from}-{to}"),
    };
    ranges.into_iter().map(print).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod index_tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges_of_three_and_more() {
        for text in ["", "0", "1,3-5,7", "0,1", "0-2,9"] {
            assert_eq!(print_indexes(&parse_indexes(text)), text);
        }
    }
}
