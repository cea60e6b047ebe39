//! What discovery sends to the two sidecars: the messages that it sends to on-demand proxies of a mesh in which one
//! service with an HTTP port and a VirtualService with some routes is all there is, automatic mutual TLS, permissive.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as http;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, ListValue, Struct, UInt32Value, Value, value};
use envoy_types::util::pack_any;
use prost::{Message, Name};

use crate::place::{AUTHORITY, HOST, NAMESPACE, PORT, SERVER, SERVICE, Side};

mod listeners;
mod tls;

/// Routes above the one that all requests of the measurement take, each with a prefix of its own.
pub(crate) const ROUTES_ABOVE: usize = 9;

/// All resources of one sidecar, by type and name.
#[derive(Debug, Default)]
pub(crate) struct World {
    resources: BTreeMap<(String, String), Any>,
}

impl World {
    /// What that side's sidecar is sent.
    pub(crate) fn of(side: Side) -> Self {
        let mut world = Self::default();
        world.add(
            "virtualInbound",
            listeners::inbound((side == Side::Server).then_some(PORT)),
        );
        world.add("virtualOutbound", listeners::outbound());
        world.add(&format!("0.0.0.0_{PORT}"), listeners::http());
        world.add(&PORT.to_string(), on_demand());
        world.add(&format!("{PORT}/{AUTHORITY}"), virtual_host());
        world.add(&service_cluster(), outbound_cluster());
        world.add(&service_cluster(), endpoints());
        world.add(&inbound_cluster(), own_application(&inbound_cluster(), Upstream::Http1));
        world.add(
            "InboundPassthroughCluster",
            own_application("InboundPassthroughCluster", Upstream::AsDownstream),
        );
        world.add(
            "PassthroughCluster",
            original_destination("PassthroughCluster", Upstream::AsDownstream),
        );
        world.add(
            "BlackHoleCluster",
            cluster::Cluster {
                name: "BlackHoleCluster".to_owned(),
                connect_timeout: seconds(10),
                ..Default::default()
            },
        );
        world
    }

    fn add<T: Name + Message>(&mut self, name: &str, message: T) {
        let message = any(message);
        self.resources
            .insert((message.type_url.clone(), name.to_owned()), message);
    }

    /// The resource of that type and name, if there is one.
    pub(crate) fn find(&self, type_url: &str, name: &str) -> Option<&Any> {
        self.resources.get(&(type_url.to_owned(), name.to_owned()))
    }
}

fn any<T: Name + Message>(message: T) -> Any {
    pack_any(message)
}

fn boolean(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn text(text: impl Into<String>) -> Value {
    Value {
        kind: Some(value::Kind::StringValue(text.into())),
    }
}

fn object(fields: Vec<(&str, Value)>) -> Struct {
    Struct {
        fields: fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}

fn metadata(entries: Vec<(&str, Vec<(&str, Value)>)>) -> Option<core::Metadata> {
    let entries = entries
        .into_iter()
        .map(|(name, fields)| (name.to_owned(), object(fields)));
    Some(core::Metadata {
        filter_metadata: entries.collect(),
        ..Default::default()
    })
}

fn socket_address(address: Ipv4Addr, port: u16) -> core::SocketAddress {
    core::SocketAddress {
        address: IpAddr::from(address).to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(port))),
        ..Default::default()
    }
}

fn address(address: Ipv4Addr, port: u16) -> Option<core::Address> {
    Some(core::Address {
        address: Some(core::address::Address::SocketAddress(socket_address(address, port))),
    })
}

fn ads() -> Option<core::ConfigSource> {
    Some(core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        initial_fetch_timeout: seconds(0),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource::default(),
        )),
        ..Default::default()
    })
}

fn service_cluster() -> String {
    format!("outbound|{PORT}||{HOST}")
}

fn inbound_cluster() -> String {
    format!("inbound|{PORT}||")
}

enum Upstream {
    Http1,
    AsDownstream,
}

fn options(upstream: &Upstream) -> HashMap<String, Any> {
    use http::http_protocol_options::explicit_http_config::ProtocolConfig;
    use http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig};
    let http1 = core::Http1ProtocolOptions::default();
    let protocol = match upstream {
        Upstream::Http1 => UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::HttpProtocolOptions(http1)),
        }),
        Upstream::AsDownstream => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(http1),
            http2_protocol_options: Some(core::Http2ProtocolOptions::default()),
            ..Default::default()
        }),
    };
    let options = http::HttpProtocolOptions {
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    };
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
    HashMap::from([(name, any(options))])
}

fn unlimited() -> Option<cluster::CircuitBreakers> {
    let most = number(u32::MAX);
    Some(cluster::CircuitBreakers {
        thresholds: vec![cluster::circuit_breakers::Thresholds {
            max_connections: most,
            max_pending_requests: most,
            max_requests: most,
            max_retries: most,
            track_remaining: true,
            ..Default::default()
        }],
        ..Default::default()
    })
}

fn original_destination(name: &str, upstream: Upstream) -> cluster::Cluster {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
    cluster::Cluster {
        name: name.to_owned(),
        connect_timeout: seconds(10),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())),
        lb_policy: LbPolicy::ClusterProvided.into(),
        circuit_breakers: unlimited(),
        typed_extension_protocol_options: options(&upstream),
        ..Default::default()
    }
}

fn own_application(name: &str, upstream: Upstream) -> cluster::Cluster {
    cluster::Cluster {
        upstream_bind_config: Some(core::BindConfig {
            source_address: Some(socket_address(Ipv4Addr::new(127, 0, 0, 6), 0)),
            ..Default::default()
        }),
        metadata: metadata(vec![("istio", vec![("services", services())])]),
        ..original_destination(name, upstream)
    }
}

fn services() -> Value {
    let about = object(vec![
        ("host", text(HOST)),
        ("name", text(Side::Server.name())),
        ("namespace", text(NAMESPACE)),
    ]);
    let about = Value {
        kind: Some(value::Kind::StructValue(about)),
    };
    Value {
        kind: Some(value::Kind::ListValue(ListValue { values: vec![about] })),
    }
}

fn outbound_cluster() -> cluster::Cluster {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy, TransportSocketMatch};
    let matching = |name: &str, wanted: Vec<(&str, Value)>, socket| TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(object(wanted)),
        transport_socket: Some(socket),
    };
    cluster::Cluster {
        name: service_cluster(),
        connect_timeout: seconds(10),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: ads(),
            service_name: service_cluster(),
        }),
        lb_policy: LbPolicy::LeastRequest.into(),
        circuit_breakers: unlimited(),
        typed_extension_protocol_options: options(&Upstream::Http1),
        transport_socket_matches: vec![
            matching("tlsMode-istio", vec![("tlsMode", text("istio"))], tls::client()),
            matching("tlsMode-disabled", Vec::new(), tls::raw()),
        ],
        metadata: metadata(vec![(
            "istio",
            vec![
                (
                    "default_original_port",
                    Value {
                        kind: Some(value::Kind::NumberValue(f64::from(PORT))),
                    },
                ),
                ("services", services()),
            ],
        )]),
        ..Default::default()
    }
}

fn endpoints() -> endpoint::ClusterLoadAssignment {
    let workload = format!("backend;{NAMESPACE};backend;v1;Kubernetes");
    let found = endpoint::LbEndpoint {
        health_status: core::HealthStatus::Healthy.into(),
        metadata: metadata(vec![
            ("envoy.transport_socket_match", vec![("tlsMode", text("istio"))]),
            ("istio", vec![("workload", text(workload))]),
        ]),
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: address(SERVER, PORT),
            ..Default::default()
        })),
        ..Default::default()
    };
    endpoint::ClusterLoadAssignment {
        cluster_name: service_cluster(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            locality: Some(core::Locality::default()),
            load_balancing_weight: number(1),
            lb_endpoints: vec![found],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn to(cluster: &str, name: &str, prefix: &str, retries: Option<route::RetryPolicy>) -> route::Route {
    use route::route_match::PathSpecifier;
    route::Route {
        name: name.to_owned(),
        r#match: Some(route::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(prefix.to_owned())),
            ..Default::default()
        }),
        decorator: Some(route::Decorator {
            operation: format!("{HOST}:{PORT}/*"),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
            timeout: seconds(0),
            retry_policy: retries,
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn retries() -> route::RetryPolicy {
    let predicate = route::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any(
            PreviousHostsPredicate {},
        ))),
    };
    route::RetryPolicy {
        retry_on: "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes".to_owned(),
        num_retries: number(2),
        retry_host_predicate: vec![predicate],
        host_selection_retry_max_attempts: 5,
        retriable_status_codes: vec![503],
        ..Default::default()
    }
}

fn virtual_host() -> route::VirtualHost {
    let mut routes: Vec<_> = (0..ROUTES_ABOVE)
        .map(|index| {
            to(
                &service_cluster(),
                &format!("above-{index}"),
                &format!("/above/{index}/"),
                Some(retries()),
            )
        })
        .collect();
    routes.push(to(&service_cluster(), "default", "/", Some(retries())));
    for route in &mut routes {
        let config = format!("/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/virtual-service/backend");
        route.metadata = metadata(vec![("istio", vec![("config", text(config))])]);
    }
    route::VirtualHost {
        name: format!("{HOST}:{PORT}"),
        domains: vec![
            HOST.to_owned(),
            "backend".to_owned(),
            AUTHORITY.to_owned(),
            format!("{AUTHORITY}.svc"),
            SERVICE.to_string(),
        ],
        routes,
        include_request_attempt_count: true,
        ..Default::default()
    }
}

fn routes(name: &str, host: route::VirtualHost) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![host],
        validate_clusters: boolean(false),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

fn on_demand() -> route::RouteConfiguration {
    let unknown = route::VirtualHost {
        name: "allow_any".to_owned(),
        domains: texts(&["*"]),
        routes: vec![to("PassthroughCluster", "allow_any", "/", None)],
        ..Default::default()
    };
    route::RouteConfiguration {
        vhds: Some(route::Vhds { config_source: ads() }),
        ..routes(&PORT.to_string(), unknown)
    }
}

/// The routes of what comes in: all to one cluster.
fn inbound_routes(cluster: &str, port: u16) -> route::RouteConfiguration {
    let host = route::VirtualHost {
        name: format!("inbound|http|{port}"),
        domains: texts(&["*"]),
        routes: vec![to(cluster, "default", "/", None)],
        ..Default::default()
    };
    routes(cluster, host)
}
