//! `spec.security`: identity, certificates and mutual TLS.

use super::schema::{section, words};

words! {
    /// Who signs workload certificates.
    CertificateAuthorityType {
        /// The control plane.
        Istiod,
        /// A signer elsewhere, by Istio's gRPC API.
        Custom,
        /// cert-manager.
        #[serde(rename = "cert-manager")]
        CertManager,
    }
    /// Where the control plane's key comes from.
    IstiodCertificateSignerType {
        /// It makes its own.
        SelfSigned,
        /// It is given in the Secret `cacerts`.
        PrivateKey,
    }
    /// Which token workloads show.
    IdentityType {
        /// The cluster's own.
        Kubernetes,
        /// One made for the mesh, with its own audience.
        ThirdParty,
    }
    /// Who issues the control plane's serving certificates.
    ControlPlaneCertProvider {
        /// The control plane.
        Istiod,
        /// The cluster.
        Kubernetes,
        /// Somebody else.
        Custom,
    }
}

section! {
    /// Identity, certificates and mutual TLS.
    SecurityConfig {
        /// Trust domains.
        trust: TrustConfig,
        /// Who signs workload certificates.
        certificate_authority: CertificateAuthorityConfig,
        /// Which token workloads show.
        identity: IdentityConfig,
        /// The control plane's own connections.
        control_plane: ControlPlaneSecurityConfig,
        /// Connections between workloads.
        data_plane: DataPlaneSecurityConfig,
        /// Whether the operator makes NetworkPolicies; true when not said.
        manage_network_policy: bool,
        /// Certificates (PEM) that are trusted when keys for request tokens are fetched.
        #[serde(rename = "jwksResolverCA")]
        jwks_resolver_ca: String,
    }
    /// Trust domains.
    TrustConfig {
        /// The mesh's own; `cluster.local` when not said.
        domain: String,
        /// Others that count as the same.
        additional_domains: Vec<String>,
    }
    /// Who signs workload certificates.
    CertificateAuthorityConfig {
        /// Which signer.
        #[serde(rename = "type")]
        kind: CertificateAuthorityType,
        /// The control plane as the signer.
        istiod: IstiodCertificateAuthorityConfig,
        /// A signer elsewhere.
        custom: CustomCertificateAuthorityConfig,
        /// cert-manager as the signer.
        #[serde(rename = "cert-manager")]
        cert_manager: CertManagerConfig,
    }
    /// The control plane as the signer.
    IstiodCertificateAuthorityConfig {
        /// Where its key comes from.
        #[serde(rename = "type")]
        kind: IstiodCertificateSignerType,
        /// A key it makes itself.
        self_signed: SelfSignedConfig,
        /// A key it is given.
        private_key: PrivateKeyConfig,
        /// How long workload certificates live; 24h when not said.
        #[serde(rename = "workloadCertTTLDefault")]
        workload_cert_ttl_default: String,
        /// How long they may live when a workload asks for more; 90 days when not said.
        #[serde(rename = "workloadCertTTLMax")]
        workload_cert_ttl_max: String,
    }
    /// A root the control plane makes itself.
    SelfSignedConfig {
        /// How long it lives; ten years when not said.
        ttl: String,
        /// Which part of its life is left when it is renewed; 20% when not said.
        grace_period: String,
        /// How often that is checked; 1h when not said.
        check_period: String,
        /// Whether checks are spread in time; true when not said.
        enable_jitter: bool,
    }
    /// A key the control plane is given.
    PrivateKeyConfig {
        /// The directory it is mounted at; /etc/cacerts when not said.
        #[serde(rename = "rootCADir")]
        root_ca_dir: String,
    }
    /// A signer elsewhere.
    CustomCertificateAuthorityConfig {
        /// Its gRPC address.
        address: String,
    }
    /// cert-manager as the signer.
    CertManagerConfig {
        /// The address of its agent.
        address: String,
        /// The Secret with the control plane's certificate.
        pilot_secret_name: String,
        /// The ConfigMap with the root.
        #[serde(rename = "rootCAConfigMapName")]
        root_ca_config_map_name: String,
    }
    /// Which token workloads show.
    IdentityConfig {
        /// The kind of token.
        #[serde(rename = "type")]
        kind: IdentityType,
        /// Tokens made for the mesh.
        third_party: ThirdPartyIdentityConfig,
    }
    /// Tokens made for the mesh.
    ThirdPartyIdentityConfig {
        /// Who issues them.
        issuer: String,
        /// For whom; `istio-ca` when not said.
        audience: String,
    }
    /// The control plane's own connections.
    ControlPlaneSecurityConfig {
        /// Whether they use mutual TLS. They always do; `false` is refused.
        mtls: bool,
        /// Who issues the serving certificates.
        cert_provider: ControlPlaneCertProvider,
        /// TLS versions and ciphers.
        tls: ControlPlaneTlsConfig,
    }
    /// TLS versions and ciphers.
    ControlPlaneTlsConfig {
        /// Cipher suites.
        cipher_suites: Vec<String>,
        /// Curves.
        ecdh_curves: Vec<String>,
        /// The oldest version.
        min_protocol_version: String,
        /// The newest version.
        max_protocol_version: String,
    }
    /// Connections between workloads.
    DataPlaneSecurityConfig {
        /// Whether workloads refuse plain text, mesh-wide.
        mtls: bool,
        /// Whether workloads use mutual TLS with each other without being told; true when not said.
        automtls: bool,
    }
}
