use super::*;
use mizzen_desired::Settings;
use serde_json::json;

fn mesh() -> ValidatedMesh {
    let settings = Settings {
        operator_namespace: "op".to_owned(),
        operator_version: "1.0.0".to_owned(),
        image_registry: "r".to_owned(),
        image_tag: "t".to_owned(),
    };
    let raw = json!({"metadata": {"name": "basic", "namespace": "mesh"},
                     "spec": {"profiles": ["demo"], "tracing": {"sampling": 5}}});
    ValidatedMesh::check_raw(&raw, &settings).unwrap()
}

fn facts<'a>(mesh: &'a ValidatedMesh, progress: Progress, broken: &[(&str, &str)], now: &'a str) -> Facts<'a> {
    let mut components: BTreeMap<_, _> = mesh
        .components()
        .into_iter()
        .map(|c| (c, ComponentState::default()))
        .collect();
    for (resource, why) in broken {
        let state = components.get_mut(&Component::IstioIngress).unwrap();
        state.broken.insert((*resource).to_owned(), (*why).to_owned());
    }
    Facts {
        generation: 1,
        operator_version: "1.0.0",
        mesh: Some(mesh),
        progress,
        components,
        now,
    }
}

fn said(status: &ControlPlaneStatus) -> Vec<String> {
    let word = |c: &Condition| format!("{:?} {:?} {:?}", c.kind, c.status, c.reason.unwrap());
    status.conditions.iter().flatten().map(word).collect()
}

// A1
#[test]
fn installing_goes_from_created_to_ready() {
    let mesh = mesh();
    let started = next(
        &ControlPlaneStatus::default(),
        &facts(&mesh, Progress::Started, &[], "1"),
    );
    assert_eq!(
        said(&started),
        [
            "Installed False ResourceCreated",
            "Reconciled False ResourceCreated",
            "Ready False ResourceCreated"
        ]
    );
    let waiting = next(
        &started,
        &facts(&mesh, Progress::Waiting("for istiod".to_owned()), &[], "2"),
    );
    assert_eq!(said(&waiting)[1], "Reconciled False PausingInstall");
    let broken = [("Deployment/istio-ingressgateway", "0 of 1")];
    let unready = next(&waiting, &facts(&mesh, Progress::Complete, &broken, "3"));
    assert_eq!(
        said(&unready),
        [
            "Installed True InstallSuccessful",
            "Reconciled True InstallSuccessful",
            "Ready False ComponentsNotReady"
        ]
    );
    assert_eq!(unready.annotations.as_ref().unwrap()["readyComponentCount"], "2/3");
    let ready = next(&unready, &facts(&mesh, Progress::Complete, &[], "4"));
    assert_eq!(said(&ready)[2], "Ready True ComponentsReady");
    assert_eq!(ready.annotations.as_ref().unwrap()["readyComponentCount"], "3/3");
    assert_eq!(ready.chart_version.as_deref(), Some("v1.0"));
}

#[test]
fn the_same_again_changes_nothing() {
    let mesh = mesh();
    let first = next(
        &ControlPlaneStatus::default(),
        &facts(&mesh, Progress::Complete, &[], "1"),
    );
    let second = next(&first, &facts(&mesh, Progress::Complete, &[], "2"));
    assert_eq!(first, second);
}

#[test]
fn while_not_reconciled_ready_says_the_same() {
    let mesh = mesh();
    let good = next(
        &ControlPlaneStatus::default(),
        &facts(&mesh, Progress::Complete, &[], "1"),
    );
    let failed = Progress::Failed(ConditionReason::ReconcileError, "forbidden".to_owned());
    let bad = next(&good, &facts(&mesh, failed, &[], "2"));
    assert_eq!(
        said(&bad),
        [
            "Installed True InstallSuccessful",
            "Reconciled False ReconcileError",
            "Ready False ReconcileError"
        ]
    );
    let [_, reconciled, ready] = bad.conditions.unwrap().try_into().unwrap();
    assert_eq!(reconciled.message, ready.message);
    assert_eq!(ready.last_transition_time.as_deref(), Some("2"));
}

#[test]
fn an_invalid_spec_keeps_what_was_known() {
    let mesh = mesh();
    let good = next(
        &ControlPlaneStatus::default(),
        &facts(&mesh, Progress::Complete, &[], "1"),
    );
    let failed = Progress::Failed(ConditionReason::ValidationError, "spec.version: no".to_owned());
    let facts = Facts {
        generation: 2,
        operator_version: "1.0.0",
        mesh: None,
        progress: failed,
        components: BTreeMap::new(),
        now: "2",
    };
    let bad = next(&good, &facts);
    assert_eq!(said(&bad)[1], "Reconciled False ValidationError");
    assert_eq!(bad.applied_spec, good.applied_spec);
    assert_eq!(bad.annotations, good.annotations);
}

#[test]
fn fields_without_effect_are_reported() {
    let mesh = mesh();
    let good = next(
        &ControlPlaneStatus::default(),
        &facts(&mesh, Progress::Complete, &[], "1"),
    );
    let message = condition(&good, ConditionType::Reconciled)
        .unwrap()
        .message
        .clone()
        .unwrap();
    assert!(
        message.ends_with("accepted, and not yet acted on: spec.tracing.sampling"),
        "{message}"
    );
}
