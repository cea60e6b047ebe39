//! What comes in for the application: `virtualInbound`.
//!
//! Each of the workload's ports has chains for mutual TLS and plain text, as peer authentication lets in, times HTTP and
//! bytes, as the port's protocol says (both, where nobody said: told apart by what the client offers in TLS, or by the
//! first bytes). A last set of chains, without a port, passes on what goes to ports that no service names. A connection that
//! no chain wants is closed.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use mizzen_model::{MtlsMode, Protocol, Service};
use std::sync::Arc;

use super::filter::{self, Side};
use super::{INBOUND_PORT, PLAIN_HTTP, base, http_inspector, original_destination, served_ports, texts, tls_inspector};
use crate::name::{BLACK_HOLE, ClusterName, INBOUND_PASSTHROUGH, VIRTUAL_INBOUND};
use crate::proto::number;
use crate::route;
use crate::tls::{ALPN_BYTES, ALPN_HTTP1, ALPN_HTTP2, mesh_server};
use crate::view::View;

/// What the mesh's clients offer when they speak HTTP; older ones of Istio's say the version too.
const MESH_HTTP: [&str; 3] = [ALPN_HTTP1, ALPN_HTTP2, "istio-http/1.0"];
/// What they offer at all. TLS that offers none of these is the application's own.
const MESH_ALL: [&str; 5] = [
    ALPN_HTTP1,
    ALPN_HTTP2,
    "istio-http/1.0",
    ALPN_BYTES,
    "istio-peer-exchange",
];

pub(super) fn capture(view: &View<'_>) -> listener::Listener {
    let (mode, excepted) = modes(view);
    let serving = served_ports(view);
    let mut chains = vec![filter::chain(
        "virtualInbound-blackhole",
        // sent to the sidecar itself, not redirected: it would come back for ever
        Some(listener::FilterChainMatch {
            destination_port: number(u32::from(INBOUND_PORT)),
            ..Default::default()
        }),
        filter::bytes(view, Side::Inbound, BLACK_HOLE, BLACK_HOLE),
        None,
    )];
    for (port, (protocol, services)) in &serving {
        let chained = Port {
            view,
            port: Some(*port),
            protocol: *protocol,
            mode: mode_at(view, *port),
            services,
        };
        chained.add_to(&mut chains);
    }
    // Ports that no service names, but a policy.
    for port in excepted.iter().filter(|port| !serving.contains_key(port)) {
        let chained = Port {
            view,
            port: Some(*port),
            protocol: Protocol::Auto,
            mode: mode_at(view, *port),
            services: &[],
        };
        chained.add_to(&mut chains);
    }
    Port {
        view,
        port: None,
        protocol: Protocol::Auto,
        mode,
        services: &[],
    }
    .add_to(&mut chains);

    let named = serving
        .keys()
        .copied()
        .chain(excepted.iter().copied())
        .collect::<BTreeSet<_>>();
    let detected = |port: u16| serving.get(&port).is_none_or(|(protocol, _)| protocol.is_auto());
    let plain_only: Vec<u16> = named
        .iter()
        .copied()
        .filter(|p| mode_at(view, *p) == MtlsMode::Disable)
        .collect();
    let no_detection: Vec<u16> = named
        .iter()
        .copied()
        .filter(|p| !detected(*p) || mode_at(view, *p) == MtlsMode::Strict)
        .collect();
    listener::Listener {
        filter_chains: chains,
        listener_filters: vec![
            original_destination(),
            // An application that speaks first must not wait until its client has: no first bytes are looked at
            // where nothing hangs on them.
            tls_inspector(at_ports(&plain_only)),
            http_inspector(at_ports(&no_detection)),
        ],
        ..base(view, VIRTUAL_INBOUND, INBOUND_PORT, core::TrafficDirection::Inbound)
    }
}

/// What the workload accepts at ports of which nothing is said, and the ports of which something is.
fn modes(view: &View<'_>) -> (MtlsMode, BTreeSet<u16>) {
    let mode = view.mesh.mtls_mode(view.namespace(), view.labels(), None);
    (mode, view.mesh.mtls_ports(view.namespace(), view.labels()))
}

fn mode_at(view: &View<'_>, port: u16) -> MtlsMode {
    view.mesh.mtls_mode(view.namespace(), view.labels(), Some(port))
}

/// Holds at those destination ports; none if there are none.
fn at_ports(ports: &[u16]) -> Option<listener::ListenerFilterChainMatchPredicate> {
    use listener::listener_filter_chain_match_predicate::{MatchSet, Rule};
    let rule = |port: &u16| listener::ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range {
            start: i32::from(*port),
            end: i32::from(*port) + 1, // half open
        })),
    };
    match ports {
        [] => None,
        [only] => Some(rule(only)),
        several => {
            let rules = several.iter().map(rule).collect(); // Envoy wants at least two in a set
            Some(listener::ListenerFilterChainMatchPredicate {
                rule: Some(Rule::OrMatch(MatchSet { rules })),
            })
        }
    }
}

/// A port of the workload, or all that have no chains of their own.
struct Port<'a> {
    view: &'a View<'a>,
    port: Option<u16>,
    protocol: Protocol,
    mode: MtlsMode,
    services: &'a [&'a Arc<Service>],
}

impl Port<'_> {
    /// Envoy looks for a chain step by step (port, transport, protocols offered) and never steps back: where a transport has
    /// one chain, it needs chains for all that may come by it.
    fn add_to(&self, chains: &mut Vec<listener::FilterChain>) {
        let (http, bytes) = (!self.protocol.is_bytes(), !self.protocol.is_http());
        if self.mode != MtlsMode::Disable {
            // In permissive mode other TLS is the application's own.
            let permissive = self.mode == MtlsMode::Permissive;
            let all: &[&str] = if permissive { &MESH_ALL } else { &[] };
            let bytes_only: &[&str] = if permissive {
                &[ALPN_BYTES, "istio-peer-exchange"]
            } else {
                &[]
            };
            match (http, bytes) {
                (true, false) => chains.push(self.chain("mtls-http", "tls", true, all)),
                (false, _) => chains.push(self.chain("mtls-tcp", "tls", false, all)),
                (true, true) => {
                    chains.push(self.chain("mtls-http", "tls", true, &MESH_HTTP));
                    chains.push(self.chain("mtls-tcp", "tls", false, bytes_only));
                }
            }
        }
        if self.mode != MtlsMode::Strict {
            if http {
                let detected: &[&str] = if bytes { &PLAIN_HTTP } else { &[] };
                chains.push(self.chain("plain-http", "raw_buffer", true, detected));
            }
            if bytes {
                chains.push(self.chain("plain-tcp", "raw_buffer", false, &[]));
                chains.push(self.chain("plain-tls", "tls", false, &[]));
            }
        }
    }

    fn chain(&self, kind: &str, transport: &str, http: bool, offered: &[&str]) -> listener::FilterChain {
        let wanted = listener::FilterChainMatch {
            destination_port: self.port.map(u32::from).and_then(number),
            transport_protocol: transport.to_owned(),
            application_protocols: texts(offered),
            ..Default::default()
        };
        let place = self
            .port
            .map_or_else(|| "virtualInbound".to_owned(), |port| format!("0.0.0.0_{port}"));
        let cluster = match self.port {
            Some(port) if !self.services.is_empty() => ClusterName::Inbound { port }.to_string(),
            _ => INBOUND_PASSTHROUGH.to_owned(),
        };
        let filter = if http {
            let routes = filter::inline(route::inbound(&cluster, self.port, self.services));
            filter::http(self.view, Side::Inbound, &format!("inbound_{place}"), routes)
        } else {
            filter::bytes(self.view, Side::Inbound, &cluster, &cluster)
        };
        let mesh = kind.starts_with("mtls").then(|| mesh_server(self.view.config()));
        filter::chain(&format!("{place}-{kind}"), Some(wanted), filter, mesh)
    }
}
