//! `mizzen-proxy`: sidecar, gateway and init container in one small program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mizzen_proxy::agent::{RequestArgs, request};
use mizzen_proxy::envoy::{self, EnvoyConfig};
use mizzen_proxy::run;
use mizzen_proxy::settings::{DataPlane, ProxyArgs, Settings};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

/// Sidecar and gateway of the Mizzen service mesh.
#[derive(Debug, Parser)]
#[command(name = "mizzen-proxy", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run as a sidecar or gateway
    Proxy(ProxyArgs),
    /// Program the pod's traffic redirection (init container)
    Redirect(mizzen_redirect::Args),
    /// Ask the sidecar in this pod (for container hooks)
    Request(RequestArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Whoever builds a TLS configuration without naming a provider gets the same one as the data plane.
    let _installed_before = rustls::crypto::CryptoProvider::install_default((*mizzen_proxy::tls::crypto()).clone());
    let done = match cli.command {
        Command::Proxy(args) => proxy(args),
        Command::Redirect(args) => mizzen_redirect::run(&args, &mut std::io::stdout())
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
        Command::Request(args) => ask(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn proxy(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    let log_level = logging(&args);
    let settings = Settings::read(args, &|name| std::env::var(name).ok())?;
    if settings.data_plane == DataPlane::Native {
        run::native(settings, log_level)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let shutdown = run::asked_to_end()?;
        anyhow::Ok(envoy::run(EnvoyConfig::from(&settings), shutdown).await?)
    })?;
    Ok(ExitCode::from(code))
}

fn ask(args: &RequestArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = runtime.block_on(request(args))?;
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Logs to standard error (standard output is the access log's). The level can be changed by the admin port.
fn logging(args: &ProxyArgs) -> run::LogLevel {
    let directives = |level: &str| {
        // Libraries below us say at `info` what is `debug` to our users.
        format!("{level},h2=warn,hyper=warn,tonic=warn,tower=warn,rustls=warn")
    };
    // `default:info,ads:debug` names scopes of another program; the default's level is what counts.
    let level = args
        .log_output_level
        .split(',')
        .find_map(|scope| {
            scope
                .strip_prefix("default:")
                .or((!scope.contains(':')).then_some(scope))
        })
        .filter(|level| !level.is_empty())
        .unwrap_or("info")
        .to_owned();
    let info = || Targets::new().with_default(tracing::Level::INFO);
    let filter = directives(&level).parse().unwrap_or_else(|_| info());
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().with_writer(std::io::stderr).with_ansi(false))
        .init();
    Box::new(move |wanted| {
        if let Some(wanted) = wanted {
            let wanted = if wanted.contains('=') {
                wanted.to_owned()
            } else {
                directives(wanted)
            };
            let filter: Targets = wanted.parse().map_err(|error: ParseError| error.to_string())?;
            handle.reload(filter).map_err(|error| error.to_string())?;
        }
        handle
            .with_current(ToString::to_string)
            .map_err(|error| error.to_string())
    })
}
