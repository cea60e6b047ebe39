//! What all workload controllers know of pods and owners: which are theirs, which are ready, which goes first, and how a
//! template becomes a pod. Pure functions over objects.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    Metadata,
    api::core::v1::{Pod, PodTemplateSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
    jiff::Timestamp,
};
use kube::core::{Selector, SelectorExt as _};
use serde_json::json;

use crate::plan::{Kind, Plan, Write, controller_reference};

/// Labels or annotations.
pub(crate) type Map = BTreeMap<String, String>;

/// The owner that controls an object.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// Whether `owner` controls the object with this metadata.
pub(crate) fn controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller(meta).is_some_and(|c| Some(&c.uid) == owner.uid.as_ref())
}

/// Whether a selector takes these labels; one that cannot be read takes none.
pub(crate) fn selects(selector: &LabelSelector, labels: &Option<Map>) -> bool {
    let empty = Map::new();
    let labels = labels.as_ref().unwrap_or(&empty);
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// The objects among `candidates` that `owner` controls. Orphans that its selector takes are adopted and controlled objects that
/// it takes no more are released; both are written first, and there is no answer until the next look.
pub(crate) fn claim<O: Kind, K: Kind>(
    owner: &O,
    selector: &LabelSelector,
    candidates: Vec<Arc<K>>,
    plan: &mut Plan,
) -> Option<Vec<Arc<K>>> {
    let meta = owner.metadata();
    let mut owned = Vec::new();
    for object in candidates {
        let theirs = object.metadata();
        let matches = selects(selector, &theirs.labels);
        let references = || theirs.owner_references.clone().unwrap_or_default();
        let deleting = theirs.deletion_timestamp.is_some() || meta.deletion_timestamp.is_some();
        match controller(theirs) {
            Some(c) if Some(&c.uid) == meta.uid.as_ref() && (matches || deleting) => owned.push(object),
            Some(c) if Some(&c.uid) == meta.uid.as_ref() => {
                let rest: Vec<_> = references()
                    .into_iter()
                    .filter(|o| Some(&o.uid) != meta.uid.as_ref())
                    .collect();
                plan.push(Write::patch(&*object, json!({"metadata": {"ownerReferences": rest}})));
            }
            None if matches && !deleting => {
                let mut all = references();
                all.push(controller_reference(owner));
                plan.push(Write::patch(&*object, json!({"metadata": {"ownerReferences": all}})));
            }
            _ => {}
        }
    }
    plan.actions.is_empty().then_some(owned)
}

/// `status.phase`.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether a pod is neither finished nor about to end.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether a pod has run to its end.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Since when a pod is ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
    Some(
        ready
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::MIN, |time| time.0),
    )
}

/// Whether a pod is ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Whether a pod has been ready for `minReadySeconds`; if it will be, the plan looks again then.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: Option<i32>, now: Timestamp, plan: &mut Plan) -> bool {
    let Some(since) = ready_since(pod) else { return false };
    let at = since
        .saturating_add(seconds(min_ready_seconds.unwrap_or_default().into()))
        .unwrap_or(since);
    if at > now {
        plan.again(at);
    }
    at <= now
}

/// A span of seconds.
pub(crate) fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(0).unsigned_abs())
}

/// Pods in the order in which a shrinking set gives them up: not scheduled, pending, not ready, cheap to delete, ready for a
/// shorter time, restarted more often, younger.
pub(crate) fn by_deletion(mut pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
    pods.sort_by_key(|pod| {
        let annotation = pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
        let restarts = pod
            .status
            .iter()
            .flat_map(|s| s.container_statuses.iter().flatten())
            .map(|c| c.restart_count)
            .max();
        (
            pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()),
            ["Pending", "", "Unknown"]
                .iter()
                .position(|p| *p == phase(pod))
                .unwrap_or(3),
            is_ready(pod),
            annotation.and_then(|cost| cost.parse::<i32>().ok()).unwrap_or_default(),
            Reverse((ready_since(pod), restarts.unwrap_or_default())),
            Reverse(pod.metadata.creation_timestamp.as_ref().map(|t| t.0)),
            pod.metadata.name.clone(),
        )
    });
    pods
}

/// The pod that `owner` makes of a template, with a name that the server finishes.
pub(crate) fn from_template<O: Kind>(owner: &O, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(owner))),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Hashes that tell templates apart in names and labels, ten letters and digits that spell no words: the first, and others for
/// when another template has taken that.
pub(crate) fn hashes(template: &PodTemplateSpec) -> impl Iterator<Item = String> + use<> {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let bytes = serde_json::to_vec(template).unwrap_or_default();
    (0..64).map(move |seed| {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&bytes, seed) & u64::from(u32::MAX);
        let letter = |digit: u8| {
            LETTERS
                .get(usize::from(digit) % LETTERS.len())
                .map_or('b', |l| char::from(*l))
        };
        hash.to_string().bytes().map(letter).collect()
    })
}

/// A count or a percentage of `total`, rounded up or down; what cannot be read is `otherwise`.
pub(crate) fn scaled(value: Option<&IntOrString>, total: i32, up: bool, otherwise: i32) -> i32 {
    match value {
        Some(IntOrString::Int(count)) => *count,
        Some(IntOrString::String(percent)) => {
            let Some(percent) = percent.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()) else {
                return otherwise;
            };
            let hundredths = percent * i64::from(total) + if up { 99 } else { 0 };
            i32::try_from(hundredths / 100).unwrap_or(i32::MAX)
        }
        None => otherwise,
    }
}

/// A count as status fields have it: small, never negative.
pub(crate) fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The text of a label or annotation, empty if there is none.
pub(crate) fn text<'a>(map: &'a Option<Map>, name: &str) -> &'a str {
    map.as_ref().and_then(|map| map.get(name)).map_or("", String::as_str)
}

/// The name of an object.
pub(crate) fn name<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_percentages_round_as_asked() {
        let percent = |p: &str| Some(IntOrString::String(p.to_owned()));
        assert_eq!(scaled(percent("25%").as_ref(), 3, true, 0), 1);
        assert_eq!(scaled(percent("25%").as_ref(), 3, false, 0), 0);
        assert_eq!(scaled(percent("100%").as_ref(), 3, true, 0), 3);
        assert_eq!(scaled(Some(&IntOrString::Int(2)), 3, true, 0), 2);
        assert_eq!(scaled(percent("many").as_ref(), 3, true, 7), 7);
        assert_eq!(scaled(None, 3, true, 1), 1);
    }

    #[test]
    fn the_hash_follows_the_template() {
        let one = PodTemplateSpec::default();
        let two = PodTemplateSpec {
            spec: Some(k8s_openapi::api::core::v1::PodSpec::default()),
            ..PodTemplateSpec::default()
        };
        let first = |template| hashes(template).next().unwrap();
        let hash = first(&one);
        assert_eq!(hash, first(&one));
        assert_ne!(hash, first(&two));
        assert_ne!(hash, hashes(&one).nth(1).unwrap());
        assert!(hash.len() <= 10 && hash.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)));
    }

    #[test]
    fn a_pod_that_is_of_no_use_goes_first() {
        let pod = |name: &str, phase: &str, node: bool, ready: Option<i64>| -> Arc<Pod> {
            let condition = ready.map(|at| {
                json!({"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::from_second(at).unwrap().to_string()})
            });
            Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": name}, "spec": {"nodeName": node.then_some("n"), "containers": []},
                    "status": {"phase": phase, "conditions": condition.into_iter().collect::<Vec<_>>()},
                }))
                .unwrap(),
            )
        };
        let pods = vec![
            pod("old", "Running", true, Some(10)),
            pod("young", "Running", true, Some(20)),
            pod("unready", "Running", true, None),
            pod("pending", "Pending", true, None),
            pod("unscheduled", "Pending", false, None),
        ];
        let order: Vec<_> = by_deletion(pods).iter().map(|p| name(&**p).to_owned()).collect();
        assert_eq!(order, ["unscheduled", "pending", "unready", "young", "old"]);
    }
}
