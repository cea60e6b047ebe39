//! Clusters.

use super::Result;
use super::endpoint::endpoint_set;
use super::fields::{
    duration, extension, flag, ip, limit, missing, non_empty, number, out_of_range, port, struct_text,
    unknown_extension, unsupported,
};
use super::tls::upstream_socket;
use crate::cluster::{
    BreakerLimits, Cluster, Discovery, LbPolicy, Outlier, RetryBudget, ServiceRef, SocketMatch, TcpKeepalive,
    TransportSocket, UpstreamProtocol,
};
use crate::error::{At, Problems};
use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as http_pb;
use envoy_types::pb::google::protobuf;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default connect timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's default idle timeout of upstream connections.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

pub(super) fn cluster(at: &At<'_>, raw: pb::Cluster, problems: &mut Problems) -> Result<Cluster> {
    let at = *at;
    if raw.name.is_empty() {
        return Err(missing(at.field("name")));
    }
    if raw.lb_subset_config.is_some() {
        return Err(unsupported(at.field("lb_subset_config"), "subsets by metadata"));
    }
    if raw.transport_socket_matcher.is_some() {
        return Err(unsupported(
            at.field("transport_socket_matcher"),
            "a transport socket matcher tree",
        ));
    }
    if !raw.filters.is_empty() {
        return Err(unsupported(at.field("filters"), "upstream network filters"));
    }
    let options = http_options(at, &raw)?;
    let common = options.common;
    let sockets = raw
        .transport_socket_matches
        .iter()
        .enumerate()
        .map(|(i, candidate)| socket_match(at.index("transport_socket_matches", i), candidate))
        .collect::<Result<_>>()?;
    let socket = upstream_socket(at.field("transport_socket"), raw.transport_socket.as_ref())?;
    let (service, subset) = service(raw.metadata.as_ref());
    let lb = lb_policy(at, &raw)?;
    let (breaker, breaker_high) = breakers(raw.circuit_breakers.as_ref());
    let outlier = match raw.outlier_detection.as_ref() {
        Some(outlier) => Some(outlier_detection(at.field("outlier_detection"), outlier)?),
        None => None,
    };
    let bind = match raw
        .upstream_bind_config
        .as_ref()
        .and_then(|bind| bind.source_address.as_ref())
    {
        Some(source) => Some(ip(
            at.field("upstream_bind_config").field("source_address"),
            &source.address,
        )?),
        None => None,
    };
    let keepalive = raw
        .upstream_connection_options
        .as_ref()
        .and_then(|options| options.tcp_keepalive.as_ref());
    Ok(Cluster {
        discovery: discovery(at, &raw, problems)?,
        lb,
        connect_timeout: limit(at.field("connect_timeout"), raw.connect_timeout, None)?.unwrap_or(CONNECT_TIMEOUT),
        breaker,
        breaker_high,
        outlier,
        panic_percent: panic_percent(raw.common_lb_config.as_ref()),
        locality_weighted: locality_weighted(raw.common_lb_config.as_ref()),
        protocol: options.protocol,
        sni_from_authority: options.sni_from_authority,
        san_from_authority: options.san_from_authority,
        max_requests_per_connection: max_requests(&raw)
            .or_else(|| number(common.max_requests_per_connection))
            .filter(|max| *max > 0),
        idle_timeout: limit(at.field("idle_timeout"), common.idle_timeout, Some(IDLE_TIMEOUT))?,
        tcp_keepalive: keepalive.map(|keepalive| TcpKeepalive {
            probes: number(keepalive.keepalive_probes),
            time: number(keepalive.keepalive_time).map(|seconds| Duration::from_secs(seconds.into())),
            interval: number(keepalive.keepalive_interval).map(|seconds| Duration::from_secs(seconds.into())),
        }),
        sockets,
        socket,
        bind,
        service,
        subset,
        name: raw.name.into(),
    })
}

fn discovery(at: At<'_>, raw: &pb::Cluster, problems: &mut Problems) -> Result<Discovery> {
    use pb::cluster::{ClusterDiscoveryType, DiscoveryType};
    let kind = match raw.cluster_discovery_type.as_ref() {
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind).map_err(|_| {
            out_of_range(
                at.field("type"),
                kind,
                "STATIC, STRICT_DNS, LOGICAL_DNS, EDS or ORIGINAL_DST",
            )
        })?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return Err(unknown_extension(at.field("cluster_type"), &custom.name));
        }
        None => DiscoveryType::Static,
    };
    // Without an assignment a cluster has no endpoints (`BlackHoleCluster`).
    let mut inline = || {
        let mut assignment = raw.load_assignment.clone().unwrap_or_default();
        if assignment.cluster_name.is_empty() {
            assignment.cluster_name.clone_from(&raw.name);
        }
        endpoint_set(&at.field("load_assignment"), assignment, problems).map(Arc::new)
    };
    Ok(match kind {
        DiscoveryType::Static => Discovery::Static(inline()?),
        DiscoveryType::StrictDns => Discovery::StrictDns(inline()?),
        DiscoveryType::LogicalDns => Discovery::LogicalDns(inline()?),
        DiscoveryType::Eds => {
            let named = raw
                .eds_cluster_config
                .as_ref()
                .and_then(|config| non_empty(&config.service_name));
            Discovery::Eds(named.map_or_else(|| raw.name.as_str().into(), crate::ClusterName::new))
        }
        DiscoveryType::OriginalDst => {
            let port = match raw.lb_config.as_ref() {
                Some(pb::cluster::LbConfig::OriginalDstLbConfig(config)) => {
                    if config.use_http_header || config.metadata_key.is_some() {
                        return Err(unsupported(
                            at.field("original_dst_lb_config"),
                            "a destination from a header or from metadata",
                        ));
                    }
                    number(config.upstream_port_override)
                        .filter(|value| *value > 0)
                        .map(|value| port(at.field("upstream_port_override"), value))
                        .transpose()?
                }
                _ => None,
            };
            Discovery::OriginalDst { port }
        }
    })
}

fn lb_policy(at: At<'_>, raw: &pb::Cluster) -> Result<LbPolicy> {
    use pb::cluster::{LbConfig, LbPolicy as Raw};
    if raw.load_balancing_policy.is_some() {
        return Err(unsupported(
            at.field("load_balancing_policy"),
            "an extensible load balancing policy",
        ));
    }
    let size = |at: At<'_>, value: Option<protobuf::UInt64Value>, default: u32| match value {
        None => Ok(default),
        Some(value) => u32::try_from(value.value)
            .ok()
            .filter(|size| (1..=8_388_608).contains(size))
            .ok_or_else(|| out_of_range(at, value.value, "1 to 8388608")),
    };
    Ok(match raw.lb_policy() {
        Raw::RoundRobin => LbPolicy::RoundRobin,
        Raw::Random => LbPolicy::Random,
        Raw::LeastRequest => LbPolicy::LeastRequest {
            choices: match raw.lb_config.as_ref() {
                Some(LbConfig::LeastRequestLbConfig(config)) => number(config.choice_count).unwrap_or(2).max(2),
                _ => 2,
            },
        },
        Raw::RingHash => match raw.lb_config.as_ref() {
            Some(LbConfig::RingHashLbConfig(config)) => LbPolicy::RingHash {
                min_size: size(at.field("minimum_ring_size"), config.minimum_ring_size, 1024)?,
                max_size: size(at.field("maximum_ring_size"), config.maximum_ring_size, 8_388_608)?,
            },
            _ => LbPolicy::RingHash {
                min_size: 1024,
                max_size: 8_388_608,
            },
        },
        Raw::Maglev => LbPolicy::Maglev {
            table_size: match raw.lb_config.as_ref() {
                Some(LbConfig::MaglevLbConfig(config)) => size(at.field("table_size"), config.table_size, 65_537)?,
                _ => 65_537,
            },
        },
        Raw::ClusterProvided => LbPolicy::OriginalDst,
        Raw::LoadBalancingPolicyConfig => {
            return Err(unsupported(
                at.field("lb_policy"),
                "an extensible load balancing policy",
            ));
        }
    })
}

fn breakers(raw: Option<&pb::CircuitBreakers>) -> (BreakerLimits, BreakerLimits) {
    let mut both = (BreakerLimits::default(), BreakerLimits::default());
    for threshold in raw.into_iter().flat_map(|raw| &raw.thresholds) {
        let default = BreakerLimits::default();
        let limits = BreakerLimits {
            connections: number(threshold.max_connections).unwrap_or(default.connections),
            pending: number(threshold.max_pending_requests).unwrap_or(default.pending),
            requests: number(threshold.max_requests).unwrap_or(default.requests),
            retries: number(threshold.max_retries).unwrap_or(default.retries),
            retry_budget: threshold.retry_budget.as_ref().map(|budget| RetryBudget {
                percent_hundredths: budget.budget_percent.map_or(2000, |percent| hundredths(percent.value)),
                least: number(budget.min_retry_concurrency).unwrap_or(3),
            }),
        };
        match threshold.priority() {
            core::RoutingPriority::Default => both.0 = limits,
            core::RoutingPriority::High => both.1 = limits,
        }
    }
    both
}

/// Percent as hundredths, from 0 to 100 %.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=10000 first"
)]
fn hundredths(percent: f64) -> u32 {
    (percent.clamp(0.0, 100.0) * 100.0) as u32
}

/// Envoy's default is 50 %.
fn panic_percent(raw: Option<&pb::cluster::CommonLbConfig>) -> u32 {
    raw.and_then(|raw| raw.healthy_panic_threshold)
        .map_or(50, |percent| hundredths(percent.value) / 100)
}

fn locality_weighted(raw: Option<&pb::cluster::CommonLbConfig>) -> bool {
    use pb::cluster::common_lb_config::LocalityConfigSpecifier;
    matches!(
        raw.and_then(|raw| raw.locality_config_specifier.as_ref()),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_))
    )
}

fn outlier_detection(at: At<'_>, raw: &pb::OutlierDetection) -> Result<Outlier> {
    // "Enforcing 0 %" is how counting is switched off; shares between are not done by chance here but rounded up.
    let enforced = |enforcing: Option<protobuf::UInt32Value>, default: u32| number(enforcing).unwrap_or(default) > 0;
    let count = |value: Option<protobuf::UInt32Value>| Some(number(value).unwrap_or(5)).filter(|count| *count > 0);
    let base = duration(at.field("base_ejection_time"), raw.base_ejection_time)?.unwrap_or(Duration::from_secs(30));
    Ok(Outlier {
        consecutive_5xx: count(raw.consecutive_5xx).filter(|_| enforced(raw.enforcing_consecutive_5xx, 100)),
        consecutive_gateway: count(raw.consecutive_gateway_failure)
            .filter(|_| enforced(raw.enforcing_consecutive_gateway_failure, 0)),
        consecutive_local_origin: count(raw.consecutive_local_origin_failure).filter(|_| {
            raw.split_external_local_origin_errors && enforced(raw.enforcing_consecutive_local_origin_failure, 100)
        }),
        split_local_origin: raw.split_external_local_origin_errors,
        interval: limit(at.field("interval"), raw.interval, None)?.unwrap_or(Duration::from_secs(10)),
        base_ejection_time: base,
        max_ejection_time: duration(at.field("max_ejection_time"), raw.max_ejection_time)?
            .unwrap_or(Duration::from_secs(300))
            .max(base),
        max_ejection_percent: number(raw.max_ejection_percent).unwrap_or(10).min(100),
        always_eject_one: flag(raw.always_eject_one_host, false),
    })
}

fn socket_match(at: At<'_>, raw: &pb::cluster::TransportSocketMatch) -> Result<SocketMatch> {
    let mut labels = Vec::new();
    for (name, value) in raw.r#match.iter().flat_map(|fields| &fields.fields) {
        match value.kind.as_ref() {
            Some(protobuf::value::Kind::StringValue(text)) => {
                labels.push((Arc::<str>::from(name.as_str()), Arc::<str>::from(text.as_str())));
            }
            _ => return Err(unsupported(at.named("match", name), "a label that is not text")),
        }
    }
    labels.sort();
    Ok(SocketMatch {
        name: raw.name.as_str().into(),
        labels: labels.into(),
        socket: match raw.transport_socket.as_ref() {
            Some(socket) => upstream_socket(at.field("transport_socket"), Some(socket))?,
            None => TransportSocket::Raw,
        },
    })
}

/// What a cluster speaks, and the options all its connections have.
struct HttpOptions {
    protocol: UpstreamProtocol,
    common: core::HttpProtocolOptions,
    sni_from_authority: bool,
    san_from_authority: bool,
}

#[expect(deprecated, reason = "the old place of the options is still valid in xDS v3")]
fn http_options(at: At<'_>, raw: &pb::Cluster) -> Result<HttpOptions> {
    use http_pb::http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig};
    const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let Some(any) = raw.typed_extension_protocol_options.get(KEY) else {
        let protocol = if raw.http2_protocol_options.is_some() {
            UpstreamProtocol::Http2
        } else {
            UpstreamProtocol::Http1
        };
        let upstream = raw.upstream_http_protocol_options.clone().unwrap_or_default();
        let (sni_from_authority, san_from_authority) = from_authority(at, &upstream)?;
        return Ok(HttpOptions {
            protocol,
            common: raw.common_http_protocol_options.unwrap_or_default(),
            sni_from_authority,
            san_from_authority,
        });
    };
    let at = at.field("typed_extension_protocol_options");
    let options =
        extension::<http_pb::HttpProtocolOptions>(at, any)?.ok_or_else(|| unknown_extension(at, &any.type_url))?;
    let protocol = match options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => UpstreamProtocol::Http2,
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                return Err(unsupported(at.field("http3_protocol_options"), "HTTP/3"));
            }
            Some(ProtocolConfig::HttpProtocolOptions(_)) | None => UpstreamProtocol::Http1,
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => UpstreamProtocol::UseDownstream,
        Some(UpstreamProtocolOptions::AutoConfig(_)) => UpstreamProtocol::Auto,
        None => return Err(missing(at.field("upstream_protocol_options"))),
    };
    let upstream = options.upstream_http_protocol_options.unwrap_or_default();
    let (sni_from_authority, san_from_authority) = from_authority(at, &upstream)?;
    Ok(HttpOptions {
        protocol,
        common: options.common_http_protocol_options.unwrap_or_default(),
        sni_from_authority,
        san_from_authority,
    })
}

/// Whether the request's authority is asked for in TLS, and whether the certificate must be for it.
fn from_authority(at: At<'_>, raw: &core::UpstreamHttpProtocolOptions) -> Result<(bool, bool)> {
    if !raw.override_auto_sni_header.is_empty() {
        return Err(unsupported(
            at.field("override_auto_sni_header"),
            "a server name from a header",
        ));
    }
    Ok((raw.auto_sni, raw.auto_san_validation))
}

#[expect(deprecated, reason = "the old place of the limit is still valid in xDS v3")]
fn max_requests(raw: &pb::Cluster) -> Option<u32> {
    number(raw.max_requests_per_connection)
}

/// The service and the subset that a cluster's metadata names.
pub(super) fn service(metadata: Option<&core::Metadata>) -> (Option<Arc<ServiceRef>>, Arc<str>) {
    use protobuf::value::Kind;
    let Some(istio) = metadata.and_then(|metadata| metadata.filter_metadata.get("istio")) else {
        return (None, "".into());
    };
    let service = match istio.fields.get("services").and_then(|value| value.kind.as_ref()) {
        Some(Kind::ListValue(list)) => list.values.first().and_then(|value| match value.kind.as_ref() {
            Some(Kind::StructValue(fields)) => Some(Arc::new(ServiceRef {
                host: struct_text(fields, "host").unwrap_or_default().into(),
                name: struct_text(fields, "name").unwrap_or_default().into(),
                namespace: struct_text(fields, "namespace").unwrap_or_default().into(),
            })),
            _ => None,
        }),
        _ => None,
    };
    (service, struct_text(istio, "subset").unwrap_or_default().into())
}
