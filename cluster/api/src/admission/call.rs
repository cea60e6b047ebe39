//! One question to one webhook, over HTTPS.

use super::matching::Request;
use super::resolve::{self, Address};
use super::root_cause;
use crate::api::Api;
use crate::json;
use crate::negotiate::BoxError;
use crate::status::ApiError;
use base64::Engine as _;
use bytes::Bytes;
use http::{Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The largest answer that is read.
const MAX_ANSWER: usize = 8 << 20;

/// What a webhook answered.
pub(super) struct Response {
    pub(super) refusal: Option<ApiError>,
    pub(super) patch: Option<Value>,
    pub(super) warnings: Vec<String>,
}

/// Where a webhook is.
struct Place {
    host: String,
    path: String,
    addresses: Vec<SocketAddr>,
}

/// Asks. The error is why there is no answer, in the words of Kubernetes.
pub(super) async fn ask(api: &Api, hook: &Value, request: &Request) -> Result<Response, String> {
    let seconds = hook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(10);
    let versions = json::texts(hook, "/admissionReviewVersions");
    let version = versions
        .iter()
        .find(|version| matches!(version.as_str(), "v1" | "v1beta1"));
    let version = version.map_or("v1", String::as_str);
    let review = json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request.body});
    let url = shown_url(hook, seconds);
    let failed = |why: &str| format!("failed to call webhook: Post {url:?}: {why}");
    let exchange = async {
        let place = place(api, hook, seconds).await?;
        post(hook, &place, review.to_string()).await
    };
    let answer = match tokio::time::timeout(Duration::from_secs(seconds), exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(Failure::Call(why))) => return Err(failed(&why)),
        Ok(Err(Failure::Answer(why))) => return Err(format!("failed to call webhook: {why}")),
        Err(_) => return Err(failed("context deadline exceeded")),
    };
    read(hook, request, &answer)
}

/// Why there is no answer.
enum Failure {
    /// It could not be reached.
    Call(String),
    /// It gave no review.
    Answer(String),
}

/// The address as messages show it.
fn shown_url(hook: &Value, seconds: u64) -> String {
    let url = json::text(hook, "/clientConfig/url");
    if !url.is_empty() {
        return format!("{url}?timeout={seconds}s");
    }
    let service = hook.pointer("/clientConfig/service").unwrap_or(&Value::Null);
    let port = service.get("port").and_then(Value::as_u64).unwrap_or(443);
    let path = json::text(service, "/path");
    let (name, namespace) = (json::text(service, "/name"), json::text(service, "/namespace"));
    let path = path.trim_start_matches('/');
    format!("https://{name}.{namespace}.svc:{port}/{path}?timeout={seconds}s")
}

async fn place(api: &Api, hook: &Value, seconds: u64) -> Result<Place, Failure> {
    let url = shown_url(hook, seconds);
    let uri: Uri = url
        .parse()
        .map_err(|error: http::uri::InvalidUri| Failure::Call(error.to_string()))?;
    if uri.scheme_str() != Some("https") {
        return Err(Failure::Call("the address must begin with https://".to_owned()));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let addresses = match hook.pointer("/clientConfig/service") {
        Some(service) => {
            let address = Address {
                namespace: json::text(service, "/namespace").to_owned(),
                service: json::text(service, "/name").to_owned(),
                port,
            };
            match &api.inner.options.resolve {
                Some(resolver) => resolver.resolve(address).await,
                None => resolve::from_store(&api.inner.store, &address).await,
            }
            .map_err(Failure::Call)?
        }
        None => {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            found.map_err(|error| Failure::Call(error.to_string()))?.collect()
        }
    };
    // The host for messages and the certificate leaves the port out.
    let host = match hook.pointer("/clientConfig/service") {
        Some(service) => format!(
            "{}.{}.svc",
            json::text(service, "/name"),
            json::text(service, "/namespace")
        ),
        None => host,
    };
    Ok(Place { host, path, addresses })
}

/// Trusts the webhook's bundle, and nobody else.
fn connector(hook: &Value) -> Result<TlsConnector, Failure> {
    let wrong = |why: String| Failure::Call(format!("unable to load root certificates: {why}"));
    let bundle = base64::engine::general_purpose::STANDARD
        .decode(json::text(hook, "/clientConfig/caBundle"))
        .map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bundle) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn post(hook: &Value, place: &Place, review: String) -> Result<Bytes, Failure> {
    let connector = connector(hook)?;
    let mut last = "no address".to_owned();
    let mut stream = None;
    for address in &place.addresses {
        match TcpStream::connect(address).await {
            Ok(connected) => {
                stream = Some(connected);
                break;
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                last = format!("dial tcp {address}: connect: connection refused");
            }
            Err(error) => last = format!("dial tcp {address}: {error}"),
        }
    }
    let stream = stream.ok_or(Failure::Call(last))?;
    let name = ServerName::try_from(place.host.clone()).map_err(|error| Failure::Call(error.to_string()))?;
    let call = |error: BoxError| Failure::Call(root_cause(&*error));
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| Failure::Call(format!("tls: failed to verify certificate: {error}")))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| call(error.into()))?;
    let request = http::Request::post(&place.path)
        .header(header::HOST, &place.host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(review)))
        .map_err(|error| call(error.into()))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| call(error.into()))?;
        let (status, body) = (response.status(), response.into_body());
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(call)?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body);
        let why = match text.trim() {
            "" => "the server could not find the requested resource".to_owned(),
            text => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        };
        Err(Failure::Answer(why))
    };
    // The connection makes progress only while it is polled; it ends when the sender is gone, with the exchange.
    let (result, _) = tokio::join!(exchange, connection);
    result
}

fn read(hook: &Value, request: &Request, answer: &[u8]) -> Result<Response, String> {
    let review: Value = serde_json::from_slice(answer)
        .map_err(|error| format!("expected response.uid={:?}, got no review: {error}", request.uid))?;
    let response = review.get("response").unwrap_or(&Value::Null);
    let uid = json::text(response, "/uid");
    if uid != request.uid {
        return Err(format!("expected response.uid={:?}, got {uid:?}", request.uid));
    }
    let mut warnings = json::texts(response, "/warnings");
    warnings.truncate(100);
    if !json::flag(response, "/allowed") {
        return Ok(Response {
            refusal: Some(refusal(json::text(hook, "/name"), response.get("status"))),
            patch: None,
            warnings,
        });
    }
    let patch = match json::text(response, "/patch") {
        "" => None,
        _ if json::text(response, "/patchType") != "JSONPatch" => {
            return Err("webhook returned a patch without patchType JSONPatch".to_owned());
        }
        text => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let bytes = bytes.map_err(|error| format!("the patch is not base64: {error}"))?;
            Some(serde_json::from_slice(&bytes).map_err(|error| format!("the patch is not JSON: {error}"))?)
        }
    };
    Ok(Response {
        refusal: None,
        patch,
        warnings,
    })
}

/// The error for a request that a webhook refused.
fn refusal(name: &str, status: Option<&Value>) -> ApiError {
    let none = Value::Null;
    let status = status.unwrap_or(&none);
    let code = status
        .get("code")
        .and_then(Value::as_u64)
        .and_then(|code| u16::try_from(code).ok())
        .unwrap_or(0);
    let (message, reason) = (json::text(status, "/message"), json::text(status, "/reason"));
    let denied = format!("admission webhook {name:?} denied the request");
    let message = match (message, reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let reasons = [
        "Forbidden",
        "Invalid",
        "BadRequest",
        "Conflict",
        "NotFound",
        "AlreadyExists",
        "InternalError",
    ];
    let reason = reasons.into_iter().find(|known| *known == reason).unwrap_or_default();
    ApiError {
        details: status.get("details").cloned(),
        ..ApiError::new(if code < 400 { 400 } else { code }, reason, message)
    }
}
