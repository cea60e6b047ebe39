//! The operator: keeps what exists as the ServiceMeshControlPlanes, member rolls and members of the cluster say.
//!
//! In: a `kube::Client` and [`Args`]. Out: objects applied server-side under the operator's field manager, status, Events,
//! metrics. What should exist is `mizzen-desired`'s to say; this crate fetches, compares, applies, and reports.
//! Never: a write that changes nothing (a restart leaves every resourceVersion as it is), a change to an object the
//! operator did not make, a decision without the Lease.
//!
//! ```text
//! watch -> queue -> fetch -> validate -> build -> compare -> apply -> prune -> readiness -> status
//! ```

pub mod apply;
mod context;
mod controllers;
mod lease;
mod member;
mod mesh;
mod metrics;
mod namespaces;
pub mod readiness;
mod roll;
mod serve;
mod status;

pub use context::VERSION;

use anyhow::Context as _;
use context::Context;
use kube::Client;
use metrics::Metrics;
use mizzen_desired::Settings;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How the operator is run.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The namespace the operator runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "mizzen-operator")]
    pub namespace: String,
    /// The name under which this replica takes the lease.
    #[arg(long, env = "POD_NAME", default_value = "mizzen-operator")]
    pub identity: String,
    /// Where the images of meshes come from, unless a spec says otherwise.
    #[arg(long, env = "MIZZEN_IMAGE_REGISTRY", default_value = "localhost/mizzen")]
    pub image_registry: String,
    /// Their tag, unless a spec says otherwise.
    #[arg(long, env = "MIZZEN_IMAGE_TAG", default_value = "dev")]
    pub image_tag: String,
    /// Where health and metrics are served.
    #[arg(long, env = "MIZZEN_OPERATOR_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

impl Args {
    /// What the installation decides for every mesh.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            operator_namespace: self.namespace.clone(),
            operator_version: VERSION.to_owned(),
            image_registry: self.image_registry.clone(),
            image_tag: self.image_tag.clone(),
        }
    }
}

/// Runs until `stop` is cancelled or the lease is lost. What is in `metrics` already is served beside the operator's own.
///
/// # Errors
/// When the address cannot be listened on, the lease may not be taken, or it was lost.
pub async fn run(client: Client, args: Args, metrics: Registry, stop: CancellationToken) -> anyhow::Result<()> {
    let _ends_with_us = stop.clone().drop_guard();
    let context = Arc::new(Context::new(
        client.clone(),
        args.settings(),
        Metrics::new(metrics),
        &args.identity,
    ));
    let server = serve::serve(args.listen, context.clone(), stop.clone()).await?;
    let lease = lease::Lease::new(client, &args.namespace, &args.identity);

    tokio::select! {
        acquired = lease.acquire() => acquired.context("the lease cannot be taken")?,
        () = stop.cancelled() => return Ok(()),
    }
    tracing::info!(identity = args.identity, "leading");
    let controllers = controllers::run(context, stop.clone());
    let outcome = tokio::select! {
        outcome = controllers => outcome,
        lost = lease.keep() => Err(lost.context("the lease was lost; another replica leads now")),
    };
    stop.cancel();
    // Given back at once, so that the next replica need not wait for it to run out.
    lease.release().await;
    if let Err(error) = server.await {
        tracing::warn!(%error, "the health server did not end well");
    }
    outcome
}
