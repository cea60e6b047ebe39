// N1

use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use serde_json::{Value, json};

use super::*;
use crate::sim::Sim;

fn pod(name: &str, port: i32) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]}})
}

fn service() -> Value {
    json!({"metadata": {"name": "s", "labels": {"l": "m"}},
        "spec": {"selector": {"app": "a"}, "clusterIP": "10.96.0.9", "ports": [{"name": "web", "port": 80, "targetPort": "http"}]}})
}

fn slices(sim: &Sim) -> Vec<(i64, usize)> {
    let short = |slice: &Value| {
        (
            slice["ports"][0]["port"].as_i64().unwrap_or_default(),
            slice["endpoints"].as_array().unwrap().len(),
        )
    };
    let mut all: Vec<_> = sim.list::<EndpointSlice>().iter().map(short).collect();
    all.sort_unstable();
    all
}

#[test]
fn pods_with_other_ports_are_in_other_slices_of_a_hundred() {
    let mut sim = Sim::new();
    sim.create::<Service>(service());
    sim.settle();
    assert_eq!(slices(&sim), [(0, 0)]);
    for number in 0..102 {
        sim.create::<Pod>(pod(&format!("p{number:03}"), if number == 0 { 9090 } else { 8080 }));
    }
    while sim.pod_becomes("Running", |_| true) {}
    sim.settle();
    assert_eq!(slices(&sim), [(8080, 1), (8080, 100), (9090, 1)]);
    let subsets = sim.get::<Endpoints>("s")["subsets"].as_array().unwrap().len();
    assert_eq!(subsets, 2);
}

#[test]
fn a_pod_that_ends_is_terminating_in_the_slice_and_gone_from_the_endpoints() {
    let mut sim = Sim::new();
    sim.create::<Service>(service());
    sim.create::<Pod>(pod("p", 8080));
    sim.pod_becomes("Running", |_| true);
    sim.delete::<Pod>("p");
    sim.settle();
    let slice = sim.list::<EndpointSlice>().remove(0);
    assert_eq!(
        slice["endpoints"][0]["conditions"],
        json!({"ready": false, "serving": true, "terminating": true})
    );
    assert_eq!(
        slice["metadata"]["labels"],
        json!({
            "l": "m", "kubernetes.io/service-name": "s", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        })
    );
    assert!(
        sim.get::<Endpoints>("s")["subsets"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    sim.patch::<Service>("s", json!({"spec": {"publishNotReadyAddresses": true}}));
    sim.settle();
    assert_eq!(
        sim.list::<EndpointSlice>()[0]["endpoints"][0]["conditions"]["ready"],
        true
    );
    assert_eq!(sim.kept(), (0, 1, 1));
}

#[test]
fn endpoints_that_a_user_keeps_are_mirrored() {
    let mut sim = Sim::new();
    sim.create::<Service>(json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}));
    sim.create::<Endpoints>(json!({"metadata": {"name": "s"}, "subsets": [
        {"addresses": [{"ip": "10.0.0.1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]}]}));
    sim.settle();
    let slice = sim.list::<EndpointSlice>().remove(0);
    let ready: Vec<_> = slice["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["addresses"][0].clone(), e["conditions"]["ready"].clone()))
        .collect();
    assert_eq!(
        ready,
        [(json!("10.0.0.1"), json!(true)), (json!("10.0.0.2"), json!(false))]
    );
    assert_eq!(slice["metadata"]["labels"][SLICE_KEEPER], MIRROR);
}

#[test]
fn a_budget_counts_what_its_controllers_are_to_run() {
    let mut sim = Sim::new();
    sim.create::<k8s_openapi::api::apps::v1::Deployment>(json!({"metadata": {"name": "d"}, "spec": {
        "replicas": 4, "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}},
    }}));
    sim.create::<PodDisruptionBudget>(json!({"metadata": {"name": "b"}, "spec": {
        "maxUnavailable": "30%", "selector": {"matchLabels": {"app": "a"}}}}));
    sim.settle();
    let status = |sim: &Sim| {
        let status = sim.get::<PodDisruptionBudget>("b")["status"].clone();
        ["expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed"].map(|f| status[f].as_i64().unwrap())
    };
    assert_eq!(status(&sim), [4, 2, 0, 0]);
    while sim.pod_becomes("Running", |_| true) {}
    sim.settle();
    assert_eq!(status(&sim), [4, 2, 4, 2]);
    // A pod whose eviction was granted counts as gone until it is, or until it is clear that it stays.
    let name = sim.names::<Pod>().remove(0);
    let granted = json!({"status": {"disruptedPods": {name: crate::work::seconds(sim.now)}}});
    sim.patch::<PodDisruptionBudget>("b", granted);
    sim.settle();
    assert_eq!(status(&sim), [4, 2, 3, 1]);
    sim.pass(121);
    sim.settle();
    assert_eq!(status(&sim), [4, 2, 4, 2]);
}

#[test]
fn a_pod_is_bound_to_a_node_that_takes_it_or_told_why_not() {
    let mut sim = Sim::new();
    let node = |name: &str, cpu: &str, taints: Value| {
        json!({"metadata": {"name": name}, "spec": {"taints": taints}, "status": {
            "allocatable": {"cpu": cpu, "pods": "5"}, "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    sim.create::<Node>(node("small", "1", json!([])));
    sim.create::<Node>(node(
        "tainted",
        "8",
        json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]),
    ));
    let mut body = pod("p", 80);
    body["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1500m"}});
    sim.create::<Pod>(body);
    sim.settle();
    let message = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {k: v}. \
                   preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.";
    assert_eq!(sim.get::<Pod>("p")["status"]["conditions"][0]["message"], message);
    assert_eq!(sim.events, [format!("Warning FailedScheduling {message}")]);
    sim.patch::<Node>("tainted", json!({"spec": {"taints": null}}));
    sim.settle();
    assert_eq!(sim.get::<Pod>("p")["spec"]["nodeName"], "tainted");
    assert_eq!(sim.events[1], "Normal Scheduled Successfully assigned ns/p to tainted");
}

#[test]
fn a_node_that_is_not_ready_takes_no_pods_until_it_is() {
    let mut sim = Sim::new();
    sim.create::<Node>(json!({"metadata": {"name": "n"}, "spec": {}, "status": {"allocatable": {"pods": "5"}}}));
    sim.create::<Pod>(pod("p", 80));
    sim.settle();
    sim.settle();
    assert_eq!(
        sim.get::<Node>("n")["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    );
    sim.patch::<Node>(
        "n",
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    sim.settle();
    assert_eq!(sim.get::<Node>("n")["spec"]["taints"], json!([]));
}

#[test]
fn every_namespace_has_its_account_and_the_certificates_also_when_somebody_takes_them() {
    let mut sim = Sim::new();
    sim.world.root_ca.set("PEM".to_owned()).unwrap();
    sim.create::<Namespace>(json!({"metadata": {"name": "ns"}}));
    sim.settle();
    assert_eq!(sim.names::<ServiceAccount>(), ["default"]);
    sim.patch::<ConfigMap>("kube-root-ca.crt", json!({"data": {"ca.crt": "forged", "more": "x"}}));
    sim.delete::<ServiceAccount>("default");
    sim.settle();
    assert_eq!(
        sim.get::<ConfigMap>("kube-root-ca.crt")["data"],
        json!({"ca.crt": "PEM"})
    );
    assert_eq!(sim.names::<ServiceAccount>(), ["default"]);
}
