//! Two sidecars and their applications: what a user sees of a request from one pod to another.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "support/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::*;

const PORT: u16 = 18080;

/// customer → recommendation v1 and v2, on the loopback addresses 127.<test>.0.x.
struct Tutorial {
    world: Arc<World>,
    test: u8,
}

impl Tutorial {
    fn new(test: u8, more: &[Value]) -> Self {
        Self::with_port_name(test, "http", more)
    }

    fn with_port_name(test: u8, port_name: &str, more: &[Value]) -> Self {
        let ip = |host| loopback(test, host).to_string();
        let mut objects = vec![
            service("recommendation", &format!("10.96.{test}.2"), port_name, PORT),
            pod("customer-1", "customer", "v1", &ip(1)),
            pod("recommendation-v1-a", "recommendation", "v1", &ip(2)),
            pod("recommendation-v2-a", "recommendation", "v2", &ip(3)),
            slice(
                "recommendation",
                port_name,
                PORT,
                &[("recommendation-v1-a", &ip(2)), ("recommendation-v2-a", &ip(3))],
            ),
            json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
                "metadata": {"name": "recommendation", "namespace": SPACE},
                "spec": {"host": "recommendation",
                    "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]}}),
        ];
        objects.extend_from_slice(more);
        Self {
            world: World::new(&objects),
            test,
        }
    }

    fn client(&self) -> Proxy {
        Proxy::outbound(
            &self.world,
            "customer-1",
            "customer",
            &format!("10.96.{}.2:{PORT}", self.test),
        )
    }

    /// The server side of version 1 or 2.
    fn server(&self, version: u8) -> Proxy {
        let at = format!("{}:{PORT}", loopback(self.test, version + 1));
        let pod = format!("recommendation-v{version}-a");
        Proxy::inbound(&self.world, &pod, "recommendation", &at, &self.app(version))
    }

    fn app(&self, version: u8) -> String {
        format!("{}:{PORT}", loopback(self.test, version + 101))
    }
}

fn routes(http: Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "recommendation", "namespace": SPACE},
        "spec": {"hosts": ["recommendation"], "http": http}})
}

fn to(subset: &str) -> Value {
    json!({"destination": {"host": "recommendation", "subset": subset}})
}

fn only(subset: &str) -> Value {
    routes(json!([{"route": [to(subset)]}]))
}

// E1, E3, F1
#[tokio::test]
async fn request_goes_over_mutual_tls_and_the_server_sees_who_calls() {
    let tutorial = Tutorial::new(11, &[only("v1")]);
    let heard = application(&tutorial.app(1), |_, body| ok(&format!("v1 got {} bytes", body.len()))).await;
    let (client, server) = (tutorial.client(), tutorial.server(1));
    let mut app = Client::connect(client.address).await;
    for _ in 0..3 {
        let (status, head, body) =
            app.send("POST /a?b=c HTTP/1.1\r\nHost: recommendation:18080\r\nContent-Length: 5\r\nx-forwarded-client-cert: forged\r\n\r\nhello").await;
        assert_eq!((status, body.as_str()), (200, "v1 got 5 bytes"));
        assert!(head.contains("server: istio-envoy\r\n"), "{head}");
        assert!(head.contains("x-envoy-upstream-service-time: "), "{head}");
    }
    let heads = heard.lock().clone();
    assert_eq!(heads.len(), 3);
    for head in &heads {
        let lower = head.to_ascii_lowercase();
        assert!(head.starts_with("POST /a?b=c HTTP/1.1\r\n"), "{head}");
        let certificate = lower
            .lines()
            .find_map(|line| line.strip_prefix("x-forwarded-client-cert: "))
            .unwrap();
        assert!(
            certificate.starts_with("by=spiffe://cluster.local/ns/shop/sa/recommendation;hash="),
            "{certificate}"
        );
        assert!(
            certificate.ends_with(";subject=\"\";uri=spiffe://cluster.local/ns/shop/sa/customer"),
            "{certificate}"
        );
        assert!(
            lower.contains("x-request-id: ") && lower.contains("x-forwarded-proto: http\r\n"),
            "{head}"
        );
        assert!(!lower.contains("x-envoy-peer-metadata"), "{head}");
    }
    let text = client.metrics(3).await;
    let line = text
        .lines()
        .find(|line| line.starts_with("istio_requests_total{reporter=\"source\""))
        .unwrap();
    for label in [
        "source_workload=\"customer\"",
        "destination_canonical_revision=\"v1\"",
        "destination_service=\"recommendation.shop.svc.cluster.local\"",
        "destination_service_name=\"recommendation\"",
        "destination_principal=\"spiffe://cluster.local/ns/shop/sa/recommendation\"",
        "response_code=\"200\"",
    ] {
        assert!(line.contains(label), "{label} in {line}");
    }
    assert!(line.ends_with(" 3"), "{line}");
    let text = server.metrics(3).await;
    let line = text
        .lines()
        .find(|line| line.starts_with("istio_requests_total{reporter=\"destination\""))
        .unwrap();
    for label in [
        "source_workload=\"customer\"",
        "source_workload_namespace=\"shop\"",
        "source_principal=\"spiffe://cluster.local/ns/shop/sa/customer\"",
        "destination_service=\"recommendation.shop.svc.cluster.local\"",
        "connection_security_policy=\"mutual_tls\"",
    ] {
        assert!(line.contains(label), "{label} in {line}");
    }
    assert!(line.ends_with(" 3"), "{line}");
}

// C1, C2
#[tokio::test]
async fn weights_split_and_a_header_match_wins() {
    let split = |v1: u32, v2: u32| {
        let weighted = |subset: &str, weight: u32| {
            let mut entry = to(subset);
            entry["weight"] = json!(weight);
            entry
        };
        routes(json!([
            {"match": [{"headers": {"x-user": {"exact": "eve"}}}], "route": [to("v2")]},
            {"route": [weighted("v1", v1), weighted("v2", v2)]}]))
    };
    let tutorial = Tutorial::new(12, &[split(90, 10)]);
    application(&tutorial.app(1), |_, _| ok("v1")).await;
    application(&tutorial.app(2), |_, _| ok("v2")).await;
    let (client, _v1, _v2) = (tutorial.client(), tutorial.server(1), tutorial.server(2));
    let mut app = Client::connect(client.address).await;
    let mut count = async |requests: u32| {
        let mut second = 0;
        for _ in 0..requests {
            let (status, _, body) = app.get("recommendation", "/").await;
            assert_eq!(status, 200, "{body}");
            second += u32::from(body == "v2");
        }
        second
    };
    let second = count(1000).await;
    assert!((65..=140).contains(&second), "{second} of 1000 for 10 %");
    tutorial.world.apply(&split(0, 100));
    assert_eq!(count(50).await, 50);
    tutorial.world.apply(&split(100, 0));
    assert_eq!(count(50).await, 0);
    let (_, _, body) = app
        .send("GET / HTTP/1.1\r\nHost: recommendation\r\nx-user: eve\r\n\r\n")
        .await;
    assert_eq!(body, "v2");
}

// D1
#[tokio::test]
async fn slow_answer_is_a_timeout() {
    let http = routes(json!([{"timeout": "0.3s", "retries": {"attempts": 0}, "route": [to("v1")]}]));
    let tutorial = Tutorial::new(13, &[http]);
    application(&tutorial.app(1), |_, _| {
        Reply::After(Duration::from_secs(5), b"HTTP/1.1 200 OK\r\n\r\n".to_vec())
    })
    .await;
    let (client, _server) = (tutorial.client(), tutorial.server(1));
    let begin = Instant::now();
    let mut app = Client::connect(client.address).await;
    let (status, head, body) = app.get("recommendation", "/").await;
    assert_eq!((status, body.as_str()), (504, "upstream request timeout"));
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(290) && took < Duration::from_secs(2),
        "{took:?}"
    );
    assert!(!head.to_ascii_lowercase().contains("connection: close"), "{head}");
    assert!(client.metrics(1).await.contains("response_flags=\"UT\""));
    // The connection goes on.
    tutorial.world.apply(&routes(
        json!([{"directResponse": {"status": 418, "body": {"string": "teapot"}}}]),
    ));
    let (status, _, body) = app.get("recommendation", "/").await;
    assert_eq!((status, body.as_str()), (418, "teapot"));
}

// D2
#[tokio::test]
async fn failures_vanish_by_retries_with_the_body_sent_again() {
    let http = routes(json!([{"retries": {"attempts": 3, "retryOn": "5xx,reset"}, "route": [to("v1")]}]));
    let tutorial = Tutorial::new(14, &[http]);
    let calls = AtomicU32::new(0);
    let heard = application(&tutorial.app(1), move |_, body| {
        match calls.fetch_add(1, Ordering::SeqCst) {
            0 => status(503),
            1 => Reply::Close,
            _ => ok(std::str::from_utf8(body).unwrap()),
        }
    })
    .await;
    let (client, _server) = (tutorial.client(), tutorial.server(1));
    let mut app = Client::connect(client.address).await;
    let (status, _, body) = app
        .send("POST / HTTP/1.1\r\nHost: recommendation\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!((status, body.as_str()), (200, "abc"));
    let heads = heard.lock().clone();
    assert_eq!(heads.len(), 3);
    let ids: std::collections::BTreeSet<_> = heads
        .iter()
        .filter_map(|head| head.lines().find(|line| line.starts_with("x-request-id")))
        .collect();
    assert_eq!(ids.len(), 1, "one request has one id");
}

// E3
#[tokio::test]
async fn strict_refuses_plain_text_and_permissive_takes_both_on_one_port() {
    let tutorial = Tutorial::new(15, &[only("v1"), peer_authentication("PERMISSIVE")]);
    application(&tutorial.app(1), |_, _| ok("v1")).await;
    let (client, server) = (tutorial.client(), tutorial.server(1));
    let mut plain = Client::connect(server.address).await;
    assert_eq!(plain.get("recommendation", "/").await.0, 200);
    let mut meshed = Client::connect(client.address).await;
    assert_eq!(meshed.get("recommendation", "/").await.0, 200);
    tutorial.world.apply(&peer_authentication("STRICT"));
    let mut plain = Client::connect(server.address).await;
    plain
        .socket
        .write_all(b"GET / HTTP/1.1\r\nHost: recommendation\r\n\r\n")
        .await
        .unwrap();
    let mut nothing = Vec::new();
    let read = plain.socket.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty(), "{read:?} {}", String::from_utf8_lossy(&nothing));
    let mut meshed = Client::connect(client.address).await;
    assert_eq!(meshed.get("recommendation", "/").await.0, 200);
}

// E3
#[tokio::test]
async fn server_with_a_foreign_identity_gets_no_request() {
    let tutorial = Tutorial::new(16, &[only("v1")]);
    let heard = application(&tutorial.app(1), |_, _| ok("v1")).await;
    let (client, server) = (tutorial.client(), tutorial.server(1));
    server.svids.publish(tutorial.world.svid("someone-else"));
    let mut app = Client::connect(client.address).await;
    let (status, _, body) = app.get("recommendation", "/").await;
    assert_eq!(status, 503);
    assert!(
        body.contains("server identity spiffe://cluster.local/ns/shop/sa/someone-else"),
        "{body}"
    );
    assert!(heard.lock().is_empty());
}

// E1
#[tokio::test]
async fn rotation_fails_no_request() {
    let tutorial = Tutorial::new(17, &[only("v1")]);
    application(&tutorial.app(1), |_, _| ok("v1")).await;
    let (client, server) = (tutorial.client(), tutorial.server(1));
    let mut app = Client::connect(client.address).await;
    for round in 0..60 {
        if round % 10 == 5 {
            client.svids.publish(tutorial.world.svid("customer"));
            server.svids.publish(tutorial.world.svid("recommendation"));
            app = Client::connect(client.address).await;
        }
        assert_eq!(app.get("recommendation", "/").await.0, 200);
    }
}

#[tokio::test]
async fn what_is_ambiguous_is_refused_and_closed() {
    let tutorial = Tutorial::new(18, &[only("v1")]);
    let heard = application(&tutorial.app(1), |_, _| ok("v1")).await;
    let (client, _server) = (tutorial.client(), tutorial.server(1));
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut app = Client::connect(client.address).await;
        let (status, head, _) = app.send(request).await;
        assert_eq!(status, 400, "{request:?}");
        assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
        let mut rest = Vec::new();
        app.socket.read_to_end(&mut rest).await.unwrap();
    }
    assert!(heard.lock().is_empty());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let tutorial = Tutorial::new(19, &[only("v1")]);
    application(&tutorial.app(1), |head, _| ok(head.split(' ').nth(1).unwrap())).await;
    let (client, _server) = (tutorial.client(), tutorial.server(1));
    let mut app = Client::connect(client.address).await;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: recommendation\r\n\r\n");
    app.socket
        .write_all((one("/1") + &one("/2") + &one("/3")).as_bytes())
        .await
        .unwrap();
    for path in ["/1", "/2", "/3"] {
        assert_eq!(app.answer().await.2, path);
    }
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_once() {
    const SIZE: usize = 3 * 1024 * 1024;
    let tutorial = Tutorial::new(20, &[only("v1")]);
    application(&tutorial.app(1), |_, body| {
        let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        Reply::Bytes(bytes)
    })
    .await;
    let (client, _server) = (tutorial.client(), tutorial.server(1));
    let mut app = Client::connect(client.address).await;
    let body = "x".repeat(SIZE);
    let request = format!("PUT / HTTP/1.1\r\nHost: recommendation\r\nContent-Length: {SIZE}\r\n\r\n{body}");
    let (status, _, answer) = app.send(&request).await;
    assert_eq!(status, 200);
    assert!(answer == body, "{} bytes", answer.len());
    assert_eq!(app.get("recommendation", "/").await.0, 200);
}

// C5
#[tokio::test]
async fn upgraded_connection_becomes_a_tunnel() {
    let tutorial = Tutorial::new(21, &[only("v1")]);
    application(&tutorial.app(1), |head, _| {
        assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
        Reply::Tunnel(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec())
    })
    .await;
    let (client, _server) = (tutorial.client(), tutorial.server(1));
    let mut app = Client::connect(client.address).await;
    let (status, head, _) = app
        .send("GET / HTTP/1.1\r\nHost: recommendation\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    assert_eq!(status, 101, "{head}");
    app.socket.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    app.socket.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
}

// C5
#[tokio::test]
async fn interim_responses_reach_the_client() {
    let tutorial = Tutorial::new(22, &[only("v1")]);
    application(&tutorial.app(1), |_, _| {
        Reply::Bytes(
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec(),
        )
    })
    .await;
    let (client, _server) = (tutorial.client(), tutorial.server(1));
    let mut app = Client::connect(client.address).await;
    assert_eq!(app.get("recommendation", "/").await.0, 103);
    let (status, _, body) = app.answer().await;
    assert_eq!((status, body.as_str()), (200, "ok"));
}

// G1: an unknown host takes the policy's way, not a service's
#[tokio::test]
async fn unknown_host_is_passed_through_to_where_the_client_wanted() {
    let tutorial = Tutorial::new(23, &[only("v1")]);
    let heard = application("127.23.0.200:18090", |_, _| ok("outside")).await;
    let client = Proxy::outbound(&tutorial.world, "customer-1", "customer", "127.23.0.200:18090");
    let mut app = Client::connect(client.address).await;
    let (status, _, body) = app.get("example.org", "/").await;
    assert_eq!((status, body.as_str()), (200, "outside"));
    assert_eq!(heard.lock().len(), 1);
}

#[tokio::test]
async fn no_endpoints_and_no_connection_have_envoys_texts() {
    let tutorial = Tutorial::new(24, &[only("v1")]);
    let client = tutorial.client();
    let mut app = Client::connect(client.address).await;
    let (status, _, body) = app.get("recommendation", "/").await;
    assert_eq!(status, 503);
    assert!(
        body.starts_with("upstream connect error or disconnect/reset before headers. reset reason: connection failure"),
        "{body}"
    );
    let none = slice("recommendation", "http", PORT, &[]);
    tutorial.world.apply(&none);
    let (status, _, body) = app.get("recommendation", "/").await;
    assert_eq!((status, body.as_str()), (503, "no healthy upstream"));
    let metrics = client.metrics(2).await;
    assert!(
        metrics.contains("response_flags=\"UH\"") && metrics.contains("response_flags=\"UF,URX\""),
        "{metrics}"
    );
}

// C5
#[tokio::test]
async fn http2_from_client_to_server_over_one_mesh_connection() {
    let tutorial = Tutorial::with_port_name(25, "grpc", &[only("v1")]);
    let listener = tokio::net::TcpListener::bind(tutorial.app(1)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        assert_eq!(request.headers()["te"], "trailers");
                        let mut body = request.into_body();
                        let head = http::Response::builder()
                            .header("content-type", "application/grpc")
                            .body(())
                            .unwrap();
                        let mut send = respond.send_response(head, false).unwrap();
                        while let Some(data) = body.data().await {
                            let data = data.unwrap();
                            body.flow_control().release_capacity(data.len()).unwrap();
                            send.send_data(data, false).unwrap();
                        }
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        send.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    let (client, server) = (tutorial.client(), tutorial.server(1));
    let socket = tokio::net::TcpStream::connect(client.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = http::Request::post("http://recommendation:18080/a.B/C")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut send) = sender
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request, false)
            .unwrap();
        // The answer begins before the request has ended: both directions are open at once.
        send.send_data("first".into(), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "first");
        send.send_data("second".into(), true).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "second");
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    }
    let line = |text: &str| {
        text.lines()
            .find(|line| line.starts_with("istio_requests_total"))
            .unwrap()
            .to_owned()
    };
    for text in [client.metrics(3).await, server.metrics(3).await] {
        let line = line(&text);
        assert!(
            line.contains("request_protocol=\"grpc\"") && line.contains("grpc_response_status=\"0\""),
            "{line}"
        );
        assert!(line.ends_with(" 3"), "{line}");
    }
}

// C5, F1
#[tokio::test]
async fn opaque_tcp_goes_over_mutual_tls() {
    let tutorial = Tutorial::with_port_name(26, "tcp-echo", &[]);
    for version in [1, 2] {
        let listener = tokio::net::TcpListener::bind(tutorial.app(version)).await.unwrap();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                // It speaks first.
                tokio::spawn(async move {
                    socket.write_all(b"hello\n").await.unwrap();
                    let (mut read, mut write) = socket.split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                });
            }
        });
    }
    let (client, server, other) = (tutorial.client(), tutorial.server(1), tutorial.server(2));
    for _ in 0..4 {
        let mut app = tokio::net::TcpStream::connect(client.address).await.unwrap();
        let mut hello = [0; 6];
        app.read_exact(&mut hello).await.unwrap();
        app.write_all(b"abc").await.unwrap();
        app.shutdown().await.unwrap();
        let mut rest = Vec::new();
        app.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&hello, rest.as_slice()), (b"hello\n", &b"abc"[..]));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let text = client.metrics(0).await;
    let sum = |name: &str| -> u64 {
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    assert_eq!(sum("istio_tcp_connections_opened_total"), 4);
    assert_eq!(sum("istio_tcp_connections_closed_total"), 4);
    assert_eq!(
        (sum("istio_tcp_sent_bytes_total"), sum("istio_tcp_received_bytes_total")),
        (4 * 9, 4 * 3)
    );
    let both = server.metrics(0).await + &other.metrics(0).await;
    assert!(both.contains("connection_security_policy=\"mutual_tls\""), "{both}");
}

#[tokio::test]
async fn draining_closes_idle_connections_and_ends_busy_ones_after_their_request() {
    let tutorial = Tutorial::new(27, &[only("v1"), peer_authentication("PERMISSIVE")]);
    application(&tutorial.app(1), |head, _| {
        if head.contains("/slow") {
            Reply::After(
                Duration::from_millis(200),
                b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
            )
        } else {
            ok("")
        }
    })
    .await;
    let server = tutorial.server(1);
    let (mut idle, mut busy) = (
        Client::connect(server.address).await,
        Client::connect(server.address).await,
    );
    assert_eq!(idle.get("a", "/").await.0, 200);
    busy.socket
        .write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.phase.send_replace(mizzen_proxy::worker::Phase::Draining);
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(2), idle.socket.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty());
    let (status, head, _) = busy.answer().await;
    assert_eq!(status, 200);
    assert!(head.contains("connection: close"), "{head}");
}

/// A request over HTTP/2 without a body.
fn h2_get(path: &str) -> http::Request<()> {
    http::Request::get(format!("http://recommendation:18080{path}"))
        .body(())
        .unwrap()
}

async fn h2_client(address: std::net::SocketAddr) -> h2::client::SendRequest<bytes::Bytes> {
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

// C3
#[tokio::test]
async fn path_that_leaves_what_is_exposed_is_matched_where_it_leads() {
    let public = routes(json!([{"match": [{"uri": {"prefix": "/public"}}], "route": [to("v1")]}]));
    let tutorial = Tutorial::new(28, &[public]);
    let heard = application(&tutorial.app(1), |_, _| ok("v1")).await;
    let (client, _server) = (tutorial.client(), tutorial.server(1));
    let mut app = Client::connect(client.address).await;
    let sender = h2_client(client.address).await;
    for path in ["/public/../admin", "/public/%2e%2e/admin", "/public/.%2E/admin?x"] {
        assert_eq!(app.get("recommendation", path).await.0, 404, "{path}");
        let (response, _) = sender.clone().send_request(h2_get(path), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 404, "{path}");
    }
    assert_eq!(app.get("recommendation", "/public\\..\\admin").await.0, 404);
    assert!(heard.lock().is_empty());
    for (path, expected) in [
        ("/a/../public/./b?c=/../d", "/public/b?c=/../d"),
        ("/%70ublic/x%2F..%2fy", "/public/x%2F..%2fy"),
    ] {
        assert_eq!(app.get("recommendation", path).await.0, 200, "{path}");
        let (response, _) = sender.clone().send_request(h2_get(path), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200, "{path}");
        let heads = std::mem::take(&mut *heard.lock());
        assert_eq!(heads.len(), 2);
        for head in heads {
            assert!(head.starts_with(&format!("GET {expected} HTTP/1.1\r\n")), "{head}");
        }
    }
    let (status, head, _) = app.get("recommendation", "/public/%00").await;
    assert_eq!(status, 400, "{head}");
    assert!(heard.lock().is_empty());
}

// C5
#[tokio::test]
async fn switching_protocols_that_nobody_asked_for_is_a_bad_gateway() {
    let tutorial = Tutorial::new(29, &[only("v1")]);
    application(&tutorial.app(1), |_, _| {
        Reply::Tunnel(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec())
    })
    .await;
    let (client, server) = (tutorial.client(), tutorial.server(1));
    let mut app = Client::connect(client.address).await;
    for asked in ["", "Connection: Upgrade\r\nUpgrade: something-else\r\n"] {
        let (status, head, _) = app
            .send(&format!("GET / HTTP/1.1\r\nHost: recommendation\r\n{asked}\r\n"))
            .await;
        assert_eq!(status, 502, "{head}");
    }
    let metrics = server.metrics(2).await;
    assert!(metrics.contains("response_flags=\"UPE\""), "{metrics}");
}

/// An application that begins an answer and then says nothing; tells when its connection has ended.
async fn silent_application(at: &str) -> tokio::sync::mpsc::Receiver<()> {
    let listener = tokio::net::TcpListener::bind(at).await.unwrap();
    let (ended_tx, ended_rx) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let ended_tx = ended_tx.clone();
            tokio::spawn(async move {
                read_message(&mut socket, &mut Vec::new()).await.unwrap();
                socket
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
                    .await
                    .unwrap();
                let mut rest = Vec::new();
                // Closed or reset, it is over.
                let _how = socket.read_to_end(&mut rest).await;
                ended_tx.send(()).await.unwrap();
            });
        }
    });
    ended_rx
}

#[tokio::test]
async fn client_that_leaves_during_a_silent_answer_ends_it() {
    let tutorial = Tutorial::new(30, &[only("v1")]);
    let mut ended = silent_application(&tutorial.app(1)).await;
    let (client, _server) = (tutorial.client(), tutorial.server(1));
    let mut app = Client::connect(client.address).await;
    app.socket
        .write_all(b"GET / HTTP/1.1\r\nHost: recommendation\r\n\r\n")
        .await
        .unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"abc") {
        assert!(app.socket.read_buf(&mut text).await.unwrap() > 0);
    }
    drop(app);
    tokio::time::timeout(Duration::from_secs(3), ended.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(client.metrics(1).await.contains("response_flags=\"DC\""));

    let sender = h2_client(client.address).await;
    let (response, _) = sender.clone().send_request(h2_get("/"), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "abc");
    // The connection stays, the stream is cancelled.
    drop(body);
    tokio::time::timeout(Duration::from_secs(3), ended.recv())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn http2_connection_without_streams_is_told_to_go() {
    let idle = Duration::from_millis(300);
    let tutorial = Tutorial::new(31, &[only("v1")]);
    *tutorial.world.idle.lock() = Some(idle);
    application(&tutorial.app(1), |_, _| {
        Reply::After(
            Duration::from_millis(800),
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
        )
    })
    .await;
    let (client, _server) = (tutorial.client(), tutorial.server(1));
    let socket = tokio::net::TcpStream::connect(client.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let sender = sender.ready().await.unwrap();
    // A stream that takes longer than the limit is not cut off by it.
    let (response, _) = sender.clone().send_request(h2_get("/"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    let answered = Instant::now();
    tokio::time::timeout(Duration::from_secs(3), connection)
        .await
        .expect("closed by the proxy")
        .unwrap()
        .expect("in order");
    assert!(
        answered.elapsed() >= idle - Duration::from_millis(50),
        "{:?}",
        answered.elapsed()
    );
    assert!(sender.ready().await.is_err());
}
