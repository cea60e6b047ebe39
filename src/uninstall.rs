//! `mizzen uninstall`: removes what `mizzen install` made and what the operator made, and says what it leaves and why.

mod namespace;
mod objects;
mod sweep;

use crate::connect;
use crate::failure::Failure;
use crate::install::cluster::Cluster;
use crate::install::manifests::{self, INSTALLED, INSTALLER, Images, OPERATOR_NAMESPACE};
use crate::install::progress::{Output, Progress};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use mizzen_crds::maistra::{ServiceMeshControlPlane, ServiceMeshMemberRoll};
use objects::{failed, ignore_missing, installed, list, objects_of, strip_finalizer};
use std::collections::BTreeSet;
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
    let outcome = steps(&args, &mut progress).await;
    Ok(progress.end(outcome))
}

async fn steps(args: &Args, progress: &mut Progress) -> Result<(), Failure> {
    progress.start("cluster");
    let cluster = Cluster::connect(&args.cluster).await?;
    let mut removal = Removal {
        args,
        cluster,
        progress,
        left: Vec::new(),
        going: Vec::new(),
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
    /// Namespaces that were deleted. All are waited for together: Kubernetes takes some seconds for each.
    going: Vec<String>,
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
            let found = match api.get(name).await {
                Err(kube::Error::Api(status)) if status.code == 404 => None,
                found => Some(found.map_err(|e| failed(&e))?),
            };
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
        for namespace in namespaces {
            if self.namespace(&client, &namespace).await? {
                self.going.push(namespace);
            }
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
        // The Deployment first, so that the operator ends with its rights still there.
        for object in objects.iter().rev() {
            was_there |= self.cluster.delete(object).await?;
            if manifests::text(object, "/kind") == "Deployment" {
                self.pods_end(OPERATOR_NAMESPACE).await?;
            }
        }
        self.going.push(OPERATOR_NAMESPACE.to_owned());
        for namespace in std::mem::take(&mut self.going) {
            self.gone(&namespace).await?;
        }
        // It may have put them back until it ended.
        self.operator_webhooks().await?;
        self.progress.done(
            if was_there { "removed" } else { "none" },
            if was_there { OPERATOR_NAMESPACE } else { "" },
        );
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
