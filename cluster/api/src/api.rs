//! The API itself: what it is made of, how it starts, and one request through it.

use crate::admission::{self, Resolve};
use crate::auth;
use crate::kinds::{Registry, Resource};
use crate::negotiate::{Accept, Body, respond_error};
use crate::pki::{Pki, PkiError};
use crate::service;
use crate::status::ApiError;
use crate::store::{OpenError, Store, Stored};
use crate::user::User;
use futures::future::BoxFuture;
use http::{Request, Response};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

/// Where pods run: logs, exec, attach and port-forward are handed to it.
pub trait NodeProxy: Send + Sync {
    /// Answers a request for a pod's subresource. For streams the request carries hyper's upgrade: the answer is 101 and the
    /// connection is taken over with `hyper::upgrade::on`.
    fn serve(&self, pod: PodRequest, request: Request<Body>) -> BoxFuture<'static, Response<Body>>;
}

/// The pod that a [`NodeProxy`] is asked about; access has been decided.
#[derive(Debug, Clone, PartialEq)]
pub struct PodRequest {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pod as it is stored.
    pub pod: Value,
    /// `log`, `exec`, `attach` or `portforward`.
    pub subresource: String,
}

/// How the API is set up.
pub struct Options {
    /// The folder of the state; `None` keeps everything in memory.
    pub state: Option<PathBuf>,
    /// Where cluster IPs come from. The first is the API's own.
    pub service_range: Ipv4Net,
    /// Where node ports come from.
    pub node_ports: RangeInclusive<u16>,
    /// Where the API is reached from inside: the endpoint of the Service `kubernetes`.
    pub advertise: Option<SocketAddr>,
    /// More names and addresses for the serving certificate.
    pub names: Vec<String>,
    /// Pods' logs and streams; without one they answer 503.
    pub nodes: Option<Arc<dyn NodeProxy>>,
    /// Where a webhook's Service is reached; the default looks into the EndpointSlices.
    pub resolve: Option<Arc<dyn Resolve>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            state: None,
            // A range of constants that is valid for sure; the fallback is never taken.
            service_range: Ipv4Net::new(Ipv4Addr::new(10, 96, 0, 0), 16).unwrap_or_default(),
            node_ports: 30000..=32767,
            advertise: None,
            names: Vec::new(),
            nodes: None,
            resolve: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("state", &self.state)
            .field("service_range", &self.service_range)
            .field("advertise", &self.advertise)
            .finish_non_exhaustive()
    }
}

/// Why the API could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// What is built in.
    #[error(transparent)]
    Builtin(#[from] crate::kinds::BuiltinError),
    /// What every cluster has could not be created.
    #[error("the first objects could not be created: {0}")]
    Bootstrap(#[source] ApiError),
    /// The state folder.
    #[error("the state folder {path} cannot be made")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) options: Options,
    pub(crate) pki: Pki,
    pub(crate) tokens: auth::Tokens,
    pub(crate) roles: auth::RoleCache,
    pub(crate) webhooks: admission::Webhooks,
    /// Held from choosing a cluster IP or node port until the Service has it.
    pub(crate) allocation: Arc<tokio::sync::Mutex<()>>,
    /// When old events were last removed, in seconds since the epoch.
    pub(crate) events_pruned: std::sync::atomic::AtomicI64,
    /// Held while definitions are taken over, so that the last one wins.
    pub(crate) definitions: tokio::sync::Mutex<()>,
}

/// A Kubernetes API. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("store", &self.inner.store).finish()
    }
}

impl Api {
    /// Opens the state, and creates what every cluster has where it is missing.
    pub async fn open(options: Options) -> Result<Self, StartError> {
        if let Some(path) = &options.state {
            std::fs::create_dir_all(path).map_err(|source| StartError::Folder {
                path: path.clone(),
                source,
            })?;
        }
        let file = options.state.as_ref().map(|folder| folder.join("objects.redb"));
        let store = open_store(file.as_deref()).await?;
        let pki = Pki::open(options.state.as_deref())?;
        let tokens = auth::Tokens::open(options.state.as_deref())?;
        let api = Self {
            inner: Arc::new(Inner {
                store,
                registry: Registry::new()?,
                pki,
                tokens,
                roles: auth::RoleCache::default(),
                webhooks: admission::Webhooks::default(),
                allocation: Arc::default(),
                events_pruned: std::sync::atomic::AtomicI64::new(0),
                definitions: tokio::sync::Mutex::new(()),
                options,
            }),
        };
        api.take_definitions().await;
        crate::bootstrap::run(&api).await.map_err(StartError::Bootstrap)?;
        Ok(api)
    }

    /// The API for a user, in process: a service as `kube::Client::new` takes it.
    pub fn service(&self, user: User) -> Service {
        Service {
            api: self.clone(),
            user: Arc::new(user),
        }
    }

    /// The certificate authority in PEM: what clients trust.
    pub fn ca(&self) -> &str {
        self.inner.pki.ca_pem()
    }

    /// A kubeconfig of an administrator for that server.
    pub fn kubeconfig(&self, name: &str, server: &str) -> Result<String, PkiError> {
        self.inner.pki.kubeconfig(name, server)
    }

    /// Answers one request of a user.
    pub(crate) async fn handle(&self, user: User, request: Request<Body>) -> Response<Body> {
        let accept = Accept::of(request.headers());
        match service::route(self, user, request).await {
            Ok(response) => response,
            Err(error) => respond_error(&error, accept.unwrap_or_else(|_| Accept::json())),
        }
    }

    /// An object as a client of a resource sees it, with `kind` and `apiVersion`.
    pub(crate) fn value(&self, resource: &Resource, stored: &Stored) -> Value {
        crate::convert::value(resource, stored)
    }

    /// An object of a built-in collection at its storage version, without `kind` and `apiVersion`.
    pub(crate) fn find(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
        self.inner
            .store
            .get(collection, namespace, name)
            .map(|stored| stored.value())
    }

    /// Takes the custom resources from the definitions in the store.
    pub(crate) async fn take_definitions(&self) {
        let _held = self.inner.definitions.lock().await;
        let (_, all) = self
            .inner
            .store
            .list("customresourcedefinitions.apiextensions.k8s.io", "", None);
        let definitions: Vec<Value> = all.iter().map(|stored| stored.value()).collect();
        self.inner.registry.set_definitions(&definitions);
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// How often the state is asked for that another process still has, and how long after: one that was killed needs a moment to end.
const OPEN_ATTEMPTS: u32 = 20;
const OPEN_AGAIN: Duration = Duration::from_millis(50);

async fn open_store(file: Option<&Path>) -> Result<Store, OpenError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match Store::open(file) {
            Err(OpenError::InUse(_)) if attempt < OPEN_ATTEMPTS => tokio::time::sleep(OPEN_AGAIN).await,
            other => return other,
        }
    }
}

/// The API for one user, without a socket.
#[derive(Clone, Debug)]
pub struct Service {
    api: Api,
    user: Arc<User>,
}

impl<B> tower::Service<Request<B>> for Service
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<crate::negotiate::BoxError>,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        use http_body_util::BodyExt as _;
        let (api, user) = (self.api.clone(), (*self.user).clone());
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Box::pin(async move { Ok(api.handle(user, request).await) })
    }
}
