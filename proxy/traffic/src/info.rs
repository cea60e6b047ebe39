//! What is known of a client's connection, for all its requests.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mizzen_proxy_config::{Direction, HttpConnection, RouteConfig, ServiceRef, VirtualHost};

use crate::conn::Conn;
use crate::heads;
use crate::metadata;
use crate::telemetry::{PeerId, PeerLabels, Reporter, ServiceLabels, Workload};
use crate::tls::Peer;
use crate::worker::Worker;

/// A client's connection, for the requests on it.
#[derive(Debug)]
pub struct Info {
    /// The worker that serves it.
    pub worker: Rc<Worker>,
    /// How HTTP is spoken on it.
    pub http: Arc<HttpConnection>,
    /// Into or out of the workload, or at a gateway.
    pub direction: Direction,
    /// The client.
    pub remote: SocketAddr,
    /// Where it wanted to go (the original destination).
    pub local: SocketAddr,
    /// TLS ended here.
    pub secure: bool,
    /// It speaks HTTP/2.
    pub h2: bool,
    /// Who the client proved to be.
    pub peer: Option<Arc<Peer>>,
    /// Our own SPIFFE id; empty without an identity.
    pub own: Arc<str>,
    /// What `x-forwarded-client-cert` says of the client.
    pub client_cert: Option<Arc<str>>,
    /// Server name of the TLS handshake.
    pub server_name: String,
    /// TLS version; empty without.
    pub tls_version: &'static str,
    /// Number of the connection, for logs.
    pub id: u64,
    told: RefCell<Option<Workload>>,
    labels: RefCell<Vec<(Option<Arc<ServiceRef>>, PeerId)>>,
    /// The virtual host that the last request had, with what it was found by.
    pub host: RefCell<Option<KnownHost>>,
    /// Faults that delay requests right now.
    pub faults: Cell<u32>,
}

/// A virtual host found by virtual-host discovery.
#[derive(Debug)]
pub struct KnownHost {
    /// The authority as the client wrote it.
    pub authority: Vec<u8>,
    /// The configuration's generation when it was found.
    pub generation: u64,
    /// The route configuration.
    pub config: Arc<RouteConfig>,
    /// The virtual host.
    pub host: Arc<VirtualHost>,
}

impl Info {
    /// Facts of `conn`, which a filter chain with `http` took.
    pub fn new(
        worker: Rc<Worker>,
        http: Arc<HttpConnection>,
        direction: Direction,
        remote: SocketAddr,
        local: SocketAddr,
        conn: &Conn,
    ) -> Self {
        thread_local! {
            static NEXT: Cell<u64> = const { Cell::new(0) };
        }
        let own = worker
            .shared
            .svids
            .current()
            .map(|svid| svid.spiffe().clone())
            .unwrap_or_default();
        let client_cert = conn.peer.as_ref().map(|peer| heads::client_cert_text(&own, peer));
        Self {
            http,
            direction,
            remote,
            local,
            secure: conn.is_tls(),
            h2: false,
            peer: conn.peer.clone(),
            own,
            client_cert,
            server_name: conn.server_name().unwrap_or_default().to_owned(),
            tls_version: conn.tls_version().unwrap_or_default(),
            id: NEXT.replace(NEXT.get() + 1),
            told: RefCell::default(),
            labels: RefCell::default(),
            host: RefCell::default(),
            faults: Cell::new(0),
            worker,
        }
    }

    /// Whether traffic leaves the workload here.
    pub fn outbound(&self) -> bool {
        self.direction != Direction::Inbound
    }

    /// Who reports metrics.
    pub fn reporter(&self) -> Reporter {
        if self.outbound() {
            Reporter::Source
        } else {
            Reporter::Destination
        }
    }

    /// Takes what the peer says of itself (once per connection).
    pub fn hear(&self, header: &[u8]) {
        if self.outbound() || self.told.borrow().is_some() {
            return;
        }
        if let Some(workload) = metadata::decode(header) {
            *self.told.borrow_mut() = Some(workload);
            self.labels.borrow_mut().clear();
        }
    }

    /// Labels for requests of this client to a service of ours; at the other end, when no upstream was reached.
    pub fn labels(&self, service: Option<&Arc<ServiceRef>>) -> PeerId {
        let same = |known: &Option<Arc<ServiceRef>>| match (known, service) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if let Some((_, id)) = self.labels.borrow().iter().find(|(known, _)| same(known)) {
            return *id;
        }
        let peer = if self.outbound() {
            Workload::default()
        } else {
            self.client()
        };
        let id = self.worker.shard.peer(PeerLabels {
            reporter: self.reporter(),
            peer,
            service: service
                .map(|service| ServiceLabels::from(&**service))
                .unwrap_or_default(),
            mutual_tls: self.peer.is_some(),
        });
        let mut labels = self.labels.borrow_mut();
        // A connection that calls many services keeps only the latest.
        if labels.len() >= 16 {
            labels.clear();
        }
        labels.push((service.cloned(), id));
        id
    }

    /// The client's workload: what it said of itself, and what its certificate proves.
    fn client(&self) -> Workload {
        let mut workload = self.told.borrow().clone().unwrap_or_default();
        if let Some(peer) = &self.peer {
            workload.principal = peer.spiffe.clone();
            // The namespace is in the identity, so it is known even when nothing was said.
            if let Some(namespace) = namespace_of(&peer.spiffe) {
                workload.namespace = Arc::from(namespace);
            }
        }
        workload
    }
}

/// The namespace of `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
pub fn namespace_of(spiffe: &str) -> Option<&str> {
    let (_, rest) = spiffe.split_once("/ns/")?;
    rest.split_once("/sa/").map(|(namespace, _)| namespace)
}
