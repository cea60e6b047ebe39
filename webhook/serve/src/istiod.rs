//! The control plane's webhooks: injection and validation of traffic configuration.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::Client;
use mizzen_review::review_traffic;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bundle;
use crate::injector::Injector;
use crate::namespaces::Namespaces;
use crate::routes::{Endpoint, Limits, Webhooks};
use crate::server;

/// `/inject` and `/validate` of one revision. Cheap to clone.
#[derive(Clone)]
pub struct IstiodWebhooks {
    client: Client,
    injector: Injector,
    namespaces: Namespaces,
    webhooks: Webhooks,
    revision: String,
    namespace: String,
}

impl IstiodWebhooks {
    /// The webhooks of `revision`, whose control plane lives in `namespace`.
    pub fn new(client: Client, revision: &str, namespace: &str, registry: &mut Registry) -> Self {
        let namespaces = Namespaces::new(client.clone());
        let injector = Injector::new(client.clone(), revision, namespace, namespaces.clone());
        let inject = injector.clone();
        let endpoints = vec![
            Endpoint::asking("/inject", move |request| {
                let injector = inject.clone();
                Box::pin(async move { injector.review(request).await })
            }),
            Endpoint::computing("/validate", review_traffic),
        ];
        let webhooks = Webhooks::new(endpoints, Limits::default(), registry);
        Self {
            client,
            injector,
            namespaces,
            webhooks,
            revision: revision.to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    /// Whether it can answer: the injector's configuration and the namespaces are known.
    pub fn is_ready(&self) -> bool {
        self.injector.is_ready() && self.namespaces.is_synced()
    }

    /// Serves until `stop` and keeps `ca_pem` in the webhook configurations of this revision meanwhile.
    pub async fn run(
        self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        ca_pem: String,
        stop: CancellationToken,
        drain: Duration,
    ) {
        let Self {
            client,
            injector,
            namespaces,
            webhooks,
            revision,
            namespace,
        } = self;
        let mut tasks = JoinSet::new();
        tasks.spawn(injector.follow());
        tasks.spawn(namespaces.follow());
        let injection = format!("istiod-{revision}-{namespace}");
        let validation = format!("istio-validator-{revision}-{namespace}");
        tasks.spawn(bundle::keep::<MutatingWebhookConfiguration>(
            client.clone(),
            injection,
            ca_pem.clone(),
        ));
        tasks.spawn(bundle::keep::<ValidatingWebhookConfiguration>(
            client, validation, ca_pem,
        ));
        server::serve(listener, tls, webhooks.router(), stop, drain).await;
        tasks.shutdown().await;
    }
}
