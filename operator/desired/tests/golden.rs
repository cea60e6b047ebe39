//! Golden folders: `in.yaml` is a ServiceMeshControlPlane, `out.yaml` the plan for it. `UPDATE_GOLDEN=1` writes them anew.
// A1, A2, A7

use mizzen_desired::{Settings, ValidatedMesh};
use serde_json::Value;
use std::path::Path;

#[test]
fn plans_are_as_recorded() {
    let settings = Settings {
        operator_namespace: "mizzen-operator".to_owned(),
        operator_version: "9.8.7".to_owned(),
        image_registry: "registry.example/mizzen".to_owned(),
        image_tag: "1.2.3".to_owned(),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 4, "the golden folders are gone");
    for case in cases {
        let text = std::fs::read_to_string(case.join("in.yaml")).unwrap();
        let raw: Value = serde_saphyr::from_str(&text).unwrap();
        let plan = match ValidatedMesh::check_raw(&raw, &settings) {
            Ok(mesh) => {
                let mut plan: String = mesh
                    .not_acted_on()
                    .iter()
                    .map(|f| format!("# not acted on yet: {f}\n"))
                    .collect();
                for manifest in mesh.manifests() {
                    plan.push_str(&format!("---\n# {}\n", manifest.component()));
                    plan.push_str(&serde_saphyr::to_string(manifest.body()).unwrap());
                }
                plan
            }
            Err(errors) => format!("# refused\n{errors}\n"),
        };
        let out = case.join("out.yaml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&out, &plan).unwrap();
        }
        let recorded = std::fs::read_to_string(&out).unwrap_or_default();
        assert!(
            plan == recorded,
            "{} differs; see what changed with UPDATE_GOLDEN=1 and git diff",
            out.display()
        );
    }
}
