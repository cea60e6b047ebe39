//! The mesh as one proxy sees it, in Envoy's words (xDS v3).
//!
//! In: a [`Mesh`] and a [`Scope`], which says who the proxy is (from its proven identity and the workload the index
//! knows, never from what it says of itself). Out: [`Resource`]s with their encoded bytes, one at a time by name; the
//! [`names`] of a whole type for proxies that want all; and whether a change [`affected`] one. Never: reads a clock,
//! keeps state, knows streams. The same mesh and scope give the same bytes, in whatever order the mesh became known.
//!
//! Everything is accepted by an unmodified Envoy 1.40; the native proxy reads the same messages. Two things differ: the
//! native proxy may ask for virtual hosts on demand, and Envoy's listeners report to the process beside it what metrics are
//! made of (`report`). Should a proxy refuse a route configuration all the same, [`vet`] finds whose routes it may be.
//!
//! # Names
//! | type | names |
//! |---|---|
//! | cluster | `outbound\|<port>\|<subset>\|<host>`, its sibling `outbound-tcp\|…` (below), `inbound\|<port>\|\|`, `PassthroughCluster`, `BlackHoleCluster`, `InboundPassthroughCluster` |
//! | endpoints | those of the outbound clusters; the siblings share them |
//! | listener | `virtualOutbound`, `virtualInbound`, `<service address>_<port>` (bytes, or protocol not said), `0.0.0.0_<port>` (HTTP; gateways) |
//! | route | `<port>`; at gateways `http.<port>` |
//! | virtual host | `<port>/<authority>`, for proxies that ask on demand |
//!
//! # What is spoken between sidecars
//! The client offers one application protocol in TLS: `istio-http/1.1` for HTTP, `istio-h2` for HTTP/2, `istio` for
//! bytes. The server chooses its filter chain by it and negotiates none: which HTTP it is, the first bytes say. A
//! service port whose protocol nobody said has two clusters, since only the client's listener sees whether HTTP or bytes
//! are spoken: `outbound|…` for HTTP (upstream as the client speaks) and `outbound-tcp|…` for bytes.
//!
//! # How a request reaches the application
//! Inbound traffic is redirected to port 15006; the address it was sent to is the pod's. `inbound|<port>||` connects
//! to just that address (an original-destination cluster) from 127.0.0.6, by which the redirect rules know
//! (and let pass) what the sidecar sends to its own application. So applications may listen on the pod's address or on all,
//! and see no difference between being called with and without a mesh.

mod access_log;
mod affected;
mod cluster;
mod endpoint;
mod listener;
mod name;
mod proto;
mod report;
mod resource;
mod route;
mod scope;
mod tls;
pub mod vet;
mod view;

use mizzen_model::Mesh;
use prost::Message;

pub use affected::{affected, names_affected};
pub use name::{ClusterName, VirtualHostName};
pub use resource::{Resource, TypeUrl, Version};
pub use scope::{NodeKind, Scope, ScopeError, SharedKeys};
use view::View;

/// The names of all resources of a type that the proxy uses, sorted: what a wildcard subscription is answered with.
/// Endpoints, routes and virtual hosts are asked for by name: for these there are none.
#[must_use]
pub fn names(mesh: &Mesh, scope: &Scope, type_url: TypeUrl) -> Vec<String> {
    let view = View::new(mesh, scope);
    let names = match type_url {
        TypeUrl::Cluster => cluster::names(&view),
        TypeUrl::Listener => listener::names(&view),
        TypeUrl::Endpoints | TypeUrl::Route | TypeUrl::VirtualHost => return Vec::new(),
    };
    names.into_iter().collect()
}

/// One resource; none if there is no such thing for that proxy.
#[must_use]
pub fn resource(mesh: &Mesh, scope: &Scope, type_url: TypeUrl, name: &str) -> Option<Resource> {
    let view = View::new(mesh, scope);
    let body = match type_url {
        TypeUrl::Cluster => cluster::cluster(&view, &ClusterName::parse(name)?)?.encode_to_vec(),
        TypeUrl::Endpoints => endpoint::endpoints(&view, &ClusterName::parse(name)?)?.encode_to_vec(),
        TypeUrl::Listener => listener::listener(&view, name)?.encode_to_vec(),
        TypeUrl::Route => route::configuration(&view, name)?.encode_to_vec(),
        TypeUrl::VirtualHost => route::on_demand(&view, &VirtualHostName::parse(name)?)?.encode_to_vec(),
    };
    Some(Resource::new(type_url, name, body))
}
