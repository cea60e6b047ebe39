//! The mesh's configuration as Istio writes it: ConfigMap `istio-<name>`, key `mesh`; and the mesh-wide policy.

use crate::pod::meta;
use crate::{Component, ValidatedMesh, gateway};
use k8s_openapi::api::core::v1::ConfigMap;
use mizzen_crds::security::peer_authentication::{
    MutualTls, MutualTlsMode, PeerAuthentication, PeerAuthenticationSpec,
};
use serde_json::{Map, Value, json};

const COMPONENT: Component = Component::MeshConfig;

pub(crate) fn config_map(mesh: &ValidatedMesh) -> ConfigMap {
    let text = serde_saphyr::to_string(&mesh_config(mesh)).unwrap_or_default();
    ConfigMap {
        metadata: meta(mesh, COMPONENT, &format!("istio-{}", mesh.key().name)),
        data: Some([("mesh".to_owned(), text)].into()),
        ..ConfigMap::default()
    }
}

/// Istio's MeshConfig in its own words; below `mizzen` what it has no word for.
fn mesh_config(mesh: &ValidatedMesh) -> Value {
    let spec = mesh.spec();
    let security = spec.security.as_ref();
    let proxy = spec.proxy.as_ref();
    let networking = proxy.and_then(|p| p.networking.as_ref());
    let outbound = networking
        .and_then(|n| n.traffic_control.as_ref())
        .and_then(|t| t.outbound.as_ref());
    let detection = networking
        .and_then(|n| n.protocol.as_ref())
        .and_then(|p| p.auto_detect.as_ref());

    let mut config = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(key.to_owned(), value);
        }
    };
    set("rootNamespace", Some(json!(mesh.key().namespace)));
    set("trustDomain", Some(json!(mesh.trust_domain())));
    let aliases = security
        .and_then(|s| s.trust.as_ref())
        .and_then(|t| t.additional_domains.as_ref());
    set("trustDomainAliases", aliases.map(|domains| json!(domains)));
    let auto = security
        .and_then(|s| s.data_plane.as_ref())
        .and_then(|d| d.automtls)
        .unwrap_or(true);
    set("enableAutoMtls", Some(json!(auto)));
    set(
        "outboundTrafficPolicy",
        outbound.and_then(|o| o.policy).map(|policy| json!({ "mode": policy })),
    );
    set(
        "connectTimeout",
        networking.and_then(|n| n.connection_timeout.as_ref()).map(|t| json!(t)),
    );
    set(
        "protocolDetectionTimeout",
        detection.and_then(|d| d.timeout.as_ref()).map(|t| json!(t)),
    );
    if let Some(file) = proxy
        .and_then(|p| p.access_logging.as_ref())
        .and_then(|a| a.file.as_ref())
    {
        set("accessLogFile", file.name.as_ref().map(|name| json!(name)));
        set("accessLogEncoding", file.encoding.map(|encoding| json!(encoding)));
        set("accessLogFormat", file.format.as_ref().map(|format| json!(format)));
    }
    set("enablePrometheusMerge", Some(json!(true)));
    let mesh_config = spec.mesh_config.as_ref();
    set(
        "discoverySelectors",
        mesh_config
            .and_then(|m| m.discovery_selectors.as_ref())
            .map(|s| json!(s)),
    );
    set("defaultConfig", Some(default_config(mesh)));
    set(
        "mizzen",
        Some(json!({
            "mode": if mesh.cluster_wide() { "ClusterWide" } else { "MultiTenant" },
            "dataPlane": mesh.data_plane().as_str(),
            "clusterDomain": mesh.cluster_domain(),
            "clusterId": mesh.cluster_id(),
            "gateways": gateways(mesh),
        })),
    );
    Value::Object(config)
}

/// Where each gateway is entered: discovery must know it even while somebody has deleted the gateway's Service.
fn gateways(mesh: &ValidatedMesh) -> Vec<Value> {
    let services = gateway::gateways(mesh)
        .into_iter()
        .map(|own| gateway::service(mesh, &own));
    let parts = services.map(|service| {
        let spec = service.spec.unwrap_or_default();
        json!({
            "metadata": { "name": service.metadata.name },
            "spec": { "selector": spec.selector, "ports": spec.ports },
        })
    });
    parts.collect()
}

fn default_config(mesh: &ValidatedMesh) -> Value {
    let address = format!("{}.{}.svc:15012", mesh.istiod(), mesh.key().namespace);
    let mut config = Map::from_iter([("discoveryAddress".to_owned(), json!(address))]);
    if let Some(concurrency) = mesh.spec().proxy.as_ref().and_then(|p| p.concurrency) {
        config.insert("concurrency".to_owned(), json!(concurrency));
    }
    Value::Object(config)
}

/// Mesh-wide refusal of plain text, if the spec asks for it. Otherwise there is none, and workloads accept both.
pub(crate) fn peer_authentication(mesh: &ValidatedMesh) -> Option<PeerAuthentication> {
    let data_plane = mesh.spec().security.as_ref().and_then(|s| s.data_plane.as_ref());
    (data_plane.and_then(|d| d.mtls) == Some(true)).then(|| PeerAuthentication {
        metadata: meta(mesh, COMPONENT, "default"),
        spec: PeerAuthenticationSpec {
            mtls: Some(MutualTls {
                mode: Some(MutualTlsMode::Strict),
            }),
            ..PeerAuthenticationSpec::default()
        },
        status: None,
    })
}
