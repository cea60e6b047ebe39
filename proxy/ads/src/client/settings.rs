//! Where discovery is, and how the client is doing.

use crate::backoff::Backoff;
use crate::node::Node;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where discovery is and who we are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://istiod-basic.istio-system.svc:15012`; `http://` (tests, loopback) does without TLS.
    pub address: String,
    /// The name the server must prove; `None`: the address's host.
    pub server_name: Option<String>,
    /// PEM roots that vouch for the server.
    pub roots: PathBuf,
    /// The projected token; `None`: none is sent.
    pub token: Option<PathBuf>,
    /// What we say of ourselves.
    pub node: Node,
    /// Longest message accepted. Discovery splits answers at 256 KiB, but one resource may be larger.
    pub max_message: usize,
    /// Limit of a connection attempt, TLS included, and of the stream's beginning.
    pub connect_timeout: Duration,
    /// Time between HTTP/2 pings.
    pub keepalive: Duration,
    /// Time between sweeps of the cache.
    pub sweep_every: Duration,
    /// Pauses between attempts.
    pub backoff: Backoff,
}

impl Settings {
    /// Settings with the usual limits.
    #[must_use]
    pub fn new(address: impl Into<String>, roots: impl Into<PathBuf>, node: Node) -> Self {
        Self {
            address: address.into(),
            server_name: None,
            roots: roots.into(),
            token: None,
            node,
            max_message: 8 * 1024 * 1024,
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(30),
            sweep_every: Duration::from_secs(60),
            backoff: Backoff::default(),
        }
    }
}

/// How the client is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// A stream is open.
    pub connected: bool,
    /// Streams opened so far.
    pub connects: u64,
    /// Responses so far.
    pub responses: u64,
    /// Resources refused so far.
    pub rejected: u64,
    /// Why the last stream ended or could not be opened.
    pub last_error: Option<Arc<str>>,
}
