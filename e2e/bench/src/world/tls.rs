//! Mutual TLS of the mesh, as clusters and chains ask for it.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::google::protobuf::Any;

use super::{any, boolean, seconds, texts};
use crate::place::{HOST, PORT, Side, TRUST_DOMAIN};
use matcher::string_matcher::MatchPattern;

const TLS: &str = "envoy.transport_sockets.tls";

pub(super) fn raw() -> core::TransportSocket {
    socket("envoy.transport_sockets.raw_buffer", any(RawBuffer {}))
}

pub(super) fn client() -> core::TransportSocket {
    let server = MatchPattern::Exact(Side::Server.identity());
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(context(server, &["istio-http/1.1"])),
        sni: format!("outbound_.{PORT}_._.{HOST}"),
        ..Default::default()
    };
    socket(TLS, any(context))
}

pub(super) fn server() -> core::TransportSocket {
    let anybody = MatchPattern::Prefix(format!("spiffe://{TRUST_DOMAIN}/"));
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(context(anybody, &[])),
        require_client_certificate: boolean(true),
        ..Default::default()
    };
    socket(TLS, any(context))
}

fn socket(name: &str, config: Any) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(config)),
    }
}

fn secret(name: &str) -> tls::SdsSecretConfig {
    let service = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
            core::grpc_service::EnvoyGrpc {
                cluster_name: "sds-grpc".to_owned(),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc.into(),
        transport_api_version: core::ApiVersion::V3.into(),
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            resource_api_version: core::ApiVersion::V3.into(),
            initial_fetch_timeout: seconds(0),
            config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(source)),
            ..Default::default()
        }),
    }
}

fn context(peer: MatchPattern, alpn: &[&str]) -> tls::CommonTlsContext {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let name = tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(matcher::StringMatcher {
            match_pattern: Some(peer),
            ..Default::default()
        }),
        ..Default::default()
    };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_typed_subject_alt_names: vec![name],
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(secret("ROOTCA")),
        ..Default::default()
    };
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13.into(),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret("default")],
        alpn_protocols: texts(alpn),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..Default::default()
    }
}
