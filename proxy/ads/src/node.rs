//! What the proxy says of itself. Discovery believes none of it but the wish to be served on demand.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use std::collections::BTreeMap;

/// A proxy's self-description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `sidecar~<ip>~<pod>.<namespace>~<domain>`, or `router~…`.
    pub id: String,
    /// The workload's canonical name, for the control plane's own display.
    pub cluster: String,
    /// `NAMESPACE`, `SERVICE_ACCOUNT`, …
    pub metadata: BTreeMap<String, String>,
    /// The pod's labels, as `LABELS`.
    pub labels: BTreeMap<String, String>,
    /// Resources come by name when asked for (`MIZZEN_ON_DEMAND`); gateways want all of theirs.
    pub on_demand: bool,
    /// The proxy's version.
    pub version: String,
}

impl Node {
    pub(crate) fn to_message(&self) -> core::Node {
        let text = |text: &str| Value {
            kind: Some(Kind::StringValue(text.to_owned())),
        };
        let texts = |map: &BTreeMap<String, String>| Struct {
            fields: map.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        };
        let mut metadata = texts(&self.metadata);
        metadata.fields.insert(
            "LABELS".to_owned(),
            Value {
                kind: Some(Kind::StructValue(texts(&self.labels))),
            },
        );
        if self.on_demand {
            metadata.fields.insert("MIZZEN_ON_DEMAND".to_owned(), text("true"));
        }
        core::Node {
            id: self.id.clone(),
            cluster: self.cluster.clone(),
            metadata: Some(metadata),
            user_agent_name: "mizzen-proxy".to_owned(),
            user_agent_version_type: Some(core::node::UserAgentVersionType::UserAgentVersion(self.version.clone())),
            ..Default::default()
        }
    }
}
