//! Envoy's side of the comparison: configuration as lean as it can be for the same work.
//!
//! Static, two workers, connection managers with the router alone, HTTP/2 between the two (which is cheapest for it),
//! TLS with the same authority, both names checked. No filters of Istio's, no access log.

#![expect(
    clippy::indexing_slicing,
    reason = "a field of a JSON object that was just written here"
)]

use serde_json::{Value, json};

use crate::place::{AUTHORITY, HOST, PORT, SERVER, Side};
use crate::world::ROUTES_ABOVE;

/// Where it answers questions, on loopback.
pub(crate) const ADMIN_PORT: u16 = 15000;

/// Files of a side, by what they are.
#[derive(Debug)]
pub(crate) struct Files {
    /// The side's certificate in PEM.
    pub(crate) certificate: String,
    /// Its key.
    pub(crate) key: String,
    /// The mesh's root.
    pub(crate) root: String,
}

/// The whole configuration of a side's Envoy.
pub(crate) fn bootstrap(side: Side, files: &Files) -> Value {
    let (listener, cluster) = match side {
        Side::Client => (
            listener(15001, "outbound", outbound_routes(), None),
            outbound_cluster(files),
        ),
        Side::Server => (
            listener(15006, "inbound", inbound_routes(), Some(downstream_tls(files))),
            own_application(),
        ),
    };
    json!({
        "admin": {"address": address("127.0.0.1", ADMIN_PORT)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    })
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

fn listener(port: u16, name: &str, virtual_host: Value, socket: Option<Value>) -> Value {
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "stream_idle_timeout": "0s",
        "normalize_path": true,
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
        "route_config": {"name": name, "virtual_hosts": [virtual_host], "ignore_port_in_host_matching": true},
    });
    let mut chain = json!({});
    if let Some(socket) = socket {
        manager["forward_client_cert_details"] = json!("APPEND_FORWARD");
        manager["set_current_client_cert_details"] = json!({"subject": true, "uri": true, "dns": true});
        chain["transport_socket"] = socket;
    }
    chain["filters"] = json!([{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]);
    json!({"name": name, "address": address("0.0.0.0", port), "filter_chains": [chain]})
}

fn outbound_routes() -> Value {
    let retries = json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "retriable_status_codes": [503],
    });
    let to = |prefix: String| {
        json!({
            "match": {"prefix": prefix},
            "route": {"cluster": "outbound", "timeout": "0s", "retry_policy": retries},
        })
    };
    let mut routes: Vec<Value> = (0..ROUTES_ABOVE).map(|index| to(format!("/above/{index}/"))).collect();
    routes.push(to("/".to_owned()));
    json!({"name": "backend", "domains": [HOST, "backend", AUTHORITY], "routes": routes})
}

fn inbound_routes() -> Value {
    json!({
        "name": "inbound",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "inbound", "timeout": "0s"}}],
    })
}

fn cluster(name: &str, host: &str, port: u16) -> Value {
    let most = u32::MAX;
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{
            "max_connections": most, "max_pending_requests": most, "max_requests": most, "max_retries": most,
        }]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(host, port)}},
        ]}]},
    })
}

fn own_application() -> Value {
    // By loopback, which the redirect rules leave alone.
    cluster("inbound", "127.0.0.1", PORT)
}

fn outbound_cluster(files: &Files) -> Value {
    let mut cluster = cluster("outbound", &SERVER.to_string(), PORT);
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    cluster["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": tls(files, &Side::Server.identity()),
            "sni": format!("outbound_.{PORT}_._.{HOST}"),
        },
    });
    cluster
}

fn downstream_tls(files: &Files) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": tls(files, &Side::Client.identity()),
            "require_client_certificate": true,
        },
    })
}

fn tls(files: &Files, peer: &str) -> Value {
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificates": [{
            "certificate_chain": {"filename": files.certificate},
            "private_key": {"filename": files.key},
        }],
        "validation_context": {
            "trusted_ca": {"filename": files.root},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    })
}
