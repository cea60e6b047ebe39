// N1

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;
use crate::sim::Sim;

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"zone": name}}, "spec": {},
        "status": {"allocatable": {"pods": "10"}, "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn set() -> Value {
    json!({"metadata": {"name": "ds"}, "spec": {
        "selector": {"matchLabels": {"app": "ds"}},
        "template": {"metadata": {"labels": {"app": "ds"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
    }})
}

fn run(sim: &mut Sim) -> usize {
    let mut least = usize::MAX;
    loop {
        sim.settle();
        let ready = sim
            .list::<Pod>()
            .iter()
            .filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null())
            .count();
        least = least.min(ready);
        sim.pods_end();
        sim.settle();
        if !sim.pod_becomes("Running", |pod| pod["metadata"]["deletionTimestamp"].is_null()) {
            return least;
        }
    }
}

fn where_pods_are(sim: &Sim) -> Vec<String> {
    let target = |pod: &Value| {
        let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut all: Vec<_> = sim.list::<Pod>().iter().map(target).collect();
    all.sort();
    all
}

#[test]
fn every_node_that_may_gets_one_pod() {
    let mut sim = Sim::new();
    for name in ["n1", "n2"] {
        sim.create::<Node>(node(name));
    }
    sim.create::<DaemonSet>(set());
    sim.settle();
    assert_eq!(where_pods_are(&sim), ["n1", "n2"]);
    sim.create::<Node>(node("n3"));
    sim.settle();
    assert_eq!(where_pods_are(&sim), ["n1", "n2", "n3"]);
    let taint = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]}});
    sim.patch::<Node>("n2", taint);
    sim.settle();
    sim.pods_end();
    sim.settle();
    assert_eq!(where_pods_are(&sim), ["n1", "n3"]);
    assert_eq!(sim.get::<DaemonSet>("ds")["status"]["desiredNumberScheduled"], 2);
}

#[test]
fn a_cordoned_node_keeps_its_daemon_pods() {
    let mut sim = Sim::new();
    sim.create::<Node>(node("n1"));
    sim.patch::<Node>("n1", json!({"spec": {"unschedulable": true}}));
    sim.create::<DaemonSet>(set());
    sim.settle();
    assert_eq!(
        sim.get::<Node>("n1")["spec"]["taints"][0]["key"],
        "node.kubernetes.io/unschedulable"
    );
    assert_eq!(where_pods_are(&sim), ["n1"]);
}

#[test]
fn an_update_replaces_one_pod_at_a_time() {
    let mut sim = Sim::new();
    for name in ["n1", "n2", "n3"] {
        sim.create::<Node>(node(name));
    }
    sim.create::<DaemonSet>(set());
    run(&mut sim);
    sim.patch::<DaemonSet>(
        "ds",
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}),
    );
    assert_eq!(run(&mut sim), 2);
    assert!(
        sim.list::<Pod>()
            .iter()
            .all(|pod| pod["spec"]["containers"][0]["image"] == "v2")
    );
    assert_eq!(sim.get::<DaemonSet>("ds")["status"]["updatedNumberScheduled"], 3);
}
