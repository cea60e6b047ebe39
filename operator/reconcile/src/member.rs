//! The controller of ServiceMeshMembers: makes the roll if there is none, and reports. The roll's controller does the rest.

use crate::apply;
use crate::context::{Context, now};
use crate::mesh::ReconcileError;
use crate::namespaces::{self, Membership};
use crate::status::stamped;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use mizzen_crds::maistra::{
    ConditionReason, ConditionStatus, ConditionType, MemberObjectStatus, SINGLETON_NAME, ServiceMeshControlPlane,
    ServiceMeshMember, ServiceMeshMemberRoll,
};
use mizzen_desired::{ValidatedMember, labels};
use std::sync::Arc;
use std::time::Duration;

const STEADY: Duration = Duration::from_secs(300);
/// The roll's controller needs a moment to label the namespace; its label triggers the next look.
const SOON: Duration = Duration::from_secs(10);

type Said = (ConditionStatus, ConditionReason, String);

pub(crate) async fn reconcile(seen: Arc<ServiceMeshMember>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let namespace = seen.namespace().unwrap_or_default();
    let api: Api<ServiceMeshMember> = Api::namespaced(context.client.clone(), &namespace);
    let Some(member) = api.get_opt(&seen.name_any()).await? else {
        return Ok(Action::await_change());
    };
    if member.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let valid = match ValidatedMember::check(&member, &context.settings.operator_namespace) {
        Ok(valid) => valid,
        Err(errors) => {
            let named = errors.errors().iter().any(|error| error.field == "metadata.name");
            let reason = if named {
                ConditionReason::InvalidName
            } else {
                ConditionReason::ErrorConfiguringNamespace
            };
            let said = (ConditionStatus::False, reason, errors.to_string());
            write(&api, &member, None, said).await?;
            return Ok(Action::await_change());
        }
    };
    let target = valid.control_plane();
    let meshes: Api<ServiceMeshControlPlane> = Api::namespaced(context.client.clone(), &target.namespace);
    let Some(mesh) = meshes.get_opt(&target.name).await? else {
        let why = format!(
            "there is no ServiceMeshControlPlane {}/{}; create it",
            target.namespace, target.name
        );
        write(
            &api,
            &member,
            None,
            (ConditionStatus::False, ConditionReason::ErrorControlPlaneMissing, why),
        )
        .await?;
        return Ok(Action::requeue(STEADY));
    };
    if let Err(error) = ensure_roll(&context, &target.namespace).await {
        let why = format!("the ServiceMeshMemberRoll cannot be made: {error}");
        write(
            &api,
            &member,
            Some(&mesh),
            (ConditionStatus::False, ConditionReason::CreateMemberRollFailed, why),
        )
        .await?;
        return Err(error.into());
    }
    let namespaces: Api<Namespace> = Api::all(context.client.clone());
    let found = namespaces.get(&namespace).await?;
    let (said, again) = match namespaces::membership(&found, &target.namespace) {
        Membership::Ours => (
            (
                ConditionStatus::True,
                ConditionReason::ReconcileSuccessful,
                "the namespace is in the mesh".to_owned(),
            ),
            STEADY,
        ),
        Membership::Theirs => {
            let other = found.labels().get(labels::MEMBER_OF).cloned().unwrap_or_default();
            let why = format!("the namespace is in the mesh of namespace {other}; take it out there first");
            (
                (
                    ConditionStatus::False,
                    ConditionReason::ReferencesDifferentControlPlane,
                    why,
                ),
                SOON,
            )
        }
        Membership::None => {
            let why = "the namespace is being put into the mesh".to_owned();
            (
                (ConditionStatus::False, ConditionReason::ErrorConfiguringNamespace, why),
                SOON,
            )
        }
    };
    write(&api, &member, Some(&mesh), said).await?;
    Ok(Action::requeue(again))
}

/// A roll with no members of its own, marked as the operator's.
async fn ensure_roll(context: &Context, mesh_namespace: &str) -> kube::Result<()> {
    let rolls: Api<ServiceMeshMemberRoll> = Api::namespaced(context.client.clone(), mesh_namespace);
    if rolls.get_opt(SINGLETON_NAME).await?.is_some() {
        return Ok(());
    }
    let roll = ServiceMeshMemberRoll {
        metadata: ObjectMeta {
            name: Some(SINGLETON_NAME.to_owned()),
            annotations: Some([(labels::CREATED_BY.to_owned(), "mizzen-operator".to_owned())].into()),
            ..ObjectMeta::default()
        },
        ..ServiceMeshMemberRoll::default()
    };
    match rolls.create(&PostParams::default(), &roll).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn write(
    api: &Api<ServiceMeshMember>,
    member: &ServiceMeshMember,
    mesh: Option<&ServiceMeshControlPlane>,
    said: Said,
) -> Result<(), ReconcileError> {
    let before = member.status.clone().unwrap_or_default();
    let target = &member.spec.control_plane_ref;
    let mesh_status = mesh.and_then(|m| m.status.as_ref());
    let generation = mesh_status.and_then(|s| s.observed_generation);
    let version = mesh_status.and_then(|s| s.operator_version.as_ref()).zip(generation);
    let now = now();
    let next = MemberObjectStatus {
        annotations: Some(
            [(
                "controlPlaneRef".to_owned(),
                format!("{}/{}", target.namespace, target.name),
            )]
            .into(),
        ),
        observed_generation: member.metadata.generation,
        mesh_generation: generation,
        mesh_reconciled_version: version.map(|(version, generation)| format!("{version}-{generation}")),
        conditions: Some(
            [ConditionType::Reconciled, ConditionType::Ready]
                .map(|kind| stamped(before.conditions.as_ref(), kind, said.clone(), &now))
                .into(),
        ),
    };
    if member.status.as_ref() == Some(&next) {
        return Ok(());
    }
    apply::status(api, &member.name_any(), &next).await?;
    Ok(())
}
