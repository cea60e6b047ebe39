use super::*;

fn pod(init: &[(&str, bool)], main: &[&str]) -> Vec<Container> {
    let init: Vec<_> = init
        .iter()
        .map(|(name, sidecar)| match sidecar {
            true => serde_json::json!({"name": name, "restartPolicy": "Always"}),
            false => serde_json::json!({"name": name}),
        })
        .collect();
    let main: Vec<_> = main.iter().map(|name| serde_json::json!({"name": name})).collect();
    let pod = serde_json::json!({"spec": {"initContainers": init, "containers": main}});
    Container::all(&serde_json::from_value(pod).unwrap())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn ended(code: i32) -> State {
    State::Ended(Ended {
        id: None,
        code,
        reason: "x".into(),
        message: None,
        started: None,
        finished: None,
    })
}

fn running(container: &mut Container, started: bool) {
    container.state = State::Running { since: at(0) };
    container.started = started;
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    let mut all = pod(&[("first", false), ("proxy", true), ("second", false)], &["app"]);
    assert_eq!(next(&all, "Always", false, at(0)).start, [0]);
    running(&mut all[0], true);
    assert_eq!(next(&all, "Always", false, at(0)), Next::default());
    all[0].state = ended(0);
    assert_eq!(next(&all, "Always", false, at(0)).start, [1]);
    running(&mut all[1], false);
    assert!(
        next(&all, "Always", false, at(0)).start.is_empty(),
        "its startup probe has not succeeded"
    );
    all[1].started = true;
    assert_eq!(next(&all, "Always", false, at(0)).start, [2]);
    all[2].state = ended(0);
    let after = next(&all, "Always", false, at(0));
    assert_eq!((after.start, after.initialized), (vec![3], true));
}

#[test]
fn a_sidecar_that_ends_later_starts_again_and_holds_nothing_up() {
    let mut all = pod(&[("proxy", true)], &["app"]);
    all[0].state = ended(1);
    assert_eq!(next(&all, "Never", true, at(0)).start, [0, 1]);
}

#[test]
fn a_failed_init_container_ends_the_pod_only_under_never() {
    let mut all = pod(&[("first", false)], &["app"]);
    all[0].state = ended(1);
    assert!(next(&all, "Never", false, at(0)).finished);
    assert_eq!(next(&all, "OnFailure", false, at(0)).start, [0]);
}

#[test]
fn the_restart_policy_decides_what_an_end_means() {
    let mut all = pod(&[("proxy", true)], &["app", "other"]);
    running(&mut all[0], true);
    all[1].state = ended(0);
    all[2].state = ended(3);
    assert_eq!(next(&all, "Always", true, at(0)).start, [1, 2]);
    assert_eq!(next(&all, "OnFailure", true, at(0)).start, [2]);
    let done = next(&all, "Never", true, at(0));
    assert!(done.finished && done.start.is_empty());
}

#[test]
fn restarts_wait_10_20_40_up_to_300_seconds_and_begin_anew_after_ten_minutes() {
    let mut all = pod(&[], &["app"]);
    all[0].state = ended(1);
    all[0].not_before = Some(at(10));
    let waits = next(&all, "Always", true, at(3));
    assert_eq!((waits.start, waits.wake), (vec![], Some(at(10))));
    assert_eq!(next(&all, "Always", true, at(10)).start, [0]);

    let mut backoff = Backoff::default();
    assert_eq!(backoff.due(at(0)), at(0), "the first restart is at once");
    let mut seen = Vec::new();
    for _ in 0..7 {
        backoff.attempt(at(100));
        seen.push(backoff.delay().as_secs());
    }
    assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(backoff.due(at(200)), at(500));
    assert_eq!(backoff.due(at(701)), at(701));
    backoff.attempt(at(701));
    assert_eq!(backoff.delay().as_secs(), 10);
}

#[test]
fn what_ran_in_an_earlier_life_of_the_node_counts_as_ended() {
    let pod = serde_json::json!({"spec": {"containers": [{"name": "app"}]}, "status": {"containerStatuses": [
        {"name": "app", "restartCount": 2, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "image": "", "imageID": "", "ready": true}]}});
    let all = Container::all(&serde_json::from_value(pod).unwrap());
    assert_eq!(all[0].restarts, 3);
    assert_eq!(all[0].last.as_ref().map(|ended| ended.code), Some(137));
}
