//! Control groups (v2): a folder for each start of a container, with its limits; gone with everything in it when the container ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::env::quantity;

/// How often the removal of a folder is tried while its last processes are on their way out, and how far apart.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Takes over a folder: controllers for what is below it, and nothing there that an earlier life left.
pub(crate) fn prepare(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(entry.path());
        }
    }
    if let Err(error) = std::fs::write(parent.join("cgroup.subtree_control"), "+cpu +memory +pids") {
        tracing::warn!(%error, cgroup = %parent.display(), "no limits for containers");
    }
}

/// `None` where it cannot be made; limits that cannot be set are left out.
pub(crate) fn create(folder: PathBuf, resources: &ResourceRequirements) -> Option<PathBuf> {
    std::fs::create_dir_all(&folder).ok()?;
    for (file, value) in settings(resources) {
        if let Err(error) = std::fs::write(folder.join(file), value) {
            tracing::debug!(file, %error, "limit not set");
        }
    }
    Some(folder)
}

fn settings(resources: &ResourceRequirements) -> Vec<(&'static str, String)> {
    let of = |map: &Option<BTreeMap<String, Quantity>>, name: &str| map.as_ref()?.get(name).map(quantity);
    // As kubelet: shares of 1024 for a core, of which 2 to 262144 become weights of 1 to 10000.
    let weight = |cores: f64| 1.0 + (((cores * 1024.0).clamp(2.0, 262_144.0) - 2.0) * 9999.0) / 262_142.0;
    let mut all = Vec::new();
    all.extend(of(&resources.limits, "memory").map(|bytes| ("memory.max", format!("{bytes:.0}"))));
    all.extend(
        of(&resources.limits, "cpu").map(|cores| ("cpu.max", format!("{:.0} 100000", (cores * 1e5).max(1000.0)))),
    );
    all.extend(of(&resources.requests, "cpu").map(|cores| ("cpu.weight", format!("{:.0}", weight(cores)))));
    all
}

/// Whether the kernel killed something in it for want of memory.
pub(crate) fn ran_out_of_memory(folder: &Path) -> bool {
    let events = std::fs::read_to_string(folder.join("memory.events")).unwrap_or_default();
    events
        .lines()
        .any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
}

/// Kills what is in it and removes it, if need be after a while.
pub(crate) fn remove(folder: PathBuf) {
    _ = std::fs::write(folder.join("cgroup.kill"), "1");
    if std::fs::remove_dir(&folder).is_ok() {
        return;
    }
    tokio::spawn(async move {
        for _ in 0..ATTEMPTS {
            tokio::time::sleep(PAUSE).await;
            match std::fs::remove_dir(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
                _ => return,
            }
        }
        tracing::warn!(cgroup = %folder.display(), "control group not removed");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_requests_become_settings() {
        let resources = serde_json::json!({"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "1"}});
        let all = settings(&serde_json::from_value(resources).unwrap());
        let expected = [
            ("memory.max", "67108864"),
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "40"),
        ];
        assert_eq!(all, expected.map(|(file, value)| (file, value.to_owned())));
        assert!(settings(&ResourceRequirements::default()).is_empty());
    }
}
