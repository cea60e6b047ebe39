//! A mesh from manifests, and proxies in it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]

pub mod arbitrary;
pub mod render;
pub mod server;

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mizzen_index::{Event, Index, Object, Settings};
use mizzen_model::{Kind, Mesh, MeshConfig, Namespace, ObjectKey, ObjectName, SpiffeId, TrustDomain};
use mizzen_translate::{NodeKind, Scope};
use serde_json::Value;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n").filter(|text| !text.trim().is_empty());
    documents
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}")))
        .collect()
}

/// The mesh that all cases share.
pub fn common() -> Vec<Value> {
    documents(&std::fs::read_to_string(folder().join("mesh.yaml")).unwrap())
}

pub fn read(json: Value) -> Object {
    fn of<T: serde::de::DeserializeOwned>(json: Value) -> Box<T> {
        Box::new(serde_json::from_value(json).unwrap())
    }
    if let Some(object) = Object::from_json(json.clone()) {
        assert!(!matches!(object, Object::Unreadable(_)), "{object:?}");
        return object;
    }
    match json["kind"].as_str().unwrap() {
        "Namespace" => Object::Namespace(of::<core::Namespace>(json)),
        "Service" => Object::Service(of::<core::Service>(json)),
        "EndpointSlice" => Object::EndpointSlice(of::<EndpointSlice>(json)),
        "Pod" => Object::Pod(of::<core::Pod>(json)),
        "ConfigMap" => Object::ConfigMap(of::<core::ConfigMap>(json)),
        kind => panic!("no {kind} in tests"),
    }
}

pub fn index(objects: Vec<Value>) -> Mesh {
    let mut index = empty();
    index.apply_all(objects.into_iter().map(|json| Event::Apply(read(json))));
    index.mesh().clone()
}

/// What a case asks for, and its objects with those that all share.
pub fn case(text: &str) -> (Value, Vec<Value>) {
    let mut documents = documents(text);
    let case = documents.remove(0);
    let mut objects = common();
    objects.extend(documents);
    (case, objects)
}

/// The texts of all cases, by name.
pub fn cases() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries
        .filter_map(|folder| {
            let text = std::fs::read_to_string(folder.join("in.yaml")).ok()?;
            Some((folder.file_name()?.to_str()?.to_owned(), text))
        })
        .collect();
    cases.sort();
    assert!(cases.len() >= 12, "the golden folders are gone");
    cases
}

pub fn empty() -> Index {
    let root = Namespace::new("istio-system").unwrap();
    let defaults = MeshConfig::new(root, TrustDomain::new("cluster.local").unwrap());
    let mesh_config_map = Some(ObjectName::new("istio-basic").unwrap());
    Index::new(Settings {
        mesh_config_map,
        ..Settings::new(defaults)
    })
}

/// A proxy in the pod `namespace/name`.
pub fn scope(mesh: &Mesh, pod: &str, kind: NodeKind, on_demand: bool) -> Scope {
    let (namespace, name) = pod.split_once('/').unwrap();
    let key = ObjectKey::new(
        Kind::Pod,
        Namespace::new(namespace).unwrap(),
        ObjectName::new(name).unwrap(),
    );
    let workload = mesh.workload(&key).unwrap_or_else(|| panic!("no workload {key}"));
    let domain = mesh.config().trust_domain.clone();
    let caller = SpiffeId::new(domain, key.namespace, workload.service_account.clone());
    Scope::new(&caller, workload, kind, on_demand).unwrap()
}
