//! Gateway: which ports a gateway workload opens, for which hosts, with which TLS.

use std::collections::BTreeMap;

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::ConfigStatus;

/// Opens ports at the edge of the mesh for the hosts it names; routes are bound to it by VirtualServices.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "Gateway",
    plural = "gateways",
    shortname = "gw",
    category = "istio-io",
    category = "networking-istio-io",
    namespaced,
    status = "ConfigStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Opens ports at the edge of the mesh for the hosts it names.",
    crates(kube_core = "kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// What is opened: one entry per port and set of hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Server>,
    /// Labels of the gateway pods that this applies to, in every namespace the control plane looks at unless it is told otherwise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
}

/// One open port.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// The port and what is spoken on it.
    pub port: Port,
    /// The address to listen on, or a Unix socket's path; all addresses of the pod when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
    /// Host names that are let in: `host`, `*.suffix`, `*`, or `namespace/host` to let only that namespace's routes bind (`.` is this namespace).
    pub hosts: Vec<String>,
    /// How TLS is terminated, or that it is passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTlsSettings>,
    /// A loopback address or Unix socket that traffic goes to when nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_endpoint: Option<String>,
    /// A name for this server, unique among all servers of the gateway workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A port of a gateway.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// The port's number, as clients of the gateway's service see it.
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    pub number: u32,
    /// What is spoken: HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, TCP or TLS.
    pub protocol: String,
    /// A label for the port.
    pub name: String,
    /// The port of the pod that the service's port leads to. No longer used: it follows from the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    pub target_port: Option<u32>,
}

/// TLS of a gateway's port.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(has(self.tlsCertificates) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
     "message": "only one of credentialNames or tlsCertificates can be set"},
    {"rule": "(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
     "message": "only one of credentialName or credentialNames can be set"},
    {"rule": "(has(self.credentialName) ? 1 : 0) + (has(self.tlsCertificates) ? 1 : 0) <= 1",
     "message": "only one of credentialName or tlsCertificates can be set"},
]))]
pub struct ServerTlsSettings {
    /// Answers every plain HTTP request with a redirect to HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_redirect: Option<bool>,
    /// Whether TLS is terminated here and whether clients must show a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ServerTlsMode>,
    /// Path of a file with the server's certificate chain, for SIMPLE and MUTUAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<String>,
    /// Path of a file with the server's private key, for SIMPLE and MUTUAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// Path of a file with the authorities that client certificates must come from, for MUTUAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
    /// Path of a file with revoked client certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_crl: Option<String>,
    /// Secret with the certificate and key (`tls.crt`, `tls.key`, and `ca.crt` for MUTUAL), in the gateway pod's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_name: Option<String>,
    /// Several secrets, for instance one with an RSA and one with an ECDSA key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2))]
    pub credential_names: Vec<String>,
    /// Secret with just the authorities that client certificates must come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_cert_credential_name: Option<String>,
    /// Several certificates from files, for instance one with an RSA and one with an ECDSA key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2))]
    pub tls_certificates: Vec<TlsCertificate>,
    /// Subject alternative names of which a client's certificate must carry one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
    /// Base64 SHA-256 hashes of public keys that client certificates may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify_certificate_spki: Vec<String>,
    /// Hexadecimal SHA-256 hashes of client certificates that are let in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verify_certificate_hash: Vec<String>,
    /// The oldest TLS version that is spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_protocol_version: Option<TlsProtocol>,
    /// The newest TLS version that is spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_protocol_version: Option<TlsProtocol>,
    /// Cipher suites that are offered; the proxy's own choice when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    /// Takes client certificates without checking who signed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// One certificate from files.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsCertificate {
    /// Path of a file with the certificate chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<String>,
    /// Path of a file with the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// Path of a file with the authorities that client certificates must come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
}

/// What a gateway does with TLS.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// The server name chooses the route; the encrypted bytes are passed on untouched.
    #[default]
    Passthrough,
    /// TLS ends here.
    Simple,
    /// TLS ends here and clients must show a certificate.
    Mutual,
    /// As PASSTHROUGH, with the destination encoded in the server name; for gateways between clusters.
    AutoPassthrough,
    /// As MUTUAL, with the mesh's own certificates.
    IstioMutual,
    /// TLS ends here and clients may show a certificate.
    OptionalMutual,
}

/// A TLS version.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
pub enum TlsProtocol {
    /// The proxy's choice.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// TLS 1.0.
    #[serde(rename = "TLSV1_0")]
    V1_0,
    /// TLS 1.1.
    #[serde(rename = "TLSV1_1")]
    V1_1,
    /// TLS 1.2.
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
