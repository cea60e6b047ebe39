//! A further program in a container that runs: for `kubectl exec`, exec probes and lifecycle hooks.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::config::NodeConfig;
use crate::launch::{Ids, Launch, LaunchError, Process, launch};
use crate::logs::{Output, drain};
use crate::order::{Order, Root};
use crate::sandbox::Namespaces;

/// What a probe or a hook keeps of a program's output, as kubelet.
const OUTPUT_BYTES: usize = 10 << 10;

/// A container that runs.
pub(crate) struct Running {
    pub(crate) id: String,
    pub(crate) attempt: i32,
    pub(crate) process: Arc<Process>,
    pub(crate) output: Arc<Output>,
    /// As which its program was started; others in it are started alike.
    pub(crate) order: Order,
    pub(crate) namespaces: Option<Arc<Namespaces>>,
    /// Its standard input, where it has one that is still open.
    pub(crate) stdin: tokio::sync::Mutex<Option<tokio::io::unix::AsyncFd<std::fs::File>>>,
    /// The first who is attached closes it (`stdinOnce`).
    pub(crate) stdin_once: bool,
    /// Its standard streams are a terminal: this is the other side.
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) cgroup: Option<std::path::PathBuf>,
}

/// Starts a program with the container's rights, environment and files.
pub(crate) async fn start(
    config: &NodeConfig,
    running: &Running,
    command: Vec<String>,
    stdio: [Stdio; 3],
    terminal: bool,
) -> Result<Process, LaunchError> {
    let mut order = running.order.clone();
    order.root = Root::Of(running.process.pid);
    order.command = command;
    order.fallback = None;
    order.terminal = terminal;
    if terminal {
        order.env.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
    }
    let launched = Launch {
        order,
        ids: Ids::Of(Arc::clone(&running.process)),
        namespaces: running.namespaces.clone(),
        stdio,
        cgroup: running.cgroup.clone(),
    };
    launch(config, launched).await
}

/// Runs a program to its end: its code and what it wrote. `None`: it was killed after `limit`.
pub(crate) async fn run(
    config: &NodeConfig,
    running: &Running,
    command: Vec<String>,
    limit: Duration,
) -> Result<Option<(i32, String)>, LaunchError> {
    let pipe = || std::io::pipe().map_err(|error| LaunchError::Process(error.to_string()));
    let (reader, writer) = pipe()?;
    let error_writer = writer
        .try_clone()
        .map_err(|error| LaunchError::Process(error.to_string()))?;
    let stdio = [Stdio::null(), writer.into(), error_writer.into()];
    let work = async {
        let process = start(config, running, command, stdio, false).await?;
        let (exit, output) = tokio::join!(process.ended(), drain(reader.into(), OUTPUT_BYTES));
        process.signal(Signal::KILL);
        Ok((exit.code, String::from_utf8_lossy(&output).into_owned()))
    };
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map(Some),
        Err(_) => Ok(None),
    }
}
