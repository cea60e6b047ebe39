//! The load: wrk, one thread, keep-alive, as many connections as asked for.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::net;
use crate::place::{AUTHORITY, CLIENT_SPACE, PORT};

/// wrk's own report rounds; this one does not.
const REPORT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('mizzen-bench {"requests":%d,"micros":%d,"p50":%d,"p99":%d,"failed":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Requests answered.
    pub(crate) requests: f64,
    /// Answered per second.
    pub(crate) rate: f64,
    /// Median in milliseconds.
    pub(crate) p50: f64,
    /// 99th percentile in milliseconds.
    pub(crate) p99: f64,
    /// Socket errors and answers that are not 2xx or 3xx.
    pub(crate) failed: f64,
}

/// Runs it from the client's namespace; calls `meanwhile` again and again.
pub(crate) fn run(
    files: &Path,
    target: std::net::IpAddr,
    connections: u32,
    time: Duration,
    mut meanwhile: impl FnMut() -> Result<()>,
) -> Result<Load> {
    let script = files.join("report.lua");
    std::fs::write(&script, REPORT)?;
    let mut command = Command::new("wrk");
    command
        .args(["--threads", "1", "--timeout", "10s", "--latency"])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{}s", time.as_secs().max(1))])
        .args(["--header", &format!("Host: {AUTHORITY}:{PORT}")])
        .arg("--script")
        .arg(&script)
        .arg(format!("http://{target}:{PORT}/"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = net::inside(CLIENT_SPACE, || command.spawn().context("wrk"))?;
    while child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(100));
        if let Err(error) = meanwhile() {
            let _ended = child.kill();
            let _status = child.wait();
            return Err(error);
        }
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("mizzen-bench "));
    let Some(line) = line.filter(|_| output.status.success()) else {
        bail!(
            "wrk: {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let report: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let field = |name: &str| {
        report
            .get(name)
            .and_then(serde_json::Value::as_f64)
            .with_context(|| line.to_owned())
    };
    let requests = field("requests")?;
    Ok(Load {
        requests,
        rate: requests / (field("micros")? / 1e6).max(f64::EPSILON),
        p50: field("p50")? / 1e3,
        p99: field("p99")? / 1e3,
        failed: field("failed")?,
    })
}
