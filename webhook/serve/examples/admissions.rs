//! How many pods a core injects through HTTPS: the server alone on one thread, whose CPU time is what counts, so that the
//! number holds on a busy machine too. `cargo run --release -p mizzen-webhook --example admissions` prints it (an example and
//! not a bench, because benches unwind: they would build every dependency of the release once more).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark may fail loudly"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mizzen_ca::{Ca, CaSettings};
use mizzen_review::{InjectConfig, Request, review_pod};
use mizzen_webhook::{Endpoint, Limits, Webhooks, serve};
use prometheus_client::registry::Registry;
use rustix::time::{ClockId, clock_gettime};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const NAME: &str = "istiod-basic.mesh.svc";
const WARM_UP: usize = 500;
const REVIEWS: usize = 10_000;
/// As many as an API server has under way on its connection.
const AT_A_TIME: usize = 16;

fn main() {
    let ca = Ca::ephemeral(CaSettings::default()).unwrap();
    let (address_tx, address_rx) = mpsc::channel();
    let stop = CancellationToken::new();
    let server = std::thread::spawn({
        let (ca, stop) = (ca.clone(), stop.clone());
        move || server(&ca, &address_tx, stop)
    });
    let address = address_rx.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let wall = runtime.block_on(client(&ca, address));
    stop.cancel();
    let cpu = server.join().unwrap();
    // The warm-up's share is in the CPU time, and so in the count.
    let all = (REVIEWS + WARM_UP) as f64;
    println!("injections per second and core: {:.0}", all / cpu.as_secs_f64());
    println!(
        "CPU time per injection:         {:.0} µs",
        cpu.as_secs_f64() / all * 1e6
    );
    println!(
        "wall clock:                     {:.0}/s, {AT_A_TIME} at a time",
        REVIEWS as f64 / wall.as_secs_f64()
    );
}

/// Serves until told to stop; returns the CPU time of its thread.
fn server(ca: &Ca, address_tx: &mpsc::Sender<SocketAddr>, stop: CancellationToken) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = r#"{"revision": "basic", "meshNamespace": "mesh", "images": {"registry": "r", "tag": "t"}}"#;
        let config = InjectConfig::from_json(config).unwrap();
        let member = [("maistra.io/member-of".to_owned(), "mesh".to_owned())].into();
        let inject = Endpoint::computing("/inject", move |request: &Request| {
            review_pod(request, &config, Some(&member))
        });
        let router = Webhooks::new(vec![inject], Limits::default(), &mut Registry::default()).router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        address_tx.send(listener.local_addr().unwrap()).unwrap();
        let tls = ca.webhook_config(&[NAME.to_owned()]).unwrap();
        serve(listener, tls, router, stop, Duration::from_secs(1)).await;
    });
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

async fn client(ca: &Ca, address: SocketAddr) -> Duration {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.root_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tls = connector
        .connect(ServerName::try_from(NAME).unwrap(), tcp)
        .await
        .unwrap();
    let (h2, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
        .await
        .unwrap();
    tokio::spawn(connection);
    let body = Bytes::from(review());
    let mut started = Instant::now();
    for (count, is_warm_up) in [(WARM_UP, true), (REVIEWS, false)] {
        if !is_warm_up {
            started = Instant::now();
        }
        let workers = (0..AT_A_TIME).map(|_| {
            let (mut h2, body) = (h2.clone(), body.clone());
            tokio::spawn(async move {
                for _ in 0..count / AT_A_TIME {
                    let request = http::Request::post(format!("https://{NAME}/inject")).body(Full::new(body.clone()));
                    let answer = h2.send_request(request.unwrap()).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    let answer = answer.into_body().collect().await.unwrap().to_bytes();
                    assert!(answer.windows(9).any(|window| window == b"JSONPatch"));
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
    }
    started.elapsed()
}

/// What an API server sends for a pod of a Deployment: defaults filled in, a token volume, an owner.
fn review() -> String {
    let probe =
        json!({"httpGet": {"path": "/", "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10});
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "tutorial", "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "object": {
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {
                    "generateName": "customer-5d4f6b7c8-", "creationTimestamp": null,
                    "labels": {"app": "customer", "version": "v1", "pod-template-hash": "5d4f6b7c8", "sidecar.istio.io/inject": "true"},
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "customer-5d4f6b7c8",
                        "uid": "86a0d1c4-6393-11e8-b7cc-42010a800002", "controller": true, "blockOwnerDeletion": true,
                    }],
                },
                "spec": {
                    "volumes": [{"name": "kube-api-access-x", "projected": {"defaultMode": 420, "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    ]}}],
                    "containers": [{
                        "name": "customer", "image": "localhost/mizzen/mizzen-app:dev", "imagePullPolicy": "IfNotPresent",
                        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                        "env": [{"name": "UPSTREAM", "value": "http://preference:8080"}],
                        "resources": {"requests": {"cpu": "10m"}},
                        "readinessProbe": probe, "livenessProbe": probe,
                        "volumeMounts": [{"name": "kube-api-access-x", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    }],
                    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                    "serviceAccountName": "customer", "serviceAccount": "customer", "securityContext": {},
                    "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
                    "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
                },
                "status": {},
            },
            "oldObject": null, "dryRun": false, "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
    .to_string()
}
