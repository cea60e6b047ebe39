//! Where traffic can go.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use mizzen_model::{
    ClientTls, Destination, Endpoint, H2Upgrade, HttpAction, Policy, Protocol, Service, ServicePort, SimpleLb,
    SubsetName, TrafficPolicy,
};

use crate::name::{BLACK_HOLE, ClusterName, INBOUND_PASSTHROUGH, PASSTHROUGH};
use crate::proto::{ads, duration, list, metadata, numeric, object, ordered, socket_address, text};
use crate::tls;
use crate::view::View;

mod http;
mod limits;

use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy, TransportSocketMatch};

/// All clusters that the proxy may use.
pub(crate) fn names(view: &View<'_>) -> BTreeSet<String> {
    if view.is_gateway() {
        return gateway_names(view);
    }
    let fixed = [
        ClusterName::Passthrough,
        ClusterName::BlackHole,
        ClusterName::InboundPassthrough,
    ];
    let mut names: BTreeSet<String> = fixed.iter().map(ToString::to_string).collect();
    for service in view.mesh.visible_services(view.namespace()) {
        let mut subsets: Vec<Option<SubsetName>> = vec![None];
        subsets.extend(
            view.rules(&service.host)
                .subsets()
                .into_iter()
                .map(|subset| Some(subset.name.clone())),
        );
        for port in service.ports.iter().filter(|port| port.protocol.is_carried()) {
            for subset in &subsets {
                let name = |bytes| ClusterName::Outbound {
                    port: port.number,
                    subset: subset.clone(),
                    host: service.host.clone(),
                    bytes,
                };
                names.insert(name(false).to_string());
                if port.protocol.is_auto() {
                    names.insert(name(true).to_string());
                }
            }
        }
    }
    let own = view
        .workload
        .into_iter()
        .flat_map(|workload| &workload.services)
        .flat_map(|service| &service.ports);
    names.extend(own.map(|(_, port)| ClusterName::Inbound { port: *port }.to_string()));
    names
}

/// A gateway needs the clusters that its routes name and no others.
fn gateway_names(view: &View<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::from([BLACK_HOLE.to_owned()]);
    for (port, route) in crate::route::gateway_routes(view) {
        let mut add = |destination: &Destination, bytes| {
            let name = view.cluster_of(destination, port, bytes);
            if cluster(view, &name).is_some() {
                names.insert(name.to_string());
            }
        };
        for http in crate::route::http_routes(view, route) {
            http.mirrors.iter().for_each(|mirror| add(&mirror.destination, false));
            if let HttpAction::Forward(destinations) = &http.action {
                destinations
                    .iter()
                    .for_each(|weighted| add(&weighted.destination, false));
            }
        }
        let bytes = route
            .tls
            .iter()
            .map(|tls| &tls.destinations)
            .chain(route.tcp.iter().map(|tcp| &tcp.destinations));
        bytes.flatten().for_each(|weighted| add(&weighted.destination, true));
    }
    names
}

/// The cluster of that name, if there is one for the proxy.
pub(crate) fn cluster(view: &View<'_>, name: &ClusterName) -> Option<cluster::Cluster> {
    match name {
        ClusterName::Outbound {
            port,
            subset,
            host,
            bytes,
        } => {
            let service = view.service(host)?;
            let port = service.port(*port).filter(|port| port.protocol.is_carried())?;
            if *bytes && !port.protocol.is_auto() {
                return None;
            }
            let outbound = Outbound {
                view,
                service,
                port,
                subset: subset.as_ref(),
                bytes: *bytes,
            };
            outbound.cluster(name)
        }
        ClusterName::Inbound { port } if !view.is_gateway() => inbound(view, name, *port),
        ClusterName::Inbound { .. } => None,
        ClusterName::BlackHole => Some(cluster::Cluster {
            name: BLACK_HOLE.to_owned(),
            connect_timeout: duration(view.config().connect_timeout),
            cluster_discovery_type: discovery(DiscoveryType::Static),
            ..Default::default()
        }),
        ClusterName::Passthrough => Some(original_destination(view, PASSTHROUGH)),
        ClusterName::InboundPassthrough => Some(cluster::Cluster {
            upstream_bind_config: Some(own_application(Ipv4Addr::new(127, 0, 0, 6).into())),
            ..original_destination(view, INBOUND_PASSTHROUGH)
        }),
    }
}

fn discovery(kind: DiscoveryType) -> Option<ClusterDiscoveryType> {
    Some(ClusterDiscoveryType::Type(kind.into()))
}

fn original_destination(view: &View<'_>, name: &str) -> cluster::Cluster {
    cluster::Cluster {
        name: name.to_owned(),
        connect_timeout: duration(view.config().connect_timeout),
        cluster_discovery_type: discovery(DiscoveryType::OriginalDst),
        lb_policy: LbPolicy::ClusterProvided.into(),
        circuit_breakers: Some(limits::circuit_breakers(None)),
        typed_extension_protocol_options: http::options(http::Upstream::AsDownstream, None, false),
        ..Default::default()
    }
}

/// The source address by which the redirect rules know what the sidecar sends to its own application.
fn own_application(address: IpAddr) -> core::BindConfig {
    core::BindConfig {
        source_address: Some(socket_address(address, 0)),
        ..Default::default()
    }
}

fn inbound(view: &View<'_>, name: &ClusterName, port: u16) -> Option<cluster::Cluster> {
    let serving = crate::listener::served_ports(view);
    let (protocol, services) = serving.get(&port)?;
    let upstream = match protocol {
        protocol if protocol.is_http2() => http::Upstream::Http2,
        Protocol::Auto => http::Upstream::AsDownstream,
        protocol if protocol.is_bytes() => http::Upstream::Bytes,
        _ => http::Upstream::Http1,
    };
    let sixth = match view.workload.and_then(|workload| workload.addresses.first()) {
        Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
        _ => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
    };
    Some(cluster::Cluster {
        typed_extension_protocol_options: http::options(upstream, None, false),
        upstream_bind_config: Some(own_application(sixth)),
        metadata: metadata(vec![(
            "istio",
            vec![("services", list(services.iter().map(|s| about(s)).collect()))],
        )]),
        ..original_destination(view, &name.to_string())
    })
}

fn about(service: &Service) -> envoy_types::pb::google::protobuf::Value {
    object(vec![
        ("host", text(service.host.as_str())),
        ("name", text(service.name.as_str())),
        ("namespace", text(service.namespace.as_str())),
    ])
}

/// A port of a service, or of a subset of it.
struct Outbound<'a> {
    view: &'a View<'a>,
    service: &'a Service,
    port: &'a ServicePort,
    subset: Option<&'a SubsetName>,
    bytes: bool,
}

impl Outbound<'_> {
    fn cluster(&self, name: &ClusterName) -> Option<cluster::Cluster> {
        let (view, service) = (self.view, self.service);
        let rules = view.rules(&service.host);
        if let Some(subset) = self.subset {
            rules.subset(subset)?;
        }
        let policy = rules.policy(self.subset, self.port.number);
        let pool = policy.connection_pool;
        let mut about_cluster = vec![
            ("default_original_port", numeric(self.port.number)),
            ("services", list(vec![about(service)])),
        ];
        if let Some(subset) = self.subset {
            about_cluster.push(("subset", text(subset.as_str())));
        }
        let follows = policy.tls.as_ref().is_some_and(tls::follows_request);
        let mut built = cluster::Cluster {
            name: name.to_string(),
            connect_timeout: duration(
                pool.and_then(|pool| pool.tcp.connect_timeout)
                    .unwrap_or(view.config().connect_timeout),
            ),
            circuit_breakers: Some(limits::circuit_breakers(pool.as_ref())),
            outlier_detection: policy.outlier.as_ref().map(limits::outlier_detection),
            common_lb_config: policy.outlier.as_ref().map(limits::panic_threshold),
            upstream_connection_options: pool.and_then(|pool| pool.tcp.keepalive).map(limits::keepalive),
            typed_extension_protocol_options: http::options(self.upstream(&policy), pool.as_ref(), follows),
            metadata: metadata(vec![("istio", about_cluster)]),
            ..Default::default()
        };
        let as_addressed = self.as_addressed(&policy);
        if as_addressed {
            built.cluster_discovery_type = discovery(DiscoveryType::OriginalDst);
            built.lb_policy = LbPolicy::ClusterProvided.into();
        } else {
            built.cluster_discovery_type = discovery(DiscoveryType::Eds);
            built.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: ads(),
                // Both siblings share the endpoints.
                service_name: view.cluster_of_port(&service.host, self.port.number, self.subset.cloned(), false),
            });
            limits::balance(&mut built, policy.load_balancer.as_ref());
        }
        self.protect(&mut built, &policy, as_addressed);
        Some(built)
    }

    /// Whether the address that the client connected to decides: a headless service, whose clients chose one already.
    /// At a gateway nobody did.
    fn as_addressed(&self, policy: &TrafficPolicy) -> bool {
        let asked = policy.load_balancer.as_ref().map(|lb| &lb.policy);
        let passthrough = asked == Some(&Policy::Simple(SimpleLb::Passthrough));
        let headless = self.service.headless() && self.subset.is_none() && !matches!(asked, Some(Policy::Hash { .. }));
        !self.view.is_gateway() && (passthrough || headless)
    }

    fn upstream(&self, policy: &TrafficPolicy) -> http::Upstream {
        let pool = policy.connection_pool.map(|pool| pool.http).unwrap_or_default();
        let protocol = self.port.protocol;
        if self.bytes || protocol.is_bytes() {
            http::Upstream::Bytes
        } else if protocol.is_http2() || pool.h2_upgrade == H2Upgrade::Yes {
            http::Upstream::Http2
        } else if protocol.is_auto() || pool.use_client_protocol {
            http::Upstream::AsDownstream
        } else {
            http::Upstream::Http1
        }
    }

    fn protect(&self, built: &mut cluster::Cluster, policy: &TrafficPolicy, as_addressed: bool) {
        let upstream = self.upstream(policy);
        match &policy.tls {
            None if self.view.config().auto_mtls => {
                let mesh = self.mesh_tls(None, &[], upstream);
                if as_addressed {
                    // There is no endpoint to tell by, so all have to take it.
                    built.transport_socket = self.all_take_mtls().then_some(mesh);
                } else {
                    built.transport_socket_matches = vec![
                        socket_match("tlsMode-istio", Some(("tlsMode", "istio")), mesh),
                        socket_match("tlsMode-disabled", None, tls::raw()),
                    ];
                }
            }
            None | Some(ClientTls::Disable) => {}
            Some(ClientTls::Mesh { sni, subject_alt_names }) => {
                built.transport_socket = Some(self.mesh_tls(sni.as_deref(), subject_alt_names, upstream));
            }
            Some(other) => {
                let alpn: &[&str] = match upstream {
                    http::Upstream::Http2 => &["h2"],
                    http::Upstream::Http1 => &["http/1.1"],
                    http::Upstream::AsDownstream | http::Upstream::Bytes => &[],
                };
                built.transport_socket = tls::other_client(other, alpn);
            }
        }
    }

    fn mesh_tls(
        &self,
        sni: Option<&str>,
        names: &[std::sync::Arc<str>],
        upstream: http::Upstream,
    ) -> core::TransportSocket {
        let alpn = match upstream {
            http::Upstream::Bytes => tls::ALPN_BYTES,
            http::Upstream::Http2 => tls::ALPN_HTTP2,
            http::Upstream::Http1 | http::Upstream::AsDownstream => tls::ALPN_HTTP1,
        };
        let identities: BTreeSet<String> = if names.is_empty() {
            self.endpoints()
                .filter_map(|endpoint| endpoint.identity.as_ref())
                .map(ToString::to_string)
                .collect()
        } else {
            names.iter().map(ToString::to_string).collect()
        };
        let own = || {
            let subset = self.subset.map_or("", SubsetName::as_str);
            format!("outbound_.{}_.{subset}_.{}", self.port.number, self.service.host)
        };
        tls::mesh_client(&identities, sni.map_or_else(own, ToOwned::to_owned), alpn)
    }

    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.view
            .mesh
            .endpoints(&self.service.host)
            .into_iter()
            .flat_map(|endpoints| endpoints.iter())
    }

    fn all_take_mtls(&self) -> bool {
        let mut at_port = self
            .endpoints()
            .filter_map(|found| Some((found, *found.ports.get(&self.port.number)?)));
        let takes = |(found, port): (&Endpoint, u16)| self.view.mesh.takes_mtls(found, port);
        at_port.next().is_some_and(takes) && at_port.all(takes)
    }
}

fn socket_match(name: &str, wanted: Option<(&str, &str)>, socket: core::TransportSocket) -> TransportSocketMatch {
    let fields = wanted.into_iter().map(|(key, value)| (key, text(value))).collect();
    TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(envoy_types::pb::google::protobuf::Struct {
            fields: ordered(fields),
        }),
        transport_socket: Some(socket),
    }
}
