//! `mizzen operator`: runs the operator, or prints what it would make of a ServiceMeshControlPlane.

mod plan;
mod webhooks;

use crate::connect;
use clap::Subcommand;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

/// How the operator is run.
// No group: clap names it after the type, and the operator's own arguments have the same name.
#[derive(clap::Args)]
#[group(skip)]
#[command(after_help = "Examples:
  mizzen operator                      as the operator's Deployment runs it
  mizzen operator plan -f smcp.yaml    what it would make of smcp.yaml")]
pub(crate) struct Args {
    #[command(flatten)]
    operator: mizzen_operator::Args,
    /// Where the webhooks for the operator's own kinds are served.
    #[arg(long, env = "MIZZEN_OPERATOR_WEBHOOKS", default_value = "0.0.0.0:11999")]
    webhook_listen: SocketAddr,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator (the default).
    #[command(after_help = "Examples:
  mizzen operator run                      as the operator's Deployment runs it
  mizzen operator --namespace mesh-ops run     as the operator of another namespace")]
    Run,
    /// Print the objects that the operator would make, as YAML.
    Plan(plan::Args),
}

impl Args {
    /// Whether it runs for long.
    pub(crate) fn serves(&self) -> bool {
        !matches!(self.command, Some(Command::Plan(_)))
    }
}

/// Runs the subcommand.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(Command::Plan(plan)) = args.command {
        return plan::run(&plan, &args.operator.settings());
    }
    let client = connect::Options::default().client().await?;
    let stop = CancellationToken::new();
    tokio::spawn(on_signal(stop.clone()));
    let mut metrics = Registry::default();
    // Every replica answers reviews; the operator's readiness says that this one does.
    let webhooks = webhooks::start(
        client.clone(),
        &args.operator,
        args.webhook_listen,
        &mut metrics,
        stop.clone(),
    )
    .await?;
    let outcome = mizzen_operator::run(client, args.operator, metrics, stop.clone()).await;
    stop.cancel();
    webhooks.await?;
    outcome
}

async fn on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        () = stop.cancelled() => {}
    }
    stop.cancel();
}
