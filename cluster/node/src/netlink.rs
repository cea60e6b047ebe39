//! A netlink socket and the bytes of messages: what goes out is a request with attributes, what comes in is its acknowledgement.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

pub(crate) mod nft;
pub(crate) mod route;

pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const NLMSG_ERROR: u16 = 2;

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The conversation itself failed.
    #[error("netlink {step}: {errno}")]
    Socket {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused a step.
    #[error("{what} was refused by the kernel: {errno}")]
    Refused {
        /// The step.
        what: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// An answer that is none.
    #[error("the kernel's netlink answer could not be read")]
    Answer,
}

/// Messages under construction; each has a description for errors, and its position as sequence number.
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) steps: Vec<String>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// One message that asks for an acknowledgement.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, what: String, fill: impl FnOnce(&mut Vec<u8>)) {
        self.steps.push(what);
        let sequence = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        self.bare(kind, REQUEST | ACK | flags, sequence, fill);
    }

    /// One message as it is.
    pub(crate) fn bare(&mut self, kind: u16, flags: u16, sequence: u32, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        fill(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

/// An open socket; it stays in the network namespace in which it was opened.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// `None` is NETLINK_ROUTE.
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self, NetlinkError> {
        let failed = |step| move |errno| NetlinkError::Socket { step, errno };
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(failed("socket"))?;
        // The kernel answers within the send call; the limit guards against an answer that never comes.
        sockopt::set_socket_timeout(socket.as_fd(), sockopt::Timeout::Recv, Some(Duration::from_secs(5)))
            .map_err(failed("timeout"))?;
        // A batch goes out in one piece.
        _ = sockopt::set_socket_send_buffer_size(socket.as_fd(), 4 << 20);
        Ok(Self(socket))
    }

    /// Sends a batch and waits until each of its steps is acknowledged.
    pub(crate) fn send(&self, batch: &Batch) -> Result<(), NetlinkError> {
        let failed = |step| move |errno| NetlinkError::Socket { step, errno };
        net::send(&self.0, &batch.bytes, SendFlags::empty()).map_err(failed("send"))?;
        let mut acknowledged = 0;
        let mut buffer = vec![0_u8; 64 * 1024];
        while acknowledged < batch.steps.len() {
            let (_, length) =
                net::recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty()).map_err(failed("receive"))?;
            let mut rest = buffer.get(..length).ok_or(NetlinkError::Answer)?;
            while !rest.is_empty() {
                let answer = answer(rest).ok_or(NetlinkError::Answer)?;
                match answer.error {
                    Some(0) => acknowledged += 1,
                    Some(code) => return Err(refused(&batch.steps, answer.sequence, code)),
                    None => {}
                }
                rest = rest.get(answer.length..).unwrap_or_default();
            }
        }
        Ok(())
    }

    pub(crate) fn as_fd(&self) -> &OwnedFd {
        &self.0
    }
}

fn refused(steps: &[String], sequence: u32, code: i32) -> NetlinkError {
    let what = (sequence as usize)
        .checked_sub(1)
        .and_then(|index| steps.get(index))
        .cloned()
        .unwrap_or_else(|| "a netlink batch".to_owned());
    match (1..=4095).contains(&code) {
        true => NetlinkError::Refused {
            what,
            errno: Errno::from_raw_os_error(code),
        },
        false => NetlinkError::Answer,
    }
}

struct Answer {
    length: usize,
    sequence: u32,
    error: Option<i32>,
}

fn answer(bytes: &[u8]) -> Option<Answer> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let length = usize::try_from(word(0)?).ok()?;
    if length < 16 || length > bytes.len() {
        return None;
    }
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let error = if kind == NLMSG_ERROR {
        Some(i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?).checked_neg()?)
    } else {
        None
    };
    Some(Answer {
        length: length.next_multiple_of(4).min(bytes.len()),
        sequence: word(8)?,
        error,
    })
}

pub(crate) fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

pub(crate) fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    attribute(out, kind, &bytes);
}

pub(crate) fn nest(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(kind | NESTED).to_ne_bytes());
    fill(out);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start..start + 2) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
}
