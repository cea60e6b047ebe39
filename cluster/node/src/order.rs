//! What the node tells its helper process: one container, or one program in a container that runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything that the child needs to become the program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) root: Root,
    pub(crate) command: Vec<String>,
    /// Where the command is found if it cannot be reached by its path (a folder that its user may not enter).
    pub(crate) fallback: Option<PathBuf>,
    pub(crate) directory: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) user: User,
    /// Standard input is a terminal, which the program is to control.
    pub(crate) terminal: bool,
}

/// Whose rights the program has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// Bits of `CAP_…`.
    pub(crate) capabilities: u64,
    /// The same, where the user is not mapped into our namespace.
    pub(crate) unmapped_capabilities: u64,
    pub(crate) no_new_privileges: bool,
}

/// Which files it sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Root {
    /// A view of its own.
    New(View),
    /// That of a process that runs, by its id.
    Of(i32),
}

/// The machine's files, read-only, with others laid over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct View {
    /// An empty folder to build the view on.
    pub(crate) scratch: PathBuf,
    /// Folders that no container may see.
    pub(crate) hidden: Vec<PathBuf>,
    /// In the order in which they are laid over.
    pub(crate) binds: Vec<Bind>,
    pub(crate) read_only: bool,
}

/// A file or folder of this machine at a place in the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}
