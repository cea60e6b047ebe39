//! How long a changed route takes from the API server to the first request that follows it.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::process::Machine;

/// Who has not seen the new route by then never will.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two changes, so that each meets an idle mesh. Odd, so that no timer of the mesh keeps step with it.
const PAUSE: Duration = Duration::from_millis(237);
/// What must be reached: the 99th percentile from the API server's answer.
const BAR: Duration = Duration::from_millis(100);

/// Measures how soon requests follow a changed VirtualService, on the cluster that KUBECONFIG names
///
/// In each namespace the tutorial's applications must run. The clocks of this machine and of the pods' node must agree: with a
/// node on this machine they are the same.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A namespace with the tutorial's applications; may be repeated
    #[arg(long = "namespace", required = true)]
    namespaces: Vec<String>,
    /// Changes per namespace through the API
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// Changes per namespace by `kubectl apply`
    #[arg(long, default_value_t = 30)]
    kubectl: usize,
    /// Requests per second of the client
    #[arg(long, default_value_t = 1000)]
    rate: u32,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        println!(
            "{:<16} {:<34} {:>5} {:>8} {:>8} {:>8} {:>8}",
            "namespace", "milliseconds to the first request", "n", "p50", "p90", "p99", "most"
        );
        for namespace in &args.namespaces {
            let before = Machine::now()?;
            let times = measure(args, namespace).await.with_context(|| namespace.clone())?;
            let busy = Machine::now()?.busy_since(before);
            times.print(namespace);
            println!(
                "{namespace:<16} the machine was {:.0} % busy; p99 from the answer on is {} {} ms",
                busy * 100.0,
                if percentile(&times.answered, 99) <= BAR {
                    "within"
                } else {
                    "OVER"
                },
                BAR.as_millis()
            );
        }
        Ok(())
    })
}

/// From different moments to the end of the first request that follows, sorted.
#[derive(Debug, Default)]
struct Times {
    /// From when the API server had answered the change.
    answered: Vec<Duration>,
    /// From when the change was sent to the API server.
    sent: Vec<Duration>,
    /// From the start of the process `kubectl`.
    kubectl: Vec<Duration>,
    /// What `kubectl` needs itself, from its start to its end.
    kubectl_alone: Vec<Duration>,
}

impl Times {
    fn print(&self, namespace: &str) {
        for (what, times) in [
            ("from the API server's answer", &self.answered),
            ("from sending to the API server", &self.sent),
            ("from the start of kubectl apply", &self.kubectl),
            ("(kubectl apply alone)", &self.kubectl_alone),
        ] {
            if times.is_empty() {
                continue;
            }
            let [p50, p90, p99, most] = [50, 90, 99, 100].map(|n| percentile(times, n).as_secs_f64() * 1000.0);
            let n = times.len();
            println!("{namespace:<16} {what:<34} {n:>5} {p50:>8.1} {p90:>8.1} {p99:>8.1} {most:>8.1}");
        }
    }

    fn sort(&mut self) {
        for times in [
            &mut self.answered,
            &mut self.sent,
            &mut self.kubectl,
            &mut self.kubectl_alone,
        ] {
            times.sort_unstable();
        }
    }
}

async fn measure(args: &Args, namespace: &str) -> Result<Times> {
    let client = kube::Client::try_default().await.context("the cluster of KUBECONFIG")?;
    let rules = api(&client, namespace, "DestinationRule");
    let routes = api(&client, namespace, "VirtualService");
    let subsets = ["v1", "v2"].map(|version| json!({"name": version, "labels": {"version": version}}));
    put(
        &rules,
        "DestinationRule",
        json!({"host": "recommendation", "subsets": subsets}),
    )
    .await?;
    put(&routes, "VirtualService", spec("v1")).await?;
    let mut watcher = Watcher::start(namespace, args).await?;
    watcher.until("v1").await?;
    let mut times = Times::default();
    for (version, _) in ["v2", "v1"].iter().cycle().zip(0..args.changes) {
        tokio::time::sleep(PAUSE).await;
        let sent = now();
        let change = Patch::Merge(json!({"spec": spec(version)}));
        routes.patch("recommendation", &PatchParams::default(), &change).await?;
        let answered = now();
        let followed = watcher.until(version).await?;
        times.sent.push(followed.saturating_sub(sent));
        times.answered.push(followed.saturating_sub(answered));
    }
    for (version, _) in ["v2", "v1"].iter().cycle().zip(0..args.kubectl) {
        tokio::time::sleep(PAUSE).await;
        let start = now();
        apply(namespace, version).await?;
        let end = now();
        let followed = watcher.until(version).await?;
        times.kubectl.push(followed.saturating_sub(start));
        times.kubectl_alone.push(end.saturating_sub(start));
    }
    // What was made here is taken away, as it was found.
    routes
        .delete("recommendation", &kube::api::DeleteParams::default())
        .await?;
    rules
        .delete("recommendation", &kube::api::DeleteParams::default())
        .await?;
    ensure!(watcher.failed == 0, "{} answers were not 200", watcher.failed);
    times.sort();
    Ok(times)
}

fn api(client: &kube::Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", "v1", kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

async fn put(api: &Api<DynamicObject>, kind: &str, spec: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "recommendation"}, "spec": spec,
    });
    let params = PatchParams::apply("mizzen-bench").force();
    api.patch("recommendation", &params, &Patch::Apply(object)).await?;
    Ok(())
}

/// All requests to one version, as a weighted route.
fn spec(version: &str) -> Value {
    let route = ["v1", "v2"].map(|subset| {
        let weight = if subset == version { 100 } else { 0 };
        json!({"destination": {"host": "recommendation", "subset": subset}, "weight": weight})
    });
    json!({"hosts": ["recommendation"], "http": [{"route": route}]})
}

async fn apply(namespace: &str, version: &str) -> Result<()> {
    let manifest = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "recommendation", "namespace": namespace}, "spec": spec(version),
    });
    let mut child = Command::new("kubectl")
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("kubectl")?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(manifest.to_string().as_bytes()).await?;
    drop(stdin);
    let status = child.wait().await?;
    ensure!(status.success(), "kubectl apply: {status}");
    Ok(())
}

/// The client in the customer's pod: one connection, a steady pace, a line whenever the answer changes.
struct Watcher {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    failed: usize,
}

impl Watcher {
    async fn start(namespace: &str, args: &Args) -> Result<Self> {
        let rate = args.rate.to_string();
        let mut child = Command::new("kubectl")
            .args(["exec", "-i", "-n", namespace, "deploy/customer", "-c", "customer", "--"])
            .args(["/usr/local/bin/mizzen-app", "watch", "http://recommendation:8080/"])
            .args(["--rate", &rate, "--seconds", "3600", "--until-stdin-ends"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("kubectl")?;
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Self {
            _child: child,
            lines: BufReader::new(stdout).lines(),
            failed: 0,
        })
    }

    /// When the first request was answered by that version.
    async fn until(&mut self, version: &str) -> Result<Duration> {
        loop {
            let line = tokio::time::timeout(LIMIT, self.lines.next_line())
                .await
                .with_context(|| format!("no request has reached {version} in time"))??;
            let line = line.context("the client in the pod has ended")?;
            let fields: Vec<_> = line.split(' ').collect();
            let [_, answered, status, _, label] = fields.as_slice() else {
                bail!("the client in the pod says {line:?}");
            };
            if *status != "200" {
                self.failed += 1;
            } else if *label == version {
                return Ok(Duration::from_micros(answered.parse()?));
            }
        }
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Of sorted times, by the nearest rank.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times, 100), Duration::from_millis(200));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn a_change_moves_all_weight() {
        let route = spec("v2");
        assert_eq!(route["http"][0]["route"][0]["weight"], 0);
        assert_eq!(route["http"][0]["route"][1]["weight"], 100);
    }
}
