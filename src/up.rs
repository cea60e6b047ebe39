//! `mizzen up`: the mesh on one machine, with no cluster.
//!
//! Two processes. The outer one, in the machine's own namespaces, holds the state folder and the ports that are reached from outside,
//! hands sockets of the machine's network in, and forwards what stops it. The inner one ([`machine`]) is the first of new namespaces,
//! with the API, the controllers, the node and all pods; it ends with the outer one, whatever ends that. Never: a change to anything
//! outside those namespaces and the state folder.

mod apps;
mod detach;
mod gateway;
mod handover;
mod images;
mod inside;
pub(crate) mod machine;
mod namespaces;
pub(crate) mod state;

use crate::failure::Failure;
use machine::{Descriptors, Machine};
use rustix::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use rustix::process::{WaitOptions, waitpid};
use state::{Record, State};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// The name of the machine where none is given.
pub(crate) const DEFAULT_NAME: &str = "default";
const API_PORT: u16 = 6443;
const GATEWAY_PORT: u16 = 8080;
/// Ports that are tried after one that is taken.
const OTHER_PORTS: u16 = 100;
/// What stops in order stops within this; a little more than pods get.
const STOP: Duration = Duration::from_secs(15);

/// What comes up.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  mizzen up                                             a mesh with a sample, until Ctrl-C
  mizzen up --detach && mizzen status                   in the background
  mizzen up --fresh --no-sample                         forget what there was, with no sample
  mizzen up --image shop=./target/debug/shop --app ./shop/deploy
                                                        your own program in the mesh
  mizzen up --name two --api-port 7443                  a second one beside the first")]
pub(crate) struct Args {
    /// Which machine: several run beside each other under their names.
    #[arg(long, default_value = DEFAULT_NAME, value_parser = state::name)]
    name: String,
    /// Forget the objects of earlier runs.
    #[arg(long)]
    fresh: bool,
    /// Return when everything is ready, and keep it running.
    #[arg(long)]
    detach: bool,
    /// The port of the API on 127.0.0.1 [default: 6443, or the next that is free].
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// The port of the gateway on 127.0.0.1 [default: 8080, or the next that is free].
    #[arg(long, value_name = "PORT")]
    gateway_port: Option<u16>,
    /// What an image is here: a program of this machine. May be repeated.
    #[arg(long = "image", value_name = "NAME=PROGRAM", value_parser = images::row)]
    images: Vec<(String, PathBuf)>,
    /// A folder of manifests to apply, in a namespace of the mesh. May be repeated.
    #[arg(long = "app", value_name = "FOLDER")]
    apps: Vec<PathBuf>,
    /// The Envoy for pods that ask for that data plane [default: one in PATH, if there is one].
    #[arg(long, value_name = "PATH", env = "MIZZEN_ENVOY")]
    envoy: Option<PathBuf>,
    /// A profile of the mesh: default, small, demo or minimal. Several: a later one wins over an earlier one.
    #[arg(long, default_value = "demo", value_delimiter = ',')]
    profile: Vec<String>,
    /// Leave out the sample.
    #[arg(long)]
    no_sample: bool,
    /// The pipe to the command that returns when everything is ready.
    #[arg(long, hide = true)]
    background: bool,
}

/// Runs until it is stopped, or until it is ready with `--detach`.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state = State::of(&args.name)?;
    Ok(if args.detach && !args.background {
        detach::run(&state)?
    } else {
        outer(args, &state)?
    })
}

fn outer(args: &Args, state: &State) -> Result<ExitCode, Failure> {
    let images = images::table(args)?;
    let apps = apps::check(&args.apps)?;
    let lock = state.lock()?;
    if args.fresh {
        state.clear()?;
    }
    let api = listen("API", "--api-port", args.api_port, API_PORT)?;
    let gateway = listen("gateway", "--gateway-port", args.gateway_port, GATEWAY_PORT)?;
    let (control, inner_control) = UnixStream::pair().map_err(|error| broken(&error))?;
    // Anything on it, or its end, asks the inner process to stop.
    let (stop_rx, stop_tx) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| broken(&error))?;
    let port = |listener: &TcpListener| listener.local_addr().map_or(0, |address| address.port());
    let record = Record {
        api: format!("https://127.0.0.1:{}", port(&api)),
        gateway: format!("http://127.0.0.1:{}", port(&gateway)),
        mesh: machine::MESH_NAMESPACE.to_owned(),
        ready: false,
    };
    let machine = Machine {
        state: state.folder.clone(),
        name: state.name.clone(),
        record: record.clone(),
        images,
        apps,
        profile: args.profile.clone(),
        sample: !args.no_sample,
        background: args.background,
        descriptors: Descriptors {
            api: api.as_raw_fd(),
            gateway: gateway.as_raw_fd(),
            control: inner_control.as_raw_fd(),
            stop: stop_rx.as_raw_fd(),
            lock: lock.0.as_raw_fd(),
        },
    };
    state.write_record(Some(&record)).map_err(|error| broken(&error))?;
    let program = images::own_program()?;
    let words = [
        "machine".into(),
        serde_json::to_string(&machine).map_err(|error| broken(&error))?.into(),
    ];
    // With the lock: as long as either process is there, nobody else takes the folder.
    let handed = [
        api.as_fd(),
        gateway.as_fd(),
        inner_control.as_fd(),
        stop_rx.as_fd(),
        lock.0.as_fd(),
    ];
    let process = namespaces::spawn(&program, &words, &handed)?;
    drop((api, gateway, inner_control, stop_rx));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| broken(&error))?;
    let outcome = runtime.block_on(watch(args, state, record, process, control, stop_tx));
    let _ = state.write_record(None);
    drop(lock);
    outcome.map_err(|error| broken(&error))
}

/// Hands sockets in and signals through, until the inner process ends.
async fn watch(
    args: &Args,
    state: &State,
    record: Record,
    process: namespaces::Process,
    control: UnixStream,
    stop_tx: OwnedFd,
) -> std::io::Result<ExitCode> {
    let record = Rc::new(RefCell::new(record));
    let ready = || {
        record.borrow_mut().ready = true;
        // `status` says "starting" then; all else is as it should be.
        let _ = state.write_record(Some(&record.borrow()));
        if args.background {
            detach::let_go(state);
        }
    };
    let sockets = async {
        if let Err(error) = handover::serve(control, ready).await {
            eprintln!("warning: pods do not reach the outside any more: {error}");
        }
        std::future::pending::<()>().await;
    };
    let pid = process.pid;
    let ended = tokio::task::spawn_blocking(move || waitpid(Some(pid), WaitOptions::empty()));
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut asked = false;
    // Far away, until somebody asks it to stop.
    let limit = tokio::time::sleep(Duration::from_secs(u32::MAX.into()));
    tokio::pin!(limit, sockets, ended);
    let status = loop {
        tokio::select! {
            () = &mut sockets => {}
            status = &mut ended => break status??,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv(), if !args.background => {}
            () = &mut limit => {
                eprintln!("warning: it does not stop in order; ending it");
                process.kill();
                limit.as_mut().reset(tokio::time::Instant::now() + STOP);
                continue;
            }
        }
        if asked {
            // Who asks twice does not want to wait.
            process.kill();
        } else {
            asked = true;
            let _ = rustix::io::write(&stop_tx, &[1]);
            limit.as_mut().reset(tokio::time::Instant::now() + STOP);
        }
    };
    let code = status.and_then(|(_, status)| status.exit_status());
    Ok(match code {
        Some(code) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        None if asked => ExitCode::SUCCESS,
        None => {
            eprintln!(
                "error: the inner process was killed; see {}",
                state.path("log").display()
            );
            ExitCode::FAILURE
        }
    })
}

/// A listener on loopback. A port that the user chose is not replaced.
fn listen(what: &str, flag: &str, wanted: Option<u16>, first: u16) -> Result<TcpListener, Failure> {
    let bind = |port: u16| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let listener = match wanted {
        Some(port) => bind(port).map_err(|error| {
            let remedy = format!("stop what listens there, choose another {flag}, or leave the choice to `mizzen up`");
            Failure::new(
                format!("port {port} of {flag} cannot be had"),
                error.to_string(),
                remedy,
            )
        }),
        None => (first..first.saturating_add(OTHER_PORTS))
            .find_map(|port| bind(port).ok())
            .ok_or_else(|| {
                let why = format!("{first} and the next {OTHER_PORTS} on 127.0.0.1 are taken");
                Failure::new(
                    format!("there is no port for the {what}"),
                    why,
                    format!("name one with {flag}"),
                )
            }),
    }?;
    if let Ok(address) = listener.local_addr()
        && wanted.is_none()
        && address.port() != first
    {
        crate::output::line(&format!(
            "{:<12}port {first} is taken, {} serves instead",
            what.to_lowercase(),
            address.port()
        ));
    }
    listener.set_nonblocking(true).map_err(|error| broken(&error))?;
    Ok(listener)
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        "it cannot be started",
        error.to_string(),
        "see what `ulimit -a` and the disk allow",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_unless_it_was_chosen() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let said = listen("API", "--api-port", Some(port), API_PORT)
            .unwrap_err()
            .to_string();
        assert!(said.contains(&format!("port {port} of --api-port")), "{said}");
        if port < u16::MAX - OTHER_PORTS {
            let other = listen("API", "--api-port", None, port).unwrap();
            assert!(other.local_addr().unwrap().port() > port);
        }
    }
}
