//! Network namespaces: made, entered, removed.
//!
//! A thread that enters a namespace stays there; so each entry has a thread of its own. Sockets belong to the namespace
//! in which they were made, and processes to that of the thread that started them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::place::{CLIENT, CLIENT_SPACE, SERVER, SERVER_SPACE};

/// Both namespaces and the cable between them, until dropped.
#[derive(Debug)]
pub(crate) struct Net(());

impl Net {
    /// Makes them. The namespaces must not be there yet.
    pub(crate) fn make() -> Result<Self> {
        let made = Self(());
        for space in [CLIENT_SPACE, SERVER_SPACE] {
            ip(&format!("netns add {space}"))?;
            ip(&format!("-n {space} link set lo up"))?;
            inside(space, congestion_control)?;
        }
        ip(&format!(
            "link add mzb0 netns {CLIENT_SPACE} type veth peer name mzb0 netns {SERVER_SPACE}"
        ))?;
        for (space, own, other) in [(CLIENT_SPACE, CLIENT, SERVER), (SERVER_SPACE, SERVER, CLIENT)] {
            ip(&format!("-n {space} addr add {own}/24 dev mzb0"))?;
            ip(&format!("-n {space} link set mzb0 up"))?;
            ip(&format!("-n {space} route add default via {other}"))?;
        }
        Ok(made)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for space in [CLIENT_SPACE, SERVER_SPACE] {
            if Path::new("/run/netns").join(space).exists()
                && let Err(error) = ip(&format!("netns del {space}"))
            {
                eprintln!("{error:#}");
            }
        }
    }
}

/// The one that every Linux has and every namespace may use. What this machine has set may pace what it sends, and pacing
/// costs CPU that would be counted.
fn congestion_control() -> Result<()> {
    const FILE: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    std::fs::write(FILE, "reno").context(FILE)
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("ip (iproute2)")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Runs this inside a namespace.
pub(crate) fn inside<T: Send>(space: &str, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let entered = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let path = Path::new("/run/netns").join(space);
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("entering the network namespace {space}"))?;
            act()
        });
        thread.join()
    });
    entered.unwrap_or_else(|_| bail!("the thread in the network namespace {space} panicked"))
}

/// A response as far as it matters here.
#[derive(Debug)]
pub(crate) struct Response {
    /// Its status.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: String,
}

/// One request on a connection of its own.
pub(crate) fn get(space: &str, address: SocketAddr, authority: &str, path: &str) -> Result<Response> {
    const LIMIT: Duration = Duration::from_secs(5);
    inside(space, || {
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text
            .split_once("\r\n\r\n")
            .with_context(|| format!("not HTTP: {text:?}"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok(Response {
            status: status.with_context(|| format!("not HTTP: {head:?}"))?,
            body: body.to_owned(),
        })
    })
}
