//! Processes: an order goes out to a helper, a running program comes back. One plain thread for each, for three reasons: a thread that
//! enters namespaces must not be one of the runtime's; a child dies with the thread that made it (`PR_SET_PDEATHSIG`); and it waits.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{self, LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};
use tokio::sync::{oneshot, watch};

use crate::config::NodeConfig;
use crate::order::Order;
use crate::sandbox::Namespaces;

/// Why a program does not run.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The machine has no room for it.
    #[error("starting a process for the container: {0}")]
    Process(String),
    /// The helper says why.
    #[error("{0}")]
    Program(String),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its code, or 128 and the signal's number.
    pub(crate) code: i32,
    /// The signal's number, or 0.
    pub(crate) signal: i32,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = status.signal().unwrap_or(0);
        Self {
            code: status.code().unwrap_or(128 + signal),
            signal,
        }
    }
}

/// A program that runs; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    handle: OwnedFd,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Waits for its end.
    pub(crate) async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await;
        ended
            .ok()
            .and_then(|exit| *exit)
            .unwrap_or(Exit { code: 137, signal: 9 })
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// The signal does nothing to a process that has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        _ = pidfd_send_signal(&self.handle, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit().is_none() {
            self.signal(Signal::KILL);
        }
    }
}

/// Which process ids the program sees.
pub(crate) enum Ids {
    /// Its own: it is number 1.
    New,
    /// Those of a process that runs.
    Of(Arc<Process>),
}

/// What to start, and where.
pub(crate) struct Launch {
    pub(crate) order: Order,
    pub(crate) ids: Ids,
    /// Absent for a pod in the node's own network.
    pub(crate) namespaces: Option<Arc<Namespaces>>,
    pub(crate) stdio: [Stdio; 3],
    /// The folder of the control group it belongs to.
    pub(crate) cgroup: Option<PathBuf>,
}

/// Starts a program; returns when it has taken its process over.
pub(crate) async fn launch(config: &NodeConfig, launch: Launch) -> Result<Process, LaunchError> {
    let (started_tx, started_rx) = oneshot::channel();
    let (exit_tx, exit_rx) = watch::channel(None);
    let helper = config.helper.clone();
    std::thread::Builder::new()
        .name("container".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || {
            match start(&helper, launch) {
                Ok((mut child, handle, mut status, pipe)) => {
                    let mut message = String::new();
                    _ = status.read_to_string(&mut message);
                    drop((pipe, status));
                    let failed = !message.is_empty();
                    let pid = i32::try_from(child.id()).unwrap_or(0);
                    if failed {
                        _ = child.wait();
                        _ = started_tx.send(Err(LaunchError::Program(message)));
                        return;
                    }
                    // If nobody waits any more, the process is killed by the drop of what was sent.
                    drop(started_tx.send(Ok((pid, handle))));
                    let exit = child.wait().map_or(Exit { code: 137, signal: 9 }, Exit::from);
                    exit_tx.send_replace(Some(exit));
                }
                Err(error) => {
                    _ = started_tx.send(Err(LaunchError::Process(error.to_string())));
                }
            }
        })
        .map_err(|error| LaunchError::Process(error.to_string()))?;
    let (pid, handle) = started_rx
        .await
        .unwrap_or_else(|_| Err(LaunchError::Process("its thread ended".to_owned())))?;
    Ok(Process {
        pid,
        handle,
        exit: exit_rx,
    })
}

type Started = (std::process::Child, OwnedFd, std::fs::File, OwnedFd);

fn start(helper: &[std::ffi::OsString], launch: Launch) -> std::io::Result<Started> {
    if let Some(namespaces) = &launch.namespaces {
        namespaces.enter()?;
    }
    match &launch.ids {
        Ids::New => own_ids()?,
        Ids::Of(process) => {
            thread::move_into_thread_name_spaces(process.handle.as_fd(), ThreadNameSpaceType::PROCESS_ID)?;
        }
    }
    let (order_rx, order_tx) = pipe_with(PipeFlags::CLOEXEC)?;
    let (status_rx, status_tx) = pipe_with(PipeFlags::CLOEXEC)?;
    let (program, arguments) = helper
        .split_first()
        .ok_or_else(|| std::io::Error::other("no helper program"))?;
    let [stdin, stdout, stderr] = launch.stdio;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(order_rx.as_raw_fd().to_string())
        .arg(status_tx.as_raw_fd().to_string());
    command
        .env_clear()
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .current_dir("/");
    let inherited = [order_rx.as_raw_fd(), status_tx.as_raw_fd()];
    #[expect(
        unsafe_code,
        reason = "two descriptors are to be inherited by this child and by no other"
    )]
    // SAFETY: between fork and exec only fcntl is called, which is safe there, on descriptors that are open.
    unsafe {
        command.pre_exec(move || {
            for descriptor in inherited {
                let descriptor = std::os::fd::BorrowedFd::borrow_raw(descriptor);
                rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    drop((order_rx, status_tx, command));
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let handle = pidfd_open(
        pid.ok_or_else(|| std::io::Error::other("no process id"))?,
        PidfdFlags::empty(),
    )?;
    if let Some(cgroup) = &launch.cgroup {
        // Before the order, so that nothing of the program is outside.
        std::fs::write(cgroup.join("cgroup.procs"), child.id().to_string())?;
    }
    let bytes = serde_json::to_vec(&launch.order)?;
    let mut pipe = std::fs::File::from(order_tx);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    // A helper that died of something tells by its status.
    _ = pipe
        .write_all(&length.to_ne_bytes())
        .and_then(|()| pipe.write_all(&bytes));
    Ok((child, handle, status_rx.into(), pipe.into()))
}

fn own_ids() -> std::io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "only the children of this thread, which makes one, get new process ids"
    )]
    // SAFETY: the flag changes nothing of this process.
    unsafe {
        thread::unshare_unsafe(UnshareFlags::NEWPID)?;
    }
    Ok(())
}

/// Runs `body` on a plain thread inside a pod's namespaces.
pub(crate) async fn inside<T: Send + 'static>(
    namespaces: Option<Arc<Namespaces>>,
    body: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let (tx, rx) = oneshot::channel();
    std::thread::Builder::new()
        .name("in-pod".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || {
            let entered = namespaces.map_or(Ok(()), |namespaces| namespaces.enter());
            drop(tx.send(entered.map_err(Into::into).and_then(|()| body())));
        })?;
    rx.await
        .unwrap_or_else(|_| Err(std::io::Error::other("its thread ended")))
}

/// Used by [`Namespaces::enter`].
pub(crate) fn enter(namespace: &OwnedFd, kind: LinkNameSpaceType) -> rustix::io::Result<()> {
    thread::move_into_link_name_space(namespace.as_fd(), Some(kind))
}
