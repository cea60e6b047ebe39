//! The rules in a real kernel: two network namespaces joined by a veth pair, one of them captured. Skipped with a reason where
//! namespaces cannot be made. (B3)

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly; unsharing a namespace and changing a thread's user have no safe call"
)]

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser as _;
use mizzen_redirect::{Capture, Family, Options, RedirectError, Ruleset, apply, remove};
use socket2::SockRef;

const LIMIT: Duration = Duration::from_secs(5);

/// Runs a program in this thread's namespace.
fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh runs");
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A thread in a network namespace of its own runs `body`; `None` when namespaces cannot be made here.
fn in_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    thread::spawn(move || {
        // SAFETY: only this thread changes its namespace; the flag makes no promise about memory.
        let made = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
        if !made || Command::new("ip").arg("-V").output().is_err() {
            eprintln!("skipped: needs root, network namespaces and the program `ip`");
            return None;
        }
        sh("ip link set lo up");
        Some(body())
    })
    .join()
    .unwrap()
}

/// Connects as another user.
fn connect_as(uid: u32, address: &'static str) -> std::io::Result<TcpStream> {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: the raw calls change the ids of this thread alone, which then ends.
                unsafe {
                    libc::syscall(libc::SYS_setresgid, uid, uid, uid);
                    libc::syscall(libc::SYS_setresuid, uid, uid, uid);
                }
                TcpStream::connect_timeout(&address.parse().unwrap(), LIMIT)
            })
            .join()
            .unwrap()
    })
}

fn original(stream: &TcpStream) -> SocketAddr {
    let socket = SockRef::from(stream);
    let address = if stream.local_addr().unwrap().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    address.unwrap().as_socket().unwrap()
}

fn program(options: &Options) {
    let rulesets = [Family::V4, Family::V6].map(|family| Ruleset::new(options, family));
    apply(&rulesets.iter().collect::<Vec<_>>()).unwrap();
}

/// The captured pod is 10.9.0.1, its neighbour 10.9.0.2.
fn with_neighbour(options: Options, body: impl FnOnce() + Send + 'static, neighbour: impl FnOnce() + Send + 'static) {
    let _ = in_namespace(move || {
        let (thread_tx, thread_rx) = mpsc::channel();
        let (ready_tx, ready_rx) = mpsc::channel();
        let (go_tx, go_rx) = mpsc::channel::<()>();
        let (done_tx, done_rx) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            // SAFETY: as above.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            // SAFETY: takes nothing and cannot fail.
            thread_tx.send(unsafe { libc::gettid() }).unwrap();
            go_rx.recv().unwrap();
            sh(
                "ip link set lo up; ip addr add 10.9.0.2/24 dev v1; ip -6 addr add fd09::2/64 dev v1 nodad; ip link set v1 up",
            );
            ready_tx.send(()).unwrap();
            neighbour();
            // With this thread its namespace ends, and the link with it.
            let _body_ended = done_rx.recv();
        });
        let tid: i32 = thread_rx.recv().unwrap();
        sh(&format!(
            "ip link add v0 type veth peer name v1; ip link set v1 netns {tid}"
        ));
        sh("ip addr add 10.9.0.1/24 dev v0; ip -6 addr add fd09::1/64 dev v0 nodad; ip link set v0 up");
        sh("ip route add default via 10.9.0.2; ip -6 route add default via fd09::2");
        program(&options);
        go_tx.send(()).unwrap();
        ready_rx.recv().unwrap();
        body();
        drop(done_tx);
        other.join().unwrap();
    });
}

#[test]
fn outbound_connection_arrives_at_15001_with_its_destination() {
    with_neighbour(
        Options::default(),
        || {
            for (listen, target) in [("0.0.0.0:15001", "192.0.2.7:81"), ("[::]:15001", "[2001:db8::7]:82")] {
                let listener = TcpListener::bind(listen).unwrap();
                let _client = TcpStream::connect_timeout(&target.parse().unwrap(), LIMIT).unwrap();
                assert_eq!(original(&listener.accept().unwrap().0), target.parse().unwrap());
            }
        },
        || {},
    );
}

#[test]
fn the_sidecars_own_connection_leaves() {
    let (up_tx, up_rx) = mpsc::channel();
    with_neighbour(
        Options::default(),
        move || {
            up_rx.recv().unwrap();
            let mut said = String::new();
            connect_as(1337, "10.9.0.2:83")
                .unwrap()
                .read_to_string(&mut said)
                .unwrap();
            assert_eq!(said, "neighbour");
        },
        move || {
            let listener = TcpListener::bind("10.9.0.2:83").unwrap();
            up_tx.send(()).unwrap();
            let mut stream = listener.accept().unwrap().0;
            std::io::Write::write_all(&mut stream, b"neighbour").unwrap();
        },
    );
}

#[test]
fn inbound_connection_arrives_at_15006_and_excluded_ports_do_not() {
    let (up_tx, up_rx) = mpsc::channel();
    with_neighbour(
        Options::default(),
        move || {
            let captured = TcpListener::bind("0.0.0.0:15006").unwrap();
            let plain = TcpListener::bind("0.0.0.0:15021").unwrap();
            up_tx.send(()).unwrap();
            assert_eq!(
                original(&captured.accept().unwrap().0),
                "10.9.0.1:8080".parse().unwrap()
            );
            assert_eq!(
                plain.accept().unwrap().0.local_addr().unwrap(),
                "10.9.0.1:15021".parse().unwrap()
            );
        },
        move || {
            up_rx.recv().unwrap();
            let _captured = TcpStream::connect_timeout(&"10.9.0.1:8080".parse().unwrap(), LIMIT).unwrap();
            let _plain = TcpStream::connect_timeout(&"10.9.0.1:15021".parse().unwrap(), LIMIT).unwrap();
        },
    );
}

#[test]
fn loopback_is_left_alone_but_for_the_sidecars_calls_to_the_pods_address() {
    with_neighbour(
        Options::default(),
        || {
            let app = TcpListener::bind("0.0.0.0:84").unwrap();
            // The application calls itself by loopback and by the pod's address; the sidecar calls it by loopback and from 127.0.0.6.
            for target in ["127.0.0.1:84", "10.9.0.1:84"] {
                let _client = TcpStream::connect_timeout(&target.parse().unwrap(), LIMIT).unwrap();
                assert_eq!(app.accept().unwrap().0.local_addr().unwrap(), target.parse().unwrap());
            }
            let _client = connect_as(1337, "127.0.0.1:84").unwrap();
            app.accept().unwrap();
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket
                .bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 6), 0)).into())
                .unwrap();
            socket
                .connect(&SocketAddr::from((Ipv4Addr::new(10, 9, 0, 1), 84)).into())
                .unwrap();
            assert_eq!(app.accept().unwrap().1.ip(), Ipv4Addr::new(127, 0, 0, 6));
            // The sidecar calls the pod's own address: the application called itself by its service.
            let inbound = TcpListener::bind("0.0.0.0:15006").unwrap();
            let _client = connect_as(1337, "10.9.0.1:84").unwrap();
            assert_eq!(original(&inbound.accept().unwrap().0), "10.9.0.1:84".parse().unwrap());
        },
        || {},
    );
}

#[test]
fn only_what_is_named_is_captured() {
    let (up_tx, up_rx) = mpsc::channel();
    let options = Options {
        outbound: Capture::Only(vec!["192.0.2.0/24".parse().unwrap()]),
        outbound_excluded: vec!["192.0.2.128/25".parse().unwrap(), "10.9.0.2/32".parse().unwrap()],
        outbound_ports_excluded: vec![85],
        outbound_ports: vec![86],
        ..Options::default()
    };
    with_neighbour(
        options,
        move || {
            up_rx.recv().unwrap();
            let listener = TcpListener::bind("0.0.0.0:15001").unwrap();
            for target in ["192.0.2.7:80", "198.51.100.7:86"] {
                let _client = TcpStream::connect_timeout(&target.parse().unwrap(), LIMIT).unwrap();
                assert_eq!(original(&listener.accept().unwrap().0), target.parse().unwrap());
            }
            let direct = TcpStream::connect_timeout(&"10.9.0.2:87".parse().unwrap(), LIMIT).unwrap();
            assert_eq!(direct.peer_addr().unwrap(), "10.9.0.2:87".parse().unwrap());
            // Nobody listens there; captured, it would be accepted.
            let refused = TcpStream::connect_timeout(&"10.9.0.2:85".parse().unwrap(), LIMIT);
            assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        },
        move || {
            let listener = TcpListener::bind("10.9.0.2:87").unwrap();
            up_tx.send(()).unwrap();
            listener.accept().unwrap();
            thread::sleep(Duration::from_millis(200));
        },
    );
}

#[test]
fn ipv6_connection_from_the_passthrough_address_reaches_the_application() {
    with_neighbour(
        Options::default(),
        || {
            let line = ["redirect", "-i", "*", "-b", "*"];
            let args = Command6::parse_from(line).args;
            for _ in 0..2 {
                let mut said = Vec::new();
                mizzen_redirect::run(&args, &mut said).unwrap();
                let said = String::from_utf8(said).unwrap();
                assert!(
                    said.contains("(table mizzen, ip, ip6)") && !said.contains("not passed"),
                    "{said}"
                );
            }
            // The address can be used once the link is up at both ends.
            let mut tries = (0..100).map(|_| {
                thread::sleep(Duration::from_millis(20));
                TcpListener::bind("[fd09::1]:84")
            });
            let app = tries.find_map(Result::ok).expect("the address comes up");
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
            socket.bind(&"[::6]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            socket
                .connect(&"[fd09::1]:84".parse::<SocketAddr>().unwrap().into())
                .unwrap();
            assert_eq!(app.accept().unwrap().1.ip(), "::6".parse::<std::net::IpAddr>().unwrap());
        },
        || {},
    );
}

#[derive(clap::Parser)]
struct Command6 {
    #[command(flatten)]
    args: mizzen_redirect::Args,
}

#[test]
fn applying_again_changes_nothing_and_removing_leaves_nothing() {
    let _ = in_namespace(|| {
        let listed = || {
            Command::new("nft")
                .args(["list", "ruleset"])
                .output()
                .map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
        };
        program(&Options {
            virtual_interfaces: vec!["tap0".to_owned()],
            ..Options::default()
        });
        program(&Options::default());
        let first = listed();
        program(&Options::default());
        let second = listed();
        remove(&[Family::V4, Family::V6]).unwrap();
        remove(&[Family::V4, Family::V6]).unwrap();
        let third = listed();
        if let (Ok(first), Ok(second), Ok(third)) = (first, second, third) {
            assert_eq!(first, second);
            assert!(first.contains("table ip6 mizzen"));
            assert!(!first.contains("tap0"), "old rules are gone");
            assert_eq!(third.trim(), "");
        } else {
            eprintln!("partly skipped: the program `nft` is not here");
        }
    });
}

#[test]
fn what_the_kernel_lists_is_what_dry_run_prints() {
    let _ = in_namespace(|| {
        let options = Options {
            outbound: Capture::Only(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]),
            outbound_ports_excluded: vec![88],
            excluded_interfaces: vec!["eth9".to_owned()],
            virtual_interfaces: vec!["tap0".to_owned()],
            ..Options::default()
        };
        for family in [Family::V4, Family::V6] {
            let ruleset = Ruleset::new(&options, family);
            let line = format!("nft list table {} mizzen", family.nft());
            apply(&[&ruleset]).unwrap();
            if Command::new("nft").arg("-v").output().is_err() {
                eprintln!("skipped: the program `nft` is not here");
                return;
            }
            let programmed = sh(&line);
            sh(&format!("nft -f - <<'END'\n{}END", ruleset.nft()));
            assert_eq!(programmed, sh(&line));
        }
    });
}

#[test]
fn missing_right_is_told_with_its_remedy() {
    let result = thread::spawn(|| {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        apply(&[&Ruleset::new(&Options::default(), Family::V4)])
    })
    .join()
    .unwrap();
    let error = result.unwrap_err();
    assert!(matches!(error, RedirectError::Permission));
    assert!(error.to_string().contains("NET_ADMIN"));
}
