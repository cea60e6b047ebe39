//! Which filter chain takes a connection.

use mizzen_proxy_config::{ChainMatch, FilterChain, Listener, TransportProtocol};
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What is known of a connection when its filter chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    /// The original destination.
    pub destination: SocketAddr,
    /// The peer's address.
    pub source: IpAddr,
    /// TLS, or anything else; `Raw` also when the first bytes were not looked at.
    pub transport: TransportProtocol,
    /// The server name asked for, lower-case.
    pub server_name: Option<&'a str>,
    /// Protocols offered by ALPN; or, for HTTP found in plain text, `http/1.0`, `http/1.1` or `h2c`.
    pub protocols: &'a [&'a [u8]],
}

/// What must be read from the first bytes before a chain can be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Is it TLS, and its hello.
    pub tls: bool,
    /// If it is not TLS: is it HTTP.
    pub http: bool,
}

/// The chain for a connection; the listener's default when none matches; `None`: close it.
///
/// Envoy's rules: the fields of [`ChainMatch`] decide one after the other, each keeps the chains that say most about
/// it, and a later field that matches nothing does not bring back what an earlier one has dropped.
#[must_use]
pub fn select<'l>(listener: &'l Listener, facts: &ConnectionFacts<'_>) -> Option<&'l Arc<FilterChain>> {
    let mut left: SmallVec<[&'l Arc<FilterChain>; 16]> = listener.chains.iter().collect();
    keep_best(&mut left, |m| rank_address(m, facts));
    keep_best(&mut left, |m| rank_name(m, facts.server_name));
    keep_best(&mut left, |m| rank_transport(m, facts.transport));
    keep_best(&mut left, |m| rank_protocols(m, facts.protocols));
    keep_best(&mut left, |m| rank_source(m, facts.source));
    left.first().copied().or(listener.default_chain.as_ref())
}

/// Keeps the chains with the highest rank; those without one go.
fn keep_best<R: Ord>(left: &mut SmallVec<[&Arc<FilterChain>; 16]>, rank: impl Fn(&ChainMatch) -> Option<R>) {
    let top = left.iter().filter_map(|chain| rank(&chain.matches)).max();
    left.retain(|chain| {
        let own = rank(&chain.matches);
        own.is_some() && own == top
    });
}

/// Whether the first bytes decide which chain takes a connection to `destination`. A chain whose listener does not
/// inspect, or for a port whose chains all agree, needs nothing, so that a server that speaks first is not waited for.
#[must_use]
pub fn needs(listener: &Listener, destination: SocketAddr) -> Needs {
    let facts = ConnectionFacts {
        destination,
        source: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        transport: TransportProtocol::Raw,
        server_name: None,
        protocols: &[],
    };
    let Some(top) = listener
        .chains
        .iter()
        .filter_map(|chain| rank_address(&chain.matches, &facts))
        .max()
    else {
        return Needs::default();
    };
    let mut needs = Needs::default();
    for chain in &listener.chains {
        let m = &chain.matches;
        if rank_address(m, &facts) != Some(top) {
            continue;
        }
        needs.tls |=
            m.transport_protocol.is_some() || !m.server_names.is_empty() || !m.application_protocols.is_empty();
        needs.http |= m.transport_protocol != Some(TransportProtocol::Tls)
            && m.application_protocols
                .iter()
                .any(|name| matches!(&**name, "http/1.0" | "http/1.1" | "h2c"));
    }
    let port = destination.port();
    Needs {
        tls: needs.tls && listener.inspect.tls_for(port),
        http: needs.http && listener.inspect.http_for(port),
    }
}

/// Port, then the longest network. `None`: no match.
fn rank_address(m: &ChainMatch, facts: &ConnectionFacts<'_>) -> Option<(bool, u8)> {
    let port = match m.destination_port {
        None => false,
        Some(port) if port == facts.destination.port() => true,
        Some(_) => return None,
    };
    longest(&m.destination_nets, facts.destination.ip()).map(|length| (port, length))
}

fn rank_source(m: &ChainMatch, source: IpAddr) -> Option<u8> {
    longest(&m.source_nets, source)
}

/// 0 when nothing is asked; one more than the length of the longest network that holds the address.
fn longest(nets: &[ipnet::IpNet], address: IpAddr) -> Option<u8> {
    if nets.is_empty() {
        return Some(0);
    }
    nets.iter()
        .filter(|net| net.contains(&address))
        .map(|net| net.prefix_len().saturating_add(1))
        .max()
}

/// An exact name before a longer wildcard before none.
fn rank_name(m: &ChainMatch, server_name: Option<&str>) -> Option<usize> {
    if m.server_names.is_empty() {
        return Some(0);
    }
    let asked = server_name?;
    m.server_names
        .iter()
        .filter_map(|name| match name.strip_prefix('*') {
            None => (**name == *asked).then_some(usize::MAX),
            Some(suffix) => (asked.len() > suffix.len() && asked.ends_with(suffix)).then_some(suffix.len()),
        })
        .max()
}

fn rank_transport(m: &ChainMatch, transport: TransportProtocol) -> Option<bool> {
    match m.transport_protocol {
        None => Some(false),
        Some(wanted) => (wanted == transport).then_some(true),
    }
}

fn rank_protocols(m: &ChainMatch, offered: &[&[u8]]) -> Option<bool> {
    if m.application_protocols.is_empty() {
        return Some(false);
    }
    m.application_protocols
        .iter()
        .any(|name| offered.contains(&name.as_bytes()))
        .then_some(true)
}
