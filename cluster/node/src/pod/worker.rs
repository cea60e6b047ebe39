//! One task for each pod: it looks at the object and at what happened, asks [`state::next`], does that, and writes the status.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::env::{Place, Sources};
use super::state::{self, Container, State};
use super::status::{self, Facts};
use super::stop::{self, field};
use crate::exec::Running;
use crate::launch::Exit;
use crate::node::{Live, Node};
use crate::probe::Finding;
use crate::sandbox::Namespaces;

/// How often config maps, secrets and tokens are looked at again.
const REFRESH: Duration = Duration::from_secs(30);
/// Kubelet's bounds for attempts to mount volumes.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(122);

mod containers;
mod setup;

/// About the container of an index, in an attempt: others are out of date.
type Channel<T> = (mpsc::Sender<(usize, i32, T)>, mpsc::Receiver<(usize, i32, T)>);

pub(crate) struct Worker {
    node: Arc<Node>,
    pod: Arc<Pod>,
    updates: watch::Receiver<Option<Arc<Pod>>>,
    folder: PathBuf,
    containers: Vec<Container>,
    running: Vec<Option<Arc<Running>>>,
    probes: Vec<Option<JoinSet<()>>>,
    exits: Channel<Exit>,
    findings: Channel<Finding>,
    facts: Facts,
    own_address: Option<Ipv4Addr>,
    namespaces: Option<Arc<Namespaces>>,
    sources: Sources,
    volumes: Option<BTreeMap<String, PathBuf>>,
    tokens: BTreeMap<(String, String), (String, Timestamp)>,
    retry: Duration,
    written: Option<serde_json::Value>,
}

/// Runs a pod until its object is gone; `updates` holds `None` then.
pub(crate) async fn run(node: Arc<Node>, pod: Arc<Pod>, updates: watch::Receiver<Option<Arc<Pod>>>) {
    let containers = Container::all(&pod);
    let status = pod.status.clone().unwrap_or_default();
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let mut worker = Worker {
        folder: node.config.state.join("pods").join(pod.uid().unwrap_or_default()),
        running: containers.iter().map(|_| None).collect(),
        probes: containers.iter().map(|_| None).collect(),
        exits: mpsc::channel(16),
        findings: mpsc::channel(64),
        facts: Facts {
            host: node.config.address,
            address: None,
            started: status.start_time.map_or_else(Timestamp::now, |time| time.0),
            initialized: false,
            over,
            failed: None,
        },
        own_address: None,
        namespaces: None,
        sources: Sources::default(),
        volumes: None,
        tokens: BTreeMap::new(),
        retry: FIRST_RETRY,
        written: None,
        node,
        pod,
        updates,
        containers,
    };
    worker.enlist();
    if over {
        worker.wait_for_end().await;
    } else {
        worker.live().await;
    }
    worker.clean_up();
}

impl Worker {
    async fn live(&mut self) {
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.reset();
        loop {
            let current = self.updates.borrow_and_update().clone();
            match current {
                None => {
                    stop::kill(&self.all_running()).await;
                    return;
                }
                Some(pod) => {
                    let told = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
                    let changed = told(&pod) != told(&self.pod);
                    self.pod = pod;
                    if changed {
                        self.refresh().await;
                    }
                }
            }
            if self.pod.metadata.deletion_timestamp.is_some() {
                return self.end().await;
            }
            let mut wake = self.step().await;
            if self.facts.over {
                self.publish().await;
                return self.wait_for_end().await;
            }
            if !self.publish().await {
                wake = Some(wake.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1)));
            }
            let timer = async {
                match wake {
                    Some(wake) => tokio::time::sleep(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.updates.changed() => if changed.is_err() { return },
                Some((index, attempt, exit)) = self.exits.1.recv() => self.exited(index, attempt, exit).await,
                Some((index, attempt, finding)) = self.findings.1.recv() => self.found(index, attempt, finding).await,
                _ = refresh.tick() => self.refresh().await,
                () = timer => {}
            }
            // What else has happened meanwhile is told in the same status.
            while let Ok((index, attempt, exit)) = self.exits.1.try_recv() {
                self.exited(index, attempt, exit).await;
            }
            while let Ok((index, attempt, finding)) = self.findings.1.try_recv() {
                self.found(index, attempt, finding).await;
            }
        }
    }

    /// Does what is due; says when to come back though nothing happens.
    async fn step(&mut self) -> Option<Duration> {
        if self.volumes.is_none() || self.facts.address.is_none() {
            if let Err((reason, message)) = self.set_up().await {
                self.tell(None, true, reason, message);
                let wait = self.retry;
                self.retry = (self.retry * 2).min(LONGEST_RETRY);
                return Some(wait);
            }
            // The address is told before anything runs, so that others find it as early as they may.
            self.publish().await;
        }
        let now = Timestamp::now();
        let mut wake = None;
        if let Some(limit) = self.pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds) {
            let left =
                Duration::from_secs(u64::try_from(limit).unwrap_or(0)).checked_sub(since(self.facts.started, now));
            match left.filter(|left| !left.is_zero()) {
                Some(left) => wake = Some(left),
                None => {
                    let message = "Pod was active on the node longer than the specified deadline".to_owned();
                    self.tell(None, false, "DeadlineExceeded", message.clone());
                    self.stop_running(self.grace(), |name| format!("Stopping container {name}"))
                        .await;
                    self.facts.failed = Some(("DeadlineExceeded".to_owned(), message));
                    self.facts.over = true;
                    return None;
                }
            }
        }
        let policy = self.policy();
        loop {
            let next = state::next(&self.containers, &policy, self.facts.initialized, Timestamp::now());
            self.facts.initialized |= next.initialized;
            if next.finished {
                self.stop_running(self.grace(), |name| format!("Stopping container {name}"))
                    .await;
                self.facts.over = true;
                return None;
            }
            if let Some(due) = next.wake {
                let left = since(Timestamp::now(), due);
                wake = Some(wake.map_or(left, |wake: Duration| wake.min(left)));
            }
            let Some(index) = next.start.first().copied() else {
                return wake;
            };
            self.start(index).await;
            // A container that starts may have brought about the end of another, or the pod's.
            if self.updates.has_changed().unwrap_or(true) {
                return Some(Duration::ZERO);
            }
        }
    }

    fn policy(&self) -> String {
        self.pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.clone())
            .unwrap_or_else(|| "Always".to_owned())
    }

    fn grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref();
        let own = spec
            .and_then(|spec| spec.termination_grace_period_seconds)
            .unwrap_or(30);
        let seconds = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(own);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    fn tell(&self, container: Option<usize>, warning: bool, reason: &'static str, message: String) {
        let field = container
            .and_then(|index| self.containers.get(index))
            .map(|c| field(c.kind, &c.spec));
        self.node.recorder.tell(&self.pod, field, warning, reason, message);
    }

    fn host_network(&self) -> bool {
        self.pod
            .spec
            .as_ref()
            .and_then(|spec| spec.host_network)
            .unwrap_or(false)
    }

    fn place(&self) -> Place {
        Place {
            address: self.facts.address,
            ..self.node.place.clone()
        }
    }

    fn live_entry(&self) -> Option<Arc<Live>> {
        let key = (self.pod.namespace().unwrap_or_default(), self.pod.name_any());
        let found = self.node.registry.lock().get(&key).cloned();
        found.filter(|live| Some(&live.uid) == self.pod.uid().as_ref())
    }

    /// The pod is deleted: its containers end, then its object.
    async fn end(&mut self) {
        self.stop_running(self.grace(), |name| format!("Stopping container {name}"))
            .await;
        self.facts.over = true;
        self.publish().await;
        self.drop_network();
        self.delete().await;
        self.wait_for_end().await;
    }

    async fn delete(&self) {
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), &self.pod.namespace().unwrap_or_default());
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: self.pod.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(&self.pod.name_any(), &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => tracing::warn!(%error, pod = self.pod.name_any(), "pod not deleted"),
        }
    }

    /// Nothing runs any more: when the object is to be deleted, it is.
    async fn wait_for_end(&mut self) {
        self.drop_network();
        loop {
            let current = self.updates.borrow_and_update().clone();
            match current {
                None => return,
                Some(pod) if pod.metadata.deletion_timestamp.is_some() => {
                    self.pod = pod;
                    self.delete().await;
                    // Finalizers hold it; what changes then is seen here.
                    tokio::select! {
                        changed = self.updates.changed() => if changed.is_err() { return },
                        () = tokio::time::sleep(Duration::from_secs(10)) => {}
                    }
                    continue;
                }
                Some(_) => {}
            }
            if self.updates.changed().await.is_err() {
                return;
            }
        }
    }

    /// Writes the status if it changed; false: to be tried again.
    async fn publish(&mut self) -> bool {
        if let Some(live) = self.live_entry() {
            let waiting = self.containers.iter().filter_map(|container| match &container.state {
                State::Waiting { reason, .. } => Some((container.spec.name.clone(), reason.clone())),
                _ => None,
            });
            *live.waiting.lock() = waiting.collect();
        }
        let status = status::status(&self.pod, &self.containers, &self.facts, Timestamp::now());
        let Ok(mut value) = serde_json::to_value(&status) else {
            return true;
        };
        if self.written.as_ref() == Some(&value) {
            return true;
        }
        let mut patch = serde_json::json!({"metadata": {"uid": self.pod.uid()}, "status": value});
        if let Some(addresses) = patch
            .pointer_mut("/status/podIPs")
            .and_then(serde_json::Value::as_array_mut)
        {
            // The addresses of an earlier sandbox would be kept beside the new one.
            addresses.insert(0, serde_json::json!({"$patch": "replace"}));
        }
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), &self.pod.namespace().unwrap_or_default());
        match api
            .patch_status(&self.pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch))
            .await
        {
            Ok(updated) => {
                // Its conditions keep their times from here on.
                let mut pod = Pod::clone(&self.pod);
                pod.status = updated.status;
                self.pod = Arc::new(pod);
                self.written = Some(value.take());
                true
            }
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
            Err(error) => {
                tracing::warn!(%error, pod = self.pod.name_any(), "status not written");
                false
            }
        }
    }
}

fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// What a node says of itself where a pod asks for limits that it does not have.
pub(crate) fn machine(node: &crate::config::NodeConfig) -> Place {
    let information = rustix::system::sysinfo();
    Place {
        node: node.name.clone(),
        host: node.address,
        address: None,
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        memory: information
            .totalram
            .saturating_mul(u64::from(information.mem_unit.max(1))),
    }
}
