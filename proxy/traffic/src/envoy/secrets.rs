//! The secret service for Envoy: our certificate and roots, pushed again whenever they change. On the same socket Envoy
//! reports its requests.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::AccessLogServiceServer;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use envoy_types::util::pack_any;
use futures::stream::{self, Stream};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};
use tower::Service as _;

use super::access_log::AccessLogs;
use super::{EnvoyError, socket};
use crate::identity::pem;
use crate::svid::{Svid, SvidStore};
use crate::telemetry::Shard;

/// The type of what is served.
const TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Our certificate with its key.
const CERTIFICATE: &str = "default";
/// The mesh's roots.
const ROOTS: &str = "ROOTCA";

/// Serves secrets, and takes access logs, on one socket.
pub(super) fn serve(path: &Path, store: SvidStore, shard: Arc<Shard>) -> Result<AbortOnDropHandle<()>, EnvoyError> {
    let listener = socket("secret socket", path)?;
    let secrets = SecretDiscoveryServiceServer::new(Secrets { store });
    let logs = AccessLogServiceServer::new(AccessLogs {
        shard,
        clients: Arc::default(),
    });
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let (secrets, logs) = (secrets.clone(), logs.clone());
                    let service = service_fn(move |request: http::Request<Incoming>| {
                        let (mut secrets, mut logs) = (secrets.clone(), logs.clone());
                        async move {
                            if request.uri().path().starts_with("/envoy.service.accesslog.v3.") {
                                logs.call(request).await
                            } else {
                                secrets.call(request).await
                            }
                        }
                    });
                    connections.spawn(async move {
                        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                        if let Err(error) = served {
                            tracing::debug!(%error, "envoy's secret connection ended");
                        }
                    });
                }
                Some(_ended) = connections.join_next() => {}
            }
        }
    });
    Ok(AbortOnDropHandle::new(task))
}

struct Secrets {
    store: SvidStore,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Answers<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(Response::new(answers(self.store.clone(), request.into_inner())))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(Response::new(answers(self.store.clone(), request.into_inner())))
    }

    async fn fetch_secrets(&self, request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        let mut session = Session::default();
        session.ask(request.get_ref());
        let svid = self.store.wait().await;
        Ok(Response::new(DiscoveryResponse::new(&session.names, &svid, 1)))
    }
}

/// What differs between the two protocols.
trait Protocol: Sized + Send + 'static {
    type Answer: Send + 'static;

    /// Takes the names that it asks for; says whether they changed.
    fn names(&self, names: &mut BTreeSet<String>) -> bool;
    /// The nonce that it refuses, if it does.
    fn refusal(&self) -> Option<String>;
    fn answer(names: &BTreeSet<String>, svid: &Svid, version: u64) -> Self::Answer;
}

trait New {
    fn new(names: &BTreeSet<String>, svid: &Svid, version: u64) -> Self;
}

impl New for DiscoveryResponse {
    fn new(names: &BTreeSet<String>, svid: &Svid, version: u64) -> Self {
        Self {
            version_info: version.to_string(),
            nonce: version.to_string(),
            type_url: TYPE.to_owned(),
            resources: names
                .iter()
                .filter_map(|name| named(name, svid))
                .map(pack_any)
                .collect(),
            ..Self::default()
        }
    }
}

impl Protocol for DiscoveryRequest {
    type Answer = DiscoveryResponse;

    fn names(&self, names: &mut BTreeSet<String>) -> bool {
        let asked: BTreeSet<String> = self.resource_names.iter().cloned().collect();
        let changed = asked != *names;
        *names = asked;
        changed
    }

    fn refusal(&self) -> Option<String> {
        self.error_detail.as_ref().map(|detail| detail.message.clone())
    }

    fn answer(names: &BTreeSet<String>, svid: &Svid, version: u64) -> DiscoveryResponse {
        DiscoveryResponse::new(names, svid, version)
    }
}

impl Protocol for DeltaDiscoveryRequest {
    type Answer = DeltaDiscoveryResponse;

    fn names(&self, names: &mut BTreeSet<String>) -> bool {
        let before = names.clone();
        names.extend(self.resource_names_subscribe.iter().cloned());
        for name in &self.resource_names_unsubscribe {
            names.remove(name);
        }
        // A name that is asked for again wants an answer again.
        before != *names || !self.resource_names_subscribe.is_empty()
    }

    fn refusal(&self) -> Option<String> {
        self.error_detail.as_ref().map(|detail| detail.message.clone())
    }

    fn answer(names: &BTreeSet<String>, svid: &Svid, version: u64) -> DeltaDiscoveryResponse {
        let resource = |name: &String| {
            Some(Resource {
                name: name.clone(),
                version: version.to_string(),
                resource: Some(pack_any(named(name, svid)?)),
                ..Resource::default()
            })
        };
        DeltaDiscoveryResponse {
            system_version_info: version.to_string(),
            nonce: version.to_string(),
            type_url: TYPE.to_owned(),
            resources: names.iter().filter_map(resource).collect(),
            ..DeltaDiscoveryResponse::default()
        }
    }
}

/// One subscription.
#[derive(Default)]
struct Session {
    names: BTreeSet<String>,
    version: u64,
}

impl Session {
    /// Whether there is something new to answer.
    fn ask<P: Protocol>(&mut self, request: &P) -> bool {
        if let Some(reason) = request.refusal() {
            tracing::error!(reason, "envoy refused a certificate");
        }
        request.names(&mut self.names) && !self.names.is_empty()
    }

    fn answer<P: Protocol>(&mut self, svid: Option<Arc<Svid>>) -> Option<P::Answer> {
        let svid = svid?;
        if self.names.is_empty() {
            return None;
        }
        self.version += 1;
        Some(P::answer(&self.names, &svid, self.version))
    }
}

fn answers<P>(store: SvidStore, requests: Streaming<P>) -> Answers<P::Answer>
where
    P: Protocol,
{
    struct State<P> {
        store: SvidStore,
        changes: watch::Receiver<u64>,
        requests: Streaming<P>,
        session: Session,
    }
    let changes = store.subscribe();
    let state = State {
        store,
        changes,
        requests,
        session: Session::default(),
    };
    Box::pin(stream::unfold(state, |mut state| async move {
        loop {
            let new = tokio::select! {
                request = state.requests.message() => match request {
                    Ok(Some(request)) => state.session.ask(&request),
                    // Envoy closed the stream, or its connection broke: there is nobody to tell.
                    Ok(None) | Err(_) => return None,
                },
                changed = state.changes.changed() => {
                    changed.ok()?;
                    true
                }
            };
            // Before the first certificate there is nothing to say; the change that brings it comes here too.
            if new && let Some(answer) = state.session.answer::<P>(state.store.current()) {
                return Some((Ok(answer), state));
            }
        }
    }))
}

/// The secret of this name; `None` for names that we do not have.
fn named(name: &str, svid: &Svid) -> Option<Secret> {
    let inline = |text: String| {
        Some(DataSource {
            specifier: Some(Specifier::InlineBytes(text.into_bytes())),
            ..Default::default()
        })
    };
    let kind = match name {
        CERTIFICATE => secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(pem::certificates(svid.chain())),
            private_key: inline(pem::private_key(svid.key())),
            ..Default::default()
        }),
        ROOTS => secret::Type::ValidationContext(CertificateValidationContext {
            trusted_ca: inline(pem::certificates(svid.roots())),
            ..Default::default()
        }),
        _ => return None,
    };
    Some(Secret {
        name: name.to_owned(),
        r#type: Some(kind),
    })
}
