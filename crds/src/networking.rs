//! Traffic management, API group `networking.istio.io`: how requests enter the mesh, where they go, and how.

pub mod destination_rule;
pub mod gateway;
pub mod virtual_service;

pub use destination_rule::{DestinationRule, DestinationRuleSpec};
pub use gateway::{Gateway, GatewaySpec};
pub use virtual_service::{VirtualService, VirtualServiceSpec};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The API group of the traffic management kinds.
pub const GROUP: &str = "networking.istio.io";

/// Names a port of a service.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortSelector {
    /// The port's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    pub number: Option<u32>,
}

/// Where traffic goes: a service, or a subset of its endpoints.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// A service of the registry. A name without dots means the service of that name in this object's namespace.
    pub host: String,
    /// The name of a subset that a DestinationRule for the host defines; none means all endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The service's port; may be left out when the service has just one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortSelector>,
}
