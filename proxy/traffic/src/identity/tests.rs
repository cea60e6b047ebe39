use std::path::Path;

use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::request::{CertificateRequest, CertificateResponse};
use super::*;

const SPIFFE: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// A CA as the control plane serves it, without any check but those that the tests are about.
struct FakeCa {
    issuer: Issuer<'static, KeyPair>,
    root: rcgen::Certificate,
    life: Duration,
    refuse: bool,
    spiffe: &'static str,
    tokens: Vec<String>,
}

impl FakeCa {
    fn new(life: Duration) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            root,
            life,
            refuse: false,
            spiffe: SPIFFE,
            tokens: Vec::new(),
        }
    }

    fn sign(&self, csr: &str) -> Vec<String> {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        request.params.subject_alt_names = vec![SanType::URI(self.spiffe.try_into().unwrap())];
        request.params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        request.params.not_after = (SystemTime::now() + self.life).into();
        vec![request.signed_by(&self.issuer).unwrap().pem(), self.root.pem()]
    }

    fn server(&self) -> rustls::ServerConfig {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = rustls::ServerConfig::builder_with_provider(crate::tls::crypto())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

type Shared = Arc<Mutex<FakeCa>>;

/// Serves CreateCertificate by hand: one length-prefixed message in, one out.
async fn serve(ca: Shared) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(ca.lock().server()));
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, ca) = (acceptor.clone(), ca.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = hyper::service::service_fn(move |request| answer(ca.clone(), request));
                let _ended = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (address, AbortOnDropHandle::new(task))
}

async fn answer(
    ca: Shared,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<http_body_util::combinators::BoxBody<bytes::Bytes, std::convert::Infallible>>, hyper::Error>
{
    let token = request
        .headers()
        .get("authorization")
        .map(|v| v.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let body = request.into_body().collect().await?.to_bytes();
    let message = CertificateRequest::decode(&body[5..]).unwrap();
    let mut ca = ca.lock();
    ca.tokens.push(token);
    let mut trailers = http::HeaderMap::new();
    let mut data = Vec::new();
    if ca.refuse {
        trailers.insert("grpc-status", "16".parse().unwrap());
        trailers.insert("grpc-message", "token refused".parse().unwrap());
    } else {
        let encoded = CertificateResponse {
            cert_chain: ca.sign(&message.csr),
        }
        .encode_to_vec();
        data.push(0);
        data.extend_from_slice(&u32::try_from(encoded.len()).unwrap().to_be_bytes());
        data.extend_from_slice(&encoded);
        trailers.insert("grpc-status", "0".parse().unwrap());
    }
    let body = http_body_util::Full::new(bytes::Bytes::from(data)).with_trailers(async move { Some(Ok(trailers)) });
    Ok(http::Response::builder()
        .header("content-type", "application/grpc")
        .body(body.boxed())
        .unwrap())
}

fn config(folder: &Path, ca: &Shared, address: &str) -> IdentityConfig {
    let (token_file, root_file) = (folder.join("token"), folder.join("root.pem"));
    std::fs::write(&token_file, "token-1\n").unwrap();
    std::fs::write(&root_file, ca.lock().root.pem()).unwrap();
    IdentityConfig {
        ca: address.to_owned(),
        spiffe: SPIFFE.to_owned(),
        life: Duration::from_secs(3600),
        token_file,
        root_file,
        root_interval: Duration::from_millis(50),
    }
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("did not happen within 10 s");
}

// E1
#[tokio::test]
async fn certificate_is_obtained_and_renewed_with_the_current_token_and_a_new_key() {
    let ca: Shared = Arc::new(Mutex::new(FakeCa::new(Duration::from_secs(3))));
    let (address, _server) = serve(ca.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &ca, &address);
    let store = SvidStore::new();
    let identity = Identity::new(config.clone(), store.clone());
    let metrics = identity.metrics();
    let _task = AbortOnDropHandle::new(tokio::spawn(identity.run()));
    let first = store.wait().await;
    assert_eq!(&**first.spiffe(), SPIFFE);
    assert_eq!(first.chain().len(), 1, "the root is not shown to peers");
    std::fs::write(&config.token_file, "token-2").unwrap();
    eventually(|| metrics.obtained_count() >= 2).await;
    let second = store.current().unwrap();
    assert_ne!(first.chain(), second.chain());
    assert_ne!(first.key().secret_der(), second.key().secret_der());
    assert!(!first.expired(SystemTime::now()), "renewed before the old one ended");
    let tokens = ca.lock().tokens.clone();
    assert_eq!(
        (tokens[0].as_str(), tokens[1].as_str()),
        ("Bearer token-1", "Bearer token-2")
    );
}

// E1
#[tokio::test]
async fn old_certificate_stays_while_the_ca_refuses() {
    let ca: Shared = Arc::new(Mutex::new(FakeCa::new(Duration::from_secs(3))));
    let (address, _server) = serve(ca.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let store = SvidStore::new();
    let identity = Identity::new(config(folder.path(), &ca, &address), store.clone());
    let metrics = identity.metrics();
    let _task = AbortOnDropHandle::new(tokio::spawn(identity.run()));
    let first = store.wait().await;
    ca.lock().refuse = true;
    eventually(|| ca.lock().tokens.len() >= 3).await;
    assert_eq!(store.current().unwrap().chain(), first.chain());
    ca.lock().refuse = false;
    eventually(|| metrics.obtained_count() >= 2).await;
    assert_ne!(store.current().unwrap().chain(), first.chain());
}

// E1
#[tokio::test]
async fn changed_trust_bundle_is_used_at_once_and_a_new_certificate_is_asked_for() {
    let ca: Shared = Arc::new(Mutex::new(FakeCa::new(Duration::from_secs(3600))));
    let (address, _server) = serve(ca.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &ca, &address);
    let store = SvidStore::new();
    let _task = AbortOnDropHandle::new(tokio::spawn(Identity::new(config.clone(), store.clone()).run()));
    let first = store.wait().await;
    assert_eq!(first.roots().len(), 1);
    let other = FakeCa::new(Duration::ZERO).root.pem();
    std::fs::write(&config.root_file, format!("{}{other}", ca.lock().root.pem())).unwrap();
    eventually(|| store.current().unwrap().roots().len() == 2).await;
    eventually(|| store.current().unwrap().chain() != first.chain()).await;
    // A broken file changes nothing.
    std::fs::write(&config.root_file, "nonsense").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(store.current().unwrap().roots().len(), 2);
}

#[tokio::test]
async fn each_failure_says_what_is_wrong() {
    let ca: Shared = Arc::new(Mutex::new(FakeCa::new(Duration::from_secs(60))));
    let (address, _server) = serve(ca.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let good = config(folder.path(), &ca, &address);
    let fault = async |config: IdentityConfig| {
        let error = Identity::new(config, SvidStore::new()).obtain().await.unwrap_err();
        (error.category(), error.to_string())
    };
    let (category, text) = fault(IdentityConfig {
        token_file: folder.path().join("none"),
        ..good.clone()
    })
    .await;
    assert!(
        category == "file" && text.contains("token") && text.contains("none"),
        "{text}"
    );
    assert_eq!(
        fault(IdentityConfig {
            ca: "nowhere".to_owned(),
            ..good.clone()
        })
        .await
        .0,
        "address"
    );
    assert_eq!(
        fault(IdentityConfig {
            ca: "localhost:1".to_owned(),
            ..good.clone()
        })
        .await
        .0,
        "connect"
    );
    // Another CA's server is not trusted.
    let stranger = folder.path().join("stranger.pem");
    std::fs::write(&stranger, FakeCa::new(Duration::ZERO).root.pem()).unwrap();
    let (category, text) = fault(IdentityConfig {
        root_file: stranger,
        ..good.clone()
    })
    .await;
    assert!(
        category == "connect" && text.to_lowercase().contains("certificate"),
        "{text}"
    );
    ca.lock().refuse = true;
    let (category, text) = fault(good.clone()).await;
    assert!(category == "refused" && text.contains("token refused"), "{text}");
    ca.lock().refuse = false;
    ca.lock().spiffe = "spiffe://cluster.local/ns/shop/sa/other";
    assert_eq!(fault(good).await.0, "other_identity");
}
