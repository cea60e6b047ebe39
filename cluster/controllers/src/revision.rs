//! ControllerRevisions: the templates that a StatefulSet or DaemonSet has had, which `kubectl rollout history|undo` reads.
//! In: an owner and its revisions. Out: the revision of its present template, or the writes that make it so.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::{Value, json};

use crate::{
    plan::{Kind, Plan, Write, controller_reference, put},
    pods::{Map, claim, hashes, name},
    queue::Key,
    work::Turn,
};

/// What an owner's revisions depend on.
pub(crate) struct Owner<'a, O> {
    /// The owner.
    pub(crate) object: &'a O,
    /// Its selector.
    pub(crate) selector: &'a LabelSelector,
    /// Its present template.
    pub(crate) template: &'a PodTemplateSpec,
    /// The label of a revision that carries its hash.
    pub(crate) label: &'static str,
    /// `revisionHistoryLimit`.
    pub(crate) limit: Option<i32>,
}

/// The owner's revisions, oldest first, of which the last is that of the present template; nothing if the plan has to be
/// carried out first. Revisions beyond the limit that are not `live` are deleted.
pub(crate) fn sync<O: Kind>(
    owner: &Owner<'_, O>,
    live: &BTreeSet<&str>,
    turn: &Turn<'_>,
    plan: &mut Plan,
) -> Option<Vec<Arc<ControllerRevision>>> {
    let candidates = turn.world.revisions.list(&turn.key.namespace);
    let mut all = claim(owner.object, owner.selector, candidates, plan)?;
    all.sort_by_key(|revision| revision.revision);
    let mut template = serde_json::to_value(owner.template).unwrap_or_default();
    put(&mut template, &["$patch"], json!("replace"));
    let data = json!({"spec": {"template": template}});
    let next = all.last().map_or(0, |revision| revision.revision) + 1;
    let Some(same) = all.iter().position(|r| r.data.as_ref().is_some_and(|d| d.0 == data)) else {
        plan.push(create(owner, turn, next, data)?);
        return None;
    };
    let current = all.remove(same);
    if current.revision + 1 != next {
        plan.push(Write::patch(&*current, json!({"revision": next}))); // an old template again: now the newest
        return None;
    }
    let old: Vec<_> = all
        .iter()
        .filter(|revision| !live.contains(name(&***revision)))
        .collect();
    let limit = usize::try_from(owner.limit.unwrap_or(10)).unwrap_or_default();
    for revision in old.iter().take(old.len().saturating_sub(limit)) {
        plan.push(Write::delete(&***revision));
    }
    all.push(current);
    Some(all)
}

fn create<O: Kind>(owner: &Owner<'_, O>, turn: &Turn<'_>, revision: i64, data: Value) -> Option<Write> {
    let meta = owner.object.metadata();
    let key = |hash: &str| Key::new(&turn.key.namespace, &format!("{}-{hash}", name(owner.object)));
    let hash = hashes(owner.template).find(|hash| turn.world.revisions.get(&key(hash)).is_none())?;
    let mut labels = owner
        .template
        .metadata
        .as_ref()
        .and_then(|m| m.labels.clone())
        .unwrap_or_default();
    labels.insert(owner.label.to_owned(), hash.clone());
    let annotations: Map = meta.annotations.clone().unwrap_or_default();
    let body = json!({
        "metadata": {
            "name": key(&hash).name, "labels": labels, "annotations": annotations,
            "ownerReferences": [controller_reference(owner.object)],
        },
        "data": data, "revision": revision,
    });
    Some(Write::create::<ControllerRevision>(&turn.key.namespace, body))
}

/// The template that a revision keeps.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}
