//! `mizzen`: the command line, the operator and the control plane in one program. One file per subcommand; each reads its
//! arguments and wires the crates that do the work.

mod completion;
mod connect;
mod discovery;
mod down;
mod failure;
mod inject;
mod install;
mod operator;
mod output;
mod proxy;
mod status;
mod uninstall;
mod up;
mod version;

use clap::{Parser, Subcommand};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// A service mesh for Kubernetes.
#[derive(Parser)]
#[command(
    name = "mizzen",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  mizzen up                                          a mesh on this machine, with no cluster
  mizzen install --profile demo --sample tutorial    a mesh and something to try it with
  kubectl get smcp -n istio-system                   how it is
  mizzen inject -f deployment.yaml                   what injection makes of a manifest
  mizzen uninstall                                   all of it gone

The cluster is the one of --kubeconfig, $KUBECONFIG or ~/.kube/config, and of --context or its current context."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a mesh on this machine, with no cluster.
    Up(up::Args),
    /// Stop what up runs.
    Down(down::Args),
    /// Tell how what up runs is.
    Status(status::Args),
    /// Install the operator and a mesh, and wait until they work.
    Install(install::Args),
    /// Remove what install made.
    Uninstall(uninstall::Args),
    /// Print manifests with the sidecar injected.
    Inject(inject::Args),
    /// Run the operator, or print what it would make.
    Operator(operator::Args),
    /// Run the control plane (istiod).
    #[command(after_help = "Examples:
  mizzen discovery                                                as the control plane's Deployment runs it
  mizzen discovery --revision basic --kubeconfig ~/.kube/config   on your own machine, to debug it")]
    Discovery(Box<discovery::Args>),
    /// Print a completion script for a shell.
    Completion(completion::Args),
    /// Print the version.
    Version(version::Args),
    /// The sidecar, as an image of `up`.
    #[command(hide = true)]
    Sidecar {
        #[command(subcommand)]
        command: proxy::Sidecar,
    },
    /// The sample, as an image of `up`.
    #[command(hide = true)]
    Sample {
        #[command(subcommand)]
        command: proxy::Sample,
    },
    /// The inner process of `up`.
    #[command(hide = true)]
    Machine { told: String },
    /// What starts a container's program.
    #[command(hide = true)]
    Container { told: Vec<String> },
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(words(std::env::args_os().collect()));
    // These have no runtime, or one of their own, and log in their own way.
    let alone = match cli.command {
        Command::Container { told } => return mizzen_node::helper_main(&told),
        Command::Sidecar { command } => proxy::sidecar(command),
        Command::Sample { command } => proxy::sample(command),
        Command::Up(args) => up::run(&args),
        Command::Down(args) => down::run(&args),
        Command::Machine { told } => provide_tls().and_then(|()| up::machine::run(&told)),
        other => return serve(other),
    };
    alone.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The arguments with the role that the program's name says, as `mizzen-app` and `mizzen-proxy` are called in the containers of `up`.
fn words(mut words: Vec<OsString>) -> Vec<OsString> {
    let name = words.first().map(Path::new).and_then(Path::file_name);
    let role = match name.and_then(OsStr::to_str) {
        Some("mizzen-app") => "sample",
        Some("mizzen-proxy") => "sidecar",
        _ => return words,
    };
    words.insert(1, role.into());
    words
}

/// Before anything speaks TLS: with no default, the first use would have to choose, and a library might.
fn provide_tls() -> anyhow::Result<()> {
    let provided = rustls::crypto::aws_lc_rs::default_provider().install_default();
    provided.map_err(|_| anyhow::anyhow!("another TLS provider was installed first"))
}

fn serve(command: Command) -> ExitCode {
    let server =
        matches!(command, Command::Discovery(_)) || matches!(&command, Command::Operator(args) if args.serves());
    // What goes wrong between a command and the cluster the command says itself, once.
    start_logging(if server {
        "info"
    } else {
        "warn,kube_client=off,rustls_platform_verifier=off"
    });
    if let Err(error) = provide_tls() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Install(args) => return install::run(args).await,
        Command::Uninstall(args) => return uninstall::run(args).await,
        Command::Inject(args) => inject::run(args).await?,
        Command::Operator(args) => operator::run(args).await?,
        Command::Discovery(args) => discovery::run(*args).await?,
        Command::Completion(args) => completion::run(&args)?,
        Command::Version(args) => version::run(&args)?,
        Command::Status(args) => return status::run(args).await,
        // Done before there was a runtime.
        Command::Up(_) | Command::Down(_) | Command::Sidecar { .. } | Command::Sample { .. } => {}
        Command::Machine { .. } | Command::Container { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Logs go to standard error. `RUST_LOG` chooses what, `MIZZEN_LOG_FORMAT=json` how.
fn start_logging(default: &str) {
    let wanted = std::env::var("RUST_LOG")
        .ok()
        .and_then(|filter| filter.parse::<Targets>().ok());
    let filter = wanted.or_else(|| default.parse().ok()).unwrap_or_default();
    let logs = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if std::env::var("MIZZEN_LOG_FORMAT").is_ok_and(|format| format == "json") {
        logs.with(lines.json()).init();
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        logs.with(lines.with_ansi(terminal)).init();
    }
}

/// Logs go to a file.
fn start_logging_to(default: &str, file: std::fs::File) {
    let filter: Targets = default.parse().unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::sync::Arc::new(file))
        .with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    // N1
    #[test]
    fn the_name_of_the_program_says_its_role() {
        let words = |line: &str| words(line.split(' ').map(OsString::from).collect());
        assert_eq!(
            words("/usr/local/bin/mizzen-app call x"),
            ["/usr/local/bin/mizzen-app", "sample", "call", "x"].map(OsString::from)
        );
        assert_eq!(words("mizzen-proxy"), ["mizzen-proxy", "sidecar"].map(OsString::from));
        assert_eq!(words("./mizzen up"), ["./mizzen", "up"].map(OsString::from));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_operator_runs_when_nothing_else_is_said() {
        let cli = Cli::try_parse_from(["mizzen", "operator"]).unwrap();
        assert!(matches!(cli.command, Command::Operator(args) if args.serves()));
        let cli = Cli::try_parse_from(["mizzen", "operator", "plan", "-f", "x"]).unwrap();
        assert!(matches!(cli.command, Command::Operator(args) if !args.serves()));
    }
}
