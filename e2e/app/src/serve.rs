//! The service: answers with its own line, behind those of the services it calls.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use crate::behaviour::{Behaviour, Outcome};
use crate::record::Record;

/// The role.
#[derive(clap::Args)]
pub struct Args {
    /// The service's name, as it shows in answers
    #[arg(long, env = "APP_NAME", default_value = "app")]
    name: String,
    /// The version; without one answers do not speak of versions
    #[arg(long, env = "APP_VERSION", default_value = "")]
    version: String,
    /// The address to serve on
    #[arg(long, env = "APP_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Serve a TCP echo here too
    #[arg(long, env = "APP_TCP_LISTEN")]
    tcp_listen: Option<SocketAddr>,
    /// A service to call before answering; may be repeated (in the environment: separated by commas)
    #[arg(long = "upstream", env = "APP_UPSTREAMS", value_delimiter = ',')]
    upstreams: Vec<http::Uri>,
    /// Wait this many milliseconds before each answer
    #[arg(long, env = "APP_DELAY_MS", default_value_t = 0)]
    delay_ms: u64,
    /// Answer 503 to this share of the requests, in percent
    #[arg(long, env = "APP_FAILURE_PERCENT", default_value_t = 0.0)]
    failure_percent: f64,
    /// The instance's name, as it shows in answers
    #[arg(long, env = "HOSTNAME", default_value = "localhost")]
    instance: String,
    /// Remember every request; `/seen` tells of them, each once
    #[arg(long)]
    record: bool,
}

struct App {
    args: Args,
    record: Record,
    behaviour: Behaviour,
    client: Client<HttpConnector, Full<Bytes>>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot serve on {}", args.listen))?;
    if let Some(address) = args.tcp_listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot serve on {address}"))?;
        tokio::spawn(crate::echo::serve(listener, label(&args)));
    }
    println!("{} serves on {}", label(&args), listener.local_addr()?);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let app = Arc::new(App {
        behaviour: Behaviour::new(Duration::from_millis(args.delay_ms), args.failure_percent),
        record: Record::default(),
        client: Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector),
        args,
    });
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of file descriptors or a connection gone already: the next accept may work.
                Err(_) => { tokio::time::sleep(Duration::from_millis(10)).await; continue }
            },
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        };
        stream.set_nodelay(true).ok();
        let app = Arc::clone(&app);
        let service = service_fn(move |request| {
            let app = Arc::clone(&app);
            async move { Ok::<_, Infallible>(app.answer(request).await) }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that breaks its connection is its own affair.
            let _ = connection.await;
        });
    }
    drop(listener);
    tokio::time::timeout(Duration::from_secs(10), graceful.shutdown())
        .await
        .ok();
    Ok(())
}

/// `recommendation v1`, or the name alone for a service without versions.
fn label(args: &Args) -> String {
    if args.version.is_empty() {
        args.name.clone()
    } else {
        format!("{} {}", args.name, args.version)
    }
}

impl App {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/health" => text(StatusCode::OK, "ok"),
            "/misbehave" => {
                self.behaviour.set_misbehaving(true);
                text(StatusCode::OK, "following requests will return 503")
            }
            "/behave" => {
                self.behaviour.set_misbehaving(false);
                text(StatusCode::OK, "following requests will return 200")
            }
            "/headers" => text(StatusCode::OK, &header_lines(request.headers())),
            "/seen" if self.args.record => text(StatusCode::OK, &self.record.take()),
            _ if self.args.record => self.recorded(request).await,
            "/echo" => {
                let body = request
                    .into_body()
                    .collect()
                    .await
                    .map(http_body_util::Collected::to_bytes);
                match body {
                    Ok(body) => Response::new(Full::new(body)),
                    Err(_) => text(StatusCode::BAD_REQUEST, "the request body broke off"),
                }
            }
            path => match path.strip_prefix("/status/").and_then(|code| code.parse::<u16>().ok()) {
                Some(code) => text(
                    StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST),
                    "as you asked",
                ),
                None => self.chain(request).await,
            },
        }
    }

    async fn recorded(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.ok().map(|body| body.to_bytes().len());
        self.record.add(&head.method, &head.uri, &head.headers, body);
        match body {
            Some(_) => text(StatusCode::OK, "recorded"),
            None => text(StatusCode::BAD_REQUEST, "the request body broke off"),
        }
    }

    /// The main answer: own line behind the upstreams' lines.
    async fn chain(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        tokio::time::sleep(self.behaviour.delay()).await;
        let count = match self.behaviour.next(rand::random_range(0.0..100.0)) {
            Outcome::Answer(count) => count,
            Outcome::Misbehave => {
                let line = format!("{} misbehavior from '{}'", self.args.name, self.args.instance);
                return text(StatusCode::SERVICE_UNAVAILABLE, &line);
            }
            Outcome::Fail => {
                return text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &format!("{} failed", label(&self.args)),
                );
            }
        };
        if self.args.upstreams.is_empty() {
            let line = format!("{} from '{}': {count}", label(&self.args), self.args.instance);
            return text(StatusCode::OK, &line);
        }
        let mut parts = Vec::new();
        let mut status = StatusCode::OK;
        for upstream in &self.args.upstreams {
            match self.call(upstream, request.headers()).await {
                Ok((code, body)) if code.is_success() => parts.push(body),
                Ok((code, body)) => {
                    status = StatusCode::SERVICE_UNAVAILABLE;
                    parts.push(format!("Error: {} - {body}", code.as_u16()));
                }
                Err(error) => {
                    status = StatusCode::SERVICE_UNAVAILABLE;
                    parts.push(format!("Error: {error}"));
                }
            }
        }
        text(status, &format!("{} => {}", label(&self.args), parts.join(" + ")))
    }

    async fn call(&self, upstream: &http::Uri, caller: &HeaderMap) -> anyhow::Result<(StatusCode, String)> {
        let mut request = Request::get(upstream.clone()).body(Full::new(Bytes::new()))?;
        for (name, value) in caller {
            if forwarded(name) {
                request.headers_mut().append(name.clone(), value.clone());
            }
        }
        let response = self.client.request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).trim_end().to_owned()))
    }
}

/// Headers that belong to one hop or one message stay; the rest (traces, the user) goes on with the request.
fn forwarded(name: &HeaderName) -> bool {
    ![
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::TRANSFER_ENCODING,
        header::TE,
        header::UPGRADE,
        header::ACCEPT_ENCODING,
        header::EXPECT,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("x-forwarded-client-cert"),
    ]
    .contains(name)
}

fn header_lines(headers: &HeaderMap) -> String {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort();
    lines.join("\n")
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}
