//! The child between fork and program: an order comes in on a pipe, and the program takes this process over. It has one thread, so that
//! it may change its namespaces; it never returns to the node's code.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Gid, Signal, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags};

use crate::order::{Order, Root, User};

mod view;

/// What a helper program calls, with the arguments after [`crate::NodeConfig::helper`]'s own. It only returns when the program could
/// not be run.
pub fn helper_main(arguments: &[String]) -> ExitCode {
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse::<i32>().ok());
    let (Some(order), Some(status)) = (numbers.next(), numbers.next()) else {
        eprintln!("this runs containers for the node and is not called by hand");
        return ExitCode::from(2);
    };
    #[expect(
        unsafe_code,
        reason = "the node passed these descriptors to this process, which uses them nowhere else"
    )]
    // SAFETY: both are open pipe ends that the parent made for us.
    let (order, mut status) = unsafe { (OwnedFd::from_raw_fd(order), File::from_raw_fd(status)) };
    for descriptor in [order.as_fd(), status.as_fd()] {
        _ = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC);
    }
    // Whatever happens to the node, nothing of it stays behind.
    _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let mut pipe = File::from(order);
    let message = match read(&mut pipe) {
        Ok(order) => run(&order, &pipe),
        Err(error) => format!("order not understood: {error}"),
    };
    _ = status.write_all(message.as_bytes());
    ExitCode::from(128)
}

fn read(pipe: &mut File) -> std::io::Result<Order> {
    let mut length = [0; 4];
    pipe.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_ne_bytes(length) as usize];
    pipe.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Returns why the program does not run.
fn run(order: &Order, parent: &File) -> String {
    if order.terminal {
        // Without a session of its own a shell has no job control.
        _ = rustix::process::setsid();
        _ = rustix::process::ioctl_tiocsctty(rustix::stdio::stdin());
    }
    let rooted = match &order.root {
        Root::New(view) => view::enter(view).map_err(|error| error.to_string()),
        Root::Of(pid) => join(*pid).map_err(|errno| format!("entering the container: {errno}")),
    };
    if let Err(message) = rooted {
        return message;
    }
    if rustix::process::chdir(&order.directory).is_err() {
        return format!(
            "chdir to cwd ({:?}) failed: no such directory in the container",
            order.directory
        );
    }
    if let Err(errno) = become_user(&order.user) {
        return format!("user {}:{}: {errno}", order.user.uid, order.user.gid);
    }
    // A change of user ends the promise made above, and the node may have ended meanwhile: its end of the pipe says so.
    _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let mut polled = [PollFd::new(parent, PollFlags::empty())];
    if poll(&mut polled, Some(&rustix::time::Timespec::default())).is_ok_and(|ready| ready > 0) {
        return "the node has ended".to_owned();
    }
    let Some((program, arguments)) = order.command.split_first() else {
        return "no command specified".to_owned();
    };
    let attempt = |program: &std::ffi::OsStr| {
        Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(&order.env)
            .exec()
    };
    let mut error = attempt(program.as_ref());
    if let Some(fallback) = &order.fallback
        && matches!(error.raw_os_error(), Some(libc::EACCES | libc::ENOENT))
    {
        error = attempt(fallback.as_os_str());
    }
    let reason = match error.raw_os_error() {
        Some(libc::ENOENT) if !program.contains('/') => "executable file not found in $PATH".to_owned(),
        Some(libc::ENOENT) => "no such file or directory".to_owned(),
        Some(libc::EACCES) => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    match program.contains('/') {
        true => format!("exec: {program:?}: stat {program}: {reason}"),
        false => format!("exec: {program:?}: {reason}"),
    }
}

/// Enters the mount namespace of a process; network and process ids are those in which we were started.
fn join(pid: i32) -> rustix::io::Result<()> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let namespace = rustix::fs::open(format!("/proc/{pid}/ns/mnt"), flags, rustix::fs::Mode::empty())?;
    thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
}

fn become_user(user: &User) -> rustix::io::Result<()> {
    let allowed = CapabilitySet::from_bits_retain(user.capabilities);
    // Where the kernel maps no such user into our namespace, the rights of one who is not root are all that can be given.
    let mapped = |id: u32, map: &str| id == 0 || maps(map, id);
    let whole = mapped(user.uid, "/proc/self/uid_map") && mapped(user.gid, "/proc/self/gid_map");
    let kept = if user.uid != 0 && !whole {
        CapabilitySet::from_bits_retain(user.unmapped_capabilities)
    } else {
        allowed
    };
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if !kept.contains(one) {
            match thread::remove_capability_from_bounding_set(one) {
                // The first number that is no capability.
                Err(Errno::INVAL) => break,
                other => other?,
            }
        }
    }
    if user.no_new_privileges {
        thread::set_no_new_privs(true)?;
    }
    if whole {
        let groups: Vec<Gid> = user
            .groups
            .iter()
            .filter(|id| mapped(**id, "/proc/self/gid_map"))
            .map(|id| Gid::from_raw(*id))
            .collect();
        match thread::set_thread_groups(&groups) {
            // `setgroups` is denied in a user namespace that an ordinary user made.
            Err(Errno::PERM) => {}
            other => other?,
        }
        for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
            // As runtimes do, so that the user may open /dev/stdout. Never of what is the machine's, as /dev/null.
            let is_pipe = |stat: rustix::fs::Stat| {
                rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo
            };
            if rustix::fs::fstat(stream).is_ok_and(is_pipe) {
                _ = rustix::fs::fchown(stream, Some(Uid::from_raw(user.uid)), None);
            }
        }
        thread::set_thread_gid(Gid::from_raw(user.gid))?;
        thread::set_thread_uid(Uid::from_raw(user.uid))?;
    }
    if user.uid == 0 || !whole {
        let now = thread::capabilities(None)?;
        let both = now.permitted & kept;
        let sets = CapabilitySets {
            effective: both,
            permitted: both,
            inheritable: CapabilitySet::empty(),
        };
        thread::set_capabilities(None, sets)?;
    }
    Ok(())
}

/// Whether a user namespace knows an id (`/proc/self/uid_map`: first inside, first outside, count).
fn maps(file: &str, id: u32) -> bool {
    // Files under /proc are gone when the view's own could not be mounted; then everything is tried.
    let Ok(text) = std::fs::read_to_string(file) else {
        return true;
    };
    text.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        match (numbers.next(), numbers.nth(1)) {
            (Some(first), Some(count)) => (first..first.saturating_add(count)).contains(&u64::from(id)),
            _ => false,
        }
    })
}

fn own_mounts() -> rustix::io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "unshare can take away what other threads hold; this process has one thread"
    )]
    // SAFETY: there is one thread, and a mount namespace says nothing of memory or descriptors.
    unsafe {
        thread::unshare_unsafe(UnshareFlags::NEWNS)
    }
}
