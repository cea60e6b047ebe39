//! The manifests that are built in: the same files that `kubectl apply -k config/default` reads, and the samples.

use anyhow::Context;
use serde_json::{Value, json};

/// config/crd, in the order of its kustomization.
const CRDS: [&str; 7] = [
    include_str!("../../config/crd/destinationrules.networking.istio.io.yaml"),
    include_str!("../../config/crd/gateways.networking.istio.io.yaml"),
    include_str!("../../config/crd/peerauthentications.security.istio.io.yaml"),
    include_str!("../../config/crd/servicemeshcontrolplanes.maistra.io.yaml"),
    include_str!("../../config/crd/servicemeshmemberrolls.maistra.io.yaml"),
    include_str!("../../config/crd/servicemeshmembers.maistra.io.yaml"),
    include_str!("../../config/crd/virtualservices.networking.istio.io.yaml"),
];

/// config/operator, in the order of its kustomization.
const OPERATOR: [&str; 4] = [
    include_str!("../../config/operator/namespace.yaml"),
    include_str!("../../config/operator/rbac.yaml"),
    include_str!("../../config/operator/service.yaml"),
    include_str!("../../config/operator/deployment.yaml"),
];

const TUTORIAL: [&str; 6] = [
    include_str!("../../e2e/samples/tutorial/namespace.yaml"),
    include_str!("../../e2e/samples/tutorial/member-roll.yaml"),
    include_str!("../../e2e/samples/tutorial/customer.yaml"),
    include_str!("../../e2e/samples/tutorial/preference.yaml"),
    include_str!("../../e2e/samples/tutorial/recommendation.yaml"),
    include_str!("../../e2e/samples/tutorial/gateway.yaml"),
];

/// The namespace of the operator, in the files of config/operator.
pub(crate) const OPERATOR_NAMESPACE: &str = "mizzen-operator";
/// Label: what `mizzen install` made beside the operator, which `mizzen uninstall` may remove again.
pub(crate) const INSTALLED: &str = "mizzen.io/installed-by";
/// The value of [`INSTALLED`].
pub(crate) const INSTALLER: &str = "mizzen-install";

/// The names under which the files know the images.
const BUILT_REGISTRY: &str = "localhost/mizzen";
const BUILT_TAG: &str = "dev";
/// Where the gateway listens on the nodes; the same on every cluster, so that instructions can name it.
const GATEWAY_NODE_PORT: i32 = 31380;

/// Where images come from.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    pub(crate) registry: String,
    pub(crate) tag: String,
}

/// Something to try the mesh with.
pub(crate) struct Sample {
    pub(crate) namespace: &'static str,
    /// The namespace and the member roll.
    pub(crate) place: Vec<Value>,
    /// What runs there, and its routes.
    pub(crate) objects: Vec<Value>,
}

pub(crate) fn crds() -> anyhow::Result<Vec<Value>> {
    parse(&CRDS)
}

pub(crate) fn operator(images: &Images) -> anyhow::Result<Vec<Value>> {
    let mut objects = parse(&OPERATOR)?;
    for object in &mut objects {
        rename_images(object, images);
        let containers = object
            .pointer_mut("/spec/template/spec/containers")
            .and_then(Value::as_array_mut);
        let variables = containers
            .into_iter()
            .flatten()
            .filter_map(|c| c.get_mut("env")?.as_array_mut())
            .flatten();
        for variable in variables {
            let value = match text(variable, "/name") {
                "MIZZEN_IMAGE_REGISTRY" => json!(images.registry),
                "MIZZEN_IMAGE_TAG" => json!(images.tag),
                _ => continue,
            };
            set(variable, &["value"], value);
        }
    }
    Ok(objects)
}

/// The mesh's namespace and its ServiceMeshControlPlane.
pub(crate) fn mesh(namespace: &str, name: &str, profiles: &[String]) -> Vec<Value> {
    let labels = json!({ (INSTALLED): INSTALLER });
    let mut spec = json!({ "profiles": profiles });
    if !profiles.iter().any(|profile| profile == "minimal") {
        let port = |name: &str, port: i32, target: i32| json!({ "name": name, "port": port, "targetPort": target });
        let mut http = port("http2", 80, 8080);
        set(&mut http, &["nodePort"], json!(GATEWAY_NODE_PORT));
        let ports = [port("status-port", 15021, 15021), http, port("https", 443, 8443)];
        let service = json!({ "type": "NodePort", "ports": ports });
        set(&mut spec, &["gateways", "ingress", "service"], service);
    }
    vec![
        json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace, "labels": labels },
        }),
        json!({
            "apiVersion": "maistra.io/v2", "kind": "ServiceMeshControlPlane",
            "metadata": { "name": name, "namespace": namespace, "labels": labels },
            "spec": spec,
        }),
    ]
}

/// A sample by name, for a mesh in `mesh_namespace`.
pub(crate) fn sample(name: &str, mesh_namespace: &str, images: &Images) -> anyhow::Result<Sample> {
    anyhow::ensure!(name == "tutorial", "there is no sample `{name}`; there is `tutorial`");
    let namespace = "tutorial";
    let (mut place, mut objects) = (Vec::new(), Vec::new());
    for mut object in parse(&TUTORIAL)? {
        rename_images(&mut object, images);
        set(&mut object, &["metadata", "labels", INSTALLED], json!(INSTALLER));
        match text(&object, "/kind") {
            "Namespace" => place.push(object),
            "ServiceMeshMemberRoll" => {
                set(&mut object, &["metadata", "namespace"], json!(mesh_namespace));
                place.push(object);
            }
            _ => {
                set(&mut object, &["metadata", "namespace"], json!(namespace));
                objects.push(object);
            }
        }
    }
    Ok(Sample {
        namespace,
        place,
        objects,
    })
}

/// The text at a JSON pointer; empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Sets a field, making the maps on the way to it.
pub(crate) fn set(object: &mut Value, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *object = value;
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    if let Some(map) = object.as_object_mut() {
        set(map.entry(*first).or_insert(Value::Null), rest, value);
    }
}

fn parse(files: &[&str]) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files {
        let documents: Vec<Value> = serde_saphyr::from_multiple(file).context("a built-in manifest is not YAML")?;
        objects.extend(documents.into_iter().filter(Value::is_object));
    }
    Ok(objects)
}

/// `localhost/mizzen/<image>:dev` becomes `<registry>/<image>:<tag>`, wherever a container names it.
fn rename_images(value: &mut Value, images: &Images) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(image)) = object.get_mut("image") {
                let name = image
                    .strip_prefix(BUILT_REGISTRY)
                    .and_then(|rest| rest.strip_prefix('/'));
                let name = name
                    .and_then(|rest| rest.strip_suffix(BUILT_TAG))
                    .and_then(|rest| rest.strip_suffix(':'));
                if let Some(name) = name {
                    *image = format!("{}/{name}:{}", images.registry, images.tag);
                }
            }
            object.values_mut().for_each(|value| rename_images(value, images));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename_images(value, images)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn images() -> Images {
        Images {
            registry: "r.example/m".to_owned(),
            tag: "7".to_owned(),
        }
    }

    #[test]
    fn the_files_of_kustomize_are_all_built_in() {
        let count = |folder: &str| {
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
            let kustomization: Value = serde_saphyr::from_str(&text).unwrap();
            kustomization["resources"].as_array().unwrap().len()
        };
        assert_eq!(count("config/crd/kustomization.yaml"), CRDS.len());
        assert_eq!(count("config/operator/kustomization.yaml"), OPERATOR.len());
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/samples/tutorial");
        assert_eq!(std::fs::read_dir(samples).unwrap().count(), TUTORIAL.len());
    }

    #[test]
    fn images_come_from_where_the_user_says() {
        let operator = operator(&images()).unwrap();
        let text = serde_json::to_string(&operator).unwrap();
        assert!(text.contains("\"r.example/m/mizzen:7\""), "{text}");
        assert!(!text.contains(BUILT_REGISTRY), "{text}");
        let sample = sample("tutorial", "istio-system", &images()).unwrap();
        let text = serde_json::to_string(&sample.objects).unwrap();
        assert!(text.contains("\"r.example/m/mizzen-app:7\""));
        assert!(!text.contains(BUILT_REGISTRY));
    }

    #[test]
    fn the_operators_version_of_the_images_is_the_one_it_renders_with() {
        let registry = BUILT_REGISTRY.to_owned();
        let unchanged = operator(&Images {
            registry,
            tag: BUILT_TAG.to_owned(),
        })
        .unwrap();
        assert_eq!(unchanged, parse(&OPERATOR).unwrap());
    }

    #[test]
    fn every_sample_object_has_a_place() {
        let sample = sample("tutorial", "mesh", &images()).unwrap();
        assert_eq!(sample.place.len(), 2);
        assert_eq!(sample.place[1]["metadata"]["namespace"], "mesh");
        assert!(sample.objects.iter().all(|o| o["metadata"]["namespace"] == "tutorial"));
        let deployments = sample.objects.iter().filter(|o| o["kind"] == "Deployment").count();
        assert_eq!(deployments, 4);
    }

    #[test]
    fn a_mesh_that_install_makes_is_valid() {
        let settings = mizzen_desired::Settings {
            operator_namespace: OPERATOR_NAMESPACE.to_owned(),
            operator_version: "1".to_owned(),
            image_registry: "r".to_owned(),
            image_tag: "t".to_owned(),
        };
        for (profile, _) in mizzen_desired::PROFILES {
            let objects = mesh("istio-system", "basic", &[profile.to_owned()]);
            let valid = mizzen_desired::ValidatedMesh::check_raw(&objects[1], &settings).unwrap();
            assert_eq!(valid.not_acted_on(), Vec::<String>::new());
        }
    }
}
