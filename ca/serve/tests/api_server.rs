//! The CA against a real API server: one root for all replicas, tokens reviewed, a plugged-in CA preferred.
//!
//! It runs where `MIZZEN_TEST_KUBECONFIG` names the kubeconfig of an API server that may be written to.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use mizzen_ca::{AuthError, Authenticator, Ca, CaSettings, Caller, Credentials};
use serde_json::json;

const NAMESPACE: &str = "mizzen-ca-test";

async fn client() -> Option<Client> {
    let Some(path) = std::env::var_os("MIZZEN_TEST_KUBECONFIG") else {
        eprintln!("skipped: set MIZZEN_TEST_KUBECONFIG to the kubeconfig of an API server");
        return None;
    };
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Some(Client::try_from(config).unwrap())
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

/// Created, or there from an earlier run.
async fn ensure<K>(api: &Api<K>, object: &K)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    match api.create(&PostParams::default(), object).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("{error}"),
    }
}

async fn token(accounts: &Api<ServiceAccount>, audience: &str, pod: &Pod) -> String {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            expiration_seconds: Some(600),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    accounts
        .create_token_request("cart", &PostParams::default(), &request)
        .await
        .unwrap()
        .status
        .unwrap()
        .token
}

async fn who(authenticator: &Authenticator, token: &str) -> Result<Caller, AuthError> {
    authenticator
        .authenticate(Credentials {
            token: Some(token),
            certificates: None,
        })
        .await
}

// E1, E2, E7, G3
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_lives_in_a_secret_and_knows_tokens() {
    let Some(client) = client().await else { return };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    ensure(
        &namespaces,
        &Namespace {
            metadata: named(NAMESPACE),
            ..Namespace::default()
        },
    )
    .await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    for name in ["istio-ca-secret", "cacerts"] {
        let _ = secrets.delete(name, &DeleteParams::default()).await;
    }

    // Several replicas at once: one root.
    let load = || Ca::load_or_create(client.clone(), NAMESPACE, CaSettings::default());
    let replicas: Vec<Ca> = join_all((0..5).map(|_| load()))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let root = replicas[0].root_pem();
    assert!(replicas.iter().all(|replica| replica.root_pem() == root));
    assert_eq!(load().await.unwrap().root_pem(), root, "a restart keeps the root");

    // Tokens.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    ensure(
        &accounts,
        &ServiceAccount {
            metadata: named("cart"),
            ..ServiceAccount::default()
        },
    )
    .await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pod: Pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "cart-"},
        "spec": {"serviceAccountName": "cart", "containers": [{"name": "app", "image": "i"}]},
    }))
    .unwrap();
    let pod = pods.create(&PostParams::default(), &pod).await.unwrap();
    let authenticator = replicas[0].authenticator(client.clone());
    let good = token(&accounts, "istio-ca", &pod).await;
    let caller = who(&authenticator, &good).await.unwrap();
    assert_eq!(
        caller.identity.to_string(),
        format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/cart")
    );
    assert_eq!(caller.pod.as_ref().map(|pod| pod.name.clone()), pod.metadata.name);
    assert_eq!(caller.pod.map(|pod| pod.uid), pod.metadata.uid);

    let elsewhere = token(&accounts, "vault", &pod).await;
    assert!(matches!(
        who(&authenticator, &elsewhere).await,
        Err(AuthError::Refused { .. } | AuthError::Audience)
    ));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    assert!(matches!(
        who(&authenticator, &forged).await,
        Err(AuthError::Refused { .. })
    ));

    // The pod goes, and its token with it.
    let fresh = token(&accounts, "istio-ca", &pod).await;
    let at_once = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    pods.delete(pod.metadata.name.as_deref().unwrap(), &at_once)
        .await
        .unwrap();
    let mut refused = false;
    for _ in 0..100 {
        // A token that nobody has asked about, with an authenticator that remembers nothing.
        refused = matches!(
            who(&replicas[0].authenticator(client.clone()), &fresh).await,
            Err(AuthError::Refused { .. })
        );
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(refused, "the token of a deleted pod is refused");

    // A CA that somebody plugs in wins.
    let mut plugged_in = secrets.get("istio-ca-secret").await.unwrap();
    plugged_in.metadata = named("cacerts");
    plugged_in
        .data
        .as_mut()
        .unwrap()
        .insert("ca-key.pem".to_owned(), ByteString(b"broken".to_vec()));
    ensure(&secrets, &plugged_in).await;
    let error = load().await.err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("secret {NAMESPACE}/cacerts does not hold a usable CA")
    );
    secrets.delete("cacerts", &DeleteParams::default()).await.unwrap();
}
