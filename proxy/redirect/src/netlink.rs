//! nf_tables over netlink: one batch, which the kernel takes whole or not at all.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use crate::RedirectError;
use crate::ruleset::{Family, Ruleset, TABLE};

mod encode;

use encode::Batch;

/// Programs the rulesets, replacing our tables if they are there. The batch makes each table, deletes it and makes it anew, so that
/// it works whether or not the table existed, on every kernel with nf_tables.
pub fn apply(rulesets: &[&Ruleset]) -> Result<(), RedirectError> {
    let mut batch = Batch::new();
    for ruleset in rulesets {
        batch.replace_table(ruleset.family);
        for chain in &ruleset.chains {
            batch.chain(ruleset.family, chain);
        }
        for chain in &ruleset.chains {
            for rule in &chain.rules {
                batch.rule(ruleset.family, chain.name, rule);
            }
        }
    }
    send(batch)
}

/// Removes our tables; it is no error if there are none.
pub fn remove(families: &[Family]) -> Result<(), RedirectError> {
    let mut batch = Batch::new();
    for family in families {
        batch.delete_table(*family);
    }
    send(batch)
}

fn send(batch: Batch) -> Result<(), RedirectError> {
    let (bytes, steps) = batch.finish();
    let socket = open()?;
    net::send(&socket, &bytes, SendFlags::empty()).map_err(|errno| failed("send", errno))?;
    // Each step asks for an acknowledgement; the first that is not 0 says why the whole batch was refused.
    let mut acknowledged = 0;
    let mut buffer = vec![0_u8; 64 * 1024];
    while acknowledged < steps.len() {
        let (_, length) =
            net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty()).map_err(|errno| failed("receive", errno))?;
        let mut rest = buffer.get(..length).ok_or(RedirectError::Answer)?;
        while !rest.is_empty() {
            let answer = encode::answer(rest).ok_or(RedirectError::Answer)?;
            if let Some(code) = answer.error {
                if code != 0 {
                    return Err(refused(&steps, answer.sequence, Errno::from_raw_os_error(code)));
                }
                acknowledged += 1;
            }
            rest = rest.get(answer.length..).unwrap_or_default();
        }
    }
    Ok(())
}

fn open() -> Result<OwnedFd, RedirectError> {
    let socket = net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )
    .map_err(|errno| match errno {
        Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => RedirectError::Unsupported {
            what: "netfilter over netlink".to_owned(),
            errno,
        },
        errno => failed("socket", errno),
    })?;
    // The kernel answers within the send call; the limit only guards against waiting for an answer that never comes.
    sockopt::set_socket_timeout(socket.as_fd(), sockopt::Timeout::Recv, Some(Duration::from_secs(5)))
        .map_err(|errno| failed("timeout", errno))?;
    Ok(socket)
}

fn failed(step: &'static str, errno: Errno) -> RedirectError {
    match errno {
        Errno::PERM | Errno::ACCESS => RedirectError::Permission,
        errno => RedirectError::Netlink { step, errno },
    }
}

fn refused(steps: &[String], sequence: u32, errno: Errno) -> RedirectError {
    let what = (sequence as usize)
        .checked_sub(1)
        .and_then(|index| steps.get(index))
        .cloned()
        .unwrap_or_else(|| format!("the transaction on table {TABLE}"));
    match errno {
        Errno::PERM | Errno::ACCESS => RedirectError::Permission,
        Errno::OPNOTSUPP | Errno::NOENT | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT => {
            RedirectError::Unsupported { what, errno }
        }
        errno => RedirectError::Refused { what, errno },
    }
}
