use super::*;
use crate::install::cluster::Cluster;
use crate::install::progress::{Output, Progress};
use crate::uninstall::Args;
use http::{Method, Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// A cluster with the namespace `shop`, which install made, whose one pod is listed `pods` times more. What is asked of it
/// is written down.
struct Fake {
    asked: Vec<String>,
    pods: usize,
    owner: Option<&'static str>,
    policies: Value,
    deleted: bool,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            asked: Vec::new(),
            pods: 0,
            owner: None,
            policies: json!({"metadata": {}, "items": []}),
            deleted: false,
        }
    }
}

/// A list with an object of which this is known.
fn list(metadata: Value) -> Value {
    json!({"metadata": {}, "items": [{"metadata": metadata}]})
}

/// What a cluster says of the kinds of a group.
fn kinds(group: &str, version: &str, kinds: &[(&str, &str)]) -> Value {
    let resources: Vec<_> = kinds
        .iter()
        .map(|(kind, plural)| {
            json!({
                "resource": plural, "responseKind": {"group": group, "version": version, "kind": kind},
                "scope": "Namespaced", "verbs": ["list", "delete"],
            })
        })
        .collect();
    json!({"metadata": {}, "items": [{
        "metadata": {"name": group},
        "versions": [{"version": version, "resources": resources}],
    }]})
}

impl Fake {
    fn answer(&mut self, method: &Method, path: &str) -> (u16, Value) {
        let namespace = "/api/v1/namespaces/shop";
        let pods = format!("{namespace}/pods");
        match (method, path) {
            (&Method::GET, path) if path == namespace && self.deleted => {
                (404, json!({"code": 404, "reason": "NotFound"}))
            }
            (&Method::GET, path) if path == namespace => (
                200,
                json!({"metadata": {"name": "shop", "labels": {(INSTALLED): INSTALLER}}}),
            ),
            (&Method::DELETE, path) if path == namespace => {
                self.asked.push("delete".to_owned());
                self.deleted = true;
                (200, json!({"metadata": {"name": "shop"}}))
            }
            (&Method::GET, path) if path == pods => {
                let there = self.pods > 0;
                self.pods = self.pods.saturating_sub(1);
                self.asked.push(format!("pods: {there}"));
                let owners: Vec<_> = self
                    .owner
                    .iter()
                    .map(|kind| json!({"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u"}))
                    .collect();
                let pod = json!({"metadata": {"name": "cart", "ownerReferences": owners}});
                (
                    200,
                    json!({"metadata": {}, "items": if there { vec![pod] } else { Vec::new() }}),
                )
            }
            (&Method::GET, "/api") => (200, kinds("", "v1", &[("Pod", "pods"), ("Event", "events")])),
            (&Method::GET, "/apis") => (
                200,
                kinds("networking.k8s.io", "v1", &[("NetworkPolicy", "networkpolicies")]),
            ),
            (&Method::GET, path) if path.ends_with("/events") => (200, list(json!({"name": "cart.17"}))),
            (&Method::GET, "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies") => {
                (200, self.policies.clone())
            }
            _ => (200, json!({"metadata": {}, "items": []})),
        }
    }
}

fn client(fake: &Arc<Mutex<Fake>>) -> Client {
    let fake = fake.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (code, body) = fake.lock().answer(request.method(), request.uri().path());
        let response = Response::builder()
            .status(code)
            .body(Body::from(body.to_string().into_bytes()));
        async move { Ok::<_, Infallible>(response.unwrap()) }
    });
    Client::new(service, "default")
}

async fn remove(fake: Fake, timeout: &str) -> (bool, Vec<(String, String)>, Vec<String>) {
    let fake = Arc::new(Mutex::new(fake));
    let client = client(&fake);
    let Line { args } = clap::Parser::try_parse_from(["uninstall", "--timeout", timeout]).unwrap();
    let mut progress = Progress::new(Output::Json);
    let mut removal = Removal {
        args: &args,
        cluster: Cluster::of(client.clone()),
        progress: &mut progress,
        left: Vec::new(),
        going: Vec::new(),
    };
    let goes = removal
        .namespace(&client, "shop")
        .await
        .map_err(|failure| failure.to_string())
        .unwrap();
    if goes {
        removal
            .gone("shop")
            .await
            .map_err(|failure| failure.to_string())
            .unwrap();
    }
    let left = std::mem::take(&mut removal.left);
    let asked = std::mem::take(&mut fake.lock().asked);
    (goes, left, asked)
}

// A8
#[tokio::test]
async fn a_namespace_is_deleted_when_its_pods_have_ended() {
    let fake = Fake {
        pods: 3,
        owner: Some("ReplicaSet"),
        ..Fake::default()
    };
    let (goes, left, asked) = remove(fake, "1m").await;
    assert!(goes);
    assert_eq!(left, []);
    // The first look is for pods of the user's.
    assert_eq!(
        asked,
        ["pods: true", "pods: true", "pods: true", "pods: false", "delete"]
    );
}

// A8
#[tokio::test]
async fn pods_that_do_not_end_keep_a_namespace_from_being_deleted_for_a_while_only() {
    let fake = Fake {
        pods: usize::MAX,
        owner: Some("ReplicaSet"),
        ..Fake::default()
    };
    let (goes, _, asked) = remove(fake, "0s").await;
    assert!(goes);
    assert_eq!(asked.last().map(String::as_str), Some("delete"));
}

// A8
#[tokio::test]
async fn a_namespace_in_which_a_user_runs_a_pod_stays() {
    let fake = Fake {
        pods: usize::MAX,
        ..Fake::default()
    };
    let (goes, left, asked) = remove(fake, "1m").await;
    assert!(!goes);
    assert_eq!(left, [("namespace shop".to_owned(), "it holds Pod cart".to_owned())]);
    assert_eq!(asked, ["pods: true"]);
}

// A8
#[tokio::test]
async fn whatever_users_have_in_a_namespace_keeps_it_and_what_the_mesh_made_does_not() {
    let fake = |metadata| Fake {
        policies: list(metadata),
        ..Fake::default()
    };
    let (goes, left, asked) = remove(fake(json!({"name": "guard"})), "1m").await;
    assert!(!goes);
    let why = "it holds NetworkPolicy guard".to_owned();
    assert_eq!(left, [("namespace shop".to_owned(), why)]);
    assert_eq!(asked, ["pods: false"]);

    let ours = json!({"name": "guard", "labels": {(labels::OWNER): "shop"}});
    let (goes, left, _) = remove(fake(ours), "1m").await;
    assert!(goes);
    assert_eq!(left, []);
}
