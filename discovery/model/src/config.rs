//! What holds for the whole mesh.

use std::sync::Arc;
use std::time::Duration;

use mizzen_identity::{Namespace, TrustDomain};

use crate::route::RetryPolicy;

/// What happens to traffic for destinations that the mesh does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutboundPolicy {
    /// It goes where the application sent it.
    #[default]
    AllowAny,
    /// It is refused: 502 for HTTP, a closed connection otherwise.
    RegistryOnly,
}

/// Which program is the sidecar where a pod does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataPlane {
    /// Mizzen's own.
    #[default]
    Native,
    /// Envoy.
    Envoy,
}

/// How access log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessLogEncoding {
    /// Text.
    #[default]
    Text,
    /// JSON objects.
    Json,
}

/// Where and how each request is logged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessLog {
    /// A path; `/dev/stdout` is standard output.
    pub path: Arc<str>,
    /// The encoding.
    pub encoding: AccessLogEncoding,
    /// The format in Envoy's command operators; the default format if none. For JSON, an object in JSON.
    pub format: Option<Arc<str>>,
}

/// What holds for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    /// The mesh's own namespace: policies there are for the whole mesh.
    pub root_namespace: Namespace,
    /// The trust domain of the identities.
    pub trust_domain: TrustDomain,
    /// Others that count as the same.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// The suffix of service names (`cluster.local`).
    pub cluster_domain: Arc<str>,
    /// The cluster's name in metrics.
    pub cluster_id: Arc<str>,
    /// What happens to unknown destinations.
    pub outbound_policy: OutboundPolicy,
    /// Use mutual TLS wherever both sides can and nobody said otherwise.
    pub auto_mtls: bool,
    /// How long a connection to an upstream may take.
    pub connect_timeout: Duration,
    /// How requests are tried again where a route does not say.
    pub retries: RetryPolicy,
    /// How long the first bytes are waited for before a connection counts as bytes (ports whose protocol nobody said,
    /// and permissive ports); zero waits for ever.
    pub protocol_detection_timeout: Duration,
    /// The access log, if any.
    pub access_log: Option<AccessLog>,
    /// The sidecar where a pod does not say.
    pub data_plane: DataPlane,
}

impl MeshConfig {
    /// The defaults, for a mesh that lives in that namespace.
    #[must_use]
    pub fn new(root_namespace: Namespace, trust_domain: TrustDomain) -> Self {
        Self {
            root_namespace,
            trust_domain,
            trust_domain_aliases: Vec::new(),
            cluster_domain: Arc::from("cluster.local"),
            cluster_id: Arc::from("Kubernetes"),
            outbound_policy: OutboundPolicy::AllowAny,
            auto_mtls: true,
            connect_timeout: Duration::from_secs(10),
            retries: RetryPolicy::default(),
            // Server-first protocols on ports without a name wait that long; Istio's own value before it became
            // unlimited, which stalled them for ever.
            protocol_detection_timeout: Duration::from_secs(5),
            access_log: None,
            data_plane: DataPlane::Native,
        }
    }
}
