//! What a pod's annotations ask of the injector, checked.
//!
//! In: annotations of one pod and the mesh's configuration. Out: [`PodOptions`], in which every value is sound, or an error
//! that names the annotation, the value and what to write; and warnings about what is known and not acted on.

mod reader;
mod value;

use mizzen_crds::yaml;
use mizzen_desired::is_quantity;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;

use crate::config::{Capture, DataPlane, InjectConfig, InterceptionMode};

use reader::Reader;
pub use value::AnnotationError;

/// Chooses the program that carries a pod's traffic.
pub const DATA_PLANE: &str = "sidecar.mizzen.io/data-plane";
/// Overlay of the proxy's configuration.
pub const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// Annotations of Istio that exist and that nothing here acts on yet: a pod that has one is injected with a warning.
const NOT_ACTED_ON: [&str; 16] = [
    "sidecar.istio.io/agentLogLevel",
    "sidecar.istio.io/bootstrapOverride",
    "sidecar.istio.io/capNetBindService",
    "sidecar.istio.io/extraStatTags",
    "sidecar.istio.io/proxyImageType",
    "sidecar.istio.io/statsCompression",
    "sidecar.istio.io/statsEvictionInterval",
    "sidecar.istio.io/statsFlushInterval",
    "sidecar.istio.io/statsHistogramBins",
    "sidecar.istio.io/statsHistogramBuckets",
    "sidecar.istio.io/statsInclusionPrefixes",
    "sidecar.istio.io/statsInclusionRegexps",
    "sidecar.istio.io/statsInclusionSuffixes",
    "readiness.status.sidecar.istio.io/applicationPorts",
    "ambient.istio.io/bypass-inbound-capture",
    "ambient.istio.io/redirection",
];

/// Fields of Istio's ProxyConfig that exist and that nothing here acts on yet.
const PROXY_CONFIG_NOT_ACTED_ON: [&str; 24] = [
    "availabilityZone",
    "binaryPath",
    "caCertificatesPem",
    "configPath",
    "controlPlaneAuthPolicy",
    "customConfigFile",
    "drainDuration",
    "envoyAccessLogService",
    "envoyMetricsService",
    "extraStatTags",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
    "gatewayTopology",
    "image",
    "privateKeyProvider",
    "proxyAdminPort",
    "proxyBootstrapTemplatePath",
    "proxyHeaders",
    "proxyStatsMatcher",
    "readinessProbe",
    "runtimeValues",
    "serviceCluster",
    "statNameLength",
    "tracing",
];

/// What one pod gets, its own wishes laid over the mesh's defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodOptions {
    pub(crate) data_plane: DataPlane,
    pub(crate) image: Option<String>,
    pub(crate) native_sidecar: bool,
    pub(crate) hold_application: bool,
    pub(crate) rewrite_probes: bool,
    pub(crate) merge_prometheus: bool,
    /// 0: no readiness probe, no rewriting of probes.
    pub(crate) status_port: u16,
    pub(crate) readiness_initial_delay: i32,
    pub(crate) readiness_period: i32,
    pub(crate) readiness_failures: i32,
    pub(crate) resources: ResourceRequirements,
    pub(crate) capture: Capture,
    pub(crate) excluded_interfaces: String,
    pub(crate) virtual_interfaces: String,
    pub(crate) log_level: String,
    pub(crate) component_log_level: String,
    pub(crate) concurrency: Option<u16>,
    pub(crate) drain: String,
    pub(crate) discovery_address: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) volume_mounts: Vec<VolumeMount>,
    pub(crate) warnings: Vec<String>,
}

/// The part of Istio's ProxyConfig that counts here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProxyConfig {
    concurrency: Option<u16>,
    discovery_address: Option<String>,
    hold_application_until_proxy_starts: Option<bool>,
    interception_mode: Option<InterceptionMode>,
    proxy_metadata: BTreeMap<String, String>,
    status_port: Option<u16>,
    termination_drain_duration: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

impl PodOptions {
    pub(crate) fn read(config: &InjectConfig, annotations: &BTreeMap<String, String>) -> Result<Self, AnnotationError> {
        let reader = Reader { annotations };
        let mut warnings: Vec<String> = NOT_ACTED_ON
            .iter()
            .filter(|annotation| annotations.contains_key(**annotation))
            .map(|annotation| format!("annotation {annotation} is not acted on by this version"))
            .collect();
        reader.read(
            "inject.istio.io/templates",
            "sidecar (the only template there is)",
            |value| {
                value
                    .split(',')
                    .all(|template| template.trim() == "sidecar")
                    .then_some(())
            },
        )?;

        let overlay = proxy_config(&reader, &mut warnings)?;
        let mut env = config.env.clone();
        env.extend(overlay.proxy_metadata);
        let drain = overlay
            .termination_drain_duration
            .unwrap_or_else(|| format!("{}s", config.drain_seconds));
        let discovery_address = reader
            .read("sidecar.istio.io/discoveryAddress", "host:port", value::host_port)?
            .or(overlay.discovery_address)
            .unwrap_or_else(|| config.ca_address());
        let hold = overlay
            .hold_application_until_proxy_starts
            .unwrap_or(config.hold_application_until_proxy_starts);
        let capture = capture(&reader, &config.capture, overlay.interception_mode)?;

        const INTERFACES: &str = "names of network interfaces separated by commas, such as net1,net2";
        let mut excluded_interfaces = String::new();
        reader.checked(
            "traffic.sidecar.istio.io/excludeInterfaces",
            INTERFACES,
            value::interfaces,
            &mut excluded_interfaces,
        )?;
        let mut virtual_interfaces = String::new();
        // The first is the older name of the second.
        for name in [
            "traffic.sidecar.istio.io/kubevirtInterfaces",
            "istio.io/reroute-virtual-interfaces",
        ] {
            reader.checked(name, INTERFACES, value::interfaces, &mut virtual_interfaces)?;
        }
        let mut log_level = config.log_level.clone();
        reader.checked(
            "sidecar.istio.io/logLevel",
            "trace, debug, info, warning, error, critical or off",
            value::log_level,
            &mut log_level,
        )?;
        let mut component_log_level = config.component_log_level.clone();
        reader.checked(
            "sidecar.istio.io/componentLogLevel",
            "component:level pairs separated by commas, such as misc:error,http:debug",
            value::component_log_levels,
            &mut component_log_level,
        )?;
        let natural = "a whole number from 0 to 2147483647";
        let positive = "a whole number from 1 to 2147483647";
        let seconds = |annotation, expected, least, default| -> Result<i32, AnnotationError> {
            let read = reader.read(annotation, expected, |value| {
                value.parse().ok().filter(|number| *number >= least)
            })?;
            Ok(read.unwrap_or(default))
        };
        Ok(Self {
            data_plane: reader
                .read(DATA_PLANE, "native or envoy", |value| match value {
                    "native" => Some(DataPlane::Native),
                    "envoy" => Some(DataPlane::Envoy),
                    _ => None,
                })?
                .unwrap_or(config.data_plane),
            image: reader.read(
                "sidecar.istio.io/proxyImage",
                "an image, such as localhost/mizzen/mizzen-proxy:1.0",
                |value| value::image(value).then(|| value.to_owned()),
            )?,
            native_sidecar: reader.flag("sidecar.istio.io/nativeSidecar", config.native_sidecar)?,
            hold_application: hold,
            rewrite_probes: reader.flag("sidecar.istio.io/rewriteAppHTTPProbers", config.rewrite_probes)?,
            merge_prometheus: reader.flag("prometheus.istio.io/merge-metrics", config.merge_prometheus)?,
            status_port: reader
                .read(
                    "status.sidecar.istio.io/port",
                    "a port from 1 to 65535, or 0 to switch health checks off",
                    |value| value.parse().ok(),
                )?
                .or(overlay.status_port)
                .unwrap_or(config.status_port),
            readiness_initial_delay: seconds(
                "readiness.status.sidecar.istio.io/initialDelaySeconds",
                natural,
                0,
                config.readiness.initial_delay_seconds,
            )?,
            readiness_period: seconds(
                "readiness.status.sidecar.istio.io/periodSeconds",
                positive,
                1,
                config.readiness.period_seconds,
            )?,
            readiness_failures: seconds(
                "readiness.status.sidecar.istio.io/failureThreshold",
                positive,
                1,
                config.readiness.failure_threshold,
            )?,
            resources: resources(&reader, &config.resources)?,
            capture,
            excluded_interfaces,
            virtual_interfaces,
            log_level,
            component_log_level,
            concurrency: overlay.concurrency.or(config.concurrency),
            drain,
            discovery_address,
            env,
            volumes: reader.json("sidecar.istio.io/userVolume", "volumes")?,
            volume_mounts: reader.json("sidecar.istio.io/userVolumeMount", "volume mounts")?,
            warnings,
        })
    }
}

fn proxy_config(reader: &Reader<'_>, warnings: &mut Vec<String>) -> Result<ProxyConfig, AnnotationError> {
    let Some(text) = reader.text(PROXY_CONFIG) else {
        return Ok(ProxyConfig::default());
    };
    let error = |expected: String| AnnotationError {
        annotation: PROXY_CONFIG,
        value: text.to_owned(),
        expected: expected.into(),
    };
    let overlay: ProxyConfig = serde_saphyr::from_str(text)
        .map_err(|e| error(format!("Istio's ProxyConfig as YAML ({})", yaml::reason(&e, 1))))?;
    for field in overlay.rest.keys() {
        if !PROXY_CONFIG_NOT_ACTED_ON.contains(&field.as_str()) {
            return Err(error(format!("only fields of Istio's ProxyConfig; {field} is none")));
        }
        warnings.push(format!(
            "annotation {PROXY_CONFIG}: {field} is not acted on by this version"
        ));
    }
    if let Some(drain) = &overlay.termination_drain_duration
        && !value::duration(drain)
    {
        return Err(error(
            "terminationDrainDuration as a duration such as 5s or 1m30s".to_owned(),
        ));
    }
    if let Some(address) = &overlay.discovery_address
        && value::host_port(address).is_none()
    {
        return Err(error("discoveryAddress as host:port".to_owned()));
    }
    if let Some(name) = overlay.proxy_metadata.keys().find(|name| !value::env_name(name)) {
        return Err(error(format!(
            "names of environment variables under proxyMetadata; {name:?} is none"
        )));
    }
    Ok(overlay)
}

fn capture(
    reader: &Reader<'_>,
    defaults: &Capture,
    overlay_mode: Option<InterceptionMode>,
) -> Result<Capture, AnnotationError> {
    const RANGES: &str = "CIDRs separated by commas, such as 10.96.0.0/16,192.168.1.7/32, or *";
    const RANGES_OUT: &str = "CIDRs separated by commas, such as 10.96.0.0/16,192.168.1.7/32";
    const PORTS: &str = "ports from 1 to 65535 separated by commas, such as 8080,9090";
    const PORTS_OR_ALL: &str = "ports from 1 to 65535 separated by commas, such as 8080,9090, or *";
    let mut capture = defaults.clone();
    if let Some(mode) = overlay_mode {
        capture.interception_mode = mode;
    }
    if let Some(mode) = reader.read(
        "sidecar.istio.io/interceptionMode",
        "REDIRECT, TPROXY or NONE",
        |value| match value {
            "REDIRECT" => Some(InterceptionMode::Redirect),
            "TPROXY" => Some(InterceptionMode::Tproxy),
            "NONE" => Some(InterceptionMode::None),
            _ => None,
        },
    )? {
        capture.interception_mode = mode;
    }
    let mut one = |annotation, expected, check: fn(&str) -> bool, field: fn(&mut Capture) -> &mut String| {
        reader.checked(annotation, expected, check, field(&mut capture))
    };
    one(
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
        RANGES,
        value::ranges_or_all,
        |c| &mut c.include_outbound_ip_ranges,
    )?;
    one(
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        RANGES_OUT,
        value::ranges,
        |c| &mut c.exclude_outbound_ip_ranges,
    )?;
    one(
        "traffic.sidecar.istio.io/includeInboundPorts",
        PORTS_OR_ALL,
        value::ports_or_all,
        |c| &mut c.include_inbound_ports,
    )?;
    one(
        "traffic.sidecar.istio.io/excludeInboundPorts",
        PORTS,
        value::ports,
        |c| &mut c.exclude_inbound_ports,
    )?;
    one(
        "traffic.sidecar.istio.io/includeOutboundPorts",
        PORTS,
        value::ports,
        |c| &mut c.include_outbound_ports,
    )?;
    one(
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        PORTS,
        value::ports,
        |c| &mut c.exclude_outbound_ports,
    )?;
    Ok(capture)
}

/// Any one of the four annotations discards the mesh's block, as in Istio.
fn resources(reader: &Reader<'_>, defaults: &ResourceRequirements) -> Result<ResourceRequirements, AnnotationError> {
    const EXPECTED: &str = "a quantity, such as 100m for CPU or 64Mi for memory";
    let quantity = |annotation| {
        reader.read(annotation, EXPECTED, |value| {
            is_quantity(value).then(|| Quantity(value.to_owned()))
        })
    };
    let requests = [
        ("cpu", quantity("sidecar.istio.io/proxyCPU")?),
        ("memory", quantity("sidecar.istio.io/proxyMemory")?),
    ];
    let limits = [
        ("cpu", quantity("sidecar.istio.io/proxyCPULimit")?),
        ("memory", quantity("sidecar.istio.io/proxyMemoryLimit")?),
    ];
    if requests.iter().chain(&limits).all(|(_, quantity)| quantity.is_none()) {
        return Ok(defaults.clone());
    }
    let block = |pairs: [(&str, Option<Quantity>); 2]| {
        let block: BTreeMap<String, Quantity> = pairs
            .into_iter()
            .filter_map(|(name, quantity)| Some((name.to_owned(), quantity?)))
            .collect();
        (!block.is_empty()).then_some(block)
    };
    Ok(ResourceRequirements {
        requests: block(requests),
        limits: block(limits),
        claims: None,
    })
}

#[cfg(test)]
mod tests;
