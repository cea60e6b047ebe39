use std::time::Duration;

use mizzen_model::{AbortStatus, GatewayRef, HttpAction, MtlsMode, OutboundPolicy, Protocol, RoutePathRewrite};
use serde_json::{Value, json};

use super::*;
use crate::settings::{Membership, Settings};
use crate::{Object, validate};

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn object(kind: &str, spec: &str) -> Value {
    let group = if kind == "PeerAuthentication" {
        "security.istio.io"
    } else {
        "networking.istio.io"
    };
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": {"name": "ours", "namespace": "tutorial"}, "spec": yaml(spec),
    })
}

/// `code field` of every error.
fn errors(kind: &str, spec: &str) -> Vec<String> {
    let verdict = validate(&object(kind, spec));
    verdict
        .errors
        .iter()
        .map(|error| format!("{} {}", error.code, error.field))
        .collect()
}

fn warnings(kind: &str, spec: &str) -> Vec<String> {
    let verdict = validate(&object(kind, spec));
    assert_eq!(verdict.errors, []);
    verdict
        .warnings
        .iter()
        .map(|warning| format!("{} {}", warning.code, warning.field))
        .collect()
}

fn check_all(kind: &str, cases: &[(&str, &[&str])]) {
    for (spec, expected) in cases {
        assert_eq!(errors(kind, spec), *expected, "{kind} {spec}");
    }
}

fn route(spec: &str) -> model::VirtualService {
    match Object::from_json(object("VirtualService", spec)).unwrap() {
        Object::VirtualService(raw) => virtual_service(&raw, "cluster.local").unwrap().value,
        other => panic!("{other:?}"),
    }
}

fn rule(spec: &str) -> model::DestinationRule {
    match Object::from_json(object("DestinationRule", spec)).unwrap() {
        Object::DestinationRule(raw) => destination_rule(&raw, "cluster.local").unwrap().value,
        other => panic!("{other:?}"),
    }
}

/// A VirtualService with one HTTP rule.
fn http(rule: &str) -> String {
    format!("{{hosts: [a], http: [{rule}]}}")
}

const TO_A: &str = "route: [{destination: {host: a}}]";

// C1, C2, D1, D2
#[test]
fn a_canary_becomes_weights() {
    let route = route(
        "
        hosts: [Reviews]
        http:
        - match: [{headers: {End-User: {exact: jason}, x-debug: {}}, uri: {prefix: /api}}]
          route: [{destination: {host: reviews, subset: v2}}]
        - timeout: 1.5s
          retries: {attempts: 3, perTryTimeout: 500ms, retryOn: '5xx, 429'}
          route:
          - {destination: {host: reviews, subset: v1}, weight: 90}
          - {destination: {host: reviews.other.svc.cluster.local, port: {number: 8080}}, weight: 10}
        ",
    );
    assert_eq!(
        route.hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>(),
        ["reviews.tutorial.svc.cluster.local"]
    );
    assert_eq!(route.gateways.into_iter().collect::<Vec<_>>(), [GatewayRef::Mesh]);
    let names: Vec<_> = route.http[0].matches[0]
        .headers
        .keys()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(names, ["end-user", "x-debug"]);
    let HttpAction::Forward(all) = &route.http[0].action else {
        panic!()
    };
    assert_eq!(all[0].weight, 1, "a single destination gets everything");
    let HttpAction::Forward(split) = &route.http[1].action else {
        panic!()
    };
    let found: Vec<_> = split
        .iter()
        .map(|entry| (entry.destination.host.as_str(), entry.destination.port, entry.weight))
        .collect();
    assert_eq!(
        found,
        [
            ("reviews.tutorial.svc.cluster.local", None, 90),
            ("reviews.other.svc.cluster.local", Some(8080), 10)
        ]
    );
    assert_eq!(route.http[1].timeout, Some(Duration::from_millis(1500)));
    let retries = route.http[1].retries.as_ref().unwrap();
    assert_eq!(
        (retries.attempts, retries.per_try_timeout),
        (3, Some(Duration::from_millis(500)))
    );
    assert_eq!(
        (&*retries.retry_on, retries.status_codes.as_slice()),
        ("5xx,retriable-status-codes", [429].as_slice())
    );
}

// C1
#[test]
fn a_weight_of_zero_is_fine_beside_others_and_alone() {
    let zero = route(&http(
        "route: [{destination: {host: a}, weight: 0}, {destination: {host: b}, weight: 100}]",
    ));
    let HttpAction::Forward(split) = &zero.http[0].action else {
        panic!()
    };
    assert_eq!(split.iter().map(|entry| entry.weight).collect::<Vec<_>>(), [0, 100]);
    let single = route(&http("route: [{destination: {host: a}, weight: 0}]"));
    let HttpAction::Forward(all) = &single.http[0].action else {
        panic!()
    };
    assert_eq!(all[0].weight, 1);
}

// C2, C4, C5
#[test]
fn gateways_are_named_in_every_form() {
    let route = route(
        "{hosts: ['*'], gateways: [own, ./dot, other/theirs, old.legacy.svc.cluster.local], http: [{redirect: {uri: /}}]}",
    );
    let named: Vec<_> = route
        .gateways
        .iter()
        .map(|at| match at {
            GatewayRef::Gateway { namespace, name } => format!("{namespace}/{name}"),
            GatewayRef::Mesh => "mesh".to_owned(),
        })
        .collect();
    assert_eq!(named, ["legacy/old", "other/theirs", "tutorial/dot", "tutorial/own"]);
}

// L7: what is too long for a proxy is told before it is sent
#[test]
fn headers_longer_than_a_proxy_takes_are_refused() {
    let value = |text: &str| {
        http(&format!(
            "{{headers: {{request: {{set: {{x: '{text}'}}}}}}, route: [{{destination: {{host: a}}}}]}}"
        ))
    };
    assert_eq!(
        errors("VirtualService", &value(&"a".repeat(16_384))),
        Vec::<String>::new()
    );
    let refused = ["TooLong spec.http[0].headers.request.set.x"];
    assert_eq!(errors("VirtualService", &value(&"a".repeat(16_385))), refused);
    assert_eq!(errors("VirtualService", &value(&"%".repeat(9_000))), refused);
}

// C1, C2, C4, D1, D2, D5
#[test]
fn bad_virtual_services_are_refused_at_the_field() {
    let rules: &[(&str, &[&str])] = &[
        ("{}", &["Missing spec.http[0].route"]),
        (
            "route: [{destination: {host: a}, weight: -1}]",
            &["BadWeight spec.http[0].route[0].weight"],
        ),
        (
            "route: [{destination: {host: a}, weight: -1}, {destination: {host: b}}]",
            &["BadWeight spec.http[0].route[0].weight"],
        ),
        (
            "route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]",
            &["BadWeight spec.http[0].route"],
        ),
        (
            "route: [{destination: {host: a}, weight: 2147483647}, {destination: {host: b}, weight: 2147483647}, {destination: {host: c}, weight: 2}]",
            &["BadWeight spec.http[0].route"],
        ),
        (
            "route: [{destination: {host: ''}}]",
            &["BadName spec.http[0].route[0].destination.host"],
        ),
        (
            "route: [{destination: {host: 'a b'}}]",
            &["BadName spec.http[0].route[0].destination.host"],
        ),
        (
            "route: [{destination: {host: 'a.*.com'}}]",
            &["BadName spec.http[0].route[0].destination.host"],
        ),
        (
            "route: [{destination: {host: '*'}}]",
            &["BadWildcard spec.http[0].route[0].destination.host"],
        ),
        (
            "route: [{destination: {}}]",
            &["SchemaMismatch spec.http[0].route[0].destination.host"],
        ),
        (
            "route: [{destination: {host: a, port: {number: 0}}}]",
            &["BadPort spec.http[0].route[0].destination.port.number"],
        ),
        (
            "route: [{destination: {host: a, port: {number: 65536}}}]",
            &["BadPort spec.http[0].route[0].destination.port.number"],
        ),
        (
            "route: [{destination: {host: a, subset: 'v 1'}}]",
            &["BadName spec.http[0].route[0].destination.subset"],
        ),
        (
            "redirect: {uri: /x}, route: [{destination: {host: a}}]",
            &["MutuallyExclusive spec.http[0].redirect"],
        ),
        (
            "redirect: {uri: /x}, fault: {abort: {httpStatus: 500}}",
            &["MutuallyExclusive spec.http[0].fault"],
        ),
        (
            "directResponse: {status: 200}, rewrite: {uri: /}",
            &["MutuallyExclusive spec.http[0].rewrite"],
        ),
        ("redirect: {}", &["Missing spec.http[0].redirect"]),
        (
            "redirect: {uri: /x, redirectCode: 200}",
            &["OutOfRange spec.http[0].redirect.redirectCode"],
        ),
        (
            "redirect: {uri: /x, port: 80, derivePort: FROM_REQUEST_PORT}",
            &["SchemaMismatch spec.http[0].redirect"],
        ),
        (
            "directResponse: {status: 600}",
            &["OutOfRange spec.http[0].directResponse.status"],
        ),
        (
            "directResponse: {status: 200, body: {bytes: '%'}}",
            &["BadBase64 spec.http[0].directResponse.body.bytes"],
        ),
        (
            "delegate: {name: b}, route: [{destination: {host: a}}]",
            &["MutuallyExclusive spec.http[0].delegate"],
        ),
        (
            "timeout: 1, route: [{destination: {host: a}}]",
            &["SchemaMismatch spec.http[0].timeout"],
        ),
        (
            "timeout: '1', route: [{destination: {host: a}}]",
            &["BadDuration spec.http[0].timeout"],
        ),
        (
            "timeout: 0s, route: [{destination: {host: a}}]",
            &["BadDuration spec.http[0].timeout"],
        ),
        (
            "timeout: 10us, route: [{destination: {host: a}}]",
            &["BadDuration spec.http[0].timeout"],
        ),
        (
            "retries: {attempts: -1}, route: [{destination: {host: a}}]",
            &["OutOfRange spec.http[0].retries.attempts"],
        ),
        (
            "retries: {attempts: 0, retryOn: 5xx}, route: [{destination: {host: a}}]",
            &["Missing spec.http[0].retries.attempts"],
        ),
        (
            "retries: {attempts: 1, retryOn: 6xx}, route: [{destination: {host: a}}]",
            &["UnknownValue spec.http[0].retries.retryOn"],
        ),
        (
            "retries: {attempts: 1, retryOn: '700'}, route: [{destination: {host: a}}]",
            &["OutOfRange spec.http[0].retries.retryOn"],
        ),
        (
            "fault: {}, route: [{destination: {host: a}}]",
            &["Missing spec.http[0].fault"],
        ),
        (
            "fault: {delay: {percentage: {value: 10}}}, route: [{destination: {host: a}}]",
            &["Missing spec.http[0].fault.delay.fixedDelay"],
        ),
        (
            "fault: {abort: {httpStatus: 999, percentage: {value: 101}}}, route: [{destination: {host: a}}]",
            &[
                "OutOfRange spec.http[0].fault.abort.percentage.value",
                "OutOfRange spec.http[0].fault.abort.httpStatus",
            ],
        ),
        (
            "fault: {abort: {grpcStatus: BROKEN}}, route: [{destination: {host: a}}]",
            &["UnknownValue spec.http[0].fault.abort.grpcStatus"],
        ),
        (
            "match: [{uri: {}}], route: [{destination: {host: a}}]",
            &["Missing spec.http[0].match[0].uri"],
        ),
        (
            "match: [{uri: {prefix: ''}}], route: [{destination: {host: a}}]",
            &["Missing spec.http[0].match[0].uri.prefix"],
        ),
        (
            "match: [{uri: {exact: /, prefix: /}}], route: [{destination: {host: a}}]",
            &["SchemaMismatch spec.http[0].match[0].uri"],
        ),
        (
            "match: [{uri: {regex: '('}}], route: [{destination: {host: a}}]",
            &["BadRegex spec.http[0].match[0].uri.regex"],
        ),
        (
            "match: [{uri: {regex: '(a{1000}){1000}'}}], route: [{destination: {host: a}}]",
            &["BadRegex spec.http[0].match[0].uri.regex"],
        ),
        (
            "match: [{headers: {'a b': {exact: c}}}], route: [{destination: {host: a}}]",
            &["BadName spec.http[0].match[0].headers.a b"],
        ),
        (
            "match: [{port: 70000}], route: [{destination: {host: a}}]",
            &["BadPort spec.http[0].match[0].port"],
        ),
        (
            "match: [{sourceLabels: {app: 'a*'}}], route: [{destination: {host: a}}]",
            &["BadLabel spec.http[0].match[0].sourceLabels"],
        ),
        (
            "match: [{gateways: [A/b]}], route: [{destination: {host: a}}]",
            &["BadNamespace spec.http[0].match[0].gateways[0]"],
        ),
        (
            "rewrite: {}, route: [{destination: {host: a}}]",
            &["Missing spec.http[0].rewrite"],
        ),
        (
            "rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}, route: [{destination: {host: a}}]",
            &["MutuallyExclusive spec.http[0].rewrite.uriRegexRewrite"],
        ),
        (
            "rewrite: {uriRegexRewrite: {match: '['}}, route: [{destination: {host: a}}]",
            &["Missing spec.http[0].rewrite.uriRegexRewrite.rewrite"],
        ),
        (
            "headers: {request: {set: {':path': /}}}, route: [{destination: {host: a}}]",
            &["UnknownValue spec.http[0].headers.request.set.:path"],
        ),
        (
            "headers: {request: {add: {content-length: '1'}}}, route: [{destination: {host: a}}]",
            &["UnknownValue spec.http[0].headers.request.add.content-length"],
        ),
        (
            "headers: {response: {set: {x: \"a\\r\\nb\"}}}, route: [{destination: {host: a}}]",
            &["BadHeaderValue spec.http[0].headers.response.set.x"],
        ),
        (
            "mirror: {host: b}, mirrors: [{destination: {host: c}}], route: [{destination: {host: a}}]",
            &["MutuallyExclusive spec.http[0].mirrors"],
        ),
        (
            "mirror: {host: b}, mirrorPercentage: {value: -1}, route: [{destination: {host: a}}]",
            &["OutOfRange spec.http[0].mirrorPercentage.value"],
        ),
        (
            "corsPolicy: {allowMethods: [get]}, route: [{destination: {host: a}}]",
            &["UnknownValue spec.http[0].corsPolicy.allowMethods[0]"],
        ),
        (
            "corsPolicy: {unmatchedPreflights: MAYBE}, route: [{destination: {host: a}}]",
            &["SchemaMismatch spec.http[0].corsPolicy.unmatchedPreflights"],
        ),
        (
            "match: [{uri: {regex: ''}}], route: [{destination: {host: a}}]",
            &["Missing spec.http[0].match[0].uri.regex"],
        ),
        (
            "match: [{scheme: {regex: ''}, method: {regex: ''}, authority: {regex: ''}}], route: [{destination: {host: a}}]",
            &[
                "Missing spec.http[0].match[0].scheme.regex",
                "Missing spec.http[0].match[0].method.regex",
                "Missing spec.http[0].match[0].authority.regex",
            ],
        ),
        (
            "match: [{headers: {x: {regex: ''}}, withoutHeaders: {y: {regex: ''}}, queryParams: {z: {regex: ''}}}], route: [{destination: {host: a}}]",
            &[
                "Missing spec.http[0].match[0].queryParams.z.regex",
                "Missing spec.http[0].match[0].headers.x.regex",
                "Missing spec.http[0].match[0].withoutHeaders.y.regex",
            ],
        ),
        (
            "match: [{uri: {regex: 'a{1,1001}'}}], route: [{destination: {host: a}}]",
            &["BadRegex spec.http[0].match[0].uri.regex"],
        ),
        (
            "match: [{queryParams: {'': {exact: b}}}], route: [{destination: {host: a}}]",
            &["Missing spec.http[0].match[0].queryParams"],
        ),
        (
            "match: [{queryParams: {\"a\\nb\": {exact: b}}}], route: [{destination: {host: a}}]",
            &["BadCharacter spec.http[0].match[0].queryParams"],
        ),
        (
            "match: [{headers: {'': {exact: b}}}], route: [{destination: {host: a}}]",
            &["BadName spec.http[0].match[0].headers."],
        ),
        (
            "match: [{uri: {prefix: \"/a\\rb\"}, headers: {x: {exact: \"a\\nb\"}}}], route: [{destination: {host: a}}]",
            &[
                "BadCharacter spec.http[0].match[0].uri.prefix",
                "BadCharacter spec.http[0].match[0].headers.x.exact",
            ],
        ),
        (
            "rewrite: {uri: \"/a\\r\\nb\", authority: \"a\\0b\"}, route: [{destination: {host: a}}]",
            &[
                "BadCharacter spec.http[0].rewrite.uri",
                "BadCharacter spec.http[0].rewrite.authority",
            ],
        ),
        (
            "rewrite: {uriRegexRewrite: {match: '/(a)', rewrite: '/\\2'}}, route: [{destination: {host: a}}]",
            &["BadRegex spec.http[0].rewrite.uriRegexRewrite.rewrite"],
        ),
        (
            "match: [{uri: {regex: '/(?=a)'}, headers: {x: {regex: 'a++'}}}], route: [{destination: {host: a}}]",
            &[
                "BadRegex spec.http[0].match[0].uri.regex",
                "BadRegex spec.http[0].match[0].headers.x.regex",
            ],
        ),
        (
            "rewrite: {uriRegexRewrite: {match: '', rewrite: /}}, route: [{destination: {host: a}}]",
            &["Missing spec.http[0].rewrite.uriRegexRewrite.match"],
        ),
        (
            "rewrite: {uriRegexRewrite: {match: a, rewrite: \"\\n\"}}, route: [{destination: {host: a}}]",
            &["BadCharacter spec.http[0].rewrite.uriRegexRewrite.rewrite"],
        ),
        (
            "redirect: {uri: \"/a\\nb\", authority: \"a\\rb\", scheme: \"h\\0\"}",
            &[
                "BadCharacter spec.http[0].redirect.authority",
                "BadCharacter spec.http[0].redirect.scheme",
                "BadCharacter spec.http[0].redirect.uri",
            ],
        ),
        (
            "redirect: {prefixRewrite: \"/a\\nb\"}",
            &["BadCharacter spec.http[0].redirect.prefixRewrite"],
        ),
        (
            "headers: {request: {set: {x: \"a\\0b\"}, add: {'': b}, remove: ['']}}, route: [{destination: {host: a}}]",
            &[
                "BadHeaderValue spec.http[0].headers.request.set.x",
                "BadName spec.http[0].headers.request.add.",
                "BadName spec.http[0].headers.request.remove[0]",
            ],
        ),
        (
            "route: [{destination: {host: a}, headers: {request: {set: {x: \"a\\nb\"}}}}]",
            &["BadHeaderValue spec.http[0].route[0].headers.request.set.x"],
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: \"a\\nb\"}, {regex: ''}], allowHeaders: [\"a\\nb\"], exposeHeaders: [\"a\\nb\"]}, route: [{destination: {host: a}}]",
            &[
                "BadCharacter spec.http[0].corsPolicy.allowOrigins[0].exact",
                "Missing spec.http[0].corsPolicy.allowOrigins[1].regex",
                "BadCharacter spec.http[0].corsPolicy.allowHeaders[0]",
                "BadCharacter spec.http[0].corsPolicy.exposeHeaders[0]",
            ],
        ),
        (
            "corsPolicy: {allowOrigin: [\"a\\nb\"]}, route: [{destination: {host: a}}]",
            &["BadCharacter spec.http[0].corsPolicy.allowOrigin"],
        ),
        (
            "nonsense: 1, route: [{destination: {host: a}}]",
            &["UnknownField spec.http[0].nonsense"],
        ),
    ];
    for (rule, expected) in rules {
        let rule = if *rule == "{}" {
            "{}".to_owned()
        } else {
            format!("{{{rule}}}")
        };
        assert_eq!(errors("VirtualService", &http(&rule)), *expected, "{rule}");
    }
    check_all(
        "VirtualService",
        &[
            ("{hosts: [a]}", &["Missing spec.http"]),
            ("{hosts: []}", &["Missing spec.http"]),
            (
                &format!("{{gateways: [g], http: [{{{TO_A}}}]}}"),
                &["Missing spec.hosts"],
            ),
            (
                &format!("{{hosts: ['*'], http: [{{{TO_A}}}]}}"),
                &["BadWildcard spec.hosts[0]"],
            ),
            (
                &format!("{{hosts: ['*'], gateways: [g, mesh], http: [{{{TO_A}}}]}}"),
                &["BadWildcard spec.hosts[0]"],
            ),
            (
                &format!("{{hosts: [a, A], http: [{{{TO_A}}}]}}"),
                &["Duplicate spec.hosts[1]"],
            ),
            (
                &format!("{{hosts: ['a..b'], http: [{{{TO_A}}}]}}"),
                &["BadName spec.hosts[0]"],
            ),
            (
                &format!("{{hosts: [a], exportTo: [B_], http: [{{{TO_A}}}]}}"),
                &["BadNamespace spec.exportTo[0]"],
            ),
            (
                "{http: [{delegate: {name: b}}]}",
                &["MutuallyExclusive spec.http[0].delegate"],
            ),
            (
                "{hosts: [a], http: [{delegate: {}}]}",
                &["BadName spec.http[0].delegate.name"],
            ),
            (
                "{hosts: [a.com], tls: [{match: [{sniHosts: [b.com]}], route: [{destination: {host: a}}]}]}",
                &["SniOutsideHosts spec.tls[0].match[0].sniHosts[0]"],
            ),
            (
                "{hosts: [a.com], tls: [{match: [{sniHosts: []}], route: []}]}",
                &["Missing spec.tls[0].match[0].sniHosts", "Missing spec.tls[0].route"],
            ),
            (
                "{hosts: [a], tcp: [{match: [{destinationSubnets: [10.0.0.0/33]}], route: [{destination: {host: a}}]}]}",
                &["BadSubnet spec.tcp[0].match[0].destinationSubnets[0]"],
            ),
            ("{hosts: [a], tcp: [{}]}", &["Missing spec.tcp[0].route"]),
            ("{hostz: [a]}", &["UnknownField spec.hostz", "Missing spec.http"]),
        ],
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_remedies() {
    let verdict = validate(&object(
        "VirtualService",
        "{hosts: [a], htp: [], http: [{timeout: soon, route: [{destination: {host: a}, weight: -5}, {destination: {host: 'b!'}}]}]}",
    ));
    let found: Vec<_> = verdict.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "spec.htp: unknown field; did you mean http?",
            "spec.http[0].route[0].weight: weight -5 of \"a\" is negative: write 0 or more",
            "spec.http[0].route[1].destination.host: host \"b!.tutorial.svc.cluster.local\" has the character '!': use \
             lower-case letters, digits, '-' and '.'",
            "spec.http[0].timeout: \"soon\" is not a duration: write a number with a unit, such as 500ms, 1.5s or 1h",
        ]
    );
}

// C3, C4, D5
#[test]
fn actions_become_their_checked_forms() {
    let route = route(
        "
        hosts: [a]
        http:
        - match: [{uri: {prefix: /old}}]
          rewrite: {uriRegexRewrite: {match: '^/old/(.*)', rewrite: '/new/\\1'}}
          fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 12.5}}, delay: {fixedDelay: 2s, percent: 50}}
          mirror: {host: shadow}
          route: [{destination: {host: a}}]
        - match: [{uri: {exact: /gone}}]
          directResponse: {status: 410, body: {string: gone}}
        - match: [{uri: {prefix: /a}}, {uri: {prefix: /a.b}}]
          redirect: {prefixRewrite: '/c\\d'}
        - redirect: {authority: new.example.com, redirectCode: 308, derivePort: FROM_REQUEST_PORT}
        ",
    );
    let first = &route.http[0];
    let Some(RoutePathRewrite::Regex { pattern, substitution }) = &first.rewrite.as_ref().unwrap().uri else {
        panic!()
    };
    assert_eq!((pattern.as_str(), &**substitution), ("^/old/(.*)", "/new/\\1"));
    let fault = first.fault.unwrap();
    assert_eq!(
        (fault.abort.unwrap().status, fault.abort.unwrap().percent.millionths()),
        (AbortStatus::Grpc(14), 125_000)
    );
    assert_eq!(
        (fault.delay.unwrap().duration, fault.delay.unwrap().percent.millionths()),
        (Duration::from_secs(2), 500_000)
    );
    assert_eq!(first.mirrors[0].percent, model::Percent::ALL);
    assert!(matches!(&route.http[1].action, HttpAction::Direct(direct) if direct.status == 410));
    let HttpAction::Redirect(redirect) = &route.http[2].action else {
        panic!()
    };
    let Some(RoutePathRewrite::Regex { pattern, substitution }) = &redirect.uri else {
        panic!()
    };
    assert_eq!((pattern.as_str(), &**substitution), (r"^(?:/a\.b|/a)", r"/c\\d"));
    let HttpAction::Redirect(redirect) = &route.http[3].action else {
        panic!()
    };
    assert_eq!(
        (redirect.status, redirect.port),
        (308, Some(model::RedirectPort::FromRequest))
    );
}

#[test]
fn second_looks_are_warnings() {
    let spec = format!("{{hosts: [a], http: [{{{TO_A}}}, {{{TO_A}, mirror: {{host: b}}, mirrorPercent: 5}}]}}");
    assert_eq!(
        warnings("VirtualService", &spec),
        [
            "UnreachableRule spec.http[1]",
            "DeprecatedField spec.http[1].mirrorPercent"
        ]
    );
    let spec = "{host: a, trafficPolicy: {loadBalancer: {simple: LEAST_CONN}, proxyProtocol: {version: V2}}}";
    assert_eq!(
        warnings("DestinationRule", spec),
        [
            "NotActedOn spec.trafficPolicy.proxyProtocol",
            "DeprecatedField spec.trafficPolicy.loadBalancer.simple"
        ]
    );
}

// C6, D3, D4, E3
#[test]
fn bad_destination_rules_are_refused_at_the_field() {
    check_all(
        "DestinationRule",
        &[
            ("{}", &["SchemaMismatch spec.host"]),
            ("{host: ''}", &["BadName spec.host"]),
            (
                "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: \"a\\nb\", path: \"/\\r\", ttl: 1s}}}}}",
                &[
                    "BadCharacter spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.name",
                    "BadCharacter spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.path",
                ],
            ),
            (
                "{host: a, subsets: [{name: v1}, {name: v1}]}",
                &["Duplicate spec.subsets[1].name"],
            ),
            ("{host: a, subsets: [{name: ''}]}", &["BadName spec.subsets[0].name"]),
            (
                "{host: a, subsets: [{name: v1, labels: {version: 'v 1'}}]}",
                &["BadLabel spec.subsets[0].labels"],
            ),
            (
                "{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}",
                &["Missing spec.trafficPolicy.tls.clientCertificate"],
            ),
            (
                "{host: a, trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c}}}",
                &["Missing spec.trafficPolicy.tls.privateKey"],
            ),
            (
                "{host: a, trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k, credentialName: s}}}",
                &["MutuallyExclusive spec.trafficPolicy.tls.credentialName"],
            ),
            (
                "{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL, clientCertificate: /c}}}",
                &["MutuallyExclusive spec.trafficPolicy.tls.mode"],
            ),
            (
                "{host: a, trafficPolicy: {tls: {mode: ON}}}",
                &["SchemaMismatch spec.trafficPolicy.tls.mode"],
            ),
            (
                "{host: a, trafficPolicy: {portLevelSettings: [{}]}}",
                &["Missing spec.trafficPolicy.portLevelSettings[0].port.number"],
            ),
            (
                "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}}, {port: {number: 80}}]}}",
                &["Duplicate spec.trafficPolicy.portLevelSettings[1].port.number"],
            ),
            (
                "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {}}}}",
                &["Missing spec.trafficPolicy.loadBalancer.consistentHash"],
            ),
            (
                "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}",
                &["SchemaMismatch spec.trafficPolicy.loadBalancer"],
            ),
            (
                "{host: a, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: 'r/*', to: {'r/z': 99}}]}}}}",
                &["BadShares spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to"],
            ),
            (
                "{host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: -1}}}}",
                &["OutOfRange spec.trafficPolicy.connectionPool.tcp.maxConnections"],
            ),
            (
                "{host: a, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1d}}}}",
                &["BadDuration spec.trafficPolicy.connectionPool.tcp.connectTimeout"],
            ),
            (
                "{host: a, trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}}",
                &["OutOfRange spec.trafficPolicy.outlierDetection.maxEjectionPercent"],
            ),
            (
                "{host: a, subsets: [{name: v1, trafficPolicy: {outlierDetection: {interval: x}}}]}",
                &["BadDuration spec.subsets[0].trafficPolicy.outlierDetection.interval"],
            ),
        ],
    );
}

// C6, D3, D4
#[test]
fn a_destination_rule_becomes_its_checked_form() {
    let rule = rule(
        "
        host: '*.Example.com'
        exportTo: [., other]
        trafficPolicy:
          loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}, maglev: {}}}
          connectionPool: {tcp: {maxConnections: 10}, http: {http1MaxPendingRequests: 1, http2MaxRequests: 0}}
          outlierDetection: {consecutiveErrors: 3, baseEjectionTime: 3m}
          portLevelSettings: [{port: {number: 8080}, tls: {mode: ISTIO_MUTUAL}}]
        subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {tls: {mode: DISABLE}}}]
        ",
    );
    assert_eq!(rule.host.as_str(), "*.example.com");
    assert!(rule.export_to.visible_from(&Namespace::new("tutorial").unwrap()));
    assert!(!rule.export_to.visible_from(&Namespace::new("third").unwrap()));
    let policy = &rule.policy;
    assert!(matches!(
        policy.load_balancer.as_ref().unwrap().policy,
        model::Policy::Hash {
            algorithm: model::ConsistentHash::Maglev { table_size: None },
            ..
        }
    ));
    let pool = policy.connection_pool.unwrap();
    assert_eq!(
        (
            pool.tcp.max_connections,
            pool.http.max_pending_requests,
            pool.http.max_requests
        ),
        (Some(10), Some(1), None)
    );
    assert_eq!(policy.outlier.unwrap().consecutive_5xx, Some(3));
    assert!(matches!(policy.ports[&8080].tls, Some(model::ClientTls::Mesh { .. })));
    assert_eq!(
        rule.subsets[0].policy.as_ref().unwrap().tls,
        Some(model::ClientTls::Disable)
    );
}

// C8
#[test]
fn bad_gateways_are_refused_at_the_field() {
    let server = |rest: &str| format!("{{servers: [{{{rest}}}]}}");
    let http = "port: {number: 80, name: http, protocol: HTTP}";
    let https = "port: {number: 443, name: https, protocol: HTTPS}";
    check_all(
        "Gateway",
        &[
            ("{}", &["Missing spec.servers"]),
            (&server(http), &["SchemaMismatch spec.servers[0].hosts"]),
            (
                &server(&format!("{http}, hosts: []")),
                &["Missing spec.servers[0].hosts"],
            ),
            (&server("hosts: ['*']"), &["SchemaMismatch spec.servers[0].port"]),
            (
                &server("port: {number: 0, name: http, protocol: HTTP}, hosts: ['*']"),
                &["BadPort spec.servers[0].port.number"],
            ),
            (
                &server("port: {number: 80, name: http, protocol: QUIC}, hosts: ['*']"),
                &["UnknownValue spec.servers[0].port.protocol"],
            ),
            (
                &server("port: {number: 80, name: '', protocol: HTTP}, hosts: ['*']"),
                &["BadName spec.servers[0].port.name"],
            ),
            (
                &server(&format!("{http}, hosts: ['x/y/z']")),
                &["BadName spec.servers[0].hosts[0]"],
            ),
            (
                &server(&format!("{http}, hosts: ['NS/a.com']")),
                &["BadNamespace spec.servers[0].hosts[0]"],
            ),
            (
                &server(&format!("{https}, hosts: ['*']")),
                &["Missing spec.servers[0].tls"],
            ),
            (
                &server(&format!("{https}, hosts: ['*'], tls: {{mode: SIMPLE}}")),
                &["Missing spec.servers[0].tls.credentialName"],
            ),
            (
                &server(&format!(
                    "{https}, hosts: ['*'], tls: {{mode: SIMPLE, serverCertificate: /c}}"
                )),
                &["Missing spec.servers[0].tls.privateKey"],
            ),
            (
                &server(&format!(
                    "{https}, hosts: ['*'], tls: {{mode: MUTUAL, serverCertificate: /c, privateKey: /k}}"
                )),
                &["Missing spec.servers[0].tls.caCertificates"],
            ),
            (
                &server(&format!(
                    "{https}, hosts: ['*'], tls: {{mode: ISTIO_MUTUAL, credentialName: s}}"
                )),
                &["MutuallyExclusive spec.servers[0].tls.mode"],
            ),
            (
                &server(&format!(
                    "{https}, hosts: ['*'], tls: {{mode: SIMPLE, credentialName: s, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}}"
                )),
                &["Missing spec.servers[0].tls.minProtocolVersion"],
            ),
            (
                &server(&format!(
                    "{http}, hosts: ['*'], tls: {{mode: SIMPLE, credentialName: s}}"
                )),
                &["Incomplete spec.servers[0].tls"],
            ),
            (
                &server(&format!("{http}, hosts: ['*'], bind: unix:///x")),
                &["UnknownValue spec.servers[0].bind"],
            ),
            (
                &format!("{{servers: [{{name: a, {http}, hosts: ['*']}}, {{name: a, {http}, hosts: ['*']}}]}}"),
                &["Duplicate spec.servers[1].name"],
            ),
            (
                &server(&format!(
                    "{http}, hosts: ['./a.com', 'ns/*', '*'], tls: {{httpsRedirect: true}}"
                )),
                &[],
            ),
            (
                &server(&format!("{https}, hosts: ['*'], tls: {{mode: PASSTHROUGH}}")),
                &[],
            ),
        ],
    );
}

// E3
#[test]
fn bad_peer_authentications_are_refused_at_the_field() {
    check_all(
        "PeerAuthentication",
        &[
            ("{mtls: {mode: ON}}", &["SchemaMismatch spec.mtls.mode"]),
            (
                "{portLevelMtls: {'80': {mode: STRICT}}}",
                &["PortsWithoutSelector spec.portLevelMtls"],
            ),
            (
                "{selector: {matchLabels: {a: b}}, portLevelMtls: {'0': {mode: STRICT}}}",
                &["BadPort spec.portLevelMtls.0"],
            ),
            (
                "{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}",
                &["BadPort spec.portLevelMtls.http"],
            ),
            (
                "{selector: {matchLabels: {a: 'b*'}}}",
                &["BadLabel spec.selector.matchLabels"],
            ),
            ("{mtls: {mode: STRICT}, mode: STRICT}", &["UnknownField spec.mode"]),
            ("{mtls: {mode: UNSET}}", &[]),
        ],
    );
}

// E3
#[test]
fn a_policy_that_is_refused_demands_mutual_tls() {
    let raw = Object::from_json(object(
        "PeerAuthentication",
        "{selector: {matchLabels: {app: a}}, portLevelMtls: {'0': {mode: DISABLE}}}",
    ));
    let Some(Object::PeerAuthentication(raw)) = raw else {
        panic!()
    };
    let key = key_of(Kind::PeerAuthentication, &raw.metadata).unwrap();
    let policy = strict_instead(&raw, key);
    assert_eq!(policy.mode, Some(MtlsMode::Strict));
    assert_eq!(policy.selector.unwrap().value("app"), Some("a"));
}

#[test]
fn other_kinds_are_refused() {
    let verdict = validate(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}));
    assert_eq!(verdict.errors[0].code, "UnknownKind");
    assert!(Object::from_json(json!({"apiVersion": "v1", "kind": "Pod"})).is_none());
}

// L7: every served version is read alike
#[test]
fn older_versions_and_null_fields_and_whole_floats_are_read() {
    let mut value = object(
        "VirtualService",
        "{hosts: [a], gateways: null, http: [{route: [{destination: {host: a}, weight: 1.0}], timeout: null}]}",
    );
    value["apiVersion"] = json!("networking.istio.io/v1alpha3");
    assert_eq!(validate(&value), crate::Verdict::default());
}

#[test]
fn an_object_that_does_not_fit_its_schema_is_told_apart() {
    let Some(Object::Unreadable(raw)) = Object::from_json(object("VirtualService", "{hosts: a}")) else {
        panic!()
    };
    assert_eq!(raw.kind, Kind::VirtualService);
    assert_eq!(raw.metadata.name.as_deref(), Some("ours"));
    assert_eq!(
        raw.errors[0].to_string(),
        "spec.hosts: must be of type array, not string; write a list"
    );
}

fn settings() -> Settings {
    let root = Namespace::new("istio-system").unwrap();
    Settings::new(model::MeshConfig::new(
        root,
        model::TrustDomain::new("cluster.local").unwrap(),
    ))
}

// A5, C7, F3
#[test]
fn a_mesh_configuration_is_read_field_by_field() {
    let text = "
        trustDomain: example.org
        enableAutoMtls: false
        outboundTrafficPolicy: {mode: REGISTRY_ONLY}
        connectTimeout: 3s
        protocolDetectionTimeout: 0s
        accessLogFile: /dev/stdout
        accessLogEncoding: JSON
        defaultHttpRetryPolicy: {attempts: 5, retryOn: '5xx'}
        mizzen: {mode: MultiTenant, dataPlane: envoy, clusterId: c1}
        somethingElse: 1
    ";
    let configured = mesh_config(text, &settings());
    assert_eq!(configured.diagnostics, []);
    assert_eq!(configured.membership, Membership::Labelled);
    let config = configured.config;
    assert_eq!(config.trust_domain.as_str(), "example.org");
    assert_eq!(
        (config.auto_mtls, config.outbound_policy),
        (false, OutboundPolicy::RegistryOnly)
    );
    assert_eq!(
        (config.connect_timeout, config.protocol_detection_timeout),
        (Duration::from_secs(3), Duration::ZERO)
    );
    assert_eq!(config.access_log.unwrap().encoding, model::AccessLogEncoding::Json);
    assert_eq!((config.retries.attempts, &*config.retries.retry_on), (5, "5xx"));
    assert_eq!(
        (config.data_plane, &*config.cluster_id),
        (model::DataPlane::Envoy, "c1")
    );
}

#[test]
fn what_is_wrong_in_a_mesh_configuration_leaves_the_rest() {
    let text =
        "{trustDomain: 'a b', connectTimeout: 2s, outboundTrafficPolicy: {mode: NONE}, mizzen: {dataPlane: other}}";
    let configured = mesh_config(text, &settings());
    let fields: Vec<_> = configured
        .diagnostics
        .iter()
        .map(|found| found.field.as_str())
        .collect();
    assert_eq!(
        fields,
        ["trustDomain", "outboundTrafficPolicy.mode", "mizzen.dataPlane"]
    );
    assert_eq!(configured.config.connect_timeout, Duration::from_secs(2));
    assert_eq!(configured.config.trust_domain.as_str(), "cluster.local");
    assert_eq!(configured.config.outbound_policy, OutboundPolicy::RegistryOnly);
    let unreadable = mesh_config("a: [", &settings());
    assert_eq!(
        (unreadable.diagnostics.len(), &unreadable.config),
        (1, &settings().defaults)
    );
}

#[test]
fn protocols_of_the_model_are_all_reachable() {
    assert_eq!(
        crate::facts::service::protocol(80, Some("redis"), None, None),
        Some(Protocol::Redis)
    );
}

mod random {
    use super::*;
    use proptest::prelude::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z*./ -]{0,8}".prop_map(Value::from),
        ];
        let name = prop::sample::select(vec![
            "hosts",
            "http",
            "match",
            "uri",
            "exact",
            "regex",
            "route",
            "destination",
            "host",
            "weight",
            "timeout",
            "tls",
            "tcp",
            "port",
            "number",
            "headers",
            "fault",
            "abort",
            "retries",
            "servers",
            "protocol",
            "trafficPolicy",
            "mode",
            "portLevelMtls",
            "selector",
            "matchLabels",
            "subsets",
            "loadBalancer",
            "consistentHash",
            "8080",
        ]);
        leaf.prop_recursive(6, 64, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn anything_gets_a_verdict_and_never_a_panic(
            spec in json(),
            kind in prop::sample::select(vec!["Gateway", "VirtualService", "DestinationRule", "PeerAuthentication"]),
        ) {
            let mut object = super::object(kind, "{}");
            object["spec"] = spec;
            let verdict = validate(&object);
            let read = Object::from_json(object).unwrap();
            if verdict.is_accepted() {
                prop_assert!(!matches!(read, Object::Unreadable(_)));
            }
        }
    }
}
