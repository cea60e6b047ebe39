//! `mizzen down`: stops what `mizzen up` runs.

use crate::failure::Failure;
use crate::output;
use crate::up::DEFAULT_NAME;
use crate::up::state::{self, Found, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `up` itself gives everything less than this.
const PATIENCE: Duration = Duration::from_secs(40);
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// What is stopped.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  mizzen down               what `mizzen up` started; its objects are kept for the next time
  mizzen down --name two    the one of that name")]
pub(crate) struct Args {
    /// Which machine.
    #[arg(long, default_value = DEFAULT_NAME, value_parser = state::name)]
    name: String,
}

/// Stops it, and returns when nothing of it is left.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state = State::of(&args.name)?;
    let Found::Running(pid) = state.find()? else {
        output::line(&format!("{:<12}not running", args.name));
        return Ok(ExitCode::SUCCESS);
    };
    let failed = |error: &dyn std::fmt::Display| {
        let remedy = "run it as the user who started it";
        Failure::new(
            format!("process {} cannot be stopped", pid.as_raw_pid()),
            error.to_string(),
            remedy,
        )
    };
    // It may end by itself meanwhile; the lock tells.
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
        match pidfd_send_signal(&process, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(failed(&error).into()),
        }
        let deadline = Instant::now() + PATIENCE;
        while poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&LOOK)).is_ok_and(|ready| ready == 0) {
            if Instant::now() > deadline {
                // What is inside ends with it.
                pidfd_send_signal(&process, Signal::KILL).map_err(|error| failed(&error))?;
            }
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while matches!(state.find(), Ok(Found::Running(_))) {
        if Instant::now() > deadline {
            return Err(failed(&"it still holds its lock").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    output::line(&format!("{:<12}stopped", args.name));
    Ok(ExitCode::SUCCESS)
}
