//! What every cluster has from the first moment: namespaces, roles, priority classes, the Service of the API itself.

use crate::api::{Api, Options};
use crate::hooks;
use crate::json;
use crate::kinds::group_version;
use crate::rbac;
use crate::status::ApiError;
use crate::store::Expect;
use crate::timestamp::rfc3339;
use crate::verbs::object::{commit, uuid};
use crate::{defaults, strategy};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
/// Where clients look for the authority of client certificates.
const AUTHENTICATION: &str = "extension-apiserver-authentication";

/// The cluster IP of the API: the first of the range.
pub(crate) fn api_address(options: &Options) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(options.service_range.network()) + 1)
}

/// Creates what is missing.
pub(crate) async fn run(api: &Api) -> Result<(), ApiError> {
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(api, namespace).await?;
    }
    for object in rbac::bootstrap() {
        ensure(api, object).await?;
    }
    hooks::aggregate(api).await;
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description});
        ensure(api, class).await?;
    }
    let authorities = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": AUTHENTICATION, "namespace": "kube-system"}, "data": {"client-ca-file": api.ca()}});
    ensure(api, authorities).await?;
    own_service(api).await
}

/// The Service `kubernetes`, and where it leads.
async fn own_service(api: &Api) -> Result<(), ApiError> {
    let options = &api.inner.options;
    let address = api_address(options).to_string();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let target = options.advertise.map_or(6443, |address| address.port());
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target}]}});
    ensure(api, service).await?;
    let Some(advertise) = options.advertise else {
        return Ok(());
    };
    let (ip, port) = (advertise.ip().to_string(), advertise.port());
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": ip}], "ports": ports}]});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}], "ports": ports});
    for object in [endpoints, slice] {
        replace(api, object).await?;
    }
    Ok(())
}

/// Creates an object unless it is there.
async fn ensure(api: &Api, object: Value) -> Result<(), ApiError> {
    match write(api, object, None).await {
        Err(error) if error.reason != "AlreadyExists" => Err(error),
        _ => Ok(()),
    }
}

/// Creates an object, or gives the one that is there this content: the address may be another after a restart.
async fn replace(api: &Api, object: Value) -> Result<(), ApiError> {
    match write(api, object.clone(), None).await {
        Err(error) if error.reason == "AlreadyExists" => {}
        other => return other,
    }
    let (collection, namespace, name) = place(&object);
    let Some(stored) = api.inner.store.get(&collection, &namespace, &name) else {
        return Ok(());
    };
    let mut new = object;
    if let Some(metadata) = stored.value().get("metadata") {
        json::set(&mut new, "/metadata", metadata.clone());
    }
    write(api, new, Some(stored.revision)).await
}

fn place(object: &Value) -> (String, String, String) {
    let (group, _) = group_version(json::text(object, "/apiVersion"));
    let plural = format!("{}s", json::text(object, "/kind").to_lowercase());
    // The one kind here whose plural is its singular.
    let plural = plural.replace("endpointss", "endpoints");
    let text = |pointer: &str| json::text(object, pointer).to_owned();
    (
        crate::status::qualified(&plural, group),
        text("/metadata/namespace"),
        text("/metadata/name"),
    )
}

async fn write(api: &Api, mut object: Value, replaces: Option<u64>) -> Result<(), ApiError> {
    let kinds = api.inner.registry.current();
    let (group, version) = group_version(json::text(&object, "/apiVersion"));
    let kind = json::text(&object, "/kind").to_owned();
    let resource = kinds
        .kind(group, version, &kind)
        .ok_or_else(ApiError::no_such_resource)?
        .clone();
    defaults::set(&resource.group, &kind, &mut object);
    let expect = match replaces {
        Some(revision) => Expect::Revision(revision),
        None => {
            json::set(&mut object, "/metadata/uid", uuid());
            json::set(&mut object, "/metadata/creationTimestamp", rfc3339(api.now()));
            strategy::begin(&resource, &mut object);
            Expect::Absent
        }
    };
    commit(api, &resource, object, expect, false).await.map(|_| ())
}
