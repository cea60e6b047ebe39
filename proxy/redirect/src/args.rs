//! The command line, with the flags that `istio-iptables` has.

use std::io::Write;
use std::path::Path;

use crate::options::{self, Options};
use crate::ruleset::{Family, Ruleset};
use crate::{RedirectError, netlink};

/// How `--dry-run` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// For `nft -f -`.
    Nft,
    /// For `iptables-restore` and `ip6tables-restore`.
    Iptables,
}

/// Sends a pod's traffic through its sidecar: programs nf_tables rules in the current network namespace.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  mizzen-proxy redirect -i '*' -b '*' -d 15090,15021,15020    what the init container of a pod runs
  mizzen-proxy redirect -i '*' -b '*' --dry-run               the rules, as nft reads them
  mizzen-proxy redirect --clean                               no rules any more")]
pub struct Args {
    /// Port that outbound connections are sent to
    #[arg(short = 'p', long = "envoy-port", default_value_t = 15001)]
    pub outbound_port: u16,
    /// Port that inbound connections are sent to
    #[arg(short = 'z', long = "inbound-capture-port", default_value_t = 15006)]
    pub inbound_port: u16,
    /// Users (comma-separated ids) whose connections are left alone: the sidecar's
    #[arg(short = 'u', long = "proxy-uid", default_value = "1337")]
    pub proxy_uid: String,
    /// Groups whose connections are left alone; default: as --proxy-uid
    #[arg(short = 'g', long = "proxy-gid")]
    pub proxy_gid: Option<String>,
    /// Instead of by users and groups, where a pod can have but one user: the priority of the sidecar's sockets, 1 to 6
    #[arg(long, env = "MIZZEN_SOCKET_PRIORITY", value_parser = clap::value_parser!(u32).range(1..=6))]
    pub proxy_priority: Option<u32>,
    /// How inbound connections are captured; only REDIRECT
    #[arg(short = 'm', long = "istio-inbound-interception-mode", default_value = "REDIRECT")]
    pub mode: String,
    /// Inbound ports to capture, comma-separated; `*` for all, empty for none
    #[arg(
        short = 'b',
        long = "istio-inbound-ports",
        default_value = "",
        allow_hyphen_values = true
    )]
    pub inbound_ports: String,
    /// Inbound ports to leave alone
    #[arg(short = 'd', long = "istio-local-exclude-ports", default_value = "")]
    pub inbound_ports_excluded: String,
    /// Outbound networks to capture, comma-separated; `*` for all, empty for none
    #[arg(short = 'i', long = "istio-service-cidr", default_value = "")]
    pub outbound_ranges: String,
    /// Outbound networks to leave alone
    #[arg(short = 'x', long = "istio-service-exclude-cidr", default_value = "")]
    pub outbound_ranges_excluded: String,
    /// Outbound ports to capture whatever the destination
    #[arg(short = 'q', long = "istio-outbound-ports", default_value = "")]
    pub outbound_ports: String,
    /// Outbound ports to leave alone
    #[arg(short = 'o', long = "istio-local-outbound-ports-exclude", default_value = "")]
    pub outbound_ports_excluded: String,
    /// Interfaces inside the pod whose inbound traffic counts as outbound
    #[arg(short = 'k', long = "kube-virt-interfaces", default_value = "")]
    pub virtual_interfaces: String,
    /// Interfaces whose inbound traffic is left alone
    #[arg(short = 'c', long = "istio-exclude-interfaces", default_value = "")]
    pub excluded_interfaces: String,
    /// Print the rules instead of programming them
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "nft")]
    pub dry_run: Option<DryRun>,
    /// Remove the rules
    #[arg(long)]
    pub clean: bool,
}

impl TryFrom<&Args> for Options {
    type Error = RedirectError;

    fn try_from(args: &Args) -> Result<Self, RedirectError> {
        if args.mode != "REDIRECT" {
            return Err(RedirectError::Flag {
                flag: "-m",
                value: args.mode.clone(),
                expected: "REDIRECT, the only mode so far (TPROXY is not implemented)",
            });
        }
        for (flag, port) in [("-p", args.outbound_port), ("-z", args.inbound_port)] {
            if port == 0 {
                return Err(RedirectError::Flag {
                    flag,
                    value: "0".to_owned(),
                    expected: "a port from 1 to 65535",
                });
            }
        }
        if args.outbound_port == args.inbound_port {
            // The sidecar tells by the port in which direction a connection goes.
            return Err(RedirectError::Flag {
                flag: "-z",
                value: args.inbound_port.to_string(),
                expected: "another port than that of -p",
            });
        }
        let uids = options::ids("-u", &args.proxy_uid)?;
        let gids = match &args.proxy_gid {
            Some(gids) => options::ids("-g", gids)?,
            None => uids.clone(),
        };
        if uids.is_empty() && gids.is_empty() {
            // Without them the sidecar would capture its own connections.
            return Err(RedirectError::Flag {
                flag: "-u",
                value: String::new(),
                expected: "at least one id",
            });
        }
        Ok(Self {
            outbound_port: args.outbound_port,
            inbound_port: args.inbound_port,
            uids,
            gids,
            priority: args.proxy_priority,
            inbound: options::capture("-b", &args.inbound_ports, options::ports)?,
            inbound_excluded: options::ports("-d", &args.inbound_ports_excluded)?,
            outbound: options::capture("-i", &args.outbound_ranges, options::networks)?,
            outbound_excluded: options::networks("-x", &args.outbound_ranges_excluded)?,
            outbound_ports: options::ports("-q", &args.outbound_ports)?,
            outbound_ports_excluded: options::ports("-o", &args.outbound_ports_excluded)?,
            virtual_interfaces: options::interfaces("-k", &args.virtual_interfaces)?,
            excluded_interfaces: options::interfaces("-c", &args.excluded_interfaces)?,
        })
    }
}

/// Does what the command line says, in the current network namespace, and tells on `out` what was done.
/// Running it again gives the same rules.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), RedirectError> {
    let options = Options::try_from(args)?;
    let rulesets = [Family::V4, Family::V6].map(|family| Ruleset::new(&options, family));
    if let Some(format) = args.dry_run {
        if let (DryRun::Iptables, Some(priority)) = (format, options.priority) {
            return Err(RedirectError::Flag {
                flag: "--proxy-priority",
                value: priority.to_string(),
                expected: "none with --dry-run=iptables, which cannot match priorities",
            });
        }
        for ruleset in &rulesets {
            let text = match format {
                DryRun::Nft => ruleset.nft(),
                DryRun::Iptables => ruleset.iptables(),
            };
            out.write_all(text.as_bytes())?;
        }
        return Ok(());
    }
    // The file is absent where IPv6 is compiled out or disabled at boot; then there is nothing to capture either.
    let ipv6 = Path::new("/proc/net/if_inet6").exists();
    let active: Vec<&Ruleset> = rulesets
        .iter()
        .filter(|ruleset| ipv6 || ruleset.family == Family::V4)
        .collect();
    let families = if ipv6 { "ip, ip6" } else { "ip" };
    if args.clean {
        netlink::remove(&active.iter().map(|ruleset| ruleset.family).collect::<Vec<_>>())?;
        writeln!(out, "redirect: rules removed (table {}, {families})", crate::TABLE)?;
        return Ok(());
    }
    netlink::apply(&active)?;
    if ipv6 && let Err(error) = netlink::add_passthrough_address() {
        // Where IPv6 is switched off for lo there are no IPv6 connections to pass through either.
        writeln!(out, "redirect: IPv6 is not passed through: {error}")?;
    }
    let count: usize = active.iter().map(|ruleset| ruleset.rules()).sum();
    writeln!(
        out,
        "redirect: {count} rules programmed (table {}, {families}): inbound to {}, outbound to {}",
        crate::TABLE,
        options.inbound_port,
        options.outbound_port
    )?;
    Ok(())
}
