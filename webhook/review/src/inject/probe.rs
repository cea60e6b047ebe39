//! Probes led through the agent, so that the kubelet, which has no certificate, passes under STRICT.
//!
//! `httpGet`, `tcpSocket` and `grpc` probes and `httpGet`/`tcpSocket` lifecycle hooks become `httpGet` on the agent's port;
//! what they were goes to the agent in `ISTIO_KUBE_APP_PROBERS`. `exec` needs no network and stays.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, PodSpec, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{INIT, SIDECAR};

/// Path at the agent → what the application was asked.
pub(super) type Probers = BTreeMap<String, Value>;

/// Rewrites every container's probes and hooks.
pub(super) fn rewrite(spec: &mut PodSpec, status_port: u16, warnings: &mut Vec<String>) -> Probers {
    let mut probers = Probers::new();
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if container.name != SIDECAR && container.name != INIT {
            Rewriter {
                status_port,
                probers: &mut probers,
                warnings,
            }
            .container(container);
        }
    }
    probers
}

struct Rewriter<'a> {
    status_port: u16,
    probers: &'a mut Probers,
    warnings: &'a mut Vec<String>,
}

impl Rewriter<'_> {
    fn container(&mut self, container: &mut Container) {
        let name = container.name.clone();
        let ports: BTreeMap<String, i32> = container
            .ports
            .iter()
            .flatten()
            .filter_map(|port| Some((port.name.clone()?, port.container_port)))
            .collect();
        let probes = [
            ("readyz", &mut container.readiness_probe),
            ("livez", &mut container.liveness_probe),
            ("startupz", &mut container.startup_probe),
        ];
        for (kind, probe) in probes {
            if let Some(probe) = probe {
                self.probe(&format!("/app-health/{name}/{kind}"), probe, &ports);
            }
        }
        if let Some(lifecycle) = &mut container.lifecycle {
            let hooks = [
                ("prestopz", &mut lifecycle.pre_stop),
                ("poststartz", &mut lifecycle.post_start),
            ];
            for (kind, hook) in hooks {
                if let Some(hook) = hook {
                    self.hook(&format!("/app-lifecycle/{name}/{kind}"), hook, &ports);
                }
            }
        }
    }

    fn probe(&mut self, path: &str, probe: &mut Probe, ports: &BTreeMap<String, i32>) {
        let asked = if let Some(http) = &probe.http_get {
            self.http(path, http, ports)
        } else if let Some(tcp) = &probe.tcp_socket {
            self.tcp(path, tcp, ports)
        } else {
            // A port that is none stays, so that the API server refuses the pod as it would without us.
            probe.grpc.as_ref().filter(|grpc| is_port(grpc.port)).map(|grpc| {
                let mut asked = json!({"port": grpc.port});
                if let (Some(service), Some(fields)) = (&grpc.service, asked.as_object_mut()) {
                    fields.insert("service".to_owned(), json!(service));
                }
                json!({"grpc": asked})
            })
        };
        let Some(mut asked) = asked else { return };
        if let (Some(seconds), Some(fields)) = (probe.timeout_seconds, asked.as_object_mut()) {
            fields.insert("timeoutSeconds".to_owned(), json!(seconds));
        }
        self.probers.insert(path.to_owned(), asked);
        probe.http_get = Some(self.at_agent(path));
        probe.tcp_socket = None;
        probe.grpc = None;
    }

    fn hook(&mut self, path: &str, hook: &mut LifecycleHandler, ports: &BTreeMap<String, i32>) {
        let asked = if let Some(http) = &hook.http_get {
            self.http(path, http, ports)
        } else {
            hook.tcp_socket.as_ref().and_then(|tcp| self.tcp(path, tcp, ports))
        };
        let Some(asked) = asked else { return };
        self.probers.insert(path.to_owned(), asked);
        hook.http_get = Some(self.at_agent(path));
        hook.tcp_socket = None;
    }

    fn http(&mut self, path: &str, http: &HTTPGetAction, ports: &BTreeMap<String, i32>) -> Option<Value> {
        let port = self.port(path, &http.port, ports)?;
        let resolved = HTTPGetAction {
            port: IntOrString::Int(port),
            ..http.clone()
        };
        Some(json!({"httpGet": resolved}))
    }

    fn tcp(&mut self, path: &str, tcp: &TCPSocketAction, ports: &BTreeMap<String, i32>) -> Option<Value> {
        let port = self.port(path, &tcp.port, ports)?;
        let resolved = TCPSocketAction {
            port: IntOrString::Int(port),
            ..tcp.clone()
        };
        Some(json!({"tcpSocket": resolved}))
    }

    /// A port's number; a name that the container does not have leaves the probe as it is, failing as it would without us.
    /// So does a number that is no port: the API server refuses the pod, as it would without us.
    fn port(&mut self, path: &str, port: &IntOrString, ports: &BTreeMap<String, i32>) -> Option<i32> {
        let found = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => ports.get(name).copied().or_else(|| name.parse().ok()),
        };
        if found.is_none() {
            let IntOrString::String(name) = port else { return None };
            self.warnings.push(format!(
                "the probe that would be {path} names port {name:?}, which its container does not have: it is left as it is"
            ));
        }
        found.filter(|number| is_port(*number))
    }

    fn at_agent(&self, path: &str) -> HTTPGetAction {
        HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(self.status_port)),
            ..HTTPGetAction::default()
        }
    }
}

/// Whether the API server takes it for a port. One that is missing reads as 0.
fn is_port(number: i32) -> bool {
    u16::try_from(number).is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // B6: what the API server refuses without injection, it refuses with it
    #[test]
    fn probes_of_ports_that_do_not_exist_stay_as_they_are() {
        for probe in [
            json!({"httpGet": {"path": "/x"}}),
            json!({"httpGet": {"port": 0}}),
            json!({"httpGet": {"port": 65536}}),
            json!({"httpGet": {"port": "70000"}}),
            json!({"tcpSocket": {}}),
            json!({"tcpSocket": {"port": -1}}),
            json!({"grpc": {}}),
            json!({"grpc": {"port": 0}}),
            json!({"grpc": {"port": 65536}}),
        ] {
            let container = json!({"name": "app", "readinessProbe": probe});
            let mut spec: PodSpec = serde_json::from_value(json!({"containers": [container]})).unwrap();
            let before = spec.clone();
            let probers = rewrite(&mut spec, 15020, &mut Vec::new());
            assert_eq!(spec, before, "{probe}");
            assert_eq!(probers, Probers::new(), "{probe}");
        }
    }
}
