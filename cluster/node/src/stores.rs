//! What the whole node looks at: services and endpoint slices, watched once; and what its pods say.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::services::Protocol;

pub(crate) struct Stores {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    changed: watch::Sender<()>,
    /// Host ports of running pods and where they lead.
    pub(crate) host_ports: Mutex<BTreeMap<(Protocol, u16), SocketAddrV4>>,
}

impl Stores {
    /// Starts the watches in `tasks`.
    pub(crate) fn start(client: &Client, tasks: &mut JoinSet<()>) -> Arc<Self> {
        let (changed, _) = watch::channel(());
        let (services, services_writer) = reflector::store();
        let (slices, slices_writer) = reflector::store();
        watch(client, services_writer, changed.clone(), tasks);
        watch(client, slices_writer, changed.clone(), tasks);
        Arc::new(Self {
            services,
            slices,
            changed,
            host_ports: Mutex::default(),
        })
    }

    /// Waits until both kinds were listed once.
    pub(crate) async fn ready(&self) {
        _ = self.services.wait_until_ready().await;
        _ = self.slices.wait_until_ready().await;
    }

    pub(crate) fn services(&self) -> Vec<Arc<Service>> {
        let mut all = self.services.state();
        all.sort_by(|a, b| (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name)));
        all
    }

    pub(crate) fn slices(&self) -> Vec<Arc<EndpointSlice>> {
        self.slices.state()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Says that host ports changed.
    pub(crate) fn touch(&self) {
        self.changed.send_replace(());
    }
}

fn watch<K>(client: &Client, writer: reflector::store::Writer<K>, changed: watch::Sender<()>, tasks: &mut JoinSet<()>)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let watch = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff();
    tasks.spawn(reflector::reflector(writer, watch).for_each(move |event| {
        match event {
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => {
                changed.send_replace(());
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "watch failed, trying again"),
        }
        std::future::ready(())
    }));
}
