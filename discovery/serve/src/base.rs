//! What must be known before anything can start: the parts of the mesh's ConfigMap that the process is built upon.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use mizzen_identity::{Namespace, TrustDomain};
use mizzen_index::{Membership, Settings};
use mizzen_model::{MeshConfig, ObjectName};
use serde_json::Value;
use tracing::warn;

use crate::Args;

/// Where the index starts from.
pub(crate) async fn settings(client: &Client, args: &Args) -> anyhow::Result<Settings> {
    let name = config_map_name(args);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &args.namespace);
    let text = maps
        .get_opt(&name)
        .await?
        .and_then(|mut map| map.data.as_mut().and_then(|data| data.remove("mesh")));
    if text.is_none() {
        warn!(
            config_map = name,
            "there is no mesh configuration yet: starting with defaults"
        );
    }
    from_text(args, text.as_deref().unwrap_or_default())
}

/// The ConfigMap that the operator writes for this revision.
pub(crate) fn config_map_name(args: &Args) -> String {
    format!("istio-{}", args.revision)
}

fn from_text(args: &Args, text: &str) -> anyhow::Result<Settings> {
    // What is wrong in it is reported by the index, which reads it again; here only what is right counts.
    let value: Value = serde_saphyr::from_str(text).unwrap_or_default();
    let word = |pointer: &str, default: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or(default)
            .to_owned()
    };
    let root = Namespace::new(&args.namespace)?;
    let trust_domain = TrustDomain::new(&word("/trustDomain", &args.trust_domain))?;
    let mut defaults = MeshConfig::new(root, trust_domain);
    defaults.cluster_domain = word("/mizzen/clusterDomain", &args.cluster_domain).into();
    defaults.cluster_id = word("/mizzen/clusterId", &args.cluster_id).into();
    let mut settings = Settings::new(defaults);
    settings.membership = match word("/mizzen/mode", "MultiTenant").as_str() {
        "ClusterWide" => Membership::All,
        _ => Membership::Labelled,
    };
    settings.mesh_config_map = Some(ObjectName::new(config_map_name(args))?);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn config_map_wins_over_flags() {
        let args = Command::parse_from(["x", "--revision", "r1", "--namespace", "mesh", "--cluster-id", "c1"]).args;
        let text = "trustDomain: td.example\nmizzen: {mode: ClusterWide, clusterDomain: k8s.example}\n";
        let settings = from_text(&args, text).unwrap();
        assert_eq!(settings.defaults.trust_domain.to_string(), "td.example");
        assert_eq!(&*settings.defaults.cluster_domain, "k8s.example");
        assert_eq!(&*settings.defaults.cluster_id, "c1");
        assert_eq!(settings.membership, Membership::All);
        assert_eq!(settings.mesh_config_map.unwrap().to_string(), "istio-r1");
        assert_eq!(from_text(&args, "").unwrap().membership, Membership::Labelled);
    }
}
