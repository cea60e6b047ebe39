//! TLS contexts and transport sockets.

use super::Result;
use super::fields::{extension, flag, is_extension, missing, non_empty, out_of_range, unknown_extension, unsupported};
use super::matchers::string_match;
use crate::cluster::TransportSocket;
use crate::error::At;
use crate::listener::ChainTransport;
use crate::tls::{Certificate, DownstreamTls, Roots, SanMatch, TlsVersion, UpstreamTls, Validation};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::{raw_buffer::v3::RawBuffer, tls::v3 as pb};
use envoy_types::pb::google::protobuf::Any;
use std::sync::Arc;

fn typed<'a>(at: At<'_>, socket: &'a core::TransportSocket) -> Result<&'a Any> {
    match socket.config_type.as_ref() {
        Some(core::transport_socket::ConfigType::TypedConfig(any)) => Ok(any),
        None => Err(missing(at.field("typed_config"))),
    }
}

/// A cluster's transport; none is plain.
pub(super) fn upstream_socket(at: At<'_>, socket: Option<&core::TransportSocket>) -> Result<TransportSocket> {
    let Some(socket) = socket else {
        return Ok(TransportSocket::Raw);
    };
    let any = typed(at, socket)?;
    if is_extension::<RawBuffer>(any) {
        return Ok(TransportSocket::Raw);
    }
    let Some(tls) = extension::<pb::UpstreamTlsContext>(at, any)? else {
        return Err(unknown_extension(at, &any.type_url));
    };
    let common = tls.common_tls_context.unwrap_or_default();
    let at = at.field("common_tls_context");
    Ok(TransportSocket::Tls(Arc::new(UpstreamTls {
        sni: non_empty(&tls.sni),
        sni_from_authority: tls.auto_host_sni,
        alpn: alpn(&common),
        certificate: certificate(at, &common)?,
        validation: validation(at, &common)?,
        min_version: min_version(at, &common)?,
    })))
}

/// A filter chain's transport; none is raw.
pub(super) fn downstream_socket(at: At<'_>, socket: Option<&core::TransportSocket>) -> Result<ChainTransport> {
    let Some(socket) = socket else {
        return Ok(ChainTransport::Raw);
    };
    let any = typed(at, socket)?;
    if is_extension::<RawBuffer>(any) {
        return Ok(ChainTransport::Raw);
    }
    let Some(tls) = extension::<pb::DownstreamTlsContext>(at, any)? else {
        return Err(unknown_extension(at, &any.type_url));
    };
    let common = tls.common_tls_context.unwrap_or_default();
    let at = at.field("common_tls_context");
    let require_client_certificate = flag(tls.require_client_certificate, false);
    let validation = validation(at, &common)?;
    if require_client_certificate && validation.is_none() {
        // To accept any certificate at all where one is required would be no check.
        return Err(missing(at.field("validation_context")));
    }
    Ok(ChainTransport::Tls(Arc::new(DownstreamTls {
        certificate: certificate(at, &common)?.ok_or_else(|| missing(at.field("tls_certificates")))?,
        require_client_certificate,
        validation,
        alpn: alpn(&common),
        min_version: min_version(at, &common)?,
    })))
}

fn alpn(common: &pb::CommonTlsContext) -> Box<[Arc<str>]> {
    common.alpn_protocols.iter().map(|name| name.as_str().into()).collect()
}

/// TLS 1.2 is the oldest there is; a maximum below it cannot be served.
fn min_version(at: At<'_>, common: &pb::CommonTlsContext) -> Result<TlsVersion> {
    use pb::tls_parameters::TlsProtocol;
    let Some(params) = common.tls_params.as_ref() else {
        return Ok(TlsVersion::V1_2);
    };
    let at = at.field("tls_params");
    if matches!(
        params.tls_maximum_protocol_version(),
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11
    ) {
        return Err(out_of_range(
            at.field("tls_maximum_protocol_version"),
            "below TLS 1.2",
            "TLS 1.2 or TLS 1.3",
        ));
    }
    Ok(match params.tls_minimum_protocol_version() {
        TlsProtocol::TlSv13 => TlsVersion::V1_3,
        _ => TlsVersion::V1_2,
    })
}

fn certificate(at: At<'_>, common: &pb::CommonTlsContext) -> Result<Option<Certificate>> {
    if let Some(secret) = common.tls_certificate_sds_secret_configs.first() {
        let at = at.field("tls_certificate_sds_secret_configs");
        return Ok(Some(Certificate::Secret(
            non_empty(&secret.name)
                .map(crate::SecretName::new)
                .ok_or_else(|| missing(at.field("name")))?,
        )));
    }
    let Some(files) = common.tls_certificates.first() else {
        return Ok(None);
    };
    let at = at.field("tls_certificates");
    let chain = file(at.field("certificate_chain"), files.certificate_chain.as_ref())?;
    let key = file(at.field("private_key"), files.private_key.as_ref())?;
    match (chain, key) {
        (Some(chain), Some(key)) => Ok(Some(Certificate::Files { chain, key })),
        _ => Err(missing(at.field("certificate_chain and private_key"))),
    }
}

fn file(at: At<'_>, source: Option<&core::DataSource>) -> Result<Option<Arc<str>>> {
    match source.and_then(|source| source.specifier.as_ref()) {
        None => Ok(None),
        Some(core::data_source::Specifier::Filename(path)) => Ok(Some(path.as_str().into())),
        Some(_) => Err(unsupported(at, "a certificate or key inside the configuration")),
    }
}

#[expect(
    deprecated,
    reason = "certificate providers are deprecated and named only to be refused"
)]
fn validation(at: At<'_>, common: &pb::CommonTlsContext) -> Result<Option<Validation>> {
    use pb::common_tls_context::ValidationContextType as Raw;
    match common.validation_context_type.as_ref() {
        None => Ok(None),
        Some(Raw::ValidationContextSdsSecretConfig(secret)) => {
            let at = at.field("validation_context_sds_secret_config");
            Ok(Some(Validation {
                roots: roots_secret(at, secret)?,
                sans: Box::default(),
            }))
        }
        Some(Raw::ValidationContext(context)) => {
            let at = at.field("validation_context");
            match roots(at, context)? {
                Some(roots) => Ok(Some(Validation {
                    roots,
                    sans: sans(at, context)?,
                })),
                // Names without roots would compare what nobody vouches for.
                None if has_sans(context) => Err(missing(at.field("trusted_ca"))),
                None => Ok(None),
            }
        }
        Some(Raw::CombinedValidationContext(combined)) => {
            let at = at.field("combined_validation_context");
            let context = combined.default_validation_context.clone().unwrap_or_default();
            let roots = match combined.validation_context_sds_secret_config.as_ref() {
                Some(secret) => roots_secret(at.field("validation_context_sds_secret_config"), secret)?,
                None => roots(at.field("default_validation_context"), &context)?
                    .ok_or_else(|| missing(at.field("validation_context_sds_secret_config")))?,
            };
            Ok(Some(Validation {
                roots,
                sans: sans(at.field("default_validation_context"), &context)?,
            }))
        }
        Some(Raw::ValidationContextCertificateProvider(_) | Raw::ValidationContextCertificateProviderInstance(_)) => {
            Err(unsupported(at, "a certificate provider"))
        }
    }
}

fn roots_secret(at: At<'_>, secret: &pb::SdsSecretConfig) -> Result<Roots> {
    non_empty(&secret.name)
        .map(|name| Roots::Secret(crate::SecretName::new(name)))
        .ok_or_else(|| missing(at.field("name")))
}

fn roots(at: At<'_>, context: &pb::CertificateValidationContext) -> Result<Option<Roots>> {
    if !context.verify_certificate_hash.is_empty() || !context.verify_certificate_spki.is_empty() {
        return Err(unsupported(
            at.field("verify_certificate_hash"),
            "pinning a certificate",
        ));
    }
    if context.crl.is_some() {
        return Err(unsupported(at.field("crl"), "a revocation list"));
    }
    if let Some(path) = file(at.field("trusted_ca"), context.trusted_ca.as_ref())? {
        return Ok(Some(Roots::File(path)));
    }
    Ok(context.system_root_certs.as_ref().map(|_| Roots::System))
}

#[expect(deprecated, reason = "the old spelling of name matches is still valid in xDS v3")]
fn has_sans(context: &pb::CertificateValidationContext) -> bool {
    !context.match_typed_subject_alt_names.is_empty() || !context.match_subject_alt_names.is_empty()
}

#[expect(deprecated, reason = "the old spelling of name matches is still valid in xDS v3")]
fn sans(at: At<'_>, context: &pb::CertificateValidationContext) -> Result<Box<[SanMatch]>> {
    use pb::subject_alt_name_matcher::SanType;
    if !context.match_subject_alt_names.is_empty() {
        return Err(unsupported(
            at.field("match_subject_alt_names"),
            "untyped subject alternative names",
        ));
    }
    context
        .match_typed_subject_alt_names
        .iter()
        .enumerate()
        .map(|(i, san)| {
            let at = at.index("match_typed_subject_alt_names", i);
            let matcher = san.matcher.as_ref().ok_or_else(|| missing(at.field("matcher")))?;
            let matcher = string_match(at.field("matcher"), matcher)?;
            match san.san_type() {
                SanType::Uri => Ok(SanMatch::Uri(matcher)),
                SanType::Dns => Ok(SanMatch::Dns(matcher)),
                SanType::IpAddress => Ok(SanMatch::Ip(matcher)),
                _ => Err(unsupported(
                    at.field("san_type"),
                    "a name of another type than URI, DNS or IP",
                )),
            }
        })
        .collect()
}
