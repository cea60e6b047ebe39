//! What the process is told at start: command line, environment and the downward-API files.
//!
//! In: `proxy sidecar|router` with the flags that injected pods carry, and the environment of the injection template.
//! Out: [`Settings`], checked once. It never reads the environment again afterwards.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

/// What the proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Beside an application: captures its inbound and outbound traffic.
    Sidecar,
    /// A gateway: serves the listeners that discovery names.
    Router,
}

/// Flags of `proxy`. Names are those of injected pods; what has no meaning here is accepted and ignored.
#[derive(Debug, Clone, clap::Args)]
pub struct ProxyArgs {
    /// Role of this proxy.
    #[arg(value_enum, default_value = "sidecar")]
    pub role: Role,
    /// DNS domain of the workload, `<namespace>.svc.<cluster domain>`.
    #[arg(long, default_value = "")]
    pub domain: String,
    /// Log level of the data plane.
    #[arg(long = "proxyLogLevel", default_value = "warning")]
    pub proxy_log_level: String,
    /// Log levels of Envoy's components (used when Envoy is the data plane).
    #[arg(long = "proxyComponentLogLevel", default_value = "")]
    pub proxy_component_log_level: String,
    /// Log level of the agent, `<scope>:<level>,…`.
    #[arg(long = "log_output_level", default_value = "default:info")]
    pub log_output_level: String,
    /// Worker threads; 0 or absent: from the CPU limit.
    #[arg(long)]
    pub concurrency: Option<usize>,
}

/// Why the settings do not make sense.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// An environment variable does not parse.
    #[error("environment variable {name}={value:?}: {reason}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What was expected.
        reason: String,
    },
}

/// Which program carries the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPlane {
    /// This process.
    Native,
    /// A supervised Envoy.
    Envoy,
}

/// Everything that is fixed for the life of the process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Sidecar or gateway.
    pub role: Role,
    /// Native or Envoy.
    pub data_plane: DataPlane,
    /// Flags as given.
    pub args: ProxyArgs,
    /// Pod name.
    pub pod: String,
    /// Pod namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// Address of the pod.
    pub ip: IpAddr,
    /// Cluster id (`Kubernetes` by default).
    pub cluster: String,
    /// Network id, may be empty.
    pub network: String,
    /// Trust domain.
    pub trust_domain: String,
    /// Name of the workload (deployment).
    pub workload: String,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Address of discovery, `host:port`.
    pub discovery: String,
    /// Address of the certificate authority, `host:port`.
    pub ca: String,
    /// Projected token for discovery and CA.
    pub token_file: PathBuf,
    /// Root certificate of discovery and CA.
    pub root_file: PathBuf,
    /// Requested life of a certificate.
    pub certificate_life: Duration,
    /// REDIRECT, TPROXY or NONE.
    pub interception: String,
    /// Worker threads, at least one.
    pub workers: usize,
    /// How long inbound connections may finish after SIGTERM.
    pub drain: Duration,
    /// Ports the process itself serves.
    pub ports: Ports,
    /// The priority by which the capture rules know this process's connections, where they cannot by its user.
    pub socket_priority: Option<u32>,
    /// `ISTIO_KUBE_APP_PROBERS` as given (JSON).
    pub app_probers: Option<String>,
    /// `ISTIO_PROMETHEUS_ANNOTATIONS` as given (JSON).
    pub prometheus_annotations: Option<String>,
    /// Whether the access log is written (on unless the mesh says otherwise).
    pub bind_all: IpAddr,
}

/// The fixed ports (mesh-wide constants; other values are for tests).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Captured outbound connections.
    pub outbound: u16,
    /// Captured inbound connections.
    pub inbound: u16,
    /// Admin on loopback.
    pub admin: u16,
    /// Agent: probes and merged metrics.
    pub status: u16,
    /// Readiness.
    pub health: u16,
    /// The proxy's own metrics.
    pub metrics: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ProxyConfig {
    discovery_address: Option<String>,
    concurrency: Option<usize>,
    termination_drain_duration: Option<String>,
    status_port: Option<u16>,
    proxy_admin_port: Option<u16>,
}

impl Settings {
    /// Reads flags, the environment through `variable`, and the downward-API files under their fixed paths.
    pub fn read(args: ProxyArgs, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let text = |name: &str, default: &str| {
            variable(name)
                .filter(|v| !v.is_empty())
                .unwrap_or_else(|| default.to_owned())
        };
        let config: ProxyConfig = match variable("PROXY_CONFIG").filter(|value| !value.trim().is_empty()) {
            None => ProxyConfig::default(),
            Some(value) => serde_json::from_str(&value).map_err(|error| SettingsError::Variable {
                name: "PROXY_CONFIG",
                reason: format!("expected JSON: {error}"),
                value,
            })?,
        };
        let namespace = text("POD_NAMESPACE", "default");
        let discovery = config
            .discovery_address
            .unwrap_or_else(|| "istiod.istio-system.svc:15012".to_owned());
        let labels_file = text("MIZZEN_LABELS_FILE", "/etc/istio/pod/labels");
        let port = |name: &'static str, default: u16| parsed(variable, name, "expected a port", default);
        let cpu_limit: usize = parsed(variable, "ISTIO_CPU_LIMIT", "expected a whole number of CPUs", 1)?;
        let limited = if variable("ISTIO_CPU_LIMIT_SET").is_some_and(|set| set == "false") {
            1
        } else {
            cpu_limit
        };
        let workers = args
            .concurrency
            .or(config.concurrency)
            .filter(|n| *n > 0)
            .unwrap_or(limited)
            .clamp(1, 16);
        let drain = config
            .termination_drain_duration
            .as_deref()
            .and_then(duration)
            .unwrap_or(Duration::from_secs(5));
        let ports = Ports {
            outbound: port("MIZZEN_OUTBOUND_PORT", 15001)?,
            inbound: port("MIZZEN_INBOUND_PORT", 15006)?,
            admin: port("MIZZEN_ADMIN_PORT", config.proxy_admin_port.unwrap_or(15000))?,
            status: port("MIZZEN_STATUS_PORT", config.status_port.unwrap_or(15020))?,
            health: port("MIZZEN_HEALTH_PORT", 15021)?,
            metrics: port("MIZZEN_METRICS_PORT", 15090)?,
        };
        let ip: IpAddr = parsed(
            variable,
            "INSTANCE_IP",
            "expected an IP address",
            IpAddr::from([127, 0, 0, 1]),
        )?;
        Ok(Self {
            role: args.role,
            data_plane: match text("MIZZEN_DATA_PLANE", "native").as_str() {
                "envoy" => DataPlane::Envoy,
                _ => DataPlane::Native,
            },
            pod: text("POD_NAME", "unknown"),
            service_account: text("SERVICE_ACCOUNT", "default"),
            ip,
            cluster: text("ISTIO_META_CLUSTER_ID", "Kubernetes"),
            network: text("ISTIO_META_NETWORK", ""),
            trust_domain: text("TRUST_DOMAIN", "cluster.local"),
            workload: text("ISTIO_META_WORKLOAD_NAME", "unknown"),
            labels: labels(Path::new(&labels_file)),
            ca: text("CA_ADDR", &discovery),
            token_file: text("MIZZEN_TOKEN_FILE", "/var/run/secrets/tokens/istio-token").into(),
            root_file: text("MIZZEN_ROOT_FILE", "/var/run/secrets/istio/root-cert.pem").into(),
            certificate_life: duration(&text("SECRET_TTL", "24h")).unwrap_or(Duration::from_secs(24 * 3600)),
            interception: text("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
            workers,
            drain,
            ports,
            socket_priority: match variable("MIZZEN_SOCKET_PRIORITY").is_some_and(|value| !value.is_empty()) {
                true => Some(parsed(variable, "MIZZEN_SOCKET_PRIORITY", "expected 1 to 6", 0)?),
                false => None,
            },
            app_probers: variable("ISTIO_KUBE_APP_PROBERS").filter(|v| !v.is_empty()),
            prometheus_annotations: variable("ISTIO_PROMETHEUS_ANNOTATIONS").filter(|v| !v.is_empty()),
            bind_all: if ip.is_ipv6() {
                IpAddr::from([0u16; 8])
            } else {
                IpAddr::from([0, 0, 0, 0])
            },
            namespace,
            discovery,
            args,
        })
    }

    /// The node id of xDS: `sidecar~<ip>~<pod>.<namespace>~<domain>`.
    pub fn node_id(&self) -> String {
        let kind = match self.role {
            Role::Sidecar => "sidecar",
            Role::Router => "router",
        };
        let domain = if self.args.domain.is_empty() {
            format!("{}.svc.cluster.local", self.namespace)
        } else {
            self.args.domain.clone()
        };
        format!("{kind}~{}~{}.{}~{domain}", self.ip, self.pod, self.namespace)
    }

    /// The canonical service of this workload: label, else app labels, else the workload's name.
    pub fn canonical_service(&self) -> &str {
        ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]
            .iter()
            .find_map(|key| self.labels.get(*key))
            .map_or(&self.workload, String::as_str)
    }

    /// The canonical revision of this workload: label, else version labels, else `latest`.
    pub fn canonical_revision(&self) -> &str {
        [
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ]
        .iter()
        .find_map(|key| self.labels.get(*key))
        .map_or("latest", String::as_str)
    }
}

fn parsed<T: std::str::FromStr>(
    variable: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    reason: &str,
    default: T,
) -> Result<T, SettingsError> {
    match variable(name).filter(|value| !value.is_empty()) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|_| SettingsError::Variable {
            name,
            value: value.clone(),
            reason: reason.to_owned(),
        }),
    }
}

/// Go-style durations as mesh configuration writes them: `1h30m`, `5s`, `250ms`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" | "µs" => 0.000_001,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = next;
    }
    Some(total)
}

/// The downward API writes one `key="value"` per line.
fn labels(file: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            Some((key.to_owned(), value.trim_matches('"').to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ProxyArgs {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: ProxyArgs,
        }
        <Cli as clap::Parser>::parse_from(["proxy", "sidecar", "--domain", "shop.svc.cluster.local"]).args
    }

    #[test]
    fn environment_of_an_injected_pod_is_understood() {
        let variable = |name: &str| {
            Some(match name {
                "POD_NAME" => "cart-1".to_owned(),
                "POD_NAMESPACE" => "shop".to_owned(),
                "INSTANCE_IP" => "10.1.2.3".to_owned(),
                "ISTIO_CPU_LIMIT" => "2".to_owned(),
                "PROXY_CONFIG" => {
                    r#"{"discoveryAddress":"istiod-basic.mesh.svc:15012","terminationDrainDuration":"7s"}"#.to_owned()
                }
                _ => return None,
            })
        };
        let settings = Settings::read(args(), &variable).unwrap();
        assert_eq!(
            settings.node_id(),
            "sidecar~10.1.2.3~cart-1.shop~shop.svc.cluster.local"
        );
        assert_eq!(settings.ca, "istiod-basic.mesh.svc:15012");
        assert_eq!((settings.workers, settings.drain), (2, Duration::from_secs(7)));
    }

    #[test]
    fn broken_variable_is_named() {
        let variable = |name: &str| (name == "INSTANCE_IP").then(|| "ten".to_owned());
        let error = Settings::read(args(), &variable).unwrap_err().to_string();
        assert_eq!(
            error,
            r#"environment variable INSTANCE_IP="ten": expected an IP address"#
        );
    }

    #[test]
    fn durations_as_the_mesh_configuration_writes_them() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("5"), None);
        assert_eq!(duration(""), None);
    }
}
