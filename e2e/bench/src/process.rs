//! A process that is measured: started in a namespace, killed when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};

use crate::net;

/// Ticks per second of the times in `/proc/<pid>/stat`: the same on all of Linux that users see.
const TICKS: f64 = 100.0;

/// A running process.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts it in the namespace. What it says goes to `log`.
    pub(crate) fn start(space: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        command
            .stdout(file.try_clone()?)
            .stderr(file)
            .stdin(std::process::Stdio::null());
        let program = command.get_program().to_owned();
        let child = net::inside(space, || {
            command.spawn().with_context(|| format!("{}", program.display()))
        })?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Fails, with what it said last, if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        bail!("{} ended early ({status}):\n{}", self.log.display(), self.last_words());
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.len().saturating_sub(15);
        lines.get(first..).unwrap_or_default().join("\n")
    }

    /// CPU seconds used so far, by all of its threads, in user and kernel mode.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let text = self.proc("stat")?;
        // The name in parentheses may hold spaces.
        let (_, fields) = text.rsplit_once(')').context("/proc/<pid>/stat")?;
        let field = |index| {
            fields
                .split_whitespace()
                .nth(index)
                .and_then(|field| field.parse::<f64>().ok())
        };
        let (user, system) = field(11).zip(field(12)).context("/proc/<pid>/stat")?;
        Ok((user + system) / TICKS)
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        let text = self.proc("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line
            .and_then(|line| line.split_whitespace().next())
            .and_then(|number| number.parse::<f64>().ok());
        Ok(kibibytes.context("VmRSS in /proc/<pid>/status")? / 1024.0)
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).context(path)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing of value is in it; what cannot be killed has ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Which share of the machine's CPU time was used since an earlier look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    busy: f64,
    all: f64,
}

impl Machine {
    /// The counters now.
    pub(crate) fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat")?;
        let ticks: Vec<f64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; the guests' are within user
        let all: f64 = ticks.iter().take(8).sum();
        let idle: f64 = ticks.iter().skip(3).take(2).sum();
        Ok(Self { busy: all - idle, all })
    }

    /// The busy share, 0 to 1, between then and `self`.
    pub(crate) fn busy_since(self, then: Self) -> f64 {
        (self.busy - then.busy) / (self.all - then.all).max(1.0)
    }
}
