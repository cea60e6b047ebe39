//! The native data plane from start to end.
//!
//! In: [`Settings`]. Out: a serving proxy and, at the end, an orderly exit. Control (identity, discovery, agent servers,
//! signals) runs on the calling thread; each worker has a thread of its own. Ready means: there is a certificate and
//! discovery has said what comes in. While discovery is away later, what is known keeps being served.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use mizzen_ads::{Answer, Cache, Client, Node};
use mizzen_proxy_config::Kind;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::agent::{Admin, Agent, AgentConfig, DataPlane};
use crate::capture::{Entrance, INBOUND};
use crate::footprint;
use crate::identity::{Identity, IdentityConfig};
use crate::listen::{self, Crew};
use crate::log_writer::LogWriter;
use crate::metadata;
use crate::plan::OUTBOUND;
use crate::settings::{Role, Settings};
use crate::svid::SvidStore;
use crate::telemetry::{Telemetry, Workload};
use crate::upstream::mark_sockets;
use crate::worker::{Phase, Shared, Worker};

/// Stack of a worker; only touched pages count.
const STACK: usize = 1024 * 1024;
/// Downstream connections at once: beyond it memory is in danger before throughput is.
const CONNECTIONS: usize = 20_000;
/// What may still take place between the end of draining and the end of the process.
const LAST: Duration = Duration::from_millis(300);
/// How long the end of the process waits for a reader of the access log.
const LOG_END: Duration = Duration::from_secs(1);

/// Changes and tells the log level.
pub type LogLevel = Box<dyn Fn(Option<&str>) -> Result<String, String> + Send + Sync>;

/// Running workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Binds the sockets and starts a thread per worker. Accepting begins at once; connections wait for what is not known yet.
    pub fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let settings = &shared.settings;
        let mut sockets = Vec::new();
        if settings.role == Role::Sidecar {
            let at = |port| std::net::SocketAddr::new(settings.bind_all, port);
            sockets.push((listen::bind(at(settings.ports.outbound))?, Entrance::Outbound));
            sockets.push((listen::bind(at(settings.ports.inbound))?, Entrance::Inbound));
        }
        let mut crew = Crew::default();
        let mut threads = Vec::new();
        for index in 1..settings.workers {
            let (seat, shared) = (crew.seat(), shared.clone());
            threads.push(thread(index, move || async move {
                let mut phase = shared.phase.clone();
                let worker = Worker::start(shared);
                tokio::select! {
                    () = listen::work(worker, seat) => {}
                    _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
                }
                tokio::time::sleep(LAST).await;
            })?);
        }
        let shared = shared.clone();
        threads.push(thread(0, move || async move {
            let mut phase = shared.phase.clone();
            let gateway = shared.settings.role == Role::Router;
            let worker = Worker::start(shared);
            let crew = Rc::new(crew);
            for (socket, entrance) in sockets {
                // Inbound keeps accepting while it drains: other proxies learn only in a moment that this one goes.
                if let Err(error) = listen::accept(&worker, &crew, socket, entrance, Phase::Ended) {
                    tracing::error!(error = %error, "cannot accept connections");
                }
            }
            if gateway {
                tokio::task::spawn_local(listen::follow(worker.clone(), crew.clone()));
            }
            // The sender lives as long as the process.
            let _ended = phase.wait_for(|phase| *phase == Phase::Ended).await;
            tokio::time::sleep(LAST).await;
        })?);
        Ok(Self { threads })
    }

    /// Waits until all of them have ended.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

fn thread<F, Fut>(index: usize, run: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .stack_size(STACK)
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_io()
                .enable_time()
                // Only looking up host names blocks.
                .max_blocking_threads(4)
                .thread_stack_size(256 * 1024)
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(run()),
                Err(error) => tracing::error!(error = %error, "a worker cannot start"),
            }
        })
}

/// What the agent's servers see of this data plane.
struct Native {
    shared: Arc<Shared>,
    cache: Arc<Cache>,
    discovery: watch::Receiver<mizzen_ads::Status>,
    phase: watch::Sender<Phase>,
    quit: Notify,
    log_level: LogLevel,
    /// Whether it has been ready once.
    started: Once,
}

impl Native {
    fn missing(&self) -> Result<(), String> {
        let shared = &self.shared;
        if shared.svids.current().is_none() {
            return Err("no certificate yet".to_owned());
        }
        let known = match shared.settings.role {
            Role::Sidecar => matches!(self.cache.peek(Kind::Listener, INBOUND), Some(Answer::Present(_))),
            // A gateway without listeners is ready: there is nothing to serve.
            Role::Router => self.discovery.borrow().responses > 0,
        };
        if !known {
            let why = self.discovery.borrow().last_error.clone();
            return Err(why.map_or_else(
                || "discovery has not sent listeners yet".to_owned(),
                |why| format!("discovery has not sent listeners yet: {why}"),
            ));
        }
        if *shared.phase.borrow() == Phase::Ended {
            return Err("ending".to_owned());
        }
        Ok(())
    }
}

impl DataPlane for Native {
    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        let ready = self.missing();
        if ready.is_ok() {
            self.started.call_once(|| match footprint::give_back() {
                Ok(bytes) => tracing::debug!(bytes, "started: memory that only starting needed is given back"),
                Err(error) => tracing::debug!(error = %error, "memory that only starting needed is kept"),
            });
        }
        Box::pin(async move { ready })
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        let mut text = String::new();
        self.shared.telemetry.render(&mut text);
        discovery_metrics(&self.discovery.borrow(), &self.cache, &mut text);
        Box::pin(async move { text })
    }

    fn drain(&self) {
        drain(&self.phase);
    }

    fn quit(&self) {
        self.quit.notify_one();
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }
}

fn drain(phase: &watch::Sender<Phase>) {
    phase.send_if_modified(|phase| {
        let running = *phase == Phase::Running;
        if running {
            *phase = Phase::Draining;
        }
        running
    });
}

fn discovery_metrics(status: &mizzen_ads::Status, cache: &Cache, out: &mut String) {
    use std::fmt::Write as _;
    let all: u64 = Kind::ALL.iter().map(|kind| cache.len(*kind) as u64).sum();
    for (name, kind, help, value) in [
        (
            "mizzen_proxy_discovery_connected",
            "gauge",
            "A stream to discovery is open.",
            u64::from(status.connected),
        ),
        (
            "mizzen_proxy_discovery_connects_total",
            "counter",
            "Streams opened to discovery.",
            status.connects,
        ),
        (
            "mizzen_proxy_discovery_rejected_total",
            "counter",
            "Resources refused.",
            status.rejected,
        ),
        ("mizzen_proxy_discovery_names", "gauge", "Names subscribed to.", all),
        (
            "mizzen_proxy_discovery_names_overflow_total",
            "counter",
            "Names not asked for.",
            cache.overflows(),
        ),
    ] {
        let _infallible = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
}

impl Admin for Native {
    fn config_dump(&self) -> String {
        let mut configs = Vec::new();
        for kind in Kind::ALL {
            for (name, answer) in self.cache.dump(kind) {
                let (state, resource) = match answer {
                    Answer::Present(resource) => ("present", Some(format!("{resource:?}"))),
                    Answer::Absent => ("absent", None),
                    Answer::Requested => ("requested", None),
                };
                configs.push(serde_json::json!({
                    "kind": kind.as_str(), "name": &*name, "state": state, "resource": resource,
                }));
            }
        }
        let svid = self.shared.svids.current();
        let certificate = svid.map(|svid| {
            serde_json::json!({
                "spiffe": &**svid.spiffe(),
                "not_after": humantime(svid.not_after()),
                "roots": svid.roots().len(),
            })
        });
        serde_json::json!({ "configs": configs, "certificate": certificate }).to_string()
    }

    fn stats(&self) -> String {
        let status = self.discovery.borrow();
        format!(
            "connections: {}\ndiscovery.connected: {}\ndiscovery.connects: {}\ndiscovery.rejected: {}\n",
            self.shared.connections.load(Ordering::Relaxed),
            u8::from(status.connected),
            status.connects,
            status.rejected
        )
    }

    fn draining(&self) -> bool {
        *self.shared.phase.borrow() != Phase::Running
    }

    fn log_level(&self, level: Option<&str>) -> Result<String, String> {
        (self.log_level)(level)
    }
}

fn humantime(at: std::time::SystemTime) -> String {
    time::OffsetDateTime::from(at)
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

/// Our own workload as labels and peers see it.
pub fn own_workload(settings: &Settings) -> Workload {
    let label = |name: &str| Arc::from(settings.labels.get(name).map_or("", String::as_str));
    Workload {
        name: Arc::from(settings.workload.as_str()),
        namespace: Arc::from(settings.namespace.as_str()),
        principal: Arc::from(""),
        app: label("app"),
        version: label("version"),
        cluster: Arc::from(settings.cluster.as_str()),
        canonical_service: Arc::from(settings.canonical_service()),
        canonical_revision: Arc::from(settings.canonical_revision()),
    }
}

fn node(settings: &Settings) -> Node {
    let metadata = [
        ("NAMESPACE", &settings.namespace),
        ("NAME", &settings.pod),
        ("SERVICE_ACCOUNT", &settings.service_account),
        ("CLUSTER_ID", &settings.cluster),
        ("INTERCEPTION_MODE", &settings.interception),
    ];
    Node {
        id: settings.node_id(),
        cluster: format!("{}.{}", settings.canonical_service(), settings.namespace),
        metadata: metadata
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect(),
        labels: settings.labels.clone(),
        on_demand: settings.role == Role::Sidecar,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn discovery(settings: &Settings) -> mizzen_ads::Settings {
    let address = if settings.discovery.contains("://") {
        settings.discovery.clone()
    } else {
        format!("https://{}", settings.discovery)
    };
    let mut client = mizzen_ads::Settings::new(address, settings.root_file.clone(), node(settings));
    client.token = Some(settings.token_file.clone());
    client
}

/// What all workers of a process share, with the identity and configuration from elsewhere.
pub fn shared(
    settings: Settings,
    svids: SvidStore,
    source: Arc<dyn crate::mesh::Source>,
) -> io::Result<(Arc<Shared>, watch::Sender<Phase>)> {
    let own = own_workload(&settings);
    let metadata = metadata::encode(&own);
    let telemetry = Arc::new(Telemetry::new(own));
    let log = LogWriter::start(io::stdout(), telemetry.log_overflow.clone())?;
    let (phase, phases) = watch::channel(Phase::Running);
    let shared = Shared {
        settings,
        svids,
        source,
        telemetry,
        log,
        phase: phases,
        metadata: metadata.into(),
        connections: AtomicUsize::new(0),
        connection_limit: CONNECTIONS,
    };
    Ok((Arc::new(shared), phase))
}

/// Runs the native data plane until a signal or the agent ends it.
pub fn native(settings: Settings, log_level: LogLevel) -> anyhow::Result<()> {
    if let Some(priority) = settings.socket_priority {
        mark_sockets(priority);
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_stack_size(256 * 1024)
        .build()?;
    runtime.block_on(control(settings, log_level))
}

/// Ends with the first signal that asks the process to end. Call it inside a tokio runtime.
pub fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn control(settings: Settings, log_level: LogLevel) -> anyhow::Result<()> {
    let svids = SvidStore::new();
    let identity = Identity::new(IdentityConfig::from(&settings), svids.clone());
    let identity_metrics = identity.metrics();
    let _identity = AbortOnDropHandle::new(tokio::spawn(identity.run()));

    let cache = Arc::new(Cache::default());
    match settings.role {
        Role::Sidecar => {
            cache.pin(Kind::Listener, INBOUND);
            cache.pin(Kind::Listener, OUTBOUND);
        }
        Role::Router => cache.want_all(Kind::Listener),
    }
    let client = Client::new(discovery(&settings), cache.clone());
    let status = client.status();
    let _discovery = AbortOnDropHandle::new(tokio::spawn(client.run()));

    let drain_time = settings.drain;
    let agent_config = AgentConfig::from(&settings);
    let (shared, phase) = shared(settings, svids.clone(), cache.clone())?;
    let workers = Workers::start(&shared)?;
    let plane = Arc::new(Native {
        shared: shared.clone(),
        cache,
        discovery: status,
        phase: phase.clone(),
        quit: Notify::new(),
        log_level,
        started: Once::new(),
    });
    let _agent = Agent::start(agent_config, plane.clone(), Some(identity_metrics)).await?;
    let _principal = AbortOnDropHandle::new(tokio::spawn(follow_principal(svids, shared.telemetry.clone())));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!(drain_s = drain_time.as_secs(), "terminated: draining"),
        _ = interrupt.recv() => tracing::info!(drain_s = drain_time.as_secs(), "interrupted: draining"),
        () = plane.quit.notified() => tracing::info!("asked to end: draining"),
    }
    drain(&phase);
    let gateway = shared.settings.role == Role::Router;
    tokio::select! {
        () = drained(&shared, drain_time, gateway) => {}
        _ = terminate.recv() => tracing::warn!("second signal: ending at once"),
        _ = interrupt.recv() => tracing::warn!("second signal: ending at once"),
    }
    phase.send_replace(Phase::Ended);
    let _joined = tokio::task::spawn_blocking(move || workers.join()).await;
    shared.log.close(LOG_END);
    Ok(())
}

/// Waits until the limit. A gateway without connections is done earlier; a sidecar is not: its application may still call out
/// while it ends.
async fn drained(shared: &Shared, limit: Duration, gateway: bool) {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if gateway && shared.connections.load(Ordering::Relaxed) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn follow_principal(svids: SvidStore, telemetry: Arc<Telemetry>) {
    let mut changes = svids.subscribe();
    loop {
        changes.mark_unchanged();
        if let Some(svid) = svids.current() {
            telemetry.set_principal(svid.spiffe().clone());
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
