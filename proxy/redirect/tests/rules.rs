//! The rules as text: order and content are those of `istio-iptables`. (B3)

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use clap::Parser;
use mizzen_redirect::{Args, Family, Options, RedirectError, Ruleset, run};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn args(line: &[&str]) -> Args {
    Command::try_parse_from(["redirect"].iter().chain(line)).unwrap().args
}

const INJECTED: [&str; 16] = [
    "-p",
    "15001",
    "-z",
    "15006",
    "-u",
    "1337",
    "-m",
    "REDIRECT",
    "-i",
    "*",
    "-x",
    "",
    "-b",
    "*",
    "-d",
    "15090,15021,15020",
];

#[test]
fn injected_command_line_is_the_default() {
    assert_eq!(Options::try_from(&args(&INJECTED)).unwrap(), Options::default());
}

#[test]
fn nft_text_of_the_default() {
    let expected = "\
add table ip mizzen
delete table ip mizzen
table ip mizzen {
\tchain inbound-redirect {
\t\tmeta l4proto tcp redirect to :15006
\t}
\tchain outbound-redirect {
\t\tmeta l4proto tcp redirect to :15001
\t}
\tchain inbound {
\t\ttcp dport 15008 return
\t\ttcp dport 15090 return
\t\ttcp dport 15021 return
\t\ttcp dport 15020 return
\t\tmeta l4proto tcp jump inbound-redirect
\t}
\tchain outbound {
\t\toifname \"lo\" ip saddr 127.0.0.6 return
\t\toifname \"lo\" ip daddr != 127.0.0.1 tcp dport != 15008 meta skuid 1337 jump inbound-redirect
\t\toifname \"lo\" meta skuid != 1337 return
\t\tmeta skuid 1337 return
\t\toifname \"lo\" ip daddr != 127.0.0.1 tcp dport != 15008 meta skgid 1337 jump inbound-redirect
\t\toifname \"lo\" meta skgid != 1337 return
\t\tmeta skgid 1337 return
\t\tip daddr 127.0.0.1 return
\t\tjump outbound-redirect
\t}
\tchain prerouting {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\tmeta l4proto tcp jump inbound
\t}
\tchain output {
\t\ttype nat hook output priority -100; policy accept;
\t\tjump outbound
\t}
}
";
    assert_eq!(Ruleset::new(&Options::default(), Family::V4).nft(), expected);
}

#[test]
fn iptables_text_with_every_flag() {
    let args = args(&[
        "-p",
        "16001",
        "-z",
        "16006",
        "-u",
        "7",
        "-g",
        "8",
        "-b",
        "80,81",
        "-d",
        "82",
        "-i",
        "10.0.0.0/8,fd00::/8",
        "-x",
        "10.1.2.3/24",
        "-q",
        "90",
        "-o",
        "91",
        "-k",
        "tap0",
        "-c",
        "eth9",
    ]);
    let options = Options::try_from(&args).unwrap();
    let expected = "\
# iptables-restore --noflush
*nat
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_REDIRECT - [0:0]
:ISTIO_INBOUND - [0:0]
:ISTIO_OUTPUT - [0:0]
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 16006
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 16001
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 82 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 80 -j ISTIO_IN_REDIRECT
-A ISTIO_INBOUND -p tcp --dport 81 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -p tcp --dport 91 -j RETURN
-A ISTIO_OUTPUT -p udp --dport 91 -j RETURN
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 7 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 7 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 7 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 8 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 8 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 8 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -d 10.1.2.0/24 -j RETURN
-A ISTIO_OUTPUT -p tcp --dport 90 -j ISTIO_REDIRECT
-A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT
-A PREROUTING -i eth9 -j RETURN
-A PREROUTING -i tap0 -d 10.1.2.0/24 -j RETURN
-A PREROUTING -i tap0 -d 10.0.0.0/8 -j ISTIO_REDIRECT
-A PREROUTING -i tap0 -j RETURN
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT
COMMIT
";
    assert_eq!(Ruleset::new(&options, Family::V4).iptables(), expected);
    let v6 = Ruleset::new(&options, Family::V6).iptables();
    assert!(v6.contains("-A ISTIO_OUTPUT -o lo -s ::6/128 -j RETURN\n"));
    assert!(v6.contains("-A ISTIO_OUTPUT -d fd00::/8 -j ISTIO_REDIRECT\n"));
    assert!(!v6.contains("10.1.2.0"));
}

#[test]
fn empty_lists_capture_nothing() {
    let options = Options::try_from(&args(&["-b", "", "-i", ""])).unwrap();
    let text = Ruleset::new(&options, Family::V4).nft();
    assert!(!text.contains("jump outbound-redirect"));
    assert!(!text.contains("jump inbound\n"));
}

#[test]
fn bad_flags_are_named() {
    let fault = |line: &[&str]| Options::try_from(&args(line)).unwrap_err().to_string();
    assert_eq!(fault(&["-d", "80,x"]), "flag -d: `x` is not a port from 1 to 65535");
    assert_eq!(
        fault(&["-i", "10.0.0.0/33"]),
        "flag -i: `10.0.0.0/33` is not an address or a network in CIDR form"
    );
    assert_eq!(
        fault(&["-p", "15006", "-z", "15006"]),
        "flag -z: `15006` is not another port than that of -p"
    );
    assert_eq!(fault(&["-u", "root"]), "flag -u: `root` is not a numeric id");
    assert_eq!(fault(&["-c", "a b\"c"]), "flag -c: `a b\"c` is not an interface name");
    assert!(matches!(
        Options::try_from(&args(&["-m", "TPROXY"])),
        Err(RedirectError::Flag { flag: "-m", .. })
    ));
    assert!(matches!(
        Options::try_from(&args(&["-u", ""])),
        Err(RedirectError::Flag { flag: "-u", .. })
    ));
}

#[test]
fn dry_run_prints_both_families_and_changes_nothing() {
    let mut text = Vec::new();
    run(&args(&["--dry-run"]), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("table ip mizzen {") && text.contains("table ip6 mizzen {"));
    let mut text = Vec::new();
    run(&args(&["--dry-run=iptables"]), &mut text).unwrap();
    assert!(
        String::from_utf8(text)
            .unwrap()
            .contains("# ip6tables-restore --noflush")
    );
}

// B3, issue 4: an ordinary user's pods on one machine have but one user id.
#[test]
fn a_sidecar_without_a_user_of_its_own_is_known_by_its_sockets() {
    let options = Options::try_from(&args(&[&INJECTED[..], &["--proxy-priority", "6"]].concat())).unwrap();
    let text = Ruleset::new(&options, Family::V4).nft();
    for rule in [
        "tcp dport 15012 return",
        "oifname \"lo\" meta priority != 0:6 return",
        "meta priority 0:6 return",
    ] {
        assert!(text.lines().any(|line| line.trim() == rule), "{rule}: {text}");
    }
    assert!(!text.contains("skuid") && !text.contains("skgid"), "{text}");
    let dry = args(&[&INJECTED[..], &["--proxy-priority", "6", "--dry-run=iptables"]].concat());
    assert!(
        run(&dry, &mut Vec::new())
            .unwrap_err()
            .to_string()
            .contains("--proxy-priority")
    );
}
