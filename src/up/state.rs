//! The state folder of one machine: who runs it, where it is reached, and its lock.
//!
//! `$XDG_STATE_HOME/mizzen/<name>` (by default below `~/.local/state`): `lock`, `run.json` while it runs, `kubeconfig`, `log`,
//! `cluster/` (objects, keys) and `node/` (volumes and logs of pods).

use crate::failure::Failure;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What is known about a machine that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Where its API is reached.
    pub(crate) api: String,
    /// Where its mesh is entered.
    pub(crate) gateway: String,
    /// The mesh's namespace.
    pub(crate) mesh: String,
    /// Whether it is all up.
    pub(crate) ready: bool,
}

/// A machine's folder.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

/// Held by the processes of a machine that runs.
#[derive(Debug)]
pub(crate) struct Lock(pub(crate) File);

/// Whether a machine runs.
pub(crate) enum Found {
    /// No.
    Nothing,
    /// Yes: the process to signal.
    Running(rustix::process::Pid),
}

/// A name of a machine: it is part of a path.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=32).contains(&text.len()) && text.chars().all(good) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err("write up to 32 lower-case letters, digits and dashes".to_owned())
    }
}

impl State {
    /// The folder of a name, which may not be there.
    pub(crate) fn of(name: &str) -> Result<Self, Failure> {
        let folder = |variable: &str| {
            std::env::var_os(variable)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let base = folder("XDG_STATE_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| Some(folder("HOME")?.join(".local/state")));
        let base = base.ok_or_else(|| {
            let why = "neither XDG_STATE_HOME nor HOME is set";
            Failure::new(
                "there is no place for the state",
                why,
                "set XDG_STATE_HOME to a folder of yours",
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            folder: base.join("mizzen").join(name),
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes the machine for this process and those that inherit the lock, with a folder that only the user can read.
    pub(crate) fn lock(&self) -> Result<Lock, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            let what = format!("the state folder {} cannot be used", self.folder.display());
            Failure::new(
                what,
                error.to_string(),
                "make it writable, or name another place with XDG_STATE_HOME",
            )
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|error| failed(&error))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path("lock"));
        let mut file = file.map_err(|error| failed(&error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(self.taken(&mut file)),
            Err(error) => return Err(failed(&error)),
        }
        let own = rustix::process::getpid().as_raw_pid();
        file.set_len(0)
            .and_then(|()| write!(file, "{own}"))
            .map_err(|error| failed(&error))?;
        Ok(Lock(file))
    }

    fn taken(&self, file: &mut File) -> Failure {
        let who = holder(file).map_or("another process".to_owned(), |pid| {
            format!("process {}", pid.as_raw_pid())
        });
        Failure::new(
            format!("`{}` runs already", self.name),
            format!("{who} has it"),
            format!(
                "see `mizzen status{0}`, stop it with `mizzen down{0}`, or start another with --name",
                self.flag()
            ),
        )
    }

    /// `--name X` where a command needs it.
    pub(crate) fn flag(&self) -> String {
        if self.name == super::DEFAULT_NAME {
            String::new()
        } else {
            format!(" --name {}", self.name)
        }
    }

    /// Whether it runs. The lock says so, and who.
    pub(crate) fn find(&self) -> Result<Found, Failure> {
        let Ok(mut file) = File::open(self.path("lock")) else {
            return Ok(Found::Nothing);
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Found::Nothing),
            Err(_) => holder(&mut file).map(Found::Running).ok_or_else(|| {
                let why = format!("{} names no process", self.path("lock").display());
                Failure::new("what runs cannot be told", why, "try again in a second")
            }),
        }
    }

    pub(crate) fn record(&self) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(self.path("run.json")).ok()?).ok()
    }

    /// Replaces the record; None removes it.
    pub(crate) fn write_record(&self, record: Option<&Record>) -> std::io::Result<()> {
        let path = self.path("run.json");
        match record {
            Some(record) => write_private(&path, &serde_json::to_vec(record)?),
            None => match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Forgets all objects, volumes and logs.
    pub(crate) fn clear(&self) -> Result<(), Failure> {
        for name in ["cluster", "node", "kubeconfig", "run.json"] {
            let path = self.path(name);
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let what = format!("{} cannot be removed", path.display());
                    return Err(Failure::new(
                        what,
                        error.to_string(),
                        "remove it by hand, then run the command again",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn holder(file: &mut File) -> Option<rustix::process::Pid> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    rustix::process::Pid::from_raw(text.trim().parse().ok()?)
}

/// Writes a file that only the user can read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(bytes)?;
    std::fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_holder_and_names_it_to_the_next() {
        let folder = std::env::temp_dir().join(format!("mizzen-state-{}", std::process::id()));
        let state = State {
            name: "default".to_owned(),
            folder: folder.clone(),
        };
        assert!(matches!(state.find().unwrap(), Found::Nothing));
        let held = state.lock().unwrap();
        let own = rustix::process::getpid();
        assert!(matches!(state.find().unwrap(), Found::Running(pid) if pid == own));
        let said = state.lock().unwrap_err().to_string();
        assert!(said.contains(&format!("process {}", own.as_raw_pid())), "{said}");
        drop(held);
        assert!(matches!(state.find().unwrap(), Found::Nothing));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn names_are_parts_of_paths() {
        for bad in ["", "..", "a/b", "-x", "UP", &"x".repeat(33)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(name("mesh-2"), Ok("mesh-2".to_owned()));
    }
}
