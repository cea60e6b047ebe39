//! Links, addresses and routes (linux/rtnetlink.h): a bridge, veth pairs, the addresses of both.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::Ipv4Net;

use super::{Batch, CREATE, NetlinkError, Socket, attribute, nest, text};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const EXCLUSIVE: u16 = 0x200;
const REPLACE: u16 = 0x100;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;

const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;

/// Operations on the network namespace in which the socket was opened.
impl Socket {
    pub(crate) fn index(&self, name: &str) -> Result<u32, NetlinkError> {
        rustix::net::netdevice::name_to_index(self.as_fd(), name).map_err(|errno| NetlinkError::Refused {
            what: format!("link {name}"),
            errno,
        })
    }

    pub(crate) fn up(&self, name: &str) -> Result<(), NetlinkError> {
        let index = self.index(name)?;
        self.one(NEW_LINK, 0, format!("link {name} up"), |out| {
            interface(out, index, true);
        })
    }

    pub(crate) fn new_bridge(&self, name: &str) -> Result<(), NetlinkError> {
        self.one(NEW_LINK, CREATE | EXCLUSIVE, format!("bridge {name}"), |out| {
            interface(out, 0, true);
            text(out, IFLA_IFNAME, name);
            nest(out, IFLA_LINKINFO, |out| text(out, 1, "bridge"));
        })
    }

    /// A pair of which `name` is a port of the bridge and `peer` is in another namespace.
    pub(crate) fn new_pair(
        &self,
        name: &str,
        bridge: u32,
        peer: &str,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        self.one(NEW_LINK, CREATE | EXCLUSIVE, format!("veth {name}"), |out| {
            interface(out, 0, true);
            text(out, IFLA_IFNAME, name);
            attribute(out, IFLA_MASTER, &bridge.to_ne_bytes());
            nest(out, IFLA_LINKINFO, |out| {
                text(out, 1, "veth");
                nest(out, 2, |out| {
                    nest(out, 1, |out| {
                        interface(out, 0, false);
                        text(out, IFLA_IFNAME, peer);
                        attribute(out, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
                    });
                });
            });
        })
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), NetlinkError> {
        self.one(DELETE_LINK, 0, format!("removal of link {name}"), |out| {
            interface(out, 0, false);
            text(out, IFLA_IFNAME, name);
        })
    }

    pub(crate) fn address(&self, link: &str, address: Ipv4Net) -> Result<(), NetlinkError> {
        let index = self.index(link)?;
        self.one(
            NEW_ADDRESS,
            CREATE | REPLACE,
            format!("address {address} of {link}"),
            |out| {
                out.extend_from_slice(&[AF_INET, address.prefix_len(), 0, 0]);
                out.extend_from_slice(&index.to_ne_bytes());
                attribute(out, 1, &address.addr().octets());
                attribute(out, 2, &address.addr().octets());
            },
        )
    }

    /// A route over a link, or by a gateway on it.
    pub(crate) fn route(&self, to: Ipv4Net, link: &str, gateway: Option<Ipv4Addr>) -> Result<(), NetlinkError> {
        const MAIN: u8 = 254;
        const BOOT: u8 = 3;
        const UNICAST: u8 = 1;
        let index = self.index(link)?;
        // RT_SCOPE_UNIVERSE, RT_SCOPE_LINK
        let scope = if gateway.is_some() { 0 } else { 253 };
        self.one(
            NEW_ROUTE,
            CREATE | REPLACE,
            format!("route to {to} over {link}"),
            |out| {
                out.extend_from_slice(&[AF_INET, to.prefix_len(), 0, 0, MAIN, BOOT, scope, UNICAST, 0, 0, 0, 0]);
                attribute(out, 1, &to.network().octets());
                attribute(out, 4, &index.to_ne_bytes());
                if let Some(gateway) = gateway {
                    attribute(out, 5, &gateway.octets());
                }
            },
        )
    }

    fn one(&self, kind: u16, flags: u16, what: String, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch.message(kind, flags, what, fill);
        self.send(&batch)
    }
}

/// `ifinfomsg`
fn interface(out: &mut Vec<u8>, index: u32, up: bool) {
    let flags = if up { IFF_UP } else { 0 };
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&index.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
}
