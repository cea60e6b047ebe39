//! Moves messages between the cache, the session and discovery, over one gRPC stream at a time.
//!
//! The token and the roots are read anew for each connection, since both rotate. While discovery is away the cache
//! stays as it is, wishes pile up as names (not as messages), and the next connection says them all.

mod error;
mod settings;

pub use error::ClientError;
pub use settings::{Settings, Status};

use crate::cache::Cache;
use crate::link::Link;
use crate::session::{DeltaRequest, DeltaResponse, Received};
use envoy_types::pb::envoy::service::discovery::v3 as pb;
use envoy_types::pb::google::rpc;
use pb::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use std::collections::VecDeque;
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// The client. [`Client::run`] it on any tokio runtime; dropping the future ends it.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    link: Link,
    status: watch::Sender<Status>,
}

/// Requests on their way; the session's answers are few and the rest waits in order.
const OUTBOX: usize = 16;

impl Client {
    /// A client that fills `cache`.
    #[must_use]
    pub fn new(settings: Settings, cache: Arc<Cache>) -> Self {
        let (status, _) = watch::channel(Status::default());
        Self {
            settings,
            link: Link::new(cache),
            status,
        }
    }

    /// How it is doing, now and later.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Connects, and connects again, until dropped.
    pub async fn run(mut self) {
        let mut backoff = self.settings.backoff;
        let mut sweeps = every(self.settings.sweep_every);
        loop {
            let answered = self.status.borrow().responses;
            let error = self.stream(&mut sweeps).await;
            self.link.disconnected();
            if self.status.borrow().responses > answered {
                backoff.reset();
            }
            let pause = backoff.next(random());
            tracing::warn!(error = %error, category = error.category(), retry_in = ?pause, "discovery is away");
            let text: Arc<str> = error.to_string().into();
            self.status.send_modify(|status| {
                status.connected = false;
                status.last_error = Some(text);
            });
            self.wait(pause, &mut sweeps).await;
        }
    }

    /// Waits; names that are asked for meanwhile are noted for the next connection.
    async fn wait(&mut self, pause: Duration, sweeps: &mut Interval) {
        let pause = sleep(pause);
        tokio::pin!(pause);
        let cache = Arc::clone(self.link.cache());
        loop {
            tokio::select! {
                () = &mut pause => return,
                () = cache.wished() => {}
                _ = sweeps.tick() => {
                    cache.sweep();
                }
            }
            // Not connected: nothing comes out of it.
            self.link.wishes();
        }
    }

    /// One stream, from connecting to its end.
    async fn stream(&mut self, sweeps: &mut Interval) -> ClientError {
        match self.try_stream(sweeps).await {
            Ok(()) => ClientError::Ended {
                address: self.settings.address.clone(),
            },
            Err(error) => error,
        }
    }

    async fn try_stream(&mut self, sweeps: &mut Interval) -> Result<(), ClientError> {
        let cache = Arc::clone(self.link.cache());
        let (request_tx, request_rx) = mpsc::channel(OUTBOX);
        let mut request = tonic::Request::new(ReceiverStream::new(request_rx));
        if let Some(token) = self.token()? {
            request.metadata_mut().insert("authorization", token);
        }
        let mut client = AggregatedDiscoveryServiceClient::new(self.connect().await?)
            .max_decoding_message_size(self.settings.max_message);
        let first = self.link.connected();
        let mut out = VecDeque::from(self.messages(first));
        // The server may wait for the first request before it says anything.
        let call = timeout(
            self.settings.connect_timeout,
            client.delta_aggregated_resources(request),
        );
        tokio::pin!(call);
        let mut incoming = loop {
            tokio::select! {
                begun = &mut call => match begun {
                    Err(_) => return Err(ClientError::Silent { address: self.settings.address.clone() }),
                    Ok(begun) => break begun.map_err(|status| self.ended(&status))?.into_inner(),
                },
                permit = request_tx.reserve(), if !out.is_empty() => send(permit, &mut out),
            }
        };
        self.status.send_modify(|status| {
            status.connected = true;
            status.connects += 1;
            status.last_error = None;
        });
        tracing::info!(address = %self.settings.address, "connected to discovery");
        loop {
            tokio::select! {
                message = incoming.message() => match message.map_err(|status| self.ended(&status))? {
                    None => return Ok(()),
                    Some(message) => out.extend(self.received(message)),
                },
                permit = request_tx.reserve(), if !out.is_empty() => send(permit, &mut out),
                () = cache.wished() => {
                    let wishes = self.link.wishes();
                    out.extend(self.messages(wishes));
                }
                _ = sweeps.tick() => {
                    cache.sweep();
                }
            }
        }
    }

    fn ended(&self, status: &tonic::Status) -> ClientError {
        ClientError::Stream {
            address: self.settings.address.clone(),
            code: status.code(),
            message: chain(status.message(), status.source()),
        }
    }

    async fn connect(&self) -> Result<Channel, ClientError> {
        let settings = &self.settings;
        let address = || settings.address.clone();
        let unusable = |error: tonic::transport::Error| ClientError::Address {
            address: address(),
            reason: chain(&error.to_string(), error.source()),
        };
        let mut endpoint = Endpoint::from_shared(settings.address.clone())
            .map_err(unusable)?
            .connect_timeout(settings.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(settings.keepalive)
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            // Configuration comes in small pieces: windows of megabytes would only be memory.
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(512 * 1024);
        if settings.address.starts_with("https:") {
            let pem = std::fs::read(&settings.roots).map_err(|source| ClientError::File {
                what: "mesh roots",
                path: settings.roots.display().to_string(),
                source,
            })?;
            let mut tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(pem))
                .timeout(settings.connect_timeout);
            if let Some(name) = &settings.server_name {
                tls = tls.domain_name(name.clone());
            }
            endpoint = endpoint.tls_config(tls).map_err(unusable)?;
        }
        // The handshake of HTTP/2 is not within tonic's own limit.
        match timeout(settings.connect_timeout.saturating_mul(2), endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(ClientError::Connect {
                address: address(),
                reason: chain(&error.to_string(), error.source()),
            }),
            Err(_) => Err(ClientError::Connect {
                address: address(),
                reason: "timed out".to_owned(),
            }),
        }
    }

    fn token(&self) -> Result<Option<tonic::metadata::MetadataValue<tonic::metadata::Ascii>>, ClientError> {
        let Some(path) = &self.settings.token else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|source| ClientError::File {
            what: "token",
            path: path.display().to_string(),
            source,
        })?;
        let mut value: tonic::metadata::MetadataValue<_> =
            format!("Bearer {}", text.trim())
                .parse()
                .map_err(|_| ClientError::Token {
                    path: path.display().to_string(),
                })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn messages(&self, requests: Vec<DeltaRequest>) -> Vec<pb::DeltaDiscoveryRequest> {
        requests.into_iter().map(|request| self.message(request)).collect()
    }

    fn received(&mut self, message: pb::DeltaDiscoveryResponse) -> Vec<pb::DeltaDiscoveryRequest> {
        let (requests, rejected) = self.link.received(response(message));
        self.status.send_modify(|status| {
            status.responses += 1;
            status.rejected += rejected;
        });
        self.messages(requests)
    }

    fn message(&self, request: DeltaRequest) -> pb::DeltaDiscoveryRequest {
        pb::DeltaDiscoveryRequest {
            node: request.first.then(|| self.settings.node.to_message()),
            type_url: request.type_url,
            resource_names_subscribe: request.subscribe,
            resource_names_unsubscribe: request.unsubscribe,
            initial_resource_versions: request.held.into_iter().collect(),
            response_nonce: request.nonce,
            // INVALID_ARGUMENT, as Envoy says it.
            error_detail: request.error.map(|message| rpc::Status {
                code: 3,
                message,
                details: Vec::new(),
            }),
            ..Default::default()
        }
    }
}

fn send(
    permit: Result<mpsc::Permit<'_, pb::DeltaDiscoveryRequest>, mpsc::error::SendError<()>>,
    out: &mut VecDeque<pb::DeltaDiscoveryRequest>,
) {
    // A closed channel means that the stream has ended, which the receiving side is about to tell.
    match (permit, out.pop_front()) {
        (Ok(permit), Some(message)) => permit.send(message),
        _ => out.clear(),
    }
}

fn response(message: pb::DeltaDiscoveryResponse) -> DeltaResponse {
    DeltaResponse {
        type_url: message.type_url,
        nonce: message.nonce,
        resources: message
            .resources
            .into_iter()
            .map(|resource| {
                let (type_url, body) = match resource.resource {
                    Some(any) => (any.type_url, Some(any.value)),
                    None => (String::new(), None),
                };
                Received {
                    name: resource.name,
                    aliases: resource.aliases,
                    version: resource.version,
                    type_url,
                    body,
                }
            })
            .collect(),
        removed: message.removed_resources,
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// An error with its causes in one line; tonic's own words are only "transport error".
fn chain(first: &str, mut source: Option<&(dyn Error + 'static)>) -> String {
    let mut text = first.to_owned();
    while let Some(error) = source {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = error.source();
    }
    text
}

/// Jitter needs no better randomness than a fresh hash key.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
