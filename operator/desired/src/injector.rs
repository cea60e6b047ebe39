//! The injector's settings: ConfigMap `istio-sidecar-injector-<name>`, key `values`.
//!
//! The text is the JSON of the injector's own `InjectConfig`; this crate knows its field names only, so that neither
//! depends on the other. What is not written has the injector's default.

use crate::pod::meta;
use crate::{Component, ValidatedMesh};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};

pub(crate) fn config_map(mesh: &ValidatedMesh) -> ConfigMap {
    let text = serde_json::to_string_pretty(&values(mesh)).unwrap_or_default();
    ConfigMap {
        metadata: meta(
            mesh,
            Component::MeshConfig,
            &format!("istio-sidecar-injector-{}", mesh.key().name),
        ),
        data: Some([("values".to_owned(), text)].into()),
        ..ConfigMap::default()
    }
}

fn values(mesh: &ValidatedMesh) -> Value {
    let spec = mesh.spec();
    let proxy = spec.proxy.clone().unwrap_or_default();
    let injection = proxy.injection.unwrap_or_default();
    let runtime = proxy.runtime.unwrap_or_default();
    let container = runtime.container.unwrap_or_default();
    let readiness = runtime.readiness.unwrap_or_default();
    let control = proxy.networking.and_then(|n| n.traffic_control).unwrap_or_default();
    let istiod = spec
        .security
        .as_ref()
        .and_then(|s| s.certificate_authority.as_ref())
        .and_then(|c| c.istiod.as_ref());

    let mut values = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            values.insert(key.to_owned(), value);
        }
    };
    set("revision", Some(json!(mesh.key().name)));
    set("meshNamespace", Some(json!(mesh.key().namespace)));
    set("images", Some(images(mesh, &container)));
    set("clusterWide", Some(json!(mesh.cluster_wide())));
    set("autoInject", Some(json!(injection.auto_inject.unwrap_or(false))));
    set("neverInjectSelector", injection.never_inject_selector.map(|s| json!(s)));
    set(
        "alwaysInjectSelector",
        injection.always_inject_selector.map(|s| json!(s)),
    );
    set("injectedAnnotations", injection.injected_annotations.map(|a| json!(a)));
    set("dataPlane", Some(json!(mesh.data_plane().as_str())));
    set("trustDomain", Some(json!(mesh.trust_domain())));
    set("clusterDomain", Some(json!(mesh.cluster_domain())));
    set("clusterId", Some(json!(mesh.cluster_id())));
    set(
        "network",
        spec.cluster.as_ref().and_then(|c| c.network.as_ref()).map(|n| json!(n)),
    );
    set(
        "certificateTtl",
        istiod
            .and_then(|i| i.workload_cert_ttl_default.as_ref())
            .map(|t| json!(t)),
    );
    set("capture", Some(capture(&control)));
    set("statusPort", readiness.status_port.map(|p| json!(p)));
    set("rewriteProbes", readiness.rewrite_application_probes.map(|r| json!(r)));
    let mut probe = Map::new();
    for (key, value) in [
        ("initialDelaySeconds", readiness.initial_delay_seconds),
        ("periodSeconds", readiness.period_seconds),
        ("failureThreshold", readiness.failure_threshold),
    ] {
        probe.extend(value.map(|value| (key.to_owned(), json!(value))));
    }
    set("readiness", (!probe.is_empty()).then_some(Value::Object(probe)));
    set("resources", crate::pod::resources(mesh, &container).map(|r| json!(r)));
    set("env", container.env.map(|e| json!(e)));
    set("concurrency", proxy.concurrency.filter(|c| *c > 0).map(|c| json!(c)));
    if let Some(logging) = proxy.logging {
        set("logLevel", logging.level.map(|level| json!(level)));
        let components = logging
            .component_levels
            .filter(|levels| !levels.is_empty())
            .map(|levels| {
                let pairs = levels
                    .iter()
                    .filter_map(|(name, level)| Some(format!("{name}:{}", json!(level).as_str()?)));
                json!(pairs.collect::<Vec<_>>().join(","))
            });
        set("componentLogLevel", components);
    }
    Value::Object(values)
}

fn images(mesh: &ValidatedMesh, container: &mizzen_crds::maistra::ContainerConfig) -> Value {
    let (registry, tag) = mesh.image_source(container);
    let secrets = container
        .image_pull_secrets
        .clone()
        .or_else(|| mesh.container_defaults().image_pull_secrets);
    let mut images = Map::new();
    let mut set = |key: &str, value: Value| {
        images.insert(key.to_owned(), value);
    };
    set("registry", json!(registry));
    set("tag", json!(tag));
    set("pullPolicy", json!(mesh.pull_policy(container)));
    if let Some(secrets) = secrets {
        set("pullSecrets", secrets.into_iter().map(|secret| secret.name).collect());
    }
    if let Some(name) = &container.image_name {
        set(mesh.data_plane().as_str(), json!(name));
    }
    Value::Object(images)
}

/// In the spelling of the pod annotations.
fn capture(control: &mizzen_crds::maistra::TrafficControlConfig) -> Value {
    let inbound = control.inbound.clone().unwrap_or_default();
    let outbound = control.outbound.clone().unwrap_or_default();
    let numbers = |ports: Vec<i32>| ports.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let mut capture = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        capture.extend(value.map(|value| (key.to_owned(), value)));
    };
    set("interceptionMode", inbound.interception_mode.map(|mode| json!(mode)));
    set(
        "includeInboundPorts",
        inbound.included_ports.map(|ports| json!(ports.join(","))),
    );
    set(
        "excludeInboundPorts",
        inbound.excluded_ports.map(|ports| json!(numbers(ports))),
    );
    set(
        "includeOutboundIpRanges",
        outbound.included_ip_ranges.map(|ranges| json!(ranges.join(","))),
    );
    set(
        "excludeOutboundIpRanges",
        outbound.excluded_ip_ranges.map(|ranges| json!(ranges.join(","))),
    );
    set(
        "excludeOutboundPorts",
        outbound.excluded_ports.map(|ports| json!(numbers(ports))),
    );
    Value::Object(capture)
}
