//! `mizzen completion`: what a shell needs to complete this program's arguments.

use clap::CommandFactory;
use clap_complete::Shell;

/// For which shell.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  source <(mizzen completion bash)
  mizzen completion zsh > ~/.zfunc/_mizzen
  mizzen completion fish > ~/.config/fish/completions/mizzen.fish")]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "mizzen", &mut script);
    crate::output::write(&String::from_utf8(script)?)?;
    Ok(())
}
