//! `mizzen version`.

/// What is printed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  mizzen version
  mizzen version -o json | jq -r .controlPlane")]
pub(crate) struct Args {
    /// `text` or `json`.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Prints the version of the program and of the control planes that it installs.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (program, mesh) = (env!("CARGO_PKG_VERSION"), mizzen_desired::VERSION);
    let text = if args.output == "json" {
        format!("{}\n", serde_json::json!({ "mizzen": program, "controlPlane": mesh }))
    } else {
        format!("mizzen {program}, control plane {mesh}\n")
    };
    crate::output::write(&text)?;
    Ok(())
}
