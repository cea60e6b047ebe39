//! Who the other sidecar is, for metric labels: Istio's peer metadata exchange in HTTP headers.
//!
//! In: our own workload, or the headers that a peer sent. Out: `x-envoy-peer-metadata` (a base64 protobuf `Struct`) or
//! the [`Workload`] read from it. It is told once per connection; nothing is decided by it but labels, since a peer can
//! claim what it likes there: the principal comes from its certificate.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};

use crate::telemetry::Workload;

/// Header with the node id of the sender.
pub const PEER_ID: &[u8] = b"x-envoy-peer-metadata-id";
/// Header with its metadata.
pub const PEER: &[u8] = b"x-envoy-peer-metadata";

/// A metadata header longer than this is not looked at.
const LIMIT: usize = 8 * 1024;

/// The header value that tells who `own` is.
pub fn encode(own: &Workload) -> String {
    let text = |value: &str| Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    };
    let labels = [
        ("app", &own.app),
        ("version", &own.version),
        ("service.istio.io/canonical-name", &own.canonical_service),
        ("service.istio.io/canonical-revision", &own.canonical_revision),
    ];
    let labels = Struct {
        fields: labels
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), text(value)))
            .collect(),
    };
    let fields = [
        ("NAMESPACE".to_owned(), text(&own.namespace)),
        ("WORKLOAD_NAME".to_owned(), text(&own.name)),
        ("CLUSTER_ID".to_owned(), text(&own.cluster)),
        (
            "LABELS".to_owned(),
            Value {
                kind: Some(Kind::StructValue(labels)),
            },
        ),
    ];
    STANDARD.encode(
        Struct {
            fields: fields.into_iter().collect(),
        }
        .encode_to_vec(),
    )
}

/// Reads a peer's metadata; `None` when it cannot be read.
pub fn decode(header: &[u8]) -> Option<Workload> {
    if header.len() > LIMIT {
        return None;
    }
    let all = Struct::decode(STANDARD.decode(header).ok()?.as_slice()).ok()?;
    let text = |from: &Struct, name: &str| match from.fields.get(name).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(value)) => Arc::from(value.as_str()),
        _ => Arc::from(""),
    };
    let empty = Struct::default();
    let labels = match all.fields.get("LABELS").and_then(|value| value.kind.as_ref()) {
        Some(Kind::StructValue(labels)) => labels,
        _ => &empty,
    };
    Some(Workload {
        name: text(&all, "WORKLOAD_NAME"),
        namespace: text(&all, "NAMESPACE"),
        principal: Arc::from(""),
        app: text(labels, "app"),
        version: text(labels, "version"),
        cluster: text(&all, "CLUSTER_ID"),
        canonical_service: text(labels, "service.istio.io/canonical-name"),
        canonical_revision: text(labels, "service.istio.io/canonical-revision"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload {
            name: Arc::from("reviews-v2"),
            namespace: Arc::from("shop"),
            principal: Arc::from(""),
            app: Arc::from("reviews"),
            version: Arc::from("v2"),
            cluster: Arc::from("Kubernetes"),
            canonical_service: Arc::from("reviews-canonical"),
            canonical_revision: Arc::from("v2-canonical"),
        }
    }

    // F1
    #[test]
    fn what_one_sidecar_tells_the_other_understands() {
        assert_eq!(decode(encode(&workload()).as_bytes()), Some(workload()));
    }

    #[test]
    fn garbage_is_no_workload() {
        assert_eq!(decode(b"!!!"), None);
        assert_eq!(decode(&vec![b'A'; LIMIT + 1]), None);
    }
}
