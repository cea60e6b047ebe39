//! Golden folders: `in.yaml` is injected with `config.json` (or a plain configuration) and must give `out.yaml`.
//! `UPDATE_GOLDEN=1 cargo test -p mizzen-review --test golden` writes what comes out; read the difference before committing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

use std::path::{Path, PathBuf};

use mizzen_review::{InjectConfig, inject_manifest};

const PLAIN: &str = r#"{"revision": "basic", "meshNamespace": "istio-system", "images": {"registry": "localhost/mizzen", "tag": "1.0"}}"#;

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut folders: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    folders
}

// B2, B3, B4, B5
#[test]
fn injected_manifests_are_as_recorded() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for folder in folders() {
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap_or_else(|_| PLAIN.to_owned());
        let config = InjectConfig::from_json(&config).unwrap();
        let input = std::fs::read_to_string(folder.join("in.yaml")).unwrap();
        let output = inject_manifest(&input, &config, "shop").unwrap();
        let path = folder.join("out.yaml");
        if update {
            std::fs::write(&path, &output.text).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != output.text {
            wrong.push(folder.file_name().unwrap().to_owned());
        }
        // B7
        let again = inject_manifest(&output.text, &config, "shop").unwrap();
        assert_eq!(
            again.text,
            output.text,
            "{}: injecting twice changes something",
            folder.display()
        );
    }
    assert!(
        wrong.is_empty(),
        "these folders differ (UPDATE_GOLDEN=1 rewrites them): {wrong:?}"
    );
}
