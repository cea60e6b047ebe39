//! Gateways: what is let into the mesh, at which workloads.

use std::sync::Arc;

use mizzen_identity::Namespace;
use serde::Serialize;

use crate::host::Host;
use crate::name::{CredentialName, Labels, ObjectKey, PortName, Timestamp};

/// What is spoken at a gateway's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[expect(missing_docs, reason = "the variants are protocols")]
pub enum ServerProtocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    Https,
    Tls,
    Tcp,
    Mongo,
}

impl ServerProtocol {
    /// HTTP without TLS.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
}

/// Whose virtual services may bind to a server's host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum NamespaceFilter {
    /// Anyone's (`*/host`, or just `host`).
    Any,
    /// Those of this namespace (`ns/host`, or the gateway's own for `./host`).
    Only(Namespace),
}

/// A host that a server serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ServerHost {
    /// Whose virtual services may bind to it.
    pub namespace: NamespaceFilter,
    /// The host, perhaps a wildcard.
    pub host: Host,
}

/// How a gateway ends TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ServerTlsMode {
    /// Not at all: routed by SNI, undecrypted.
    Passthrough,
    /// With a certificate of the server's own.
    Simple,
    /// That, and the client needs one.
    Mutual,
    /// That, and the client may have one.
    OptionalMutual,
    /// Undecrypted, routed by the SNI that names a service (between meshes).
    AutoPassthrough,
    /// The mesh's mutual TLS.
    Mesh,
}

/// The TLS settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Answer plain HTTP with a redirect to https.
    pub https_redirect: bool,
    /// How TLS ends; none on a port that only redirects.
    pub mode: Option<ServerTlsMode>,
    /// The Secrets with certificates, in the gateway workload's namespace.
    pub credentials: Vec<CredentialName>,
    /// A certificate in the gateway's file system, where no Secret is named.
    pub certificate_file: Option<Arc<str>>,
    /// Its key.
    pub key_file: Option<Arc<str>>,
    /// The authorities that sign client certificates.
    pub ca_file: Option<Arc<str>>,
    /// Names of which a client's certificate must hold one; any if empty.
    pub subject_alt_names: Vec<Arc<str>>,
    /// The oldest TLS version, as Istio writes it (`TLSV1_2`).
    pub min_version: Option<Arc<str>>,
    /// The newest one.
    pub max_version: Option<Arc<str>>,
    /// The cipher suites, as OpenSSL names them.
    pub cipher_suites: Vec<Arc<str>>,
}

/// A port that a gateway listens on, for some hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name, where it has one.
    pub name: Option<Arc<str>>,
    /// The port's number, as clients of the gateway's service see it.
    pub port: u16,
    /// The port's name.
    pub port_name: Option<PortName>,
    /// What is spoken.
    pub protocol: ServerProtocol,
    /// The address it binds; any if none.
    pub bind: Option<std::net::IpAddr>,
    /// Its hosts; at least one.
    pub hosts: Vec<ServerHost>,
    /// Its TLS.
    pub tls: Option<ServerTls>,
}

/// A Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Which object.
    pub key: ObjectKey,
    /// When it was created: of two that want the same port and host the older one has it.
    pub created: Timestamp,
    /// The labels of the workloads that it configures, in any namespace; every gateway if empty.
    pub selector: Labels,
    /// What they listen on.
    pub servers: Vec<Server>,
}
