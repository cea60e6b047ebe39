//! The mesh under test: installed by the product's own command, with one copy of the tutorial applications per data plane.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::cluster::Cluster;
use crate::scenario::DataPlane;

/// The tutorial's applications; a scenario finds them in the namespace of its data plane.
const APPS: [&str; 3] = [
    include_str!("../../samples/tutorial/customer.yaml"),
    include_str!("../../samples/tutorial/preference.yaml"),
    include_str!("../../samples/tutorial/recommendation.yaml"),
];
const GATEWAY: &str = include_str!("../../samples/tutorial/gateway.yaml");

pub(crate) struct Mesh<'a> {
    cluster: &'a Cluster,
    planes: &'a [DataPlane],
}

impl<'a> Mesh<'a> {
    pub(crate) fn new(cluster: &'a Cluster, planes: &'a [DataPlane]) -> Self {
        Self { cluster, planes }
    }

    /// A1, A3: installs as a user does, checks what the user sees, then adds the applications for each data plane.
    pub(crate) async fn install(&self, keep: bool) -> anyhow::Result<()> {
        let present = self
            .cluster
            .kubectl(&["get", "smcp", "-n", "istio-system", "basic"])
            .await?
            .success;
        if !(keep && present) {
            let mut args = vec!["install", "--profile", "demo", "--sample", "tutorial"];
            for (flag, variable) in [("--registry", "MIZZEN_REGISTRY"), ("--tag", "MIZZEN_TAG")] {
                if let Some(value) = std::env::var_os(variable) {
                    args.extend([flag, value.to_string_lossy().into_owned().leak()]);
                }
            }
            let installed = self.cluster.mizzen(&args).await?;
            print!(
                "{}",
                installed
                    .text
                    .lines()
                    .map(|line| format!("        {line}\n"))
                    .collect::<String>()
            );
            ensure!(installed.success, "mizzen install failed (above)");
            for line in [
                "crds +applied",
                "operator +ready",
                r"mesh +ready 3/3",
                r"sample +ready 4/4",
                r"gateway +http://",
            ] {
                let found = regex::Regex::new(line)?.is_match(&installed.text);
                ensure!(found, "mizzen install did not print '{line}'");
            }
            let address = installed.text.lines().find_map(|line| line.strip_prefix("gateway"));
            let address = address.context("no gateway line")?.trim();
            let answer = self.cluster.client(&["call", &format!("{address}/")]).await?;
            let expected = "200 customer => preference => recommendation v";
            ensure!(
                answer.text.starts_with(expected),
                "the address that install printed answers {}",
                answer.text
            );
            // It lets every host in; the scenarios bring gateways of their own, and see what happens without one.
            self.cluster
                .must(&["delete", "gateways.networking.istio.io", "-n", "tutorial", "tutorial"])
                .await?;
        }
        self.applications().await
    }

    async fn applications(&self) -> anyhow::Result<()> {
        let mut members = vec!["tutorial".to_owned()];
        members.extend(self.planes.iter().map(DataPlane::namespace));
        let patch = serde_json::json!({ "spec": { "members": members } }).to_string();
        self.cluster
            .must(&[
                "patch",
                "smmr",
                "-n",
                "istio-system",
                "default",
                "--type=merge",
                "-p",
                &patch,
            ])
            .await?;
        for plane in self.planes {
            let namespace = plane.namespace();
            self.cluster
                .apply(
                    "default",
                    &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"),
                )
                .await?;
        }
        for plane in self.planes {
            let namespace = plane.namespace();
            let wait = [
                "wait",
                "namespace",
                &namespace,
                "--for=jsonpath={.metadata.labels.maistra\\.io/member-of}=istio-system",
                "--timeout=60s",
            ];
            self.cluster
                .must(&wait)
                .await
                .context("the namespace does not become a member")?;
            for manifest in APPS {
                self.cluster.apply(&namespace, &with_sidecars(manifest, *plane)).await?;
            }
            self.cluster.apply(&namespace, &gateway_for(&namespace)).await?;
        }
        for plane in self.planes {
            self.cluster
                .wait_ready(&plane.namespace(), Duration::from_secs(240))
                .await?;
        }
        Ok(())
    }

    /// A8: leaves nothing of the mesh behind, and what is the user's in place.
    pub(crate) async fn uninstall(&self) -> anyhow::Result<()> {
        let done = self.cluster.mizzen(&["uninstall"]).await?;
        print!(
            "{}",
            done.text
                .lines()
                .map(|line| format!("        {line}\n"))
                .collect::<String>()
        );
        ensure!(done.success, "mizzen uninstall failed (above)");
        for (kind, what) in [
            (
                "mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings",
                "istiod|mizzen|maistra",
            ),
            ("namespaces", "mizzen-operator"),
        ] {
            let left = self.cluster.must(&["get", kind, "-o", "name"]).await?;
            let regex = regex::Regex::new(what)?;
            let left: Vec<_> = left.lines().filter(|line| regex.is_match(line)).collect();
            ensure!(left.is_empty(), "uninstall left {left:?}");
        }
        let labelled = self
            .cluster
            .must(&["get", "namespaces", "-l", "maistra.io/member-of", "-o", "name"])
            .await?;
        ensure!(!labelled.contains("namespace/"), "uninstall left labels on {labelled}");
        for plane in self.planes {
            let namespace = plane.namespace();
            // The users' own objects, and so their kind, are left in place and named.
            self.cluster
                .must(&["get", "virtualservice", "-n", &namespace, "customer-gateway"])
                .await?;
            self.cluster
                .must(&["delete", "namespace", &namespace, "--wait=false"])
                .await?;
        }
        // All together: Kubernetes takes half a minute for a namespace with pods.
        for plane in self.planes {
            let namespace = format!("namespace/{}", plane.namespace());
            self.cluster
                .must(&["wait", "--for=delete", &namespace, "--timeout=150s"])
                .await?;
        }
        let purged = self.cluster.mizzen(&["uninstall", "--purge"]).await?;
        ensure!(purged.success, "mizzen uninstall --purge failed:\n{}", purged.text);
        let left = self.cluster.must(&["get", "crds", "-o", "name"]).await?;
        ensure!(
            !left.contains("istio.io") && !left.contains("maistra.io"),
            "uninstall --purge left {left}"
        );
        Ok(())
    }
}

/// The gateway of a data plane answers to its namespace's name as host, so that the copies do not meet.
fn gateway_for(namespace: &str) -> String {
    GATEWAY.replace("\"*\"", &format!("\"{namespace}.example.com\""))
}

/// The manifest with each Deployment's pod template annotated for the sidecar that it gets on this data plane.
fn with_sidecars(manifest: &str, plane: DataPlane) -> String {
    let mut out = String::new();
    let mut app = String::new();
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix("  name: ") {
            app = name.to_owned();
        }
        out.push_str(line);
        out.push('\n');
        if line == "    metadata:" {
            let sidecar = plane.sidecar_of(&app);
            out.push_str(&format!(
                "      annotations: {{sidecar.mizzen.io/data-plane: {sidecar}}}\n"
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_deployment_gets_its_sidecar() {
        let mixed = with_sidecars(APPS[2], DataPlane::Mixed);
        assert_eq!(mixed.matches("data-plane: native").count(), 1);
        assert_eq!(mixed.matches("data-plane: envoy").count(), 1);
    }
}
