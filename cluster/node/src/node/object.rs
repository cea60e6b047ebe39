//! The node's object and lease: what it is, and that it lives.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node as NodeObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};

use crate::config::NodeConfig;
use crate::pod::worker;

/// Kubelet's: the lease is renewed every quarter of its 40 seconds, the object's status every five minutes.
const LEASE_SECONDS: i32 = 40;
const STATUS_EVERY: u32 = 30;

/// Creates or updates the node's object.
pub(super) async fn register(client: &Client, config: &NodeConfig) -> kube::Result<()> {
    let api: Api<NodeObject> = Api::all(client.clone());
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let labels = serde_json::json!({
        "kubernetes.io/hostname": config.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": architecture,
    });
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": config.name, "labels": labels},
        "spec": {"podCIDR": config.pods, "podCIDRs": [config.pods]},
    });
    if let Some(found) = api.get_opt(&config.name).await? {
        let merge = serde_json::json!({"metadata": {"labels": labels}});
        api.patch(&found.name_any(), &PatchParams::default(), &Patch::Merge(&merge))
            .await?;
    } else {
        let object: NodeObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        api.create(&PostParams::default(), &object).await?;
    }
    // A node that was just registered is tainted until a controller sees that it is ready; this one says so itself.
    let ready = serde_json::json!({"spec": {"taints": null}});
    api.patch(&config.name, &PatchParams::default(), &Patch::Merge(&ready))
        .await?;
    write_status(&api, config, architecture).await
}

async fn write_status(api: &Api<NodeObject>, config: &NodeConfig, architecture: &str) -> kube::Result<()> {
    let place = worker::machine(config);
    let amounts = serde_json::json!({
        "cpu": place.cores.to_string(), "memory": format!("{}Ki", place.memory / 1024), "pods": "250",
        "ephemeral-storage": "100Gi",
    });
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let now = Time(Timestamp::now());
    let before = api
        .get_status(&config.name)
        .await?
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let same = before.iter().find(|old| old.type_ == kind && old.status == status);
        let since = same
            .and_then(|old| old.last_transition_time.clone())
            .unwrap_or(now.clone());
        serde_json::json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since})
    };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let os = text("/etc/os-release");
    let os = os
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"');
    let mut status = serde_json::json!({
        "addresses": [{"type": "InternalIP", "address": config.address}, {"type": "Hostname", "address": config.name}],
        "capacity": amounts, "allocatable": amounts,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "nodeInfo": {
            "architecture": architecture, "operatingSystem": "linux", "osImage": os, "kernelVersion": release,
            "kubeletVersion": config.version, "kubeProxyVersion": config.version,
            "containerRuntimeVersion": format!("process://{}", env!("CARGO_PKG_VERSION")),
            "machineID": text("/etc/machine-id"), "systemUUID": text("/etc/machine-id"),
            "bootID": text("/proc/sys/kernel/random/boot_id"),
        },
    });
    if config.kubelet_port > 0
        && let Some(status) = status.as_object_mut()
    {
        let endpoints = serde_json::json!({"kubeletEndpoint": {"Port": config.kubelet_port}});
        status.insert("daemonEndpoints".to_owned(), endpoints);
    }
    let patch = serde_json::json!({"status": status});
    api.patch_status(&config.name, &PatchParams::default(), &Patch::Strategic(&patch))
        .await
        .map(|_| ())
}

/// Renews the lease, and from time to time the status.
pub(super) async fn heartbeat(client: Client, config: NodeConfig) {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let nodes: Api<NodeObject> = Api::all(client);
    let mut turn = 0_u32;
    loop {
        let now = MicroTime(Timestamp::now());
        let spec =
            serde_json::json!({"holderIdentity": config.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
        let renewed = api
            .patch(
                &config.name,
                &PatchParams::default(),
                &Patch::Merge(&serde_json::json!({"spec": spec})),
            )
            .await;
        let renewed = match renewed {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let lease = serde_json::json!({"metadata": {"name": config.name, "namespace": "kube-node-lease"}, "spec": spec});
                match serde_json::from_value::<Lease>(lease) {
                    Ok(lease) => api.create(&PostParams::default(), &lease).await.map(|_| ()),
                    Err(error) => Err(kube::Error::SerdeError(error)),
                }
            }
            other => other.map(|_| ()),
        };
        if let Err(error) = renewed {
            tracing::warn!(%error, "lease not renewed");
        }
        turn = (turn + 1) % STATUS_EVERY;
        if turn == 0 {
            let architecture = if std::env::consts::ARCH == "x86_64" {
                "amd64"
            } else {
                "arm64"
            };
            if let Err(error) = write_status(&nodes, &config, architecture).await {
                tracing::warn!(%error, "node status not written");
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}
