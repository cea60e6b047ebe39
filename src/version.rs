//! `mizzen version`.

use std::io::Write;

/// What is printed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// `text` or `json`.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Prints the version of the program and of the control planes that it installs.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (program, mesh) = (env!("CARGO_PKG_VERSION"), mizzen_desired::VERSION);
    let mut out = std::io::stdout().lock();
    if args.output == "json" {
        writeln!(
            out,
            "{}",
            serde_json::json!({ "mizzen": program, "controlPlane": mesh })
        )?;
    } else {
        writeln!(out, "mizzen {program}, control plane {mesh}")?;
    }
    Ok(())
}
