//! The client: requests in order (or several at once), one line per answer, so that scripts can count them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Requests, and how they are sent.
#[derive(clap::Args)]
pub struct Args {
    /// http://host:port/path
    url: http::Uri,
    /// How many requests
    #[arg(short = 'n', long, default_value_t = 1)]
    requests: u32,
    /// How many at once
    #[arg(short, long, default_value_t = 1)]
    concurrency: u32,
    /// A request header, `name: value`; may be repeated. `host: …` sets the authority
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// The method
    #[arg(short = 'X', long, default_value = "GET")]
    method: http::Method,
    /// A request body
    #[arg(short, long, default_value = "")]
    data: String,
    /// Seconds to wait for an answer; one that does not come in time is status 000
    #[arg(long, default_value_t = 10.0)]
    timeout: f64,
    /// HTTP/2 with prior knowledge
    #[arg(long)]
    http2: bool,
    /// A new connection for every request
    #[arg(long)]
    no_keepalive: bool,
    /// Print only how often each status and body was seen
    #[arg(short, long)]
    summary: bool,
    /// Pause between requests, in milliseconds
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Go on for so long, however many requests that are
    #[arg(long, conflicts_with = "requests")]
    seconds: Option<f64>,
}

type HttpClient = Client<HttpConnector, Full<Bytes>>;

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let args = Arc::new(args);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let mut builder = Client::builder(TokioExecutor::new());
    builder.http2_only(args.http2);
    if args.no_keepalive {
        builder.pool_max_idle_per_host(0);
    }
    let client: HttpClient = builder.build(connector);
    let sent = Arc::new(AtomicU32::new(0));
    let start = tokio::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..args.concurrency.max(1) {
        let (args, client, sent) = (Arc::clone(&args), client.clone(), Arc::clone(&sent));
        tasks.spawn(async move {
            let mut seen = BTreeMap::new();
            while match args.seconds {
                Some(seconds) => start.elapsed().as_secs_f64() < seconds,
                None => sent.fetch_add(1, Ordering::Relaxed) < args.requests,
            } {
                let line = one(&args, &client).await?;
                if args.summary {
                    *seen.entry(line).or_insert(0_u64) += 1;
                } else {
                    println!("{line}");
                }
                if args.pause > 0 {
                    tokio::time::sleep(Duration::from_millis(args.pause)).await;
                }
            }
            anyhow::Ok(seen)
        });
    }
    let mut total = BTreeMap::new();
    while let Some(seen) = tasks.join_next().await {
        for (line, count) in seen?? {
            *total.entry(line).or_insert(0) += count;
        }
    }
    for (line, count) in total {
        println!("{count} {line}");
    }
    Ok(())
}

/// Sends one request. Errors of the network are an answer (`000 reason`), not an end: callers count them.
async fn one(args: &Args, client: &HttpClient) -> anyhow::Result<String> {
    let mut request = http::Request::builder()
        .method(args.method.clone())
        .uri(args.url.clone());
    for header in &args.headers {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("'{header}' is not `name: value`"))?;
        request = request.header(name.trim(), value.trim());
    }
    let request = request.body(Full::new(Bytes::from(args.data.clone())))?;
    let exchange = async {
        let response = client.request(request).await.map_err(|error| format!("{error:?}"))?;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        Ok::<_, String>(format!(
            "{status} {}",
            String::from_utf8_lossy(&body).trim_end().replace('\n', " ")
        ))
    };
    Ok(
        match tokio::time::timeout(Duration::from_secs_f64(args.timeout), exchange).await {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => format!("000 {error}"),
            Err(_) => "000 no answer in time".to_owned(),
        },
    )
}
