//! Request bodies in protobuf: what kubectl and client-go send for built-in kinds.
//!
//! In: bytes that start with `k8s\0`. Out: the object as JSON. Never: a response; those are JSON, which every client accepts.

use serde_json::Value;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtobufError {
    /// The bytes are no `k8s\0` envelope or break off.
    #[error("provided data does not appear to be a protobuf message: {0}")]
    Malformed(&'static str),
    /// A kind of which no messages are known here: answer 415 Unsupported Media Type.
    #[error("the body of the request was in an unknown format: {api_version}, Kind={kind} is not read as protobuf")]
    UnknownKind {
        /// The group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
}

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Decodes an envelope into the object with its `apiVersion` and `kind`.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let _ = body;
    todo!()
}
