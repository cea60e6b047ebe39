//! A discovery service and a secret service on a Unix socket, as one Envoy needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use discovery::aggregated_discovery_service_server as ads;
use discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::data::accesslog::v3 as log;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::service::accesslog::v3 as als;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server as sds;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use mizzen_model::Mesh;
use mizzen_translate::{Scope, TypeUrl, names, resource};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// What Envoy said to what it was given.
#[derive(Debug)]
pub enum Said {
    Accepted(String, BTreeSet<String>),
    Refused(String),
    /// A request that has ended: the log's name and the entry.
    Request(String, Box<log::HttpAccessLogEntry>),
    /// A connection that has ended.
    Connection(String, Box<log::TcpAccessLogEntry>),
}

#[derive(Clone)]
struct Served {
    mesh: Arc<Mesh>,
    scope: Scope,
    secrets: Arc<BTreeMap<String, Any>>,
    edit: Edit,
    said_tx: mpsc::Sender<Said>,
}

/// What is done to a resource before it is sent.
pub type Edit = Arc<dyn Fn(TypeUrl, Vec<u8>) -> Vec<u8> + Send + Sync>;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Served {
    fn resources(&self, url: &str, asked: &[String]) -> Vec<Any> {
        if url == SECRET {
            return asked
                .iter()
                .filter_map(|name| self.secrets.get(name).cloned())
                .collect();
        }
        let Some(of) = TypeUrl::parse(url) else {
            return Vec::new();
        };
        let wildcard = matches!(of, TypeUrl::Cluster | TypeUrl::Listener);
        let asked = if wildcard {
            names(&self.mesh, &self.scope, of)
        } else {
            asked.to_vec()
        };
        let found = asked
            .iter()
            .filter_map(|name| resource(&self.mesh, &self.scope, of, name));
        found
            .map(|found| Any {
                type_url: url.to_owned(),
                value: (self.edit)(of, found.body.to_vec()),
            })
            .collect()
    }

    fn answers(&self, mut asking: Streaming<DiscoveryRequest>) -> Answers<DiscoveryResponse> {
        let (answer_tx, answer_rx) = mpsc::channel(64);
        let served = self.clone();
        tokio::spawn(async move {
            let mut sent: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            while let Some(Ok(request)) = asking.next().await {
                let asked: BTreeSet<String> = request.resource_names.iter().cloned().collect();
                if let Some(error) = request.error_detail {
                    let _ = served.said_tx.send(Said::Refused(error.message)).await;
                    continue;
                }
                if !request.response_nonce.is_empty() {
                    let _ = served
                        .said_tx
                        .send(Said::Accepted(request.type_url.clone(), asked.clone()))
                        .await;
                }
                if sent.get(&request.type_url) == Some(&asked) {
                    continue;
                }
                sent.insert(request.type_url.clone(), asked);
                let answer = DiscoveryResponse {
                    version_info: "1".to_owned(),
                    nonce: "1".to_owned(),
                    resources: served.resources(&request.type_url, &request.resource_names),
                    type_url: request.type_url,
                    ..Default::default()
                };
                if answer_tx.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Box::pin(ReceiverStream::new(answer_rx))
    }
}

#[tonic::async_trait]
impl ads::AggregatedDiscoveryService for Served {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(Response::new(self.answers(request.into_inner())))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tonic::async_trait]
impl sds::SecretDiscoveryService for Served {
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Answers<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(Response::new(self.answers(request.into_inner())))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tonic::async_trait]
impl als::access_log_service_server::AccessLogService for Served {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<als::StreamAccessLogsMessage>>,
    ) -> Result<Response<als::StreamAccessLogsResponse>, Status> {
        use als::stream_access_logs_message::LogEntries;
        let mut messages = request.into_inner();
        let mut name = String::new();
        while let Some(message) = messages.message().await? {
            if let Some(identifier) = message.identifier {
                name = identifier.log_name;
            }
            let said: Vec<Said> = match message.log_entries {
                Some(LogEntries::HttpLogs(logs)) => logs
                    .log_entry
                    .into_iter()
                    .map(|entry| Said::Request(name.clone(), Box::new(entry)))
                    .collect(),
                Some(LogEntries::TcpLogs(logs)) => logs
                    .log_entry
                    .into_iter()
                    .map(|entry| Said::Connection(name.clone(), Box::new(entry)))
                    .collect(),
                None => Vec::new(),
            };
            for said in said {
                let _ = self.said_tx.send(said).await;
            }
        }
        Ok(Response::new(als::StreamAccessLogsResponse::default()))
    }
}

/// The authority of a mesh.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = root.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(root, key),
            root: pem,
        }
    }

    /// What a workload of that identity has: its certificate and the authority's.
    pub fn secrets(&self, identity: &str) -> BTreeMap<String, Any> {
        use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
        let inline = |text: String| {
            Some(DataSource {
                specifier: Some(Specifier::InlineString(text)),
                ..Default::default()
            })
        };
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        leaf.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let own = tls::secret::Type::TlsCertificate(tls::TlsCertificate {
            certificate_chain: inline(leaf.signed_by(&key, &self.issuer).unwrap().pem()),
            private_key: inline(key.serialize_pem()),
            ..Default::default()
        });
        let roots = tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
            trusted_ca: inline(self.root.clone()),
            ..Default::default()
        });
        let secret = |name: &str, kind| {
            (
                name.to_owned(),
                pack_any(tls::Secret {
                    name: name.to_owned(),
                    r#type: Some(kind),
                }),
            )
        };
        BTreeMap::from([secret("default", own), secret("ROOTCA", roots)])
    }
}

/// Serves one proxy at a socket, until aborted. What Envoy says comes out.
pub fn serve(
    socket: &Path,
    mesh: Mesh,
    scope: Scope,
    secrets: BTreeMap<String, Any>,
) -> (JoinHandle<()>, mpsc::Receiver<Said>) {
    serve_edited(socket, mesh, scope, secrets, Arc::new(|_, body| body))
}

/// As [`serve`], with something done to each resource.
pub fn serve_edited(
    socket: &Path,
    mesh: Mesh,
    scope: Scope,
    secrets: BTreeMap<String, Any>,
    edit: Edit,
) -> (JoinHandle<()>, mpsc::Receiver<Said>) {
    let (said_tx, said_rx) = mpsc::channel(1024);
    let served = Served {
        mesh: Arc::new(mesh),
        scope,
        secrets: Arc::new(secrets),
        edit,
        said_tx,
    };
    let listening = tokio::net::UnixListener::bind(socket).unwrap();
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o777)).unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(ads::AggregatedDiscoveryServiceServer::new(served.clone()))
        .add_service(als::access_log_service_server::AccessLogServiceServer::new(
            served.clone(),
        ))
        .add_service(sds::SecretDiscoveryServiceServer::new(served))
        .serve_with_incoming(UnixListenerStream::new(listening));
    (tokio::spawn(async move { drop(server.await) }), said_rx)
}

/// What Envoy starts with.
pub fn bootstrap(socket: &Path) -> String {
    bootstrap_with(socket, 32_768)
}

/// The same for an Envoy that takes regular expressions up to that size.
pub fn bootstrap_with(socket: &Path, program_size: u32) -> String {
    let cluster = |name: &str| {
        serde_json::json!({
            "name": name, "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"pipe": {"path": socket.to_str().unwrap()}}}}]}]},
        })
    };
    let source = serde_json::json!({"ads": {}, "resource_api_version": "V3"});
    serde_json::json!({
        "node": {"id": "sidecar~10.0.1.1~customer-1.tutorial~tutorial.svc.cluster.local", "cluster": "customer"},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {
            "re2.max_program_size.error_level": program_size}}]},
        "static_resources": {"clusters": [cluster("xds-grpc"), cluster("sds-grpc")]},
        "dynamic_resources": {
            "ads_config": {"api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]},
            "cds_config": source, "lds_config": source,
        },
    })
    .to_string()
}
