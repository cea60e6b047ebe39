//! Discovery alone, against the cluster of a kubeconfig:
//! `cargo run -p mizzen-discovery --example discovery -- --kubeconfig ~/.kube/config`

use clap::Parser;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: mizzen_discovery::Args,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another cryptography provider is installed already"))?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    mizzen_discovery::run(Command::parse().args).await
}
