//! From Envoy's messages to our types. One file per message family; helpers shared by them are here.
//!
//! A problem of a *part* (a route, a filter chain) is noted in [`Problems`] and the part fails closed; a problem of the
//! resource itself is returned.

mod access_log;
mod cluster;
mod endpoint;
mod fields;
mod format;
mod http;
mod listener;
mod matchers;
mod route;
mod tls;
mod virtual_host;

#[cfg(test)]
mod tests;

use crate::error::{At, ConfigError, Problems};
use crate::resource::{Kind, Outcome, Resource, XdsType};
use crate::{Cluster, EndpointSet, Listener, RouteConfig, VirtualHost};
use envoy_types::pb::envoy::config::{
    cluster::v3 as cluster_pb, endpoint::v3 as endpoint_pb, listener::v3 as listener_pb, route::v3 as route_pb,
};
use prost::Message;
use std::sync::Arc;

type Result<T> = std::result::Result<T, ConfigError>;

/// Decodes `body` and hands it to `convert`.
fn decoded<M, T>(root: &str, body: &[u8], convert: impl FnOnce(&At<'_>, M, &mut Problems) -> Result<T>) -> Outcome<T>
where
    M: Message + Default,
{
    let at = At::root(root);
    let mut problems = Problems::default();
    let result = M::decode(body)
        .map_err(|source| ConfigError::Malformed {
            at: at.to_string(),
            source,
        })
        .and_then(|message| convert(&at, message, &mut problems));
    Outcome::from_parts(result, problems)
}

macro_rules! xds_types {
    ($($type:ident, $message:path, $root:literal, $convert:path, $name:ident;)*) => {$(
        impl XdsType for $type {
            const KIND: Kind = Kind::$name;

            fn decode(body: &[u8]) -> Outcome<Self> {
                decoded::<$message, _>($root, body, $convert)
            }

            fn resource_name(&self) -> &str {
                &self.name
            }

            fn wrap(value: Arc<Self>) -> Resource {
                Resource::$name(value)
            }

            fn unwrap(resource: &Resource) -> Option<&Arc<Self>> {
                match resource {
                    Resource::$name(value) => Some(value),
                    _ => None,
                }
            }
        }
    )*};
}

xds_types! {
    Cluster, cluster_pb::Cluster, "cluster", cluster::cluster, Cluster;
    EndpointSet, endpoint_pb::ClusterLoadAssignment, "endpoints", endpoint::endpoint_set, Endpoints;
    Listener, listener_pb::Listener, "listener", listener::listener, Listener;
    RouteConfig, route_pb::RouteConfiguration, "route_config", virtual_host::route_config, RouteConfig;
    VirtualHost, route_pb::VirtualHost, "virtual_host", virtual_host::virtual_host, VirtualHost;
}
