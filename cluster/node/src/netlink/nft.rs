//! Service addresses as nf_tables rules (linux/netfilter/nf_tables.h): destination NAT to the endpoints, rejection where there are
//! none, masquerade of what comes back to its sender. One batch, which the kernel takes whole or not at all.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use rustix::net::netlink;

use super::{APPEND, Batch, CREATE, NetlinkError, Socket, attribute, nest, text};
use crate::services::{Frontend, Rules};

const TABLE: &str = "cluster";
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

const META_IIFNAME: u32 = 6;
const META_L4PROTO: u32 = 16;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const JUMP: i32 = -3;

/// Replaces all rules in the network namespace of the caller.
pub(crate) fn apply(rules: &Rules) -> Result<(), NetlinkError> {
    Socket::open(Some(netlink::NETFILTER))?.send(&encode(rules))
}

fn encode(rules: &Rules) -> Batch {
    let mut batch = Batch::new();
    batch.bare(16, super::REQUEST, 0, |out| {
        out.extend_from_slice(&[0, 0, 0, SUBSYSTEM as u8]);
    });
    // Making it first makes sure that there is something to delete.
    table(&mut batch, NEW_TABLE, CREATE);
    table(&mut batch, DELETE_TABLE, 0);
    table(&mut batch, NEW_TABLE, CREATE);

    chain(&mut batch, "services", None);
    // NF_INET_PRE_ROUTING 0, FORWARD 2, LOCAL_OUT 3, POST_ROUTING 4; NF_IP_PRI_NAT_DST -100, FILTER 0, NAT_SRC 100
    chain(&mut batch, "prerouting", Some(("nat", 0, -100)));
    chain(&mut batch, "output", Some(("nat", 3, -100)));
    chain(&mut batch, "postrouting", Some(("nat", 4, 100)));
    chain(&mut batch, "reject", None);
    chain(&mut batch, "filter-forward", Some(("filter", 2, 0)));
    chain(&mut batch, "filter-output", Some(("filter", 3, 0)));

    for (number, frontend) in rules.frontends.iter().enumerate() {
        match frontend.backends.as_slice() {
            [] => rule(&mut batch, "reject", |out| {
                frontend_match(out, frontend);
                // NFT_REJECT_ICMP_UNREACH, port unreachable: as a closed port answers
                expression(out, "reject", |out| {
                    number_attribute(out, 1, 0);
                    attribute(out, 2, &[3]);
                });
            }),
            [only] => rule(&mut batch, "services", |out| {
                frontend_match(out, frontend);
                destination_nat(out, *only);
            }),
            several => {
                let name = format!("service-{number}");
                chain(&mut batch, &name, None);
                for (index, backend) in several.iter().enumerate() {
                    let left = several.len() - index;
                    rule(&mut batch, &name, |out| {
                        // The protocol says how a port is read.
                        meta(out, META_L4PROTO, &[frontend.protocol.number()]);
                        if left > 1 {
                            one_in(out, left);
                        }
                        destination_nat(out, *backend);
                    });
                }
                rule(&mut batch, "services", |out| {
                    frontend_match(out, frontend);
                    jump(out, &name);
                });
            }
        }
    }
    for chain in ["prerouting", "output"] {
        rule(&mut batch, chain, |out| jump(out, "services"));
    }
    for chain in ["filter-forward", "filter-output"] {
        rule(&mut batch, chain, |out| jump(out, "reject"));
    }
    for address in rules.backends() {
        rule(&mut batch, "postrouting", |out| {
            for offset in [12, 16] {
                payload(out, 1, offset, 4);
                compare(out, EQUAL, &address.octets());
            }
            expression(out, "masq", |_| {});
        });
    }
    if let Some(outside) = &rules.outside {
        rule(&mut batch, "prerouting", |out| {
            let mut name = [0; 16];
            for (place, byte) in name.iter_mut().zip(outside.bridge.bytes().take(15)) {
                *place = byte;
            }
            meta(out, META_IIFNAME, &name);
            meta(out, META_L4PROTO, &[6]);
            for network in &outside.inside {
                not_to(out, *network);
            }
            immediate(out, 1, &outside.port.to_be_bytes());
            expression(out, "redir", |out| number_attribute(out, 1, 1));
        });
    }
    let last = u32::try_from(batch.steps.len()).unwrap_or(u32::MAX).saturating_add(1);
    batch.bare(17, super::REQUEST, last, |out| {
        out.extend_from_slice(&[0, 0, 0, SUBSYSTEM as u8]);
    });
    batch
}

/// `nfgenmsg` of family ipv4
fn family(out: &mut Vec<u8>) {
    out.extend_from_slice(&[2, 0, 0, 0]);
}

fn table(batch: &mut Batch, kind: u16, flags: u16) {
    batch.message(kind, flags, format!("table {TABLE}"), |out| {
        family(out);
        text(out, 1, TABLE);
    });
}

fn chain(batch: &mut Batch, name: &str, hook: Option<(&str, u32, i32)>) {
    batch.message(NEW_CHAIN, CREATE, format!("chain {name}"), |out| {
        family(out);
        text(out, 1, TABLE);
        text(out, 3, name);
        if let Some((kind, hook, priority)) = hook {
            nest(out, 4, |out| {
                attribute(out, 1, &hook.to_be_bytes());
                attribute(out, 2, &priority.to_be_bytes());
            });
            // NF_ACCEPT
            attribute(out, 5, &1_u32.to_be_bytes());
            text(out, 7, kind);
        }
    });
}

fn rule(batch: &mut Batch, chain: &str, fill: impl FnOnce(&mut Vec<u8>)) {
    batch.message(NEW_RULE, CREATE | APPEND, format!("rule of chain {chain}"), |out| {
        family(out);
        text(out, 1, TABLE);
        text(out, 2, chain);
        nest(out, 4, fill);
    });
}

fn expression(out: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
    nest(out, 1, |out| {
        text(out, 1, name);
        nest(out, 2, fill);
    });
}

fn number_attribute(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, &value.to_be_bytes());
}

fn frontend_match(out: &mut Vec<u8>, frontend: &Frontend) {
    meta(out, META_L4PROTO, &[frontend.protocol.number()]);
    payload(out, 1, 16, 4);
    compare(out, EQUAL, &frontend.address.octets());
    payload(out, 2, 2, 2);
    compare(out, EQUAL, &frontend.port.to_be_bytes());
}

fn not_to(out: &mut Vec<u8>, network: Ipv4Net) {
    payload(out, 1, 16, 4);
    expression(out, "bitwise", |out| {
        number_attribute(out, 1, 1);
        number_attribute(out, 2, 1);
        number_attribute(out, 3, 4);
        nest(out, 4, |out| attribute(out, 1, &network.netmask().octets()));
        nest(out, 5, |out| attribute(out, 1, &[0; 4]));
    });
    compare(out, NOT_EQUAL, &network.network().octets());
}

fn meta(out: &mut Vec<u8>, key: u32, value: &[u8]) {
    expression(out, "meta", |out| {
        number_attribute(out, 2, key);
        number_attribute(out, 1, 1);
    });
    compare(out, EQUAL, value);
}

fn compare(out: &mut Vec<u8>, operation: u32, value: &[u8]) {
    expression(out, "cmp", |out| {
        number_attribute(out, 1, 1);
        number_attribute(out, 2, operation);
        nest(out, 3, |out| attribute(out, 1, value));
    });
}

fn payload(out: &mut Vec<u8>, base: u32, offset: u32, length: u32) {
    expression(out, "payload", |out| {
        number_attribute(out, 1, 1);
        number_attribute(out, 2, base);
        number_attribute(out, 3, offset);
        number_attribute(out, 4, length);
    });
}

/// Goes on with the rule once in `count` times.
fn one_in(out: &mut Vec<u8>, count: usize) {
    expression(out, "numgen", |out| {
        number_attribute(out, 1, 1);
        number_attribute(out, 2, u32::try_from(count).unwrap_or(u32::MAX));
        // NFT_NG_RANDOM
        number_attribute(out, 3, 1);
        number_attribute(out, 4, 0);
    });
    compare(out, EQUAL, &0_u32.to_ne_bytes());
}

fn immediate(out: &mut Vec<u8>, register: u32, value: &[u8]) {
    expression(out, "immediate", |out| {
        number_attribute(out, 1, register);
        nest(out, 2, |out| attribute(out, 1, value));
    });
}

fn destination_nat(out: &mut Vec<u8>, to: SocketAddrV4) {
    immediate(out, 1, &Ipv4Addr::octets(to.ip()));
    immediate(out, 2, &to.port().to_be_bytes());
    expression(out, "nat", |out| {
        // NFT_NAT_DNAT, NFPROTO_IPV4; address and port are in registers 1 and 2
        number_attribute(out, 1, 1);
        number_attribute(out, 2, 2);
        number_attribute(out, 3, 1);
        number_attribute(out, 5, 2);
    });
}

fn jump(out: &mut Vec<u8>, chain: &str) {
    expression(out, "immediate", |out| {
        number_attribute(out, 1, 0);
        nest(out, 2, |out| {
            nest(out, 2, |out| {
                attribute(out, 1, &JUMP.to_be_bytes());
                text(out, 2, chain);
            });
        });
    });
}
