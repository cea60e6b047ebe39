//! CronJob: a Job for each time of a schedule. In: a CronJob and its Jobs. Out: at most one Job to create, old ones to delete,
//! and the status.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::json;

use self::schedule::{Error, Schedule};
use crate::{
    job::condition,
    plan::{Event, Plan, Write, controller_reference},
    pods::{self, Map, name, seconds},
    work::Turn,
};

mod schedule;

/// Who tells the events.
pub(crate) const NAME: &str = "cronjob-controller";
/// More missed times than this are not caught up with one by one: only the last counts.
const MISSED: usize = 100;

/// One look at one CronJob.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(cron) = turn.world.cron_jobs.get(turn.key) else {
        return plan;
    };
    let Some(spec) = &cron.spec else { return plan };
    let jobs = turn.world.jobs.list(&turn.key.namespace);
    let owned: Vec<_> = jobs
        .into_iter()
        .filter(|job| pods::controlled_by(&job.metadata, &cron.metadata))
        .collect();
    let event = |reason, message: String| Event::new(NAME, &*cron, reason, message);

    let old = cron.status.clone().unwrap_or_default();
    let mut status = old.clone();
    let was_active = |job: &Job| old.active.iter().flatten().any(|known| known.uid == job.metadata.uid);
    let mut active = Vec::new();
    for job in &owned {
        let Some(ended) = end(job) else {
            active.push(job);
            continue;
        };
        if was_active(job) {
            let message = format!("Saw completed job: {}, condition: {ended}", name(&**job));
            plan.push(event("SawCompletedJob", message));
        }
        let finish = job.status.as_ref().and_then(|status| status.completion_time.clone());
        if ended == "Complete" && finish > status.last_successful_time {
            status.last_successful_time = finish;
        }
    }
    let refer = |job: &&Arc<Job>| ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        namespace: job.metadata.namespace.clone(),
        name: job.metadata.name.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        ..ObjectReference::default()
    };
    // The version of the Job as it was first seen, so that its progress does not change this status.
    let known = |job: &&Arc<Job>| old.active.iter().flatten().find(|r| r.uid == job.metadata.uid).cloned();
    let references: Vec<_> = active
        .iter()
        .map(|job| known(job).unwrap_or_else(|| refer(job)))
        .collect();
    status.active = Some(references).filter(|list| !list.is_empty());
    clean_up(spec, &owned, &event, &mut plan);

    if cron.metadata.deletion_timestamp.is_none() && spec.suspend != Some(true) {
        match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
            Ok(schedule) => {
                let due = due(&cron, spec, &schedule, turn.now, &mut plan);
                if let Some(at) = due {
                    let names = owned.iter().map(|job| name(&**job)).collect();
                    start(
                        &Start {
                            cron: &cron,
                            spec,
                            at,
                            now: turn.now,
                            names,
                        },
                        &active,
                        &mut status.last_schedule_time,
                        &mut plan,
                    );
                }
            }
            Err(error @ Error::Zone(_)) => plan.push(event("UnknownTimeZone", error.to_string()).warning()),
            Err(error) => {
                let message = format!("unparseable schedule: {} : {error}", spec.schedule);
                plan.push(event("UnparseableSchedule", message).warning());
            }
        }
    }
    if status != old {
        let mut cron = (*cron).clone();
        cron.status = Some(status);
        plan.push(Write::status(&cron));
    }
    plan
}

/// How a Job has ended.
fn end(job: &Job) -> Option<&'static str> {
    let status = job.status.as_ref()?;
    ["Complete", "Failed"]
        .into_iter()
        .find(|type_| condition(status, type_).is_some())
}

/// The last time that is due and not served; looks again at the next.
fn due(cron: &CronJob, spec: &CronJobSpec, schedule: &Schedule, now: Timestamp, plan: &mut Plan) -> Option<Timestamp> {
    let last = cron
        .status
        .as_ref()
        .and_then(|status| status.last_schedule_time.as_ref());
    let mut since = last
        .or(cron.metadata.creation_timestamp.as_ref())
        .map_or(now, |time| time.0);
    if let Some(deadline) = spec.starting_deadline_seconds {
        since = since.max(now.checked_sub(seconds(deadline)).unwrap_or(since));
    }
    if let Some(next) = schedule.next(now) {
        plan.again(next);
    }
    let mut due = None;
    let mut missed = 0;
    while let Some(at) = schedule.next(since).filter(|at| *at <= now) {
        (due, since) = (Some(at), at);
        missed += 1;
        if missed == MISSED {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            plan.push(Event::new(NAME, cron, "TooManyMissedTimes", message.to_owned()).warning());
            since = now.checked_sub(seconds(24 * 3600)).unwrap_or(since).max(since);
        }
    }
    due
}

struct Start<'a> {
    cron: &'a CronJob,
    spec: &'a CronJobSpec,
    at: Timestamp,
    now: Timestamp,
    names: BTreeSet<&'a str>,
}

/// Starts the Job of a time, as far as the concurrency policy lets.
fn start(start: &Start<'_>, active: &[&Arc<Job>], last: &mut Option<Time>, plan: &mut Plan) {
    let Start {
        cron,
        spec,
        at,
        now,
        names,
    } = start;
    let event = |reason, message: String| Event::new(NAME, *cron, reason, message);
    let job_name = format!("{}-{}", name(*cron), at.as_second() / 60);
    let latest = spec
        .starting_deadline_seconds
        .and_then(|deadline| at.checked_add(seconds(deadline)).ok());
    if latest.is_some_and(|latest| latest < *now) {
        let message = format!("Missed scheduled time to start a job: {at}");
        return plan.push(event("MissSchedule", message).warning());
    }
    if names.contains(job_name.as_str()) {
        *last = Some(Time(*at));
        return;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.push(event("JobAlreadyActive", message.to_owned()));
        }
        Some("Replace") => active.iter().for_each(|job| plan.push(delete(job, &event))),
        _ => {}
    }
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations: Map = template.annotations.unwrap_or_default();
    annotations.insert(
        "batch.kubernetes.io/cronjob-scheduled-timestamp".to_owned(),
        at.to_string(),
    );
    let body = json!({
        "metadata": {
            "name": job_name, "labels": template.labels.unwrap_or_default(), "annotations": annotations,
            "ownerReferences": [controller_reference(*cron)],
        },
        "spec": spec.job_template.spec,
    });
    plan.push(
        Write::create::<Job>(cron.metadata.namespace.as_deref().unwrap_or_default(), body).tell(
            event("SuccessfulCreate", format!("Created job {job_name}")),
            event("FailedCreate", "Error creating job: {}".to_owned()).warning(),
        ),
    );
    *last = Some(Time(*at));
}

fn delete(job: &Job, event: &impl Fn(&'static str, String) -> Event) -> Write {
    let done = event("SuccessfulDelete", format!("Deleted job {}", name(job)));
    Write::delete(job).propagation("Background").tell_done(done)
}

/// Deletes finished Jobs beyond the limits of the history, oldest first.
fn clean_up(spec: &CronJobSpec, jobs: &[Arc<Job>], event: &impl Fn(&'static str, String) -> Event, plan: &mut Plan) {
    let limits = [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    for (how, limit) in limits {
        let mut ended: Vec<_> = jobs
            .iter()
            .filter(|job| end(job) == Some(how) && job.metadata.deletion_timestamp.is_none())
            .collect();
        ended.sort_by_key(|job| {
            let start = job
                .status
                .as_ref()
                .and_then(|status| status.start_time.as_ref())
                .map(|t| t.0);
            (Reverse(start), job.metadata.name.clone())
        });
        for job in ended.into_iter().skip(usize::try_from(limit).unwrap_or_default()) {
            plan.push(delete(job, event));
        }
    }
}
