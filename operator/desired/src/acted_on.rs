//! Which fields change something today. The rest of the API is accepted, and reported by path.

use serde_json::Value;

/// Paths below `spec` that are acted on, with everything below them; `*` stands for one key.
const ACTED_ON: &[&str] = &[
    "profiles",
    "version",
    "mode",
    "techPreview.mizzen.dataPlane",
    "cluster.name",
    "cluster.network",
    "general.logging.logAsJSON",
    "general.logging.componentLevels.default",
    // Both say "as it is" when they say None or Istiod, and are refused otherwise.
    "policy.type",
    "telemetry.type",
    "proxy.logging",
    "proxy.concurrency",
    "proxy.accessLogging.file",
    "proxy.networking.clusterDomain",
    "proxy.networking.connectionTimeout",
    "proxy.networking.trafficControl",
    "proxy.networking.protocol.autoDetect.timeout",
    "proxy.runtime.readiness",
    "proxy.runtime.container.imageRegistry",
    "proxy.runtime.container.imageTag",
    "proxy.runtime.container.imageName",
    "proxy.runtime.container.imagePullPolicy",
    "proxy.runtime.container.imagePullSecrets",
    "proxy.runtime.container.resources",
    "proxy.runtime.container.env",
    "proxy.injection",
    "security.trust",
    "security.controlPlane.mtls",
    "security.dataPlane",
    "security.certificateAuthority.istiod.workloadCertTTLDefault",
    "security.certificateAuthority.istiod.workloadCertTTLMax",
    "gateways.enabled",
    "gateways.ingress.enabled",
    "gateways.ingress.service",
    "gateways.ingress.volumes",
    "gateways.ingress.runtime.deployment.replicas",
    "gateways.ingress.runtime.deployment.strategy",
    "gateways.ingress.runtime.pod",
    "gateways.ingress.runtime.container",
    "gateways.additionalIngress.*.enabled",
    "gateways.additionalIngress.*.service",
    "gateways.additionalIngress.*.volumes",
    "gateways.additionalIngress.*.runtime.deployment.replicas",
    "gateways.additionalIngress.*.runtime.deployment.strategy",
    "gateways.additionalIngress.*.runtime.pod",
    "gateways.additionalIngress.*.runtime.container",
    "runtime.defaults",
    "runtime.components.pilot.deployment.replicas",
    "runtime.components.pilot.deployment.strategy",
    "runtime.components.pilot.pod",
    "runtime.components.pilot.container",
];

/// The paths that a user's own spec sets and nothing acts on, sorted. A switch that is off asks for nothing.
pub(crate) fn missing(user: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(user, &mut Vec::new(), &mut found);
    found.sort();
    found
}

fn walk<'a>(value: &'a Value, path: &mut Vec<&'a str>, found: &mut Vec<String>) {
    if !path.is_empty() && ACTED_ON.iter().any(|pattern| covers(pattern, path)) {
        return;
    }
    match value {
        Value::Object(object) => {
            if object.get("enabled") == Some(&Value::Bool(false)) {
                return;
            }
            for (key, value) in object {
                path.push(key);
                walk(value, path, found);
                path.pop();
            }
        }
        Value::Null => {}
        _ => found.push(format!("spec.{}", path.join("."))),
    }
}

fn covers(pattern: &str, path: &[&str]) -> bool {
    let mut steps = path.iter();
    pattern
        .split('.')
        .all(|want| steps.next().is_some_and(|have| want == "*" || want == *have))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_without_effect_are_named() {
        let user = json!({
            "profiles": ["demo"],
            "tracing": {"type": "Jaeger", "sampling": 100},
            "addons": {"kiali": {"enabled": false, "name": "k"}, "grafana": {"enabled": true}},
            "gateways": {"additionalIngress": {"edge": {"enabled": true, "namespace": "x"}}},
            "proxy": {"runtime": {"container": {"resources": {"requests": {"cpu": "1"}}}}, "adminPort": 15000},
        });
        assert_eq!(
            missing(&user),
            [
                "spec.addons.grafana.enabled",
                "spec.gateways.additionalIngress.edge.namespace",
                "spec.proxy.adminPort",
                "spec.tracing.sampling",
                "spec.tracing.type",
            ]
        );
    }

    #[test]
    fn no_pattern_covers_half_a_word() {
        assert!(!covers("proxy.injection", &["proxy", "injectionMode"]));
        assert!(!covers("proxy.injection", &["proxy"]));
        assert!(covers("a.*.c", &["a", "b", "c", "d"]));
    }
}
