//! A pod's containers as they start, are found healthy or not, and end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::task::JoinSet;

use super::Worker;
use crate::cgroups;
use crate::exec::Running;
use crate::launch::Exit;
use crate::logs;
use crate::pod::env::Sources;
use crate::pod::start::{self, Start, StartError};
use crate::pod::state::{self, Ended, Kind, State};
use crate::pod::stop::{self, field};
use crate::probe::{self, Finding, Target};

impl Worker {
    pub(super) async fn start(&mut self, index: usize) {
        let Some(container) = self.containers.get(index).cloned() else {
            return;
        };
        let name = container.spec.name.clone();
        let reference = container.spec.image.clone().unwrap_or_default();
        let Some(image) = self.node.config.images.find(&reference) else {
            return self.no_image(index, &reference);
        };
        if container.attempts == 0 || container.ended().is_some() {
            let message = format!("Container image {reference:?} already present on machine");
            self.tell(Some(index), false, "Pulled", message);
        }
        if container.attempts > 0
            && let Ok(sources) = Sources::fetch(&self.node.client, &self.pod).await
        {
            self.sources = sources;
        }
        let attempt = container.attempts;
        let place = self.place();
        let none = BTreeMap::new();
        let start = Start {
            node: &self.node,
            pod: &self.pod,
            container: &container.spec,
            image: image.clone(),
            attempt,
            sources: &self.sources,
            place: &place,
            folder: &self.folder,
            volumes: self.volumes.as_ref().unwrap_or(&none),
            namespaces: self.namespaces.clone(),
        };
        let started = start.run().await;
        let now = Timestamp::now();
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        if let Err(StartError::Config(message)) = &started {
            container.state = State::Waiting {
                reason: "CreateContainerConfigError".to_owned(),
                message: Some(message.clone()),
            };
            container.not_before = Some(now + Duration::from_secs(10));
            return self.tell(Some(index), true, "Failed", format!("Error: {message}"));
        }
        if let Some(ended) = container.ended().cloned() {
            container.last = Some(ended);
            container.backoff.attempt(now);
        }
        container.restarts = attempt;
        container.attempts = attempt + 1;
        container.image_id = format!("program://{}", image.program.display());
        container.not_before = None;
        (container.started, container.ready) = (false, false);
        let running = match started {
            Ok(running) => Arc::new(running),
            Err(error) => {
                let message = error.to_string();
                self.tell(Some(index), true, "Failed", format!("Error: {message}"));
                return self.ended(index, 128, "StartError", Some(message));
            }
        };
        container.id = Some(running.id.clone());
        container.state = State::Running { since: now };
        container.started = container.spec.startup_probe.is_none();
        container.ready = container.started && container.spec.readiness_probe.is_none();
        if container.kind == Kind::Init {
            (container.started, container.ready) = (true, false);
        }
        if let Some(place) = self.running.get_mut(index) {
            *place = Some(Arc::clone(&running));
        }
        if let Some(live) = self.live_entry() {
            live.containers.lock().insert(name.clone(), Arc::clone(&running));
        }
        let exits = self.exits.0.clone();
        let process = Arc::clone(&running.process);
        tokio::spawn(async move {
            let exit = process.ended().await;
            _ = exits.send((index, attempt, exit)).await;
        });
        self.tell(Some(index), false, "Created", format!("Created container: {name}"));
        self.tell(Some(index), false, "Started", format!("Started container {name}"));
        self.after_start(index, running).await;
    }

    /// The hook that holds the next container back, then the probes.
    pub(super) async fn after_start(&mut self, index: usize, running: Arc<Running>) {
        let Some(target) = self.target(index, running) else {
            return;
        };
        let handler = target
            .container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.clone());
        if let Some(handler) = handler {
            let process = Arc::clone(&target.running.process);
            let mut updates = self.updates.clone();
            let gone = async {
                let ends =
                    |pod: &Option<Arc<Pod>>| pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
                _ = updates.wait_for(ends).await;
            };
            tokio::select! {
                done = stop::hook(&target, &handler, Duration::from_secs(24 * 3600)) => {
                    if let Err(error) = done {
                        self.tell(Some(index), true, "FailedPostStartHook", format!("PostStartHook failed: {error}"));
                        stop::tell(&target, "FailedPostStartHook".to_owned());
                        stop::stop(&target, self.grace()).await;
                    }
                }
                _ = process.ended() => {}
                () = gone => {}
            }
        }
        let spec = &target.container;
        if spec.startup_probe.is_some() || spec.liveness_probe.is_some() || spec.readiness_probe.is_some() {
            let mut tasks = JoinSet::new();
            tasks.spawn(probe::watch(target, index, self.findings.0.clone()));
            if let Some(place) = self.probes.get_mut(index) {
                *place = Some(tasks);
            }
        }
    }

    pub(super) fn target(&self, index: usize, running: Arc<Running>) -> Option<Target> {
        let container = self.containers.get(index)?;
        Some(Target {
            config: self.node.config.clone(),
            recorder: self.node.recorder.clone(),
            pod: Arc::clone(&self.pod),
            container: container.spec.clone(),
            field: field(container.kind, &container.spec),
            running,
            address: self.facts.address?,
        })
    }

    pub(super) fn no_image(&mut self, index: usize, reference: &str) {
        let why = format!(
            "no program is known for image {reference:?} on this node; name one: --image {}=PATH/OF/PROGRAM",
            reference.split(['@', ':']).next().unwrap_or(reference)
        );
        let now = Timestamp::now();
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        if container.spec.image_pull_policy.as_deref() == Some("Never") {
            let message = format!("Container image {reference:?} is not present with pull policy of Never: {why}");
            let reason = "ErrImageNeverPull".to_owned();
            container.state = State::Waiting {
                reason,
                message: Some(message.clone()),
            };
            container.not_before = Some(now + Duration::from_secs(10));
            return self.tell(Some(index), true, "ErrImageNeverPull", message);
        }
        let again = matches!(&container.state, State::Waiting { reason, .. } if reason == "ErrImagePull");
        if again {
            // What was pulled in vain is waited for before the next attempt.
            let message = format!("Back-off pulling image {reference:?}: ErrImagePull: {why}");
            let reason = "ImagePullBackOff".to_owned();
            container.state = State::Waiting {
                reason,
                message: Some(message),
            };
            container.not_before = Some(now + container.pull.delay());
            self.tell(
                Some(index),
                false,
                "BackOff",
                format!("Back-off pulling image {reference:?}"),
            );
            return self.tell(Some(index), true, "Failed", "Error: ImagePullBackOff".to_owned());
        }
        container.pull.attempt(now);
        container.state = State::Waiting {
            reason: "ErrImagePull".to_owned(),
            message: Some(why.clone()),
        };
        container.not_before = Some(now + Duration::from_secs(1));
        self.tell(Some(index), false, "Pulling", format!("Pulling image {reference:?}"));
        self.tell(
            Some(index),
            true,
            "Failed",
            format!("Failed to pull image {reference:?}: {why}"),
        );
        self.tell(Some(index), true, "Failed", "Error: ErrImagePull".to_owned());
    }

    pub(super) async fn exited(&mut self, index: usize, attempt: i32, exit: Exit) {
        let current = self.running.get_mut(index);
        let Some(running) = current.and_then(|place| place.take_if(|running| running.attempt == attempt)) else {
            return;
        };
        if let Some(place) = self.probes.get_mut(index) {
            *place = None;
        }
        // What it wrote last is in its log before anybody is told that it ended.
        _ = tokio::time::timeout(Duration::from_secs(1), running.output.complete()).await;
        let killed_for_memory = running.cgroup.as_deref().is_some_and(cgroups::ran_out_of_memory);
        if let Some(cgroup) = &running.cgroup {
            cgroups::remove(cgroup.clone());
        }
        let reason = match (killed_for_memory, exit.code) {
            (true, _) => "OOMKilled",
            (_, 0) => "Completed",
            _ => "Error",
        };
        let message = self.last_words(index, attempt, exit.code).await;
        self.ended(index, exit.code, reason, message);
    }

    pub(super) async fn last_words(&self, index: usize, attempt: i32, code: i32) -> Option<String> {
        let spec = &self.containers.get(index)?.spec;
        let mut text = std::fs::read(start::last_words(&self.folder, &spec.name)).unwrap_or_default();
        text.truncate(4096);
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if text.is_empty() && code != 0 && spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError") {
            let log = logs::path(&start::folder(&self.folder, &spec.name), attempt);
            text = logs::ending(log, 80, 2048).await;
        }
        (!text.is_empty()).then_some(text)
    }

    /// A container has ended: it stays so, starts again at once, or waits.
    pub(super) fn ended(&mut self, index: usize, code: i32, reason: &str, message: Option<String>) {
        let now = Timestamp::now();
        let policy = self.policy();
        let which = format!(
            "{}_{}({})",
            self.pod.name_any(),
            self.pod.namespace().unwrap_or_default(),
            self.pod.uid().unwrap_or_default()
        );
        let initialized = self.facts.initialized;
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        let since = match container.state {
            State::Running { since } => since,
            _ => now,
        };
        let ended = Ended {
            id: container.id.clone(),
            code,
            reason: reason.to_owned(),
            message,
            started: Some(since),
            finished: Some(now),
        };
        container.state = State::Ended(ended.clone());
        (container.started, container.ready) = (false, false);
        let due = container.backoff.due(now);
        let next = state::next(&self.containers, &policy, initialized, now);
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        if due > now && next.start.contains(&index) {
            let name = container.spec.name.clone();
            let message = format!(
                "back-off {} restarting failed container={name} pod={which}",
                go_duration(container.backoff.delay())
            );
            container.last = Some(ended);
            container.state = State::Waiting {
                reason: "CrashLoopBackOff".to_owned(),
                message: Some(message),
            };
            container.not_before = Some(due);
            let told = format!("Back-off restarting failed container {name} in pod {which}");
            self.tell(Some(index), true, "BackOff", told);
        }
    }

    pub(super) async fn found(&mut self, index: usize, attempt: i32, finding: Finding) {
        let current = self
            .running
            .get(index)
            .and_then(Option::as_ref)
            .filter(|running| running.attempt == attempt);
        let (Some(running), Some(container)) = (current.cloned(), self.containers.get_mut(index)) else {
            return;
        };
        match finding {
            Finding::Started => {
                container.started = true;
                container.ready = container.spec.readiness_probe.is_none();
            }
            Finding::Ready(ready) => container.ready = ready,
            Finding::Unhealthy(kind, own_grace) => {
                let name = container.spec.name.clone();
                container.ready = false;
                let own_grace = own_grace.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
                let grace = own_grace.unwrap_or_else(|| self.grace());
                if let Some(target) = self.target(index, running) {
                    stop::tell(
                        &target,
                        format!("Container {name} failed {kind} probe, will be restarted"),
                    );
                    // Its end comes back as any other.
                    tokio::spawn(async move { stop::stop(&target, grace).await });
                }
            }
        }
    }

    pub(super) fn all_running(&self) -> Vec<Arc<Running>> {
        self.running.iter().flatten().cloned().collect()
    }

    /// Ends what runs and takes note of how it ended.
    pub(super) async fn stop_running(&mut self, grace: Duration, message: impl Fn(&str) -> String) {
        let mut targets = Vec::new();
        for (index, running) in self.running.iter().enumerate() {
            let Some(target) = running.clone().and_then(|running| self.target(index, running)) else {
                continue;
            };
            stop::tell(&target, message(&target.container.name));
            targets.push((self.containers.get(index).map_or(Kind::Main, |c| c.kind), target));
        }
        let mut updates = self.updates.clone();
        let all = self.all_running();
        let gone = async { _ = updates.wait_for(Option::is_none).await };
        tokio::select! {
            () = stop::stop_all(targets, grace) => {}
            () = gone => stop::kill(&all).await,
        }
        for running in &all {
            let exit = running.process.ended().await;
            let index = self
                .running
                .iter()
                .position(|r| r.as_ref().is_some_and(|r| Arc::ptr_eq(r, running)));
            if let Some(index) = index {
                self.exited(index, running.attempt, exit).await;
            }
        }
        for container in &mut self.containers {
            // Nothing waits for a restart any more.
            if let (State::Waiting { .. }, Some(last)) = (&container.state, &container.last) {
                container.state = State::Ended(last.clone());
            }
        }
    }
}

/// As Go writes durations: `10s`, `1m20s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}
