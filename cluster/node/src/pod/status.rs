//! The status that a kubelet writes, from a pod and its containers. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus, VolumeMount, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::state::{Container, Ended, Kind, State};

/// What is known of a pod besides its containers.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) host: Ipv4Addr,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) started: Timestamp,
    pub(crate) initialized: bool,
    /// Nothing of it runs any more, nor will.
    pub(crate) over: bool,
    /// Ended for a reason that its containers do not tell: reason and message.
    pub(crate) failed: Option<(String, String)>,
}

/// The whole status; conditions of others in the old one are left to the API server's merge.
pub(crate) fn status(pod: &Pod, containers: &[Container], facts: &Facts, now: Timestamp) -> PodStatus {
    let phase = phase(pod, containers, facts);
    let of = |main: bool| -> Option<Vec<ContainerStatus>> {
        let all: Vec<_> = containers
            .iter()
            .filter(|c| (c.kind == Kind::Main) == main)
            .map(container_status)
            .collect();
        (!all.is_empty()).then_some(all)
    };
    PodStatus {
        conditions: Some(conditions(pod, containers, facts, phase, now)),
        container_statuses: of(true),
        init_container_statuses: of(false),
        host_ip: Some(facts.host.to_string()),
        host_ips: Some(vec![HostIP {
            ip: facts.host.to_string(),
        }]),
        phase: Some(phase.to_owned()),
        pod_ip: facts.address.map(|ip| ip.to_string()),
        pod_ips: facts.address.map(|ip| vec![PodIP { ip: ip.to_string() }]),
        qos_class: Some(quality(pod).to_owned()),
        start_time: Some(Time(facts.started)),
        reason: facts.failed.as_ref().map(|(reason, _)| reason.clone()),
        message: facts.failed.as_ref().map(|(_, message)| message.clone()),
        ..PodStatus::default()
    }
}

fn phase(pod: &Pod, containers: &[Container], facts: &Facts) -> &'static str {
    if facts.failed.is_some() {
        return "Failed";
    }
    let policy = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always");
    let mains = || containers.iter().filter(|container| container.kind == Kind::Main);
    let succeeded = |container: &Container| container.ended().is_some_and(|ended| ended.code == 0);
    if facts.over {
        return if mains().all(succeeded) { "Succeeded" } else { "Failed" };
    }
    if !facts.initialized {
        let failed = containers
            .iter()
            .any(|c| c.kind == Kind::Init && c.ended().is_some_and(|ended| ended.code != 0));
        return if failed && policy == "Never" {
            "Failed"
        } else {
            "Pending"
        };
    }
    let waiting = mains().any(|c| matches!(c.state, State::Waiting { .. }) && c.last.is_none());
    let running = mains().any(Container::is_running);
    match (waiting, running, policy) {
        (true, _, _) => "Pending",
        (_, true, _) | (_, _, "Always") => "Running",
        _ if mains().all(succeeded) => "Succeeded",
        (_, _, "Never") => "Failed",
        _ => "Running",
    }
}

fn container_status(container: &Container) -> ContainerStatus {
    let ended = |ended: &Ended| ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: ended.id.clone(),
            exit_code: ended.code,
            finished_at: ended.finished.map(Time),
            message: ended.message.clone(),
            reason: Some(ended.reason.clone()),
            started_at: ended.started.map(Time),
            signal: None,
        }),
        ..ContainerState::default()
    };
    let state = match &container.state {
        State::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: message.clone(),
            }),
            ..ContainerState::default()
        },
        State::Running { since } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(*since)),
            }),
            ..ContainerState::default()
        },
        State::Ended(end) => ended(end),
    };
    // What a kubelet says of a container that the runtime knows.
    let runs = !matches!(container.state, State::Waiting { .. }) || container.last.is_some();
    let resources = container.spec.resources.clone().unwrap_or_default();
    let mounts = container.spec.volume_mounts.as_ref().map(|mounts| {
        let status = |mount: &VolumeMount| VolumeMountStatus {
            mount_path: mount.mount_path.clone(),
            name: mount.name.clone(),
            read_only: mount.read_only,
            recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
        };
        mounts.iter().map(status).collect()
    });
    ContainerStatus {
        name: container.spec.name.clone(),
        image: container.spec.image.clone().unwrap_or_default(),
        image_id: container.image_id.clone(),
        container_id: container.id.clone(),
        state: Some(state),
        last_state: Some(container.last.as_ref().map(ended).unwrap_or_default()),
        ready: container.ready || (container.kind == Kind::Init && container.ended().is_some_and(|e| e.code == 0)),
        started: Some(container.started),
        restart_count: container.restarts,
        resources: runs.then(|| resources.clone()),
        allocated_resources: resources.requests.filter(|_| runs),
        volume_mounts: mounts.filter(|_| runs),
        ..ContainerStatus::default()
    }
}

fn conditions(pod: &Pod, containers: &[Container], facts: &Facts, phase: &str, now: Timestamp) -> Vec<PodCondition> {
    let before: BTreeMap<String, PodCondition> = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .map(|condition| (condition.type_.clone(), condition.clone()))
        .collect();
    let make = |kind: &str, reason: Option<(String, Option<String>)>, holds: bool| {
        let status = if holds { "True" } else { "False" };
        let since = before
            .get(kind)
            .filter(|old| old.status == status)
            .and_then(|old| old.last_transition_time.clone());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since.unwrap_or(Time(now))),
            reason: reason.as_ref().map(|(reason, _)| reason.clone()),
            message: reason.and_then(|(_, message)| message),
            ..PodCondition::default()
        }
    };
    let names = |which: &dyn Fn(&Container) -> bool| -> Vec<&str> {
        containers
            .iter()
            .filter(|c| which(c))
            .map(|c| c.spec.name.as_str())
            .collect()
    };
    let ended_well = |container: &Container| container.ended().is_some_and(|ended| ended.code == 0);
    let incomplete = names(&|c| match c.kind {
        Kind::Init => !ended_well(c),
        Kind::Sidecar => !c.started,
        Kind::Main => false,
    });
    let initialized = match (facts.initialized || phase == "Succeeded", incomplete.as_slice()) {
        (true, _) | (_, []) => None,
        (_, names) => Some((
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", names.join(" ")),
        )),
    };
    let unready = names(&|c| c.kind != Kind::Init && !c.ready);
    let containers_ready = match (phase, unready.as_slice()) {
        ("Succeeded", _) => Some(("PodCompleted", None)),
        ("Failed", _) => Some(("PodFailed", None)),
        (_, []) => None,
        (_, names) => Some((
            "ContainersNotReady",
            Some(format!("containers with unready status: [{}]", names.join(" "))),
        )),
    };
    let gates: Vec<String> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten())
        .filter_map(|gate| match before.get(&gate.condition_type) {
            None => Some(format!(
                "corresponding condition of pod readiness gate {:?} does not exist.",
                gate.condition_type
            )),
            Some(found) if found.status == "True" => None,
            Some(found) => Some(format!(
                "the status of pod readiness gate {:?} is not \"True\", but {}",
                gate.condition_type, found.status
            )),
        })
        .collect();
    let ready = match containers_ready.clone() {
        None if !gates.is_empty() => Some(("ReadinessGatesNotReady", Some(gates.join(", ")))),
        other => other,
    };
    let owned = |reason: Option<(&str, Option<String>)>| reason.map(|(reason, text)| (reason.to_owned(), text));
    let sandbox = facts.address.is_some() && !facts.over;
    vec![
        make("PodReadyToStartContainers", None, sandbox),
        make(
            "Initialized",
            initialized.clone().map(|(r, m)| (r.to_owned(), Some(m))),
            initialized.is_none(),
        ),
        make("Ready", owned(ready.clone()), ready.is_none()),
        make(
            "ContainersReady",
            owned(containers_ready.clone()),
            containers_ready.is_none(),
        ),
        make("PodScheduled", None, true),
    ]
}

/// Guaranteed when every container limits cpu and memory to what it requests, BestEffort when none says anything.
fn quality(pod: &Pod) -> &'static str {
    let spec = pod.spec.as_ref();
    let all = || {
        spec.into_iter()
            .flat_map(|spec| spec.init_containers.iter().flatten().chain(spec.containers.iter()))
    };
    let amounts = |container: &k8s_openapi::api::core::v1::Container, name: &str| {
        let resources = container.resources.clone().unwrap_or_default();
        let of = |map: Option<BTreeMap<String, _>>| map.unwrap_or_default().remove(name);
        (of(resources.requests), of(resources.limits))
    };
    let mut says = false;
    let mut guaranteed = true;
    for container in all() {
        for name in ["cpu", "memory"] {
            let (request, limit) = amounts(container, name);
            says |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (says, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
