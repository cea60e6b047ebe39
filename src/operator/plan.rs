//! `mizzen operator plan`: what the operator would make, without a cluster.

use crate::output::{self, Output};
use anyhow::{Context, anyhow, bail};
use mizzen_crds::yaml;
use mizzen_desired::{Manifest, Settings, SpecErrors, ValidatedMesh};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Of what.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  mizzen operator plan -f smcp.yaml
  kubectl get smcp -n istio-system basic -o yaml | mizzen operator plan -f -
  mizzen operator plan -f smcp.yaml -o json | jq '.items[].metadata.name'")]
pub(crate) struct Args {
    /// A file with a ServiceMeshControlPlane, or - for standard input.
    #[arg(short, long)]
    filename: PathBuf,
    /// How the objects are printed: as YAML with comments, or as a List in JSON.
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Output,
}

/// Prints the plan of every ServiceMeshControlPlane in the file.
pub(super) fn run(args: &Args, settings: &Settings) -> anyhow::Result<()> {
    let text = read(&args.filename)?;
    let name = if args.filename == Path::new("-") {
        "standard input".to_owned()
    } else {
        args.filename.display().to_string()
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|error| anyhow!("{name} is not YAML: {}", yaml::reason(&error, 1)))?;
    let meshes: Vec<_> = documents
        .iter()
        .filter(|d| d.get("kind").is_some_and(|kind| kind == "ServiceMeshControlPlane"))
        .collect();
    if meshes.is_empty() {
        bail!("{name} holds no ServiceMeshControlPlane; write one, with apiVersion: maistra.io/v2");
    }
    let plans = meshes.into_iter().map(|mesh| check(mesh, settings));
    let plans = plans.collect::<Result<Vec<_>, _>>()?;
    match args.output {
        Output::Yaml => {
            for plan in &plans {
                output::write(&yaml_of(plan)?)?;
            }
        }
        Output::Json => {
            let objects: Vec<_> = plans.iter().flat_map(ValidatedMesh::manifests).collect();
            output::write_list(objects.iter().map(Manifest::body))?;
        }
    }
    Ok(())
}

fn check(mesh: &Value, settings: &Settings) -> Result<ValidatedMesh, SpecErrors> {
    let mut mesh = mesh.clone();
    // What kubectl would do with it.
    if mesh.pointer("/metadata/namespace").is_none()
        && let Some(metadata) = mesh.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("namespace".to_owned(), "default".into());
    }
    ValidatedMesh::check_raw(&mesh, settings)
}

fn yaml_of(valid: &ValidatedMesh) -> anyhow::Result<String> {
    let mut text = String::new();
    for field in valid.not_acted_on() {
        text.push_str(&format!("# accepted, and not yet acted on: {field}\n"));
    }
    for manifest in valid.manifests() {
        text.push_str(&format!(
            "---\n# {}\n{}",
            manifest.component(),
            serde_saphyr::to_string(manifest.body())?
        ));
    }
    Ok(text)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("standard input cannot be read")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mizzen_review::InjectConfig;
    use serde_json::json;

    fn settings() -> Settings {
        Settings {
            operator_namespace: "mizzen-operator".to_owned(),
            operator_version: "1".to_owned(),
            image_registry: "r.example/m".to_owned(),
            image_tag: "t".to_owned(),
        }
    }

    #[test]
    fn the_plan_is_readable_yaml() {
        let mesh = json!({"kind": "ServiceMeshControlPlane", "metadata": {"name": "basic"},
                          "spec": {"profiles": ["demo"], "tracing": {"sampling": 1}}});
        let text = yaml_of(&check(&mesh, &settings()).unwrap()).unwrap();
        assert!(text.starts_with("# accepted, and not yet acted on: spec.tracing.sampling\n---\n"));
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert!(objects.len() > 12);
        assert!(
            objects
                .iter()
                .all(|o| o["metadata"]["namespace"] == "default" || o["metadata"]["namespace"].is_null())
        );
    }

    // B1, B3: operator and injector agree on the words between them.
    #[test]
    fn the_injector_understands_what_the_operator_writes() {
        let spec = json!({
            "profiles": ["demo"],
            "cluster": {"name": "east", "network": "n1"},
            "techPreview": {"mizzen": {"dataPlane": "envoy"}},
            "security": {"trust": {"domain": "example.org"},
                         "certificateAuthority": {"istiod": {"workloadCertTTLDefault": "12h"}}},
            "proxy": {
                "concurrency": 2,
                "logging": {"level": "debug", "componentLevels": {"http": "trace"}},
                "injection": {"autoInject": true, "neverInjectSelector": [{"matchLabels": {"a": "b"}}]},
                "networking": {"trafficControl": {
                    "inbound": {"interceptionMode": "TPROXY", "includedPorts": ["80"], "excludedPorts": [90, 91]},
                    "outbound": {"includedIPRanges": ["10.0.0.0/8"], "excludedPorts": [25]}}},
                "runtime": {"readiness": {"statusPort": 15099, "periodSeconds": 7, "rewriteApplicationProbes": false},
                            "container": {"env": {"A": "b"}, "imagePullSecrets": [{"name": "s"}]}},
            },
        });
        let mesh = json!({"metadata": {"name": "basic", "namespace": "mesh"}, "spec": spec});
        let valid = ValidatedMesh::check_raw(&mesh, &settings()).unwrap();
        let manifests = valid.manifests();
        let map = manifests
            .iter()
            .find(|m| m.id().name == "istio-sidecar-injector-basic")
            .unwrap();
        let read = InjectConfig::from_json(map.body()["data"]["values"].as_str().unwrap()).unwrap();
        assert_eq!(read.revision, "basic");
        assert_eq!(read.mesh_namespace, "mesh");
        assert_eq!(read.images.registry, "r.example/m");
        assert_eq!(read.images.pull_secrets, ["s"]);
        assert_eq!(read.data_plane, mizzen_review::DataPlane::Envoy);
        assert!(read.auto_inject);
        assert_eq!(read.never_inject_selector.len(), 1);
        assert_eq!(read.trust_domain.to_string(), "example.org");
        assert_eq!(read.cluster_id, "east");
        assert_eq!(read.network.as_deref(), Some("n1"));
        assert_eq!(read.certificate_ttl.as_deref(), Some("12h"));
        assert_eq!(read.capture.interception_mode, mizzen_review::InterceptionMode::Tproxy);
        assert_eq!(read.capture.include_inbound_ports, "80");
        assert_eq!(read.capture.exclude_inbound_ports, "90,91");
        assert_eq!(read.capture.include_outbound_ip_ranges, "10.0.0.0/8");
        assert_eq!(read.capture.exclude_outbound_ports, "25");
        assert_eq!(read.status_port, 15099);
        assert_eq!(read.readiness.period_seconds, 7);
        assert!(!read.rewrite_probes);
        assert_eq!(read.concurrency, Some(2));
        assert_eq!(read.log_level, "debug");
        assert_eq!(read.component_log_level, "http:trace");
        assert_eq!(read.env["A"], "b");
    }
}
