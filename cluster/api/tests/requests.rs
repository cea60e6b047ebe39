//! What clients do, one request after the other.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

#[path = "support/client.rs"]
mod support;

use http::Request;
use http_body_util::{BodyExt as _, Full};
use mizzen_api::user::User;
use mizzen_api::{Api, Options};
use serde_json::{Value, json};
use support::{Client, memory};
use tower::ServiceExt as _;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"name": name}}, "data": {"a": "1"}})
}

#[tokio::test]
async fn an_update_of_an_old_version_is_a_conflict() {
    let client = Client::new(&memory().await);
    let first = client.post(MAPS, &map("x")).await.ok();
    let mut next = first.clone();
    next["data"]["a"] = json!("2");
    let second = client.put(&format!("{MAPS}/x"), &next).await.ok();
    assert_ne!(
        first["metadata"]["resourceVersion"],
        second["metadata"]["resourceVersion"]
    );
    next["data"]["a"] = json!("3");
    let message = "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please apply your changes to the \
        latest version and try again";
    assert_eq!(client.put(&format!("{MAPS}/x"), &next).await.refusal(), (409, message));
    let again = client.post(MAPS, &map("x")).await;
    assert_eq!(again.refusal(), (409, "configmaps \"x\" already exists"));
    let unchanged = client
        .merge(&format!("{MAPS}/x"), &json!({"data": {"a": "2"}}))
        .await
        .ok();
    assert_eq!(
        unchanged["metadata"]["resourceVersion"],
        second["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_as_kubernetes_says_it() {
    let client = Client::new(&memory().await);
    for (method, path, body, code, message) in [
        (
            "GET",
            "/api/v1/namespaces/default/pods/nope",
            "",
            404,
            "pods \"nope\" not found",
        ),
        (
            "GET",
            "/apis/apps/v2",
            "",
            404,
            "the server could not find the requested resource",
        ),
        (
            "PUT",
            "/api/v1/pods",
            "{}",
            405,
            "the server does not allow this method on the requested resource",
        ),
        (
            "POST",
            MAPS,
            "abc",
            400,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid \
             character 'a' looking for beginning of value (616263)",
        ),
        (
            "POST",
            MAPS,
            "{\"metadata\":{\"name\":\"a\",\"namespace\":\"b\"}}",
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "POST",
            MAPS,
            "{}",
            422,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            "POST",
            MAPS,
            "{\"metadata\":{\"name\":\"a\"},\"data\":{\"x\":1}}",
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field \
             ConfigMap.data of type string",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            "{\"metadata\":{\"name\":\"a\"},\"data\":{\"x\":\"1\",\"x\":\"2\"},\"foo\":1}",
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.x\", unknown \
             field \"foo\"",
        ),
        (
            "POST",
            "/api/v1/namespaces/none/configmaps",
            "{\"metadata\":{\"name\":\"a\"}}",
            404,
            "namespaces \"none\" not found",
        ),
        (
            "GET",
            "/api/v1/pods?limit=x",
            "",
            400,
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "GET",
            "/api/v1/pods?fieldSelector=a=b",
            "",
            400,
            "field label not supported: a",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/kube-system",
            "",
            403,
            "namespaces \"kube-system\" is forbidden: this namespace may not be deleted",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/pods",
            "{\"metadata\":{\"name\":\"p\"},\"spec\":{\"serviceAccountName\":\"zz\",\"containers\":[{\"name\":\"a\",\"image\":\"b\"}]}}",
            403,
            "pods \"p\" is forbidden: error looking up service account default/zz: serviceaccount \"zz\" not found",
        ),
    ] {
        let answer = client.send(method, path, "application/json", body).await;
        assert_eq!(answer.refusal(), (code, message), "{method} {path}");
    }
}

#[tokio::test]
async fn unknown_fields_are_dropped_with_a_warning() {
    let client = Client::new(&memory().await);
    let mut object = map("x");
    object["nonsense"] = json!(1);
    let answer = client.post(MAPS, &object).await;
    assert_eq!(answer.warnings, [r#"299 - "unknown field \"nonsense\"""#]);
    assert_eq!(answer.ok().get("nonsense"), None);
}

#[tokio::test]
async fn generated_names_differ_and_a_dry_run_keeps_nothing() {
    let client = Client::new(&memory().await);
    let object = json!({"metadata": {"generateName": "g-"}});
    let names: Vec<String> = [
        client.post(MAPS, &object).await.ok(),
        client.post(MAPS, &object).await.ok(),
    ]
    .iter()
    .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
    .collect();
    assert!(names.iter().all(|name| name.starts_with("g-") && name.len() == 7));
    assert_ne!(names[0], names[1]);
    let dry = client.post(&format!("{MAPS}?dryRun=All"), &map("dry")).await.ok();
    assert_eq!(dry["metadata"]["name"], "dry");
    assert_eq!(client.get(&format!("{MAPS}/dry")).await.code, 404);
    client
        .send(
            "DELETE",
            &format!("{MAPS}/{}?dryRun=All", names[0]),
            "application/json",
            "",
        )
        .await
        .ok();
    assert_eq!(client.get(&format!("{MAPS}/{}", names[0])).await.code, 200);
}

#[tokio::test]
async fn a_list_comes_in_pages_and_by_label() {
    let client = Client::new(&memory().await);
    for name in ["a", "b", "c", "d", "e"] {
        client.post(MAPS, &map(name)).await.ok();
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = client.get(&format!("{MAPS}?limit=2")).await.ok();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    assert_eq!(first["items"][0].get("kind"), None);
    let token = first["metadata"]["continue"].as_str().unwrap();
    client.post(MAPS, &map("bb")).await.ok();
    let second = client.get(&format!("{MAPS}?limit=3&continue={token}")).await.ok();
    assert_eq!(names(&second), ["bb", "c", "d"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let some = client
        .get(&format!("{MAPS}?labelSelector=name%20in%20(a,e)"))
        .await
        .ok();
    assert_eq!(names(&some), ["a", "e"]);
    let one = client.get(&format!("{MAPS}?fieldSelector=metadata.name=c")).await.ok();
    assert_eq!(names(&one), ["c"]);
}

/// The lines of a watch, as they come.
struct Watch {
    body: mizzen_api::negotiate::Body,
    rest: Vec<u8>,
}

impl Watch {
    async fn start(api: &Api, path: &str) -> Self {
        let request = Request::get(path).body(Full::new(bytes::Bytes::new())).unwrap();
        let response = api.service(User::admin()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }

    /// Type and name of the next event.
    async fn next(&mut self) -> (String, String) {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let name = match event["type"].as_str() {
                    Some("ERROR") => text(&event["object"]["message"]),
                    Some("BOOKMARK") => text(&event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"]),
                    _ => text(&event["object"]["metadata"]["name"]),
                };
                return (text(&event["type"]), name);
            }
            let frame = self.body.frame().await.unwrap().unwrap();
            self.rest.extend_from_slice(&frame.into_data().unwrap());
        }
    }
}

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_tells_what_there_is_and_what_changes() {
    let api = memory().await;
    let client = Client::new(&api);
    let first = client.post(MAPS, &map("a")).await.ok();
    let mut all = Watch::start(&api, &format!("{MAPS}?watch=1")).await;
    let mut labelled = Watch::start(&api, "/api/v1/configmaps?watch=1&labelSelector=special").await;
    let since = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut later = Watch::start(&api, &format!("{MAPS}?watch=true&resourceVersion={since}")).await;
    let streaming = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut streaming = Watch::start(&api, &format!("{MAPS}?{streaming}")).await;
    assert_eq!(all.next().await, event("ADDED", "a"));
    assert_eq!(streaming.next().await, event("ADDED", "a"));
    assert_eq!(streaming.next().await, event("BOOKMARK", "true"));
    let special = json!({"metadata": {"labels": {"special": "x"}}});
    client.merge(&format!("{MAPS}/a"), &special).await.ok();
    client
        .merge(
            &format!("{MAPS}/a"),
            &json!({"metadata": {"labels": {"special": null}}}),
        )
        .await
        .ok();
    client.delete(&format!("{MAPS}/a")).await.ok();
    for watch in [&mut all, &mut later, &mut streaming] {
        assert_eq!(watch.next().await, event("MODIFIED", "a"));
        assert_eq!(watch.next().await, event("MODIFIED", "a"));
        assert_eq!(watch.next().await, event("DELETED", "a"));
    }
    assert_eq!(labelled.next().await, event("ADDED", "a"));
    assert_eq!(labelled.next().await, event("DELETED", "a"));
}

#[tokio::test]
async fn a_watch_from_before_the_start_is_expired() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options {
        state: Some(folder.path().to_owned()),
        ..Options::default()
    };
    let api = Api::open(options()).await.unwrap();
    Client::new(&api).post(MAPS, &map("kept")).await.ok();
    assert!(matches!(
        Api::open(options()).await,
        Err(mizzen_api::StartError::Store(_))
    ));
    drop(api);
    // The writer gives the file back when it sees that nobody is left.
    let api = loop {
        match Api::open(options()).await {
            Ok(api) => break api,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    Client::new(&api).get(&format!("{MAPS}/kept")).await.ok();
    let mut watch = Watch::start(&api, &format!("{MAPS}?watch=1&resourceVersion=2")).await;
    let (kind, message) = watch.next().await;
    assert_eq!(kind, "ERROR");
    assert!(message.starts_with("too old resource version: 2 ("), "{message}");
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_removed() {
    let client = Client::new(&memory().await);
    let mut object = map("x");
    object["metadata"]["finalizers"] = json!(["a.b/c"]);
    client.post(MAPS, &object).await.ok();
    let path = format!("{MAPS}/x");
    let marked = client.delete(&path).await.ok();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["a.b/c", "d.e/f"]}});
    let message = "ConfigMap \"x\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being \
        deleted, found new finalizers []string{\"d.e/f\"}";
    assert_eq!(client.merge(&path, &more).await.refusal(), (422, message));
    client
        .merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    assert_eq!(client.get(&path).await.code, 404);
    let wrong = json!({"preconditions": {"uid": "other"}});
    client.post(MAPS, &map("y")).await.ok();
    let refused = client
        .send("DELETE", &format!("{MAPS}/y"), "application/json", wrong.to_string())
        .await;
    assert_eq!(refused.code, 409);
    let gone = client.delete(&format!("{MAPS}/y")).await.ok();
    assert_eq!(
        (gone["status"].as_str(), gone["details"]["kind"].as_str()),
        (Some("Success"), Some("configmaps"))
    );
}

fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "shirts.ex.io"},
        "spec": {"group": "ex.io", "scope": "Namespaced",
            "names": {"plural": "shirts", "singular": "shirt", "kind": "Shirt", "listKind": "ShirtList", "shortNames": ["sh"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.count"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "color": {"type": "string", "default": "blue"}, "count": {"type": "integer", "minimum": 0}}},
                    "status": {"type": "object", "properties": {"count": {"type": "integer"}}}}}}}]}})
}

#[tokio::test]
async fn custom_resources_come_and_go_with_their_definition() {
    let client = Client::new(&memory().await);
    let (definitions, shirts) = (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/ex.io/v1/namespaces/default/shirts",
    );
    assert_eq!(client.get(shirts).await.code, 404);
    client.post(definitions, &definition()).await.ok();
    let shirt = json!({"apiVersion": "ex.io/v1", "kind": "Shirt", "metadata": {"name": "s"},
        "spec": {"count": 2, "size": "L"}, "status": {"count": 9}});
    let created = client.post(shirts, &shirt).await;
    assert_eq!(created.warnings, [r#"299 - "unknown field \"spec.size\"""#]);
    let created = created.ok();
    assert_eq!(created["spec"], json!({"color": "blue", "count": 2}));
    assert_eq!(
        (created.get("status"), &created["metadata"]["generation"]),
        (None, &json!(1))
    );
    let path = format!("{shirts}/s");
    let status = client
        .merge(
            &format!("{path}/status"),
            &json!({"status": {"count": 1}, "spec": {"count": 7}}),
        )
        .await
        .ok();
    assert_eq!(
        (&status["spec"]["count"], &status["status"]["count"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(status["metadata"]["generation"], 1);
    let scale = client
        .merge(&format!("{path}/scale"), &json!({"spec": {"replicas": 5}}))
        .await
        .ok();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(5), &json!(1))
    );
    let now = client.get(&path).await.ok();
    assert_eq!(
        (&now["spec"]["count"], &now["metadata"]["generation"]),
        (&json!(5), &json!(2))
    );
    let wrong = client.merge(&path, &json!({"spec": {"count": -1}})).await;
    let message = "Shirt.ex.io \"s\" is invalid: spec.count: Invalid value: -1: spec.count in body should be greater than or equal to 0";
    assert_eq!(wrong.refusal(), (422, message));
    let discovered = client.get("/apis/ex.io/v1").await.ok();
    assert_eq!(discovered["resources"][0]["name"], "shirts");
    let document = client.get("/openapi/v3/apis/ex.io/v1").await.ok();
    assert!(document["components"]["schemas"]["io.ex.v1.Shirt"].is_object());
    client.delete(&format!("{definitions}/shirts.ex.io")).await.ok();
    assert_eq!(client.get(&format!("{definitions}/shirts.ex.io")).await.code, 404);
    assert_eq!(client.get(&path).await.code, 404);
}

#[tokio::test]
async fn server_side_apply_owns_fields_and_refuses_those_of_others() {
    let client = Client::new(&memory().await);
    let path = format!("{MAPS}/x");
    let config =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"k": value}});
    assert_eq!(client.apply(&path, "one", &config("1")).await.code, 201);
    assert_eq!(client.apply(&path, "one", &config("2")).await.ok()["data"]["k"], "2");
    let conflict = client.apply(&path, "two", &config("3")).await;
    assert_eq!(
        conflict.refusal(),
        (409, "Apply failed with 1 conflict: conflict with \"one\": .data.k")
    );
    let forced = client.apply(&path, "two&force=true", &config("3")).await.ok();
    assert_eq!(forced["data"]["k"], "3");
    let unnamed = client
        .send("PATCH", &path, "application/apply-patch+yaml", config("4").to_string())
        .await;
    let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
    assert_eq!(unnamed.refusal(), (422, message));
}

#[tokio::test]
async fn roles_decide_what_a_user_may_do() {
    let api = memory().await;
    let (admin, jane) = (Client::new(&api), Client::of(&api, User::new("jane", &[])));
    let message = "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \
        \"default\"";
    assert_eq!(jane.get(MAPS).await.refusal(), (403, message));
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]});
    admin.post(&format!("{rbac}/roles"), &role).await.ok();
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "jane"}]});
    admin.post(&format!("{rbac}/rolebindings"), &binding).await.ok();
    jane.get(MAPS).await.ok();
    assert_eq!(jane.post(MAPS, &map("x")).await.code, 403);
    let question =
        json!({"spec": {"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "configmaps"}}});
    let answer = jane
        .post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &question)
        .await
        .ok();
    assert_eq!(answer["status"]["allowed"], true);
    // Nobody gives what they do not have.
    let all = json!({"metadata": {"name": "mine"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}, "subjects": []});
    let may_bind = json!({"metadata": {"name": "binder"}, "rules": [
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings"], "verbs": ["create"]}]});
    admin.post(&format!("{rbac}/roles"), &may_bind).await.ok();
    let binding = json!({"metadata": {"name": "b2"}, "roleRef": {"kind": "Role", "name": "binder"}, "subjects": [{"kind": "User", "name": "jane"}]});
    admin.post(&format!("{rbac}/rolebindings"), &binding).await.ok();
    let refused = jane.post(&format!("{rbac}/rolebindings"), &all).await;
    assert!(
        refused
            .refusal()
            .1
            .contains("attempting to grant RBAC permissions not currently held"),
        "{}",
        refused.body
    );
}

#[tokio::test]
async fn a_token_names_its_service_account_until_its_pod_is_gone() {
    let client = Client::new(&memory().await);
    let core = "/api/v1/namespaces/default";
    client
        .post(
            &format!("{core}/serviceaccounts"),
            &json!({"metadata": {"name": "default"}}),
        )
        .await
        .ok();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = client.post(&format!("{core}/pods"), &pod).await.ok();
    let request = json!({"spec": {"audiences": ["vault"], "expirationSeconds": 600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}}});
    let answer = client
        .post(&format!("{core}/serviceaccounts/default/token"), &request)
        .await
        .ok();
    let token = answer["status"]["token"].as_str().unwrap();
    let review = |audience: &str| json!({"spec": {"token": token, "audiences": [audience]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let known = client.post(reviews, &review("vault")).await.ok();
    assert_eq!(known["status"]["authenticated"], true);
    assert_eq!(
        known["status"]["user"]["username"],
        "system:serviceaccount:default:default"
    );
    assert_eq!(
        known["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["p"])
    );
    let elsewhere = client.post(reviews, &review("other")).await.ok();
    assert_eq!(elsewhere["status"].get("authenticated"), None);
    client.delete(&format!("{core}/pods/p")).await.ok();
    let gone = client.post(reviews, &review("vault")).await.ok();
    assert_eq!(gone["status"].get("authenticated"), None);
    let short = json!({"spec": {"expirationSeconds": 10}});
    assert_eq!(
        client
            .post(&format!("{core}/serviceaccounts/default/token"), &short)
            .await
            .code,
        422
    );
}

#[tokio::test]
async fn a_pod_is_bound_once_and_evicted_within_its_budget() {
    let client = Client::new(&memory().await);
    let core = "/api/v1/namespaces/default";
    client
        .post(
            &format!("{core}/serviceaccounts"),
            &json!({"metadata": {"name": "default"}}),
        )
        .await
        .ok();
    let pod =
        json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    client.post(&format!("{core}/pods"), &pod).await.ok();
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(client.post(&format!("{core}/pods/p/binding"), &binding).await.code, 201);
    let message = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\"";
    assert_eq!(
        client.post(&format!("{core}/bindings"), &binding).await.refusal(),
        (409, message)
    );
    client
        .merge(
            &format!("{core}/pods/p/status"),
            &json!({"status": {"phase": "Running"}}),
        )
        .await
        .ok();
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    client.post(budgets, &budget).await.ok();
    let status = |allowed: i64| json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed}});
    client.merge(&format!("{budgets}/b/status"), &status(0)).await.ok();
    let eviction = json!({"metadata": {"name": "p"}});
    let path = format!("{core}/pods/p/eviction");
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!(client.post(&path, &eviction).await.refusal(), (429, message));
    client.merge(&format!("{budgets}/b/status"), &status(1)).await.ok();
    assert_eq!(client.post(&path, &eviction).await.code, 201);
    let pod = client.get(&format!("{core}/pods/p")).await.ok();
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(
        client.get(&format!("{budgets}/b")).await.ok()["status"]["disruptionsAllowed"],
        0
    );
    client.delete(&format!("{core}/pods/p?gracePeriodSeconds=0")).await.ok();
    assert_eq!(client.get(&format!("{core}/pods/p")).await.code, 404);
}

#[tokio::test]
async fn a_namespace_ends_when_its_finalizer_is_removed() {
    let client = Client::new(&memory().await);
    client
        .post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}}))
        .await
        .ok();
    let ending = client.delete("/api/v1/namespaces/n").await.ok();
    assert_eq!(ending["status"]["phase"], "Terminating");
    let message =
        "configmaps \"x\" is forbidden: unable to create new content in namespace n because it is being terminated";
    assert_eq!(
        client
            .post("/api/v1/namespaces/n/configmaps", &map("x"))
            .await
            .refusal(),
        (403, message)
    );
    let mut last = client.get("/api/v1/namespaces/n").await.ok();
    last["spec"]["finalizers"] = json!([]);
    client.put("/api/v1/namespaces/n/finalize", &last).await.ok();
    assert_eq!(client.get("/api/v1/namespaces/n").await.code, 404);
}

#[tokio::test]
async fn an_event_is_shown_by_both_groups_and_kept_from_its_creation_on() {
    let client = Client::new(&memory().await);
    let events = "/api/v1/namespaces/default/events";
    let event = |name: &str, at: &str| json!({"metadata": {"name": name}, "lastTimestamp": at, "involvedObject": {"namespace": "default", "name": "x"}});
    client.post(events, &event("first", "2020-01-01T00:00:00Z")).await.ok();
    let list = client.get(events).await.ok();
    // Its own creation is new, whatever it says of the past.
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let other = client
        .get("/apis/events.k8s.io/v1/namespaces/default/events/first")
        .await
        .ok();
    assert_eq!(other["regarding"]["name"], "x");
}

#[tokio::test]
async fn a_stream_of_a_pod_needs_its_container_and_its_node() {
    let client = Client::new(&memory().await);
    let core = "/api/v1/namespaces/default";
    let account = json!({"metadata": {"name": "default"}});
    client.post(&format!("{core}/serviceaccounts"), &account).await.ok();
    let containers = json!([{"name": "a", "image": "i"}, {"name": "c", "image": "i"}]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
    client.post(&format!("{core}/pods"), &pod).await.ok();
    let message = "a container name must be specified for pod p, choose one of: [a c]";
    assert_eq!(
        client.get(&format!("{core}/pods/p/log")).await.refusal(),
        (400, message)
    );
    let other = client.get(&format!("{core}/pods/p/log?container=z")).await;
    assert_eq!(other.refusal(), (400, "container z is not valid for pod p"));
    let exec = client
        .post(&format!("{core}/pods/p/exec?container=a&command=ls"), &json!({}))
        .await;
    assert_eq!(exec.refusal(), (400, "pod p does not have a host assigned"));
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    client.post(&format!("{core}/pods/p/binding"), &binding).await.ok();
    let message = "no node is connected: log of pod \"p\" cannot be served";
    let log = client.get(&format!("{core}/pods/p/log?container=a")).await;
    assert_eq!(log.refusal(), (503, message));
}
