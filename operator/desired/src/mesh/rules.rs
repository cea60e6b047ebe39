//! The rules for single fields and between fields of one spec.

mod gateways;
mod runtime;

use super::{DataPlane, VERSION};
use crate::error::Collector;
use crate::{Problem, checks};
use gateways::gateways_rules;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_core::labels::Selector;
use mizzen_crds::maistra::{
    BackendType, ControlPlaneMode, ExtensionProvider, MeshConfig, ProxyConfig, SecurityConfig,
    ServiceMeshControlPlaneSpec, TracingType,
};
use runtime::{component_rules, container_rules, image_rules, resource_rules};
use std::collections::BTreeSet;

pub(super) fn check(spec: &ServiceMeshControlPlaneSpec, errors: &mut Collector) -> DataPlane {
    if let Some(version) = spec.version.as_ref().filter(|v| *v != VERSION) {
        errors.add(
            "spec.version",
            Problem::UnknownVersion {
                version: version.clone(),
                newest: VERSION,
            },
        );
    }
    removed(spec, errors);
    if let Some(mesh_config) = &spec.mesh_config {
        mesh_config_rules(spec, mesh_config, errors);
    }
    if let Some(sampling) = spec.tracing.as_ref().and_then(|tracing| tracing.sampling) {
        errors.check("spec.tracing.sampling", checks::range(sampling.into(), 0, 10_000));
    }
    if let Some(proxy) = &spec.proxy {
        proxy_rules(proxy, errors);
    }
    if let Some(security) = &spec.security {
        security_rules(security, errors);
    }
    if let Some(gateways) = &spec.gateways {
        gateways_rules(gateways, errors);
    }
    if let Some(runtime) = &spec.runtime {
        if let Some(container) = runtime.defaults.as_ref().and_then(|d| d.container.as_ref()) {
            let path = "spec.runtime.defaults.container";
            image_rules(
                path,
                container.image_registry.as_deref(),
                container.image_tag.as_deref(),
                container.image_pull_policy.as_deref(),
                errors,
            );
            resource_rules(path, container.resources.as_ref(), errors);
        }
        for (name, component) in runtime.components.iter().flatten() {
            component_rules(&format!("spec.runtime.components.{name}"), component, errors);
        }
    }
    data_plane(spec, errors)
}

/// What once was and is not any more.
fn removed(spec: &ServiceMeshControlPlaneSpec, errors: &mut Collector) {
    let kinds = [
        ("spec.policy.type", spec.policy.as_ref().and_then(|p| p.kind)),
        ("spec.telemetry.type", spec.telemetry.as_ref().and_then(|t| t.kind)),
    ];
    for (field, kind) in kinds {
        if matches!(kind, Some(BackendType::Mixer | BackendType::Remote)) {
            let what = "Mixer no longer exists";
            errors.add(
                field,
                Problem::Refused {
                    what,
                    remedy: "use `Istiod` or leave it out",
                },
            );
        }
    }
    if spec
        .addons
        .as_ref()
        .and_then(|a| a.three_scale.as_ref())
        .is_some_and(|t| t.enabled == Some(true))
    {
        let what = "the 3scale adapter no longer exists";
        errors.add(
            "spec.addons.3scale.enabled",
            Problem::Refused {
                what,
                remedy: "remove it, or set it to false",
            },
        );
    }
    let preview = spec.tech_preview.as_ref();
    if preview.is_some_and(|p| p.get("controlPlaneMode").is_some()) {
        let what = "this was an early spelling of spec.mode";
        errors.add(
            "spec.techPreview.controlPlaneMode",
            Problem::Refused {
                what,
                remedy: "use spec.mode",
            },
        );
    }
}

fn data_plane(spec: &ServiceMeshControlPlaneSpec, errors: &mut Collector) -> DataPlane {
    let value = spec.tech_preview.as_ref().and_then(|p| p.pointer("/mizzen/dataPlane"));
    match value.map(|v| v.as_str().unwrap_or_default()) {
        None | Some("native") => DataPlane::Native,
        Some("envoy") => DataPlane::Envoy,
        Some(other) => {
            let problem = Problem::UnknownValue {
                value: other.to_owned(),
                allowed: "`native`, `envoy`",
            };
            errors.add("spec.techPreview.mizzen.dataPlane", problem);
            DataPlane::Native
        }
    }
}

fn mesh_config_rules(spec: &ServiceMeshControlPlaneSpec, config: &MeshConfig, errors: &mut Collector) {
    if let Some(selectors) = &config.discovery_selectors {
        let field = "spec.meshConfig.discoverySelectors";
        if spec.mode != Some(ControlPlaneMode::ClusterWide) && !selectors.is_empty() {
            errors.add(
                field,
                Problem::Needs {
                    other: "spec.mode: ClusterWide",
                },
            );
        }
        selector_rules(field, selectors, errors);
    }
    let mut names = BTreeSet::new();
    for (n, provider) in config.extension_providers.iter().flatten().enumerate() {
        let field = format!("spec.meshConfig.extensionProviders[{n}]");
        if !names.insert(provider.name.as_str()) {
            errors.add(format!("{field}.name"), Problem::Duplicate(provider.name.clone()));
        }
        provider_rules(spec, &field, provider, errors);
    }
}

fn provider_rules(
    spec: &ServiceMeshControlPlaneSpec,
    field: &str,
    provider: &ExtensionProvider,
    errors: &mut Collector,
) {
    let kinds = [
        provider.prometheus.is_some(),
        provider.zipkin.is_some(),
        provider.opentelemetry.is_some(),
        provider.envoy_otel_als.is_some(),
        provider.envoy_ext_authz_http.is_some(),
        provider.envoy_ext_authz_grpc.is_some(),
    ];
    let kinds = kinds.iter().filter(|set| **set).count();
    if kinds != 1 {
        errors.add(
            field,
            Problem::NotOneProvider {
                name: provider.name.clone(),
                kinds,
            },
        );
    }
    let tracing = spec.tracing.as_ref().and_then(|t| t.kind);
    if provider.zipkin.is_some() && matches!(tracing, Some(TracingType::Jaeger | TracingType::Stackdriver)) {
        errors.add(
            format!("{field}.zipkin"),
            Problem::Excludes {
                other: "spec.tracing.type",
            },
        );
    }
    let ports = [
        ("zipkin", provider.zipkin.as_ref().map(|p| p.port)),
        ("opentelemetry", provider.opentelemetry.as_ref().map(|p| p.port)),
        ("envoyOtelAls", provider.envoy_otel_als.as_ref().map(|p| p.port)),
        (
            "envoyExtAuthzHttp",
            provider.envoy_ext_authz_http.as_ref().map(|p| p.port),
        ),
        (
            "envoyExtAuthzGrpc",
            provider.envoy_ext_authz_grpc.as_ref().map(|p| p.port),
        ),
    ];
    for (kind, port) in ports {
        if let Some(port) = port {
            errors.check(format!("{field}.{kind}.port"), checks::port(port.into(), 1));
        }
    }
    let timeouts = [
        (
            "envoyExtAuthzHttp",
            provider.envoy_ext_authz_http.as_ref().and_then(|p| p.timeout.as_ref()),
        ),
        (
            "envoyExtAuthzGrpc",
            provider.envoy_ext_authz_grpc.as_ref().and_then(|p| p.timeout.as_ref()),
        ),
    ];
    for (kind, timeout) in timeouts {
        if let Some(timeout) = timeout {
            errors.check(format!("{field}.{kind}.timeout"), checks::duration(timeout));
        }
    }
}

fn proxy_rules(proxy: &ProxyConfig, errors: &mut Collector) {
    if let Some(port) = proxy.admin_port {
        errors.check("spec.proxy.adminPort", checks::port(port.into(), 1));
    }
    if let Some(concurrency) = proxy.concurrency {
        errors.check("spec.proxy.concurrency", checks::range(concurrency.into(), 0, 1024));
    }
    if let Some(networking) = &proxy.networking {
        let auto_detect = networking.protocol.as_ref().and_then(|p| p.auto_detect.as_ref());
        let durations = [
            ("connectionTimeout", networking.connection_timeout.as_ref()),
            ("maxConnectionAge", networking.max_connection_age.as_ref()),
            (
                "protocol.autoDetect.timeout",
                auto_detect.and_then(|a| a.timeout.as_ref()),
            ),
            (
                "dns.refreshRate",
                networking.dns.as_ref().and_then(|d| d.refresh_rate.as_ref()),
            ),
        ];
        for (field, text) in durations {
            if let Some(text) = text {
                errors.check(format!("spec.proxy.networking.{field}"), checks::duration(text));
            }
        }
        let control = "spec.proxy.networking.trafficControl";
        if let Some(inbound) = networking.traffic_control.as_ref().and_then(|t| t.inbound.as_ref()) {
            let included = inbound.included_ports.as_deref().unwrap_or_default();
            let all = included.len() == 1 && included.iter().all(|p| p == "*");
            for (n, port) in included.iter().enumerate().filter(|_| !all) {
                errors.check(format!("{control}.inbound.includedPorts[{n}]"), checks::port_text(port));
            }
            for (n, port) in inbound.excluded_ports.iter().flatten().enumerate() {
                errors.check(
                    format!("{control}.inbound.excludedPorts[{n}]"),
                    checks::port((*port).into(), 1),
                );
            }
        }
        if let Some(outbound) = networking.traffic_control.as_ref().and_then(|t| t.outbound.as_ref()) {
            let ranges = [
                ("includedIPRanges", outbound.included_ip_ranges.as_ref()),
                ("excludedIPRanges", outbound.excluded_ip_ranges.as_ref()),
            ];
            for (field, ranges) in ranges {
                for (n, range) in ranges.into_iter().flatten().enumerate() {
                    errors.check(format!("{control}.outbound.{field}[{n}]"), checks::address_range(range));
                }
            }
            for (n, port) in outbound.excluded_ports.iter().flatten().enumerate() {
                errors.check(
                    format!("{control}.outbound.excludedPorts[{n}]"),
                    checks::port((*port).into(), 1),
                );
            }
        }
    }
    if let Some(injection) = &proxy.injection {
        let field = "spec.proxy.injection";
        for (name, selectors) in [
            ("alwaysInjectSelector", &injection.always_inject_selector),
            ("neverInjectSelector", &injection.never_inject_selector),
        ] {
            selector_rules(
                &format!("{field}.{name}"),
                selectors.as_deref().unwrap_or_default(),
                errors,
            );
        }
    }
    if let Some(runtime) = &proxy.runtime {
        if let Some(container) = &runtime.container {
            container_rules("spec.proxy.runtime.container", container, errors);
        }
        if let Some(readiness) = &runtime.readiness {
            let field = "spec.proxy.runtime.readiness";
            if let Some(port) = readiness.status_port {
                errors.check(format!("{field}.statusPort"), checks::port(port.into(), 0));
            }
            for (name, value, least) in [
                ("initialDelaySeconds", readiness.initial_delay_seconds, 0),
                ("periodSeconds", readiness.period_seconds, 1),
                ("failureThreshold", readiness.failure_threshold, 1),
            ] {
                if let Some(value) = value {
                    errors.check(
                        format!("{field}.{name}"),
                        checks::range(value.into(), least, i32::MAX.into()),
                    );
                }
            }
        }
    }
}

fn security_rules(security: &SecurityConfig, errors: &mut Collector) {
    if let Some(trust) = &security.trust {
        if let Some(domain) = &trust.domain {
            errors.check("spec.security.trust.domain", checks::trust_domain(domain));
        }
        for (n, domain) in trust.additional_domains.iter().flatten().enumerate() {
            errors.check(
                format!("spec.security.trust.additionalDomains[{n}]"),
                checks::trust_domain(domain),
            );
        }
    }
    if security.control_plane.as_ref().is_some_and(|c| c.mtls == Some(false)) {
        let what = "the control plane is never spoken to in plain text";
        errors.add(
            "spec.security.controlPlane.mtls",
            Problem::Refused {
                what,
                remedy: "leave it out or set it to true",
            },
        );
    }
    if let Some(istiod) = security.certificate_authority.as_ref().and_then(|c| c.istiod.as_ref()) {
        let signed = istiod.self_signed.as_ref();
        for (field, text) in [
            ("workloadCertTTLDefault", istiod.workload_cert_ttl_default.as_ref()),
            ("workloadCertTTLMax", istiod.workload_cert_ttl_max.as_ref()),
            ("selfSigned.ttl", signed.and_then(|s| s.ttl.as_ref())),
            ("selfSigned.checkPeriod", signed.and_then(|s| s.check_period.as_ref())),
        ] {
            if let Some(text) = text {
                errors.check(
                    format!("spec.security.certificateAuthority.istiod.{field}"),
                    checks::duration(text),
                );
            }
        }
    }
}

fn selector_rules(field: &str, selectors: &[LabelSelector], errors: &mut Collector) {
    for (n, selector) in selectors.iter().enumerate() {
        let parsed: Result<Selector, _> = selector.clone().try_into();
        errors.check(
            format!("{field}[{n}]"),
            parsed.map_err(|error| Problem::BadSelector(error.to_string())),
        );
    }
}
