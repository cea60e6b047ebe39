//! A process in namespaces of its own: network, mounts, process ids, host name and messages; for an ordinary user also a user
//! namespace in which they are root.
//!
//! In: a program with its arguments and the descriptors it is to inherit. Out: its process, which dies with the thread that
//! started it, and all that it starts with it. Never: a namespace, mount or link that outlives it.

use crate::failure::Failure;
use rustix::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, Uid, pidfd_open, pidfd_send_signal};
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

/// A process that was started here.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) handle: OwnedFd,
}

impl Process {
    /// Ends it and everything in it at once.
    pub(super) fn kill(&self) {
        // It may have ended already.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

/// Starts a program as the first process of new namespaces.
pub(super) fn spawn(program: &Path, arguments: &[OsString], inherited: &[BorrowedFd<'_>]) -> Result<Process, Failure> {
    let ordinary = !rustix::process::geteuid().is_root();
    let io = |error: &dyn std::fmt::Display| {
        let remedy = "see what `ulimit -a` and the machine's memory allow";
        Failure::new("no process can be started", error.to_string(), remedy)
    };
    let text = |text: &[u8]| CString::new(text).map_err(|error| io(&error));
    let path = text(program.as_os_str().as_bytes())?;
    let mut words = vec![path.clone()];
    for argument in arguments {
        words.push(text(argument.as_bytes())?);
    }
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        variables.push(text(&[name.as_bytes(), b"=", value.as_bytes()].concat())?);
    }
    let mut environment: Vec<_> = variables.iter().map(|variable| variable.as_ptr()).collect();
    environment.push(std::ptr::null());
    let descriptors: Vec<_> = inherited.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    // It waits until its users are mapped: before, it is nobody.
    let (go_rx, go_tx) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| io(&error))?;

    let mut flags =
        libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    if ordinary {
        flags |= libc::CLONE_NEWUSER;
    }
    let (none, start) = (
        0_usize,
        Start {
            go_rx: go_rx.as_raw_fd(),
            go_tx: go_tx.as_raw_fd(),
            descriptors: &descriptors,
            program: &path,
            words: &pointers,
            environment: &environment,
        },
    );
    #[expect(
        unsafe_code,
        reason = "neither the standard library nor rustix starts processes in new namespaces"
    )]
    // SAFETY: as fork: without a stack of its own the child goes on here, on a copy of this memory; it only calls what is safe
    // after a fork, and does not return.
    let pid = unsafe {
        let pid = libc::syscall(
            libc::SYS_clone,
            (flags | libc::SIGCHLD) as usize,
            none,
            none,
            none,
            none,
        );
        if pid == 0 {
            start.become_it();
        }
        pid
    };
    if pid < 0 {
        return Err(refused(&io::Error::last_os_error()));
    }
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io(&"no process id"))?;
    let process = Process {
        pid,
        handle: pidfd_open(pid, PidfdFlags::empty()).map_err(|error| io(&error))?,
    };
    drop(go_rx);
    let mapped = if ordinary { map_users(pid) } else { Ok(()) };
    let gone = mapped.and_then(|()| Ok(rustix::io::write(&go_tx, &[1])?));
    match gone {
        Ok(_) => Ok(process),
        Err(error) => {
            process.kill();
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Err(refused(&error))
        }
    }
}

/// What the new process needs, ready before there are two: it may not allocate.
struct Start<'a> {
    go_rx: i32,
    go_tx: i32,
    descriptors: &'a [i32],
    program: &'a CString,
    words: &'a [*const libc::c_char],
    environment: &'a [*const libc::c_char],
}

impl Start<'_> {
    #[expect(unsafe_code, reason = "between clone and exec there are only system calls")]
    /// # Safety
    /// Only in a process that was just cloned.
    unsafe fn become_it(&self) -> ! {
        // SAFETY: all pointers are to memory that was made before the clone; descriptors are this process's own.
        unsafe {
            // Its own write end would keep it from seeing that the other is gone.
            libc::close(self.go_tx);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            let mut byte = 0_u8;
            if libc::read(self.go_rx, (&raw mut byte).cast(), 1) != 1 {
                libc::_exit(125);
            }
            // Ctrl-C is for the process outside, which asks this one to stop in order.
            libc::setsid();
            for descriptor in self.descriptors {
                libc::fcntl(*descriptor, libc::F_SETFD, 0);
            }
            libc::execve(self.program.as_ptr(), self.words.as_ptr(), self.environment.as_ptr());
            libc::_exit(126)
        }
    }
}

/// Makes the user root inside, and, where the system lends them more ids, those too.
fn map_users(pid: Pid) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let users = lent("/etc/subuid", uid);
    let groups = lent("/etc/subgid", uid);
    if let (Some(users), Some(groups)) = (users, groups)
        && map_with("newuidmap", pid, uid.as_raw(), users)
        && map_with("newgidmap", pid, gid.as_raw(), groups)
    {
        return Ok(());
    }
    let file = |name: &str| format!("/proc/{}/{name}", pid.as_raw_pid());
    let write = |name: &str, text: String| std::fs::write(file(name), text);
    let unset = |name: &str| std::fs::read_to_string(file(name)).is_ok_and(|map| map.trim().is_empty());
    if unset("uid_map") {
        write("uid_map", format!("0 {} 1", uid.as_raw()))?;
    }
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("0 {} 1", gid.as_raw()))
}

/// The ids that `/etc/subuid` lends to a user: the first and how many.
fn lent(file: &str, user: Uid) -> Option<(u32, u32)> {
    let name = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| {
        let line = text
            .lines()
            .find(|line| line.split(':').nth(2) == Some(&user.as_raw().to_string()))?;
        Some(line.split(':').next()?.to_owned())
    });
    ranges(&std::fs::read_to_string(file).ok()?, name.as_deref(), user.as_raw())
}

fn ranges(text: &str, name: Option<&str>, id: u32) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut parts = line.split(':');
        let whose = parts.next()?;
        if Some(whose) != name && whose != id.to_string() {
            return None;
        }
        let range = (parts.next()?.trim().parse().ok()?, parts.next()?.trim().parse().ok()?);
        // Fewer do not reach the ids that containers have.
        (range.1 >= 65_535).then_some(range)
    })
}

fn map_with(program: &str, pid: Pid, own: u32, (first, count): (u32, u32)) -> bool {
    let numbers = [
        pid.as_raw_pid().to_string(),
        "0".to_owned(),
        own.to_string(),
        "1".to_owned(),
        "1".to_owned(),
    ];
    let ran = Command::new(program)
        .args(numbers)
        .arg(first.to_string())
        .arg(count.min(65_535).to_string())
        .output();
    ran.is_ok_and(|output| output.status.success())
}

/// Why the kernel makes no namespaces, and what to do.
fn refused(error: &io::Error) -> Failure {
    let setting = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok();
        text.and_then(|text| text.trim().parse::<u64>().ok())
    };
    let remedy = if rustix::process::geteuid().is_root() {
        "run it where namespaces may be made; in a container that takes --privileged"
    } else if setting("user/max_user_namespaces") == Some(0) {
        "allow user namespaces: sudo sysctl -w user.max_user_namespaces=15000; or run it as root"
    } else if setting("kernel/unprivileged_userns_clone") == Some(0) {
        "allow user namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1; or run it as root"
    } else if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        "allow user namespaces: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; or run it as root"
    } else {
        "run it as root, or where user namespaces may be made; in a container that takes --privileged"
    };
    Failure::new("the kernel refuses namespaces of our own", error.to_string(), remedy)
}

/// What the first process does inside before anything else: mounts of its own, and the processes of its own.
pub(super) fn settle() -> Result<(), Failure> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: rustix::io::Errno| {
            let remedy = "run it where /proc is not masked; in a container that takes --privileged";
            Failure::new(what, error.to_string(), remedy)
        }
    };
    // Once more, should the exec have taken it away.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("mounts of our own cannot be had"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).map_err(failed("/proc cannot be mounted"))?;
    let _ = rustix::system::sethostname(b"mizzen");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_ids_are_found_by_name_and_by_number_and_only_if_they_are_enough() {
        let text = "other:1:65536\nann:100000:65536\n1001:200000:65536\nfew:1:10\n";
        assert_eq!(ranges(text, Some("ann"), 1000), Some((100_000, 65_536)));
        assert_eq!(ranges(text, None, 1001), Some((200_000, 65_536)));
        assert_eq!(ranges(text, Some("few"), 7), None);
        assert_eq!(ranges(text, Some("nobody"), 7), None);
    }
}
