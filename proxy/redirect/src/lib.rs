//! Traffic capture in a pod's network namespace.
//!
//! Comes in: which ports, ranges and users to capture, with the flags that `istio-iptables` has ([`Args`], parsed into
//! [`Options`]). Goes out: a [`Ruleset`] as a value, printed as nft or iptables-restore text, or programmed over netlink
//! (nf_tables) in one transaction in the current network namespace. It never calls a binary, never touches rules that are not in
//! its own table `mizzen`, and never leaves half a ruleset behind.
//!
//! ```
//! use mizzen_redirect::{Family, Options, Ruleset};
//! let rules = Ruleset::new(&Options::default(), Family::V4);
//! assert!(rules.nft().contains("tcp dport 15008 return"));
//! ```

mod args;
mod netlink;
mod options;
mod render;
mod ruleset;

pub use args::{Args, DryRun, run};
pub use netlink::{apply, remove};
pub use options::{Capture, Options};
pub use ruleset::{Chain, ChainName, Family, Hook, Match, Rule, Ruleset, TABLE, Verdict};

use thiserror::Error;

/// Why capture could not be set up.
#[derive(Debug, Error)]
pub enum RedirectError {
    /// A flag has a value that cannot be used.
    #[error("flag {flag}: `{value}` is not {expected}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// The process may not change the network namespace.
    #[error("nf_tables: not permitted; the container needs the capability NET_ADMIN (and to run as root)")]
    Permission,
    /// The kernel has no nf_tables or a part of it is missing.
    #[error(
        "nf_tables: the kernel does not support {what} ({errno}); load nf_tables, nft_chain_nat and nft_redir on the node, or apply the output of --dry-run=iptables with iptables-restore"
    )]
    Unsupported {
        /// The step.
        what: String,
        /// What the kernel said.
        errno: rustix::io::Errno,
    },
    /// The kernel refused a message.
    #[error("nf_tables: the kernel refused {what}: {errno}; nothing was changed")]
    Refused {
        /// The step.
        what: String,
        /// What the kernel said.
        errno: rustix::io::Errno,
    },
    /// Talking to the kernel failed.
    #[error("netlink: {step} failed: {errno}; try again")]
    Netlink {
        /// Which call.
        step: &'static str,
        /// What it said.
        errno: rustix::io::Errno,
    },
    /// The answer of the kernel could not be read.
    #[error("netlink: the kernel's answer is malformed; report this with the kernel version")]
    Answer,
    /// The rules could not be printed.
    #[error("output: cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

impl RedirectError {
    /// A short name from a closed set.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Flag { .. } => "flag",
            Self::Permission => "permission",
            Self::Unsupported { .. } => "unsupported",
            Self::Refused { .. } => "refused",
            Self::Netlink { .. } => "netlink",
            Self::Answer => "answer",
            Self::Output(_) => "output",
        }
    }
}
