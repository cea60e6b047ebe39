//! nf_tables over netlink: one batch, which the kernel takes whole or not at all.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use crate::RedirectError;
use crate::ruleset::{Family, PASSTHROUGH_V6, Ruleset, TABLE};

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

/// Gives the loopback interface the IPv6 address that stands for the sidecar (`::6`), as 127.0.0.6 does without being given:
/// the whole of 127.0.0.0/8 is local, of IPv6 only `::1`. It is no error if it is there.
pub(crate) fn add_passthrough_address() -> Result<(), RedirectError> {
    let socket = open(None)?;
    net::send(
        &socket,
        &encode::new_loopback_address(PASSTHROUGH_V6),
        SendFlags::empty(),
    )
    .map_err(|errno| failed("send", errno))?;
    let mut buffer = vec![0_u8; 4096];
    let (_, length) =
        net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty()).map_err(|errno| failed("receive", errno))?;
    let answer = encode::answer(buffer.get(..length).unwrap_or_default()).ok_or(RedirectError::Answer)?;
    match answer.error {
        None => Err(RedirectError::Answer),
        Some(0) => Ok(()),
        Some(code) => match errno(code)? {
            Errno::EXIST => Ok(()),
            errno => Err(refused(&["address ::6 on lo".to_owned()], 1, errno)),
        },
    }
}

/// A number that the kernel says; beyond 4095 it is none.
fn errno(code: i32) -> Result<Errno, RedirectError> {
    if (1..=4095).contains(&code) {
        Ok(Errno::from_raw_os_error(code))
    } else {
        Err(RedirectError::Answer)
    }
}

fn send(batch: Batch) -> Result<(), RedirectError> {
    let (bytes, steps) = batch.finish();
    let socket = open(Some(netlink::NETFILTER))?;
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
                    return Err(refused(&steps, answer.sequence, errno(code)?));
                }
                acknowledged += 1;
            }
            rest = rest.get(answer.length..).unwrap_or_default();
        }
    }
    Ok(())
}

/// `None` is NETLINK_ROUTE.
fn open(protocol: Option<Protocol>) -> Result<OwnedFd, RedirectError> {
    let socket =
        net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol).map_err(|errno| {
            match errno {
                Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => RedirectError::Unsupported {
                    what: "netfilter over netlink".to_owned(),
                    errno,
                },
                errno => failed("socket", errno),
            }
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
