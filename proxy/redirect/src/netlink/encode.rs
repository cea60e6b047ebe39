//! Bytes of nf_tables messages (linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h).

use ipnet::IpNet;

use crate::ruleset::{Chain, ChainName, Family, Hook, Match, Rule, TABLE, Verdict};

const NLMSG_ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

/// Registers: the verdict, and the first of 16 bytes.
const REG_VERDICT: u32 = 0;
const REG: u32 = 1;

const META_PRIORITY: u32 = 2;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_SKUID: u32 = 10;
const META_SKGID: u32 = 11;
const META_L4PROTO: u32 = 16;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// `NFT_RETURN` and `NFT_JUMP`.
const RETURN: i32 = -5;
const JUMP: i32 = -3;

/// Destination NAT (`NF_IP_PRI_NAT_DST`).
const PRIORITY: i32 = -100;

/// A growing batch; each step has a description for errors and its position as sequence number.
pub(super) struct Batch {
    bytes: Vec<u8>,
    steps: Vec<String>,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            steps: Vec::new(),
        };
        batch.bare(BATCH_BEGIN, 0);
        batch
    }

    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<String>) {
        let sequence = u32::try_from(self.steps.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.bare(BATCH_END, sequence);
        (self.bytes, self.steps)
    }

    pub(super) fn replace_table(&mut self, family: Family) {
        self.delete_table(family);
        self.table(family, NEW_TABLE, CREATE, "table");
    }

    pub(super) fn delete_table(&mut self, family: Family) {
        // Making it first makes sure that there is something to delete.
        self.table(family, NEW_TABLE, CREATE, "table");
        self.table(family, DELETE_TABLE, 0, "removal of table");
    }

    fn table(&mut self, family: Family, kind: u16, flags: u16, what: &str) {
        self.message(family, kind, flags, format!("{what} {} {TABLE}", family.nft()), |out| {
            text(out, 1, TABLE);
        });
    }

    pub(super) fn chain(&mut self, family: Family, chain: &Chain) {
        let name = chain.name.nft();
        self.message(
            family,
            NEW_CHAIN,
            CREATE,
            format!("chain {name} ({})", family.nft()),
            |out| {
                text(out, 1, TABLE);
                text(out, 3, name);
                if let Some(hook) = chain.hook {
                    nest(out, 4, |out| {
                        // NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT
                        let number: u32 = match hook {
                            Hook::Prerouting => 0,
                            Hook::Output => 3,
                        };
                        attribute(out, 1, &number.to_be_bytes());
                        attribute(out, 2, &PRIORITY.to_be_bytes());
                    });
                    // NF_ACCEPT
                    attribute(out, 5, &1_u32.to_be_bytes());
                    text(out, 7, "nat");
                }
            },
        );
    }

    pub(super) fn rule(&mut self, family: Family, chain: ChainName, rule: &Rule) {
        let what = format!("rule {rule:?} of chain {} ({})", chain.nft(), family.nft());
        self.message(family, NEW_RULE, CREATE | APPEND, what, |out| {
            text(out, 1, TABLE);
            text(out, 2, chain.nft());
            nest(out, 4, |out| {
                for condition in &rule.matches {
                    conditions(out, family, condition);
                }
                verdict(out, rule.verdict);
            });
        });
    }

    fn message(&mut self, family: Family, kind: u16, flags: u16, what: String, fill: impl FnOnce(&mut Vec<u8>)) {
        self.steps.push(what);
        let sequence = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        // NFPROTO_IPV4, NFPROTO_IPV6
        let protocol = match family {
            Family::V4 => 2,
            Family::V6 => 10,
        };
        let start = header(&mut self.bytes, kind, REQUEST | ACK | flags, sequence, protocol, 0);
        fill(&mut self.bytes);
        close_u32(&mut self.bytes, start);
    }

    fn bare(&mut self, kind: u16, sequence: u32) {
        let start = header(&mut self.bytes, kind, REQUEST, sequence, 0, SUBSYSTEM);
        close_u32(&mut self.bytes, start);
    }
}

/// `nlmsghdr` and `nfgenmsg`; says where it begins.
fn header(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
    start
}

fn close_u32(out: &mut [u8], start: usize) {
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    pad(out);
}

fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    attribute(out, kind, &bytes);
}

fn number(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, &value.to_be_bytes());
}

fn nest(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(kind | NESTED).to_ne_bytes());
    fill(out);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start..start + 2) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

fn expression(out: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
    nest(out, 1, |out| {
        text(out, 1, name);
        nest(out, 2, fill);
    });
}

fn conditions(out: &mut Vec<u8>, family: Family, condition: &Match) {
    match condition {
        Match::InInterface(name) => meta(out, META_IIFNAME, EQUAL, &interface(name)),
        Match::OutInterface(name) => meta(out, META_OIFNAME, EQUAL, &interface(name)),
        Match::Tcp => meta(out, META_L4PROTO, EQUAL, &[6]),
        Match::Udp => meta(out, META_L4PROTO, EQUAL, &[17]),
        Match::Source(network) => address(out, family, Side::Source, EQUAL, network),
        Match::Destination(network) => address(out, family, Side::Destination, EQUAL, network),
        Match::NotDestination(network) => address(out, family, Side::Destination, NOT_EQUAL, network),
        Match::Port(port) => destination_port(out, EQUAL, *port),
        Match::NotPort(port) => destination_port(out, NOT_EQUAL, *port),
        Match::Uid(id) => meta(out, META_SKUID, EQUAL, &id.to_ne_bytes()),
        Match::NotUid(id) => meta(out, META_SKUID, NOT_EQUAL, &id.to_ne_bytes()),
        Match::Gid(id) => meta(out, META_SKGID, EQUAL, &id.to_ne_bytes()),
        Match::NotGid(id) => meta(out, META_SKGID, NOT_EQUAL, &id.to_ne_bytes()),
        Match::Priority(priority) => meta(out, META_PRIORITY, EQUAL, &priority.to_ne_bytes()),
        Match::NotPriority(priority) => meta(out, META_PRIORITY, NOT_EQUAL, &priority.to_ne_bytes()),
    }
}

fn interface(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    for (place, byte) in padded.iter_mut().zip(name.bytes().take(15)) {
        *place = byte;
    }
    padded
}

fn meta(out: &mut Vec<u8>, key: u32, operation: u32, value: &[u8]) {
    expression(out, "meta", |out| {
        number(out, 2, key);
        number(out, 1, REG);
    });
    compare(out, operation, value);
}

fn compare(out: &mut Vec<u8>, operation: u32, value: &[u8]) {
    expression(out, "cmp", |out| {
        number(out, 1, REG);
        number(out, 2, operation);
        nest(out, 3, |out| attribute(out, 1, value));
    });
}

fn payload(out: &mut Vec<u8>, base: u32, offset: u32, length: u32) {
    expression(out, "payload", |out| {
        number(out, 1, REG);
        number(out, 2, base);
        number(out, 3, offset);
        number(out, 4, length);
    });
}

fn destination_port(out: &mut Vec<u8>, operation: u32, port: u16) {
    payload(out, TRANSPORT_HEADER, 2, 2);
    compare(out, operation, &port.to_be_bytes());
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn address(out: &mut Vec<u8>, family: Family, side: Side, operation: u32, network: &IpNet) {
    let offset = match (family, side) {
        (Family::V4, Side::Source) => 12,
        (Family::V4, Side::Destination) => 16,
        (Family::V6, Side::Source) => 8,
        (Family::V6, Side::Destination) => 24,
    };
    let (address, mask) = match network {
        IpNet::V4(network) => (network.network().octets().to_vec(), network.netmask().octets().to_vec()),
        IpNet::V6(network) => (network.network().octets().to_vec(), network.netmask().octets().to_vec()),
    };
    let length = u32::try_from(address.len()).unwrap_or(0);
    payload(out, NETWORK_HEADER, offset, length);
    if network.prefix_len() < network.max_prefix_len() {
        expression(out, "bitwise", |out| {
            number(out, 1, REG);
            number(out, 2, REG);
            number(out, 3, length);
            nest(out, 4, |out| attribute(out, 1, &mask));
            nest(out, 5, |out| attribute(out, 1, &vec![0; mask.len()]));
        });
    }
    compare(out, operation, &address);
}

fn verdict(out: &mut Vec<u8>, verdict: Verdict) {
    match verdict {
        Verdict::Return => decide(out, RETURN, None),
        Verdict::Jump(chain) => decide(out, JUMP, Some(chain)),
        Verdict::Redirect(port) => {
            expression(out, "immediate", |out| {
                number(out, 1, REG);
                nest(out, 2, |out| attribute(out, 1, &port.to_be_bytes()));
            });
            expression(out, "redir", |out| number(out, 1, REG));
        }
    }
}

fn decide(out: &mut Vec<u8>, code: i32, chain: Option<ChainName>) {
    expression(out, "immediate", |out| {
        number(out, 1, REG_VERDICT);
        nest(out, 2, |out| {
            nest(out, 2, |out| {
                attribute(out, 1, &code.to_be_bytes());
                if let Some(chain) = chain {
                    text(out, 2, chain.nft());
                }
            });
        });
    });
}

/// A request (rtnetlink) that adds a /128 to the loopback interface, which has index 1 in every namespace.
pub(super) fn new_loopback_address(address: std::net::Ipv6Addr) -> Vec<u8> {
    const RTM_NEWADDR: u16 = 20;
    const AF_INET6: u8 = 10;
    const IFA_F_NODAD: u8 = 2;
    const HOST: u8 = 254;
    let mut out = Vec::new();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&RTM_NEWADDR.to_ne_bytes());
    out.extend_from_slice(&(REQUEST | ACK | CREATE).to_ne_bytes());
    out.extend_from_slice(&1_u32.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    // ifaddrmsg: family, prefix length, flags, scope, interface
    out.extend_from_slice(&[AF_INET6, 128, IFA_F_NODAD, HOST]);
    out.extend_from_slice(&1_u32.to_ne_bytes());
    // IFA_ADDRESS, IFA_LOCAL
    attribute(&mut out, 1, &address.octets());
    attribute(&mut out, 2, &address.octets());
    close_u32(&mut out, 0);
    out
}

/// One message of an answer.
pub(super) struct Answer {
    /// Its length with padding.
    pub(super) length: usize,
    /// The request that it is about.
    pub(super) sequence: u32,
    /// For acknowledgements: 0 or an error number (positive).
    pub(super) error: Option<i32>,
}

/// Reads the first message of an answer.
pub(super) fn answer(bytes: &[u8]) -> Option<Answer> {
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
