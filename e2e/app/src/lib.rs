//! `mizzen-app`: one small program that plays every role in the sample applications.
//!
//! In: flags or environment (a role: name, version, upstream calls, delay, failure rate). Out: HTTP answers that tell which
//! services a request passed. It knows nothing of the mesh: that applications need no change is the point.

use clap::Subcommand;

mod behaviour;
mod call;
mod echo;
mod kill;
mod record;
mod serve;
mod smuggle;
mod watch;

/// What the program does.
#[derive(Subcommand)]
pub enum Command {
    /// Serve HTTP (1.1 and 2 with prior knowledge) in the role that the flags describe
    // `--version` is the role's, also where a program that has this one as a part gives all its commands a version.
    #[command(disable_version_flag = true)]
    Serve(serve::Args),
    /// Send requests and print one line per answer: status, then body
    ///
    /// Example: mizzen-app call http://customer:8080/ -n 100 -H 'user: tester'
    Call(call::Args),
    /// Send a line over TCP and print what comes back
    Tcp(echo::ClientArgs),
    /// Ask at a steady pace and print when the answer changes
    Watch(watch::Args),
    /// Send requests that can be understood in two ways, and check what comes of them
    Smuggle(smuggle::Args),
    /// Kill processes of other containers (in a privileged pod with the node's processes)
    Kill(kill::Args),
}

/// Does it, until it is done or the process is asked to end.
///
/// # Errors
/// Why it could not be done, for the user.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Call(args) => call::run(args).await,
        Command::Tcp(args) => echo::run_client(args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Smuggle(args) => smuggle::run(args).await,
        Command::Kill(args) => kill::run(args).await,
    }
}
