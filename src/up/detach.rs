//! `--detach`: the same command again in a session of its own; this one shows what that one says until everything is ready.

use super::state::State;
use crate::failure::Failure;
use crate::output;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

/// Starts it and waits until it is ready or has failed.
pub(super) fn run(state: &State) -> Result<ExitCode, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        let remedy = "see what `ulimit -a` and the disk allow";
        Failure::new("it cannot be started in the background", error.to_string(), remedy)
    };
    let program = super::images::own_program()?;
    let (said, theirs) = std::io::pipe().map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .arg("--background")
        .stdin(Stdio::null())
        .current_dir("/");
    // Relative paths on the command line are the user's.
    if let Ok(folder) = std::env::current_dir() {
        command.current_dir(folder);
    }
    command
        .stderr(theirs.try_clone().map_err(|error| failed(&error))?)
        .stdout(theirs);
    #[expect(unsafe_code, reason = "only this makes a child the leader of a session")]
    // SAFETY: setsid may be called between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::setsid().map(|_| ())?));
    }
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    // Its ends of the pipe.
    drop(command);
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        output::line(&line);
    }
    if state.record().is_some_and(|record| record.ready) {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whoever waited has seen enough: standard output and error go to the log from now on.
pub(super) fn let_go(state: &State) {
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(state.path("log"));
    if let Ok(log) = log {
        let _ = rustix::stdio::dup2_stdout(&log);
        let _ = rustix::stdio::dup2_stderr(&log);
    }
}
