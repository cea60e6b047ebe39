//! The gRPC service `envoy.service.discovery.v3.AggregatedDiscoveryService`: moves messages between streams and sessions.
//!
//! One task per stream, owned by the response body: when the connection ends, the body is dropped and the task with it.
//! Memory is bounded per stream (one response at a time, one mailbox) and over all streams (large responses take from a
//! shared budget, so that a storm of new proxies queues instead of filling the memory).

mod codec;
mod stream;

use std::{
    any::Any,
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tonic::{
    Status,
    body::Body,
    codegen::{Service, StdError},
    server::{Grpc, NamedService, StreamingService},
};

use crate::{
    mailbox::Mailbox,
    metrics::Metrics,
    resource::{Resource, ResourceType, View},
    session::{Limits, Nack, Protocol, Session, TypeStatus},
    wire::Node,
};
use codec::AdsCodec;
use stream::Feed;

/// Names a stream for as long as the process lives.
pub type StreamId = u64;

/// Where views come from, and where reports go. Calls come from the streams' tasks and must not block.
pub trait Source: Send + Sync + 'static {
    /// Held for reading while a response is decided, and by the source for writing while it replaces what the views show and
    /// marks that in the mailboxes: so a response never mixes two states of the mesh. Writers must be quick.
    fn gate(&self) -> Arc<RwLock<()>>;

    /// Counts the states of the mesh: moves on when [`Source::open`] may answer otherwise than before.
    fn states(&self) -> watch::Receiver<u64>;

    /// A proxy opened a stream: `request` holds what authentication found out, `node` what the proxy says of itself.
    /// From now on until the guard in [`Opened`] is dropped, changes are to be left in `mailbox`.
    fn open(
        &self,
        stream: StreamId,
        request: &tonic::Extensions,
        node: &Node,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Opened, Refused>;

    /// A proxy accepted resources, now or on an earlier stream.
    fn accepted(&self, stream: StreamId, kind: ResourceType, resources: &[Arc<Resource>]);

    /// A proxy rejected resources and keeps what it had.
    fn rejected(&self, stream: StreamId, nack: &Nack);

    /// A proxy accepted resources that it had rejected before.
    fn recovered(&self, stream: StreamId, kind: ResourceType, names: &[Arc<str>]);
}

/// A stream that was let in.
pub struct Opened {
    /// What its proxy sees now.
    pub view: Arc<dyn View>,
    /// The proxy's name in logs and in `/debug/syncz`.
    pub proxy: String,
    /// Dropped when the stream ends.
    pub guard: Box<dyn Any + Send>,
}

/// Why a stream was not let in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Who calls is not known.
    #[error("the caller is not authenticated: {0}")]
    Unauthenticated(String),
    /// The caller may not be the node that it says it is.
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// The node cannot be understood.
    #[error("the node is not valid: {0}")]
    Invalid(String),
    /// Not now: asked again when the state of the mesh moves on, until [`Settings::first_request`] has passed.
    #[error("not ready: {0}")]
    NotReady(String),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::Unauthenticated(_) => Self::unauthenticated(text),
            Refused::Forbidden(_) => Self::permission_denied(text),
            Refused::Invalid(_) => Self::invalid_argument(text),
            Refused::NotReady(_) => Self::unavailable(text),
        }
    }
}

/// Limits of the service.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Limits of each stream.
    pub limits: Limits,
    /// Streams at a time.
    pub streams: usize,
    /// Bytes of one request.
    pub request_length: usize,
    /// Bytes of large responses that may be on their way at a time, over all streams.
    pub send_budget: usize,
    /// How long a stream may take for its first request, and how long it waits to be let in.
    pub first_request: Duration,
    /// After this long a response no longer counts against the budget, and no longer waits for its share: one stuck proxy must
    /// not hold up the others, nor several of them one.
    pub stuck: Duration,
    /// A stream ends at this age, a fifth sooner or later (so that those that began together do not come back together). Its
    /// proxy comes again with the versions that it holds, and has to prove anew who it is.
    pub age: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            streams: 10_000,
            request_length: 8 * 1_024 * 1_024,
            send_budget: 32 * 1_024 * 1_024,
            first_request: Duration::from_secs(10),
            stuck: Duration::from_secs(2),
            age: Duration::from_secs(30 * 60),
        }
    }
}

/// The service. Cloning shares it.
#[derive(Clone)]
pub struct Ads {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    gate: Arc<RwLock<()>>,
    source: Arc<dyn Source>,
    settings: Settings,
    metrics: Metrics,
    /// In KiB, as a semaphore counts in 32 bits per acquisition.
    budget: Arc<Semaphore>,
    streams: Mutex<BTreeMap<StreamId, Connected>>,
    next: AtomicU64,
    draining: watch::Sender<bool>,
}

struct Connected {
    proxy: String,
    since: Instant,
    session: Arc<Mutex<Session>>,
}

/// One connected proxy, for `/debug/syncz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    /// The stream.
    pub stream: StreamId,
    /// The proxy's name, as [`Opened::proxy`] gave it.
    pub proxy: String,
    /// How long it is connected.
    pub connected: Duration,
    /// Which protocol it speaks.
    pub protocol: Protocol,
    /// How far it is with each kind.
    pub types: Vec<TypeStatus>,
}

impl Ads {
    /// A service that serves what `source` gives.
    pub fn new(source: Arc<dyn Source>, settings: Settings, metrics: Metrics) -> Self {
        let kib = settings.send_budget / 1_024;
        Self {
            shared: Arc::new(Shared {
                gate: source.gate(),
                source,
                settings,
                metrics,
                budget: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
                streams: Mutex::default(),
                next: AtomicU64::new(1),
                draining: watch::Sender::new(false),
            }),
        }
    }

    /// Ends all streams gracefully and refuses new ones: their proxies connect elsewhere.
    pub fn drain(&self) {
        self.shared.draining.send_replace(true);
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.shared.streams.lock().len()
    }

    /// All streams and how far their proxies are.
    pub fn status(&self, now: Instant) -> Vec<StreamStatus> {
        let streams: Vec<_> = self
            .shared
            .streams
            .lock()
            .iter()
            .map(|(id, open)| {
                (
                    *id,
                    open.proxy.clone(),
                    now.saturating_duration_since(open.since),
                    open.session.clone(),
                )
            })
            .collect();
        streams
            .into_iter()
            .map(|(stream, proxy, connected, session)| {
                let session = session.lock();
                StreamStatus {
                    stream,
                    proxy,
                    connected,
                    protocol: session.protocol(),
                    types: session.status(),
                }
            })
            .collect()
    }
}

impl NamedService for Ads {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<B> Service<http::Request<B>> for Ads
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let protocol = match request.uri().path().rsplit_once('/').map(|(_, method)| method) {
            Some("DeltaAggregatedResources") => Protocol::Delta,
            Some("StreamAggregatedResources") => Protocol::StateOfTheWorld,
            _ => return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) }),
        };
        let shared = self.shared.clone();
        Box::pin(async move {
            let limit = shared.settings.request_length;
            let mut grpc = Grpc::new(AdsCodec::new(protocol)).apply_max_message_size_config(Some(limit), None);
            Ok(grpc.streaming(Open { shared, protocol }, request).await)
        })
    }
}

struct Open {
    shared: Arc<Shared>,
    protocol: Protocol,
}

impl StreamingService<crate::wire::Request> for Open {
    type Response = crate::session::Response;
    type ResponseStream = Feed;
    type Future = BoxFuture<'static, Result<tonic::Response<Feed>, Status>>;

    fn call(&mut self, request: tonic::Request<tonic::Streaming<crate::wire::Request>>) -> Self::Future {
        let (shared, protocol) = (self.shared.clone(), self.protocol);
        Box::pin(async move {
            if *shared.draining.borrow() {
                return Err(Status::unavailable(
                    "this instance is shutting down: connect to another one",
                ));
            }
            if shared.streams.lock().len() >= shared.settings.streams {
                shared.metrics.refused.inc();
                return Err(Status::resource_exhausted(
                    "too many streams on this instance: try again or add replicas",
                ));
            }
            let id = shared.next.fetch_add(1, Ordering::Relaxed);
            let (_, extensions, inbound) = request.into_parts();
            Ok(tonic::Response::new(stream::start(
                shared, id, protocol, extensions, inbound,
            )))
        })
    }
}

#[cfg(test)]
mod tests;
