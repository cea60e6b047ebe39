//! The rules as text, for people and for kernels without nf_tables.

use std::fmt::Write;

use crate::ruleset::{Chain, ChainName, Family, Hook, Match, Rule, Ruleset, TABLE, Verdict};

impl ChainName {
    /// In our own table.
    pub fn nft(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
            Self::Inbound => "inbound",
            Self::InboundRedirect => "inbound-redirect",
            Self::Outbound => "outbound",
            Self::OutboundRedirect => "outbound-redirect",
        }
    }

    fn iptables(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Output => "OUTPUT",
            Self::Inbound => "ISTIO_INBOUND",
            Self::InboundRedirect => "ISTIO_IN_REDIRECT",
            Self::Outbound => "ISTIO_OUTPUT",
            Self::OutboundRedirect => "ISTIO_REDIRECT",
        }
    }
}

impl Family {
    /// As nft calls it.
    pub fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

impl Ruleset {
    /// For `nft -f -`. Loading it twice gives the same rules.
    pub fn nft(&self) -> String {
        let family = self.family.nft();
        let mut text =
            format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n");
        for chain in &self.chains {
            let _ = writeln!(text, "\tchain {} {{", chain.name.nft());
            if let Some(hook) = chain.hook {
                let hook = match hook {
                    Hook::Prerouting => "prerouting",
                    Hook::Output => "output",
                };
                let _ = writeln!(text, "\t\ttype nat hook {hook} priority -100; policy accept;");
            }
            for rule in &chain.rules {
                let _ = writeln!(text, "\t\t{}", self.nft_rule(rule));
            }
            text.push_str("\t}\n");
        }
        text.push_str("}\n");
        text
    }

    fn nft_rule(&self, rule: &Rule) -> String {
        let family = self.family.nft();
        let mut parts = Vec::new();
        let mut protocol = "tcp";
        for (index, condition) in rule.matches.iter().enumerate() {
            parts.push(match condition {
                Match::InInterface(name) => format!("iifname \"{name}\""),
                Match::OutInterface(name) => format!("oifname \"{name}\""),
                Match::Tcp | Match::Udp => {
                    protocol = if *condition == Match::Tcp { "tcp" } else { "udp" };
                    // A port condition says the protocol itself.
                    if matches!(rule.matches.get(index + 1), Some(Match::Port(_) | Match::NotPort(_))) {
                        continue;
                    }
                    format!("meta l4proto {protocol}")
                }
                Match::Source(network) => format!("{family} saddr {}", shortest(network)),
                Match::Destination(network) => format!("{family} daddr {}", shortest(network)),
                Match::NotDestination(network) => format!("{family} daddr != {}", shortest(network)),
                Match::Port(port) => format!("{protocol} dport {port}"),
                Match::NotPort(port) => format!("{protocol} dport != {port}"),
                Match::Uid(id) => format!("meta skuid {id}"),
                Match::NotUid(id) => format!("meta skuid != {id}"),
                Match::Gid(id) => format!("meta skgid {id}"),
                Match::NotGid(id) => format!("meta skgid != {id}"),
                // A class, as tc writes it.
                Match::Priority(priority) => format!("meta priority 0:{priority:x}"),
                Match::NotPriority(priority) => format!("meta priority != 0:{priority:x}"),
            });
        }
        parts.push(match rule.verdict {
            Verdict::Return => "return".to_owned(),
            Verdict::Jump(chain) => format!("jump {}", chain.nft()),
            Verdict::Redirect(port) => format!("redirect to :{port}"),
        });
        parts.join(" ")
    }

    /// For `iptables-restore --noflush` (IPv4) or `ip6tables-restore --noflush` (IPv6).
    pub fn iptables(&self) -> String {
        let tool = match self.family {
            Family::V4 => "iptables-restore",
            Family::V6 => "ip6tables-restore",
        };
        let mut text = format!("# {tool} --noflush\n*nat\n");
        for chain in self.chains.iter().filter(|chain| chain.hook.is_none()) {
            let _ = writeln!(text, ":{} - [0:0]", chain.name.iptables());
        }
        for chain in &self.chains {
            for rule in &chain.rules {
                let _ = writeln!(text, "{}", iptables_rule(chain, rule));
            }
        }
        text.push_str("COMMIT\n");
        text
    }
}

fn iptables_rule(chain: &Chain, rule: &Rule) -> String {
    let mut parts = vec![format!("-A {}", chain.name.iptables())];
    parts.extend(rule.matches.iter().map(|condition| match condition {
        Match::InInterface(name) => format!("-i {name}"),
        Match::OutInterface(name) => format!("-o {name}"),
        Match::Tcp => "-p tcp".to_owned(),
        Match::Udp => "-p udp".to_owned(),
        Match::Source(network) => format!("-s {network}"),
        Match::Destination(network) => format!("-d {network}"),
        Match::NotDestination(network) => format!("! -d {network}"),
        Match::Port(port) => format!("--dport {port}"),
        Match::NotPort(port) => format!("! --dport {port}"),
        Match::Uid(id) => format!("-m owner --uid-owner {id}"),
        Match::NotUid(id) => format!("-m owner ! --uid-owner {id}"),
        Match::Gid(id) => format!("-m owner --gid-owner {id}"),
        Match::NotGid(id) => format!("-m owner ! --gid-owner {id}"),
        // No match of iptables; it is refused before.
        Match::Priority(priority) => format!("-m priority --priority {priority}"),
        Match::NotPriority(priority) => format!("-m priority ! --priority {priority}"),
    }));
    parts.push(match rule.verdict {
        Verdict::Return => "-j RETURN".to_owned(),
        Verdict::Jump(chain) => format!("-j {}", chain.iptables()),
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
    });
    parts.join(" ")
}

/// Single addresses without the prefix length, as nft lists them.
fn shortest(network: &ipnet::IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}
