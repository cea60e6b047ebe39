//! `mizzen-proxy`: sidecar, gateway and init container in one small program.

use std::process::ExitCode;

use clap::Parser;
use mizzen_proxy::command::{self, Command};

/// Sidecar and gateway of the Mizzen service mesh.
#[derive(Debug, Parser)]
#[command(name = "mizzen-proxy", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    command::run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
