//! `mizzen-app`: one small program that plays every role in the sample applications.

use clap::Parser;
use mizzen_app::Command;

#[derive(Parser)]
#[command(
    name = "mizzen-app",
    version,
    about = "A sample service, and the client to try it with"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    mizzen_app::run(Cli::parse().command).await
}
