// N1

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use serde_json::{Value, json};

use super::*;
use crate::sim::Sim;

fn deployment(replicas: i32, strategy: Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
        "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
    }})
}

fn rolling() -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn condition(sim: &Sim, type_: &str) -> String {
    let deployment = sim.get::<Deployment>("web");
    let conditions = deployment["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = conditions
        .iter()
        .find(|c| c["type"] == type_)
        .cloned()
        .unwrap_or_default();
    format!(
        "{} {}",
        found["status"].as_str().unwrap_or("none"),
        found["reason"].as_str().unwrap_or("")
    )
}

/// (all pods, ready pods) that are not about to end.
fn pods(sim: &Sim) -> (usize, usize) {
    let living: Vec<_> = sim
        .list::<Pod>()
        .into_iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .collect();
    (
        living.len(),
        living.iter().filter(|pod| pod["status"]["phase"] == "Running").count(),
    )
}

/// Starts one pod after the other until nothing moves; at each moment there are at most `most` pods and `least` ready ones.
fn run(sim: &mut Sim, most: usize, least: usize) {
    for moment in 0.. {
        assert!(moment < 100, "it never ends: {:#?}", sim.events);
        sim.pods_end();
        for _ in 0..200 {
            if !sim.round() {
                break;
            }
            let (all, ready) = pods(sim);
            assert!(all <= most, "{all} pods, {most} are allowed");
            assert!(ready >= least, "{ready} ready pods, {least} are needed");
        }
        sim.pass(1);
        if !sim.pod_becomes("Running", |pod| {
            pod["metadata"]["deletionTimestamp"].is_null() && pod["spec"]["containers"][0]["image"] != "bad"
        }) {
            return;
        }
    }
}

fn sizes(sim: &Sim) -> Vec<(String, i64, String)> {
    let mut all: Vec<_> = sim
        .list::<ReplicaSet>()
        .iter()
        .map(|set| {
            let image = set["spec"]["template"]["spec"]["containers"][0]["image"]
                .as_str()
                .unwrap()
                .to_owned();
            let revision = set["metadata"]["annotations"][REVISION].as_str().unwrap().to_owned();
            (image, set["spec"]["replicas"].as_i64().unwrap(), revision)
        })
        .collect();
    all.sort();
    all
}

fn triple(image: &str, size: i64, revision: &str) -> (String, i64, String) {
    (image.to_owned(), size, revision.to_owned())
}

#[test]
fn a_rolling_update_keeps_to_surge_and_unavailability_at_every_moment() {
    let mut sim = Sim::new();
    sim.create::<Deployment>(deployment(10, rolling()));
    run(&mut sim, 10, 0);
    assert_eq!(condition(&sim, "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(condition(&sim, "Available"), "True MinimumReplicasAvailable");
    sim.patch::<Deployment>("web", image("v2"));
    run(&mut sim, 13, 8);
    assert_eq!(sizes(&sim), [triple("v1", 0, "1"), triple("v2", 10, "2")]);
    assert_eq!(condition(&sim, "Progressing"), "True NewReplicaSetAvailable");
    let deployment = sim.get::<Deployment>("web");
    assert_eq!(deployment["metadata"]["annotations"][REVISION], "2");
    assert_eq!(deployment["status"]["updatedReplicas"], 10);
}

#[test]
fn an_update_goes_on_after_a_restart_at_any_moment() {
    let mut sim = Sim::new();
    sim.create::<Deployment>(deployment(4, rolling()));
    run(&mut sim, 5, 0);
    sim.patch::<Deployment>("web", image("v2"));
    for _ in 0..60 {
        sim.round();
        sim.restart();
        sim.pods_end();
        sim.pod_becomes("Running", |pod| pod["metadata"]["deletionTimestamp"].is_null());
        let (all, ready) = pods(&sim);
        assert!(all <= 5 && ready >= 3, "{all} pods, {ready} ready");
    }
    assert_eq!(sizes(&sim), [triple("v1", 0, "1"), triple("v2", 4, "2")]);
}

#[test]
fn a_template_that_never_gets_ready_stops_the_rollout_and_misses_its_deadline() {
    let mut sim = Sim::new();
    sim.create::<Deployment>(deployment(4, rolling()));
    run(&mut sim, 4, 0);
    sim.patch::<Deployment>("web", image("bad"));
    run(&mut sim, 5, 3);
    assert_eq!(sizes(&sim), [triple("bad", 2, "2"), triple("v1", 3, "1")]);
    sim.pass(601);
    sim.settle();
    assert_eq!(condition(&sim, "Progressing"), "False ProgressDeadlineExceeded");
    // Scaled in the middle of it, each ReplicaSet keeps its share.
    sim.patch::<Deployment>("web", json!({"spec": {"replicas": 8}}));
    run(&mut sim, 10, 3);
    assert_eq!(sizes(&sim), [triple("bad", 4, "2"), triple("v1", 6, "1")]);
    sim.patch::<Deployment>("web", image("v1"));
    run(&mut sim, 10, 6);
    assert_eq!(sizes(&sim), [triple("bad", 0, "2"), triple("v1", 8, "3")]);
    assert_eq!(condition(&sim, "Progressing"), "True NewReplicaSetAvailable");
}

#[test]
fn paused_no_new_template_is_rolled_out_but_the_size_follows() {
    let mut sim = Sim::new();
    sim.create::<Deployment>(deployment(2, rolling()));
    run(&mut sim, 3, 0);
    sim.patch::<Deployment>("web", json!({"spec": {"paused": true}}));
    sim.patch::<Deployment>("web", image("v2"));
    sim.patch::<Deployment>("web", json!({"spec": {"replicas": 3}}));
    run(&mut sim, 4, 2);
    assert_eq!(
        (sizes(&sim), condition(&sim, "Progressing")),
        (vec![triple("v1", 3, "1")], "Unknown DeploymentPaused".to_owned())
    );
    sim.patch::<Deployment>("web", json!({"spec": {"paused": false}}));
    run(&mut sim, 4, 2);
    assert_eq!(sizes(&sim), [triple("v1", 0, "1"), triple("v2", 3, "2")]);
}

#[test]
fn recreate_never_runs_two_templates_at_once() {
    let mut sim = Sim::new();
    sim.create::<Deployment>(deployment(2, json!({"type": "Recreate"})));
    run(&mut sim, 2, 0);
    sim.patch::<Deployment>("web", image("v2"));
    sim.settle(); // the old pods are still ending
    assert_eq!(sizes(&sim), [triple("v1", 0, "1")]);
    run(&mut sim, 2, 0);
    assert_eq!(sizes(&sim), [triple("v1", 0, "1"), triple("v2", 2, "2")]);
}

#[test]
fn old_replica_sets_beyond_the_history_limit_go() {
    let mut sim = Sim::new();
    sim.create::<Deployment>(deployment(1, rolling()));
    for version in ["v1", "v2", "v3", "v4"] {
        sim.patch::<Deployment>("web", image(version));
        run(&mut sim, 2, 0);
    }
    assert_eq!(
        sizes(&sim),
        [triple("v2", 0, "2"), triple("v3", 0, "3"), triple("v4", 1, "4")]
    );
}

#[test]
fn what_cannot_be_created_is_said_in_conditions_and_events() {
    let mut sim = Sim::new();
    sim.refuse = Some(("replicasets", "the hook says no"));
    sim.create::<Deployment>(deployment(1, rolling()));
    for _ in 0..4 {
        sim.round();
    }
    assert_eq!(condition(&sim, "Progressing"), "False ReplicaSetCreateError");
    sim.refuse = Some(("pods", "the hook says no"));
    for _ in 0..6 {
        sim.round();
    }
    assert_eq!(condition(&sim, "ReplicaFailure"), "True FailedCreate");
    assert!(
        sim.events
            .contains(&"Warning FailedCreate Error creating: the hook says no".to_owned())
    );
    sim.refuse = None;
    run(&mut sim, 1, 0);
    assert_eq!(condition(&sim, "ReplicaFailure"), "none ");
    assert_eq!(condition(&sim, "Progressing"), "True NewReplicaSetAvailable");
}

#[test]
fn a_replica_set_adopts_what_it_selects_and_releases_what_it_does_not() {
    let mut sim = Sim::new();
    sim.create::<Pod>(json!({"metadata": {"name": "orphan", "labels": {"app": "web"}}, "spec": {"containers": []}}));
    sim.create::<ReplicaSet>(json!({"metadata": {"name": "set"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
    }}));
    sim.settle();
    assert_eq!(sim.names::<Pod>().len(), 2);
    assert_eq!(
        sim.get::<Pod>("orphan")["metadata"]["ownerReferences"][0]["name"],
        "set"
    );
    sim.patch::<Pod>("orphan", json!({"metadata": {"labels": {"app": "other"}}}));
    sim.settle();
    assert_eq!(sim.get::<Pod>("orphan")["metadata"]["ownerReferences"], json!([]));
    assert_eq!(sim.names::<Pod>().len(), 3);
}
