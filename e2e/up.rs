//! The life of `mizzen up`, seen from outside: what is there while it runs, and that nothing is there afterwards, however it ended.
//! As root each case runs for root and for an ordinary user, else for the user who runs it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly, its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MIZZEN: &str = env!("CARGO_BIN_EXE_mizzen");
/// A debug build on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(180);
const NOBODY: u32 = 65534;

/// A place for the state of one case, and who runs it.
struct Case {
    home: tempfile::TempDir,
    user: Option<u32>,
}

/// The case for every user that can be tried here.
fn for_each_user(case: impl Fn(&Case)) {
    let users = if rustix::process::geteuid().is_root() {
        vec![None, Some(NOBODY)]
    } else {
        vec![None]
    };
    for user in users {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(user) = user {
            chown(home.path(), Some(user), Some(user)).unwrap();
        }
        let one = Case { home, user };
        case(&one);
        let _ = one.mizzen(&["down"]).output();
    }
}

impl Case {
    fn mizzen(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(MIZZEN);
        command
            .args(arguments)
            .env("XDG_STATE_HOME", self.home.path())
            // An Envoy of the tests' own user: another could not run it.
            .env_remove("MIZZEN_ENVOY")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        command.current_dir("/");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("mizzen/default")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.mizzen(arguments).output().unwrap()
    }

    /// Starts it in the foreground.
    fn up(&self, arguments: &[&str]) -> Running {
        let arguments = [&["up"], arguments].concat();
        let child = self
            .mizzen(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running { child }
    }
}

struct Running {
    child: Child,
}

impl Running {
    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Everything that it runs, now.
    fn everything(&self) -> Everything {
        Everything::below(self.child.id())
    }

    fn wait_for(&mut self, what: &str, mut done: impl FnMut() -> bool) {
        wait_for(what, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{what}: up ended meanwhile: {status}: {}", said(&mut self.child));
            }
            done()
        });
    }

    fn ended(&mut self) -> (bool, String) {
        let mut status = None;
        wait_for("its end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap().success(), said(&mut self.child))
    }
}

fn said(child: &mut Child) -> String {
    let mut text = String::new();
    let _ = child.stdout.take().unwrap().read_to_string(&mut text);
    let _ = child.stderr.take().unwrap().read_to_string(&mut text);
    text
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes with their start times, and the namespaces that are theirs and not ours.
struct Everything {
    processes: BTreeSet<(u32, String)>,
    namespaces: BTreeSet<PathBuf>,
}

/// Parent and start time.
fn stat(pid: u32) -> Option<(u32, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // A zombie is gone; whose it is shows nothing of it is left.
    (fields[0] != "Z").then_some(())?;
    Some((fields[1].parse().ok()?, fields[19].to_owned()))
}

/// In the unit of start times.
fn moment() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let (seconds, hundredths) = text.split_whitespace().next().unwrap().split_once('.').unwrap();
    seconds.parse::<u64>().unwrap() * 100 + hundredths.parse::<u64>().unwrap()
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn namespaces(pid: u32) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/ns")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

impl Everything {
    fn below(root: u32) -> Self {
        let all: BTreeMap<u32, (u32, String)> = pids().filter_map(|pid| Some((pid, stat(pid)?))).collect();
        let mut found = BTreeSet::from([root]);
        loop {
            let more: Vec<u32> = all
                .iter()
                .filter(|(pid, (parent, _))| found.contains(parent) && !found.contains(pid))
                .map(|(p, _)| *p)
                .collect();
            if more.is_empty() {
                break;
            }
            found.extend(more);
        }
        let own = namespaces(std::process::id());
        let theirs = found
            .iter()
            .flat_map(|pid| namespaces(*pid))
            .filter(|namespace| !own.contains(namespace))
            .collect();
        let processes = found
            .into_iter()
            .filter_map(|pid| Some((pid, all.get(&pid)?.1.clone())))
            .collect();
        Self {
            processes,
            namespaces: theirs,
        }
    }

    /// Whether nothing is left of what was there at `moment`. The kernel gives the numbers of namespaces again, to whoever comes later.
    fn is_gone(&self, moment: u64) -> bool {
        let alive = self
            .processes
            .iter()
            .any(|(pid, start)| stat(*pid).is_some_and(|(_, now)| now == *start));
        let old = |pid: &u32| stat(*pid).is_some_and(|(_, start)| start.parse::<u64>().unwrap() <= moment);
        let inside = |pid: u32| {
            namespaces(pid)
                .iter()
                .any(|namespace| self.namespaces.contains(namespace))
        };
        !alive && !pids().filter(old).any(inside)
    }
}

/// Nothing of it is among what the machine has.
fn assert_untouched(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*folder.to_string_lossy()), "{mounts}");
    let links: Vec<_> = fs::read_dir("/sys/class/net")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(!links.iter().any(|link| link == "pods0"), "{links:?}");
}

fn get(url: &str, path: &str) -> String {
    let address = url.trim_start_matches("http://");
    let Ok(mut stream) = TcpStream::connect(address) else {
        return String::new();
    };
    let _ = write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    );
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn it_comes_up_answers_and_goes_down_without_a_trace() {
    for_each_user(|case| {
        let output = case.run(&["up", "--detach"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        for part in ["cluster ", "operator ", "mesh ", "sample ", "gateway ", "Try:"] {
            assert!(text.lines().any(|line| line.starts_with(part)), "{part}: {text}");
        }
        let pid: u32 = fs::read_to_string(case.folder().join("lock")).unwrap().parse().unwrap();
        let everything = Everything::below(pid);
        // The API's, and at least one of the operator, the control plane, the gateway and each workload with its sidecar.
        assert!(everything.processes.len() > 10, "{:?}", everything.processes);
        let record: serde_json::Value =
            serde_json::from_slice(&fs::read(case.folder().join("run.json")).unwrap()).unwrap();
        let answer = get(record["gateway"].as_str().unwrap(), "/");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let status = case.run(&["status", "--output", "json"]);
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));

        let second = case.run(&["up"]);
        let refusal = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(
            !second.status.success() && refusal.contains(&format!("process {pid}")),
            "{refusal}"
        );

        let stopped = moment();
        assert!(case.run(&["down"]).status.success());
        assert!(everything.is_gone(stopped));
        assert_untouched(&case.folder());
        assert!(!case.run(&["status"]).status.success());
    });
}

#[test]
fn nothing_outlives_a_kill() {
    for_each_user(|case| {
        let mut running = case.up(&["--no-sample"]);
        let pid = running.child.id();
        let mut most = running.everything();
        // Outer, inner, and a pod at least.
        running.wait_for("a pod", || {
            most = Everything::below(pid);
            most.processes.len() >= 3
        });
        let killed = moment();
        running.signal("-KILL");
        let _ = running.ended();
        wait_for("the end of everything", || most.is_gone(killed));
        assert_untouched(&case.folder());
        assert!(!case.run(&["status"]).status.success());
    });
}

#[test]
fn an_interrupt_during_the_start_ends_it_in_order() {
    for_each_user(|case| {
        let mut running = case.up(&["--no-sample"]);
        running.wait_for("the kubeconfig", || case.folder().join("kubeconfig").exists());
        let everything = running.everything();
        let interrupted = moment();
        running.signal("-INT");
        let (success, text) = running.ended();
        assert!(success, "{text}");
        assert!(!text.contains("Try:"), "{text}");
        wait_for("the end of everything", || everything.is_gone(interrupted));
    });
}

#[test]
fn a_state_that_is_damaged_is_told_with_what_to_do() {
    for_each_user(|case| {
        let cluster = case.folder().join("cluster");
        fs::create_dir_all(&cluster).unwrap();
        let file = cluster.join("objects.redb");
        fs::write(&file, "this is no database").unwrap();
        for path in [
            file.as_path(),
            &cluster,
            &case.folder(),
            case.folder().parent().unwrap(),
        ] {
            chown(path, case.user, case.user).unwrap();
        }
        let mut running = case.up(&["--no-sample"]);
        let (success, text) = running.ended();
        assert!(!success);
        assert!(
            text.contains(&*cluster.to_string_lossy()) && text.contains("--fresh"),
            "{text}"
        );
    });
}

#[test]
fn a_port_that_was_chosen_and_is_taken_is_refused_by_name() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for_each_user(|case| {
        for flag in ["--api-port", "--gateway-port"] {
            let output = case.run(&["up", flag, &port]);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                !output.status.success() && text.contains(flag) && text.contains(&port),
                "{text}"
            );
        }
    });
}

#[test]
fn what_does_not_run_is_said_and_down_is_content() {
    for_each_user(|case| {
        let status = case.run(&["status"]);
        assert!(!status.status.success());
        assert!(String::from_utf8_lossy(&status.stdout).contains("not running"));
        assert!(case.run(&["down"]).status.success());
    });
}
