//! Requests pass from application to application through two real Envoys with mutual TLS, redirected as in a pod.
//!
//! Runs as root when `MIZZEN_ENVOY` and `MIZZEN_PROXY` name the binaries (the latter redirects), with `ip`, `setpriv`,
//! `curl` and `python3`. Two network namespaces stand for two pods.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mizzen_model::Mesh;
use mizzen_translate::NodeKind;
use support::server::{self, Authority, Said};
use tokio::sync::Mutex;

const OBJECTS: &str = include_str!("traffic.yaml");

/// Answers HTTP with the request's head, echoes anything else; speaks both on one port.
const APP: &str = r#"
import socket, sys, threading
def serve(c):
    data = c.recv(65536)
    while data:
        if data[:4] in (b"GET ", b"POST"):
            body = data
            c.sendall(b"HTTP/1.1 200 OK\r\nserver: app\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        else:
            c.sendall(b"echo " + data)
        data = c.recv(65536)
    c.close()
s = socket.create_server(("10.77.0.3", int(sys.argv[1])))
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
"#;

fn run(line: &str) -> String {
    let out = Command::new("sh").args(["-c", line]).output().unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

fn must(line: &str) {
    let out = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

struct Pods(Vec<Child>);

impl Drop for Pods {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
        run("ip netns del mizzen-a; ip netns del mizzen-b");
    }
}

/// What the reports lack of what metrics need.
fn untold(reports: &[Said]) -> Vec<&'static str> {
    let services =
        r#"[{"host":"recommendation.tutorial.svc.cluster.local","name":"recommendation","namespace":"tutorial"}]"#;
    let request = |log: &str, code: u32, tags: &[(&str, &str)]| {
        reports.iter().any(|said| {
            let Said::Request(name, entry) = said else { return false };
            let common = entry.common_properties.as_ref().unwrap();
            let status = entry
                .response
                .as_ref()
                .and_then(|response| response.response_code.as_ref());
            name == log
                && status.map(|status| status.value) == Some(code)
                && tags.iter().all(|(tag, value)| {
                    let told = common.custom_tags.get(*tag).map(|told| told.replace(", ", ","));
                    if *tag == "services" {
                        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
                        told.and_then(|told| json(&told)) == json(value)
                    } else {
                        told.as_deref() == Some(value)
                    }
                })
        })
    };
    let connection = |log: &str, host: &str| {
        reports.iter().any(|said| {
            let Said::Connection(name, entry) = said else {
                return false;
            };
            let tags = &entry.common_properties.as_ref().unwrap().custom_tags;
            let bytes = entry
                .connection_properties
                .as_ref()
                .is_some_and(|bytes| bytes.received_bytes > 0);
            name == log && bytes && tags.get("services").is_some_and(|told| told.contains(host))
        })
    };
    let principal = "spiffe://cluster.local/ns/tutorial/sa/recommendation";
    let workload = "recommendation-1;tutorial;recommendation;latest;Kubernetes";
    let all = [
        (
            "client's request",
            request(
                "mizzen-outbound",
                200,
                &[("services", services), ("workload", workload), ("principal", principal)],
            ),
        ),
        (
            "server's request",
            request(
                "mizzen-inbound",
                200,
                &[("services", services), ("peer", "who-is-mizzen-a")],
            ),
        ),
        ("request without a cluster", request("mizzen-outbound", 503, &[])),
        ("client's connection", connection("mizzen-outbound", "guess.tutorial")),
        ("server's connection", connection("mizzen-inbound", "guess.tutorial")),
    ];
    all.into_iter()
        .filter(|(_, told)| !told)
        .map(|(what, _)| what)
        .collect()
}

fn start(name: &str, line: &str, log: &Path) -> Child {
    let log = std::fs::File::create(log).unwrap();
    let line = format!("exec ip netns exec {name} {line}");
    let (out, err) = (log.try_clone().unwrap(), log);
    Command::new("sh")
        .args(["-c", &line])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap()
}

fn mesh(strict: bool) -> Mesh {
    let mode = if strict { "STRICT" } else { "PERMISSIVE" };
    support::index(support::documents(&OBJECTS.replace("MODE", mode)))
}

// C1, C5, E1, E3, N4
#[tokio::test(flavor = "multi_thread")]
async fn two_envoys_carry_requests_with_mutual_tls() {
    let (Ok(envoy), Ok(proxy)) = (std::env::var("MIZZEN_ENVOY"), std::env::var("MIZZEN_PROXY")) else {
        eprintln!("skipped: MIZZEN_ENVOY and MIZZEN_PROXY do not name binaries");
        return;
    };
    for strict in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut pods = Pods(Vec::new());
        must(
            "ip netns add mizzen-a && ip netns add mizzen-b && ip -n mizzen-a link add eth0 type veth peer name eth0 netns mizzen-b",
        );
        for (pod, own, other) in [("mizzen-a", 2, 3), ("mizzen-b", 3, 2)] {
            must(&format!(
                "ip -n {pod} link set lo up && ip -n {pod} link set eth0 up && ip -n {pod} addr add 10.77.0.{own}/24 dev eth0 \
                 && ip -n {pod} route add default via 10.77.0.{other}"
            ));
            must(&format!(
                "ip netns exec {pod} {proxy} redirect -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -x '' -b '*' -d 15090,15021,15020"
            ));
        }
        let authority = Authority::new();
        let mesh = mesh(strict);
        let mut servers = Vec::new();
        let reports = Arc::new(Mutex::new(Vec::new()));
        for (pod, key, account) in [
            ("mizzen-a", "tutorial/customer-1", "customer"),
            ("mizzen-b", "tutorial/recommendation-1", "recommendation"),
        ] {
            let socket = at(&format!("{pod}.sock"));
            let scope = support::scope(&mesh, key, NodeKind::Sidecar, false);
            let identity = format!("spiffe://cluster.local/ns/tutorial/sa/{account}");
            let (server, mut said_rx) = server::serve(&socket, mesh.clone(), scope, authority.secrets(&identity));
            let reported = reports.clone();
            tokio::spawn(async move {
                while let Some(said) = said_rx.recv().await {
                    match said {
                        Said::Request(..) | Said::Connection(..) => reported.lock().await.push(said),
                        other => eprintln!("{pod} {other:?}"),
                    }
                }
            });
            servers.push(server);
            let config = at(&format!("{pod}.json"));
            std::fs::write(&config, server::bootstrap(&socket)).unwrap();
            let line = format!(
                "env MIZZEN_PEER_METADATA=who-is-{pod} setpriv --reuid 1337 --regid 1337 --clear-groups {envoy} --use-dynamic-base-id --concurrency 1 -l warning -c {}",
                config.display()
            );
            pods.0.push(start(pod, &line, &at(&format!("{pod}.log"))));
        }
        std::fs::write(at("app.py"), APP).unwrap();
        for port in [8080, 7001] {
            let line = format!("python3 {} {port}", at("app.py").display());
            pods.0.push(start("mizzen-b", &line, &at("app.log")));
        }
        let curl = |more: &str| run(&format!("ip netns exec mizzen-a curl -sS -i -m 5 {more}"));
        let mut first = String::new();
        for _ in 0..100 {
            first = curl("-H 'Host: recommendation:8080' http://10.96.0.12:8080/hello");
            if first.starts_with("HTTP/1.1 200") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let logs = || run(&format!("cat {0}/*.log", folder.path().display()));
        assert!(first.starts_with("HTTP/1.1 200"), "{first}\n{}", logs());
        assert!(
            first.contains("server: istio-envoy") || first.contains("server: app"),
            "{first}"
        );
        assert!(first.contains("GET /hello HTTP/1.1"), "{first}");
        let certificate = first
            .lines()
            .find(|line| line.starts_with("x-forwarded-client-cert: "))
            .unwrap_or_default();
        assert!(
            certificate.contains("By=spiffe://cluster.local/ns/tutorial/sa/recommendation;Hash="),
            "{first}"
        );
        assert!(
            certificate.contains(";Subject=\"\";URI=spiffe://cluster.local/ns/tutorial/sa/customer"),
            "{first}"
        );

        // what the client says of itself is not believed
        let forged =
            curl("-H 'Host: recommendation' -H 'x-forwarded-client-cert: URI=spiffe://evil' http://10.96.0.12:8080/");
        assert!(!forged.contains("evil"), "{forged}");

        // a port of which nobody said what it speaks: HTTP/1.1, HTTP/2 and bytes
        let detected = curl("-H 'Host: guess:7000' http://10.96.0.13:7000/found");
        assert!(
            detected.starts_with("HTTP/1.1 200") && detected.contains("customer"),
            "{detected}\n{}",
            logs()
        );
        let bytes = run(
            "ip netns exec mizzen-a python3 -c 'import socket; s=socket.create_connection((\"10.96.0.13\",7000),5); \
             s.sendall(b\"\\x01\\x02hello\"); s.settimeout(5); print(s.recv(100))'",
        );
        assert!(bytes.contains("echo") && bytes.contains("hello"), "{bytes}\n{}", logs());

        // a subset that does not exist
        let gone = curl("-H 'Host: recommendation' http://10.96.0.12:8080/gone");
        assert!(gone.starts_with("HTTP/1.1 503"), "{gone}");

        // past the sidecar, in plain text
        let plain = run(
            "ip netns exec mizzen-a setpriv --reuid 1337 --regid 1337 --clear-groups curl -sS -i -m 5 http://10.77.0.3:8080/plain",
        );
        if strict {
            assert!(!plain.contains("200 OK"), "{plain}");
        } else {
            assert!(
                plain.contains("200 OK") && !plain.contains("x-forwarded-client-cert"),
                "{plain}"
            );
        }

        // what the processes beside the Envoys are told, for metrics
        let mut missing = Vec::new();
        for _ in 0..100 {
            missing = untold(&reports.lock().await);
            if missing.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let told = reports.lock().await;
        assert!(missing.is_empty(), "{missing:?}\n{told:#?}");
        // and what the application was not told
        assert!(!first.contains("who-is"), "{first}");
        servers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
