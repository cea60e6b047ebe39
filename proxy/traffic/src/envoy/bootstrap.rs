//! Envoy's bootstrap: everything dynamic comes over one stream through our Unix socket.

use std::path::Path;

use serde_json::{Value, json};

use super::EnvoyConfig;
use crate::settings::Settings;

/// The static cluster for discovery.
const DISCOVERY: &str = "xds-grpc";
/// The static cluster for secrets and reports; discovery names it in the resources that it sends.
const SECRETS: &str = "sds-grpc";

/// The xDS node of this proxy.
pub(super) fn node(settings: &Settings) -> Value {
    json!({
        "id": settings.node_id(),
        "cluster": format!("{}.{}", settings.canonical_service(), settings.namespace),
        "metadata": {
            "NAME": settings.pod,
            "NAMESPACE": settings.namespace,
            "SERVICE_ACCOUNT": settings.service_account,
            "WORKLOAD_NAME": settings.workload,
            "CLUSTER_ID": settings.cluster,
            "NETWORK": settings.network,
            "INTERCEPTION_MODE": settings.interception,
            "INSTANCE_IPS": settings.ip.to_string(),
            "LABELS": settings.labels,
        },
    })
}

/// The whole bootstrap.
pub fn bootstrap(config: &EnvoyConfig) -> Value {
    let ads = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    json!({
        "node": config.node,
        "admin": { "address": address("127.0.0.1", config.admin_port) },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": DISCOVERY } }],
            },
            // Without a limit: a proxy that knows nothing must not call itself ready.
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {
            "clusters": [
                local(DISCOVERY, &config.discovery_socket),
                local(SECRETS, &config.secret_socket),
            ],
        },
        "stats_config": { "use_all_default_tags": true },
        "overload_manager": { "resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                // Far above what a pod's file descriptors allow: it only bounds what could exhaust memory.
                "max_active_downstream_connections": "1000000",
            },
        }] },
        "layered_runtime": {
            "layers": [{ "name": "static", "static_layer": {
                // As Istio: large regular expressions in routes are a matter of the control plane's validation.
                "re2.max_program_size.error_level": 32768,
            } }],
        },
    })
}

fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port } })
}

fn local(name: &str, socket: &Path) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "pipe": { "path": socket } } } }] }],
        },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        } },
    })
}
