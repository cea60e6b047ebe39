//! The watcher: asks the same question at a steady pace on one connection and tells when the answer changes.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

/// What is asked, and how often.
#[derive(clap::Args)]
pub struct Args {
    /// http://host:port/path
    url: http::Uri,
    /// Requests per second
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Go on for so long
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// End when standard input ends: `kubectl exec -i` that is killed leaves nothing running in the pod
    #[arg(long)]
    until_stdin_ends: bool,
}

/// Prints `<microseconds since 1970 when the request was sent> <and when it was answered> <status> <first two words>` for
/// the first answer and for each that differs from the one before.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if args.until_stdin_ends {
        std::thread::spawn(|| {
            // That it cannot be read any more is an end too.
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
            std::process::exit(0);
        });
    }
    let host = args.url.host().context("the URL names no host")?;
    let authority = args.url.authority().context("the URL names no host")?.to_string();
    let stream = TcpStream::connect((host, args.url.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / args.rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = tokio::time::Instant::now() + Duration::from_secs_f64(args.seconds);
    let (mut last, mut sent) = (String::new(), 0_u64);
    while tokio::time::Instant::now() < end {
        ticks.tick().await;
        let request = http::Request::get(args.url.path())
            .header(http::header::HOST, &authority)
            .body(Full::new(Bytes::new()))?;
        let asked = micros();
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        let answered = micros();
        sent += 1;
        let answer = format!("{status} {}", label(&String::from_utf8_lossy(&body)));
        if answer != last {
            println!("{asked} {answered} {answer}");
            last = answer;
        }
    }
    println!("end after {sent} requests");
    Ok(())
}

/// `recommendation v1` of `recommendation v1 from 'pod': 17`.
fn label(body: &str) -> String {
    body.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn micros() -> u128 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_one_version_are_the_same_whatever_their_number() {
        assert_eq!(label("recommendation v1 from 'pod-a': 17\n"), "recommendation v1");
        assert_eq!(label("recommendation v1 from 'pod-a': 18\n"), "recommendation v1");
        assert_eq!(label(""), "");
    }
}
