//! A response: shared pieces, written once into the send buffer.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};

use super::Protocol;
use crate::{
    resource::{Resource, ResourceType},
    wire::{self, DELTA, STATE, field_length, put_bytes, put_text},
};

/// Names one response within its stream, over all kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonce(u64);

impl Nonce {
    pub(crate) fn new(number: u64) -> Self {
        Self(number)
    }

    pub(crate) fn is(self, text: &str) -> bool {
        text.parse() == Ok(self.0)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The kind of a response's resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeUrl {
    /// One that we serve.
    Known(ResourceType),
    /// One that a proxy asked for and we do not know.
    Unknown(Arc<str>),
}

impl TypeUrl {
    /// As it is written on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(kind) => kind.type_url(),
            Self::Unknown(url) => url,
        }
    }
}

/// One message to the proxy.
#[derive(Debug, Clone)]
pub struct Response {
    pub(crate) protocol: Protocol,
    pub(crate) type_url: TypeUrl,
    pub(crate) nonce: Nonce,
    /// State of the world only.
    pub(crate) version_info: String,
    pub(crate) resources: Vec<Arc<Resource>>,
    pub(crate) removed: Vec<Arc<str>>,
    pub(crate) changed_at: Option<Instant>,
}

impl Response {
    pub(crate) fn unknown(type_url: &str, nonce: Nonce, removed: Vec<Arc<str>>) -> Self {
        Self {
            protocol: Protocol::Delta,
            type_url: TypeUrl::Unknown(Arc::from(type_url)),
            nonce,
            version_info: String::new(),
            resources: Vec::new(),
            removed,
            changed_at: None,
        }
    }

    /// The kind of its resources.
    pub fn type_url(&self) -> &TypeUrl {
        &self.type_url
    }

    /// Its nonce.
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// The resources it carries.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The names that it says do not exist, or no longer (delta).
    pub fn removed(&self) -> &[Arc<str>] {
        &self.removed
    }

    /// Time from the change that caused it, if one did.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.changed_at.map(|at| now.saturating_duration_since(at))
    }

    /// How many bytes [`Response::encode`] writes.
    pub fn encoded_length(&self) -> usize {
        let layout = self.layout();
        let version = layout
            .version_info
            .map_or(0, |tag| field_length(tag, self.version_info.len()));
        let resources: usize = self
            .resources
            .iter()
            .map(|r| field_length(layout.resources, self.piece(r).len()))
            .sum();
        let removed: usize = layout.removed.map_or(0, |tag| {
            self.removed.iter().map(|name| field_length(tag, name.len())).sum()
        });
        version
            + resources
            + removed
            + field_length(layout.type_url, self.type_url.as_str().len())
            + field_length(layout.nonce, self.nonce.to_string().len())
    }

    /// Writes a `DeltaDiscoveryResponse` or a `DiscoveryResponse`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let layout = self.layout();
        if let Some(tag) = layout.version_info {
            put_text(tag, &self.version_info, out);
        }
        for resource in &self.resources {
            put_bytes(layout.resources, &self.piece(resource), out);
        }
        put_text(layout.type_url, self.type_url.as_str(), out);
        put_text(layout.nonce, &self.nonce.to_string(), out);
        if let Some(tag) = layout.removed {
            for name in &self.removed {
                put_text(tag, name, out);
            }
        }
    }

    /// The encoded message.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_length());
        self.encode(&mut out);
        out.freeze()
    }

    fn layout(&self) -> &'static wire::Layout {
        match self.protocol {
            Protocol::Delta => &DELTA,
            Protocol::StateOfTheWorld => &STATE,
        }
    }

    fn piece(&self, resource: &Resource) -> Bytes {
        match self.protocol {
            Protocol::Delta => resource.wrapped().clone(),
            Protocol::StateOfTheWorld => resource.any(),
        }
    }
}
