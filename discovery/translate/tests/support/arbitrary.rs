//! Users' objects with values at the edges of what may be written, from a seed.

use serde_json::{Map, Value, json};

/// Draws values: SplitMix64, so that a seed gives the same ones for ever.
pub struct Draw(u64);

const DURATIONS: [&str; 9] = ["1ms", "1s", "0.5s", "15m", "1h30m", "24h", "100000h", "1500ms", "999us"];
const NUMBERS: [i64; 8] = [0, 1, 2, 7, 100, 1_000, 65_535, 2_147_483_647];
const PATHS: [&str; 11] = [
    "/",
    "/a",
    "/a/b/",
    "/a%20b",
    "/a?b=c",
    "/a#b",
    "/ä",
    "no-slash",
    "/*",
    "/{a}",
    "/a//b/../c",
];
const REGEXES: [&str; 16] = [
    ".*",
    "/api/v[0-9]+/.*",
    r"^/products/(\d+)(?:/reviews)?$",
    r"(?P<user>\w+)@(?<host>[^@\s]+)",
    "(?i)mobile|tablet",
    "(?i:a)(?-s).(?U)a+",
    r"[]a-z\]^-]",
    "[[:alpha:][:^digit:]_]+",
    r"\x41\x{7f}\a\f\t\n\r\v",
    "/ä(?:ö)+.*",
    r"\Aa\b\B.\z",
    r"\.\-\/\{\}\[\]\(\)\*\+\?\|\^\$\\\#\&\~",
    "a{2}b{2,}c{2,30}?d*?e+?f??",
    "(a{10}){100}",
    "(|a)()a||b",
    "(abc|def){1000}x?",
];
const HEADERS: [&str; 9] = [
    "x-user",
    "X-Upper",
    "cookie",
    "host",
    ":authority",
    ":path",
    "x_under",
    "content-length",
    "connection",
];
const VALUES: [&str; 12] = [
    "a",
    "",
    "two words",
    "50%",
    "%REQ(x-user)%",
    "%NOPE%",
    "%",
    "ä",
    "\"quoted\"",
    "a,b;c=d",
    " padded ",
    "%%",
];
const LABELS: [&str; 4] = ["v1", "v2", "v1.2_3", ""];

impl Draw {
    pub fn new(seed: u8) -> Self {
        Self(u64::from(seed))
    }

    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % most as u64) as usize
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn text(&mut self, of: &[&'static str]) -> Value {
        json!(self.one(of))
    }

    fn number(&mut self) -> Value {
        json!(self.one(&NUMBERS))
    }

    fn percent(&mut self) -> Value {
        json!(self.one(&[0.0, 0.0001, 0.00001, 1.0, 33.33, 99.9999, 100.0]))
    }

    /// Some of the fields.
    fn some(&mut self, percent: usize, fields: Vec<(&str, Value)>) -> Value {
        let mut found = Map::new();
        for (name, value) in fields {
            if self.chance(percent) {
                found.insert(name.to_owned(), value);
            }
        }
        Value::Object(found)
    }

    fn string_match(&mut self, texts: &[&'static str]) -> Value {
        match self.below(3) {
            0 => json!({ "exact": self.text(texts) }),
            1 => json!({ "prefix": self.text(texts) }),
            _ => json!({ "regex": self.text(&REGEXES) }),
        }
    }

    fn header_matches(&mut self) -> Value {
        let name = self.one(&HEADERS);
        let value = if self.chance(20) {
            json!({})
        } else {
            self.string_match(&VALUES)
        };
        json!({ name: value })
    }

    fn header_ops(&mut self) -> Value {
        let mut ops = || {
            let name = self.one(&HEADERS);
            let value = self.text(&VALUES);
            let (set, add, remove) = (json!({ name: value }), self.one(&HEADERS), self.one(&HEADERS));
            let added = self.text(&VALUES);
            self.some(
                40,
                vec![
                    ("set", set),
                    ("add", json!({ add: added })),
                    ("remove", json!([remove])),
                ],
            )
        };
        json!({ "request": ops(), "response": ops() })
    }

    fn condition(&mut self) -> Value {
        let query = self.one(&["q", "", "a b", "q[]"]);
        let fields = vec![
            ("uri", self.string_match(&PATHS)),
            ("headers", self.header_matches()),
            ("withoutHeaders", self.header_matches()),
            ("queryParams", json!({ query: self.string_match(&VALUES) })),
            ("method", self.string_match(&["GET", "get", "M-SEARCH"])),
            ("scheme", self.string_match(&["http", "https"])),
            ("authority", self.string_match(&["a", "a:80", "*.a"])),
            ("port", json!(self.one(&[8080, 80, 1, 65_535]))),
            ("ignoreUriCase", json!(self.chance(50))),
            ("name", self.text(&["one", "two words", "ä", ""])),
            ("statPrefix", self.text(&["stat", "a.b", "ä", ""])),
        ];
        self.some(30, fields)
    }

    fn destination(&mut self, host: &str) -> Value {
        let subset = self.text(&["v1", "v2", "none"]);
        let mut destination = self.some(30, vec![("subset", subset)]);
        destination["host"] = json!(host);
        destination
    }

    /// One rule for HTTP.
    fn http(&mut self, host: &str) -> Value {
        let fault = {
            let delay = json!({ "percentage": { "value": self.percent() }, "fixedDelay": self.text(&DURATIONS) });
            let abort = if self.chance(50) {
                json!({ "percentage": { "value": self.percent() }, "httpStatus": self.one(&[200, 418, 503, 599]) })
            } else {
                json!({ "percentage": { "value": self.percent() }, "grpcStatus": self.one(&["UNAVAILABLE", "5", "OK"]) })
            };
            self.some(60, vec![("delay", delay), ("abort", abort)])
        };
        let retries = vec![
            ("perTryTimeout", self.text(&DURATIONS)),
            (
                "retryOn",
                self.text(&[
                    "5xx",
                    "gateway-error,503",
                    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes,418",
                ]),
            ),
            ("backoff", self.text(&DURATIONS)),
            ("retryRemoteLocalities", json!(self.chance(50))),
        ];
        let mut retries = self.some(50, retries);
        retries["attempts"] = json!(self.one(&[0, 1, 3, 2_147_483_647]));
        let cors = vec![
            ("allowOrigins", json!([self.string_match(&["http://a", "*"])])),
            ("allowMethods", json!(["GET", "*"])),
            ("allowHeaders", json!(["x-a", "*"])),
            ("exposeHeaders", json!(["x-b"])),
            ("maxAge", self.text(&DURATIONS)),
            ("allowCredentials", json!(self.chance(50))),
            ("unmatchedPreflights", self.text(&["FORWARD", "IGNORE", "UNSPECIFIED"])),
        ];
        let cors = self.some(50, cors);
        let rewrite = match self.below(3) {
            0 => json!({ "uri": self.text(&PATHS) }),
            1 => json!({ "authority": self.text(&["b", "b:80", "ä", "%"]) }),
            _ => {
                json!({ "uriRegexRewrite": { "match": self.text(&REGEXES), "rewrite": self.text(&["/", "/\\0", "/\\1", "\\\\", "%PATH%"]) } })
            }
        };
        let route: Vec<Value> = (0..=self.below(3))
            .map(|_| {
                let mut share = json!({ "destination": self.destination(host), "weight": self.one(&[0, 1, 50, 100, 2_147_483_647]) });
                if self.chance(30) {
                    share["headers"] = self.header_ops();
                }
                share
            })
            .collect();
        let mut rule = {
            let fields = vec![
                ("name", self.text(&["route", "two words", "ä", ""])),
                ("match", json!([self.condition(), self.condition()])),
                ("headers", self.header_ops()),
                ("corsPolicy", cors),
            ];
            self.some(50, fields)
        };
        match self.below(6) {
            0 => {
                let redirect = vec![
                    ("uri", self.text(&PATHS)),
                    ("authority", self.text(&["b", "b:80", ""])),
                    ("redirectCode", json!(self.one(&[301, 302, 303, 307, 308]))),
                    ("scheme", self.text(&["https", "http"])),
                    ("port", json!(self.one(&[1, 443, 65_535]))),
                ];
                rule["redirect"] = self.some(60, redirect);
            }
            1 => {
                let body = self.one(&["", "text", "ä", "%PROTOCOL%"]).repeat(self.one(&[1, 1_000]));
                rule["directResponse"] =
                    json!({ "status": self.one(&[200, 204, 404, 503, 599]), "body": { "string": body } });
            }
            _ => {
                let forward = vec![
                    ("timeout", self.text(&DURATIONS)),
                    ("retries", retries),
                    ("fault", fault),
                    ("rewrite", rewrite),
                    ("mirror", self.destination(host)),
                    ("mirrorPercentage", json!({ "value": self.percent() })),
                ];
                let forward = self.some(35, forward);
                for (name, value) in forward.as_object().unwrap() {
                    rule[name] = value.clone();
                }
                rule["route"] = json!(route);
            }
        }
        rule
    }

    /// A virtual service for a host, in the mesh and at the gateway.
    pub fn virtual_service(&mut self, name: &str, host: &str) -> Value {
        let rules: Vec<Value> = (0..=self.below(2)).map(|_| self.http(host)).collect();
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": { "namespace": "tutorial", "name": name },
            "spec": { "hosts": [host], "gateways": ["mesh", "istio-system/arbitrary"], "http": rules },
        })
    }

    fn policy(&mut self) -> Value {
        let keepalive = vec![
            ("probes", self.number()),
            ("time", self.text(&DURATIONS)),
            ("interval", self.text(&DURATIONS)),
        ];
        let tcp = vec![
            ("maxConnections", self.number()),
            ("connectTimeout", self.text(&DURATIONS)),
            ("tcpKeepalive", self.some(60, keepalive)),
            ("maxConnectionDuration", self.text(&DURATIONS)),
            ("idleTimeout", self.text(&DURATIONS)),
        ];
        let tcp = self.some(50, tcp);
        let http = vec![
            ("http1MaxPendingRequests", self.number()),
            ("http2MaxRequests", self.number()),
            ("maxRequestsPerConnection", self.number()),
            ("maxRetries", self.number()),
            ("idleTimeout", self.text(&DURATIONS)),
            ("h2UpgradePolicy", self.text(&["DEFAULT", "UPGRADE", "DO_NOT_UPGRADE"])),
            ("useClientProtocol", json!(self.chance(50))),
            ("maxConcurrentStreams", self.number()),
        ];
        let http = self.some(40, http);
        let mut hash = match self.below(4) {
            0 => json!({ "httpHeaderName": self.one(&HEADERS) }),
            1 => {
                json!({ "httpCookie": { "name": self.text(&["c", "a b", "ä"]), "path": self.text(&["/", "", "a"]), "ttl": self.text(&["0s", "1s", "24h"]) } })
            }
            2 => json!({ "useSourceIp": true }),
            _ => json!({ "httpQueryParameterName": self.text(&["q", "a b"]) }),
        };
        match self.below(4) {
            0 => hash["ringHash"] = json!({ "minimumRingSize": self.number() }),
            1 => hash["maglev"] = json!({ "tableSize": self.one(&[2, 3, 65_537, 5_000_011, 1_000]) }),
            _ => {}
        }
        let mut balancer = if self.chance(50) {
            json!({ "consistentHash": hash })
        } else {
            json!({ "simple": self.text(&["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "PASSTHROUGH"]) })
        };
        if self.chance(30) {
            let warmup = vec![
                ("minimumPercent", self.percent()),
                ("aggression", json!(self.one(&[1.0, 1.5, 0.5]))),
            ];
            balancer["warmup"] = self.some(50, warmup);
            balancer["warmup"]["duration"] = self.text(&DURATIONS);
        }
        let outlier = vec![
            ("consecutive5xxErrors", self.number()),
            ("consecutiveGatewayErrors", self.number()),
            ("consecutiveLocalOriginFailures", self.number()),
            ("splitExternalLocalOriginErrors", json!(self.chance(50))),
            ("interval", self.text(&DURATIONS)),
            ("baseEjectionTime", self.text(&DURATIONS)),
            ("maxEjectionPercent", json!(self.one(&[0, 1, 100]))),
            ("minHealthPercent", json!(self.one(&[0, 50, 100]))),
        ];
        let outlier = self.some(40, outlier);
        let tls = match self.below(3) {
            0 => json!({ "mode": "DISABLE" }),
            1 => json!({ "mode": "ISTIO_MUTUAL" }),
            _ => {
                let simple = vec![
                    ("sni", self.text(&["a.example", "ä", ""])),
                    ("subjectAltNames", json!([self.one(&["a", "spiffe://x/y", ""])])),
                    ("insecureSkipVerify", json!(self.chance(50))),
                ];
                let mut simple = self.some(50, simple);
                simple["mode"] = json!("SIMPLE");
                simple
            }
        };
        self.some(
            50,
            vec![
                ("connectionPool", json!({ "tcp": tcp, "http": http })),
                ("loadBalancer", balancer),
                ("outlierDetection", outlier),
                ("tls", tls),
            ],
        )
    }

    /// A destination rule for a host.
    pub fn destination_rule(&mut self, name: &str, host: &str) -> Value {
        let subsets: Vec<Value> = ["v1", "v2"]
            .map(|subset| json!({ "name": subset, "labels": { "version": self.text(&LABELS) }, "trafficPolicy": self.policy() }))
            .into();
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": { "namespace": "tutorial", "name": name },
            "spec": { "host": host, "trafficPolicy": self.policy(), "subsets": subsets },
        })
    }

    /// A peer authentication for a workload of the shared mesh.
    pub fn peer_authentication(&mut self, name: &str, app: &str) -> Value {
        let modes = ["STRICT", "PERMISSIVE", "DISABLE", "UNSET"];
        let port = self.one(&["8080", "7070", "1", "65535"]);
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": { "namespace": "tutorial", "name": name },
            "spec": {
                "selector": { "matchLabels": { "app": app } }, "mtls": { "mode": self.text(&modes) },
                "portLevelMtls": { port: { "mode": self.text(&modes) } },
            },
        })
    }

    /// The gateway that all virtual services name.
    pub fn gateway(&mut self) -> Value {
        let server = |draw: &mut Self, port: u16| {
            json!({
                "port": { "number": port, "name": format!("http-{port}"), "protocol": draw.text(&["HTTP", "HTTP2", "GRPC"]) },
                "hosts": [draw.one(&["*", "tutorial/*", "./*", "*.local"])],
                "tls": { "httpsRedirect": draw.chance(20) },
            })
        };
        let servers: Vec<Value> = [80, 8_081, 65_535].into_iter().map(|port| server(self, port)).collect();
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": { "namespace": "istio-system", "name": "arbitrary" },
            "spec": { "selector": { "istio": "ingressgateway" }, "servers": servers },
        })
    }
}

/// A service with an endpoint in the mesh.
pub fn service(number: usize) -> [Value; 2] {
    let name = format!("any-{number}");
    let address = format!("10.97.{}.{}", number / 250, number % 250 + 1);
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "tutorial", "name": name },
            "spec": {
                "clusterIP": address, "clusterIPs": [address],
                "ports": [{ "name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP" }],
            },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "namespace": "tutorial", "name": name, "labels": { "kubernetes.io/service-name": name } },
            "ports": [{ "name": "http", "port": 8080 }],
            "endpoints": [{ "addresses": [format!("10.0.77.{}", number % 250 + 1)], "conditions": { "ready": true } }],
        }),
    ]
}
