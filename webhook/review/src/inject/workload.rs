//! What runs a pod: the name that users know.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The object that a user made and that pods come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// `apps/v1`, `batch/v1`, `v1`.
    pub api_version: String,
    /// `Deployment`, `CronJob`, `Pod`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Workload {
    /// Reads it from a pod's owner: a ReplicaSet's Deployment, a Job's CronJob, the owner itself, or the pod.
    pub(crate) fn of_pod(pod: &ObjectMeta) -> Self {
        let owner = pod
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.controller == Some(true));
        let Some(owner) = owner else {
            let generated = || {
                pod.generate_name
                    .as_deref()
                    .map(|name| name.trim_end_matches('-').to_owned())
            };
            let name = pod
                .name
                .clone()
                .filter(|name| !name.is_empty())
                .or_else(generated)
                .unwrap_or_default();
            return Self {
                api_version: "v1".into(),
                kind: "Pod".into(),
                name,
            };
        };
        let hash = pod.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
        let (api_version, kind, name) = match owner.kind.as_str() {
            "ReplicaSet" => match hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')) {
                Some(name) => ("apps/v1", "Deployment", name),
                None => (owner.api_version.as_str(), "ReplicaSet", owner.name.as_str()),
            },
            // A CronJob's Jobs end in the minute that they were due, counted since 1970.
            "Job" => match owner.name.rsplit_once('-') {
                Some((name, due)) if (8..=10).contains(&due.len()) && due.bytes().all(|b| b.is_ascii_digit()) => {
                    ("batch/v1", "CronJob", name)
                }
                _ => (owner.api_version.as_str(), "Job", owner.name.as_str()),
            },
            kind => (owner.api_version.as_str(), kind, owner.name.as_str()),
        };
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        }
    }

    /// As Istio writes owners: `kubernetes://apis/apps/v1/namespaces/shop/deployments/cart`.
    pub(crate) fn owner_uri(&self, namespace: &str) -> String {
        let kind = self.kind.to_ascii_lowercase();
        format!(
            "kubernetes://apis/{}/namespaces/{namespace}/{kind}s/{}",
            self.api_version, self.name
        )
    }

    /// The name, cut to what a label's value may be.
    pub(crate) fn as_label(&self) -> String {
        let cut: String = self.name.chars().take(63).collect();
        cut.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn owned(kind: &str, name: &str, hash: Option<&str>) -> Workload {
        Workload::of_pod(&ObjectMeta {
            generate_name: Some("some-pod-".into()),
            labels: hash.map(|hash| [("pod-template-hash".to_owned(), hash.to_owned())].into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "own/v7".into(),
                kind: kind.into(),
                name: name.into(),
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        })
    }

    fn workload(api_version: &str, kind: &str, name: &str) -> Workload {
        Workload {
            api_version: api_version.into(),
            kind: kind.into(),
            name: name.into(),
        }
    }

    // B3, F1
    #[test]
    fn the_name_that_users_know_is_found() {
        assert_eq!(
            owned("ReplicaSet", "cart-5d4f", Some("5d4f")),
            workload("apps/v1", "Deployment", "cart")
        );
        assert_eq!(
            owned("ReplicaSet", "cart", None),
            workload("own/v7", "ReplicaSet", "cart")
        );
        assert_eq!(
            owned("Job", "report-28901234", None),
            workload("batch/v1", "CronJob", "report")
        );
        assert_eq!(owned("Job", "report-1", None), workload("own/v7", "Job", "report-1"));
        assert_eq!(
            owned("StatefulSet", "db", None),
            workload("own/v7", "StatefulSet", "db")
        );
        let alone = ObjectMeta {
            generate_name: Some("tool-".into()),
            ..ObjectMeta::default()
        };
        assert_eq!(Workload::of_pod(&alone), workload("v1", "Pod", "tool"));
        let deployment = workload("apps/v1", "Deployment", "cart");
        assert_eq!(
            deployment.owner_uri("shop"),
            "kubernetes://apis/apps/v1/namespaces/shop/deployments/cart"
        );
        let long = workload("v1", "Pod", &format!("{}.{}", "a".repeat(62), "b".repeat(30)));
        assert_eq!(long.as_label(), "a".repeat(62));
    }
}
