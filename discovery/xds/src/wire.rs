//! The messages of the aggregated discovery service, with just the fields that we read, and how responses are written.
//!
//! Our own, not the generated ones, for two reasons: a response here is a list of shared, already encoded pieces that are
//! copied once into the send buffer; and a request's node, which Envoy fills with the names of all its extensions, is skipped over.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// `envoy.config.core.v3.Node`: what a proxy says of itself. Nothing follows from it but what it asked to be told by.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// `sidecar~<ip>~<pod>.<namespace>~<domain>` or `router~…`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Free-form metadata.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<prost_types::Struct>,
    /// The program (`envoy`, `mizzen-proxy`).
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
}

/// `google.rpc.Status` in a rejection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ErrorDetail {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// Why the response was rejected, in the proxy's words.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaRequest {
    /// Present in the first request of a stream at least.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// The kind of resource.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names to add.
    #[prost(string, repeated, tag = "3")]
    pub subscribe: Vec<String>,
    /// Names to drop.
    #[prost(string, repeated, tag = "4")]
    pub unsubscribe: Vec<String>,
    /// What the proxy has from an earlier stream: name to version.
    #[prost(btree_map = "string, string", tag = "5")]
    pub initial_versions: BTreeMap<String, String>,
    /// The response that this acknowledges or rejects.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Makes it a rejection.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<ErrorDetail>,
}

/// `envoy.service.discovery.v3.DiscoveryRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StateRequest {
    /// The version that the proxy has.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Present in the first request of a stream at least.
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    /// All names that the proxy wants.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// The kind of resource.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// The response that this acknowledges or rejects.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Makes it a rejection.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<ErrorDetail>,
}

/// A request of either protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Delta.
    Delta(DeltaRequest),
    /// State of the world.
    State(StateRequest),
}

impl Request {
    /// The node, if this request carries it.
    pub fn node(&self) -> Option<&Node> {
        match self {
            Self::Delta(request) => request.node.as_ref(),
            Self::State(request) => request.node.as_ref(),
        }
    }
}

/// Field numbers of a response, which differ between the protocols.
pub(crate) struct Layout {
    pub(crate) version_info: Option<u32>,
    pub(crate) resources: u32,
    pub(crate) type_url: u32,
    pub(crate) nonce: u32,
    pub(crate) removed: Option<u32>,
}

pub(crate) const DELTA: Layout = Layout {
    version_info: None,
    resources: 2,
    type_url: 4,
    nonce: 5,
    removed: Some(6),
};
pub(crate) const STATE: Layout = Layout {
    version_info: Some(1),
    resources: 2,
    type_url: 4,
    nonce: 5,
    removed: None,
};

pub(crate) fn field_length(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

pub(crate) fn put_text(tag: u32, text: &str, out: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(text.len() as u64, out);
    out.put_slice(text.as_bytes());
}

pub(crate) fn put_bytes(tag: u32, bytes: &Bytes, out: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}
