//! A container's rights, from its security context, its pod's and its image. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;

use crate::config::Image;
use crate::order::User;

/// Capabilities by number (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// What container runtimes give by default.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The rights, or why the container may not run (`CreateContainerConfigError`).
pub(crate) fn user(pod: &Pod, container: &Container, image: &Image) -> Result<User, String> {
    let outer = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.clone())
        .unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let number = |id: i64| u32::try_from(id).unwrap_or(u32::MAX - 1);
    let said = own.run_as_user.or(outer.run_as_user).map(number);
    let uid = said.or(image.user).unwrap_or(0);
    let gid = own.run_as_group.or(outer.run_as_group).map_or(0, number);
    if uid == 0 && own.run_as_non_root.or(outer.run_as_non_root) == Some(true) {
        let which = format!(
            "(pod: \"{}_{}({})\", container: {})",
            pod.name_any(),
            pod.namespace().unwrap_or_default(),
            pod.uid().unwrap_or_default(),
            container.name
        );
        return Err(match said {
            Some(_) => format!("container's runAsUser breaks non-root policy {which}"),
            None => format!("container has runAsNonRoot and image will run as root {which}"),
        });
    }
    let mut groups: Vec<u32> = outer
        .supplemental_groups
        .iter()
        .flatten()
        .map(|id| number(*id))
        .collect();
    groups.extend(outer.fs_group.map(number));
    let privileged = own.privileged.unwrap_or(false);
    let changes = own.capabilities.unwrap_or_default();
    let bits = |names: &[String]| names.iter().fold(0, |all, name| all | bit(name));
    let base = DEFAULT.iter().fold(0, |all, name| all | bit(name));
    let capabilities = match privileged {
        true => u64::MAX,
        false => (base & !bits(&changes.drop.unwrap_or_default())) | bits(&changes.add.unwrap_or_default()),
    };
    Ok(User {
        uid,
        gid,
        groups,
        capabilities,
        unmapped_capabilities: bits(&image.unmapped_capabilities),
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
    })
}

fn bit(name: &str) -> u64 {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    match NAMES.iter().position(|known| *known == name) {
        Some(number) => 1 << number,
        None if name == "ALL" => u64::MAX,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(outer: serde_json::Value, own: serde_json::Value) -> Pod {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": outer, "containers": [{"name": "c", "securityContext": own}]}});
        serde_json::from_value(pod).unwrap()
    }

    fn of(outer: serde_json::Value, own: serde_json::Value) -> Result<User, String> {
        let pod = pod(outer, own);
        let container = pod.spec.clone().unwrap_or_default().containers[0].clone();
        let image = Image {
            unmapped_capabilities: vec!["NET_RAW".into()],
            ..Image::default()
        };
        user(&pod, &container, &image)
    }

    #[test]
    fn a_container_overrides_its_pod() {
        let made = of(
            serde_json::json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}),
            serde_json::json!({"runAsUser": 1337, "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}),
        )
        .unwrap();
        assert_eq!((made.uid, made.gid, made.groups), (1337, 2, vec![4, 3]));
        assert_eq!((made.capabilities, made.no_new_privileges), (1 << 12, true));
        assert_eq!(made.unmapped_capabilities, 1 << 13);
    }

    #[test]
    fn root_is_refused_where_the_pod_says_so() {
        let error = of(serde_json::json!({"runAsNonRoot": true}), serde_json::json!({})).unwrap_err();
        assert_eq!(
            error,
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"
        );
        assert!(
            of(
                serde_json::json!({"runAsNonRoot": true, "runAsUser": 7}),
                serde_json::json!({})
            )
            .is_ok()
        );
    }

    #[test]
    fn defaults_are_those_of_container_runtimes() {
        assert_eq!(
            of(serde_json::json!({}), serde_json::json!({})).unwrap().capabilities,
            0xa804_25fb
        );
    }
}
