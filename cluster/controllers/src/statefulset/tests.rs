// N1

use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Pod};
use serde_json::{Value, json};

use super::*;
use crate::sim::Sim;

fn set() -> Value {
    json!({"metadata": {"name": "db"}, "spec": {
        "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
    }})
}

/// Starts pods one by one; the names in the order in which pods began (+) and were told to end (-).
fn story(sim: &mut Sim) -> String {
    let from = sim.events.len();
    loop {
        sim.settle();
        sim.pods_end();
        sim.settle();
        if !sim.pod_becomes("Running", |pod| pod["metadata"]["deletionTimestamp"].is_null()) {
            break;
        }
    }
    let told = sim.events[from..]
        .iter()
        .filter(|event| event.contains(" Pod db-") && !event.contains("Claim"));
    let short = |event: &String| {
        let sign = if event.contains("SuccessfulCreate") { '+' } else { '-' };
        let ordinal = event.split("db-").nth(1).and_then(|rest| rest.chars().next()).unwrap();
        format!("{sign}{ordinal}")
    };
    told.map(short).collect::<Vec<_>>().join(" ")
}

fn images(sim: &Sim) -> Vec<String> {
    sim.list::<Pod>()
        .iter()
        .map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned())
        .collect()
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

#[test]
fn pods_come_in_order_and_go_in_reverse() {
    let mut sim = Sim::new();
    sim.create::<StatefulSet>(set());
    sim.settle();
    assert_eq!(
        sim.names::<Pod>(),
        ["db-0"],
        "the second waits until the first is ready"
    );
    assert_eq!(story(&mut sim), "+1 +2");
    assert_eq!(
        sim.names::<PersistentVolumeClaim>(),
        ["data-db-0", "data-db-1", "data-db-2"]
    );
    let pod = sim.get::<Pod>("db-1");
    assert_eq!(pod["spec"]["hostname"], "db-1");
    assert_eq!(
        pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"],
        "data-db-1"
    );
    sim.patch::<StatefulSet>("db", json!({"spec": {"replicas": 1}}));
    assert_eq!(story(&mut sim), "-2 -1");
}

#[test]
fn an_update_replaces_from_the_last_and_stops_at_the_partition() {
    let mut sim = Sim::new();
    sim.create::<StatefulSet>(set());
    story(&mut sim);
    sim.patch::<StatefulSet>(
        "db",
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}}),
    );
    sim.patch::<StatefulSet>("db", image("v2"));
    assert_eq!(story(&mut sim), "-2 +2 -1 +1");
    assert_eq!(images(&sim), ["v1", "v2", "v2"]);
    // One below the partition comes back as it was.
    sim.delete::<Pod>("db-0");
    story(&mut sim);
    assert_eq!(images(&sim), ["v1", "v2", "v2"]);
    sim.patch::<StatefulSet>(
        "db",
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}),
    );
    assert_eq!(story(&mut sim), "-0 +0");
    let status = sim.get::<StatefulSet>("db")["status"].clone();
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    // Back to the first template: its revision is used again, as the newest.
    sim.patch::<StatefulSet>("db", image("v1"));
    story(&mut sim);
    let mut revisions: Vec<_> = sim
        .list::<ControllerRevision>()
        .iter()
        .map(|r| r["revision"].as_i64().unwrap())
        .collect();
    revisions.sort_unstable();
    assert_eq!((images(&sim), revisions), (vec!["v1".to_owned(); 3], vec![2, 3]));
}

#[test]
fn in_parallel_all_pods_come_at_once() {
    let mut sim = Sim::new();
    let mut set = set();
    set["spec"]["podManagementPolicy"] = json!("Parallel");
    sim.create::<StatefulSet>(set);
    sim.settle();
    assert_eq!(sim.names::<Pod>(), ["db-0", "db-1", "db-2"]);
}
