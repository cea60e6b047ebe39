//! Admission webhooks over real TLS: what they are asked, what their answers do, what their failures mean.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

#[path = "support/client.rs"]
mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use support::{Client, memory};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

type Answer = Arc<dyn Fn(&Value) -> Option<Value> + Send + Sync>;

/// A webhook: it answers with what the function makes of the request, or never.
struct Hook {
    address: SocketAddr,
    bundle: String,
    seen: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    async fn start(answer: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static) -> Self {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (known, answer): (_, Answer) = (seen.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, known, answer) = (acceptor.clone(), known.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                        let (known, answer) = (known.clone(), answer.clone());
                        async move {
                            let bytes = request.into_body().collect().await.unwrap().to_bytes();
                            let review: Value = serde_json::from_slice(&bytes).unwrap();
                            let asked = review["request"].clone();
                            known.lock().push(asked.clone());
                            let Some(mut response) = answer(&asked) else {
                                return std::future::pending().await;
                            };
                            response["uid"] = asked["uid"].clone();
                            let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
                            Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from(review.to_string()))))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let bundle = STANDARD.encode(certificate.pem());
        Self {
            address,
            bundle,
            seen,
            task,
        }
    }

    /// The entry of a configuration for this webhook.
    fn entry(&self, name: &str, more: &Value) -> Value {
        let mut entry = json!({"name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://{}/check", self.address), "caBundle": self.bundle},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}]});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

async fn configure(client: &Client, plural: &str, entries: &[Value]) {
    let object = json!({"metadata": {"name": "hooks"}, "webhooks": entries});
    client.post(&format!("{GROUP}/{plural}"), &object).await.ok();
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kind": name}}, "data": {"a": "1"}})
}

fn allow() -> Value {
    json!({"allowed": true})
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

#[tokio::test]
async fn a_mutating_webhook_changes_the_object_and_is_asked_again_if_it_wants() {
    let adds = |field: &'static str| {
        move |request: &Value| {
            let present = request["object"]["data"].get(field).is_some();
            Some(if present {
                allow()
            } else {
                patch(&json!([{"op": "add", "path": format!("/data/{field}"), "value": "x"}]))
            })
        }
    };
    let (first, second) = (Hook::start(adds("b")).await, Hook::start(adds("c")).await);
    let client = Client::new(&memory().await);
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let entries = [
        first.entry("one.hook.test", &again),
        second.entry("two.hook.test", &again),
    ];
    configure(&client, "mutatingwebhookconfigurations", &entries).await;
    let created = client.post(MAPS, &map("x")).await.ok();
    assert_eq!(created["data"], json!({"a": "1", "b": "x", "c": "x"}));
    assert_eq!((first.seen.lock().len(), second.seen.lock().len()), (2, 1));
    let asked = first.seen.lock()[0].clone();
    assert_eq!(
        (asked["operation"].as_str(), asked["namespace"].as_str()),
        (Some("CREATE"), Some("default"))
    );
    assert_eq!(
        asked["resource"],
        json!({"group": "", "version": "v1", "resource": "configmaps"})
    );
    assert_eq!(asked["userInfo"]["username"], "kubernetes-admin");
    assert_eq!((&asked["oldObject"], &asked["dryRun"]), (&Value::Null, &json!(false)));
}

#[tokio::test]
async fn a_validating_webhook_refuses_and_warns() {
    let hook = Hook::start(|request: &Value| {
        let name = request["name"].as_str().unwrap_or_default();
        Some(match name {
            "bad" => {
                json!({"allowed": false, "status": {"code": 403, "message": "not this one"}, "warnings": ["careful"]})
            }
            _ => json!({"allowed": true, "warnings": ["look"]}),
        })
    })
    .await;
    let client = Client::new(&memory().await);
    configure(
        &client,
        "validatingwebhookconfigurations",
        &[hook.entry("v.hook.test", &json!({}))],
    )
    .await;
    let good = client.post(MAPS, &map("good")).await;
    assert_eq!(good.warnings, [r#"299 - "look""#]);
    good.ok();
    let message = "admission webhook \"v.hook.test\" denied the request: not this one";
    assert_eq!(client.post(MAPS, &map("bad")).await.refusal(), (403, message));
    assert_eq!(client.get(&format!("{MAPS}/bad")).await.code, 404);
    client.delete(&format!("{MAPS}/good")).await.ok();
    let last = hook.seen.lock().last().unwrap().clone();
    assert_eq!(
        (
            last["operation"].as_str(),
            last["oldObject"]["metadata"]["name"].as_str()
        ),
        (Some("DELETE"), Some("good"))
    );
    assert_eq!(last["object"], Value::Null);
}

#[tokio::test]
async fn selectors_and_conditions_keep_a_webhook_out() {
    let hook = Hook::start(|_: &Value| Some(json!({"allowed": false}))).await;
    let client = Client::new(&memory().await);
    let more = json!({
        "objectSelector": {"matchLabels": {"kind": "hit"}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        "matchConditions": [{"name": "not-me", "expression": "!(has(object.metadata.annotations) && 'skip' in object.metadata.annotations)"}]
    });
    configure(
        &client,
        "validatingwebhookconfigurations",
        &[hook.entry("v.hook.test", &more)],
    )
    .await;
    client.post(MAPS, &map("miss")).await.ok();
    client
        .post("/api/v1/namespaces/kube-public/configmaps", &map("hit"))
        .await
        .ok();
    let message = "admission webhook \"v.hook.test\" denied the request without explanation";
    assert_eq!(client.post(MAPS, &map("hit")).await.refusal(), (400, message));
    assert_eq!(hook.seen.lock().len(), 1);
}

#[tokio::test]
async fn a_webhook_that_fails_is_fatal_or_ignored_as_its_policy_says() {
    let hook = Hook::start(|_: &Value| None).await;
    let client = Client::new(&memory().await);
    let slow = hook.entry("slow.hook.test", &json!({"timeoutSeconds": 1}));
    configure(&client, "validatingwebhookconfigurations", &[slow]).await;
    let message = format!(
        "Internal error occurred: failed calling webhook \"slow.hook.test\": failed to call webhook: Post \
         \"https://{}/check?timeout=1s\": context deadline exceeded",
        hook.address
    );
    assert_eq!(client.post(MAPS, &map("x")).await.refusal(), (500, message.as_str()));
    let path = format!("{GROUP}/validatingwebhookconfigurations/hooks");
    let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    client
        .send("PATCH", &path, "application/json-patch+json", ignore.to_string())
        .await
        .ok();
    client.post(MAPS, &map("x")).await.ok();
    // The service of another one is not there.
    let service =
        json!({"clientConfig": {"service": {"name": "hook", "namespace": "default"}, "caBundle": hook.bundle}});
    client.delete(&path).await.ok();
    configure(
        &client,
        "validatingwebhookconfigurations",
        &[hook.entry("svc.hook.test", &service)],
    )
    .await;
    let message = "Internal error occurred: failed calling webhook \"svc.hook.test\": failed to call webhook: Post \
        \"https://hook.default.svc:443/?timeout=10s\": service \"hook\" not found";
    assert_eq!(client.post(MAPS, &map("y")).await.refusal(), (500, message));
}

#[tokio::test]
async fn a_webhook_is_found_by_its_service_and_not_asked_in_a_dry_run_it_does_not_support() {
    let hook = Hook::start(|_: &Value| Some(allow())).await;
    let client = Client::new(&memory().await);
    let core = "/api/v1/namespaces/default";
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    client.post(&format!("{core}/services"), &service).await.ok();
    let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"name": "https", "port": hook.address.port()}]});
    client
        .post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice)
        .await
        .ok();
    let more = json!({"clientConfig": {"service": {"name": "hook", "namespace": "default", "path": "/p"}, "caBundle": hook.bundle}});
    configure(
        &client,
        "validatingwebhookconfigurations",
        &[hook.entry("svc.hook.test", &more)],
    )
    .await;
    client.post(MAPS, &map("x")).await.ok();
    client.post(&format!("{MAPS}?dryRun=All"), &map("y")).await.ok();
    let asked: Vec<Value> = hook
        .seen
        .lock()
        .iter()
        .map(|request| request["dryRun"].clone())
        .collect();
    assert_eq!(asked, [json!(false), json!(true)]);
}
