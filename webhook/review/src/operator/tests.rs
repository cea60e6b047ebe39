use serde_json::json;

use super::*;
use crate::admission::{Answer, Review};

fn context() -> OperatorContext {
    OperatorContext {
        settings: Settings {
            operator_namespace: "op".into(),
            operator_version: "1.0.0".into(),
            image_registry: "r".into(),
            image_tag: "t".into(),
        },
        operator_user: "system:serviceaccount:op:mizzen-operator".into(),
        meshes: vec![],
        rolls: vec![],
    }
}

fn request(kind: &str, version: &str, namespace: &str, name: &str, spec: Value) -> Request {
    let review = json!({"request": {
        "uid": "u", "operation": "CREATE", "name": name, "namespace": namespace,
        "kind": {"group": GROUP, "version": version, "kind": kind},
        "userInfo": {"username": "ann", "groups": ["dev"]},
        "object": {
            "apiVersion": format!("{GROUP}/{version}"), "kind": kind,
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        },
    }});
    serde_json::from_value::<Review>(review).unwrap().request.unwrap()
}

fn mesh(spec: Value) -> Request {
    request("ServiceMeshControlPlane", "v2", "mesh", "basic", spec)
}

fn roll(spec: Value) -> Request {
    request("ServiceMeshMemberRoll", "v1", "mesh", "default", spec)
}

fn member(namespace: &str, mesh: &str) -> Request {
    let spec = json!({"controlPlaneRef": {"name": "basic", "namespace": mesh}});
    request("ServiceMeshMember", "v1", namespace, "default", spec)
}

fn update(mut request: Request, old_spec: Value) -> Request {
    request.operation = Operation::Update;
    request.old_object = request.object.clone();
    request.old_object["spec"] = old_spec;
    request
}

fn update_pods(namespace: Option<&str>) -> Question {
    Question {
        verb: "update",
        group: "",
        resource: "pods",
        namespace: namespace.map(Into::into),
        name: None,
    }
}

/// Answers every question the same.
fn settle(review: impl Fn(&Answers) -> Step, allowed: bool) -> (Vec<Question>, Response) {
    let mut answers = Answers::new();
    let mut asked = Vec::new();
    loop {
        match review(&answers) {
            Step::Done(response) => return (asked, response),
            Step::Ask(questions) => {
                assert!(questions.iter().all(|question| !answers.contains_key(question)));
                answers.extend(questions.iter().cloned().map(|question| (question, allowed)));
                asked.extend(questions);
            }
        }
    }
}

fn refusal(response: &Response) -> (u16, &str) {
    match &response.answer {
        Answer::Refuse { code, message } => (*code, message),
        other => panic!("{other:?}"),
    }
}

// A1
#[test]
fn a_mesh_is_judged_by_the_controllers_conversion() {
    let (asked, good) = settle(
        |answers| review_mesh(&mesh(json!({"profiles": ["demo"]})), &context(), answers),
        true,
    );
    assert!(good.is_allowed() && asked.is_empty(), "{good:?}");
    let (_, bad) = settle(
        |answers| review_mesh(&mesh(json!({"profile": ["demo"]})), &context(), answers),
        true,
    );
    let (code, message) = refusal(&bad);
    assert_eq!(code, 400);
    assert!(
        message.starts_with("ServiceMeshControlPlane mesh/basic: spec.profile: "),
        "{message}"
    );
}

// A1
#[test]
fn a_second_mesh_in_a_namespace_is_refused() {
    let mut context = context();
    let other = request("ServiceMeshControlPlane", "v2", "mesh", "older", json!({}));
    context.meshes = vec![serde_json::from_value(other.object).unwrap()];
    let (_, response) = settle(|answers| review_mesh(&mesh(json!({})), &context, answers), true);
    assert!(refusal(&response).1.contains("mesh/older"), "{response:?}");
}

// A5
#[test]
fn a_mesh_of_the_whole_cluster_needs_the_right_to_it() {
    let wide = json!({"mode": "ClusterWide"});
    let create = Question {
        verb: "create",
        group: "maistra.io",
        resource: "servicemeshcontrolplanes",
        namespace: None,
        name: None,
    };
    let (asked, response) = settle(|answers| review_mesh(&mesh(wide.clone()), &context(), answers), false);
    assert_eq!(asked, [create]);
    let (code, message) = refusal(&response);
    assert_eq!(code, 403);
    assert!(
        message.starts_with("ann may not: a mesh of mode ClusterWide"),
        "{message}"
    );
    let same = update(mesh(json!({"mode": "ClusterWide", "version": "v1.0"})), wide);
    let (asked, response) = settle(|answers| review_mesh(&same, &context(), answers), false);
    assert!(asked.is_empty() && response.is_allowed());
}

// A3
#[test]
fn whoever_adds_a_namespace_must_be_allowed_to_change_its_pods() {
    let request = update(
        roll(json!({"members": ["one", "two", "three"]})),
        json!({"members": ["two"]}),
    );
    let (asked, response) = settle(|answers| review_roll(&request, &context(), answers), true);
    assert_eq!(asked, [update_pods(Some("one")), update_pods(Some("three"))]);
    assert!(response.is_allowed());
    let (_, response) = settle(|answers| review_roll(&request, &context(), answers), false);
    let (code, message) = refusal(&response);
    assert_eq!(code, 403);
    assert!(
        message.contains("right to update pods in one\nann may not"),
        "{message}"
    );

    let all = roll(json!({"members": ["*"]}));
    let (asked, _) = settle(|answers| review_roll(&all, &context(), answers), true);
    assert_eq!(asked, [update_pods(None)]);
    let selected = roll(json!({"memberSelectors": [{"matchLabels": {"team": "a"}}]}));
    let (asked, _) = settle(|answers| review_roll(&selected, &context(), answers), true);
    assert_eq!(asked, [update_pods(None)]);
}

// A3
#[test]
fn the_operator_is_not_asked() {
    let mut request = roll(json!({"members": ["one"]}));
    request.user_info.username = Some("system:serviceaccount:op:mizzen-operator".into());
    let (asked, response) = settle(|answers| review_roll(&request, &context(), answers), false);
    assert!(asked.is_empty() && response.is_allowed());
}

// A3
#[test]
fn rolls_are_named_default_do_not_overlap_and_have_no_unknown_fields() {
    let misnamed = request(
        "ServiceMeshMemberRoll",
        "v1",
        "mesh",
        "mine",
        json!({"members": ["one"]}),
    );
    let (_, response) = settle(|answers| review_roll(&misnamed, &context(), answers), true);
    assert!(refusal(&response).1.contains("must be named `default`"), "{response:?}");

    let mut context = context();
    let other = request(
        "ServiceMeshMemberRoll",
        "v1",
        "second",
        "default",
        json!({"members": ["one"]}),
    );
    context.rolls = vec![serde_json::from_value(other.object).unwrap()];
    let (_, response) = settle(
        |answers| review_roll(&roll(json!({"members": ["one"]})), &context, answers),
        true,
    );
    assert!(
        refusal(&response)
            .1
            .contains("ServiceMeshMemberRoll second/default is there already"),
        "{response:?}"
    );

    let unknown = roll(json!({"membres": ["one"]}));
    let (_, response) = settle(|answers| review_roll(&unknown, &context, answers), true);
    assert!(refusal(&response).1.contains("spec.membres"), "{response:?}");
}

// A4
#[test]
fn joining_a_mesh_needs_the_right_to_use_it() {
    let (asked, response) = settle(
        |answers| review_member(&member("one", "mesh"), &context(), answers),
        false,
    );
    let question = Question {
        verb: "use",
        group: "maistra.io",
        resource: "servicemeshcontrolplanes",
        namespace: Some("mesh".into()),
        name: Some("basic".into()),
    };
    assert_eq!(asked, [question]);
    assert!(
        refusal(&response)
            .1
            .starts_with("ann may not: joining the mesh mesh/basic needs the right to use")
    );
    let (_, response) = settle(
        |answers| review_member(&member("one", "mesh"), &context(), answers),
        true,
    );
    assert!(response.is_allowed());

    let moved = member("one", "elsewhere");
    let moved = update(
        moved,
        json!({"controlPlaneRef": {"name": "basic", "namespace": "mesh"}}),
    );
    let (_, response) = settle(|answers| review_member(&moved, &context(), answers), true);
    assert!(
        refusal(&response)
            .1
            .contains("spec.controlPlaneRef: cannot be changed from `mesh/basic`")
    );
}

// A8
#[test]
fn what_goes_and_what_keeps_its_spec_passes_though_it_is_invalid() {
    let mut leaving = update(mesh(json!({"profile": []})), json!({"profile": []}));
    let done = |step: Step| matches!(step, Step::Done(response) if response.is_allowed());
    assert!(done(review_mesh(&leaving, &context(), &Answers::new())));
    leaving.old_object = json!({});
    leaving.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(done(review_mesh(&leaving, &context(), &Answers::new())));
}

fn patched(request: &Request, response: Response) -> Value {
    let mut object = request.object.clone();
    if let Answer::Patch(patch) = response.answer {
        json_patch::patch(&mut object, &patch).unwrap();
    }
    object["spec"].clone()
}

// A1, A2
#[test]
fn a_mesh_keeps_its_version_and_names_its_profile() {
    let new = mesh(json!({}));
    assert_eq!(
        patched(&new, mutate_mesh(&new)),
        json!({"version": mizzen_desired::VERSION, "profiles": ["default"]})
    );
    let dropped = update(mesh(json!({"profiles": ["demo"]})), json!({"version": "v0.9"}));
    assert_eq!(
        patched(&dropped, mutate_mesh(&dropped)),
        json!({"version": "v0.9", "profiles": ["demo"]})
    );
    let complete = mesh(json!({"version": "v1.0", "profiles": ["demo"]}));
    assert_eq!(mutate_mesh(&complete).answer, Answer::Allow);
}

// A3
#[test]
fn a_roll_loses_its_own_meshs_namespace() {
    let request = roll(json!({"members": ["one", "mesh"]}));
    assert_eq!(patched(&request, mutate_roll(&request)), json!({"members": ["one"]}));
    // Members of a roll that will be refused are numbered as they were written.
    let bad = roll(json!({"members": ["mesh", "one", "one"]}));
    assert_eq!(mutate_roll(&bad).answer, Answer::Allow);
}
