use super::format;
use super::*;
use crate::*;
use envoy_types::pb::envoy::config::accesslog::v3 as log_pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as stream_pb;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};
use proptest::prelude::*;
use prost::Name;

fn packed<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

fn forward_to(cluster: &str) -> route_pb::RouteAction {
    route_pb::RouteAction {
        cluster_specifier: Some(route_pb::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    }
}

fn route_at(path: route_pb::route_match::PathSpecifier, action: route_pb::RouteAction) -> route_pb::Route {
    route_pb::Route {
        r#match: Some(route_pb::RouteMatch {
            path_specifier: Some(path),
            ..Default::default()
        }),
        action: Some(route_pb::route::Action::Route(action)),
        ..Default::default()
    }
}

fn prefix(path: &str) -> route_pb::route_match::PathSpecifier {
    route_pb::route_match::PathSpecifier::Prefix(path.to_owned())
}

fn host(domains: &[&str], routes: Vec<route_pb::Route>) -> route_pb::VirtualHost {
    route_pb::VirtualHost {
        name: "vh".to_owned(),
        domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
        routes,
        ..Default::default()
    }
}

fn convert<T: XdsType>(message: &impl Message) -> Outcome<T> {
    T::decode(&message.encode_to_vec())
}

fn regex(text: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: text.to_owned(),
        ..Default::default()
    }
}

fn problem<T>(outcome: &Outcome<T>) -> &ConfigError {
    outcome.problems.errors().first().expect("a problem")
}

// DESIGN 8: a bad route answers 503, the others are not touched.
#[test]
fn a_bad_route_is_unavailable_and_the_others_stay() {
    let bad = route_at(
        route_pb::route_match::PathSpecifier::SafeRegex(regex("(")),
        forward_to("first"),
    );
    let good = route_at(prefix("/"), forward_to("second"));
    let outcome: Outcome<VirtualHost> = convert(&host(&["*"], vec![good.clone(), bad, good]));
    assert!(
        matches!(problem(&outcome), ConfigError::Regex { at, .. } if at == "virtual_host.routes[1].match.safe_regex")
    );
    let value = outcome.value.unwrap();
    assert!(matches!(value.routes[0].action, Action::Forward(_)));
    assert!(matches!(value.routes[1].action, Action::Unavailable(_)));
    // Which requests it was meant for is not known: it takes all that reach it.
    assert_eq!(value.routes[1].matches, RouteMatch::all());
}

#[test]
fn a_route_with_an_unknown_filter_setting_is_unavailable_with_its_own_match() {
    let mut route = route_at(prefix("/admin"), forward_to("admin"));
    route
        .typed_per_filter_config
        .insert("envoy.filters.http.rbac".to_owned(), packed(&Rbac::default()));
    let outcome: Outcome<VirtualHost> = convert(&host(&["*"], vec![route]));
    assert_eq!(problem(&outcome).category(), "unknown_extension");
    let value = outcome.value.unwrap();
    assert!(
        matches!(&value.routes[0].action, Action::Unavailable(why) if why.contains("Rbac") || why.contains("RBAC"))
    );
    assert_eq!(value.routes[0].matches.path, PathMatch::Prefix("/admin".into()));
}

#[test]
fn an_optional_unknown_filter_setting_is_left_out() {
    let wrapped = route_pb::FilterConfig {
        config: Some(packed(&Rbac::default())),
        is_optional: true,
        ..Default::default()
    };
    let mut route = route_at(prefix("/"), forward_to("c"));
    route.typed_per_filter_config.insert("x".to_owned(), packed(&wrapped));
    let outcome: Outcome<VirtualHost> = convert(&host(&["*"], vec![route]));
    assert!(outcome.problems.is_empty(), "{}", outcome.problems);
}

// C1
#[test]
fn weights_that_are_all_zero_are_refused_and_one_zero_is_not() {
    let weighted = |weights: &[u32]| {
        let clusters = weights
            .iter()
            .zip(["a", "b"])
            .map(|(weight, name)| route_pb::weighted_cluster::ClusterWeight {
                name: name.to_owned(),
                weight: Some(UInt32Value { value: *weight }),
                ..Default::default()
            })
            .collect();
        let specifier = route_pb::WeightedCluster {
            clusters,
            ..Default::default()
        };
        let action = route_pb::RouteAction {
            cluster_specifier: Some(route_pb::route_action::ClusterSpecifier::WeightedClusters(specifier)),
            ..Default::default()
        };
        convert::<VirtualHost>(&host(&["*"], vec![route_at(prefix("/"), action)]))
    };
    assert!(matches!(
        problem(&weighted(&[0, 0])),
        ConfigError::Weights { total: 0, .. }
    ));
    assert!(matches!(
        problem(&weighted(&[u32::MAX, 1])),
        ConfigError::Weights { .. }
    ));
    assert!(weighted(&[0, 100]).problems.is_empty());
}

#[test]
fn timeouts_and_retries_have_envoys_defaults_and_zero_means_none() {
    let mut action = forward_to("c");
    action.retry_policy = Some(route_pb::RetryPolicy {
        retry_on: "connect-failure,refused-stream, unavailable,gateway-error,made-up".to_owned(),
        retriable_status_codes: vec![503, 409, 503],
        ..Default::default()
    });
    let mut endless = forward_to("c");
    endless.timeout = Some(Duration { seconds: 0, nanos: 0 });
    let routes = vec![route_at(prefix("/a"), action), route_at(prefix("/b"), endless)];
    let outcome: Outcome<VirtualHost> = convert(&host(&["*"], routes));
    assert!(outcome.problems.is_empty(), "{}", outcome.problems);
    let value = outcome.value.unwrap();
    let Action::Forward(first) = &value.routes[0].action else {
        panic!()
    };
    assert_eq!(first.timeout, Some(std::time::Duration::from_secs(15)));
    let retry = first.retry.as_ref().unwrap();
    assert_eq!(
        retry.on,
        RetryOn::CONNECT_FAILURE
            .with(RetryOn::REFUSED_STREAM)
            .with(RetryOn::GRPC_UNAVAILABLE)
            .with(RetryOn::GATEWAY_ERROR)
    );
    assert_eq!(*retry.statuses, [409, 503]);
    assert_eq!(
        (
            retry.retries,
            retry.backoff_base.as_millis(),
            retry.backoff_max.as_millis()
        ),
        (1, 25, 250)
    );
    let Action::Forward(second) = &value.routes[1].action else {
        panic!()
    };
    assert_eq!(second.timeout, None);
}

#[test]
fn a_negative_duration_is_out_of_range() {
    let mut action = forward_to("c");
    action.timeout = Some(Duration { seconds: -1, nanos: 0 });
    let outcome: Outcome<VirtualHost> = convert(&host(&["*"], vec![route_at(prefix("/"), action)]));
    assert_eq!(
        problem(&outcome).to_string(),
        "virtual_host.routes[0].route.timeout: -1s 0ns is not allowed; use a duration of 0s or more"
    );
}

#[test]
fn domains_are_indexed_and_a_duplicate_is_a_problem() {
    let hosts = vec![
        host(&["Shop.example", "*.example", "shop.*"], Vec::new()),
        host(&["shop.example", "*", "*.shop.example"], Vec::new()),
    ];
    let config = route_pb::RouteConfiguration {
        name: "80".to_owned(),
        virtual_hosts: hosts,
        ..Default::default()
    };
    let outcome: Outcome<RouteConfig> = convert(&config);
    assert!(matches!(problem(&outcome), ConfigError::DuplicateDomain { value, .. } if value == "shop.example"));
    let domains = outcome.value.unwrap().domains;
    assert_eq!(domains.exact.get("shop.example"), Some(&0));
    assert_eq!(*domains.suffixes, [(".shop.example".into(), 1), (".example".into(), 0)]);
    assert_eq!(*domains.prefixes, [("shop.".into(), 0)]);
    assert_eq!(domains.any, Some(1));
}

#[test]
fn a_domain_with_a_star_inside_is_refused() {
    for bad in ["a*b", "", "*a*", "a b", "a/b"] {
        let outcome: Outcome<VirtualHost> = convert(&host(&[bad], Vec::new()));
        assert!(matches!(problem(&outcome), ConfigError::Domain { .. }), "{bad}");
        assert_eq!(outcome.value, None);
    }
}

#[test]
fn headers_that_could_smuggle_requests_are_refused() {
    for (name, value) in [
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        (":path", "/"),
        ("x", "a\r\nb: c"),
        ("a b", "x"),
    ] {
        let mut route = route_at(prefix("/"), forward_to("c"));
        route.request_headers_to_add.push(core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: name.to_owned(),
                value: value.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        });
        let outcome: Outcome<VirtualHost> = convert(&host(&["*"], vec![route]));
        assert!(matches!(problem(&outcome), ConfigError::Header { .. }), "{name}");
        assert!(matches!(
            outcome.value.unwrap().routes[0].action,
            Action::Unavailable(_)
        ));
    }
}

#[test]
fn rewrites_that_could_smuggle_requests_are_refused() {
    let mut spaced = forward_to("c");
    spaced.prefix_rewrite = "/a HTTP/1.1\r\nx: y".to_owned();
    let mut hosted = forward_to("c");
    hosted.host_rewrite_specifier = Some(route_pb::route_action::HostRewriteSpecifier::HostRewriteLiteral(
        "a\r\nb".to_owned(),
    ));
    for action in [spaced, hosted] {
        let outcome: Outcome<VirtualHost> = convert(&host(&["*"], vec![route_at(prefix("/"), action)]));
        assert_eq!(problem(&outcome).category(), "out_of_range");
    }
}

#[test]
fn a_format_string_is_read_and_a_broken_one_refused() {
    let at = At::root("format");
    let parsed = format::format(at, "%%%REQ(X-A?:PATH):7%-%RESPONSE_CODE% %START_TIME(%s%3f)%\n").unwrap();
    let request = Field::Request {
        name: "x-a".into(),
        alternative: Some(":path".into()),
    };
    assert_eq!(
        *parsed.parts,
        [
            Part::Text("%".into()),
            Part::Field {
                field: request,
                max: Some(7)
            },
            Part::Text("-".into()),
            Part::Field {
                field: Field::ResponseCode,
                max: None
            },
            Part::Text(" ".into()),
            Part::Field {
                field: Field::StartEpoch { millis: true },
                max: None
            },
            Part::Text("\n".into()),
        ]
    );
    for bad in [
        "%",
        "%REQ(",
        "%NO_SUCH%",
        "%REQ()%",
        "%RESPONSE_CODE(x)%",
        "%REQ(a):x%",
        "%START_TIME(%Y)%",
    ] {
        assert!(
            matches!(format::format(at, bad), Err(ConfigError::Format { .. })),
            "{bad}"
        );
    }
}

#[test]
fn istios_access_log_format_is_supported() {
    let text = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
        %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
        %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
        \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
        %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";
    assert_eq!(format::format(At::root("f"), text).unwrap().parts.len(), 49);
}

fn listener_with(filters: Vec<listener_pb::Filter>, socket: Option<core::TransportSocket>) -> listener_pb::Listener {
    listener_pb::Listener {
        name: "virtualInbound".to_owned(),
        address: Some(core::Address {
            address: Some(core::address::Address::SocketAddress(core::SocketAddress {
                address: "0.0.0.0".to_owned(),
                port_specifier: Some(core::socket_address::PortSpecifier::PortValue(15006)),
                ..Default::default()
            })),
        }),
        filter_chains: vec![listener_pb::FilterChain {
            filters,
            transport_socket: socket,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn filter(config: Any) -> listener_pb::Filter {
    listener_pb::Filter {
        name: "f".to_owned(),
        config_type: Some(listener_pb::filter::ConfigType::TypedConfig(config)),
    }
}

fn manager(filters: Vec<Any>) -> hcm::HttpConnectionManager {
    hcm::HttpConnectionManager {
        stat_prefix: "inbound".to_owned(),
        http_filters: filters
            .into_iter()
            .map(|config| hcm::HttpFilter {
                config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
                ..Default::default()
            })
            .collect(),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
            route_config_name: "80".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

// A policy that is not understood must not be skipped.
#[test]
fn a_chain_with_an_unknown_filter_closes_connections() {
    let unknown = manager(vec![packed(&Rbac::default()), packed(&Router::default())]);
    let outcome: Outcome<Listener> = convert(&listener_with(vec![filter(packed(&unknown))], None));
    assert_eq!(problem(&outcome).category(), "unknown_extension");
    assert!(matches!(outcome.value.unwrap().chains[0].protocol, Protocol::Closed(_)));

    let fine = manager(vec![packed(&Router::default())]);
    let outcome: Outcome<Listener> = convert(&listener_with(vec![filter(packed(&fine))], None));
    assert!(outcome.problems.is_empty(), "{}", outcome.problems);

    let network_policy = filter(Any {
        type_url: "type.googleapis.com/x.Policy".to_owned(),
        value: Vec::new(),
    });
    let tcp = tcp::TcpProxy {
        cluster_specifier: Some(tcp::tcp_proxy::ClusterSpecifier::Cluster("c".to_owned())),
        ..Default::default()
    };
    let outcome: Outcome<Listener> = convert(&listener_with(vec![network_policy, filter(packed(&tcp))], None));
    assert!(matches!(outcome.value.unwrap().chains[0].protocol, Protocol::Closed(_)));
}

fn socket(tls: &tls_pb::DownstreamTlsContext) -> core::TransportSocket {
    core::TransportSocket {
        name: "tls".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(packed(tls))),
    }
}

// E3
#[test]
fn a_required_client_certificate_needs_roots() {
    let secret = |name: &str| tls_pb::SdsSecretConfig {
        name: name.to_owned(),
        ..Default::default()
    };
    let mut tls = tls_pb::DownstreamTlsContext {
        require_client_certificate: Some(BoolValue { value: true }),
        common_tls_context: Some(tls_pb::CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret("default")],
            ..Default::default()
        }),
        ..Default::default()
    };
    let fine = manager(vec![packed(&Router::default())]);
    let without: Outcome<Listener> = convert(&listener_with(vec![filter(packed(&fine))], Some(socket(&tls))));
    assert!(matches!(without.value.unwrap().chains[0].protocol, Protocol::Closed(_)));

    tls.common_tls_context.as_mut().unwrap().validation_context_type =
        Some(tls_pb::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(secret("ROOTCA")));
    let with: Outcome<Listener> = convert(&listener_with(vec![filter(packed(&fine))], Some(socket(&tls))));
    assert!(with.problems.is_empty(), "{}", with.problems);
    let value = with.value.unwrap();
    let ChainTransport::Tls(tls) = &value.chains[0].transport else {
        panic!()
    };
    assert!(tls.is_mutual());
    assert_eq!(tls.certificate, Certificate::Secret("default".into()));
}

#[test]
fn a_wrong_chain_match_is_the_listeners_problem() {
    let mut raw = listener_with(vec![filter(packed(&manager(vec![packed(&Router::default())])))], None);
    raw.filter_chains[0].filter_chain_match = Some(listener_pb::FilterChainMatch {
        transport_protocol: "quic".to_owned(),
        ..Default::default()
    });
    let outcome: Outcome<Listener> = convert(&raw);
    assert_eq!(outcome.value, None);
    assert_eq!(
        outcome.problems.to_string(),
        "listener.filter_chains[0].filter_chain_match.transport_protocol: quic is not allowed; use tls or raw_buffer"
    );
}

#[test]
fn an_access_log_filter_by_flags_is_kept() {
    let filter_by_flags = log_pb::AccessLogFilter {
        filter_specifier: Some(log_pb::access_log_filter::FilterSpecifier::ResponseFlagFilter(
            log_pb::ResponseFlagFilter {
                flags: vec!["NR".to_owned()],
            },
        )),
    };
    let mut raw = listener_with(vec![filter(packed(&manager(vec![packed(&Router::default())])))], None);
    raw.access_log = vec![log_pb::AccessLog {
        filter: Some(filter_by_flags),
        config_type: Some(log_pb::access_log::ConfigType::TypedConfig(packed(
            &stream_pb::StdoutAccessLog::default(),
        ))),
        ..Default::default()
    }];
    let outcome: Outcome<Listener> = convert(&raw);
    assert!(outcome.problems.is_empty(), "{}", outcome.problems);
    assert_eq!(
        outcome.value.unwrap().access_logs[0].only,
        LogFilter::Flags(["NR".into()].into())
    );
}

fn full_resources() -> Vec<(Kind, Vec<u8>)> {
    let mut action = forward_to("outbound|80||a");
    action.prefix_rewrite = "/x".to_owned();
    action.retry_policy = Some(route_pb::RetryPolicy {
        retry_on: "5xx".to_owned(),
        ..Default::default()
    });
    let vh = host(&["a", "*.b"], vec![route_at(prefix("/"), action)]);
    let rc = route_pb::RouteConfiguration {
        name: "80".to_owned(),
        virtual_hosts: vec![vh.clone()],
        ..Default::default()
    };
    let listener = listener_with(vec![filter(packed(&manager(vec![packed(&Router::default())])))], None);
    let cluster = cluster_pb::Cluster {
        name: "outbound|80||a".to_owned(),
        outlier_detection: Some(cluster_pb::OutlierDetection::default()),
        cluster_discovery_type: Some(cluster_pb::cluster::ClusterDiscoveryType::Type(3)),
        ..Default::default()
    };
    vec![
        (Kind::VirtualHost, vh.encode_to_vec()),
        (Kind::RouteConfig, rc.encode_to_vec()),
        (Kind::Listener, listener.encode_to_vec()),
        (Kind::Cluster, cluster.encode_to_vec()),
    ]
}

#[test]
fn closed_values_exist_where_absence_would_let_traffic_through() {
    for kind in Kind::ALL {
        let closed = Resource::closed(kind, "name", "why");
        assert_eq!(closed.is_none(), matches!(kind, Kind::Cluster | Kind::Endpoints));
        assert!(closed.is_none_or(|resource| resource.kind() == kind && resource.name() == "name"));
    }
}

proptest! {
    // Whatever the bytes: no panic, and a value or a problem.
    #[test]
    fn any_bytes_convert_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        for kind in Kind::ALL {
            let outcome = Resource::decode(kind, &bytes);
            prop_assert!(outcome.value.is_some() || !outcome.problems.is_empty());
        }
    }

    #[test]
    fn damaged_resources_convert_or_are_refused(which in 0_usize..4, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let (kind, mut bytes) = full_resources().swap_remove(which);
        let position = at.index(bytes.len());
        bytes[position] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        let outcome = Resource::decode(kind, &bytes);
        prop_assert!(outcome.value.is_some() || !outcome.problems.is_empty());
    }
}
