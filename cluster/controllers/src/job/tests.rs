// N1

use k8s_openapi::api::{batch::v1::CronJob, core::v1::Pod};
use serde_json::{Value, json};

use super::*;
use crate::sim::Sim;

fn job(spec: Value) -> Value {
    let mut spec = spec;
    spec["template"] = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "v1"}]}});
    json!({"metadata": {"name": "job"}, "spec": spec})
}

fn ends(sim: &Sim) -> String {
    let conditions = sim.get::<Job>("job")["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let holds = conditions.iter().filter(|c| c["status"] == "True");
    holds
        .map(|c| format!("{}:{}", c["type"].as_str().unwrap(), c["reason"].as_str().unwrap()))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn each_pod_is_counted_once_whatever_is_restarted_in_between() {
    let mut sim = Sim::new();
    sim.create::<Job>(job(json!({"completions": 3, "parallelism": 2})));
    for _ in 0..40 {
        sim.round();
        sim.restart();
        sim.pod_becomes("Succeeded", |_| true);
        assert!(
            sim.list::<Pod>()
                .iter()
                .filter(|pod| pod["status"]["phase"] == "Pending")
                .count()
                <= 2
        );
    }
    assert_eq!(
        ends(&sim),
        "SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached"
    );
    let status = &sim.get::<Job>("job")["status"];
    assert_eq!(
        (&status["succeeded"], &status["active"], &status["failed"]),
        (&json!(3), &Value::Null, &Value::Null)
    );
    assert_eq!(sim.names::<Pod>().len(), 3);
    assert!(
        sim.list::<Pod>()
            .iter()
            .all(|pod| pod["metadata"]["finalizers"] == json!([]))
    );
}

#[test]
fn a_failed_pod_is_followed_after_a_pause_until_the_limit() {
    let mut sim = Sim::new();
    sim.create::<Job>(job(json!({"backoffLimit": 1})));
    sim.settle();
    sim.pod_becomes("Failed", |_| true);
    sim.settle();
    assert_eq!(sim.names::<Pod>().len(), 1, "the second waits");
    sim.pass(10);
    sim.settle();
    assert_eq!(sim.names::<Pod>().len(), 2);
    sim.pod_becomes("Failed", |_| true);
    sim.settle();
    assert_eq!(
        ends(&sim),
        "FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded"
    );
    assert_eq!(sim.get::<Job>("job")["status"]["failed"], 2);
}

#[test]
fn a_deadline_ends_what_still_runs() {
    let mut sim = Sim::new();
    sim.create::<Job>(job(json!({"activeDeadlineSeconds": 5})));
    sim.settle();
    sim.pass(5);
    sim.settle();
    assert_eq!(ends(&sim), "FailureTarget:DeadlineExceeded");
    sim.pods_end();
    sim.settle();
    assert_eq!(ends(&sim), "FailureTarget:DeadlineExceeded Failed:DeadlineExceeded");
}

#[test]
fn an_indexed_job_runs_each_index() {
    let mut sim = Sim::new();
    sim.create::<Job>(job(
        json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}),
    ));
    sim.settle();
    let index = |pod: &Value| pod["metadata"]["annotations"][INDEX].as_str().unwrap().to_owned();
    assert_eq!(sim.list::<Pod>().iter().map(index).collect::<Vec<_>>(), ["0", "1", "2"]);
    sim.pod_becomes("Failed", |pod| index(pod) == "1");
    sim.pass(10);
    sim.settle();
    while sim.pod_becomes("Succeeded", |pod| pod["status"]["phase"] == "Pending") {
        sim.settle();
    }
    assert_eq!(sim.get::<Job>("job")["status"]["completedIndexes"], "0-2");
    assert_eq!(
        ends(&sim),
        "SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached"
    );
}

#[test]
fn a_suspended_job_has_no_pods_and_a_finished_one_goes_after_its_time() {
    let mut sim = Sim::new();
    sim.create::<Job>(job(json!({"suspend": true, "ttlSecondsAfterFinished": 7})));
    sim.settle();
    assert_eq!(
        (sim.names::<Pod>().len(), ends(&sim)),
        (0, "Suspended:JobSuspended".to_owned())
    );
    sim.patch::<Job>("job", json!({"spec": {"suspend": false}}));
    sim.settle();
    sim.pod_becomes("Succeeded", |_| true);
    sim.settle();
    assert_eq!(sim.names::<Job>(), ["job"]);
    sim.pass(7);
    sim.settle();
    assert_eq!(sim.names::<Job>(), [""; 0]);
}

fn cron(policy: &str) -> Value {
    json!({"metadata": {"name": "cron"}, "spec": {
        "schedule": "*/5 * * * *", "concurrencyPolicy": policy, "successfulJobsHistoryLimit": 1,
        "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": []}}}},
    }})
}

#[test]
fn a_cron_job_starts_a_job_for_each_time_as_its_policy_lets() {
    for (policy, jobs) in [("Allow", 2), ("Forbid", 1), ("Replace", 1)] {
        let mut sim = Sim::new();
        sim.create::<CronJob>(cron(policy));
        sim.settle();
        assert_eq!(sim.names::<Job>().len(), 0, "{policy}: not before its time");
        for _ in 0..2 {
            sim.pass(300);
            sim.settle();
        }
        sim.pods_end();
        sim.settle();
        assert_eq!(sim.names::<Job>().len(), jobs, "{policy}: {:#?}", sim.events);
    }
}

#[test]
fn a_cron_job_keeps_as_many_finished_jobs_as_it_is_told() {
    let mut sim = Sim::new();
    sim.create::<CronJob>(cron("Allow"));
    for _ in 0..3 {
        sim.pass(300);
        sim.settle();
        sim.pod_becomes("Succeeded", |pod| pod["status"]["phase"] == "Pending");
        sim.settle();
    }
    let last = sim.now.as_second() / 60;
    assert_eq!(sim.names::<Job>(), [format!("cron-{last}")]);
    let status = &sim.get::<CronJob>("cron")["status"];
    assert_eq!(status["lastScheduleTime"], crate::work::seconds(sim.now));
    assert_eq!(status["active"], Value::Null);
}
