//! Istio's standard metrics for Envoy, which has none of its own: counted here from what it reports of every request.
//!
//! In: the streams of Envoy's gRPC access loggers, named [`INBOUND`] and [`OUTBOUND`]. Out: observations in the same
//! [`Shard`] that the native data plane counts in, so that names, labels and buckets are the same. Discovery configures the
//! loggers of Envoy's listeners so:
//! - cluster `sds-grpc` (this process), `log_name` one of the two names;
//! - custom tags [`SERVICES`] (cluster's metadata `istio`/`services`); of what goes out [`WORKLOAD`] (upstream host's
//!   metadata `istio`/`workload`) and [`PRINCIPAL`] (upstream's certificate); of what comes in [`PEER`] (what the client's
//!   proxy says of itself, taken out of the request);
//! - HTTP: request header `content-type`, response headers and trailers `grpc-status`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::certificate_properties::subject_alt_name::San;
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, ResponseFlags, TcpAccessLogEntry,
};
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::AccessLogService;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use parking_lot::Mutex;
use serde::Deserialize;
use tonic::{Request, Response, Status, Streaming};

use crate::info::namespace_of;
use crate::metadata;
use crate::telemetry::{Flags, Observation, PeerLabels, Protocol, Reporter, ServiceLabels, Shard, Workload};

/// Logger of what comes in.
pub const INBOUND: &str = "mizzen-inbound";
/// Logger of what goes out, and of gateways.
pub const OUTBOUND: &str = "mizzen-outbound";
/// Tag with the upstream's workload: `<workload>;<namespace>;<canonical name>;<canonical revision>;<cluster>`.
pub const WORKLOAD: &str = "workload";
/// Tag with the services of the cluster: a JSON list of objects with `host`, `name` and `namespace`.
pub const SERVICES: &str = "services";
/// Tag with the SPIFFE id that the upstream proved.
pub const PRINCIPAL: &str = "principal";
/// Tag with what the client's proxy says of itself, as [`metadata::decode`] reads it.
pub const PEER: &str = "peer";

/// Clients whose workload is remembered.
const CLIENTS: usize = 4_096;

/// The workloads of clients, by address and proven identity. The native proxy says whose it is in the first request of a
/// connection only, and what Envoy reports of the others does not say which connection that was.
#[derive(Default)]
pub(super) struct Clients(Mutex<HashMap<(IpAddr, Arc<str>), Workload>>);

impl Clients {
    /// The client's workload: what its proxy says now, or said before.
    fn workload(&self, address: Option<IpAddr>, principal: &Arc<str>, told: Option<Workload>) -> Option<Workload> {
        let key = (address?, principal.clone());
        let mut known = self.0.lock();
        let Some(told) = told else {
            return known.get(&key).cloned();
        };
        // Who comes back says it again: forgetting all costs labels of few requests.
        if known.len() >= CLIENTS && !known.contains_key(&key) {
            known.clear();
        }
        known.insert(key, told.clone());
        Some(told)
    }
}

/// The service that Envoy reports to.
pub(super) struct AccessLogs {
    pub(super) shard: Arc<Shard>,
    pub(super) clients: Arc<Clients>,
}

#[tonic::async_trait]
impl AccessLogService for AccessLogs {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut messages = request.into_inner();
        let mut reporter = None;
        while let Some(message) = messages.message().await? {
            // Only the first message of a stream says which logger it is.
            if let Some(identifier) = message.identifier {
                reporter = match identifier.log_name.as_str() {
                    INBOUND => Some(Reporter::Destination),
                    OUTBOUND => Some(Reporter::Source),
                    other => return Err(Status::invalid_argument(format!("unknown log {other:?}"))),
                };
            }
            let reporter = reporter.ok_or_else(|| Status::invalid_argument("the first message must name the log"))?;
            match message.log_entries {
                Some(LogEntries::HttpLogs(logs)) => {
                    logs.log_entry
                        .iter()
                        .for_each(|entry| http(&self.shard, &self.clients, reporter, entry));
                }
                Some(LogEntries::TcpLogs(logs)) => {
                    logs.log_entry
                        .iter()
                        .for_each(|entry| tcp(&self.shard, reporter, entry));
                }
                None => {}
            }
        }
        Ok(Response::new(StreamAccessLogsResponse::default()))
    }
}

/// Counts a request.
fn http(shard: &Shard, clients: &Clients, reporter: Reporter, entry: &HttpAccessLogEntry) {
    let (Some(common), Some(request), Some(response)) = (&entry.common_properties, &entry.request, &entry.response)
    else {
        return;
    };
    // A request is counted when it has ended.
    if !ended(common) {
        return;
    }
    let status = response.response_code.as_ref().map_or(0, |code| code.value);
    shard.request(&Observation {
        peer: shard.peer(labels(Some(clients), reporter, common)),
        protocol: protocol(
            &request.request_headers,
            &response.response_headers,
            &response.response_trailers,
        ),
        status: u16::try_from(status).unwrap_or(0),
        flags: common.response_flags.as_ref().map(flags).unwrap_or_default(),
        micros: micros(common),
        request_bytes: request.request_headers_bytes.saturating_add(request.request_body_bytes),
        response_bytes: response
            .response_headers_bytes
            .saturating_add(response.response_body_bytes),
    });
}

/// Counts a connection, at its end.
fn tcp(shard: &Shard, reporter: Reporter, entry: &TcpAccessLogEntry) {
    let Some(common) = entry.common_properties.as_ref().filter(|common| ended(common)) else {
        return;
    };
    let peer = shard.peer(labels(None, reporter, common));
    shard.tcp_opened(peer);
    if let Some(bytes) = &entry.connection_properties {
        shard.tcp_bytes(peer, bytes.received_bytes, bytes.sent_bytes);
    }
    shard.tcp_closed(peer, common.response_flags.as_ref().map(flags).unwrap_or_default());
}

/// Entries at the beginning and in between are not counted.
fn ended(common: &AccessLogCommon) -> bool {
    matches!(
        common.access_log_type(),
        AccessLogType::NotSet | AccessLogType::DownstreamEnd | AccessLogType::TcpConnectionEnd
    )
}

fn labels(clients: Option<&Clients>, reporter: Reporter, common: &AccessLogCommon) -> PeerLabels {
    let principal = proven(common);
    let mutual_tls = principal.is_some();
    let tag = |name| common.custom_tags.get(name).map(String::as_str).unwrap_or_default();
    let peer = match reporter {
        Reporter::Source => {
            let principal = Some(tag(PRINCIPAL)).filter(|told| told.starts_with("spiffe://"));
            Workload {
                principal: principal.unwrap_or_default().into(),
                ..upstream(tag(WORKLOAD))
            }
        }
        Reporter::Destination => {
            let told = metadata::decode(tag(PEER).as_bytes()).filter(|_| !tag(PEER).is_empty());
            match (principal, clients) {
                (None, _) => told.unwrap_or_default(),
                (Some(principal), None) => proven_workload(told, principal),
                (Some(principal), Some(clients)) => {
                    proven_workload(clients.workload(client(common), &principal, told), principal)
                }
            }
        }
    };
    PeerLabels {
        reporter,
        peer,
        service: service(common),
        mutual_tls,
    }
}

/// What the certificate proves counts more than what the peer says.
fn proven_workload(told: Option<Workload>, principal: Arc<str>) -> Workload {
    let told = told.unwrap_or_default();
    Workload {
        namespace: namespace_of(&principal).map_or(told.namespace, Arc::from),
        principal,
        ..told
    }
}

/// The client's address.
fn client(common: &AccessLogCommon) -> Option<IpAddr> {
    match common.downstream_direct_remote_address.as_ref()?.address.as_ref()? {
        Address::SocketAddress(address) => address.address.parse().ok(),
        _ => None,
    }
}

/// The SPIFFE id of the client's certificate.
fn proven(common: &AccessLogCommon) -> Option<Arc<str>> {
    let certificate = common.tls_properties.as_ref()?.peer_certificate_properties.as_ref()?;
    certificate.subject_alt_name.iter().find_map(|name| match &name.san {
        Some(San::Uri(uri)) if uri.starts_with("spiffe://") => Some(Arc::from(uri.as_str())),
        _ => None,
    })
}

fn upstream(text: &str) -> Workload {
    let mut parts = text.split(';').map(Arc::<str>::from);
    let mut next = || parts.next().unwrap_or_default();
    let (name, namespace, canonical_service, canonical_revision, cluster) = (next(), next(), next(), next(), next());
    Workload {
        name,
        namespace,
        cluster,
        app: canonical_service.clone(),
        version: canonical_revision.clone(),
        canonical_service,
        canonical_revision,
        ..Workload::default()
    }
}

#[derive(Deserialize)]
struct Service {
    #[serde(default)]
    host: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

/// From the cluster's metadata; without, from its name `outbound|<port>|<subset>|<host>`.
fn service(common: &AccessLogCommon) -> ServiceLabels {
    let tagged = common
        .custom_tags
        .get(SERVICES)
        .and_then(|text| serde_json::from_str::<Vec<Service>>(text).ok());
    if let Some(first) = tagged.and_then(|services| services.into_iter().next()) {
        return ServiceLabels {
            host: first.host.into(),
            name: first.name.into(),
            namespace: first.namespace.into(),
        };
    }
    let host = common.upstream_cluster.split('|').nth(3).unwrap_or_default();
    if host.is_empty() {
        // The clusters for everything else are services of that name, as with Istio.
        let name = common.upstream_cluster.as_str();
        let name = if name.contains('|') { "" } else { name };
        return ServiceLabels {
            host: Arc::from(""),
            name: name.into(),
            namespace: Arc::from(""),
        };
    }
    ServiceLabels {
        host: host.into(),
        name: host.into(),
        namespace: Arc::from(""),
    }
}

fn protocol(
    request: &HashMap<String, String>,
    response: &HashMap<String, String>,
    trailers: &HashMap<String, String>,
) -> Protocol {
    if !request
        .get("content-type")
        .is_some_and(|kind| kind.starts_with("application/grpc"))
    {
        return Protocol::Http;
    }
    let status = trailers.get("grpc-status").or_else(|| response.get("grpc-status"));
    Protocol::Grpc(status.and_then(|status| status.parse().ok()))
}

fn micros(common: &AccessLogCommon) -> u64 {
    let told = common
        .duration
        .as_ref()
        .or(common.time_to_last_downstream_tx_byte.as_ref());
    let duration = told.map(|told| {
        Duration::new(
            u64::try_from(told.seconds).unwrap_or(0),
            u32::try_from(told.nanos).unwrap_or(0),
        )
    });
    u64::try_from(duration.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

fn flags(told: &ResponseFlags) -> Flags {
    let known = [
        (told.no_healthy_upstream, Flags::NO_HEALTHY_UPSTREAM),
        (told.upstream_connection_failure, Flags::UPSTREAM_FAILURE),
        (told.upstream_overflow, Flags::OVERFLOW),
        (told.no_route_found, Flags::NO_ROUTE),
        (told.upstream_retry_limit_exceeded, Flags::RETRY_LIMIT),
        (told.no_cluster_found, Flags::NO_CLUSTER),
        (told.duration_timeout, Flags::DURATION_TIMEOUT),
        (told.downstream_connection_termination, Flags::DOWNSTREAM_GONE),
        (told.upstream_request_timeout, Flags::UPSTREAM_TIMEOUT),
        (told.local_reset, Flags::LOCAL_RESET),
        (told.upstream_remote_reset, Flags::UPSTREAM_RESET),
        (told.upstream_connection_termination, Flags::UPSTREAM_CLOSED),
        (told.delay_injected, Flags::DELAY_INJECTED),
        (told.fault_injected, Flags::FAULT_INJECTED),
        (told.stream_idle_timeout, Flags::IDLE_TIMEOUT),
        (told.downstream_protocol_error, Flags::DOWNSTREAM_PROTOCOL),
        (told.upstream_protocol_error, Flags::UPSTREAM_PROTOCOL),
        (told.unauthorized_details.is_some(), Flags::UNAUTHORIZED),
    ];
    let mut flags = Flags::NONE;
    for (_, flag) in known.into_iter().filter(|(set, _)| *set) {
        flags.add(flag);
    }
    flags
}

#[cfg(test)]
mod tests;
