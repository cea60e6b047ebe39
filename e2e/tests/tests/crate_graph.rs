//! A crate exists because its allowed dependencies differ: this holds the workspace's edges against the table of
//! ARCHITECTURE.md, and keeps I/O out of the pure crates.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crate, whether it is pure (no runtime, no network, no cluster client), and the crates of ours that it may use.
const ALLOWED: &[(&str, bool, &[&str])] = &[
    ("mizzen-crds", true, &[]),
    ("mizzen-identity", true, &[]),
    ("mizzen-model", true, &["mizzen-identity"]),
    (
        "mizzen-index",
        true,
        &["mizzen-crds", "mizzen-identity", "mizzen-model"],
    ),
    ("mizzen-translate", true, &["mizzen-identity", "mizzen-model"]),
    ("mizzen-xds", false, &[]),
    (
        "mizzen-discovery",
        false,
        &[
            "mizzen-ca",
            "mizzen-crds",
            "mizzen-identity",
            "mizzen-index",
            "mizzen-model",
            "mizzen-review",
            "mizzen-translate",
            "mizzen-webhook",
            "mizzen-xds",
        ],
    ),
    ("mizzen-desired", true, &["mizzen-crds"]),
    (
        "mizzen-operator",
        false,
        &[
            "mizzen-crds",
            "mizzen-desired",
            "mizzen-review",
            "mizzen-webhook",
            "mizzen-issue",
        ],
    ),
    (
        "mizzen-review",
        true,
        &[
            "mizzen-crds",
            "mizzen-desired",
            "mizzen-identity",
            "mizzen-index",
            "mizzen-model",
        ],
    ),
    (
        "mizzen-webhook",
        false,
        &["mizzen-crds", "mizzen-desired", "mizzen-review"],
    ),
    ("mizzen-issue", true, &["mizzen-identity"]),
    ("mizzen-ca", false, &["mizzen-identity", "mizzen-issue"]),
    ("mizzen-proxy-config", true, &["mizzen-identity"]),
    ("mizzen-http", true, &[]),
    ("mizzen-decide", true, &["mizzen-identity", "mizzen-proxy-config"]),
    ("mizzen-ads", false, &["mizzen-proxy-config"]),
    ("mizzen-redirect", false, &[]),
    (
        "mizzen-proxy",
        false,
        &[
            "mizzen-ads",
            "mizzen-decide",
            "mizzen-http",
            "mizzen-identity",
            "mizzen-proxy-config",
            "mizzen-redirect",
        ],
    ),
    ("mizzen-api", false, &[]),
    ("mizzen-controllers", false, &[]),
    ("mizzen-node", false, &[]),
    ("mizzen-app", false, &[]),
    ("mizzen-e2e", false, &[]),
    ("mizzen-bench", false, &[]),
    (
        "mizzen",
        false,
        &[
            "mizzen-api",
            "mizzen-app",
            "mizzen-ca",
            "mizzen-controllers",
            "mizzen-crds",
            "mizzen-desired",
            "mizzen-discovery",
            "mizzen-index",
            "mizzen-node",
            "mizzen-operator",
            "mizzen-proxy",
            "mizzen-review",
            "mizzen-webhook",
        ],
    ),
];

/// What a pure crate must not know.
const IMPURE: &[&str] = &[
    "tokio",
    "tonic",
    "axum",
    "hyper",
    "kube",
    "kube-client",
    "kube-runtime",
    "socket2",
    "rustix",
    "libc",
];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Per crate its normal and build dependencies (tests may use more).
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("name").to_owned();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            (
                name(package),
                dependencies
                    .iter()
                    .filter(|dependency| dependency["kind"] != "dev")
                    .map(name)
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn crates_use_only_the_crates_that_the_table_allows() {
    let mut wrong = Vec::new();
    for (name, used) in dependencies() {
        let Some((_, _, allowed)) = ALLOWED.iter().find(|(listed, _, _)| *listed == name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for other in used.iter().filter(|other| other.starts_with("mizzen")) {
            if !allowed.contains(&other.as_str()) {
                wrong.push(format!("{name} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the table does not allow: {wrong:#?}");
}

#[test]
fn pure_crates_know_no_runtime_no_network_and_no_cluster_client() {
    let dependencies = dependencies();
    let mut wrong = Vec::new();
    for (name, pure, _) in ALLOWED {
        let used = dependencies
            .get(*name)
            .unwrap_or_else(|| panic!("{name} is in the table but not in the workspace"));
        if *pure {
            wrong.extend(
                IMPURE
                    .iter()
                    .filter(|crate_| used.contains(**crate_))
                    .map(|crate_| format!("{name} uses {crate_}")),
            );
        }
    }
    assert!(wrong.is_empty(), "pure crates that are not: {wrong:#?}");
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = package["manifest_path"].as_str().expect("manifest_path");
        let text = std::fs::read_to_string(manifest).expect("the manifest is readable");
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{manifest} does not take the workspace's lints"
        );
    }
}
