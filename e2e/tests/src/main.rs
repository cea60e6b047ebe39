//! `mizzen-e2e`: runs the scenarios of `e2e/scenarios` on the cluster that the kubeconfig names.
//!
//! In: scenario folders (manifests and steps), the built programs, `kubectl`. Out: one line per scenario and data plane, and
//! `N passed, N failed, N skipped`. It uses the product as its users do, through commands and manifests, and never links it.

mod cluster;
mod csr;
mod kill;
mod mesh;
mod run;
mod scenario;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use futures::future::join_all;

use crate::cluster::Cluster;
use crate::scenario::{DataPlane, Scenario, Scope};

#[derive(Parser)]
#[command(
    name = "mizzen-e2e",
    about = "Run the scenarios on the cluster that KUBECONFIG names"
)]
struct Args {
    /// Run only the scenarios whose name contains this; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// The data planes to run on
    #[arg(long, value_delimiter = ',', default_value = "native,envoy,mixed")]
    data_plane: Vec<DataPlane>,
    /// Keep the mesh and the applications afterwards; with it and a mesh that is there already nothing is installed
    #[arg(long)]
    keep: bool,
    /// The folder of scenarios
    #[arg(long, default_value = "e2e/scenarios")]
    scenarios: PathBuf,
    /// The folder that holds the built programs
    #[arg(long, env = "MIZZEN_BIN_DIR", default_value = "target/release")]
    bin: PathBuf,
    /// Where the ingress gateway is reached, HOST:PORT; by default its node port at the first node's address
    #[arg(long, value_name = "HOST:PORT")]
    gateway: Option<String>,
    /// List what would run, and the behaviours of FEATURES that each scenario covers
    #[arg(long)]
    list: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run_all(Args::parse()).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How many scenarios failed.
async fn run_all(args: Args) -> anyhow::Result<u32> {
    let scenarios = Scenario::load_all(&args.scenarios)?;
    let chosen: Vec<_> = scenarios
        .iter()
        .filter(|scenario| args.only.is_empty() || args.only.iter().any(|only| scenario.name.contains(only.as_str())))
        .collect();
    if args.list {
        for scenario in &chosen {
            println!(
                "{:20} {:30} {}",
                scenario.name,
                scenario.covers.join(","),
                scenario.about
            );
        }
        return Ok(0);
    }
    let Some(cluster) = Cluster::connect(&args.bin, args.gateway.clone()).await else {
        println!(
            "scenarios   skipped: no cluster answers. Name one in KUBECONFIG (kind, k3d or any other; load the images of"
        );
        println!("            `e2e/images` into it), then run ./test again.");
        println!("0 passed, 0 failed, {} skipped", chosen.len());
        return Ok(0);
    };

    let mut tally = Tally::default();
    let mesh = mesh::Mesh::new(&cluster, &args.data_plane);
    let install = tally.time("install", "cluster", mesh.install(args.keep)).await;
    if install {
        for scenario in chosen.iter().filter(|scenario| scenario.scope == Scope::DataPlane) {
            // Each data plane has a namespace of its own: they do not meet, and much of a scenario is waiting.
            let runs = args
                .data_plane
                .iter()
                .filter(|plane| scenario.data_planes.contains(plane))
                .map(async |plane| (plane, timed(run::scenario(&cluster, scenario, *plane)).await));
            for (plane, outcome) in join_all(runs).await {
                if !tally.count(&scenario.name, plane.name(), outcome) {
                    cluster.describe_trouble(&plane.namespace()).await;
                }
            }
        }
        for scenario in chosen.iter().filter(|scenario| scenario.scope == Scope::Cluster) {
            let mut planes = args
                .data_plane
                .iter()
                .filter(|plane| scenario.data_planes.contains(plane));
            // Where both data planes serve one chain of calls, if that is among them.
            let Some(plane) = planes
                .clone()
                .find(|plane| **plane == DataPlane::Mixed)
                .or(planes.next())
            else {
                println!("not run {} [cluster]: needs {:?}", scenario.name, scenario.data_planes);
                continue;
            };
            if !tally
                .time(&scenario.name, "cluster", run::scenario(&cluster, scenario, *plane))
                .await
            {
                cluster.describe_trouble("istio-system").await;
            }
        }
    } else {
        cluster.describe_trouble("mizzen-operator").await;
        cluster.describe_trouble("istio-system").await;
        for plane in &args.data_plane {
            cluster.describe_trouble(&plane.namespace()).await;
        }
    }
    if !args.keep {
        tally.time("uninstall", "cluster", mesh.uninstall()).await;
    }
    println!("{} passed, {} failed, 0 skipped", tally.passed, tally.failed);
    Ok(tally.failed)
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    /// Runs one piece of work, prints its line, and says whether it passed.
    async fn time(&mut self, name: &str, variant: &str, work: impl Future<Output = anyhow::Result<()>>) -> bool {
        let outcome = timed(work).await;
        self.count(name, variant, outcome)
    }

    /// Prints the line of a piece of work, and says whether it passed.
    fn count(&mut self, name: &str, variant: &str, (took, outcome): (Duration, anyhow::Result<()>)) -> bool {
        let seconds = took.as_secs_f32();
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok      {name} [{variant}] {seconds:.1}s");
                true
            }
            Err(error) => {
                self.failed += 1;
                println!(
                    "FAILED  {name} [{variant}] {seconds:.1}s\n        {}",
                    format!("{error:#}").replace('\n', "\n        ")
                );
                false
            }
        }
    }
}

/// How long a piece of work took, and how it ended.
async fn timed(work: impl Future<Output = anyhow::Result<()>>) -> (Duration, anyhow::Result<()>) {
    // A scenario bounds its own waits; this bound only keeps a hang from holding up the others.
    const LIMIT: Duration = Duration::from_secs(420);
    let start = Instant::now();
    let outcome = tokio::time::timeout(LIMIT, work)
        .await
        .context("took longer than 7 minutes")
        .flatten();
    (start.elapsed(), outcome)
}
