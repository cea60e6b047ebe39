//! A pod's namespaces: network with its address, host name, and inter-process communication. They live as long as this process holds
//! them or something runs in them, so nothing is left when the node ends.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use ipnet::Ipv4Net;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, unshare_unsafe};

use crate::config::NodeConfig;
use crate::netlink::{NetlinkError, Socket};

/// Why a pod has no sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("namespaces: {0}")]
    Namespaces(#[from] std::io::Error),
    #[error(transparent)]
    Network(#[from] NetlinkError),
    #[error("no free address in {0}: delete pods, or give the node a larger range")]
    Full(Ipv4Net),
}

impl From<rustix::io::Errno> for SandboxError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Namespaces(errno.into())
    }
}

/// Open namespaces.
pub(crate) struct Namespaces {
    network: OwnedFd,
    hostname: OwnedFd,
    messages: OwnedFd,
}

impl Namespaces {
    /// Moves the calling thread into them; it must be one that ends soon.
    pub(crate) fn enter(&self) -> rustix::io::Result<()> {
        crate::launch::enter(&self.network, LinkNameSpaceType::Network)?;
        crate::launch::enter(&self.hostname, LinkNameSpaceType::HostNameAndNISDomainName)?;
        crate::launch::enter(&self.messages, LinkNameSpaceType::InterProcessCommunication)
    }
}

/// Prepares the node's own network namespace: forwarding, the bridge with its addresses, the routes of the ranges.
pub(crate) fn prepare(config: &NodeConfig) -> Result<(), NetlinkError> {
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        // Between pods everything is routed, nothing bridged.
        ("net/bridge/bridge-nf-call-iptables", "0"),
    ] {
        sysctl(name, value);
    }
    let socket = Socket::open(None)?;
    socket.up("lo")?;
    if socket.index(&config.bridge).is_ok() {
        socket.delete(&config.bridge)?;
    }
    socket.new_bridge(&config.bridge)?;
    let gateway = Ipv4Net::new(config.gateway(), config.pods.prefix_len()).unwrap_or(config.pods);
    socket.address(&config.bridge, gateway)?;
    socket.address(&config.bridge, config.address.into())?;
    // Destination NAT happens after the route is looked up, so there must be one.
    socket.route(config.services, &config.bridge, None)?;
    socket.route(config.load_balancers, &config.bridge, None)
}

fn sysctl(name: &str, value: &str) {
    if let Err(error) = std::fs::write(format!("/proc/sys/{name}"), value) {
        tracing::debug!(name, %error, "kernel parameter not set");
    }
}

/// The name of a pod's link in the node's namespace.
pub(crate) fn link(address: Ipv4Addr) -> String {
    format!("pod{:x}", u32::from(address))
}

/// Makes the namespaces of a pod.
pub(crate) async fn create(
    config: &NodeConfig,
    hostname: String,
    address: Ipv4Addr,
    sysctls: Vec<(String, String)>,
) -> Result<Arc<Namespaces>, SandboxError> {
    let (bridge, gateway) = (config.bridge.clone(), config.gateway());
    let (tx, rx) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("sandbox".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || {
            drop(tx.send(build(&hostname, &bridge, gateway, address, &sysctls)));
        })?;
    rx.await
        .unwrap_or_else(|_| Err(std::io::Error::other("its thread ended").into()))
        .map(Arc::new)
}

/// On a thread of its own, which stays in the namespaces until it ends.
fn build(
    hostname: &str,
    bridge: &str,
    gateway: Ipv4Addr,
    address: Ipv4Addr,
    sysctls: &[(String, String)],
) -> Result<Namespaces, SandboxError> {
    let outside = Socket::open(None)?;
    #[expect(unsafe_code, reason = "unshare moves this thread alone, and it ends here")]
    // SAFETY: none of the three flags takes descriptors or memory from other threads.
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC)?;
    }
    let open = |name: &str| {
        rustix::fs::open(
            format!("/proc/thread-self/ns/{name}"),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let made = Namespaces {
        network: open("net")?,
        hostname: open("uts")?,
        messages: open("ipc")?,
    };
    rustix::system::sethostname(hostname.as_bytes())?;
    let link = link(address);
    _ = outside.delete(&link);
    outside.new_pair(&link, outside.index(bridge)?, "eth0", made.network.as_fd())?;
    let inside = Socket::open(None)?;
    inside.up("lo")?;
    inside.up("eth0")?;
    // A host address: what goes to other pods is routed by the node, where services are translated both ways.
    inside.address("eth0", address.into())?;
    inside.route(gateway.into(), "eth0", None)?;
    inside.route(Ipv4Net::default(), "eth0", Some(gateway))?;
    // As container runtimes do: any user may serve low ports and ping.
    sysctl("net/ipv4/ip_unprivileged_port_start", "0");
    sysctl("net/ipv4/ping_group_range", "0 2147483647");
    for (name, value) in sysctls {
        sysctl(&name.replace('.', "/"), value);
    }
    Ok(made)
}

/// Takes a pod's link away, and with it its address.
pub(crate) fn remove(address: Ipv4Addr) {
    if let Ok(socket) = Socket::open(None) {
        _ = socket.delete(&link(address));
    }
}
