//! The operator's own webhooks: a CA in a Secret, a certificate from it, and the server.

use anyhow::Context;
use kube::Client;
use mizzen_ca::{Ca, CaSettings};
use mizzen_webhook::{OperatorWebhooks, ServicePort};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The Service of config/operator, and the ServiceAccount.
const NAME: &str = "mizzen-operator";
/// A review asks the API server for at most 4 s.
const DRAIN: Duration = Duration::from_secs(5);

/// Listens, then serves until `stop`.
pub(super) async fn start(
    client: Client,
    operator: &mizzen_operator::Args,
    listen: SocketAddr,
    metrics: &mut Registry,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let namespace = operator.namespace.clone();
    let settings = CaSettings {
        secret: "mizzen-operator-ca".to_owned(),
        plugged_in_secret: None,
        ..CaSettings::default()
    };
    let ca = Ca::load_or_create(client.clone(), &namespace, settings)
        .await
        .context("the Secret mizzen-operator-ca can be neither read nor made")?;
    let names = [
        format!("{NAME}.{namespace}.svc"),
        format!("{NAME}.{namespace}.svc.cluster.local"),
    ];
    let tls = ca.webhook_config(&names).context("no certificate for the webhooks")?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("{listen} cannot be listened on; choose another with --webhook-listen"))?;
    let user = format!("system:serviceaccount:{namespace}:{NAME}");
    let webhooks = OperatorWebhooks::new(client, operator.settings(), user, metrics);
    let service = ServicePort {
        namespace,
        name: NAME.to_owned(),
        port: 443,
    };
    Ok(tokio::spawn(webhooks.run(
        listener,
        tls,
        service,
        ca.root_pem(),
        stop,
        DRAIN,
    )))
}
