//! What the control plane is told on its command line. What the operator decides about the mesh is not here but in the
//! mesh's ConfigMap, so that a change of it needs no new pod template.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args as ClapArgs;

/// Runs the control plane of one mesh: discovery, certificate authority and admission webhooks.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// The revision that this control plane serves: the name of its ServiceMeshControlPlane.
    #[arg(long, env = "REVISION", default_value = "basic")]
    pub revision: String,
    /// The mesh's own namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    pub namespace: String,
    /// The name under which this replica holds leases; the host name if not given.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// The trust domain, where the mesh's ConfigMap names none.
    #[arg(long, default_value = "cluster.local")]
    pub trust_domain: String,
    /// The DNS domain of the cluster, where the mesh's ConfigMap names none.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The cluster's name in metrics, where the mesh's ConfigMap gives none.
    #[arg(long, default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Where xDS and the certificate authority are served over TLS.
    #[arg(long, default_value = "0.0.0.0:15012")]
    pub secure_address: SocketAddr,
    /// Where xDS is served in plain text, for debugging: a loopback address (`127.0.0.1:15010`). Callers still need a token.
    #[arg(long)]
    pub plain_address: Option<SocketAddr>,
    /// Where the admission webhooks are served.
    #[arg(long, default_value = "0.0.0.0:15017")]
    pub webhook_address: SocketAddr,
    /// Where readiness and debugging are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub http_address: SocketAddr,
    /// Where metrics, version and debugging are served.
    #[arg(long, default_value = "0.0.0.0:15014")]
    pub monitoring_address: SocketAddr,
    /// How long workloads' certificates live, if they ask for nothing else (`24h`, `90s`).
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", default_value = "24h", value_parser = duration)]
    pub workload_cert_ttl: Duration,
    /// How long workloads' certificates live at most.
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", default_value = "2160h", value_parser = duration)]
    pub max_workload_cert_ttl: Duration,
    /// Streams that one replica serves at a time; more are told to try again.
    #[arg(long, default_value_t = 10_000)]
    pub max_streams: usize,
    /// Names that one stream may subscribe to.
    #[arg(long, default_value_t = 50_000)]
    pub max_subscriptions: usize,
    /// How long streams may take to end when the process is told to.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub drain: Duration,
    /// A kubeconfig; inside a cluster the pod's service account is used.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// `90s`, `1.5h`, `10m`, `100ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write a number and ms, s, m, h or d, for instance 24h");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        for bad in ["", "5", "h", "-1s", "5y"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
