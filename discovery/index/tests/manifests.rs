//! The manifests that this project gives its users and its scenarios are accepted, and those that must be refused are.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of a test may fail loudly"
)]

use std::fs;
use std::path::{Path, PathBuf};

use mizzen_index::validate;
use serde_json::Value;

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

/// The objects of our kinds in the files of a folder, with where they are.
fn objects(folder: &str) -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e").join(folder);
    let mut files = Vec::new();
    yaml_files(&folder, &mut files);
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap().replace("$NS", "tutorial");
        for document in format!("\n{text}")
            .split("\n---")
            .filter(|document| document.contains("istio.io/v1"))
        {
            let object: Value = serde_saphyr::from_str(document).unwrap();
            let ours = object["apiVersion"].as_str().is_some_and(|version| {
                version.starts_with("networking.istio.io/") || version.starts_with("security.istio.io/")
            });
            if ours {
                objects.push((file.clone(), object));
            }
        }
    }
    objects
}

// C1, C2, C8, D1, D2, E3
#[test]
fn our_own_manifests_are_accepted() {
    let mut objects = [objects("samples"), objects("scenarios")].concat();
    objects.retain(|(file, _)| !file.components().any(|part| part.as_os_str() == "refuse"));
    assert!(objects.len() > 10, "found {}", objects.len());
    for (file, object) in objects {
        let verdict = validate(&object);
        assert!(verdict.is_accepted(), "{}: {:?}", file.display(), verdict.errors);
    }
}

// F6
#[test]
fn what_the_scenario_wants_refused_is_refused() {
    for (file, object) in objects("scenarios/refuse") {
        let by_itself_fine = file.ends_with("unknown-subset.yaml");
        assert_eq!(validate(&object).is_accepted(), by_itself_fine, "{}", file.display());
    }
}
