//! Envoy as the data plane: prepared, started, watched and ended by this process.
//!
//! In: [`EnvoyConfig`], the identity, a future that ends when the process shall. Out: a running Envoy with its bootstrap, its
//! stream to discovery (carried with the pod's token over a Unix socket, since Envoy cannot read a token that changes), its
//! certificates (from our own store over another), and its exit code. It never restarts Envoy: when Envoy ends, so does
//! this process, and the kubelet sees it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::agent::{Agent, AgentConfig, AgentError};
use crate::identity::{Identity, IdentityConfig};
use crate::settings::{Role, Settings};
use crate::svid::SvidStore;
use crate::telemetry::{Telemetry, Workload};

pub mod access_log;
mod admin;
mod bootstrap;
mod forward;
mod secrets;

pub use admin::EnvoyAdmin;
pub use bootstrap::bootstrap;

/// How long Envoy may take to end after SIGTERM before it is killed.
const END: Duration = Duration::from_secs(5);

/// The environment variable from which Envoy tells other proxies whose it is; discovery's listeners name it.
const PEER_METADATA: &str = "MIZZEN_PEER_METADATA";

/// Where things are and how Envoy is to run.
#[derive(Debug, Clone)]
pub struct EnvoyConfig {
    /// The program.
    pub binary: PathBuf,
    /// Where the bootstrap is written.
    pub bootstrap: PathBuf,
    /// Unix socket for Envoy's discovery stream.
    pub discovery_socket: PathBuf,
    /// Unix socket of the secret service.
    pub secret_socket: PathBuf,
    /// Who asks for a certificate, and where; also tells token and root for discovery.
    pub identity: IdentityConfig,
    /// `host:port` of discovery.
    pub discovery: String,
    /// xDS node, as JSON.
    pub node: serde_json::Value,
    /// Gateways drain all listeners, sidecars the inbound ones: the application may still need to call out.
    pub router: bool,
    /// Envoy's admin port on loopback.
    pub admin_port: u16,
    /// Whether the pod's addresses are IPv4 or IPv6.
    pub bind: IpAddr,
    /// Worker threads.
    pub workers: usize,
    /// How long running work may take after SIGTERM.
    pub drain: Duration,
    /// Envoy's log level.
    pub log_level: String,
    /// `component:level,…`; may be empty.
    pub component_log_level: String,
    /// Who we are, for metrics.
    pub workload: Workload,
    /// The agent's servers.
    pub agent: AgentConfig,
}

impl From<&Settings> for EnvoyConfig {
    fn from(settings: &Settings) -> Self {
        Self {
            binary: "/usr/local/bin/envoy".into(),
            bootstrap: "/etc/istio/proxy/envoy.json".into(),
            discovery_socket: "/etc/istio/proxy/XDS".into(),
            secret_socket: "/var/run/secrets/workload-spiffe-uds/socket".into(),
            identity: settings.into(),
            discovery: settings.discovery.clone(),
            node: bootstrap::node(settings),
            router: settings.role == Role::Router,
            admin_port: settings.ports.admin,
            bind: settings.bind_all,
            workers: settings.workers,
            drain: settings.drain,
            log_level: settings.args.proxy_log_level.clone(),
            component_log_level: settings.args.proxy_component_log_level.clone(),
            workload: crate::run::own_workload(settings),
            agent: settings.into(),
        }
    }
}

/// Why Envoy does not run.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// A file or socket cannot be made.
    #[error("{what} {path}: {source}; check the pod's volumes")]
    File {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("envoy {path}: cannot be started: {source}; use the image mizzen-proxy-envoy")]
    Start {
        /// The program.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The program cannot be watched.
    #[error("envoy: cannot be waited for: {0}")]
    Wait(io::Error),
    /// The agent's servers cannot start.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Runs Envoy until it ends or `shutdown` does, draining it then. The result is its exit code (128 + n after signal n), which the
/// process should end with. Needs a tokio runtime with I/O and time.
pub async fn run(config: EnvoyConfig, shutdown: impl Future<Output = ()>) -> Result<u8, EnvoyError> {
    let store = SvidStore::new();
    let identity = Identity::new(config.identity.clone(), store.clone());
    let metrics = identity.metrics();
    let _identity = AbortOnDropHandle::new(tokio::spawn(identity.run()));
    supervise(config, store, Some(metrics), shutdown).await
}

/// As [`run`], with an identity that somebody else keeps.
pub(crate) async fn supervise(
    config: EnvoyConfig,
    store: SvidStore,
    metrics: Option<Arc<crate::identity::IdentityMetrics>>,
    shutdown: impl Future<Output = ()>,
) -> Result<u8, EnvoyError> {
    let _discovery = forward::serve(&config, store.clone())?;
    let telemetry = Arc::new(Telemetry::new(config.workload.clone()));
    let _principal = AbortOnDropHandle::new(tokio::spawn(tell_principal(store.clone(), telemetry.clone())));
    let _secrets = secrets::serve(&config.secret_socket, store, telemetry.shard())?;
    let text = format!("{:#}\n", bootstrap(&config));
    std::fs::write(&config.bootstrap, text).map_err(|source| EnvoyError::File {
        what: "bootstrap",
        path: config.bootstrap.display().to_string(),
        source,
    })?;
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), config.admin_port);
    let admin = EnvoyAdmin::new(address, config.router, telemetry);
    let _agent = Agent::start(config.agent.clone(), admin.clone(), metrics).await?;
    let mut child = start(&config)?;
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            ended = child.wait() => {
                let status = ended.map_err(EnvoyError::Wait)?;
                tracing::error!(%status, "envoy ended by itself");
                return Ok(exit_code(status));
            }
            () = admin.drain_asked() => admin.drain_now().await,
            () = admin.quit_asked() => break,
            () = &mut shutdown => break,
        }
    }
    end(&config, &admin, child).await
}

/// Our own SPIFFE id is a label of every series as soon as it is known.
async fn tell_principal(store: SvidStore, telemetry: Arc<Telemetry>) {
    let svid = store.wait().await;
    telemetry.set_principal(svid.spiffe().clone());
}

fn start(config: &EnvoyConfig) -> Result<Child, EnvoyError> {
    let mut command = Command::new(&config.binary);
    command
        .env(PEER_METADATA, crate::metadata::encode(&config.workload))
        .arg("--config-path")
        .arg(&config.bootstrap)
        .args(["--log-level", &config.log_level])
        .args(["--concurrency", &config.workers.to_string()])
        .args(["--drain-time-s", &config.drain.as_secs().max(1).to_string()])
        .args(["--drain-strategy", "immediate"])
        .args([
            "--local-address-ip-version",
            if config.bind.is_ipv6() { "v6" } else { "v4" },
        ])
        // Two Envoys never share a pod, and hot restart would need shared memory.
        .arg("--disable-hot-restart");
    if !config.component_log_level.is_empty() {
        command.args(["--component-log-level", &config.component_log_level]);
    }
    // Its log goes where ours goes: standard output and error are inherited.
    command.kill_on_drop(true).spawn().map_err(|source| EnvoyError::Start {
        path: config.binary.display().to_string(),
        source,
    })
}

/// Drains, waits, ends.
async fn end(config: &EnvoyConfig, admin: &EnvoyAdmin, mut child: Child) -> Result<u8, EnvoyError> {
    tracing::info!(drain_s = config.drain.as_secs(), "draining envoy");
    admin.drain_now().await;
    tokio::select! {
        ended = child.wait() => return ended.map(exit_code).map_err(EnvoyError::Wait),
        () = sleep(config.drain) => {}
    }
    signal(&child, rustix::process::Signal::TERM);
    if let Ok(ended) = timeout(END, child.wait()).await {
        return ended.map(exit_code).map_err(EnvoyError::Wait);
    }
    tracing::warn!(limit_s = END.as_secs(), "envoy did not end, killing it");
    child.start_kill().map_err(EnvoyError::Wait)?;
    child.wait().await.map(exit_code).map_err(EnvoyError::Wait)
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in between; then there is nothing to do.
        let _ended = rustix::process::kill_process(pid, signal);
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// A Unix socket that only this user can open, in place of one that an earlier container left.
fn socket(what: &'static str, path: &std::path::Path) -> Result<tokio::net::UnixListener, EnvoyError> {
    let failed = |source: io::Error| EnvoyError::File {
        what,
        path: path.display().to_string(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(path).map_err(failed)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
