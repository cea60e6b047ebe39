use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::authenticate::tests::{Known, token};
use crate::{CaSettings, PeerCertificates, SpiffeId};

const NAME: &str = "istiod-basic.mesh.svc";

/// What port 15012 is: TLS with our configuration, the peer's certificates put into each request.
async fn serve(ca: &Ca) -> SocketAddr {
    let acceptor = tokio_rustls::TlsAcceptor::from(ca.server_config(&[NAME.to_owned()]).unwrap());
    let service = ca.service(ca.authenticator_with(Arc::new(Known::default())));
    let router = tonic::service::Routes::new(service).prepare().into_axum_router();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, mut router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                if let Some(chain) = tls.get_ref().1.peer_certificates() {
                    let shown: Vec<_> = chain.iter().map(|der| der.clone().into_owned()).collect();
                    router = router.layer(axum::Extension(PeerCertificates(shown.into())));
                }
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection(TokioIo::new(tls), TowerToHyperService::new(router))
                    .await;
            });
        }
    });
    address
}

/// A connection to `address` that trusts `ca` and shows `own`, if any.
async fn connect(address: SocketAddr, ca: &Ca, own: Option<(Vec<CertificateDer<'static>>, Vec<u8>)>) -> Channel {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.root_pem().as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(crate::ca::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some((chain, key)) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let tls = connector.connect(ServerName::try_from(NAME).unwrap(), tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(tls))
        }
    });
    Endpoint::from_static("http://ca").connect_with_connector_lazy(connect)
}

async fn ask(
    channel: Channel,
    bearer: Option<&str>,
    csr: String,
    seconds: i64,
) -> Result<IstioCertificateResponse, Status> {
    let mut request = Request::new(IstioCertificateRequest {
        csr,
        validity_duration: seconds,
    });
    if let Some(token) = bearer {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE_PATH);
    grpc.unary(request, path, ProstCodec::default())
        .await
        .map(Response::into_inner)
}

fn csr(key: &rcgen::KeyPair, name: Option<&str>) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = name
        .into_iter()
        .map(|uri| rcgen::SanType::URI(uri.try_into().unwrap()))
        .collect();
    params.serialize_request(key).unwrap().pem().unwrap()
}

// E1, E7, G3
#[tokio::test]
async fn a_token_buys_a_certificate_and_the_certificate_alone_buys_none() {
    let ca = Ca::ephemeral(CaSettings::default()).unwrap();
    let address = serve(&ca).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let channel = connect(address, &ca, None).await;
    let answer = ask(channel, Some(&token(60, "good")), csr(&key, None), 3600)
        .await
        .unwrap();
    assert_eq!(answer.cert_chain.len(), 2);
    assert_eq!(answer.cert_chain[1], ca.root_pem());
    let leaf = CertificateDer::from_pem_slice(answer.cert_chain[0].as_bytes()).unwrap();
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    assert_eq!(
        mizzen_issue::peer_identity(&leaf, std::time::SystemTime::now()),
        Ok(identity.clone())
    );

    // No token: the certificate says who asks, but whoever stole it could do so for ever.
    let own = Some((vec![leaf], key.serialize_der()));
    let channel = connect(address, &ca, own).await;
    let next = rcgen::KeyPair::generate().unwrap();
    let wanted = csr(&next, Some(&identity.to_string()));
    let refused = ask(channel.clone(), None, wanted.clone(), 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused.message().contains("does not buy another one"),
        "{}",
        refused.message()
    );
    ask(channel, Some(&token(60, "good")), wanted, 0).await.unwrap();
}

// E1, E7, G3
#[tokio::test]
async fn refusals_say_why() {
    let ca = Ca::ephemeral(CaSettings::default()).unwrap();
    let channel = connect(serve(&ca).await, &ca, None).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let (good, wrong_audience, expired) = (token(60, "good"), token(60, "bad"), token(-9, "good"));
    let code = async |bearer, csr, seconds| ask(channel.clone(), bearer, csr, seconds).await.unwrap_err().code();
    assert_eq!(code(None, csr(&key, None), 0).await, Code::Unauthenticated);
    assert_eq!(
        code(Some(wrong_audience.as_str()), csr(&key, None), 0).await,
        Code::Unauthenticated
    );
    assert_eq!(
        code(Some(expired.as_str()), csr(&key, None), 0).await,
        Code::Unauthenticated
    );
    assert_eq!(
        code(Some(good.as_str()), "nonsense".into(), 0).await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(Some(good.as_str()), csr(&key, None), 91 * 86_400).await,
        Code::InvalidArgument
    );
    let foreign = csr(&key, Some("spiffe://cluster.local/ns/shop/sa/admin"));
    assert_eq!(code(Some(good.as_str()), foreign, 0).await, Code::PermissionDenied);
    assert_eq!(
        code(Some(good.as_str()), "x".repeat(100_000), 0).await,
        Code::OutOfRange
    );
}

// E7
#[tokio::test]
async fn a_certificate_of_another_ca_ends_the_handshake() {
    let ca = Ca::ephemeral(CaSettings::default()).unwrap();
    let other = Ca::ephemeral(CaSettings::default()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let issued = other.issue(csr(&key, None).as_bytes(), &identity, None).unwrap();
    let own = Some((issued.chain_der(), key.serialize_der()));
    let channel = connect(serve(&ca).await, &ca, own).await;
    let mut grpc = tonic::client::Grpc::new(channel);
    let refused = match grpc.ready().await {
        Err(_) => true,
        Ok(()) => {
            let request = Request::new(IstioCertificateRequest::default());
            let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE_PATH);
            let codec = ProstCodec::<_, IstioCertificateResponse>::default();
            grpc.unary(request, path, codec)
                .await
                .is_err_and(|status| status.code() != Code::Unauthenticated)
        }
    };
    assert!(refused);
}
