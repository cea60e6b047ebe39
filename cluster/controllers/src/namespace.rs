//! Namespaces. A living one gets the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`. Of a deleted one the pods are
//! deleted first, then everything else; when nothing is left it is let go, and until then its conditions say what remains.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, NamespaceCondition, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    plan::{Plan, Write, put},
    pods::name,
    queue::{Key, Queue},
    resources::{Resource, metadata, resources},
    work::{Desk, Turn, request},
};

/// The ConfigMap with the certificates of the API server.
pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.";
/// A namespace that cannot end yet is looked at again after a pause that doubles from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Each condition's type and what it says when nothing is wrong.
const CONDITIONS: [(&str, &str, &str); 5] = [
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (
        "NamespaceContentRemaining",
        "ContentRemoved",
        "All content successfully removed",
    ),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
];

/// One look at one living namespace.
pub(crate) fn step(turn: &Turn<'_>) -> Plan {
    let mut plan = Plan::default();
    let namespace = turn.key.name.as_str();
    let alive = |namespace: &Arc<Namespace>| namespace.metadata.deletion_timestamp.is_none();
    if !turn
        .world
        .namespaces
        .get(turn.key)
        .is_some_and(|namespace| alive(&namespace))
    {
        return plan;
    }
    if turn
        .world
        .service_accounts
        .get(&Key::new(namespace, "default"))
        .is_none()
    {
        plan.push(Write::create::<ServiceAccount>(
            namespace,
            json!({"metadata": {"name": "default"}}),
        ));
    }
    let Some(root_ca) = turn.world.root_ca.get() else {
        return plan;
    };
    match turn.world.config_maps.get(&Key::new(namespace, ROOT_CA)) {
        None => {
            let annotations = json!({"kubernetes.io/description": DESCRIPTION});
            let body = json!({"metadata": {"name": ROOT_CA, "annotations": annotations}, "data": {"ca.crt": root_ca}});
            plan.push(Write::create::<ConfigMap>(namespace, body));
        }
        Some(map)
            if map
                .data
                .as_ref()
                .is_none_or(|data| data.len() != 1 || data.get("ca.crt") != Some(root_ca)) =>
        {
            let stale = map
                .data
                .iter()
                .flatten()
                .filter(|(key, _)| *key != "ca.crt")
                .map(|(key, _)| (key.clone(), Value::Null));
            let mut data: serde_json::Map<String, Value> = stale.collect();
            data.insert("ca.crt".to_owned(), json!(root_ca));
            plan.push(Write::patch(&*map, json!({"data": data})));
        }
        Some(_) => {}
    }
    plan
}

/// Ends deleted namespaces, forever.
pub(crate) async fn end(desk: Arc<Desk>, queue: Arc<Queue>) {
    let mut tries: BTreeMap<Key, u32> = BTreeMap::new();
    loop {
        let key = queue.next().await;
        let ending = desk
            .world
            .namespaces
            .get(&key)
            .filter(|namespace| namespace.metadata.deletion_timestamp.is_some());
        let Some(namespace) = ending else {
            tries.remove(&key);
            continue;
        };
        match end_one(&desk, &namespace).await {
            Ok(true) => {
                tries.remove(&key);
            }
            outcome => {
                if let Err((code, error)) = outcome {
                    tracing::debug!(namespace = key.name, code, %error, "namespace cannot end yet");
                }
                let times = tries.entry(key.clone()).or_default();
                let pause = PAUSES.0.saturating_mul(1 << (*times).min(10)).min(PAUSES.1);
                *times += 1;
                queue.add_at(key, Instant::now() + pause);
            }
        }
    }
}

/// What a look at the content found.
#[derive(Default)]
struct Content {
    /// `deployments.apps has 1 resource instances`
    remaining: Vec<String>,
    finalizers: BTreeMap<String, usize>,
    errors: Vec<String>,
}

/// Whether the namespace is gone.
async fn end_one(desk: &Desk, namespace: &Namespace) -> Result<bool, (u16, String)> {
    let kubernetes = |finalizer: &&String| *finalizer != "kubernetes";
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.clone())
        .unwrap_or_default();
    if finalizers.iter().all(|finalizer| finalizer != "kubernetes") {
        return Ok(true); // others keep it
    }
    let mut content = Content::default();
    let all = match resources(&desk.client).await {
        Ok(all) => all,
        Err(error) => {
            let message = error.to_string();
            report(desk, namespace, &Content::default(), Some(&message)).await?;
            return Err((0, message));
        }
    };
    let deletable = |resource: &&Resource| resource.namespaced && resource.can("delete") && resource.can("list");
    let (pods, others): (Vec<_>, Vec<_>) = all
        .iter()
        .filter(deletable)
        .partition(|resource| resource.api.group.is_empty() && resource.api.plural == "pods");
    for phase in [pods, others] {
        for resource in phase {
            empty(desk, name(namespace), resource, &mut content).await;
        }
        if !content.remaining.is_empty() || !content.errors.is_empty() {
            report(desk, namespace, &content, None).await?;
            return Ok(false);
        }
    }
    let mut object = serde_json::to_value(namespace).unwrap_or_default();
    let rest: Vec<_> = finalizers.iter().filter(kubernetes).collect();
    put(&mut object, &["spec", "finalizers"], json!(rest));
    let path = format!("/api/v1/namespaces/{}/finalize", name(namespace));
    let answer = request(&desk.client, Method::PUT, &path, "application/json", &object).await?;
    if answer
        .pointer("/spec/finalizers")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        desk.world
            .namespaces
            .forget(&Key::new("", name(namespace)), namespace.metadata.uid.as_deref());
    }
    Ok(true)
}

/// Deletes all objects of one resource and notes what is left.
async fn empty(desk: &Desk, namespace: &str, resource: &Resource, content: &mut Content) {
    let path = resource.path(namespace, "");
    let full_name = format!("{}.{}", resource.api.plural, resource.api.group);
    for last in [false, true] {
        let objects = match metadata(&desk.client, &path, true).await {
            Ok(list) => list.get("items").and_then(Value::as_array).cloned().unwrap_or_default(),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => return,
            Err(error) => return content.errors.push(format!("{full_name}: {error}")),
        };
        if objects.is_empty() {
            return;
        }
        if last {
            content
                .remaining
                .push(format!("{full_name} has {} resource instances", objects.len()));
            for finalizer in objects.iter().flat_map(|o| {
                o.pointer("/metadata/finalizers")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
            }) {
                *content
                    .finalizers
                    .entry(finalizer.as_str().unwrap_or_default().to_owned())
                    .or_default() += 1;
            }
            return;
        }
        let living = |object: &&Value| object.pointer("/metadata/deletionTimestamp").is_none();
        let living = objects
            .iter()
            .filter(living)
            .filter_map(|object| object.pointer("/metadata/name")?.as_str());
        let paths: Vec<_> = match resource.can("deletecollection") {
            true => living.take(1).map(|_| path.clone()).collect(),
            false => living.map(|name| resource.path(namespace, name)).collect(),
        };
        for path in paths {
            let options = json!({"propagationPolicy": "Background"});
            match request(&desk.client, Method::DELETE, &path, "application/json", &options).await {
                Ok(_) | Err((404, _)) => {}
                Err((_, error)) => content.errors.push(format!("{full_name}: {error}")),
            }
        }
    }
}

/// Writes the conditions if they say something new.
async fn report(
    desk: &Desk,
    namespace: &Namespace,
    content: &Content,
    discovery: Option<&str>,
) -> Result<(), (u16, String)> {
    let finalizers: Vec<_> = content
        .finalizers
        .iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let list = |prefix: &str, list: &[String]| (!list.is_empty()).then(|| format!("{prefix}{}", list.join(", ")));
    let failed = format!(
        "Failed to delete all resource types, {} remaining: ",
        content.errors.len()
    );
    let wrong = [
        ("DiscoveryFailed", discovery.map(str::to_owned)),
        ("GroupVersionParsingFailed", None),
        ("ContentDeletionFailed", list(&failed, &content.errors)),
        (
            "SomeResourcesRemain",
            list("Some resources are remaining: ", &content.remaining),
        ),
        (
            "SomeFinalizersRemain",
            list("Some content in the namespace has finalizers remaining: ", &finalizers),
        ),
    ];
    let mut object = namespace.clone();
    let status = object.status.get_or_insert_default();
    let old = status.conditions.clone().unwrap_or_default();
    let mut conditions = Vec::new();
    for ((type_, reason, message), (wrong_reason, wrong)) in CONDITIONS.into_iter().zip(wrong) {
        let value = if wrong.is_some() { "True" } else { "False" };
        let same = old.iter().find(|c| c.type_ == type_ && c.status == value);
        conditions.push(NamespaceCondition {
            type_: type_.to_owned(),
            status: value.to_owned(),
            reason: Some(if wrong.is_some() { wrong_reason } else { reason }.to_owned()),
            message: Some(wrong.unwrap_or_else(|| message.to_owned())),
            last_transition_time: same.map_or(Some(Time(Timestamp::now())), |c| c.last_transition_time.clone()),
        });
    }
    if conditions != old {
        status.conditions = Some(conditions);
        match desk.carry_out(vec![Write::status(&object).into()]).await {
            Ok(()) => {}
            Err(failure) => return Err((failure.code, failure.message)),
        }
    }
    Ok(())
}
