//! Wiring: starts the parts in the order in which they need each other, and ends them in reverse.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use kube::Client;
use mizzen_ca::{Ca, CaSettings, TtlPolicy};
use mizzen_index::Index;
use mizzen_webhook::IstiodWebhooks;
use mizzen_xds::{Ads, Limits, Settings as AdsSettings};
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{error, info, warn};

use crate::{
    Args,
    admin::{self, Admin, Parts},
    base,
    core::Core,
    hub::{self, Hub, HubSource},
    lease,
    metrics::Metrics,
    root_cert,
    secure::{self, Authenticated},
    status::Writer,
    watch as watches,
};

/// Events of Kubernetes that wait for the index.
const EVENTS: usize = 4_096;
/// Reports that wait for the status writer.
const REPORTS: usize = 1_024;
/// What cannot start for want of the API server is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// When a port cannot be opened, or the configuration cannot be understood.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut registry = Registry::default();
    let ads_metrics = mizzen_xds::Metrics::register(&mut registry);
    let metrics = Metrics::register(&mut registry);
    let client = client(&args).await?;

    let settings = insist(&stop, "mesh configuration", || base::settings(&client, &args)).await?;
    let ca_settings = CaSettings {
        trust_domain: settings.defaults.trust_domain.clone(),
        workload_ttl: TtlPolicy {
            default: args.workload_cert_ttl,
            max: args.max_workload_cert_ttl,
        },
        ..CaSettings::default()
    };
    let ca = insist(&stop, "certificate authority", || async {
        Ok(Ca::load_or_create(client.clone(), &args.namespace, ca_settings.clone()).await?)
    })
    .await?;
    ca.register_metrics(&mut registry);
    info!(trust_domain = %ca.trust_domain(), "certificate authority ready");

    let webhooks = IstiodWebhooks::new(client.clone(), &args.revision, &args.namespace, &mut registry);

    let mut tasks = JoinSet::new();
    let (status_tx, reports) = mpsc::channel(REPORTS);
    let hub = Hub::new(status_tx.clone());
    let ads_settings = AdsSettings {
        limits: Limits {
            subscriptions: args.max_subscriptions,
            ..Limits::default()
        },
        streams: args.max_streams,
        ..AdsSettings::default()
    };
    let ads = Ads::new(Arc::new(HubSource(hub.clone())), ads_settings, ads_metrics);
    tasks.spawn(hub::sweep(hub.clone()));

    let parts = Arc::new(Parts {
        hub: hub.clone(),
        ads: ads.clone(),
        webhooks: webhooks.clone(),
    });
    let admin = Admin {
        registry: Arc::new(registry),
        parts,
        stop: stop.clone(),
    };
    for (name, address) in [("http", args.http_address), ("monitoring", args.monitoring_address)] {
        let listener = listen(name, address).await?;
        tasks.spawn(admin::serve(listener, admin.router(), stop.child_token()));
    }

    let (members_tx, members) = watch::channel(None);
    tasks.spawn(root_cert::keep(
        client.clone(),
        args.namespace.clone(),
        ca.root_pem(),
        members,
    ));
    let leader_tx = Arc::new(watch::Sender::new(false));
    let (lease_name, holder) = (format!("istiod-{}-status", args.revision), holder(&args));
    let leader = leader_tx.subscribe();
    tasks.spawn(lease::hold(
        client.clone(),
        args.namespace.clone(),
        lease_name.clone(),
        holder.clone(),
        leader_tx,
    ));
    tasks.spawn(Writer::new(client.clone(), hub.clone(), metrics.clone()).run(reports, leader));

    let (events_tx, events) = mpsc::channel(EVENTS);
    let refused = hub.refused();
    let core = Core {
        index: Index::new(settings),
        hub,
        members_tx,
        status_tx,
        metrics,
        restart: stop.clone(),
    };
    tasks.spawn(core.run(events));
    let mut watching = watches::start(
        &client,
        &args.namespace,
        &base::config_map_name(&args),
        &events_tx,
        &refused,
    );
    drop(events_tx);

    let names = server_names(&args);
    let authenticator = ca.authenticator(client.clone());
    let routes = Routes::new(Authenticated::new(ads.clone(), authenticator.clone()))
        .add_service(ca.service(authenticator.clone()))
        .into_axum_router();
    let tls = ca.server_config(&names).context("no TLS for the secure port")?;
    let listener = listen("secure", args.secure_address).await?;
    let mut servers = JoinSet::new();
    servers.spawn(secure::serve(
        listener,
        Some(tls),
        routes.clone(),
        stop.clone(),
        args.drain,
    ));
    let tls = ca.webhook_config(&names).context("no TLS for the webhooks")?;
    let listener = listen("webhook", args.webhook_address).await?;
    servers.spawn(webhooks.run(listener, tls, ca.root_pem(), stop.clone(), args.drain));
    if let Some(address) = args.plain_address {
        anyhow::ensure!(
            address.ip().is_loopback(),
            "--plain-address {address} is not a loopback address"
        );
        let listener = listen("plain", address).await?;
        servers.spawn(secure::serve(listener, None, routes, stop.clone(), args.drain));
    }

    tokio::select! {
        () = signalled() => info!("told to end: draining"),
        () = stop.cancelled() => warn!("ending to start anew"),
        Some(ended) = watching.join_next() => error!(?ended, "a watch has ended: ending to start anew"),
        Some(ended) = servers.join_next() => error!(?ended, "a server has ended: ending to start anew"),
    }
    // Readiness fails first, so that nobody new is sent here; then the streams end and find another replica.
    stop.cancel();
    ads.drain();
    while servers.join_next().await.is_some() {}
    lease::release(client, &args.namespace, &lease_name, &holder).await;
    tasks.shutdown().await;
    watching.shutdown().await;
    info!("ended");
    Ok(())
}

async fn client(args: &Args) -> anyhow::Result<Client> {
    let config = match &args.kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path).context("the kubeconfig cannot be read")?;
            kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer()
            .await
            .context("no cluster: give --kubeconfig, or run in a pod")?,
    };
    Ok(Client::try_from(config)?)
}

/// Tries until it works: when discovery starts, the API server may be away.
async fn insist<T, F, Fut>(stop: &CancellationToken, what: &'static str, attempt: F) -> anyhow::Result<T>
where
    F: Fn() -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error!(what, error = format!("{error:#}"), "cannot start; trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.cancelled() => anyhow::bail!("told to end before {what} was ready"),
            () = signalled() => anyhow::bail!("told to end before {what} was ready"),
        }
    }
}

async fn listen(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen at {address} ({name})"))?;
    info!(name, %address, "listening");
    Ok(listener)
}

/// The names by which proxies and the API server call this control plane.
fn server_names(args: &Args) -> Vec<String> {
    let service = format!("istiod-{}.{}.svc", args.revision, args.namespace);
    vec![
        service.clone(),
        format!("{service}.{}", args.cluster_domain),
        "localhost".to_owned(),
    ]
}

fn holder(args: &Args) -> String {
    args.pod_name
        .clone()
        .unwrap_or_else(|| format!("istiod-{}-{}", args.revision, std::process::id()))
}

async fn signalled() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
