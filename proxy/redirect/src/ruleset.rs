//! The rules as a value: the chains of `istio-iptables` in their order, for one address family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::options::{Capture, Options};

/// Name of our table.
pub const TABLE: &str = "mizzen";

/// HBONE; always handled by its own listener, never redirected.
const TUNNEL_PORT: u16 = 15008;

/// The control plane's; see [`Options::priority`].
const CONTROL_PLANE_PORT: u16 = 15012;

/// The IPv6 source address of the sidecar's connections to its own application.
pub(crate) const PASSTHROUGH_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// An address family; each has its own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    fn has(self, network: &IpNet) -> bool {
        matches!((self, network), (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_)))
    }

    fn loopback(self) -> IpNet {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST).into(),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST).into(),
        }
    }

    /// Source address of the sidecar's connections to its own application, so that they are not captured again.
    fn passthrough(self) -> IpNet {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)).into(),
            Self::V6 => IpAddr::V6(PASSTHROUGH_V6).into(),
        }
    }
}

/// The chains, by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainName {
    /// Hook for packets that arrive.
    Prerouting,
    /// Hook for packets that this namespace sends.
    Output,
    /// Decides about arriving connections.
    Inbound,
    /// Sends to the inbound port.
    InboundRedirect,
    /// Decides about leaving connections.
    Outbound,
    /// Sends to the outbound port.
    OutboundRedirect,
}

/// Where a chain is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Packets that arrive.
    Prerouting,
    /// Packets that are sent here.
    Output,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Came in by this interface.
    InInterface(String),
    /// Goes out by this interface.
    OutInterface(String),
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Source in this network.
    Source(IpNet),
    /// Destination in this network.
    Destination(IpNet),
    /// Destination not in this network.
    NotDestination(IpNet),
    /// Destination port (after [`Match::Tcp`] or [`Match::Udp`]).
    Port(u16),
    /// Another destination port.
    NotPort(u16),
    /// Sent by this user.
    Uid(u32),
    /// Sent by another user.
    NotUid(u32),
    /// Sent by this group.
    Gid(u32),
    /// Sent by another group.
    NotGid(u32),
    /// Sent by a socket of this priority.
    Priority(u32),
    /// Sent by a socket of another priority.
    NotPriority(u32),
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Leave alone (go on in the calling chain; in a hooked one: accept).
    Return,
    /// Go on in another chain.
    Jump(ChainName),
    /// Send to this local port.
    Redirect(u16),
}

/// All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub matches: Vec<Match>,
    /// What then happens.
    pub verdict: Verdict,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: ChainName,
    /// Where it is attached, if it is not only jumped to.
    pub hook: Option<Hook>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    fn new(name: ChainName, hook: Option<Hook>) -> Self {
        Self {
            name,
            hook,
            rules: Vec::new(),
        }
    }

    fn rule(&mut self, matches: impl Into<Vec<Match>>, verdict: Verdict) {
        self.rules.push(Rule {
            matches: matches.into(),
            verdict,
        });
    }
}

/// All chains of one address family; jumped-to chains come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The family.
    pub family: Family,
    /// The chains.
    pub chains: Vec<Chain>,
}

impl Ruleset {
    /// The rules for these options.
    pub fn new(options: &Options, family: Family) -> Self {
        let mut inbound_redirect = Chain::new(ChainName::InboundRedirect, None);
        inbound_redirect.rule([Match::Tcp], Verdict::Redirect(options.inbound_port));
        let mut outbound_redirect = Chain::new(ChainName::OutboundRedirect, None);
        outbound_redirect.rule([Match::Tcp], Verdict::Redirect(options.outbound_port));
        let mut output = Chain::new(ChainName::Output, Some(Hook::Output));
        output.rule([], Verdict::Jump(ChainName::Outbound));
        Self {
            family,
            chains: vec![
                inbound_redirect,
                outbound_redirect,
                inbound(options),
                outbound(options, family),
                prerouting(options, family),
                output,
            ],
        }
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.chains.iter().map(|chain| chain.rules.len()).sum()
    }
}

fn prerouting(options: &Options, family: Family) -> Chain {
    let mut chain = Chain::new(ChainName::Prerouting, Some(Hook::Prerouting));
    for interface in &options.excluded_interfaces {
        chain.rule([Match::InInterface(interface.clone())], Verdict::Return);
    }
    for interface in &options.virtual_interfaces {
        let from = || Match::InInterface(interface.clone());
        for network in options.outbound_excluded.iter().filter(|network| family.has(network)) {
            chain.rule([from(), Match::Destination(*network)], Verdict::Return);
        }
        let redirect = Verdict::Jump(ChainName::OutboundRedirect);
        match &options.outbound {
            Capture::All => chain.rule([from()], redirect),
            Capture::Only(networks) => {
                for network in networks.iter().filter(|network| family.has(network)) {
                    chain.rule([from(), Match::Destination(*network)], redirect);
                }
                chain.rule([from()], Verdict::Return);
            }
        }
    }
    if !options.inbound.is_nothing() {
        chain.rule([Match::Tcp], Verdict::Jump(ChainName::Inbound));
    }
    chain
}

fn inbound(options: &Options) -> Chain {
    let mut chain = Chain::new(ChainName::Inbound, None);
    let redirect = Verdict::Jump(ChainName::InboundRedirect);
    chain.rule([Match::Tcp, Match::Port(TUNNEL_PORT)], Verdict::Return);
    for port in &options.inbound_excluded {
        chain.rule([Match::Tcp, Match::Port(*port)], Verdict::Return);
    }
    match &options.inbound {
        Capture::All => chain.rule([Match::Tcp], redirect),
        Capture::Only(ports) => {
            for port in ports {
                chain.rule([Match::Tcp, Match::Port(*port)], redirect);
            }
        }
    }
    chain
}

fn outbound(options: &Options, family: Family) -> Chain {
    let mut chain = Chain::new(ChainName::Outbound, None);
    let local = || Match::OutInterface("lo".to_owned());
    for port in &options.outbound_ports_excluded {
        chain.rule([Match::Tcp, Match::Port(*port)], Verdict::Return);
        chain.rule([Match::Udp, Match::Port(*port)], Verdict::Return);
    }
    chain.rule([local(), Match::Source(family.passthrough())], Verdict::Return);
    let users = options.uids.iter().map(|uid| (Match::Uid(*uid), Match::NotUid(*uid)));
    let groups = options.gids.iter().map(|gid| (Match::Gid(*gid), Match::NotGid(*gid)));
    let owners: Vec<_> = match options.priority {
        Some(priority) => {
            chain.rule([Match::Tcp, Match::Port(CONTROL_PLANE_PORT)], Verdict::Return);
            vec![(Match::Priority(priority), Match::NotPriority(priority))]
        }
        None => users.chain(groups).collect(),
    };
    for (proxy, others) in owners {
        // The application calls itself by its service's address: the sidecar's answer to that arrives like any other.
        chain.rule(
            [
                local(),
                Match::NotDestination(family.loopback()),
                Match::Tcp,
                Match::NotPort(TUNNEL_PORT),
                proxy.clone(),
            ],
            Verdict::Jump(ChainName::InboundRedirect),
        );
        // The application calls itself by the pod's address.
        chain.rule([local(), others], Verdict::Return);
        // The sidecar's own connections leave: no loop.
        chain.rule([proxy], Verdict::Return);
    }
    chain.rule([Match::Destination(family.loopback())], Verdict::Return);
    for network in options.outbound_excluded.iter().filter(|network| family.has(network)) {
        chain.rule([Match::Destination(*network)], Verdict::Return);
    }
    let redirect = Verdict::Jump(ChainName::OutboundRedirect);
    for port in &options.outbound_ports {
        chain.rule([Match::Tcp, Match::Port(*port)], redirect);
    }
    match &options.outbound {
        Capture::All => chain.rule([], redirect),
        Capture::Only(networks) => {
            for network in networks.iter().filter(|network| family.has(network)) {
                chain.rule([Match::Destination(*network)], redirect);
            }
        }
    }
    chain
}
