//! What triggers which reconciliation.

use crate::context::Context;
use crate::mesh::{self, ReconcileError};
use crate::metrics::{Controller as Name, Outcome};
use crate::{member, roll};
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use mizzen_crds::PeerAuthentication;
use mizzen_crds::maistra::{SINGLETON_NAME, ServiceMeshControlPlane, ServiceMeshMember, ServiceMeshMemberRoll};
use mizzen_desired::labels;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// After a failure. Longer would keep a mesh broken after its reason is gone; shorter would burden the API server.
const RETRY: Duration = Duration::from_secs(5);

/// Runs all controllers until `stop`.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) -> anyhow::Result<()> {
    context.metrics.leads();
    tokio::join!(
        meshes(context.clone(), stop.clone()),
        rolls(context.clone(), stop.clone()),
        members(context, stop)
    );
    Ok(())
}

async fn meshes(context: Arc<Context>, stop: CancellationToken) {
    let client = context.client.clone();
    let api: Api<ServiceMeshControlPlane> = Api::all(client.clone());
    let mut controller = Controller::new(api, watcher::Config::default());
    macro_rules! watch_owned {
        ($($kind:ty),* $(,)?) => { $(
            controller = owned::<$kind>(controller, Api::all(client.clone()));
        )* };
    }
    watch_owned!(
        Deployment,
        Service,
        ServiceAccount,
        ConfigMap,
        PodDisruptionBudget,
        Role,
        RoleBinding,
        ClusterRole,
        ClusterRoleBinding,
        MutatingWebhookConfiguration,
        ValidatingWebhookConfiguration,
        PeerAuthentication,
    );
    // The mesh's own namespace is put right by the mesh's controller.
    let store = controller.store();
    controller = controller.watches(
        Api::<Namespace>::all(client),
        watcher::Config::default(),
        move |namespace| {
            let name = namespace.name_any();
            let inside = store
                .state()
                .into_iter()
                .filter(move |mesh| mesh.namespace().as_deref() == Some(name.as_str()));
            inside.map(|mesh| ObjectRef::from_obj(&*mesh)).collect::<Vec<_>>()
        },
    );
    drive(controller, context, stop, Name::ControlPlane, mesh::reconcile).await;
}

/// Watches the objects of meshes, which are known by their labels. One that loses them by hand is reported as deleted.
fn owned<K>(controller: Controller<ServiceMeshControlPlane>, api: Api<K>) -> Controller<ServiceMeshControlPlane>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default + Debug + Clone + Eq + Hash,
{
    controller.watches(api, watcher::Config::default().labels(labels::OWNER), |object| {
        let labels = object.labels();
        let (namespace, name) = (labels.get(labels::OWNER)?, labels.get(labels::OWNER_NAME)?);
        Some(ObjectRef::new(name).within(namespace))
    })
}

async fn rolls(context: Arc<Context>, stop: CancellationToken) {
    let client = context.client.clone();
    let controller = Controller::new(
        Api::<ServiceMeshMemberRoll>::all(client.clone()),
        watcher::Config::default(),
    );
    let store = controller.store();
    let controller = controller
        // A namespace may be meant by any roll.
        .watches(
            Api::<Namespace>::all(client.clone()),
            watcher::Config::default(),
            move |_| {
                store
                    .state()
                    .iter()
                    .map(|roll| ObjectRef::from_obj(&**roll))
                    .collect::<Vec<_>>()
            },
        )
        .watches(
            Api::<ServiceMeshControlPlane>::all(client.clone()),
            watcher::Config::default(),
            |mesh| Some(ObjectRef::new(SINGLETON_NAME).within(&mesh.namespace()?)),
        )
        .watches(
            Api::<ServiceMeshMember>::all(client),
            watcher::Config::default(),
            |member| Some(ObjectRef::new(SINGLETON_NAME).within(&member.spec.control_plane_ref.namespace)),
        );
    drive(controller, context, stop, Name::MemberRoll, roll::reconcile).await;
}

async fn members(context: Arc<Context>, stop: CancellationToken) {
    let client = context.client.clone();
    let controller = Controller::new(
        Api::<ServiceMeshMember>::all(client.clone()),
        watcher::Config::default(),
    );
    let store = controller.store();
    let controller = controller
        .watches(
            Api::<Namespace>::all(client.clone()),
            watcher::Config::default(),
            |namespace| Some(ObjectRef::new(SINGLETON_NAME).within(&namespace.name_any())),
        )
        .watches(
            Api::<ServiceMeshControlPlane>::all(client),
            watcher::Config::default(),
            move |mesh| {
                let namespace = mesh.namespace();
                let members = store.state().into_iter();
                members
                    .filter(|m| Some(&m.spec.control_plane_ref.namespace) == namespace.as_ref())
                    .map(|m| ObjectRef::from_obj(&*m))
                    .collect::<Vec<_>>()
            },
        );
    drive(controller, context, stop, Name::Member, member::reconcile).await;
}

async fn drive<K, F>(
    controller: Controller<K>,
    context: Arc<Context>,
    stop: CancellationToken,
    name: Name,
    reconcile: fn(Arc<K>, Arc<Context>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<Action, ReconcileError>> + Send + 'static,
{
    let measured = move |object: Arc<K>, context: Arc<Context>| async move {
        let start = Instant::now();
        let done = reconcile(object, context.clone()).await;
        let outcome = if done.is_ok() { Outcome::Done } else { Outcome::Failed };
        context.metrics.reconciled(name, outcome, start.elapsed());
        done
    };
    controller
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(measured, |_, _, _| Action::requeue(RETRY), context)
        .for_each(|done| async move {
            match done {
                Ok((object, _)) => tracing::debug!(controller = ?name, %object, "reconciled"),
                // The object is gone; its deletion was dealt with by the finalizer.
                Err(kube::runtime::controller::Error::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(controller = ?name, %error, "reconciliation failed; trying again"),
            }
        })
        .await;
}
