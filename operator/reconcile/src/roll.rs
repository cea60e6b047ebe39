//! The controller of ServiceMeshMemberRolls: the one that puts namespaces into a mesh and takes them out.

use crate::apply;
use crate::context::{Context, about, now};
use crate::mesh::ReconcileError;
use crate::namespaces::{self, Membership};
use crate::status::stamped;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use mizzen_crds::maistra::{
    Condition, ConditionReason, ConditionStatus, ConditionType, MemberRollStatus, MemberStatus,
    ServiceMeshControlPlane, ServiceMeshMember, ServiceMeshMemberRoll,
};
use mizzen_desired::{FIELD_MANAGER, Resolved, ValidatedMember, ValidatedRoll, labels};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const STEADY: Duration = Duration::from_secs(300);
/// The control plane notices within this time that a namespace left, and writes no more into it.
const LEAVING: Duration = Duration::from_secs(3);

/// What became of one namespace that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    Configured,
    Pending(ConditionReason, String),
    Terminating,
}

pub(crate) async fn reconcile(
    seen: Arc<ServiceMeshMemberRoll>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let namespace = seen.namespace().unwrap_or_default();
    let api: Api<ServiceMeshMemberRoll> = Api::namespaced(context.client.clone(), &namespace);
    let Some(roll) = api.get_opt(&seen.name_any()).await? else {
        return Ok(Action::await_change());
    };
    let own = own_members(&context, &namespace).await?;
    if roll.metadata.deletion_timestamp.is_some() {
        return leave_all(&context, &api, &roll, &own).await;
    }
    let valid = match ValidatedRoll::check(&roll, &context.settings.operator_namespace) {
        Ok(valid) => valid,
        Err(errors) => {
            let named = errors.errors().iter().any(|error| error.field == "metadata.name");
            let reason = if named {
                ConditionReason::ErrInvalidName
            } else {
                ConditionReason::ReconcileError
            };
            let condition = (ConditionStatus::False, reason, errors.to_string());
            write(&context, &api, &roll, refused(&roll, condition)).await?;
            return Ok(Action::await_change());
        }
    };
    if nobody_needs(&roll, &own) {
        api.delete(&roll.name_any(), &DeleteParams::default()).await?;
        return Ok(Action::await_change());
    }
    ensure_finalizer(&api, &roll).await?;

    let namespaces = namespaces::all(&context).await?;
    let empty = BTreeMap::new();
    let mut resolved = valid.resolve(namespaces.iter().filter_map(|n| {
        Some((
            n.metadata.name.as_deref()?,
            n.metadata.labels.as_ref().unwrap_or(&empty),
        ))
    }));
    resolved.present.extend(own);
    let mesh = mesh_of(&context, &namespace).await?;
    let members = match &mesh {
        Some(_) => configure(&context, &namespace, &namespaces, &resolved).await?,
        None => BTreeMap::new(),
    };
    let status = status(&roll, mesh.as_ref(), &resolved, &members);
    write(&context, &api, &roll, status).await?;
    let leaving = context.leaving.lock().iter().any(|(mesh, _)| *mesh == namespace);
    if leaving && !just_left(&context, &namespace, &namespaces) {
        namespaces::look_again(&context, &namespace).await?;
    }
    let failed = members
        .values()
        .any(|m| matches!(m, Member::Pending(ConditionReason::ErrorConfiguringNamespace, _)));
    Ok(Action::requeue(if leaving || failed { LEAVING } else { STEADY }))
}

/// Whether a namespace left in this very pass: it still carried the label when the pass began.
fn just_left(context: &Context, mesh_namespace: &str, namespaces: &[Namespace]) -> bool {
    let leaving = context.leaving.lock();
    namespaces.iter().any(|n| {
        namespaces::membership(n, mesh_namespace) == Membership::Ours
            && leaving.contains(&(mesh_namespace.to_owned(), n.name_any()))
    })
}

/// Namespaces with a valid ServiceMeshMember for a mesh in this namespace.
async fn own_members(context: &Context, mesh_namespace: &str) -> kube::Result<BTreeSet<String>> {
    let api: Api<ServiceMeshMember> = Api::all(context.client.clone());
    let members = api.list(&ListParams::default()).await?.items;
    let alive = members
        .iter()
        .filter(|member| member.metadata.deletion_timestamp.is_none());
    let valid = alive.filter_map(|m| ValidatedMember::check(m, &context.settings.operator_namespace).ok());
    Ok(valid
        .filter(|member| member.control_plane().namespace == mesh_namespace)
        .map(|member| member.namespace().to_owned())
        .collect())
}

/// The mesh of a namespace: its oldest control plane that is not going away.
async fn mesh_of(context: &Context, namespace: &str) -> kube::Result<Option<ServiceMeshControlPlane>> {
    let api: Api<ServiceMeshControlPlane> = Api::namespaced(context.client.clone(), namespace);
    let mut meshes = api.list(&ListParams::default()).await?.items;
    meshes.retain(|mesh| mesh.metadata.deletion_timestamp.is_none());
    meshes.sort_by_key(|mesh| {
        (
            mesh.metadata.creation_timestamp.as_ref().map(|t| t.0.as_second()),
            mesh.uid(),
        )
    });
    Ok(meshes.into_iter().next())
}

/// A roll that the operator made for members that are all gone.
fn nobody_needs(roll: &ServiceMeshMemberRoll, own: &BTreeSet<String>) -> bool {
    let names = roll.spec.members.as_deref().unwrap_or_default();
    let selectors = roll.spec.member_selectors.as_deref().unwrap_or_default();
    roll.annotations().contains_key(labels::CREATED_BY) && names.is_empty() && selectors.is_empty() && own.is_empty()
}

async fn configure(
    context: &Context,
    mesh_namespace: &str,
    namespaces: &[Namespace],
    resolved: &Resolved,
) -> Result<BTreeMap<String, Member>, ReconcileError> {
    let mut members = BTreeMap::new();
    for namespace in namespaces {
        let name = namespace.name_any();
        let membership = namespaces::membership(namespace, mesh_namespace);
        if !resolved.present.contains(&name) {
            if membership == Membership::Ours && name != mesh_namespace {
                namespaces::release(context, &name, mesh_namespace).await?;
            }
            continue;
        }
        let member = match membership {
            _ if namespaces::terminating(namespace) => Member::Terminating,
            Membership::Ours => Member::Configured,
            Membership::Theirs => {
                let other = namespace.labels().get(labels::MEMBER_OF).cloned().unwrap_or_default();
                let why = format!("{name} is in the mesh of namespace {other}; take it out there first");
                Member::Pending(ConditionReason::ReferencesDifferentControlPlane, why)
            }
            Membership::None => match namespaces::join(context, &name, mesh_namespace).await {
                Ok(()) => Member::Configured,
                Err(error) => {
                    let why = format!("{name} cannot be labelled: {error}");
                    Member::Pending(ConditionReason::ErrorConfiguringNamespace, why)
                }
            },
        };
        members.insert(name, member);
    }
    Ok(members)
}

fn status(
    roll: &ServiceMeshMemberRoll,
    mesh: Option<&ServiceMeshControlPlane>,
    resolved: &Resolved,
    members: &BTreeMap<String, Member>,
) -> MemberRollStatus {
    let all: Vec<String> = resolved.present.union(&resolved.missing).cloned().collect();
    let of = |want: fn(&Member) -> bool| -> Vec<String> {
        members
            .iter()
            .filter(|(_, member)| want(member))
            .map(|(name, _)| name.clone())
            .collect()
    };
    let configured = of(|member| *member == Member::Configured);
    let terminating = of(|member| *member == Member::Terminating);
    let pending: Vec<_> = all
        .iter()
        .filter(|name| !configured.contains(name) && !terminating.contains(name))
        .cloned()
        .collect();
    let problems: Vec<_> = members
        .values()
        .filter_map(|member| match member {
            Member::Pending(_, why) => Some(why.clone()),
            _ => None,
        })
        .collect();
    let said = match mesh {
        None => {
            let why = "there is no ServiceMeshControlPlane in this namespace; create one".to_owned();
            (ConditionStatus::False, ConditionReason::ErrSmcpMissing, why)
        }
        Some(_) if !problems.is_empty() => (
            ConditionStatus::False,
            ConditionReason::ReconcileError,
            problems.join("; "),
        ),
        Some(_) if resolved.missing.is_empty() => (
            ConditionStatus::True,
            ConditionReason::Configured,
            "all members are configured".to_owned(),
        ),
        Some(_) => {
            let missing = resolved.missing.iter().cloned().collect::<Vec<_>>().join(", ");
            let why = format!("all members that exist are configured; these join when they are created: {missing}");
            (ConditionStatus::True, ConditionReason::Configured, why)
        }
    };
    let before = roll.status.clone().unwrap_or_default();
    let now = now();
    let statuses = all.iter().map(|name| {
        let said = match members.get(name) {
            Some(Member::Configured) => (
                ConditionStatus::True,
                ConditionReason::Configured,
                "it is in the mesh".to_owned(),
            ),
            Some(Member::Terminating) => (
                ConditionStatus::False,
                ConditionReason::Terminating,
                "the namespace is going away".to_owned(),
            ),
            Some(Member::Pending(reason, why)) => (ConditionStatus::False, *reason, why.clone()),
            None if mesh.is_none() => (
                ConditionStatus::False,
                ConditionReason::ErrSmcpMissing,
                "there is no control plane".to_owned(),
            ),
            None => (
                ConditionStatus::False,
                ConditionReason::NamespaceNotExists,
                "the namespace does not exist".to_owned(),
            ),
        };
        let old = before.member_statuses.iter().flatten().find(|m| m.namespace == *name);
        let old = old.and_then(|m| m.conditions.as_ref());
        MemberStatus {
            namespace: name.clone(),
            conditions: Some(vec![stamped(old, ConditionType::Reconciled, said, &now)]),
        }
    });
    let mesh_status = mesh.and_then(|m| m.status.as_ref());
    let generation = mesh_status.and_then(|s| s.observed_generation);
    let version = mesh_status.and_then(|s| s.operator_version.as_ref()).zip(generation);
    MemberRollStatus {
        annotations: Some(
            [(
                "configuredMemberCount".to_owned(),
                format!("{}/{}", configured.len(), all.len()),
            )]
            .into(),
        ),
        observed_generation: roll.metadata.generation,
        mesh_generation: generation,
        mesh_reconciled_version: version.map(|(version, generation)| format!("{version}-{generation}")),
        conditions: Some(vec![stamped(
            before.conditions.as_ref(),
            ConditionType::Ready,
            said,
            &now,
        )]),
        member_statuses: Some(statuses.collect()),
        members: Some(all.clone()),
        configured_members: Some(configured),
        pending_members: Some(pending),
        terminating_members: Some(terminating),
    }
}

/// The status of a roll that cannot be acted on: members stay as they are.
fn refused(roll: &ServiceMeshMemberRoll, said: (ConditionStatus, ConditionReason, String)) -> MemberRollStatus {
    let before = roll.status.clone().unwrap_or_default();
    let conditions: Vec<Condition> = vec![stamped(before.conditions.as_ref(), ConditionType::Ready, said, &now())];
    MemberRollStatus {
        observed_generation: roll.metadata.generation,
        conditions: Some(conditions),
        ..before
    }
}

async fn write(
    context: &Context,
    api: &Api<ServiceMeshMemberRoll>,
    roll: &ServiceMeshMemberRoll,
    next: MemberRollStatus,
) -> Result<(), ReconcileError> {
    if roll.status.as_ref() == Some(&next) {
        return Ok(());
    }
    apply::status(api, &roll.name_any(), &next).await?;
    let reason = |status: &MemberRollStatus| status.conditions.iter().flatten().next().and_then(|c| c.reason);
    if reason(&next) != roll.status.as_ref().and_then(reason) {
        let condition = next.conditions.iter().flatten().next();
        let note = condition.and_then(|c| c.message.clone()).unwrap_or_default();
        let warning = condition.is_some_and(|c| c.status != ConditionStatus::True);
        let reason = reason(&next).map(|reason| format!("{reason:?}")).unwrap_or_default();
        context.event(&about(roll), warning, &reason, &note).await;
    }
    Ok(())
}

async fn ensure_finalizer(
    api: &Api<ServiceMeshMemberRoll>,
    roll: &ServiceMeshMemberRoll,
) -> Result<(), ReconcileError> {
    if roll.finalizers().iter().any(|f| f == labels::FINALIZER) {
        return Ok(());
    }
    let mut finalizers = roll.finalizers().to_vec();
    finalizers.push(labels::FINALIZER.to_owned());
    patch_finalizers(api, roll, &finalizers).await
}

async fn patch_finalizers(
    api: &Api<ServiceMeshMemberRoll>,
    roll: &ServiceMeshMemberRoll,
    finalizers: &[String],
) -> Result<(), ReconcileError> {
    let patch = json!({
        "metadata": { "finalizers": finalizers, "resourceVersion": roll.metadata.resource_version },
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(&roll.name_any(), &params, &Patch::Merge(patch)).await?;
    Ok(())
}

/// The roll goes: its namespaces leave, but for those that asked for themselves.
async fn leave_all(
    context: &Context,
    api: &Api<ServiceMeshMemberRoll>,
    roll: &ServiceMeshMemberRoll,
    own: &BTreeSet<String>,
) -> Result<Action, ReconcileError> {
    if !roll.finalizers().iter().any(|f| f == labels::FINALIZER) {
        return Ok(Action::await_change());
    }
    let mesh_namespace = roll.namespace().unwrap_or_default();
    for namespace in namespaces::labelled(context, &mesh_namespace).await? {
        let name = namespace.name_any();
        if name != mesh_namespace && !own.contains(&name) {
            namespaces::release(context, &name, &mesh_namespace).await?;
        }
    }
    let finalizers: Vec<_> = roll
        .finalizers()
        .iter()
        .filter(|f| *f != labels::FINALIZER)
        .cloned()
        .collect();
    patch_finalizers(api, roll, &finalizers).await?;
    tokio::time::sleep(LEAVING).await;
    namespaces::look_again(context, &mesh_namespace).await?;
    Ok(Action::await_change())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn roll(spec: Value, created_by: bool) -> ServiceMeshMemberRoll {
        let annotations = if created_by {
            json!({ (labels::CREATED_BY): "x" })
        } else {
            json!({})
        };
        serde_json::from_value(json!({
            "apiVersion": "maistra.io/v1", "kind": "ServiceMeshMemberRoll",
            "metadata": {"name": "default", "namespace": "mesh", "annotations": annotations, "generation": 7},
            "spec": spec,
        }))
        .unwrap()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    // A3
    #[test]
    fn a_missing_namespace_is_pending_and_the_roll_is_still_right() {
        let mesh: ServiceMeshControlPlane = serde_json::from_value(json!({
            "apiVersion": "maistra.io/v2", "kind": "ServiceMeshControlPlane",
            "metadata": {"name": "basic"}, "spec": {},
            "status": {"observedGeneration": 3, "operatorVersion": "1.2.3", "readiness": {"components": {}}},
        }))
        .unwrap();
        let resolved = Resolved {
            present: set(&["one"]),
            missing: set(&["later"]),
        };
        let members = [("one".to_owned(), Member::Configured)].into();
        let status = status(&roll(json!({}), false), Some(&mesh), &resolved, &members);
        assert_eq!(status.annotations.unwrap()["configuredMemberCount"], "1/2");
        assert_eq!(status.pending_members.unwrap(), ["later"]);
        assert_eq!(status.configured_members.unwrap(), ["one"]);
        assert_eq!(status.mesh_reconciled_version.as_deref(), Some("1.2.3-3"));
        assert_eq!(status.conditions.unwrap()[0].reason, Some(ConditionReason::Configured));
        let statuses = status.member_statuses.unwrap();
        assert_eq!(
            statuses[0].conditions.as_ref().unwrap()[0].reason,
            Some(ConditionReason::NamespaceNotExists)
        );
    }

    #[test]
    fn without_a_control_plane_all_are_pending() {
        let resolved = Resolved {
            present: set(&["one"]),
            missing: set(&[]),
        };
        let status = status(&roll(json!({}), false), None, &resolved, &BTreeMap::new());
        assert_eq!(
            status.conditions.unwrap()[0].reason,
            Some(ConditionReason::ErrSmcpMissing)
        );
        assert_eq!(status.pending_members.unwrap(), ["one"]);
    }

    #[test]
    fn only_a_roll_of_ours_that_nobody_uses_is_removed() {
        assert!(nobody_needs(&roll(json!({}), true), &set(&[])));
        assert!(!nobody_needs(&roll(json!({}), false), &set(&[])));
        assert!(!nobody_needs(&roll(json!({}), true), &set(&["one"])));
        assert!(!nobody_needs(&roll(json!({"members": ["two"]}), true), &set(&[])));
    }
}
