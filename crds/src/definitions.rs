//! The CustomResourceDefinitions of all kinds, and the files that `crdgen` writes of them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation,
};
use kube_core::CustomResourceExt;
use schemars::JsonSchema;
use serde_json::Value;

use crate::networking::{DestinationRule, Gateway, VirtualService};
use crate::schema::{published, structural};
use crate::security::PeerAuthentication;

/// A definition could not be put together: the types of this crate contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The schema made from a type is no schema for Kubernetes.
    #[error("the schema of {kind} is not one that Kubernetes can read")]
    Schema {
        /// The kind.
        kind: String,
        /// What the schema's reader says.
        source: serde_json::Error,
    },
    /// A definition cannot be written as YAML.
    #[error("{name} cannot be written as YAML: {reason}")]
    Yaml {
        /// The definition or file.
        name: String,
        /// What the writer says.
        reason: String,
    },
}

/// A file of `config/crd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its text.
    pub content: String,
}

/// The definitions of all kinds, in the order of their names.
pub fn definitions() -> Result<Vec<CustomResourceDefinition>, DefinitionError> {
    let mut all = vec![
        served_as::<Gateway>(&["v1beta1", "v1alpha3"])?,
        served_as::<VirtualService>(&["v1beta1", "v1alpha3"])?,
        served_as::<DestinationRule>(&["v1beta1", "v1alpha3"])?,
        served_as::<PeerAuthentication>(&["v1beta1"])?,
    ];
    all.extend(crate::maistra::crds());
    all.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
    Ok(all)
}

/// A kind whose stored version is also served under older names, with the same schema, so that nothing is converted.
fn served_as<K: CustomResourceExt + JsonSchema>(older: &[&str]) -> Result<CustomResourceDefinition, DefinitionError> {
    let mut crd = K::crd();
    let schema = serde_json::from_value(published(structural::<K>())).map_err(|source| DefinitionError::Schema {
        kind: crd.spec.names.kind.clone(),
        source,
    })?;
    let Some(stored) = crd.spec.versions.first_mut() else {
        return Ok(crd);
    };
    stored.schema = Some(CustomResourceValidation {
        open_api_v3_schema: Some(schema),
    });
    let older: Vec<_> = older
        .iter()
        .map(|name| {
            let mut version = stored.clone();
            version.name = (*name).to_owned();
            version.storage = false;
            version
        })
        .collect();
    crd.spec.versions.extend(older);
    Ok(crd)
}

/// The files of `config/crd`: one per definition, and the kustomization that lists them.
pub fn files() -> Result<Vec<File>, DefinitionError> {
    let mut files = Vec::new();
    let mut kustomization = String::from(
        "# Made by `cargo run -p mizzen-crds --bin crdgen -- config/crd`; change the types in crds/ instead.\n\
         apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n",
    );
    for crd in definitions()? {
        let resource = crd.metadata.name.clone().unwrap_or_default();
        let name = format!("{resource}.yaml");
        let unwritable = |reason: String| DefinitionError::Yaml {
            name: resource.clone(),
            reason,
        };
        let mut value = serde_json::to_value(&crd).map_err(|error| unwritable(error.to_string()))?;
        whole_numbers(&mut value);
        let text = serde_saphyr::to_string(&value).map_err(|error| unwritable(error.to_string()))?;
        kustomization.push_str(&format!("- {name}\n"));
        files.push(File {
            name,
            content: format!(
                "# Made by crdgen from the types in crds/; do not edit.\n{}\n",
                text.trim_end()
            ),
        });
    }
    files.push(File {
        name: "kustomization.yaml".to_owned(),
        content: kustomization,
    });
    Ok(files)
}

/// Bounds are floating-point numbers in Kubernetes' type; `0.0` would be right but reads badly.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64()
                && !number.is_i64()
                && !number.is_u64()
                && float.fract() == 0.0
                && float.abs() < 9e15
            {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    #[test]
    fn generated_crds_are_current() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/crd");
        let mut on_disk = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            on_disk.insert(name, std::fs::read_to_string(entry.path()).unwrap());
        }
        let fresh: BTreeMap<_, _> = files()
            .unwrap()
            .into_iter()
            .map(|file| (file.name, file.content))
            .collect();
        let stale: Vec<_> = fresh
            .iter()
            .filter(|(name, content)| on_disk.get(*name) != Some(content))
            .map(|(n, _)| n)
            .collect();
        assert_eq!(
            stale,
            Vec::<&String>::new(),
            "run `cargo run -p mizzen-crds --bin crdgen -- config/crd`"
        );
        let orphans: Vec<_> = on_disk.keys().filter(|name| !fresh.contains_key(*name)).collect();
        assert_eq!(
            orphans,
            Vec::<&String>::new(),
            "config/crd has files that nothing makes"
        );
    }

    #[test]
    fn every_field_is_described() {
        fn look(path: &str, schema: &Value, missing: &mut Vec<String>) {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (name, property) in properties {
                    let path = format!("{path}.{name}");
                    if property.get("description").is_none() && path != ".metadata" {
                        missing.push(path.clone());
                    }
                    look(&path, property, missing);
                }
            }
            for inner in ["items", "additionalProperties"] {
                if let Some(inner) = schema.get(inner) {
                    look(&format!("{path}[]"), inner, missing);
                }
            }
        }
        for schema in [
            structural::<Gateway>(),
            structural::<VirtualService>(),
            structural::<DestinationRule>(),
            structural::<PeerAuthentication>(),
        ] {
            let mut missing = Vec::new();
            look("", &schema, &mut missing);
            missing.retain(|path| {
                !path.starts_with(".status") && !path.starts_with(".spec") || path.matches('.').count() > 1
            });
            assert_eq!(missing, Vec::<String>::new());
        }
    }

    #[test]
    fn one_version_is_stored_and_all_are_served() {
        let versions = |name: &str| {
            let all = definitions().unwrap();
            let crd = all
                .iter()
                .find(|crd| crd.metadata.name.as_deref() == Some(name))
                .unwrap();
            crd.spec
                .versions
                .iter()
                .map(|v| (v.name.clone(), v.served, v.storage))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            versions("virtualservices.networking.istio.io"),
            [
                ("v1".into(), true, true),
                ("v1beta1".into(), true, false),
                ("v1alpha3".into(), true, false)
            ]
        );
        assert_eq!(
            versions("peerauthentications.security.istio.io"),
            [("v1".into(), true, true), ("v1beta1".into(), true, false)]
        );
    }
}
