//! `mizzen uninstall`: removes what `mizzen install` made and what the operator made, and says what it leaves and why.

use crate::connect::{self, refused};
use crate::failure::Failure;
use crate::install::cluster::Cluster;
use crate::install::manifests::{self, INSTALLED, INSTALLER, Images, OPERATOR_NAMESPACE};
use crate::install::progress::{Output, Progress};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use mizzen_crds::maistra::{ServiceMeshControlPlane, ServiceMeshMember, ServiceMeshMemberRoll};
use mizzen_desired::{drift, labels};
use mizzen_operator::apply;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// What to remove.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  mizzen uninstall             the mesh, the sample and the operator; your own routes and policies stay
  mizzen uninstall --purge     those too, with their CRDs")]
pub(crate) struct Args {
    /// Remove the users' own objects of the mesh's kinds too: gateways, routes, policies, member rolls.
    #[arg(long)]
    purge: bool,
    /// How long each step may take: 90s, 5m.
    #[arg(long, default_value = "2m", value_parser = crate::install::duration)]
    timeout: Duration,
    /// How results are printed.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    cluster: connect::Options,
}

/// Uninstalls; the exit code says whether everything went.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut progress = Progress::new(args.output);
    match steps(&args, &mut progress).await {
        Ok(()) => {
            progress.finish();
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            progress.failed(&failure);
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn steps(args: &Args, progress: &mut Progress) -> Result<(), Failure> {
    progress.start("cluster");
    let cluster = Cluster::connect(&args.cluster).await?;
    let mut removal = Removal {
        args,
        cluster,
        progress,
        left: Vec::new(),
    };
    removal.sample().await?;
    removal.mesh().await?;
    removal.operator().await?;
    removal.crds().await?;
    for (what, why) in std::mem::take(&mut removal.left) {
        removal.progress.start("left");
        removal.progress.done(&what, &why);
    }
    Ok(())
}

struct Removal<'a> {
    args: &'a Args,
    cluster: Cluster,
    progress: &'a mut Progress,
    left: Vec<(String, String)>,
}

fn failed(error: &kube::Error) -> Failure {
    refused("the cluster refuses", error)
}

impl Removal<'_> {
    fn client(&self) -> Client {
        self.cluster.client.clone()
    }

    /// The objects of the sample that still say that install made them.
    async fn sample(&mut self) -> Result<(), Failure> {
        self.progress.start("sample");
        let images = Images {
            registry: String::new(),
            tag: String::new(),
        };
        let sample = manifests::sample("tutorial", "", &images);
        let sample =
            sample.map_err(|e| Failure::new("a built-in manifest is wrong", format!("{e:#}"), "report it as a bug"))?;
        let mut removed = 0;
        for object in sample.objects.iter().rev() {
            let Some(api) = self.cluster.api(object).await.map_err(|e| failed(&e))? else {
                continue;
            };
            let name = manifests::text(object, "/metadata/name");
            let found = api.get_opt(name).await.map_err(|e| failed(&e))?;
            if found.is_some_and(|found| installed(&found)) && self.cluster.delete(object).await? {
                removed += 1;
            }
        }
        if removed > 0 {
            self.progress
                .done("removed", &format!("{removed} objects in {}", sample.namespace));
        }
        Ok(())
    }

    /// The meshes, by the operator if it is there, else by hand.
    async fn mesh(&mut self) -> Result<(), Failure> {
        self.progress.start("mesh");
        let client = self.client();
        let meshes = list::<ServiceMeshControlPlane>(&client).await?;
        let rolls = list::<ServiceMeshMemberRoll>(&client).await?;
        let operator = self.operator_works().await;
        if !operator {
            // They would refuse every change, with nobody to answer.
            self.operator_webhooks().await?;
        }
        for mesh in &meshes {
            let api: Api<ServiceMeshControlPlane> =
                Api::namespaced(client.clone(), &mesh.namespace().unwrap_or_default());
            ignore_missing(api.delete(&mesh.name_any(), &DeleteParams::default()).await)?;
        }
        let purge = self.args.purge;
        for roll in rolls
            .iter()
            .filter(|roll| purge || roll.labels().contains_key(INSTALLED))
        {
            let api: Api<ServiceMeshMemberRoll> =
                Api::namespaced(client.clone(), &roll.namespace().unwrap_or_default());
            ignore_missing(api.delete(&roll.name_any(), &DeleteParams::default()).await)?;
        }
        let gone = operator && self.wait_for_meshes(&client).await?;
        if !gone {
            self.sweep(&client).await?;
        }
        self.operator_webhooks().await?;
        // What the operator no longer looks at must not wait for it.
        for roll in list::<ServiceMeshMemberRoll>(&client).await? {
            strip_finalizer(&client, &roll).await?;
        }
        for mesh in &meshes {
            self.leftovers(&client, &mesh.namespace().unwrap_or_default(), &mesh.name_any())
                .await?;
        }
        let mut namespaces: BTreeSet<String> = meshes.iter().filter_map(ResourceExt::namespace).collect();
        let api: Api<Namespace> = Api::all(client.clone());
        let made = ListParams::default().labels(&format!("{INSTALLED}={INSTALLER}"));
        namespaces.extend(
            api.list(&made)
                .await
                .map_err(|e| failed(&e))?
                .items
                .iter()
                .map(ResourceExt::name_any),
        );
        for namespace in &namespaces {
            self.namespace(&client, namespace).await?;
        }
        let names: Vec<_> = meshes
            .iter()
            .map(|m| format!("{}/{}", m.namespace().unwrap_or_default(), m.name_any()))
            .collect();
        if names.is_empty() {
            self.progress.done("none", "");
        } else {
            self.progress.done("removed", &names.join(", "));
        }
        Ok(())
    }

    async fn operator_works(&self) -> bool {
        let api: Api<Deployment> = Api::namespaced(self.client(), OPERATOR_NAMESPACE);
        let found = api.get_opt("mizzen-operator").await.ok().flatten();
        found
            .and_then(|d| d.status)
            .and_then(|s| s.available_replicas)
            .is_some_and(|n| n > 0)
    }

    /// Whether the operator removed all meshes in time.
    async fn wait_for_meshes(&mut self, client: &Client) -> Result<bool, Failure> {
        let deadline = Instant::now() + self.args.timeout;
        loop {
            let left = list::<ServiceMeshControlPlane>(client).await?.len();
            if left == 0 {
                return Ok(true);
            }
            if Instant::now() > deadline {
                self.progress.note("the operator does not remove it; doing it without");
                return Ok(false);
            }
            self.progress.note("the operator removes it");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What the operator would do, without it.
    async fn sweep(&mut self, client: &Client) -> Result<(), Failure> {
        let remedy = "run the command again";
        let wrong = |error: apply::ApplyError| Failure::new("an object cannot be removed", error.to_string(), remedy);
        let mut owned = apply::owned(client, labels::OWNER).await.map_err(wrong)?;
        owned.sort_by_key(|id| !id.kind.ends_with("WebhookConfiguration"));
        for id in owned {
            if apply::fetch(client, &id)
                .await
                .map_err(wrong)?
                .as_ref()
                .is_some_and(drift::is_ours)
            {
                apply::delete(client, &id).await.map_err(wrong)?;
            }
        }
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let members = ListParams::default().labels(labels::MEMBER_OF);
        for namespace in namespaces.list(&members).await.map_err(|e| failed(&e))? {
            let name = namespace.name_any();
            let patch = json!({ "metadata": { "labels": { (labels::MEMBER_OF): null } } });
            namespaces
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(|e| failed(&e))?;
            let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &name);
            let bundle = maps.get_opt("istio-ca-root-cert").await.map_err(|e| failed(&e))?;
            if bundle.is_some_and(|bundle| bundle.labels().contains_key(labels::MEMBER_OF)) {
                ignore_missing(maps.delete("istio-ca-root-cert", &DeleteParams::default()).await)?;
            }
        }
        for mesh in list::<ServiceMeshControlPlane>(client).await? {
            strip_finalizer(client, &mesh).await?;
        }
        Ok(())
    }

    /// What a control plane made for itself: the key of its CA, and its leases.
    async fn leftovers(&self, client: &Client, namespace: &str, name: &str) -> Result<(), Failure> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        ignore_missing(secrets.delete("istio-ca-secret", &DeleteParams::default()).await)?;
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let prefix = format!("istiod-{name}-");
        for lease in leases.list(&ListParams::default()).await.map_err(|e| failed(&e))? {
            if lease.name_any().starts_with(&prefix) {
                ignore_missing(leases.delete(&lease.name_any(), &DeleteParams::default()).await)?;
            }
        }
        Ok(())
    }

    /// Removes a namespace that install made, unless something of the user's is in it.
    async fn namespace(&mut self, client: &Client, name: &str) -> Result<(), Failure> {
        let api: Api<Namespace> = Api::all(client.clone());
        let Some(found) = api.get_opt(name).await.map_err(|e| failed(&e))? else {
            return Ok(());
        };
        if found.labels().get(INSTALLED).is_none_or(|by| by != INSTALLER) {
            self.left
                .push((format!("namespace {name}"), "install did not make it".to_owned()));
            return Ok(());
        }
        let users = users_objects(client, name).await?;
        if users.is_empty() || self.args.purge {
            ignore_missing(api.delete(name, &DeleteParams::default()).await)?;
            return self.gone(name).await;
        }
        let why = format!("it holds {}", users.join(", "));
        self.left.push((format!("namespace {name}"), why));
        Ok(())
    }

    async fn operator_webhooks(&self) -> Result<(), Failure> {
        let name = format!("{OPERATOR_NAMESPACE}.servicemesh-resources.maistra.io");
        let mutating: Api<MutatingWebhookConfiguration> = Api::all(self.client());
        ignore_missing(mutating.delete(&name, &DeleteParams::default()).await)?;
        let validating: Api<ValidatingWebhookConfiguration> = Api::all(self.client());
        ignore_missing(validating.delete(&name, &DeleteParams::default()).await)
    }

    async fn operator(&mut self) -> Result<(), Failure> {
        self.progress.start("operator");
        let images = Images {
            registry: String::new(),
            tag: String::new(),
        };
        let objects = manifests::operator(&images)
            .map_err(|e| Failure::new("a built-in manifest is wrong", format!("{e:#}"), "report it as a bug"))?;
        let mut was_there = false;
        for object in objects.iter().rev() {
            was_there |= self.cluster.delete(object).await?;
        }
        // It may have put them back until it ended.
        self.gone("mizzen-operator").await?;
        self.operator_webhooks().await?;
        self.progress.done(
            if was_there { "removed" } else { "none" },
            if was_there { OPERATOR_NAMESPACE } else { "" },
        );
        Ok(())
    }

    async fn gone(&mut self, namespace: &str) -> Result<(), Failure> {
        let api: Api<Namespace> = Api::all(self.client());
        let deadline = Instant::now() + self.args.timeout;
        while api.get_opt(namespace).await.map_err(|e| failed(&e))?.is_some() {
            if Instant::now() > deadline {
                let remedy = format!("see what holds it: kubectl describe namespace {namespace}");
                return Err(Failure::new(
                    format!("namespace {namespace} does not go"),
                    "it is still there",
                    remedy,
                ));
            }
            self.progress.note(&format!("namespace {namespace} goes"));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }

    /// The kinds of which nobody has an object. Removing the others would remove what users wrote.
    async fn crds(&mut self) -> Result<(), Failure> {
        self.progress.start("crds");
        let client = self.client();
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        let built_in = manifests::crds()
            .map_err(|e| Failure::new("a built-in manifest is wrong", format!("{e:#}"), "report it as a bug"))?;
        let (mut removed, mut kept) = (Vec::new(), 0);
        for object in built_in {
            let name = manifests::text(&object, "/metadata/name");
            let Some(crd) = api.get_opt(name).await.map_err(|e| failed(&e))? else {
                continue;
            };
            let objects = objects_of(&client, &crd).await?;
            if objects.is_empty() || self.args.purge {
                ignore_missing(api.delete(name, &DeleteParams::default()).await)?;
                removed.push(name.to_owned());
            } else {
                kept += 1;
                let why = "they are yours; with --purge they go too".to_owned();
                self.left.push((
                    format!("{} {}", objects.len(), crd.spec.names.kind),
                    format!("{} ({why})", objects.join(", ")),
                ));
            }
        }
        let deadline = Instant::now() + self.args.timeout;
        for name in &removed {
            while api.get_opt(name).await.map_err(|e| failed(&e))?.is_some() {
                if Instant::now() > deadline {
                    let remedy = format!("see what holds it: kubectl get crd {name} -o yaml");
                    return Err(Failure::new(
                        format!("CRD {name} does not go"),
                        "it is still there",
                        remedy,
                    ));
                }
                self.progress.spin(name);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        let removed = removed.len();
        let detail = if kept > 0 {
            format!("{kept} stay, since there are objects of them")
        } else {
            String::new()
        };
        self.progress.done(&format!("removed {removed}"), &detail);
        Ok(())
    }
}

fn installed(object: &DynamicObject) -> bool {
    object.labels().get(INSTALLED).is_some_and(|by| by == INSTALLER)
}

/// All objects of a kind; none if the cluster does not have the kind.
async fn list<K>(client: &Client) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    match Api::<K>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(failed(&error)),
    }
}

async fn strip_finalizer<K>(client: &Client, object: &K) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let finalizers: Vec<_> = object.finalizers().iter().filter(|f| *f != labels::FINALIZER).collect();
    if finalizers.len() == object.finalizers().len() {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let patch = json!({ "metadata": { "finalizers": finalizers } });
    ignore_missing(
        api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await,
    )
}

fn ignore_missing<T>(done: Result<T, kube::Error>) -> Result<(), Failure> {
    match done {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(&error)),
    }
}

/// `namespace/name` of every object of a CRD.
async fn objects_of(client: &Client, crd: &CustomResourceDefinition) -> Result<Vec<String>, Failure> {
    let Some(version) = crd.spec.versions.iter().find(|v| v.served) else {
        return Ok(Vec::new());
    };
    let resource = ApiResource {
        group: crd.spec.group.clone(),
        version: version.name.clone(),
        api_version: format!("{}/{}", crd.spec.group, version.name),
        kind: crd.spec.names.kind.clone(),
        plural: crd.spec.names.plural.clone(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let objects = api
        .list_metadata(&ListParams::default())
        .await
        .map_err(|e| failed(&e))?
        .items;
    let alive = objects
        .iter()
        .filter(|object| object.metadata.deletion_timestamp.is_none());
    Ok(alive
        .map(|o| format!("{}/{}", o.namespace().unwrap_or_default(), o.name_any()))
        .collect())
}

/// What users have in a namespace: what runs there, what it needs, and the mesh's kinds.
async fn users_objects(client: &Client, namespace: &str) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    names::<Deployment>(client, namespace, |_| true, &mut found).await?;
    names::<Service>(client, namespace, |_| true, &mut found).await?;
    names::<ConfigMap>(
        client,
        namespace,
        |o| !matches!(o, "kube-root-ca.crt" | "istio-ca-root-cert"),
        &mut found,
    )
    .await?;
    names::<Secret>(client, namespace, |_| true, &mut found).await?;
    for roll in list::<ServiceMeshMemberRoll>(client).await? {
        if roll.namespace().as_deref() == Some(namespace) && roll.metadata.deletion_timestamp.is_none() {
            found.push(format!("ServiceMeshMemberRoll {}", roll.name_any()));
        }
    }
    for member in list::<ServiceMeshMember>(client).await? {
        if member.namespace().as_deref() == Some(namespace) {
            found.push(format!("ServiceMeshMember {}", member.name_any()));
        }
    }
    for (kind, plural, group) in [
        ("VirtualService", "virtualservices", "networking.istio.io"),
        ("DestinationRule", "destinationrules", "networking.istio.io"),
        ("Gateway", "gateways", "networking.istio.io"),
        ("PeerAuthentication", "peerauthentications", "security.istio.io"),
    ] {
        let resource = ApiResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            api_version: format!("{group}/v1"),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        match api.list_metadata(&ListParams::default()).await {
            Ok(list) => found.extend(list.items.iter().map(|o| format!("{kind} {}", o.name_any()))),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(found)
}

async fn names<K>(
    client: &Client,
    namespace: &str,
    counts: fn(&str) -> bool,
    found: &mut Vec<String>,
) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let objects = Api::<K>::namespaced(client.clone(), namespace)
        .list_metadata(&ListParams::default())
        .await;
    for object in objects.map_err(|e| failed(&e))? {
        let name = object.name_any();
        if object.metadata.deletion_timestamp.is_none() && counts(&name) && !object.labels().contains_key(labels::OWNER)
        {
            found.push(format!("{} {name}", K::kind(&())));
        }
    }
    Ok(())
}
