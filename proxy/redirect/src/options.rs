//! What to capture, checked.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::RedirectError;

/// Everything, or a list (which may be empty: nothing).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capture<T> {
    /// `*`
    All,
    /// Only these.
    Only(Vec<T>),
}

impl<T> Capture<T> {
    /// Whether nothing is captured.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Only(list) if list.is_empty())
    }
}

/// What to capture and where to send it. [`Default`] is what injection asks for when a pod has no annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where outbound connections go.
    pub outbound_port: u16,
    /// Where inbound connections go.
    pub inbound_port: u16,
    /// Users whose own connections are left alone: the proxy.
    pub uids: Vec<u32>,
    /// Groups whose own connections are left alone.
    pub gids: Vec<u32>,
    /// Instead of users and groups, where the kernel lets a pod have but one: the priority of the sidecar's sockets (`SO_PRIORITY`,
    /// 1 to 6, which takes no capability). Its connections to the control plane are told by their port.
    pub priority: Option<u32>,
    /// Ports to capture inbound.
    pub inbound: Capture<u16>,
    /// Inbound ports left alone.
    pub inbound_excluded: Vec<u16>,
    /// Destinations to capture outbound.
    pub outbound: Capture<IpNet>,
    /// Outbound destinations left alone.
    pub outbound_excluded: Vec<IpNet>,
    /// Outbound ports captured whatever the destination.
    pub outbound_ports: Vec<u16>,
    /// Outbound ports left alone.
    pub outbound_ports_excluded: Vec<u16>,
    /// Interfaces of virtual machines or containers inside the pod: what comes from them counts as outbound.
    pub virtual_interfaces: Vec<String>,
    /// Interfaces whose inbound traffic is left alone.
    pub excluded_interfaces: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            outbound_port: 15001,
            inbound_port: 15006,
            uids: vec![1337],
            gids: vec![1337],
            priority: None,
            inbound: Capture::All,
            inbound_excluded: vec![15090, 15021, 15020],
            outbound: Capture::All,
            outbound_excluded: Vec::new(),
            outbound_ports: Vec::new(),
            outbound_ports_excluded: Vec::new(),
            virtual_interfaces: Vec::new(),
            excluded_interfaces: Vec::new(),
        }
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

pub(crate) fn ports(flag: &'static str, text: &str) -> Result<Vec<u16>, RedirectError> {
    items(text)
        .map(|item| match item.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(RedirectError::Flag {
                flag,
                value: item.to_owned(),
                expected: "a port from 1 to 65535",
            }),
        })
        .collect()
}

pub(crate) fn ids(flag: &'static str, text: &str) -> Result<Vec<u32>, RedirectError> {
    items(text)
        .map(|item| {
            item.parse().map_err(|_| RedirectError::Flag {
                flag,
                value: item.to_owned(),
                expected: "a numeric id",
            })
        })
        .collect()
}

pub(crate) fn networks(flag: &'static str, text: &str) -> Result<Vec<IpNet>, RedirectError> {
    items(text)
        .map(|item| {
            item.parse::<IpNet>()
                .map(|network| network.trunc())
                .or_else(|_| item.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| RedirectError::Flag {
                    flag,
                    value: item.to_owned(),
                    expected: "an address or a network in CIDR form",
                })
        })
        .collect()
}

pub(crate) fn interfaces(flag: &'static str, text: &str) -> Result<Vec<String>, RedirectError> {
    items(text)
        .map(|item| {
            // The kernel's own rule (dev_valid_name), and nothing that a rule text would have to quote.
            let good = item.len() < 16
                && item
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'"' | b'*' | b'\\'))
                && !matches!(item, "." | "..");
            if good {
                Ok(item.to_owned())
            } else {
                Err(RedirectError::Flag {
                    flag,
                    value: item.to_owned(),
                    expected: "an interface name",
                })
            }
        })
        .collect()
}

pub(crate) fn capture<T>(
    flag: &'static str,
    text: &str,
    list: impl FnOnce(&'static str, &str) -> Result<Vec<T>, RedirectError>,
) -> Result<Capture<T>, RedirectError> {
    if items(text).any(|item| item == "*") {
        Ok(Capture::All)
    } else {
        list(flag, text).map(Capture::Only)
    }
}
