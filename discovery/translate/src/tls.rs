//! TLS: the mesh's own, between proxies, and what users ask for towards others.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use mizzen_model::{ClientTls, MeshConfig};

use crate::proto::{ZERO, any, boolean, duration, exactly, starting_with};

/// The workload's own certificate, at the proxy's secret service.
const OWN_CERTIFICATE: &str = "default";
/// The mesh's authorities, there.
const MESH_AUTHORITIES: &str = "ROOTCA";
/// The static cluster of Envoy's bootstrap that leads to the secret service on the pod's Unix socket.
const SECRET_SERVICE: &str = "sds-grpc";
/// Where distributions keep the authorities that the public trusts.
const PUBLIC_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What the client offers between sidecars.
pub(crate) const ALPN_HTTP1: &str = "istio-http/1.1";
pub(crate) const ALPN_HTTP2: &str = "istio-h2";
pub(crate) const ALPN_BYTES: &str = "istio";

const TLS: &str = "envoy.transport_sockets.tls";

pub(crate) fn raw() -> core::TransportSocket {
    socket("envoy.transport_sockets.raw_buffer", any(RawBuffer {}))
}

fn socket(name: &str, config: envoy_types::pb::google::protobuf::Any) -> core::TransportSocket {
    let config = core::transport_socket::ConfigType::TypedConfig(config);
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(config),
    }
}

fn secret(name: &str) -> tls::SdsSecretConfig {
    let service = core::grpc_service::EnvoyGrpc {
        cluster_name: SECRET_SERVICE.to_owned(),
        ..Default::default()
    };
    let service = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(service)),
        ..Default::default()
    };
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc.into(),
        transport_api_version: core::ApiVersion::V3.into(),
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    let source = core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        initial_fetch_timeout: duration(ZERO),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(source)),
        ..Default::default()
    };
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(source),
    }
}

/// Own certificate, the mesh's authorities, and one of those names in the peer's certificate.
fn mesh_context(names: Vec<tls::SubjectAltNameMatcher>, alpn: &[&str]) -> tls::CommonTlsContext {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_typed_subject_alt_names: names,
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(secret(MESH_AUTHORITIES)),
        ..Default::default()
    };
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13.into(),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(OWN_CERTIFICATE)],
        alpn_protocols: alpn.iter().map(|&name| name.to_owned()).collect(),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..Default::default()
    }
}

fn uri(matcher: matcher::StringMatcher) -> tls::SubjectAltNameMatcher {
    tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(matcher),
        ..Default::default()
    }
}

/// A client's side of the mesh's mutual TLS. The server must prove one of the identities; any of the mesh's if none
/// is known.
pub(crate) fn mesh_client(identities: &BTreeSet<String>, sni: String, alpn: &str) -> core::TransportSocket {
    let names = identities.iter().map(|id| uri(exactly(id))).collect();
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(mesh_context(names, &[alpn])),
        sni,
        ..Default::default()
    };
    socket(TLS, any(context))
}

/// A server's side: any client of this trust domain, or of one that counts as the same.
pub(crate) fn mesh_server(config: &MeshConfig) -> core::TransportSocket {
    let domains = std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases);
    let names = domains
        .map(|domain| uri(starting_with(&format!("spiffe://{domain}/"))))
        .collect();
    let context = tls::DownstreamTlsContext {
        // No application protocol is negotiated: the chain is chosen by what the client offers.
        common_tls_context: Some(mesh_context(names, &[])),
        require_client_certificate: boolean(true),
        ..Default::default()
    };
    socket(TLS, any(context))
}

/// Whether the server name has to be taken from each request.
pub(crate) fn follows_request(tls: &ClientTls) -> bool {
    matches!(
        tls,
        ClientTls::Simple { sni: None, .. } | ClientTls::Mutual { sni: None, .. }
    )
}

/// TLS to a server outside of the mesh; none where that is not asked for.
pub(crate) fn other_client(tls: &ClientTls, alpn: &[&str]) -> Option<core::TransportSocket> {
    let (sni, names, authorities, insecure, certificate) = match tls {
        ClientTls::Disable | ClientTls::Mesh { .. } => return None,
        ClientTls::Simple {
            sni,
            subject_alt_names,
            credential: _,
            ca_file,
            insecure_skip_verify,
        } => (sni, subject_alt_names, ca_file, *insecure_skip_verify, None),
        ClientTls::Mutual {
            sni,
            subject_alt_names,
            ca_file,
            insecure_skip_verify,
            certificate_file,
            key_file,
            ..
        } => {
            let certificate = certificate_file.as_ref().zip(key_file.as_ref());
            (sni, subject_alt_names, ca_file, *insecure_skip_verify, certificate)
        }
    };
    let validation = (!insecure).then(|| {
        let authorities = authorities.as_deref().unwrap_or(PUBLIC_AUTHORITIES);
        let validation = tls::CertificateValidationContext {
            trusted_ca: Some(file(authorities)),
            match_typed_subject_alt_names: names.iter().flat_map(any_name).collect(),
            ..Default::default()
        };
        tls::common_tls_context::ValidationContextType::ValidationContext(validation)
    });
    let certificates = certificate.map(|(chain, key)| tls::TlsCertificate {
        certificate_chain: Some(file(chain)),
        private_key: Some(file(key)),
        ..Default::default()
    });
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificates: certificates.into_iter().collect(),
            alpn_protocols: alpn.iter().map(|&name| name.to_owned()).collect(),
            validation_context_type: validation,
            ..Default::default()
        }),
        sni: sni.as_deref().unwrap_or_default().to_owned(),
        ..Default::default()
    };
    Some(socket(TLS, any(context)))
}

/// A name that users write without saying what kind it is.
fn any_name(name: &Arc<str>) -> [tls::SubjectAltNameMatcher; 2] {
    use tls::subject_alt_name_matcher::SanType;
    [SanType::Uri, SanType::Dns].map(|san_type| tls::SubjectAltNameMatcher {
        san_type: san_type.into(),
        matcher: Some(exactly(name)),
        ..Default::default()
    })
}

fn file(path: &str) -> core::DataSource {
    let specifier = core::data_source::Specifier::Filename(path.to_owned());
    core::DataSource {
        specifier: Some(specifier),
        ..Default::default()
    }
}
