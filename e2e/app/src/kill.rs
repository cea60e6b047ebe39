//! Ends processes of other containers with SIGKILL, again and again, as a crash or a lack of memory would; or stops them for a
//! while, as a machine that is suspended or overloaded would.
//!
//! A container's first process cannot be killed from inside its own process namespace, so this runs in a pod that shares the
//! node's (`hostPID`, privileged). Which process belongs to which container is read from its mount table: the kubelet mounts
//! `…/pods/<uid>/containers/<name>/…` into every container, whatever the container runtime and the cgroup version.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// How often the processes are looked through: shorter than any container takes to start.
const EVERY: Duration = Duration::from_millis(200);

/// Whose processes, and how often.
#[derive(clap::Args)]
pub struct Args {
    /// The pod's uid; may be repeated
    #[arg(long = "pod", required = true)]
    pods: Vec<String>,
    /// The container's name
    #[arg(long)]
    container: String,
    /// Not the container's first process, but those of this name
    #[arg(long)]
    program: Option<String>,
    /// Go on for so long
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Stop them for that time instead, then let them go on
    #[arg(long)]
    stop: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(args.seconds);
    let first = if args.stop { Signal::STOP } else { Signal::KILL };
    let mut stopped = Vec::new();
    loop {
        for (pid, name) in found(&args)? {
            if stopped.contains(&pid) || !send(pid, first)? {
                continue;
            }
            let what = if args.stop { "stopped" } else { "killed" };
            println!("{what} {name} after {} ms", start.elapsed().as_millis());
            if args.stop {
                stopped.push(pid);
            }
        }
        if Instant::now() >= end {
            break;
        }
        tokio::time::sleep(EVERY).await;
    }
    for pid in stopped {
        send(pid, Signal::CONT)?;
    }
    Ok(())
}

/// The processes that are meant, and their names.
fn found(args: &Args) -> anyhow::Result<Vec<(Pid, String)>> {
    let described = processes()?.into_iter().filter_map(|pid| {
        // Processes end while they are looked at.
        let process = describe(&Path::new("/proc").join(pid.to_string())).ok()?;
        wanted(args, &process).then_some((Pid::from_raw(pid)?, process.name))
    });
    Ok(described.collect())
}

/// Whether there was such a process.
fn send(pid: Pid, signal: Signal) -> anyhow::Result<bool> {
    match kill_process(pid, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("no signal to {pid}; the pod must be privileged")),
    }
}

struct Process {
    name: String,
    /// Whether it is the first of its process namespace.
    first: bool,
    mounts: String,
}

fn wanted(args: &Args, process: &Process) -> bool {
    let chosen = match &args.program {
        Some(name) => process.name == *name,
        None => process.first,
    };
    chosen
        && args.pods.iter().any(|pod| {
            process
                .mounts
                .contains(&format!("/pods/{pod}/containers/{}/", args.container))
        })
}

fn processes() -> anyhow::Result<Vec<i32>> {
    let folder = std::fs::read_dir("/proc").context("/proc")?;
    Ok(folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

fn describe(folder: &Path) -> std::io::Result<Process> {
    let status = std::fs::read_to_string(folder.join("status"))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    Ok(Process {
        name: field("Name:").unwrap_or("").trim().to_owned(),
        // A process has one number per namespace it is in, its own namespace's last.
        first: field("NSpid:").is_some_and(|pids| pids.split_whitespace().count() > 1 && pids.ends_with("\t1")),
        mounts: std::fs::read_to_string(folder.join("mountinfo"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(program: Option<&str>) -> Args {
        Args {
            pods: vec!["1f2e".to_owned()],
            container: "app".to_owned(),
            program: program.map(str::to_owned),
            seconds: 1.0,
            stop: false,
        }
    }

    fn process(name: &str, first: bool, mounts: &str) -> Process {
        Process {
            name: name.to_owned(),
            first,
            mounts: mounts.to_owned(),
        }
    }

    #[test]
    fn kills_the_first_process_of_that_container_alone() {
        let own = "1 2 8:1 /var/lib/kubelet/pods/1f2e/containers/app/0a /dev/termination-log rw";
        let sidecar = "1 2 8:1 /var/lib/kubelet/pods/1f2e/containers/istio-proxy/0a /dev/termination-log rw";
        let other = "1 2 8:1 /var/lib/kubelet/pods/3d4c/containers/app/0a /dev/termination-log rw";
        assert!(wanted(&args(None), &process("serve", true, own)));
        assert!(!wanted(&args(None), &process("child", false, own)));
        assert!(!wanted(&args(None), &process("serve", true, sidecar)));
        assert!(!wanted(&args(None), &process("serve", true, other)));
        assert!(wanted(&args(Some("child")), &process("child", false, own)));
        assert!(!wanted(&args(Some("child")), &process("serve", true, own)));
    }

    #[test]
    fn describes_a_running_process() {
        let own = describe(Path::new("/proc/self")).unwrap();
        assert!(!own.name.is_empty());
        assert!(!own.mounts.is_empty());
    }
}
