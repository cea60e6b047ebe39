use crate::matching::{self, Request};
use crate::naming::{PeerNames, allowed};
use crate::{
    Breaker, ConnectionFacts, Limit, RetryState, Timeouts, TryResult, Verdict, chain, find_route, find_virtual_host,
};
use crate::{fault, hash, pick_cluster, rewrite, vhds_name};
use mizzen_proxy_config::*;
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
struct Req {
    method: &'static str,
    path: &'static str,
    authority: &'static str,
    scheme: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

fn get(path: &'static str) -> Req {
    Req {
        method: "GET",
        path,
        authority: "shop.example",
        scheme: "http",
        headers: Vec::new(),
    }
}

impl Req {
    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl Request for Req {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        self.scheme.as_bytes()
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(own, _)| *own == name)
            .map(|(_, value)| *value)
            .collect();
        (!values.is_empty()).then(|| Cow::Owned(values.join(",").into_bytes()))
    }
}

fn exact(text: &str) -> StringMatch {
    StringMatch {
        test: StringTest::Exact(text.into()),
        ignore_case: false,
    }
}

fn route(name: &str, matches: RouteMatch) -> Arc<Route> {
    Arc::new(Route::unavailable(matches, name.into(), "".into()))
}

fn at(path: PathMatch) -> RouteMatch {
    RouteMatch {
        path,
        ..RouteMatch::all()
    }
}

fn host(domains: &[&str], routes: Vec<Arc<Route>>) -> VirtualHost {
    VirtualHost {
        domains: domains.iter().map(|&domain| domain.into()).collect(),
        routes: routes.into(),
        ..VirtualHost::closed("vh", "".into())
    }
}

fn config(hosts: &[&[&str]], ignore_port: bool) -> RouteConfig {
    let mut domains = DomainIndex::default();
    let (mut suffixes, mut prefixes) = (Vec::new(), Vec::new());
    for (position, names) in (0..).zip(hosts) {
        for name in *names {
            match (name.strip_prefix('*'), name.strip_suffix('*')) {
                (Some(""), _) => domains.any = Some(position),
                (Some(suffix), _) => suffixes.push((Box::from(suffix), position)),
                (_, Some(prefix)) => prefixes.push((Box::from(prefix), position)),
                _ => {
                    domains.exact.insert(Box::from(*name), position);
                }
            }
        }
    }
    suffixes.sort_by_key(|(text, _): &(Box<str>, u32)| std::cmp::Reverse(text.len()));
    prefixes.sort_by_key(|(text, _): &(Box<str>, u32)| std::cmp::Reverse(text.len()));
    (domains.suffixes, domains.prefixes) = (suffixes.into(), prefixes.into());
    RouteConfig {
        virtual_hosts: hosts.iter().map(|names| Arc::new(host(names, Vec::new()))).collect(),
        domains,
        ignore_port,
        ..RouteConfig::closed("80", "".into())
    }
}

// C2
#[test]
fn virtual_hosts_are_found_in_envoys_order() {
    let config = config(
        &[
            &["*"],
            &["*.example"],
            &["*.shop.example"],
            &["shop.*"],
            &["shop.example"],
            &["shop.example:8080"],
        ],
        false,
    );
    let found = |authority: &str| find_virtual_host(&config, authority.as_bytes()).unwrap().domains[0].to_string();
    assert_eq!(found("shop.example"), "shop.example");
    assert_eq!(found("SHOP.Example"), "shop.example");
    assert_eq!(found("shop.example:8080"), "shop.example:8080");
    assert_eq!(found("a.shop.example"), "*.shop.example");
    assert_eq!(found("a.example"), "*.example");
    assert_eq!(found("shop.other"), "shop.*");
    // A star stands for at least one character.
    assert_eq!(found(".example"), "*");
    assert_eq!(found("elsewhere"), "*");
    assert_eq!(
        find_virtual_host(&config, b"\xff\xfe").unwrap().domains[0].to_string(),
        "*"
    );
}

#[test]
fn a_port_in_the_authority_counts_only_when_it_should() {
    let found = |ignore, authority: &str| {
        find_virtual_host(&config(&[&["shop.example"]], ignore), authority.as_bytes()).is_some()
    };
    assert!(found(true, "shop.example:8080"));
    assert!(!found(false, "shop.example:8080"));
    assert_eq!(crate::route::without_port(b"[::1]:80"), b"[::1]");
    assert_eq!(crate::route::without_port(b"[::1]"), b"[::1]");
    assert_eq!(crate::route::without_port(b"::1"), b"::1");
    assert_eq!(crate::route::without_port(b"a:http"), b"a:http");
}

#[test]
fn names_asked_on_demand_are_plain_hosts() {
    let name = |authority: &[u8]| vhds_name(&"80".into(), authority).map(|name| name.to_string());
    assert_eq!(name(b"Reviews:9080").as_deref(), Some("80/reviews"));
    assert_eq!(name(b"[::1]:80").as_deref(), Some("80/[::1]"));
    for bad in [&b""[..], b"a/b", b"a b", b"\xff", b"*", &[b'a'; 300]] {
        assert_eq!(name(bad), None);
    }
}

// C2
#[test]
fn the_first_route_that_matches_wins() {
    let header = |name: &str, test: HeaderTest, invert: bool| {
        Box::new([HeaderMatch {
            name: name.into(),
            test,
            invert,
            missing_is_empty: false,
        }]) as Box<[_]>
    };
    let value = |text: &str| HeaderTest::Value(exact(text));
    let routes = vec![
        route("exact", at(PathMatch::Exact("/a".into()))),
        route("regex", at(PathMatch::Regex(Pattern::new("/v[0-9]+").unwrap()))),
        route("separated", at(PathMatch::SeparatedPrefix("/api".into()))),
        route(
            "header",
            RouteMatch {
                headers: header("x-user", value("eve"), false),
                ..RouteMatch::all()
            },
        ),
        route(
            "method",
            RouteMatch {
                headers: header(":method", value("POST"), false),
                ..RouteMatch::all()
            },
        ),
        route(
            "range",
            RouteMatch {
                headers: header("x-n", HeaderTest::Range { start: 5, end: 10 }, false),
                ..RouteMatch::all()
            },
        ),
        route(
            "query",
            RouteMatch {
                query: Box::new([QueryMatch {
                    name: "debug".into(),
                    test: QueryTest::Value(exact("1")),
                }]),
                ..RouteMatch::all()
            },
        ),
        route(
            "grpc",
            RouteMatch {
                grpc: true,
                ..RouteMatch::all()
            },
        ),
        route(
            "case",
            RouteMatch {
                case_sensitive: false,
                ..at(PathMatch::Prefix("/lower".into()))
            },
        ),
        route(
            "absent",
            RouteMatch {
                headers: header("x-skip", HeaderTest::Present(true), true),
                ..at(PathMatch::Prefix("/skip".into()))
            },
        ),
        route("rest", at(PathMatch::Prefix("/".into()))),
    ];
    let host = host(&["*"], routes);
    let found = |request: Req| find_route(&host, &request, 0).unwrap().name.to_string();
    assert_eq!(found(get("/a?x=1")), "exact");
    assert_eq!(found(get("/a/")), "rest");
    assert_eq!(found(get("/v12")), "regex");
    assert_eq!(found(get("/v12/x")), "rest");
    assert_eq!(found(get("/api")), "separated");
    assert_eq!(found(get("/api/x")), "separated");
    assert_eq!(found(get("/apix")), "rest");
    assert_eq!(found(get("/x").with("x-user", "eve")), "header");
    assert_eq!(found(get("/x").with("x-user", "eve").with("x-user", "bob")), "rest");
    assert_eq!(
        found(Req {
            method: "POST",
            ..get("/x")
        }),
        "method"
    );
    assert_eq!(found(get("/x").with("x-n", "5")), "range");
    assert_eq!(found(get("/x").with("x-n", "10")), "rest");
    assert_eq!(found(get("/x?a=2&debug=1")), "query");
    assert_eq!(found(get("/x?debug=2")), "rest");
    assert_eq!(found(get("/x").with("content-type", "application/grpc+proto")), "grpc");
    assert_eq!(found(get("/x").with("content-type", "application/grpc-web")), "rest");
    assert_eq!(found(get("/LOWER")), "case");
    assert_eq!(found(get("/skip")), "absent");
    assert_eq!(found(get("/skip").with("x-skip", "")), "rest");
}

#[test]
fn a_missing_header_is_no_match_even_turned_round() {
    let test = |invert, missing_is_empty| HeaderMatch {
        name: "x".into(),
        test: HeaderTest::Value(exact("a")),
        invert,
        missing_is_empty,
    };
    assert!(!matching::header_test(&test(true, false), None));
    assert!(matching::header_test(&test(true, true), None));
    assert!(matching::header_test(&test(true, false), Some(b"b")));
    let absent = HeaderMatch {
        name: "x".into(),
        test: HeaderTest::Present(false),
        invert: false,
        missing_is_empty: false,
    };
    assert!(matching::header_test(&absent, None) && !matching::header_test(&absent, Some(b"")));
}

#[test]
fn strings_are_tested_with_and_without_case() {
    let test = |test: StringTest, ignore_case| StringMatch { test, ignore_case };
    let cases = [
        (test(StringTest::Prefix("ab".into()), false), "abc", "Abc"),
        (test(StringTest::Suffix("bc".into()), true), "aBC", "bca"),
        (test(StringTest::Contains("x".into()), true), "aXa", "a"),
        (test(StringTest::Regex(Pattern::new("a|b").unwrap()), false), "b", "ab"),
        (test(StringTest::Exact("a".into()), true), "A", "aa"),
    ];
    for (test, yes, no) in cases {
        assert!(matching::string(&test, yes.as_bytes()), "{test:?} {yes}");
        assert!(!matching::string(&test, no.as_bytes()), "{test:?} {no}");
    }
}

fn weighted(weights: &[u32]) -> WeightedClusters {
    let entry = |(i, weight): (usize, &u32)| WeightedCluster {
        cluster: format!("c{i}").into(),
        weight: *weight,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        host: None,
    };
    WeightedClusters {
        entries: weights.iter().enumerate().map(entry).collect(),
        total: weights.iter().map(|weight| u64::from(*weight)).sum(),
    }
}

// C1
#[test]
fn clusters_are_chosen_by_weight_and_zero_never() {
    let clusters = weighted(&[90, 0, 10]);
    let mut counts = BTreeMap::<_, u32>::new();
    for random in 0..10_000 {
        *counts
            .entry(pick_cluster(&clusters, random).unwrap().cluster.to_string())
            .or_default() += 1;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["c0", "c2"]);
    assert!((8_800..=9_200).contains(&counts["c0"]), "{counts:?}");
}

// C4
#[test]
fn paths_are_rewritten_and_keep_their_query() {
    let rewritten = |rewrite: PathRewrite, matched: PathMatch, target: &str| {
        let mut out = Vec::new();
        rewrite::path(&rewrite, &matched, target.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    };
    let prefix = |text: &str| PathMatch::Prefix(text.into());
    let to = |text: &str| PathRewrite::Prefix(text.into());
    assert_eq!(rewritten(PathRewrite::None, prefix("/a"), "/a"), None);
    assert_eq!(
        rewritten(to("/b"), prefix("/a"), "/a/c?q=/a").as_deref(),
        Some("/b/c?q=/a")
    );
    assert_eq!(rewritten(to("/"), prefix("/a/"), "/a/c").as_deref(), Some("/c"));
    assert_eq!(
        rewritten(to("x"), PathMatch::Exact("/a".into()), "/a?q").as_deref(),
        Some("/x?q")
    );
    assert_eq!(
        rewritten(to("/b"), PathMatch::Regex(Pattern::new("/.*").unwrap()), "/whole/path").as_deref(),
        Some("/b")
    );
    let substitution = Substitution {
        regex: regex::bytes::Regex::new("/([a-z]+)/([0-9]+)").unwrap(),
        parts: Box::new([
            SubstitutionPart::Text("/".into()),
            SubstitutionPart::Group(2),
            SubstitutionPart::Text("-".into()),
            SubstitutionPart::Group(1),
        ]),
    };
    assert_eq!(
        rewritten(
            PathRewrite::Regex(Box::new(substitution)),
            prefix("/"),
            "/ab/12/cd/3?x=/e/4"
        )
        .as_deref(),
        Some("/12-ab/3-cd?x=/e/4")
    );
}

// C4
#[test]
fn redirects_name_the_new_place() {
    let redirect = Redirect {
        status: 301,
        scheme: None,
        host: None,
        port: None,
        path: PathRewrite::None,
        strip_query: false,
    };
    let location = |redirect: &Redirect, request: &Req| {
        let mut out = Vec::new();
        rewrite::location(redirect, &PathMatch::Prefix("/a".into()), request, &mut out);
        String::from_utf8(out).unwrap()
    };
    let request = Req {
        authority: "shop.example:80",
        ..get("/a/b?q=1")
    };
    let https = Redirect {
        scheme: Some("https".into()),
        ..redirect.clone()
    };
    assert_eq!(location(&https, &request), "https://shop.example/a/b?q=1");
    let other_port = Req {
        authority: "shop.example:8080",
        ..get("/a")
    };
    assert_eq!(location(&https, &other_port), "https://shop.example:8080/a");
    let port = Redirect {
        port: Some(8443),
        ..https
    };
    assert_eq!(location(&port, &request), "https://shop.example:8443/a/b?q=1");
    let path = Redirect {
        host: Some("else.example".into()),
        path: PathRewrite::Prefix("/z".into()),
        strip_query: true,
        ..redirect.clone()
    };
    assert_eq!(location(&path, &request), "http://else.example/z/b");
    let full = Redirect {
        path: PathRewrite::Full("/new?own=1".into()),
        ..redirect
    };
    assert_eq!(location(&full, &request), "http://shop.example:80/new?own=1");
}

fn policy(on: RetryOn) -> RetryPolicy {
    RetryPolicy {
        on,
        statuses: Box::new([418, 503]),
        response_headers: Box::default(),
        request_headers: Box::default(),
        retries: 2,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        backoff_base: Duration::from_millis(25),
        backoff_max: Duration::from_millis(60),
        avoid_previous: true,
        host_draws: 5,
    }
}

fn response(status: u16, grpc_status: Option<u32>) -> TryResult<'static> {
    TryResult::Response {
        status,
        grpc_status,
        header: &|_| false,
        rate_limited: false,
    }
}

// D2
#[test]
fn retries_follow_their_conditions() {
    let reset = |refused, request_sent| TryResult::Reset { refused, request_sent };
    let again = |on: RetryOn, result: &TryResult<'_>| {
        let policy = policy(on);
        matches!(
            RetryState::new(Some(&policy), &get("/")).after(Some(&policy), result, 1),
            Verdict::Again(_)
        )
    };
    assert!(again(RetryOn::FIVE_XX, &response(500, None)));
    assert!(!again(RetryOn::GATEWAY_ERROR, &response(500, None)));
    assert!(again(RetryOn::GATEWAY_ERROR, &response(503, None)));
    assert!(again(RetryOn::STATUS_CODES, &response(418, None)));
    assert!(!again(RetryOn::STATUS_CODES, &response(500, None)));
    assert!(again(RetryOn::RETRIABLE_4XX, &response(409, None)));
    assert!(again(RetryOn::GRPC_UNAVAILABLE, &response(200, Some(14))));
    assert!(!again(RetryOn::GRPC_UNAVAILABLE, &response(200, Some(13))));
    assert!(again(RetryOn::CONNECT_FAILURE, &TryResult::ConnectFailure));
    assert!(!again(RetryOn::CONNECT_FAILURE, &reset(false, true)));
    assert!(again(RetryOn::REFUSED_STREAM, &reset(true, true)));
    assert!(!again(RetryOn::REFUSED_STREAM, &reset(false, true)));
    assert!(again(RetryOn::RESET_BEFORE_REQUEST, &reset(false, false)));
    assert!(!again(RetryOn::RESET_BEFORE_REQUEST, &reset(false, true)));
    assert!(again(RetryOn::FIVE_XX, &TryResult::TryTimeout));
    assert!(!again(RetryOn::CONNECT_FAILURE, &TryResult::TryTimeout));
    assert!(!again(RetryOn(u32::MAX), &TryResult::Local));
    let limited = TryResult::Response {
        status: 429,
        grpc_status: None,
        header: &|_| false,
        rate_limited: true,
    };
    assert!(!again(RetryOn::STATUS_CODES, &limited));
    assert!(again(RetryOn::RATE_LIMITED, &limited));
}

// D2
#[test]
fn retries_end_and_pauses_grow() {
    let policy = policy(RetryOn::FIVE_XX);
    for random in 0..200 {
        let mut state = RetryState::new(Some(&policy), &get("/"));
        let Verdict::Again(first) = state.after(Some(&policy), &response(500, None), random) else {
            panic!()
        };
        let Verdict::Again(second) = state.after(Some(&policy), &response(500, None), random) else {
            panic!()
        };
        assert!(first < Duration::from_millis(25) && second < Duration::from_millis(50));
        assert_eq!(state.attempts(), 3);
        assert_eq!(
            state.after(Some(&policy), &response(500, None), random),
            Verdict::Exhausted
        );
        assert_eq!(state.after(Some(&policy), &response(200, None), random), Verdict::Done);
    }
    assert!(!RetryState::new(None, &get("/")).may_retry());
    let only_marked = RetryPolicy {
        request_headers: Box::new([HeaderMatch {
            name: "x-retry".into(),
            test: HeaderTest::Present(true),
            invert: false,
            missing_is_empty: false,
        }]),
        ..policy
    };
    assert!(!RetryState::new(Some(&only_marked), &get("/")).may_retry());
    assert!(RetryState::new(Some(&only_marked), &get("/").with("x-retry", "1")).may_retry());
}

// D3
#[test]
fn a_breaker_refuses_what_is_over_the_limit() {
    let breaker = Breaker::default();
    let limits = BreakerLimits {
        requests: 2,
        retries: 0,
        ..BreakerLimits::default()
    };
    assert!(breaker.try_acquire(&limits, Limit::Request));
    assert!(breaker.try_acquire(&limits, Limit::Request));
    assert!(!breaker.try_acquire(&limits, Limit::Request));
    breaker.release(Limit::Request);
    assert!(breaker.try_acquire(&limits, Limit::Request));
    assert!(!breaker.try_acquire(&limits, Limit::Retry));
    let budget = BreakerLimits {
        retry_budget: Some(RetryBudget {
            percent_hundredths: 10_000,
            least: 1,
        }),
        ..limits
    };
    assert!(breaker.try_acquire(&budget, Limit::Retry) && breaker.try_acquire(&budget, Limit::Retry));
    assert!(!breaker.try_acquire(&budget, Limit::Retry));
    (0..5).for_each(|_| breaker.release(Limit::Connection));
    assert_eq!(breaker.count(Limit::Connection), 0);
}

// E3
#[test]
fn only_a_named_peer_is_accepted() {
    let id = "spiffe://cluster.local/ns/a/sa/b";
    let sans = [SanMatch::Uri(exact(id))];
    assert!(allowed(
        &sans,
        &PeerNames {
            uris: &[id],
            ..PeerNames::default()
        }
    ));
    assert!(!allowed(
        &sans,
        &PeerNames {
            uris: &["spiffe://cluster.local/ns/a/sa/bb"],
            ..PeerNames::default()
        }
    ));
    assert!(!allowed(
        &sans,
        &PeerNames {
            dns: &[id],
            ..PeerNames::default()
        }
    ));
    assert!(!allowed(&sans, &PeerNames::default()));
    assert!(allowed(&[], &PeerNames::default()));
    let dns = [SanMatch::Dns(exact("a.example.com"))];
    assert!(allowed(
        &dns,
        &PeerNames {
            dns: &["*.Example.com"],
            ..PeerNames::default()
        }
    ));
    assert!(!allowed(
        &dns,
        &PeerNames {
            dns: &["*.com"],
            ..PeerNames::default()
        }
    ));
}

fn fault_of(delay: u32, abort: u32) -> Fault {
    let fraction = |numerator| Fraction {
        numerator,
        denominator: 100,
    };
    Fault {
        delay: Some(Delay {
            time: Duration::from_secs(1),
            fraction: fraction(delay),
        }),
        abort: Some(Abort {
            with: AbortWith::Http(418),
            fraction: fraction(abort),
        }),
        headers: Box::default(),
        max_active: Some(3),
    }
}

// D5
#[test]
fn faults_hit_their_share_independently() {
    let (mut delayed, mut aborted, mut both) = (0, 0, 0);
    for random in 0..10_000 {
        let plan = fault::plan(&fault_of(50, 10), &get("/"), 0, random);
        delayed += u32::from(plan.delay.is_some());
        aborted += u32::from(plan.abort.is_some());
        both += u32::from(plan.delay.is_some() && plan.abort.is_some());
    }
    assert!((4_800..=5_200).contains(&delayed) && (850..=1_150).contains(&aborted) && (400..=600).contains(&both));
    assert_eq!(
        fault::plan(&fault_of(100, 100), &get("/"), 3, 0),
        fault::FaultPlan::default()
    );
}

// D1
#[test]
fn timeouts_come_from_route_headers_and_grpc() {
    let forward = Forward {
        clusters: weighted(&[1]),
        cluster_not_found_status: 503,
        timeout: Some(Duration::from_secs(3)),
        idle_timeout: None,
        max_stream_duration: None,
        max_grpc_timeout: Some(Duration::from_secs(2)),
        retry: None,
        path_rewrite: PathRewrite::None,
        host_rewrite: HostRewrite::None,
        append_x_forwarded_host: false,
        hash: Box::default(),
        mirrors: Box::default(),
        high_priority: false,
        upgrades: Box::default(),
    };
    let connection = HttpConnection {
        stat_prefix: "".into(),
        codec: Codec::Auto,
        routes: RouteSource::Named("80".into()),
        access_logs: Box::default(),
        client_cert: ForwardClientCert::Sanitize,
        client_cert_details: ClientCertDetails::default(),
        use_remote_address: false,
        skip_xff_append: false,
        xff_trusted_hops: 0,
        server_name: "".into(),
        server_header: ServerHeader::Overwrite,
        generate_request_id: true,
        preserve_external_request_id: false,
        request_id_in_response: false,
        idle_timeout: None,
        stream_idle_timeout: Some(Duration::from_secs(9)),
        request_timeout: None,
        request_headers_timeout: None,
        max_connection_duration: None,
        max_stream_duration: None,
        drain_timeout: Duration::from_secs(5),
        max_request_head_bytes: 61_440,
        upgrades: Box::default(),
        normalize_path: false,
        merge_slashes: false,
        strip_port: StripPort::Keep,
        fault_filter: true,
        cors_filter: true,
        accept_http_10: false,
        max_concurrent_streams: None,
    };
    let slow_tries = RetryPolicy {
        per_try_timeout: Some(Duration::from_secs(5)),
        ..policy(RetryOn::FIVE_XX)
    };
    let plain = Timeouts::new(&forward, Some(&slow_tries), &connection, &get("/"));
    let expected = Timeouts {
        request: Some(Duration::from_secs(3)),
        idle: Some(Duration::from_secs(9)),
        ..Timeouts::default()
    };
    assert_eq!(plain, expected);
    let asked = get("/")
        .with("x-envoy-upstream-rq-timeout-ms", "0")
        .with("grpc-timeout", "5S");
    let limits = Timeouts::new(&forward, Some(&slow_tries), &connection, &asked);
    assert_eq!(
        (limits.request, limits.stream, limits.per_try),
        (None, Some(Duration::from_secs(2)), Some(Duration::from_secs(5)))
    );
    for (text, time) in [
        ("1H", Some(Duration::from_secs(3600))),
        ("20m", Some(Duration::from_millis(20))),
        ("S", None),
        ("123456789S", None),
        ("-1S", None),
        ("1x", None),
    ] {
        assert_eq!(crate::timeout::grpc_timeout(text.as_bytes()), time, "{text}");
    }
}

// C6
#[test]
fn hashes_come_from_headers_cookies_and_addresses() {
    let policies = |on: HashOn, terminal| HashPolicy { on, terminal };
    let user = HashOn::Header("x-user".into());
    let session = HashOn::Cookie {
        name: "s".into(),
        ttl: None,
        path: "".into(),
    };
    let source = "10.0.0.1".parse().unwrap();
    let of = |policies: &[HashPolicy], request: &Req| hash::request_hash(policies, request, source);
    let eve = get("/").with("x-user", "eve");
    assert_eq!(of(&[policies(user.clone(), false)], &get("/")), None);
    assert_eq!(of(&[policies(user.clone(), false)], &eve), Some(hash::hash(b"eve")));
    let terminal = [policies(user.clone(), true), policies(HashOn::SourceIp, false)];
    assert_eq!(of(&terminal, &eve), Some(hash::hash(b"eve")));
    assert_ne!(
        of(&[policies(user, false), policies(HashOn::SourceIp, false)], &eve),
        Some(hash::hash(b"eve"))
    );
    let cookies = get("/").with("cookie", "a=1; s=\"x y\"; b=2");
    assert_eq!(of(&[policies(session, false)], &cookies), Some(hash::hash(b"x y")));
    assert_eq!(
        of(&[policies(HashOn::Query("k".into()), false)], &get("/?k=v")),
        Some(hash::hash(b"v"))
    );
}

fn chain_named(name: &str, matches: ChainMatch) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        name: name.into(),
        matches,
        transport: ChainTransport::Raw,
        protocol: Protocol::Closed("".into()),
    })
}

fn permissive() -> Listener {
    let port = Some(8080);
    let tls = Some(TransportProtocol::Tls);
    let raw = Some(TransportProtocol::Raw);
    let alpn = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
    Listener {
        chains: Box::new([
            chain_named(
                "mtls",
                ChainMatch {
                    destination_port: port,
                    transport_protocol: tls,
                    application_protocols: alpn(&["istio-http/1.1", "istio-h2"]),
                    ..ChainMatch::default()
                },
            ),
            chain_named(
                "own tls",
                ChainMatch {
                    destination_port: port,
                    transport_protocol: tls,
                    ..ChainMatch::default()
                },
            ),
            chain_named(
                "plain",
                ChainMatch {
                    destination_port: port,
                    transport_protocol: raw,
                    ..ChainMatch::default()
                },
            ),
            chain_named(
                "auto http",
                ChainMatch {
                    transport_protocol: raw,
                    application_protocols: alpn(&["http/1.1", "h2c"]),
                    ..ChainMatch::default()
                },
            ),
            chain_named(
                "auto tcp",
                ChainMatch {
                    transport_protocol: raw,
                    ..ChainMatch::default()
                },
            ),
            chain_named(
                "server name",
                ChainMatch {
                    destination_port: Some(443),
                    server_names: alpn(&["*.example", "a.example"]),
                    ..ChainMatch::default()
                },
            ),
            chain_named(
                "net",
                ChainMatch {
                    destination_port: Some(9),
                    destination_nets: Box::new(["10.0.0.0/8".parse().unwrap()]),
                    ..ChainMatch::default()
                },
            ),
            chain_named(
                "narrow net",
                ChainMatch {
                    destination_port: Some(9),
                    destination_nets: Box::new(["10.1.0.0/16".parse().unwrap()]),
                    ..ChainMatch::default()
                },
            ),
            chain_named(
                "no inspection",
                ChainMatch {
                    destination_port: Some(5432),
                    ..ChainMatch::default()
                },
            ),
        ]),
        default_chain: None,
        inspect: Inspect {
            tls: true,
            http: true,
            http_disabled_ports: Box::new([(3306, 3306)]),
            tls_disabled_ports: Box::new([(3306, 3306)]),
        },
        ..Listener::closed("virtualInbound", "".into())
    }
}

// E3, C5
#[test]
fn filter_chains_are_chosen_field_by_field() {
    let listener = permissive();
    let find = |destination: &str, transport, server_name: Option<&str>, protocols: &[&[u8]]| {
        let facts = ConnectionFacts {
            destination: destination.parse().unwrap(),
            source: [1, 2, 3, 4].into(),
            transport,
            server_name,
            protocols,
        };
        chain::select(&listener, &facts).map(|chain| chain.name.to_string())
    };
    let (tls, raw) = (TransportProtocol::Tls, TransportProtocol::Raw);
    assert_eq!(
        find("10.0.0.1:8080", tls, None, &[b"istio-h2"]).as_deref(),
        Some("mtls")
    );
    assert_eq!(find("10.0.0.1:8080", tls, None, &[b"h2"]).as_deref(), Some("own tls"));
    assert_eq!(
        find("10.0.0.1:8080", raw, None, &[b"http/1.1"]).as_deref(),
        Some("plain")
    );
    assert_eq!(
        find("10.0.0.1:7000", raw, None, &[b"http/1.1"]).as_deref(),
        Some("auto http")
    );
    assert_eq!(find("10.0.0.1:7000", raw, None, &[]).as_deref(), Some("auto tcp"));
    // No chain takes TLS there, and there is no going back to a chain without a port.
    assert_eq!(find("10.0.0.1:7000", tls, None, &[]), None);
    assert_eq!(
        find("10.0.0.1:443", tls, Some("b.example"), &[]).as_deref(),
        Some("server name")
    );
    assert_eq!(find("10.0.0.1:443", tls, Some("example"), &[]), None);
    assert_eq!(find("10.0.0.1:9", raw, None, &[]).as_deref(), Some("net"));
    assert_eq!(find("10.1.0.1:9", raw, None, &[]).as_deref(), Some("narrow net"));
    assert_eq!(find("11.0.0.1:9", raw, None, &[]).as_deref(), Some("auto tcp"));
}

// C5
#[test]
fn first_bytes_are_waited_for_only_where_they_decide() {
    let listener = permissive();
    let needs = |port: u16| chain::needs(&listener, ([10, 0, 0, 1], port).into());
    assert_eq!(needs(8080), chain::Needs { tls: true, http: false });
    assert_eq!(needs(7000), chain::Needs { tls: true, http: true });
    assert_eq!(needs(5432), chain::Needs::default());
    assert_eq!(needs(3306), chain::Needs::default());
}

proptest! {
    #[test]
    fn rewrites_never_lose_the_query_or_the_slash(path in "/[a-z/]{0,12}", query in proptest::option::of("[a-z=&/]{0,8}"), to in "/?[a-z]{0,5}") {
        let target = query.as_ref().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let mut out = Vec::new();
        prop_assert!(rewrite::path(&PathRewrite::Prefix(to.into()), &PathMatch::Prefix("/".into()), target.as_bytes(), &mut out));
        prop_assert_eq!(out[0], b'/');
        prop_assert_eq!(matching::query(&out), query.as_deref().map(str::as_bytes));
    }

    #[test]
    fn every_draw_chooses_a_cluster_with_weight(weights in proptest::collection::vec(0..5_u32, 1..6), random in any::<u64>()) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let clusters = weighted(&weights);
        let picked = pick_cluster(&clusters, random);
        prop_assert!(picked.is_some_and(|picked| picked.weight > 0));
    }

    #[test]
    fn authorities_of_any_bytes_are_looked_up(authority in proptest::collection::vec(any::<u8>(), 0..600)) {
        let config = config(&[&["*.example"], &["shop.*"], &["shop.example"]], true);
        let _ = find_virtual_host(&config, &authority);
        let _ = vhds_name(&"80".into(), &authority);
    }
}
