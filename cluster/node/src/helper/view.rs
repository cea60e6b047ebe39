//! What a container sees: the machine's files, read-only, behind the pod's volumes.
//!
//! The root is a tmpfs. Folders of the machine's root are mounted into it; a volume whose place does not exist there makes its folder
//! one of our own, in which everything else is a link to the machine's (below `/.host`). No overlay: a user namespace may not make one
//! over `/`, whose mounts are locked together.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{self, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::order::View;

const HOST: &str = ".host";
/// A container's own, whatever the machine has there.
const FRESH: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];

#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", path.display())]
pub(super) struct ViewError {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

fn failed<E: Into<std::io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> ViewError {
    let path = path.to_owned();
    move |source| ViewError {
        what,
        path,
        source: source.into(),
    }
}

/// Builds the view in a mount namespace of its own and makes it this process's root.
pub(super) fn enter(view: &View) -> Result<(), ViewError> {
    let root = view.scratch.as_path();
    super::own_mounts().map_err(failed("mount namespace for", root))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount::mount_change("/", private).map_err(failed("private", Path::new("/")))?;
    // Taken before anything is laid over them.
    let sources: Vec<OwnedFd> = view
        .binds
        .iter()
        .map(|bind| tree(&bind.source))
        .collect::<Result<_, _>>()?;
    let host = tree(Path::new("/"))?;

    memory(root, "mode=755")?;
    place(&host, &make(&root.join(HOST))?)?;
    for hidden in &view.hidden {
        let inside = root.join(HOST).join(hidden.strip_prefix("/").unwrap_or(hidden));
        memory(&inside, "mode=000,size=4k")?;
    }
    // Sockets of the machine's services answer through a read-only mount too.
    for name in ["run", "tmp"] {
        let inside = root.join(HOST).join(name);
        if fs::symlink_metadata(&inside).is_ok_and(|found| found.is_dir()) {
            memory(&inside, "mode=755,size=4k")?;
        }
    }
    read_only(&root.join(HOST))?;
    top(root)?;
    // Folders become our own before anything is laid over them; what is inside another volume has its place there.
    for bind in &view.binds {
        let inside = |other: &crate::order::Bind| other.target != bind.target && bind.target.starts_with(&other.target);
        if !view.binds.iter().any(inside) {
            open_place(root, &bind.target, bind.source.is_dir())?;
        }
    }
    for (bind, source) in view.binds.iter().zip(&sources) {
        let target = open_place(root, &bind.target, bind.source.is_dir())?;
        place(source, &target)?;
        if bind.read_only {
            read_only(&target)?;
        }
    }
    if view.read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        mount::mount_remount(root, flags, "").map_err(failed("read-only", root))?;
    }
    rustix::process::chdir(root).map_err(failed("folder", root))?;
    rustix::process::pivot_root(".", ".").map_err(failed("root", root))?;
    mount::unmount(".", UnmountFlags::DETACH).map_err(failed("old root over", root))?;
    rustix::process::chdir("/").map_err(failed("folder", root))
}

/// The entries of the root.
fn top(root: &Path) -> Result<(), ViewError> {
    let host = root.join(HOST);
    for entry in fs::read_dir(&host).map_err(failed("listing", &host))?.flatten() {
        let (name, to) = (entry.file_name(), root.join(entry.file_name()));
        if FRESH.iter().any(|fresh| name == *fresh) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_symlink() {
            copy_link(&entry.path(), &to)?;
        } else if kind.is_dir() {
            place(&tree(&entry.path())?, &make(&to)?)?;
        }
    }
    let proc = make(&root.join("proc"))?;
    if mount::mount("proc", &proc, "proc", secure(), None).is_err() {
        // Forbidden in a container that masks parts of it; the machine's does.
        place(&tree(&host.join("proc"))?, &proc)?;
    }
    let sys = make(&root.join("sys"))?;
    if mount::mount("sysfs", &sys, "sysfs", secure() | MountFlags::RDONLY, None).is_err() {
        place(&tree(&host.join("sys"))?, &sys)?;
    }
    memory(&make(&root.join("run"))?, "mode=755")?;
    let temporary = make(&root.join("tmp"))?;
    _ = fs::set_permissions(&temporary, fs::Permissions::from_mode(0o1777));
    devices(root, &host)
}

fn devices(root: &Path, host: &Path) -> Result<(), ViewError> {
    let dev = make(&root.join("dev"))?;
    mount::mount("tmpfs", &dev, "tmpfs", MountFlags::NOSUID, Some(c"mode=755")).map_err(failed("tmpfs", &dev))?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let target = dev.join(name);
        fs::write(&target, []).map_err(failed("file", &target))?;
        place(&tree(&host.join("dev").join(name))?, &target)?;
        writable(&target)?;
    }
    let pts = make(&dev.join("pts"))?;
    let options = c"newinstance,ptmxmode=0666,mode=0620";
    mount::mount(
        "devpts",
        &pts,
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(options),
    )
    .map_err(failed("devpts", &pts))?;
    memory(&make(&dev.join("shm"))?, "mode=1777")?;
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, to) in links {
        symlink(to, dev.join(name)).map_err(failed("link", &dev.join(name)))?;
    }
    Ok(())
}

fn secure() -> MountFlags {
    MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC
}

fn memory(target: &Path, options: &str) -> Result<(), ViewError> {
    let options = CString::new(options).unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount::mount("tmpfs", target, "tmpfs", flags, Some(options.as_c_str())).map_err(failed("tmpfs on", target))
}

fn make(folder: &Path) -> Result<PathBuf, ViewError> {
    fs::create_dir_all(folder).map_err(failed("folder", folder))?;
    Ok(folder.to_owned())
}

/// A mount of what is at a path, with all that is mounted below it, not yet at a place.
fn tree(path: &Path) -> Result<OwnedFd, ViewError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    mount::open_tree(CWD, path, flags).map_err(failed("mount of", path))
}

fn place(tree: &OwnedFd, target: &Path) -> Result<(), ViewError> {
    mount::move_mount(tree.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(failed("mount on", target))
}

fn copy_link(from: &Path, to: &Path) -> Result<(), ViewError> {
    let target = fs::read_link(from).map_err(failed("link", from))?;
    symlink(target, to).map_err(failed("link", to))
}

fn read_only(path: &Path) -> Result<(), ViewError> {
    attributes(path, libc::MOUNT_ATTR_RDONLY, 0).map_err(failed("read-only", path))
}

/// Devices keep working where their mount was made read-only with everything else.
fn writable(path: &Path) -> Result<(), ViewError> {
    // Refused where the read-only flag is the machine's own; a device node does not mind.
    _ = attributes(path, 0, libc::MOUNT_ATTR_RDONLY);
    Ok(())
}

/// `mount_setattr`, which changes a whole tree and keeps the flags that a user namespace may not change.
fn attributes(path: &Path, set: u64, clear: u64) -> std::io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    };
    #[expect(unsafe_code, reason = "neither the standard library nor rustix has this call")]
    // SAFETY: path and attributes outlive the call, and the size is theirs.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            CWD.as_raw_fd(),
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// The place of a path in the new root, made if it does not exist there.
fn open_place(root: &Path, target: &Path, folder: bool) -> Result<PathBuf, ViewError> {
    let place = resolve(root, target);
    let parent = place.parent().unwrap_or(root).to_owned();
    if fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir() == folder) {
        return Ok(place);
    }
    open_folder(root, &parent)?;
    let made = |place: &Path| match folder {
        true => fs::create_dir(place),
        false => fs::write(place, []),
    };
    // Something else of that name, or a folder of the machine.
    if made(&place).is_err() {
        own(root, &parent)?;
        _ = fs::remove_file(&place);
        made(&place).map_err(failed("mount point", target))?;
    }
    Ok(place)
}

/// Makes a folder with all above it.
fn open_folder(root: &Path, folder: &Path) -> Result<(), ViewError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(root).to_owned();
    open_folder(root, &parent)?;
    if fs::create_dir(folder).is_err() {
        own(root, &parent)?;
        fs::create_dir(folder).map_err(failed("folder", folder))?;
    }
    Ok(())
}

/// Replaces a folder of the machine by one of ours with links to all that is in it.
fn own(root: &Path, folder: &Path) -> Result<(), ViewError> {
    let inside = folder.strip_prefix(root).unwrap_or(folder);
    let original = root.join(HOST).join(inside);
    let mode = fs::metadata(folder).map_or(0o755, |found| found.permissions().mode() & 0o7777);
    memory(folder, &format!("mode={mode:o}"))?;
    let Ok(entries) = fs::read_dir(&original) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let to = folder.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            copy_link(&entry.path(), &to)?;
        } else {
            let from = Path::new("/").join(HOST).join(inside).join(entry.file_name());
            symlink(from, &to).map_err(failed("link", &to))?;
        }
    }
    Ok(())
}

/// Follows links as the container will: absolute ones from its root.
fn resolve(root: &Path, target: &Path) -> PathBuf {
    let mut done = root.to_owned();
    let mut rest: Vec<std::ffi::OsString> = Vec::new();
    let push = |rest: &mut Vec<std::ffi::OsString>, path: &Path| {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => rest.push(name.to_owned()),
                Component::ParentDir => rest.push("..".into()),
                _ => {}
            }
        }
    };
    push(&mut rest, target);
    // As the kernel does, so many links and no more.
    let mut links = 40;
    while let Some(name) = rest.pop() {
        if name == ".." {
            if done != root {
                done.pop();
            }
            continue;
        }
        let next = done.join(&name);
        match fs::read_link(&next) {
            // The last of the path is laid over, not followed, when it is a link of ours to the machine's.
            Ok(link) if links > 0 && !link.starts_with(Path::new("/").join(HOST)) => {
                links -= 1;
                if link.is_absolute() {
                    done = root.to_owned();
                }
                push(&mut rest, &link);
            }
            _ => done = next,
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn links_are_followed_inside_the_new_root() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("run")).unwrap();
        fs::create_dir_all(root.join("var")).unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        symlink("../../../etc", root.join("var/up")).unwrap();
        assert_eq!(
            resolve(root, Path::new("/var/run/secrets/token")),
            root.join("run/secrets/token")
        );
        assert_eq!(resolve(root, Path::new("/var/up/x")), root.join("etc/x"));
        symlink("/loop", root.join("loop")).unwrap();
        assert_eq!(resolve(root, Path::new("/loop")), root.join("loop"));
    }

    #[test]
    fn errno_is_told_with_the_path() {
        let error = failed::<Errno>("folder", Path::new("/x"))(Errno::PERM);
        assert!(error.to_string().starts_with("folder /x: "));
    }
}
