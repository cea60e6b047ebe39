//! One task for each pod: it looks at the object and at what happened, asks [`state::next`], does that, and writes the status.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::env::{Place, Sources};
use super::start::{self, Start, StartError, hostname};
use super::state::{self, Container, Ended, Kind, State};
use super::status::{self, Facts};
use super::stop::{self, field};
use super::volumes::{self, Tokens};
use crate::exec::Running;
use crate::launch::Exit;
use crate::node::{Live, Node};
use crate::probe::{self, Finding, Target};
use crate::sandbox::{self, Namespaces};
use crate::services::Protocol;
use crate::{logs, pod::env};

/// How often config maps, secrets and tokens are looked at again.
const REFRESH: Duration = Duration::from_secs(30);
/// Kubelet's bounds for attempts to mount volumes.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(122);

pub(crate) struct Worker {
    node: Arc<Node>,
    pod: Arc<Pod>,
    updates: watch::Receiver<Option<Arc<Pod>>>,
    folder: PathBuf,
    containers: Vec<Container>,
    running: Vec<Option<Arc<Running>>>,
    probes: Vec<Option<JoinSet<()>>>,
    exits: (mpsc::Sender<(usize, i32, Exit)>, mpsc::Receiver<(usize, i32, Exit)>),
    findings: (
        mpsc::Sender<(usize, i32, Finding)>,
        mpsc::Receiver<(usize, i32, Finding)>,
    ),
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
                Some(pod) => self.pod = pod,
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

    /// Volumes, then the sandbox; an error is an event's reason and message.
    async fn set_up(&mut self) -> Result<(), (&'static str, String)> {
        self.mount().await?;
        if self.facts.address.is_none() {
            let (address, namespaces) = if self.host_network() {
                (self.node.config.address, None)
            } else {
                let failed = |error: &dyn std::fmt::Display| {
                    (
                        "FailedCreatePodSandBox",
                        format!("Failed to create pod sandbox: {error}"),
                    )
                };
                let address = self.node.allocate().map_err(|error| failed(&error))?;
                self.own_address = Some(address);
                let security = self
                    .pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.security_context.clone())
                    .unwrap_or_default();
                let sysctls = security
                    .sysctls
                    .into_iter()
                    .flatten()
                    .map(|one| (one.name, one.value))
                    .collect();
                let made = sandbox::create(&self.node.config, hostname(&self.pod), address, sysctls).await;
                let made = made.map_err(|error| {
                    self.node.release(address);
                    failed(&error)
                })?;
                self.publish_host_ports(address);
                (address, Some(made))
            };
            self.write_etc(address)
                .map_err(|error| ("FailedCreatePodSandBox", error.to_string()))?;
            self.facts.address = Some(address);
            self.namespaces = namespaces;
            if let Some(live) = self.live_entry() {
                live.namespaces.lock().clone_from(&self.namespaces);
            }
        }
        self.retry = FIRST_RETRY;
        Ok(())
    }

    fn enlist(&self) {
        let key = (self.pod.namespace().unwrap_or_default(), self.pod.name_any());
        let live = Live {
            uid: self.pod.uid().unwrap_or_default(),
            folder: self.folder.clone(),
            namespaces: parking_lot::Mutex::default(),
            waiting: parking_lot::Mutex::default(),
            names: self.containers.iter().map(|c| (c.kind, c.spec.name.clone())).collect(),
            containers: parking_lot::Mutex::default(),
        };
        self.node.registry.lock().insert(key, Arc::new(live));
    }

    fn live_entry(&self) -> Option<Arc<Live>> {
        let key = (self.pod.namespace().unwrap_or_default(), self.pod.name_any());
        let found = self.node.registry.lock().get(&key).cloned();
        found.filter(|live| Some(&live.uid) == self.pod.uid().as_ref())
    }

    async fn mount(&mut self) -> Result<(), (&'static str, String)> {
        let told = |name: &str, error: &dyn std::fmt::Display| {
            (
                "FailedMount",
                format!("MountVolume.SetUp failed for volume {name:?} : {error}"),
            )
        };
        let sources = Sources::fetch(&self.node.client, &self.pod).await;
        self.sources = sources.map_err(|error| ("FailedMount", format!("reading config maps and secrets: {error}")))?;
        let spec = self.pod.spec.clone().unwrap_or_default();
        let group = spec.security_context.as_ref().and_then(|context| context.fs_group);
        let group = group.and_then(|group| u32::try_from(group).ok());
        let mut mounted = BTreeMap::new();
        for volume in spec.volumes.iter().flatten() {
            let sources = volume
                .projected
                .iter()
                .flat_map(|projected| projected.sources.iter().flatten());
            for token in sources.filter_map(|source| source.service_account_token.clone()) {
                let key = (volume.name.clone(), token.path.clone());
                if self
                    .tokens
                    .get(&key)
                    .is_none_or(|(_, until)| *until <= Timestamp::now())
                {
                    let seconds = token.expiration_seconds.unwrap_or(3600);
                    let issued = self.token(token.audience, seconds).await;
                    self.tokens
                        .insert(key, issued.map_err(|error| told(&volume.name, &error))?);
                }
            }
            let tokens: Tokens = self
                .tokens
                .iter()
                .map(|(key, (token, _))| (key.clone(), token.clone()))
                .collect();
            let content = volumes::content(volume, &self.pod, &self.sources, &tokens, &self.place());
            let folder = self.folder.join("volumes").join(&volume.name);
            let ready = content.and_then(|content| volumes::set_up(&folder, &content, group));
            mounted.insert(volume.name.clone(), ready.map_err(|error| told(&volume.name, &error))?);
        }
        self.volumes = Some(mounted);
        Ok(())
    }

    /// A token for the pod's service account, and when to ask for the next: after 80 % of its life.
    async fn token(&self, audience: Option<String>, seconds: i64) -> Result<(String, Timestamp), String> {
        let account = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        let account = account.unwrap_or_else(|| "default".to_owned());
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audience.into_iter().collect(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(self.pod.name_any()),
                    uid: self.pod.uid(),
                }),
                expiration_seconds: Some(seconds),
            },
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> =
            Api::namespaced(self.node.client.clone(), &self.pod.namespace().unwrap_or_default());
        let issued = api
            .create_token_request(&account, &PostParams::default(), &request)
            .await;
        let status = issued
            .map_err(|error| format!("failed to fetch token: {error}"))?
            .status;
        let status = status.ok_or("failed to fetch token: the answer has none")?;
        let now = Timestamp::now();
        Ok((
            status.token,
            now + since(now, status.expiration_timestamp.0).mul_f64(0.8),
        ))
    }

    async fn refresh(&mut self) {
        if self.volumes.is_some()
            && let Err((reason, message)) = self.mount().await
        {
            self.tell(None, true, reason, message);
        }
    }

    fn write_etc(&self, address: Ipv4Addr) -> std::io::Result<()> {
        let folder = self.folder.join("etc");
        std::fs::create_dir_all(&folder)?;
        let spec = self.pod.spec.clone().unwrap_or_default();
        let name = hostname(&self.pod);
        let (namespace, domain) = (self.pod.namespace().unwrap_or_default(), &self.node.config.domain);
        let names = match &spec.subdomain {
            Some(subdomain) => format!("{name}.{subdomain}.{namespace}.svc.{domain}\t{name}"),
            None => name.clone(),
        };
        let mut hosts = format!(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{names}\n"
        );
        for alias in spec.host_aliases.iter().flatten() {
            hosts.push_str(&format!(
                "{}\t{}\n",
                alias.ip,
                alias.hostnames.clone().unwrap_or_default().join("\t")
            ));
        }
        std::fs::write(folder.join("hosts"), hosts)?;
        std::fs::write(folder.join("hostname"), format!("{name}\n"))?;
        let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
        let (mut servers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
        if policy != "None" {
            servers.push(self.node.config.gateway().to_string());
        }
        if policy.starts_with("ClusterFirst") {
            search = vec![
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.clone(),
            ];
            options.push("ndots:5".to_owned());
        }
        let more = spec.dns_config.unwrap_or_default();
        servers.extend(more.nameservers.unwrap_or_default());
        search.extend(more.searches.unwrap_or_default());
        for option in more.options.unwrap_or_default() {
            let name = option.name.unwrap_or_default();
            options.retain(|known| known.split(':').next() != Some(name.as_str()));
            options.push(
                option
                    .value
                    .map_or_else(|| name.clone(), |value| format!("{name}:{value}")),
            );
        }
        let mut text = String::new();
        if !search.is_empty() {
            text.push_str(&format!("search {}\n", search.join(" ")));
        }
        servers
            .iter()
            .for_each(|server| text.push_str(&format!("nameserver {server}\n")));
        if !options.is_empty() {
            text.push_str(&format!("options {}\n", options.join(" ")));
        }
        std::fs::write(folder.join("resolv.conf"), text)
    }

    fn publish_host_ports(&self, address: Ipv4Addr) {
        let ports = self
            .containers
            .iter()
            .flat_map(|container| container.spec.ports.iter().flatten());
        let mut all = self.node.stores.host_ports.lock();
        let mut changed = false;
        for port in ports {
            let number = port
                .host_port
                .and_then(|number| u16::try_from(number).ok())
                .filter(|number| *number > 0);
            let inner = u16::try_from(port.container_port).ok();
            if let (Some(number), Some(inner), Some(protocol)) =
                (number, inner, Protocol::parse(port.protocol.as_deref()))
            {
                all.insert((protocol, number), SocketAddrV4::new(address, inner));
                changed = true;
            }
        }
        drop(all);
        if changed {
            self.node.stores.touch();
        }
    }

    async fn start(&mut self, index: usize) {
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
    async fn after_start(&mut self, index: usize, running: Arc<Running>) {
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

    fn target(&self, index: usize, running: Arc<Running>) -> Option<Target> {
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

    fn no_image(&mut self, index: usize, reference: &str) {
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

    async fn exited(&mut self, index: usize, attempt: i32, exit: Exit) {
        let Some(running) = self.running.get_mut(index).and_then(Option::take) else {
            return;
        };
        if running.attempt != attempt {
            return;
        }
        if let Some(place) = self.probes.get_mut(index) {
            *place = None;
        }
        // What it wrote last is in its log before anybody is told that it ended.
        _ = tokio::time::timeout(Duration::from_secs(1), running.output.complete()).await;
        let killed_for_memory = running.cgroup.as_ref().is_some_and(|cgroup| {
            let events = std::fs::read_to_string(cgroup.join("memory.events")).unwrap_or_default();
            events
                .lines()
                .any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
        });
        if let Some(cgroup) = &running.cgroup {
            _ = std::fs::write(cgroup.join("cgroup.kill"), "1");
            _ = std::fs::remove_dir(cgroup);
        }
        let reason = match (killed_for_memory, exit.code) {
            (true, _) => "OOMKilled",
            (_, 0) => "Completed",
            _ => "Error",
        };
        let message = self.last_words(index, attempt, exit.code).await;
        self.ended(index, exit.code, reason, message);
    }

    async fn last_words(&self, index: usize, attempt: i32, code: i32) -> Option<String> {
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
    fn ended(&mut self, index: usize, code: i32, reason: &str, message: Option<String>) {
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

    async fn found(&mut self, index: usize, attempt: i32, finding: Finding) {
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

    fn all_running(&self) -> Vec<Arc<Running>> {
        self.running.iter().flatten().cloned().collect()
    }

    /// Ends what runs and takes note of how it ended.
    async fn stop_running(&mut self, grace: Duration, message: impl Fn(&str) -> String) {
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

    fn drop_network(&mut self) {
        self.namespaces = None;
        if let Some(live) = self.live_entry() {
            *live.namespaces.lock() = None;
            live.containers.lock().clear();
        }
        if let Some(address) = self.own_address.take() {
            let mut ports = self.node.stores.host_ports.lock();
            let before = ports.len();
            ports.retain(|_, backend| *backend.ip() != address);
            let changed = ports.len() != before;
            drop(ports);
            if changed {
                self.node.stores.touch();
            }
            sandbox::remove(address);
            self.node.release(address);
        }
    }

    fn clean_up(&mut self) {
        self.drop_network();
        let key = (self.pod.namespace().unwrap_or_default(), self.pod.name_any());
        let mut registry = self.node.registry.lock();
        if registry
            .get(&key)
            .is_some_and(|live| Some(&live.uid) == self.pod.uid().as_ref())
        {
            registry.remove(&key);
        }
        drop(registry);
        crate::node::remove_pod_folder(&self.folder);
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
        let patch = serde_json::json!({"metadata": {"uid": self.pod.uid()}, "status": value});
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

/// As Go writes durations: `10s`, `1m20s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

/// What a node says of itself where a pod asks for limits that it does not have.
pub(crate) fn machine(node: &crate::config::NodeConfig) -> Place {
    let information = rustix::system::sysinfo();
    env::Place {
        node: node.name.clone(),
        host: node.address,
        address: None,
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        memory: u64::from(information.totalram).saturating_mul(u64::from(information.mem_unit.max(1))),
    }
}
