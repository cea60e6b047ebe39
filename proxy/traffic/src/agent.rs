//! What the pod's other inhabitants, the kubelet and Prometheus ask of the sidecar.
//!
//! In: the data plane behind [`DataPlane`] (this process's own or a supervised Envoy) and [`AgentConfig`]. Out: four small
//! HTTP servers: readiness (15021), agent (15020: readiness, application probes, merged metrics, drain and quit), the
//! proxy's own metrics (15090), admin (15000, loopback only). They never carry the application's traffic, answer only what
//! is listed here, and bound their connections, request sizes and times.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio_util::task::AbortOnDropHandle;

use crate::identity::IdentityMetrics;
use crate::settings::Settings;

mod admin;
pub(crate) mod dial;
mod merge;
mod probe;
mod request;
mod server;
mod status;

pub use merge::AgentMetrics;
pub use probe::{Prober, ProbersError, parse_probers};
pub use request::{RequestArgs, RequestError, request};

/// The data plane as the agent sees it.
pub trait DataPlane: Send + Sync + 'static {
    /// Whether traffic can be served; the error says what is missing.
    fn ready(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Its metrics as Prometheus text, without `# EOF`.
    fn metrics(&self) -> BoxFuture<'_, String>;

    /// Stop taking new inbound work; what runs may finish.
    fn drain(&self);

    /// End the process in order.
    fn quit(&self);

    /// What the admin port shows; `None` where the data plane has an admin port of its own.
    fn admin(&self) -> Option<&dyn Admin> {
        None
    }
}

/// What the admin port of the native data plane shows and does.
pub trait Admin: Send + Sync {
    /// All configuration in use, as JSON (an object).
    fn config_dump(&self) -> String;

    /// `name: value` lines.
    fn stats(&self) -> String;

    /// Whether [`DataPlane::drain`] was called.
    fn draining(&self) -> bool;

    /// Changes the log level where one is given (`trace`…`error`, `off`, or filter directives); says what is in force.
    fn log_level(&self, level: Option<&str>) -> Result<String, String>;
}

/// What the servers need to know.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Where readiness, agent and metrics are bound.
    pub bind: IpAddr,
    /// Readiness.
    pub health_port: u16,
    /// Agent.
    pub status_port: u16,
    /// The proxy's own metrics; `None` where nobody asks for them alone.
    pub metrics_port: Option<u16>,
    /// Admin on loopback; used only when the data plane has an [`Admin`].
    pub admin_port: u16,
    /// Where the application listens: the pod's address.
    pub app: IpAddr,
    /// `ISTIO_KUBE_APP_PROBERS`.
    pub probers: Option<String>,
    /// `ISTIO_PROMETHEUS_ANNOTATIONS`.
    pub scrape: Option<String>,
    /// xDS node id, shown by the admin port.
    pub node: String,
}

impl From<&Settings> for AgentConfig {
    fn from(settings: &Settings) -> Self {
        Self {
            bind: settings.bind_all,
            health_port: settings.ports.health,
            status_port: settings.ports.status,
            metrics_port: Some(settings.ports.metrics),
            admin_port: settings.ports.admin,
            app: settings.ip,
            probers: settings.app_probers.clone(),
            scrape: settings.prometheus_annotations.clone(),
            node: settings.node_id(),
        }
    }
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A port is taken or not allowed.
    #[error("{server} server: cannot listen on {address}: {source}")]
    Listen {
        /// Which server.
        server: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The probes of the application cannot be understood.
    #[error(transparent)]
    Probers(#[from] ProbersError),
    /// The scrape annotations cannot be understood.
    #[error("ISTIO_PROMETHEUS_ANNOTATIONS: {reason}")]
    Scrape {
        /// What is wrong.
        reason: String,
    },
}

/// State that the servers share.
struct Shared {
    plane: Arc<dyn DataPlane>,
    probers: std::collections::BTreeMap<String, Prober>,
    scrape: Option<merge::Scrape>,
    app: IpAddr,
    node: String,
    started: Instant,
    registry: Mutex<Registry>,
    metrics: AgentMetrics,
}

/// The running servers; they end when this is dropped.
#[derive(Debug)]
pub struct Agent {
    tasks: Vec<AbortOnDropHandle<()>>,
    addresses: Vec<(&'static str, SocketAddr)>,
}

impl Agent {
    /// Binds the ports and serves on the current runtime. `identity` adds its metrics to what is scraped.
    pub async fn start(
        config: AgentConfig,
        plane: Arc<dyn DataPlane>,
        identity: Option<Arc<IdentityMetrics>>,
    ) -> Result<Self, AgentError> {
        let mut registry = Registry::default();
        let metrics = AgentMetrics::default();
        metrics.register(&mut registry);
        if let Some(identity) = identity {
            identity.register(&mut registry);
        }
        let shared = Arc::new(Shared {
            probers: parse_probers(config.probers.as_deref())?,
            scrape: merge::Scrape::parse(config.scrape.as_deref())?,
            app: config.app,
            node: config.node,
            started: Instant::now(),
            registry: Mutex::new(registry),
            metrics,
            plane,
        });
        let mut agent = Self {
            tasks: Vec::new(),
            addresses: Vec::new(),
        };
        let everywhere = |port| SocketAddr::new(config.bind, port);
        agent
            .serve("readiness", everywhere(config.health_port), status::readiness, &shared)
            .await?;
        agent
            .serve("agent", everywhere(config.status_port), status::agent, &shared)
            .await?;
        if let Some(port) = config.metrics_port {
            agent
                .serve("metrics", everywhere(port), status::metrics, &shared)
                .await?;
        }
        if shared.plane.admin().is_some() {
            let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), config.admin_port);
            agent.serve("admin", loopback, admin::answer, &shared).await?;
        }
        Ok(agent)
    }

    /// Where a server (`readiness`, `agent`, `metrics`, `admin`) listens.
    pub fn address(&self, server: &str) -> Option<SocketAddr> {
        self.addresses
            .iter()
            .find(|(name, _)| *name == server)
            .map(|(_, address)| *address)
    }

    async fn serve(
        &mut self,
        name: &'static str,
        address: SocketAddr,
        handler: server::Handler,
        shared: &Arc<Shared>,
    ) -> Result<(), AgentError> {
        let (bound, task) = server::serve(address, handler, shared.clone())
            .await
            .map_err(|source| AgentError::Listen {
                server: name,
                address,
                source,
            })?;
        self.addresses.push((name, bound));
        self.tasks.push(task);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
