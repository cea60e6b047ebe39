//! `mizzen inject`: what the injection webhook would do, to a file.
//!
//! In: manifests, and the injector's configuration from the cluster or from a file. Out: the manifests on standard output,
//! with sidecars; on standard error what was done to each. The work itself is `mizzen-review`'s, the same as the webhook's.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::connect::{self, refused};
use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use mizzen_crds::yaml;
use mizzen_review::{CONFIG_MAP_KEY, InjectConfig, Outcome, config_map_name, inject_manifest};

/// What to inject, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Every object is named on standard error, with what was done to it and why. Pods, and the pod templates of Deployments,
ReplicaSets, StatefulSets, DaemonSets, ReplicationControllers, Jobs and CronJobs, are injected, those in a List too;
everything else comes out as it went in.

A pod that says nothing is injected, for whoever runs this has chosen the pod; the webhook asks the pod's namespace first.
A pod is left alone if it says sidecar.istio.io/inject: \"false\", uses hostNetwork, or if the mesh's policy or
neverInjectSelector is against it. What is injected here the webhook leaves as it is.

Examples:
  mizzen inject -f deployment.yaml | kubectl apply -f -
  kubectl get deployment cart -o yaml | mizzen inject -f - --namespace shop
  mizzen inject -f deployment.yaml --inject-config injector.json    no cluster is asked")]
pub(crate) struct Args {
    /// File with manifests in YAML or JSON; `-` for standard input; may be given several times.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub filename: Vec<PathBuf>,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Revision to inject for: the name of the ServiceMeshControlPlane.
    #[arg(long, default_value = "basic")]
    pub revision: String,
    /// Namespace of the control plane.
    #[arg(long, default_value = "istio-system")]
    pub mesh_namespace: String,
    /// ConfigMap with the injector's configuration [default: istio-sidecar-injector-<REVISION>]
    #[arg(long, value_name = "NAME")]
    pub mesh_config_map: Option<String>,
    /// Injector configuration in a file (its JSON, or the ConfigMap); no cluster is asked then.
    #[arg(long, value_name = "FILE", conflicts_with = "mesh_config_map")]
    pub inject_config: Option<PathBuf>,
    #[command(flatten)]
    cluster: connect::Options,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let config = match &args.inject_config {
        Some(file) => config_from_file(file)?,
        None => config_from_cluster(&args).await?,
    };
    // Everything is done before anything is printed: half a result must not reach `kubectl apply`.
    let mut output = String::new();
    let mut outcomes = Vec::new();
    for file in &args.filename {
        let text = read(file)?;
        let rendered =
            inject_manifest(&text, &config, &args.namespace).with_context(|| format!("{}", file.display()))?;
        if !output.is_empty() {
            output.push_str(if output.ends_with('\n') { "---\n" } else { "\n---\n" });
        }
        output.push_str(&rendered.text);
        outcomes.extend(rendered.outcomes);
    }
    report(&outcomes);
    crate::output::write(&output).context("the result cannot be written")
}

fn report(outcomes: &[Outcome]) {
    let mut stderr = std::io::stderr().lock();
    for Outcome {
        object,
        skipped,
        warnings,
    } in outcomes
    {
        // Nothing can be done about a closed standard error.
        let _ = match skipped {
            None => writeln!(stderr, "{object}: injected"),
            Some(reason) => writeln!(stderr, "{object}: not injected: {reason}"),
        };
        for warning in warnings {
            let _ = writeln!(stderr, "{object}: warning: {warning}");
        }
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("standard input cannot be read")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn config_from_file(file: &Path) -> anyhow::Result<InjectConfig> {
    let text = read(file)?;
    let value: serde_json::Value = serde_saphyr::from_str(&text).map_err(|error| {
        anyhow::anyhow!(
            "{} is neither JSON nor YAML: {}",
            file.display(),
            yaml::reason(&error, 1)
        )
    })?;
    let config = match value
        .pointer("/data")
        .and_then(|data| data.get(CONFIG_MAP_KEY))
        .and_then(|values| values.as_str())
    {
        Some(values) => InjectConfig::from_json(values),
        None => InjectConfig::from_json(&value.to_string()),
    };
    config.with_context(|| format!("{}", file.display()))
}

async fn config_from_cluster(args: &Args) -> anyhow::Result<InjectConfig> {
    let name = args
        .mesh_config_map
        .clone()
        .unwrap_or_else(|| config_map_name(&args.revision));
    let place = format!("ConfigMap {}/{name}", args.mesh_namespace);
    let client = args.cluster.reach().await?;
    let config_maps: Api<ConfigMap> = Api::namespaced(client, &args.mesh_namespace);
    let found = config_maps.get_opt(&name).await;
    let Some(found) = found.map_err(|error| refused(&format!("{place} cannot be read"), &error))? else {
        bail!(
            "{place} is not there: is a mesh of revision {} installed? See `kubectl get smcp -A`, and give --revision and \
             --mesh-namespace",
            args.revision
        );
    };
    let values = found.data.as_ref().and_then(|data| data.get(CONFIG_MAP_KEY));
    let Some(values) = values else {
        bail!("{place} has no key {CONFIG_MAP_KEY}")
    };
    InjectConfig::from_json(values).with_context(|| place.clone())
}
