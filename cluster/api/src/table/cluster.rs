//! Nodes, namespaces, configuration, storage, access.

use super::row::{Row, scalar, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// A resource of which only name and creation are shown.
pub(super) fn other(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("/metadata/creationTimestamp").into()]
}

pub(super) fn node(row: &Row<'_>) -> Vec<Value> {
    let mut status = match row.condition("Ready") {
        None => "Unknown".to_owned(),
        Some(ready) if text(ready, "status") == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
    };
    if row.at("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = row
        .at("/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(name, value)| match name.as_str() {
            "kubernetes.io/role" => value.as_str(),
            name => name.strip_prefix("node-role.kubernetes.io/"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    let roles = if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.into_iter().collect::<Vec<_>>().join(",")
    };
    let address = |kind: &str| {
        let found = row
            .list("/status/addresses")
            .iter()
            .find(|address| text(address, "type") == kind);
        Value::from(found.map_or("<none>", |address| text(address, "address")))
    };
    let info = |name: &str, none: &str| row.text_or(&format!("/status/nodeInfo/{name}"), none);
    vec![
        row.name(),
        status.into(),
        roles.into(),
        row.age(),
        info("kubeletVersion", ""),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage", "<unknown>"),
        info("kernelVersion", "<unknown>"),
        info("containerRuntimeVersion", "<unknown>"),
    ]
}

pub(super) fn namespace(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("/status/phase").into(), row.age()]
}

/// An event of either group: the newer one has other names for the same fields.
pub(super) fn event(row: &Row<'_>) -> Vec<Value> {
    let either = |names: &[&str]| {
        names
            .iter()
            .map(|name| row.text(name))
            .find(|text| !text.is_empty())
            .unwrap_or_default()
    };
    let about = |name: &str| either(&[&format!("/involvedObject/{name}"), &format!("/regarding/{name}")]);
    let first = row.since(either(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]));
    let mut last = match either(&["/lastTimestamp", "/deprecatedLastTimestamp"]) {
        "" => first.clone(),
        time => row.since(time),
    };
    let mut count = row.count("/count").max(row.count("/deprecatedCount")).max(1);
    if row.at("/series").is_some() {
        last = row.since(row.text("/series/lastObservedTime"));
        count = row.count("/series/count");
    }
    let mut object = about("kind").to_lowercase();
    if !about("name").is_empty() {
        object = format!("{object}/{}", about("name"));
    }
    let controller = [
        "/source/component",
        "/deprecatedSource/component",
        "/reportingComponent",
        "/reportingController",
    ];
    let mut source = either(&controller).to_owned();
    let instance = either(&["/source/host", "/deprecatedSource/host", "/reportingInstance"]);
    if !instance.is_empty() {
        source = format!("{source}, {instance}");
    }
    vec![
        last.into(),
        row.text("/type").into(),
        row.text("/reason").into(),
        object.into(),
        about("fieldPath").into(),
        source.into(),
        either(&["/message", "/note"]).trim().into(),
        first.into(),
        count.into(),
        row.name(),
    ]
}

pub(super) fn config_map(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        (row.size("/data") + row.size("/binaryData")).into(),
        row.age(),
    ]
}

pub(super) fn secret(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        row.text("/type").into(),
        row.size("/data").into(),
        row.age(),
    ]
}

pub(super) fn service_account(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.list("/secrets").len().into(), row.age()]
}

pub(super) fn resource_quota(row: &Row<'_>) -> Vec<Value> {
    let hard = row.at("/status/hard").and_then(Value::as_object).into_iter().flatten();
    let used = |name: &str| scalar(row.at("/status/used").and_then(|used| used.get(name)), "0");
    let (limits, requests): (Vec<_>, Vec<_>) = hard.partition(|(name, _)| name.starts_with("limits."));
    let show = |entries: Vec<(&String, &Value)>| {
        let shown = entries
            .into_iter()
            .map(|(name, hard)| format!("{name}: {}/{}", used(name), scalar(Some(hard), "0")));
        Value::from(shown.collect::<Vec<_>>().join(", "))
    };
    vec![row.name(), show(requests), show(limits), row.age()]
}

/// `RWO,ROX`, in the order in which Kubernetes lists the modes.
fn access_modes(modes: &[Value]) -> String {
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let short = known
        .iter()
        .filter(|(mode, _)| modes.iter().any(|m| m.as_str() == Some(mode)))
        .map(|(_, short)| *short);
    short.collect::<Vec<_>>().join(",")
}

fn phase(row: &Row<'_>) -> Value {
    if row.is_deleted() {
        "Terminating".into()
    } else {
        row.text("/status/phase").into()
    }
}

pub(super) fn persistent_volume(row: &Row<'_>) -> Vec<Value> {
    let claim = row
        .at("/spec/claimRef")
        .map(|claim| format!("{}/{}", text(claim, "namespace"), text(claim, "name")));
    vec![
        row.name(),
        scalar(row.at("/spec/capacity/storage"), "0").into(),
        access_modes(row.list("/spec/accessModes")).into(),
        row.text("/spec/persistentVolumeReclaimPolicy").into(),
        phase(row),
        claim.unwrap_or_default().into(),
        row.text("/spec/storageClassName").into(),
        row.text_or("/spec/volumeAttributesClassName", "<unset>"),
        row.text("/status/reason").into(),
        row.age(),
        row.text_or("/spec/volumeMode", "<unset>"),
    ]
}

pub(super) fn persistent_volume_claim(row: &Row<'_>) -> Vec<Value> {
    let is_bound = !row.text("/spec/volumeName").is_empty();
    let (capacity, modes) = if is_bound {
        (
            scalar(row.at("/status/capacity/storage"), "0"),
            access_modes(row.list("/status/accessModes")),
        )
    } else {
        Default::default()
    };
    vec![
        row.name(),
        phase(row),
        row.text("/spec/volumeName").into(),
        capacity.into(),
        modes.into(),
        row.text("/spec/storageClassName").into(),
        row.text_or("/spec/volumeAttributesClassName", "<unset>"),
        row.age(),
        row.text_or("/spec/volumeMode", "<unset>"),
    ]
}

pub(super) fn storage_class(row: &Row<'_>) -> Vec<Value> {
    let annotations = row.at("/metadata/annotations");
    let is_default = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ]
    .iter()
    .any(|name| annotations.is_some_and(|annotations| text(annotations, name) == "true"));
    let suffix = if is_default { " (default)" } else { "" };
    vec![
        format!("{}{suffix}", row.text("/metadata/name")).into(),
        row.text("/provisioner").into(),
        row.text_or("/reclaimPolicy", "Delete"),
        row.text_or("/volumeBindingMode", "Immediate"),
        row.at("/allowVolumeExpansion")
            .and_then(Value::as_bool)
            .unwrap_or_default()
            .into(),
        row.age(),
    ]
}

pub(super) fn lease(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("/spec/holderIdentity").into(), row.age()]
}

pub(super) fn priority_class(row: &Row<'_>) -> Vec<Value> {
    let is_default = row.at("/globalDefault").and_then(Value::as_bool).unwrap_or_default();
    let policy = row.text("/preemptionPolicy").into();
    vec![
        row.name(),
        row.count("/value").into(),
        is_default.into(),
        row.age(),
        policy,
    ]
}

pub(super) fn role_binding(row: &Row<'_>) -> Vec<Value> {
    let role = format!("{}/{}", row.text("/roleRef/kind"), row.text("/roleRef/name"));
    let subjects = |kind: &str| {
        let own = row
            .list("/subjects")
            .iter()
            .filter(|subject| text(subject, "kind") == kind);
        let shown = own.map(|subject| match (kind, text(subject, "name")) {
            ("ServiceAccount", name) => format!("{}/{name}", text(subject, "namespace")),
            (_, name) => name.to_owned(),
        });
        Value::from(shown.collect::<Vec<_>>().join(", "))
    };
    vec![
        row.name(),
        role.into(),
        row.age(),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(super) fn webhook_configuration(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.list("/webhooks").len().into(), row.age()]
}
