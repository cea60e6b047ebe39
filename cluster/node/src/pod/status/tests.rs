use super::*;

fn pod(more: serde_json::Value) -> Pod {
    let mut spec = serde_json::json!({"initContainers": [{"name": "setup"}],
        "containers": [{"name": "app"}, {"name": "log"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
}

fn facts() -> Facts {
    Facts {
        host: Ipv4Addr::new(10, 0, 0, 1),
        address: Some(Ipv4Addr::new(10, 244, 0, 2)),
        started: at(5),
        initialized: false,
        over: false,
        failed: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn ended(code: i32) -> State {
    State::Ended(Ended {
        id: None,
        code,
        reason: "Error".into(),
        message: None,
        started: None,
        finished: None,
    })
}

fn told(status: &PodStatus) -> Vec<(String, String, Option<String>, Option<String>)> {
    let all = status.conditions.clone().unwrap().into_iter();
    all.map(|c| (c.type_, c.status, c.reason, c.message)).collect()
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) -> (String, String, Option<String>, Option<String>) {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (kind.into(), status.into(), text(reason), text(message))
}

#[test]
fn a_pod_that_starts_says_what_it_waits_for() {
    let pod = pod(serde_json::json!({}));
    let containers = Container::all(&pod);
    let status = status(&pod, &containers, &facts(), at(9));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let unready = "containers with unready status: [app log]";
    assert_eq!(
        told(&status),
        [
            condition("PodReadyToStartContainers", "True", "", ""),
            condition(
                "Initialized",
                "False",
                "ContainersNotInitialized",
                "containers with incomplete status: [setup]"
            ),
            condition("Ready", "False", "ContainersNotReady", unready),
            condition("ContainersReady", "False", "ContainersNotReady", unready),
            condition("PodScheduled", "True", "", ""),
        ]
    );
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn ready_needs_every_container_and_every_gate() {
    let mut gated = pod(serde_json::json!({"readinessGates": [{"conditionType": "x/gate"}]}));
    let mut containers = Container::all(&gated);
    containers[0].state = ended(0);
    for container in &mut containers[1..] {
        container.state = State::Running { since: at(6) };
        (container.started, container.ready) = (true, true);
    }
    let facts = Facts {
        initialized: true,
        ..facts()
    };
    let closed = status(&gated, &containers, &facts, at(9));
    assert_eq!(closed.phase.as_deref(), Some("Running"));
    let message = "corresponding condition of pod readiness gate \"x/gate\" does not exist.";
    assert_eq!(
        told(&closed)[2],
        condition("Ready", "False", "ReadinessGatesNotReady", message)
    );
    assert_eq!(told(&closed)[3], condition("ContainersReady", "True", "", ""));
    gated.status = serde_json::from_value(serde_json::json!({"conditions": [
        {"type": "x/gate", "status": "True"}, {"type": "ContainersReady", "status": "True", "lastTransitionTime": "1970-01-01T00:00:07Z"}]}))
    .unwrap();
    let open = status(&gated, &containers, &facts, at(9));
    assert_eq!(told(&open)[2], condition("Ready", "True", "", ""));
    let since = open.conditions.unwrap()[3].last_transition_time.clone();
    assert_eq!(since, Some(Time(at(7))), "a condition that stays keeps its time");
}

#[test]
fn the_phase_follows_from_ends_and_restart_policy() {
    let phase_of = |policy: &str, codes: [i32; 2], over| {
        let pod = pod(serde_json::json!({"restartPolicy": policy}));
        let mut containers = Container::all(&pod);
        containers[0].state = ended(0);
        containers[1].state = ended(codes[0]);
        containers[2].state = ended(codes[1]);
        status(
            &pod,
            &containers,
            &Facts {
                initialized: true,
                over,
                ..facts()
            },
            at(9),
        )
        .phase
        .unwrap()
    };
    assert_eq!(phase_of("Always", [0, 0], false), "Running");
    assert_eq!(phase_of("OnFailure", [0, 1], false), "Running");
    assert_eq!(phase_of("Never", [0, 1], false), "Failed");
    assert_eq!(phase_of("Never", [0, 0], false), "Succeeded");
    assert_eq!(phase_of("Always", [0, 0], true), "Succeeded");
    assert_eq!(phase_of("Always", [0, 1], true), "Failed");
}

#[test]
fn quality_of_service_follows_from_requests_and_limits() {
    let with = |resources: serde_json::Value| {
        let pod = serde_json::json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
        quality(&serde_json::from_value(pod).unwrap())
    };
    assert_eq!(with(serde_json::json!({})), "BestEffort");
    assert_eq!(with(serde_json::json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(
        with(serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
        "Guaranteed"
    );
    let differ =
        serde_json::json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    assert_eq!(with(differ), "Burstable");
}
