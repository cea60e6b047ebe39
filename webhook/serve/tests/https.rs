//! The webhook server over real TLS: certificates of the mesh's CA, HTTP/2 and HTTP/1.1, many reviews on one connection.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mizzen_ca::{Ca, CaSettings};
use mizzen_review::{InjectConfig, Request, review_pod};
use mizzen_webhook::{Endpoint, Limits, Webhooks, serve};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

const NAME: &str = "istiod-basic.mesh.svc";

struct Server {
    address: SocketAddr,
    ca: Ca,
    registry: Registry,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start() -> Server {
    let ca = Ca::ephemeral(CaSettings::default()).unwrap();
    let tls = ca.webhook_config(&[NAME.to_owned()]).unwrap();
    let config = r#"{"revision": "basic", "meshNamespace": "mesh", "images": {"registry": "r", "tag": "t"}}"#;
    let config = InjectConfig::from_json(config).unwrap();
    let inject = Endpoint::computing("/inject", move |request: &Request| review_pod(request, &config, None));
    let mut registry = Registry::default();
    let router = Webhooks::new(vec![inject], Limits::default(), &mut registry).router();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, tls, router, stop.clone(), Duration::from_secs(5)));
    Server {
        address,
        ca,
        registry,
        stop,
        task,
    }
}

async fn connect(server: &Server, root_pem: &str, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let tcp = TcpStream::connect(server.address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(NAME).unwrap(), tcp)
        .await
}

fn review() -> http::Request<Full<Bytes>> {
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "namespace": "shop",
        "object": {"metadata": {"name": "cart"}, "spec": {"containers": [{"name": "app", "image": "i"}]}},
    }});
    http::Request::post(format!("https://{NAME}/inject"))
        .header("host", NAME)
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap()
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Value {
    assert_eq!(response.status(), 200);
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

// B7
#[tokio::test]
async fn pods_are_injected_over_http_2_and_http_1() {
    let server = start().await;
    let root = server.ca.root_pem();
    let tls = connect(&server, &root, b"h2").await.unwrap();
    let (mut h2, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
        .await
        .unwrap();
    tokio::spawn(connection);
    for _ in 0..50 {
        let answer = read(h2.send_request(review()).await.unwrap()).await;
        assert_eq!(answer["response"]["allowed"], true);
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
    }
    let tls = connect(&server, &root, b"http/1.1").await.unwrap();
    let (mut h1, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let answer = read(h1.send_request(review()).await.unwrap()).await;
    assert_eq!(answer["response"]["uid"], "u-1");

    let mut metrics = String::new();
    encode(&mut metrics, &server.registry).unwrap();
    let counted = r#"mizzen_webhook_admissions_total{path="/inject",allowed="true",category="injected"} 51"#;
    assert!(metrics.contains(counted), "{metrics}");
}

// B7
#[tokio::test]
async fn whoever_does_not_know_the_ca_does_not_connect_and_a_stop_lets_requests_end() {
    let server = start().await;
    let stranger = Ca::ephemeral(CaSettings::default()).unwrap().root_pem();
    assert!(connect(&server, &stranger, b"h2").await.is_err());

    let tls = connect(&server, &server.ca.root_pem(), b"h2").await.unwrap();
    let (mut h2, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    read(h2.send_request(review()).await.unwrap()).await;
    server.stop.cancel();
    // The server says goodbye on the open connection and ends without waiting for its limit.
    tokio::time::timeout(Duration::from_secs(4), server.task)
        .await
        .unwrap()
        .unwrap();
    let _ = connection.await;
    assert!(TcpStream::connect(server.address).await.is_err());
}
