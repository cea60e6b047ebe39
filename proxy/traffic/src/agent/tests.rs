use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::probe::{HealthRequest, HealthResponse};
use super::*;

#[derive(Default)]
struct Fake {
    missing: Mutex<Option<String>>,
    drains: AtomicU32,
    quits: AtomicU32,
    without_admin: AtomicBool,
}

impl DataPlane for Fake {
    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        let missing = self.missing.lock().clone();
        async move { missing.map_or(Ok(()), Err) }.boxed()
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        async { "istio_requests_total 7\n".to_owned() }.boxed()
    }

    fn drain(&self) {
        self.drains.fetch_add(1, Ordering::Relaxed);
    }

    fn quit(&self) {
        self.quits.fetch_add(1, Ordering::Relaxed);
    }

    fn admin(&self) -> Option<&dyn Admin> {
        (!self.without_admin.load(Ordering::Relaxed)).then_some(self as &dyn Admin)
    }
}

impl Admin for Fake {
    fn config_dump(&self) -> String {
        r#"{"listeners":["virtualInbound"]}"#.to_owned()
    }

    fn stats(&self) -> String {
        "connections: 3\n".to_owned()
    }

    fn draining(&self) -> bool {
        self.drains.load(Ordering::Relaxed) > 0
    }

    fn log_level(&self, level: Option<&str>) -> Result<String, String> {
        match level {
            Some("nonsense") => Err("unknown".to_owned()),
            level => Ok(level.unwrap_or("info").to_owned()),
        }
    }
}

async fn started(probers: Option<String>, scrape: Option<String>) -> (Arc<Fake>, Agent) {
    let plane = Arc::new(Fake::default());
    let config = AgentConfig {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        health_port: 0,
        status_port: 0,
        metrics_port: Some(0),
        admin_port: 0,
        app: IpAddr::V4(Ipv4Addr::LOCALHOST),
        probers,
        scrape,
        node: "sidecar~10.0.0.9~cart-1.shop~shop.svc.cluster.local".to_owned(),
    };
    let agent = Agent::start(config, plane.clone(), None).await.unwrap();
    (plane, agent)
}

async fn ask(agent: &Agent, server: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(agent.address(server).unwrap()).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nuser-agent: kube-probe/1.33\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer[9..12].parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// An application that answers one request per connection with `answer` and tells what it received.
async fn application(answer: &'static str) -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(String::new()));
    let record = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let length = stream.read(&mut buffer).await.unwrap_or(0);
            *record.lock() = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let _closed = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, seen)
}

#[tokio::test]
async fn readiness_follows_the_data_plane_and_says_what_is_missing() {
    let (plane, agent) = started(None, None).await;
    assert_eq!(ask(&agent, "readiness", "GET /healthz/ready").await.0, 200);
    *plane.missing.lock() = Some("no certificate yet".to_owned());
    for server in ["readiness", "agent"] {
        let (status, body) = ask(&agent, server, "GET /healthz/ready").await;
        assert_eq!((status, body.as_str()), (503, "not ready: no certificate yet\n"));
    }
    assert_eq!(ask(&agent, "readiness", "GET /other").await.0, 404);
}

// B4
#[tokio::test]
async fn http_probe_reaches_the_application_with_its_headers_and_passes_its_status_on() {
    let (port, seen) = application("HTTP/1.1 418 Teapot\r\ncontent-length: 2\r\n\r\nhi").await;
    let probers = format!(
        r#"{{"/app-health/cart/readyz":{{"httpGet":{{"path":"ok?x=1","port":{port},"httpHeaders":[{{"name":"X-Probe","value":"1"}},{{"name":"Host","value":"shop.example"}}]}}}}}}"#
    );
    let (_, agent) = started(Some(probers), None).await;
    assert_eq!(
        ask(&agent, "agent", "GET /app-health/cart/readyz").await,
        (418, String::new())
    );
    let seen = seen.lock().to_lowercase();
    assert!(seen.starts_with("get /ok?x=1 http/1.1\r\n"), "{seen}");
    for line in ["x-probe: 1", "host: shop.example", "user-agent: kube-probe/1.33"] {
        assert!(seen.contains(&format!("{line}\r\n")), "{line} in {seen}");
    }
    assert_eq!(ask(&agent, "agent", "GET /app-health/cart/livez").await.0, 404);
}

// B4
#[tokio::test]
async fn https_probe_accepts_any_certificate() {
    let svid = crate::testing::Ca::new("app").svid("spiffe://td/ns/a/sa/x");
    let config = rustls::ServerConfig::builder_with_provider(crate::tls::crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(svid.chain().to_vec(), svid.key().clone_key())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let _request = stream.read(&mut [0; 1024]).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        let _closed = stream.shutdown().await;
    });
    let probers =
        format!(r#"{{"/app-health/cart/livez":{{"httpGet":{{"path":"/","port":{port},"scheme":"HTTPS"}}}}}}"#);
    let (_, agent) = started(Some(probers), None).await;
    assert_eq!(
        ask(&agent, "agent", "GET /app-health/cart/livez").await,
        (204, String::new())
    );
}

// B4
#[tokio::test]
async fn tcp_probe_connects() {
    let (port, _) = application("").await;
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let probers = format!(
        r#"{{"/app-health/cart/livez":{{"tcpSocket":{{"port":"{port}"}}}},"/app-health/cart/startupz":{{"tcpSocket":{{"port":{closed}}}}}}}"#
    );
    let (_, agent) = started(Some(probers), None).await;
    assert_eq!(ask(&agent, "agent", "GET /app-health/cart/livez").await.0, 200);
    let (status, reason) = ask(&agent, "agent", "GET /app-health/cart/startupz").await;
    assert_eq!(status, 500);
    assert!(
        reason.contains(&format!("port {closed}")) && reason.contains("refused"),
        "{reason}"
    );
}

/// Serves `grpc.health.v1.Health/Check`: `good` is serving, every other service is not.
async fn health() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let body = request.into_body().collect().await?.to_bytes();
                let message: HealthRequest = prost::Message::decode(&body[5..]).unwrap();
                let status = if message.service == "good" { 1 } else { 2 };
                let encoded = prost::Message::encode_to_vec(&HealthResponse { status });
                let mut data = vec![0, 0, 0, 0, u8::try_from(encoded.len()).unwrap()];
                data.extend_from_slice(&encoded);
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let body = http_body_util::Full::new(bytes::Bytes::from(data))
                    .with_trailers(async move { Some(Ok::<_, std::convert::Infallible>(trailers)) });
                Ok::<_, hyper::Error>(
                    http::Response::builder()
                        .header("content-type", "application/grpc")
                        .body(body.boxed())
                        .unwrap(),
                )
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    port
}

// B4
#[tokio::test]
async fn grpc_probe_asks_the_health_service() {
    let port = health().await;
    let probers = format!(
        r#"{{"/app-health/cart/livez":{{"grpc":{{"port":{port},"service":"good"}}}},"/app-health/cart/readyz":{{"grpc":{{"port":{port}}}}}}}"#
    );
    let (_, agent) = started(Some(probers), None).await;
    assert_eq!(
        ask(&agent, "agent", "GET /app-health/cart/livez").await,
        (200, String::new())
    );
    let (status, reason) = ask(&agent, "agent", "GET /app-health/cart/readyz").await;
    assert_eq!(status, 500);
    assert!(reason.contains("SERVING"), "{reason}");
}

// B4
#[tokio::test]
async fn silent_application_fails_the_probe_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probers = format!(
        r#"{{"/app-lifecycle/cart/poststartz":{{"httpGet":{{"path":"/","port":{port}}},"timeoutSeconds":1}}}}"#
    );
    let (_, agent) = started(Some(probers), None).await;
    let (status, reason) = ask(&agent, "agent", "GET /app-lifecycle/cart/poststartz").await;
    assert_eq!(status, 500);
    assert!(reason.contains("no answer within 1 s"), "{reason}");
}

#[test]
fn broken_probers_are_named() {
    let fault = |json: &str| parse_probers(Some(json)).unwrap_err().to_string();
    assert!(fault("[]").starts_with("ISTIO_KUBE_APP_PROBERS: not a JSON object of probes"));
    assert!(fault(r#"{"/x":{"tcpSocket":{"port":1}}}"#).contains("\"/x\""));
    assert!(fault(r#"{"/app-health/a/livez":{}}"#).contains("exactly one"));
    assert!(fault(r#"{"/app-health/a/livez":{"tcpSocket":{"port":"http"}}}"#).contains("\"http\""));
    assert_eq!(parse_probers(None).unwrap(), BTreeMap::new());
}

// B4, F1
#[tokio::test]
async fn metrics_of_application_agent_and_data_plane_are_one_page() {
    let (port, seen) =
        application("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n# TYPE app_orders counter\napp_orders 3\n# EOF\n")
            .await;
    let scrape = format!(r#"{{"scrape":"true","path":"/own","port":"{port}"}}"#);
    let (_, agent) = started(None, Some(scrape)).await;
    let (status, page) = ask(&agent, "agent", "GET /stats/prometheus").await;
    assert_eq!(status, 200);
    assert!(seen.lock().starts_with("GET /own HTTP/1.1\r\n"));
    for line in [
        "istio_requests_total 7\n",
        "mizzen_agent_connections_refused_total 0\n",
        "app_orders 3\n",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(!page.contains("# EOF"));
    assert_eq!(
        ask(&agent, "metrics", "GET /stats/prometheus").await,
        (200, "istio_requests_total 7\n".to_owned())
    );
}

// F1
#[tokio::test]
async fn failing_application_does_not_take_the_sidecars_metrics_away() {
    let (port, _) = application("HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n").await;
    let (_, agent) = started(None, Some(format!(r#"{{"scrape":"true","port":"{port}"}}"#))).await;
    let (status, page) = ask(&agent, "agent", "GET /stats/prometheus").await;
    assert_eq!(status, 200);
    assert!(page.contains("istio_requests_total 7\n"));
    let page = ask(&agent, "agent", "GET /metrics").await.1;
    assert!(
        page.contains("istio_agent_scrape_failures_total{type=\"application\"} 1\n"),
        "{page}"
    );
}

#[tokio::test]
async fn draining_and_quitting_need_a_post_from_inside() {
    let (plane, agent) = started(None, None).await;
    assert_eq!(ask(&agent, "agent", "GET /quitquitquit").await.0, 405);
    assert_eq!(ask(&agent, "agent", "POST /drain").await.0, 200);
    assert_eq!(ask(&agent, "agent", "POST /quitquitquit").await.0, 200);
    assert_eq!(ask(&agent, "admin", "POST /quitquitquit").await.0, 200);
    assert_eq!(
        (
            plane.drains.load(Ordering::Relaxed),
            plane.quits.load(Ordering::Relaxed)
        ),
        (1, 2)
    );
    let outside = server::Call {
        request: http::Request::post("/quitquitquit").body(()).unwrap(),
        peer: "10.1.2.3:999".parse().unwrap(),
    };
    assert_eq!(status::local_post(&outside, || panic!("must not run")).status(), 403);
}

#[tokio::test]
async fn hooks_ask_by_the_program_itself() {
    let (plane, agent) = started(None, None).await;
    let port = agent.address("agent").unwrap().port();
    let ask = async |method: &str, path: &str, port| {
        request(&RequestArgs {
            method: method.to_owned(),
            path: path.to_owned(),
            port,
            timeout: 5,
        })
        .await
    };
    assert_eq!(ask("POST", "drain", port).await.unwrap(), "ok\n");
    assert_eq!(plane.drains.load(Ordering::Relaxed), 1);
    let refused = ask("GET", "/drain", port).await.unwrap_err().to_string();
    assert!(
        refused.ends_with("answered 405 Method Not Allowed: use POST"),
        "{refused}"
    );
    drop(agent);
    assert!(matches!(ask("POST", "a b", port).await, Err(RequestError::Bad { .. })));
    assert!(matches!(
        ask("POST", "drain", 1).await,
        Err(RequestError::Unreachable { port: 1, .. })
    ));
}

#[tokio::test]
async fn admin_shows_configuration_state_and_log_level() {
    let (plane, agent) = started(None, None).await;
    assert!(agent.address("admin").unwrap().ip().is_loopback());
    assert_eq!(
        ask(&agent, "admin", "GET /config_dump").await.1,
        r#"{"listeners":["virtualInbound"]}"#
    );
    assert_eq!(ask(&agent, "admin", "GET /ready").await.1, "LIVE\n");
    let info: serde_json::Value = serde_json::from_str(&ask(&agent, "admin", "GET /server_info").await.1).unwrap();
    assert_eq!(
        (info["state"].as_str(), info["node"]["id"].as_str()),
        (
            Some("LIVE"),
            Some("sidecar~10.0.0.9~cart-1.shop~shop.svc.cluster.local")
        )
    );
    plane.drain();
    assert!(ask(&agent, "admin", "GET /server_info").await.1.contains("DRAINING"));
    assert_eq!(ask(&agent, "admin", "GET /logging").await.1, "info\n");
    assert_eq!(ask(&agent, "admin", "GET /logging?level=debug").await.0, 405);
    assert_eq!(ask(&agent, "admin", "POST /logging?level=debug").await.1, "debug\n");
    assert_eq!(ask(&agent, "admin", "POST /logging?level=nonsense").await.0, 400);
    assert!(
        ask(&agent, "admin", "GET /stats/prometheus")
            .await
            .1
            .contains("istio_requests_total 7\n")
    );
}

#[tokio::test]
async fn taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_, agent) = started(None, None).await;
    drop(agent);
    let config = AgentConfig {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        health_port: 0,
        status_port: taken.local_addr().unwrap().port(),
        metrics_port: None,
        admin_port: 0,
        app: IpAddr::V4(Ipv4Addr::LOCALHOST),
        probers: None,
        scrape: None,
        node: String::new(),
    };
    let error = Agent::start(config, Arc::new(Fake::default()), None)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("agent server: cannot listen on 127.0.0.1:"),
        "{error}"
    );
}

#[tokio::test]
async fn servers_end_when_the_agent_is_dropped() {
    let (_, agent) = started(None, None).await;
    let address = agent.address("agent").unwrap();
    drop(agent);
    for _ in 0..100 {
        if TcpStream::connect(address).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still listening");
}
