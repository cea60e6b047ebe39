//! The command line of `mizzen-proxy`, which other programs may have as a part of theirs.

use std::process::ExitCode;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

use crate::agent::{RequestArgs, request};
use crate::envoy::{self, EnvoyConfig};
use crate::run::{self as data_plane, LogLevel};
use crate::settings::{DataPlane, ProxyArgs, Settings};

/// What is to be done.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run as a sidecar or gateway
    Proxy(ProxyArgs),
    /// Program the pod's traffic redirection (init container)
    Redirect(mizzen_redirect::Args),
    /// Ask the sidecar in this pod (for container hooks)
    Request(RequestArgs),
}

/// Does it, with threads and a log of its own: outside of any runtime, once in a process.
///
/// # Errors
/// Why it could not be done, for the user.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    // Whoever builds a TLS configuration without naming a provider gets the same one as the data plane.
    let _installed_before = rustls::crypto::CryptoProvider::install_default((*crate::tls::crypto()).clone());
    match command {
        Command::Proxy(args) => proxy(args),
        Command::Redirect(args) => {
            mizzen_redirect::run(&args, &mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Request(args) => ask(&args),
    }
}

fn proxy(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    let log_level = logging(&args);
    let settings = Settings::read(args, &|name| std::env::var(name).ok())?;
    if settings.data_plane == DataPlane::Native {
        data_plane::native(settings, log_level)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let shutdown = data_plane::asked_to_end()?;
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
fn logging(args: &ProxyArgs) -> LogLevel {
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
