//! The cluster behind the kubeconfig, through `kubectl` and the built programs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::Command;

/// A cluster that answers.
pub(crate) struct Cluster {
    bin: PathBuf,
    /// Where the ingress gateway is reached, if not at a node's address.
    gateway: Option<String>,
}

/// What a command printed, both streams together, and whether it succeeded.
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) text: String,
}

impl Cluster {
    /// `None` where the kubeconfig names no cluster that answers.
    pub(crate) async fn connect(bin: &Path, gateway: Option<String>) -> Option<Self> {
        let cluster = Self {
            bin: bin.to_owned(),
            gateway,
        };
        let nodes = cluster
            .kubectl(&["get", "nodes", "--request-timeout=10s", "-o", "name"])
            .await
            .ok()?;
        (nodes.success && nodes.text.contains("node/")).then_some(cluster)
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<Output> {
        output(Command::new("kubectl").args(args))
            .await
            .context("cannot run kubectl")
    }

    /// Standard output of a kubectl command that must succeed.
    pub(crate) async fn must(&self, args: &[&str]) -> anyhow::Result<String> {
        let done = answer(Command::new("kubectl").args(args)).await?;
        anyhow::ensure!(done.success, "kubectl {} failed: {}", args.join(" "), done.text.trim());
        Ok(done.text)
    }

    pub(crate) async fn mizzen(&self, args: &[&str]) -> anyhow::Result<Output> {
        output(Command::new(self.bin.join("mizzen")).args(args))
            .await
            .context("cannot run mizzen")
    }

    /// The sample program's client outside the cluster.
    pub(crate) async fn client(&self, args: &[&str]) -> anyhow::Result<Output> {
        output(Command::new(self.bin.join("mizzen-app")).args(args))
            .await
            .context("cannot run mizzen-app")
    }

    /// The sample program's client inside the first ready pod of a deployment.
    pub(crate) async fn client_in(&self, namespace: &str, deployment: &str, args: &[&str]) -> anyhow::Result<Output> {
        let mut all = vec!["exec", "-n", namespace, deployment, "--", "/usr/local/bin/mizzen-app"];
        all.extend(args);
        answer(Command::new("kubectl").args(&all))
            .await
            .context("cannot run kubectl")
    }

    /// Applies a text to the namespace. A text that names namespaces itself goes to those.
    pub(crate) async fn apply(&self, namespace: &str, manifest: &str) -> anyhow::Result<()> {
        let done = self.fed(&["apply", "-f", "-"], namespace, manifest).await?;
        anyhow::ensure!(
            done.status.success(),
            "kubectl apply: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        );
        Ok(())
    }

    /// Deletes what a text names, in the namespace as [`apply`](Self::apply), and waits until it is gone.
    pub(crate) async fn delete(&self, namespace: &str, manifest: &str) -> anyhow::Result<Output> {
        let args = ["delete", "--ignore-not-found", "--timeout=90s", "-f", "-"];
        let done = self.fed(&args, namespace, manifest).await?;
        Ok(Output {
            success: done.status.success(),
            text: String::from_utf8_lossy(&done.stderr).into_owned(),
        })
    }

    async fn fed(&self, args: &[&str], namespace: &str, manifest: &str) -> anyhow::Result<std::process::Output> {
        use tokio::io::AsyncWriteExt;
        let mut args = args.to_vec();
        // kubectl refuses a namespace beside objects that name another one.
        if !manifest.contains("\n  namespace: ") {
            args.extend(["-n", namespace]);
        }
        let mut child = Command::new("kubectl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(manifest.as_bytes()).await?;
        drop(stdin);
        Ok(child.wait_with_output().await?)
    }

    /// The ingress gateway as host:port: as it was said, or by the node's address and the service's node port.
    pub(crate) async fn gateway(&self) -> anyhow::Result<String> {
        if let Some(gateway) = &self.gateway {
            return Ok(gateway.clone());
        }
        let port = self
            .must(&[
                "get",
                "service",
                "-n",
                "istio-system",
                "istio-ingressgateway",
                "-o",
                "jsonpath={.spec.ports[?(@.name==\"http2\")].nodePort}",
            ])
            .await?;
        let node = self
            .must(&[
                "get",
                "nodes",
                "-o",
                "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}",
            ])
            .await?;
        let node = node
            .split_whitespace()
            .next()
            .context("the node has no internal address")?;
        anyhow::ensure!(
            !port.is_empty(),
            "the service istio-ingressgateway has no node port named http2"
        );
        Ok(format!("{node}:{port}"))
    }

    /// Waits until every deployment of the namespace is rolled out and no pod of an earlier version is left.
    pub(crate) async fn wait_ready(&self, namespace: &str, limit: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + limit;
        loop {
            let pods = self
                .must(&["get", "pods", "-n", namespace, "--no-headers", "-o", "custom-columns=N:.metadata.name,P:.status.phase,R:.status.conditions[?(@.type=='Ready')].status,D:.metadata.deletionTimestamp"])
                .await?;
            let deployments = self
                .must(&["get", "deployments", "-n", namespace, "--no-headers", "-o", "custom-columns=N:.metadata.name,R:.spec.replicas,U:.status.updatedReplicas,A:.status.availableReplicas,G:.metadata.generation,O:.status.observedGeneration"])
                .await?;
            let rolled_out = deployments
                .lines()
                .filter(|line| !line.contains("No resources"))
                .all(|line| {
                    let fields: Vec<_> = line.split_whitespace().collect();
                    matches!(fields.as_slice(), [_, replicas, updated, available, generation, observed]
                    if (replicas == updated && replicas == available || *replicas == "0") && generation == observed)
                });
            let settled = pods.lines().filter(|line| !line.contains("No resources")).all(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                matches!(
                    fields.as_slice(),
                    [_, "Running", "True", "<none>"] | [_, "Succeeded", ..]
                )
            });
            if rolled_out && settled {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("the pods of {namespace} are not ready:\n{pods}");
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Prints what somebody would look at first when pods of a namespace misbehave.
    pub(crate) async fn describe_trouble(&self, namespace: &str) {
        for args in [
            vec!["get", "pods", "-n", namespace, "-o", "wide"],
            vec![
                "get",
                "events",
                "-n",
                namespace,
                "--field-selector=type=Warning",
                "--sort-by=.lastTimestamp",
            ],
        ] {
            if let Ok(output) = self.kubectl(&args).await {
                println!("        $ kubectl {}\n{}", args.join(" "), tail(&output.text, 25));
            }
        }
        let pods = self.kubectl(&["get", "pods", "-n", namespace, "-o", "name"]).await;
        for pod in pods
            .iter()
            .flat_map(|output| output.text.lines())
            .filter(|line| line.starts_with("pod/"))
        {
            let args = [
                "logs",
                "-n",
                namespace,
                pod,
                "--all-containers",
                "--tail=12",
                "--prefix",
            ];
            if let Ok(output) = self.kubectl(&args).await {
                println!("        $ kubectl {}\n{}", args.join(" "), tail(&output.text, 30));
            }
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.iter()
        .skip(from)
        .map(|line| format!("          {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Runs a command; both its streams, one behind the other.
async fn output(command: &mut Command) -> anyhow::Result<Output> {
    let done = run(command).await?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(Output {
        success: done.status.success(),
        text,
    })
}

/// Runs a command; what it answers on standard output, and what it complains of only if it fails: `kubectl exec` itself
/// writes of frames that come late ("Unknown stream id") beside a program's whole output.
async fn answer(command: &mut Command) -> anyhow::Result<Output> {
    let mut done = run(command).await?;
    if !done.status.success() {
        done.stdout.extend_from_slice(&done.stderr);
    }
    Ok(Output {
        success: done.status.success(),
        text: String::from_utf8_lossy(&done.stdout).into_owned(),
    })
}

async fn run(command: &mut Command) -> std::io::Result<std::process::Output> {
    command.stdin(Stdio::null()).kill_on_drop(true).output().await
}
