//! The user's own programs: the manifests of a folder, applied in a namespace of the mesh.

use super::machine::MESH_NAMESPACE;
use crate::failure::Failure;
use crate::install::cluster::{Cluster, describe};
use crate::install::progress::Progress;
use crate::install::{manifests, sample, wait};
use kube::Client;
use mizzen_crds::yaml;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// As `mizzen install` gives each step.
const PATIENCE: Duration = Duration::from_secs(300);

/// A folder of manifests, and the namespace of those that name none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct App {
    folder: PathBuf,
    namespace: String,
}

/// The folders, with manifests that can be read.
pub(super) fn check(folders: &[PathBuf]) -> Result<Vec<App>, Failure> {
    let mut apps = Vec::new();
    for path in folders {
        let folder = std::fs::canonicalize(path).map_err(|error| unusable(path, error.to_string()))?;
        let app = App {
            namespace: namespace(&folder),
            folder,
        };
        if app.read()?.is_empty() {
            return Err(unusable(
                path,
                "it has no .yaml, .yml or .json file with an object".to_owned(),
            ));
        }
        apps.push(app);
    }
    Ok(apps)
}

/// A namespace after the folder; after the one above it where that is only called what such folders are called.
fn namespace(folder: &Path) -> String {
    let generic = ["deploy", "k8s", "kubernetes", "manifests", "config"];
    let names = folder.ancestors().filter_map(|path| path.file_name()?.to_str());
    let named = names
        .map(str::to_lowercase)
        .find(|name| !generic.contains(&name.as_str()));
    let letters = named.unwrap_or_default();
    let clean: String = letters
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    match clean.trim_matches('-') {
        "" => "app".to_owned(),
        name => name.to_owned(),
    }
}

impl App {
    fn read(&self) -> Result<Vec<Value>, Failure> {
        let entries = std::fs::read_dir(&self.folder).map_err(|error| unusable(&self.folder, error.to_string()))?;
        let known = |path: &PathBuf| {
            let end = path.extension().and_then(|end| end.to_str());
            matches!(end, Some("yaml" | "yml" | "json"))
        };
        let files: BTreeSet<_> = entries.flatten().map(|entry| entry.path()).filter(known).collect();
        let mut objects = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(|error| unusable(&file, error.to_string()))?;
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
                .map_err(|error| unusable(&file, format!("it is not YAML: {}", yaml::reason(&error, 1))))?;
            for mut object in documents.into_iter().filter(|document| !document.is_null()) {
                match object.get_mut("items").map(Value::take) {
                    Some(Value::Array(items)) => objects.extend(items),
                    _ => objects.push(object),
                }
            }
        }
        Ok(objects)
    }
}

/// Applies an app and waits until its Deployments work.
pub(super) async fn install(app: &App, client: Client, progress: &mut Progress) -> Result<(), Failure> {
    progress.start("app");
    let deadline = Instant::now() + PATIENCE;
    let mut objects = app.read()?;
    let mut cluster = Cluster::of(client.clone());
    // Definitions first: the others may be of their kinds.
    objects.sort_by_key(|object| match manifests::text(object, "/kind") {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        _ => 2,
    });
    for object in &mut objects {
        let kind = manifests::text(object, "/kind");
        let placed = !manifests::text(object, "/metadata/namespace").is_empty();
        if !placed && kind != "CustomResourceDefinition" && cluster.is_namespaced(object).await? {
            manifests::set(object, &["metadata", "namespace"], json!(app.namespace));
        }
    }
    let own = objects
        .iter()
        .any(|object| manifests::text(object, "/metadata/namespace") == app.namespace);
    let mut members: BTreeSet<String> = objects
        .iter()
        .filter(|object| manifests::text(object, "/kind") == "Deployment")
        .map(|object| manifests::text(object, "/metadata/namespace").to_owned())
        .collect();
    members.extend(own.then(|| app.namespace.clone()));
    members.remove(MESH_NAMESPACE);
    for member in &members {
        let place = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": member}});
        cluster.apply(&place, deadline).await?;
    }
    let mut roll = json!({
        "apiVersion": "maistra.io/v1", "kind": "ServiceMeshMemberRoll",
        "metadata": {"name": "default", "namespace": MESH_NAMESPACE}, "spec": {"members": members},
    });
    sample::keep_members(&client, &mut roll).await?;
    cluster.apply(&roll, deadline).await?;
    for member in &members {
        sample::joined(&client, MESH_NAMESPACE, member, deadline, progress).await?;
    }
    for object in &objects {
        progress.spin(&describe(object));
        cluster.apply(object, deadline).await?;
    }
    let deployments = objects
        .iter()
        .filter(|object| manifests::text(object, "/kind") == "Deployment");
    let mut names = Vec::new();
    for object in deployments {
        let (namespace, name) = (
            manifests::text(object, "/metadata/namespace"),
            manifests::text(object, "/metadata/name"),
        );
        wait::deployment(&client, namespace, name, deadline, progress).await?;
        names.push(format!("{namespace}/{name}"));
    }
    let count = names.len();
    progress.done(
        &format!("ready {count}/{count}"),
        &format!("{}: {}", app.folder.display(), names.join(", ")),
    );
    Ok(())
}

fn unusable(path: &Path, why: String) -> Failure {
    let what = format!("--app: {} cannot be used", path.display());
    Failure::new(what, why, "name a folder of manifests that `kubectl apply -f` takes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_named_after_what_the_folder_is_of() {
        for (folder, expected) in [
            ("/home/a/shop/deploy", "shop"),
            ("/x/My_Shop", "my-shop"),
            ("/deploy", "app"),
        ] {
            assert_eq!(namespace(Path::new(folder)), expected, "{folder}");
        }
    }
}
