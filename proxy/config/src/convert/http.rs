//! HTTP connection managers.

use super::Result;
use super::access_log::access_logs;
use super::fields::{
    flag, is_extension, limit, lower, missing, number, out_of_range, text_or, unknown_extension, unsupported,
};
use super::virtual_host::route_config;
use crate::error::{At, Problems};
use crate::listener::{
    ClientCertDetails, Codec, ForwardClientCert, HttpConnection, RouteSource, ServerHeader, StripPort,
};
use envoy_types::pb::envoy::extensions::filters::http as filter_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use pb::http_connection_manager as hcm;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default idle timeout of a connection.
const IDLE: Duration = Duration::from_secs(3600);
/// Envoy's default idle timeout of a request.
const STREAM_IDLE: Duration = Duration::from_secs(300);
/// Envoy's default drain time.
const DRAIN: Duration = Duration::from_secs(5);
/// Envoy's default limit of a request head, KiB.
const HEAD_KB: u32 = 60;

pub(super) fn http_connection(
    at: At<'_>,
    raw: pb::HttpConnectionManager,
    problems: &mut Problems,
) -> Result<HttpConnection> {
    refuse_what_would_be_ignored(at, &raw)?;
    let filters = filters(at, &raw.http_filters)?;
    let common = raw.common_http_protocol_options.unwrap_or_default();
    let details = raw.set_current_client_cert_details.unwrap_or_default();
    let head_kb = number(raw.max_request_headers_kb).unwrap_or(HEAD_KB);
    if !(1..=8192).contains(&head_kb) {
        return Err(out_of_range(at.field("max_request_headers_kb"), head_kb, "1 to 8192"));
    }
    Ok(HttpConnection {
        stat_prefix: raw.stat_prefix.as_str().into(),
        codec: match raw.codec_type() {
            hcm::CodecType::Auto => Codec::Auto,
            hcm::CodecType::Http1 => Codec::Http1,
            hcm::CodecType::Http2 => Codec::Http2,
            hcm::CodecType::Http3 => return Err(unsupported(at.field("codec_type"), "HTTP/3")),
        },
        access_logs: access_logs(at, &raw.access_log)?,
        client_cert: match raw.forward_client_cert_details() {
            hcm::ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
            hcm::ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
            hcm::ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
            hcm::ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
            hcm::ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
        },
        client_cert_details: ClientCertDetails {
            subject: flag(details.subject, false),
            cert: details.cert,
            chain: details.chain,
            dns: details.dns,
            uri: details.uri,
        },
        use_remote_address: flag(raw.use_remote_address, false),
        skip_xff_append: raw.skip_xff_append,
        xff_trusted_hops: raw.xff_num_trusted_hops,
        server_name: text_or(&raw.server_name, "envoy"),
        server_header: match raw.server_header_transformation() {
            hcm::ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
            hcm::ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
            hcm::ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
        },
        generate_request_id: flag(raw.generate_request_id, true),
        preserve_external_request_id: raw.preserve_external_request_id,
        request_id_in_response: raw.always_set_request_id_in_response,
        idle_timeout: limit(at.field("idle_timeout"), common.idle_timeout, Some(IDLE))?,
        stream_idle_timeout: limit(
            at.field("stream_idle_timeout"),
            raw.stream_idle_timeout,
            Some(STREAM_IDLE),
        )?,
        request_timeout: limit(at.field("request_timeout"), raw.request_timeout, None)?,
        request_headers_timeout: limit(at.field("request_headers_timeout"), raw.request_headers_timeout, None)?,
        max_connection_duration: limit(
            at.field("max_connection_duration"),
            common.max_connection_duration,
            None,
        )?,
        max_stream_duration: limit(at.field("max_stream_duration"), common.max_stream_duration, None)?,
        drain_timeout: limit(at.field("drain_timeout"), raw.drain_timeout, None)?.unwrap_or(DRAIN),
        max_request_head_bytes: head_kb.saturating_mul(1024),
        upgrades: raw
            .upgrade_configs
            .iter()
            .filter(|upgrade| flag(upgrade.enabled, true))
            .map(|upgrade| lower(&upgrade.upgrade_type))
            .collect(),
        normalize_path: flag(raw.normalize_path, false),
        merge_slashes: raw.merge_slashes,
        strip_port: match raw.strip_port_mode {
            Some(hcm::StripPortMode::StripAnyHostPort(true)) => StripPort::Any,
            _ if raw.strip_matching_host_port => StripPort::Matching,
            _ => StripPort::Keep,
        },
        fault_filter: filters.fault,
        cors_filter: filters.cors,
        accept_http_10: raw
            .http_protocol_options
            .as_ref()
            .is_some_and(|options| options.accept_http_10),
        max_concurrent_streams: raw
            .http2_protocol_options
            .as_ref()
            .and_then(|options| number(options.max_concurrent_streams)),
        routes: match raw.route_specifier {
            Some(hcm::RouteSpecifier::RouteConfig(config)) => {
                RouteSource::Inline(Arc::new(route_config(&at.field("route_config"), config, problems)?))
            }
            Some(hcm::RouteSpecifier::Rds(rds)) if rds.route_config_name.is_empty() => {
                return Err(missing(at.field("rds").field("route_config_name")));
            }
            Some(hcm::RouteSpecifier::Rds(rds)) => RouteSource::Named(rds.route_config_name.into()),
            Some(hcm::RouteSpecifier::ScopedRoutes(_)) => {
                return Err(unsupported(at.field("scoped_routes"), "a scoped route configuration"));
            }
            None => return Err(missing(at.field("route_specifier"))),
        },
    })
}

/// Settings that change what a request means: they may not be left out in silence.
fn refuse_what_would_be_ignored(at: At<'_>, raw: &pb::HttpConnectionManager) -> Result<()> {
    use hcm::PathWithEscapedSlashesAction as Slashes;
    if !raw.original_ip_detection_extensions.is_empty() || !raw.early_header_mutation_extensions.is_empty() {
        return Err(unsupported(
            at,
            "an extension that finds the client's address or changes headers early",
        ));
    }
    if !matches!(
        raw.path_with_escaped_slashes_action(),
        Slashes::ImplementationSpecificDefault | Slashes::KeepUnchanged
    ) {
        return Err(unsupported(
            at.field("path_with_escaped_slashes_action"),
            "a treatment of escaped slashes",
        ));
    }
    if raw
        .local_reply_config
        .as_ref()
        .is_some_and(|config| !config.mappers.is_empty() || config.body_format.is_some())
    {
        return Err(unsupported(
            at.field("local_reply_config"),
            "another form of local replies",
        ));
    }
    if raw.forward_client_cert_matcher.is_some() {
        return Err(unsupported(at.field("forward_client_cert_matcher"), "a matcher tree"));
    }
    Ok(())
}

#[derive(Default)]
struct Filters {
    fault: bool,
    cors: bool,
}

/// The HTTP filters: what is not known may be a policy and is refused, unless it is optional or off.
fn filters(at: At<'_>, raw: &[pb::HttpFilter]) -> Result<Filters> {
    let mut filters = Filters::default();
    let mut router = false;
    for (i, filter) in raw.iter().enumerate() {
        let at = at.index("http_filters", i);
        if router {
            return Err(unsupported(at, "a filter after the router"));
        }
        if filter.disabled {
            continue;
        }
        let any = match filter.config_type.as_ref() {
            Some(pb::http_filter::ConfigType::TypedConfig(any)) => any,
            _ if filter.is_optional => continue,
            Some(pb::http_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(unsupported(at.field("config_discovery"), "a discovered filter"));
            }
            None => return Err(missing(at.field("typed_config"))),
        };
        if is_extension::<filter_pb::router::v3::Router>(any) {
            router = true;
        } else if is_extension::<filter_pb::fault::v3::HttpFault>(any) {
            filters.fault = true;
        } else if is_extension::<filter_pb::cors::v3::Cors>(any) {
            filters.cors = true;
        } else if is_extension::<filter_pb::grpc_stats::v3::FilterConfig>(any)
            || is_extension::<filter_pb::on_demand::v3::OnDemand>(any)
        {
            // Statistics only, and what this proxy does by itself.
        } else if !filter.is_optional {
            return Err(unknown_extension(at, &any.type_url));
        }
    }
    if !router {
        return Err(missing(at.field("http_filters[router]")));
    }
    Ok(filters)
}
