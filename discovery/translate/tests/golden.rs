//! Golden folders: what `in.yaml` asks to see of a mesh (`mesh.yaml` and its own objects), `out.yaml` holds.
//! `UPDATE_GOLDEN=1 cargo test -p mizzen-translate --test golden` writes it anew; read the difference before committing.
//!
//! The first document of an `in.yaml` says who asks and for what: `proxy` (namespace/pod), `gateway` and `onDemand`
//! (false if left out), and `show`: lines of a type and a name, where the name `*` lists all names.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use mizzen_translate::{NodeKind, TypeUrl, names, resource};
use serde_json::Value;

fn type_url(word: &str) -> TypeUrl {
    match word {
        "cluster" => TypeUrl::Cluster,
        "endpoints" => TypeUrl::Endpoints,
        "listener" => TypeUrl::Listener,
        "route" => TypeUrl::Route,
        "host" => TypeUrl::VirtualHost,
        _ => panic!("no type {word}"),
    }
}

fn shown(text: &str) -> String {
    let (case, objects) = support::case(text);
    let mesh = support::index(objects);
    let flag = |name: &str| case.get(name).and_then(Value::as_bool).unwrap_or_default();
    let kind = if flag("gateway") {
        NodeKind::Gateway
    } else {
        NodeKind::Sidecar
    };
    let scope = support::scope(&mesh, case["proxy"].as_str().unwrap(), kind, flag("onDemand"));
    let mut out = String::new();
    for line in case["show"].as_array().unwrap() {
        let line = line.as_str().unwrap();
        let (of, name) = line.split_once(' ').unwrap();
        let of = type_url(of);
        out.push_str(&format!("# {line}\n"));
        if name == "*" {
            names(&mesh, &scope, of)
                .iter()
                .for_each(|name| out.push_str(&format!("- \"{name}\"\n")));
        } else {
            match resource(&mesh, &scope, of, name) {
                Some(resource) => out.push_str(&support::render::resource(&resource)),
                None => out.push_str("null\n"),
            }
        }
        out.push_str("---\n");
    }
    out
}

// C1, C2, C4, C5, C8, D1, D2, D3, D4, D5, E3
#[test]
fn resources_are_as_recorded() {
    let mut wrong = Vec::new();
    for (name, text) in support::cases() {
        let out = shown(&text);
        let path = support::folder().join(&name).join("out.yaml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &out).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != out {
            wrong.push(name);
        }
    }
    assert!(
        wrong.is_empty(),
        "these folders differ (UPDATE_GOLDEN=1 rewrites them): {wrong:?}"
    );
}
