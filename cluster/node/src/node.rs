//! The node: its object and heartbeat, the pods that are bound to it, and the services around them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::cgroups;
use crate::config::{NodeConfig, Outside};
use crate::events::Recorder;
use crate::exec::Running;
use crate::netlink::NetlinkError;
use crate::pod::env::Place;
use crate::pod::state::Kind;
use crate::pod::worker;
use crate::sandbox::{self, Namespaces};
use crate::services::{self, Redirect};
use crate::stores::Stores;
use crate::{Streams, dns};

mod object;

/// Connections to the outside at once.
const CONNECTIONS: usize = 1024;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The bridge, its addresses or routes.
    #[error("the node's network: {0}; the node needs CAP_NET_ADMIN over a network namespace of its own")]
    Network(#[from] NetlinkError),
    /// The state folder, or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The node's object.
    #[error("registering node {name:?}: {source}")]
    Register {
        /// Its name.
        name: String,
        /// The API server's answer.
        source: Box<kube::Error>,
    },
}

/// What the pods of a node share.
pub(crate) struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) client: Client,
    pub(crate) stores: Arc<Stores>,
    pub(crate) recorder: Recorder,
    pub(crate) place: Place,
    pub(crate) registry: Registry,
    addresses: Mutex<Addresses>,
}

#[derive(Default)]
struct Addresses {
    taken: BTreeSet<Ipv4Addr>,
    last: Option<Ipv4Addr>,
}

/// The pods that run, by namespace and name.
pub(crate) type Registry = Arc<Mutex<BTreeMap<(String, String), Arc<Live>>>>;

/// What logs, exec and port-forward need of a pod.
pub(crate) struct Live {
    pub(crate) uid: String,
    pub(crate) folder: PathBuf,
    /// Absent in the node's own network, and before and after there are any.
    pub(crate) namespaces: Mutex<Option<Arc<Namespaces>>>,
    /// Why a container waits.
    pub(crate) waiting: Mutex<BTreeMap<String, String>>,
    pub(crate) names: Vec<(Kind, String)>,
    /// The last start of each container; it may have ended.
    pub(crate) containers: Mutex<BTreeMap<String, Arc<Running>>>,
}

impl Node {
    /// The next free address: one that was given back is not given away at once, while others may still know it as somebody else's.
    pub(crate) fn allocate(&self) -> Result<Ipv4Addr, sandbox::SandboxError> {
        let mut addresses = self.addresses.lock();
        let full = || sandbox::SandboxError::Full(self.config.pods);
        // The first is the bridge's.
        let all = || self.config.pods.hosts().skip(1);
        let after = all().filter(|address| addresses.last.is_none_or(|last| *address > last));
        let free = after
            .chain(all())
            .find(|address| !addresses.taken.contains(address))
            .ok_or_else(full)?;
        addresses.taken.insert(free);
        addresses.last = Some(free);
        Ok(free)
    }

    pub(crate) fn release(&self, address: Ipv4Addr) {
        self.addresses.lock().taken.remove(&address);
    }
}

/// A node that runs; its tasks and everything in its pods end when it is dropped.
pub struct RunningNode {
    tasks: JoinSet<()>,
    streams: Streams,
    registry: Registry,
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.tasks.abort_all();
        for pod in std::mem::take(&mut *self.registry.lock()).values() {
            for running in pod.containers.lock().values() {
                running.process.signal(rustix::process::Signal::KILL);
            }
        }
    }
}

impl RunningNode {
    /// Logs, exec, attach and port-forward.
    pub fn streams(&self) -> Streams {
        self.streams.clone()
    }

    /// Waits for the end of a task that should not end.
    pub async fn failed(&mut self) {
        _ = self.tasks.join_next().await;
    }

    /// Ends in order: applications are asked to end, then their sidecars; what has not ended within `limit` is killed. No container is
    /// started any more, and objects stay as they are: the same pods run again after the next start.
    pub async fn stop(mut self, limit: Duration) {
        self.tasks.shutdown().await;
        let pods: Vec<_> = self.registry.lock().values().cloned().collect();
        let in_order = async {
            for sidecars in [false, true] {
                let mut ends = Vec::new();
                for pod in &pods {
                    for (name, running) in &*pod.containers.lock() {
                        let kind = pod.names.iter().find(|(_, known)| known == name).map(|(kind, _)| *kind);
                        if (kind == Some(Kind::Sidecar)) == sidecars && running.process.exit().is_none() {
                            running.process.signal(rustix::process::Signal::TERM);
                            ends.push(Arc::clone(running));
                        }
                    }
                }
                for running in ends {
                    running.process.ended().await;
                }
            }
        };
        if tokio::time::timeout(limit, in_order).await.is_err() {
            tracing::info!("containers that did not end in time are killed");
        }
    }
}

/// Registers a node and runs the pods that are bound to it.
pub async fn start(client: Client, mut config: NodeConfig) -> Result<RunningNode, NodeError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| NodeError::Io { what, source }
    };
    std::fs::create_dir_all(config.state.join("pods")).map_err(io("the state folder"))?;
    // Containers may not see it, by whatever path.
    config.state = config.state.canonicalize().map_err(io("the state folder"))?;
    sandbox::prepare(&config)?;
    if let Some(cgroup) = &config.cgroup {
        cgroups::prepare(cgroup);
    }
    object::register(&client, &config)
        .await
        .map_err(|source| NodeError::Register {
            name: config.name.clone(),
            source: Box::new(source),
        })?;
    let mut tasks = JoinSet::new();
    let stores = Stores::start(&client, &mut tasks);
    stores.ready().await;
    let outside = match &config.outside {
        Some(outside) => {
            let address = SocketAddr::new(IpAddr::V4(config.gateway()), 0);
            let listener = TcpListener::bind(address)
                .await
                .map_err(io("the way out of the cluster"))?;
            let port = listener.local_addr().map_err(io("the way out of the cluster"))?.port();
            tasks.spawn(leave(listener, Arc::clone(outside)));
            let inside = vec![
                config.pods,
                config.services,
                config.load_balancers,
                config.address.into(),
            ];
            Some(Redirect {
                bridge: config.bridge.clone(),
                inside,
                port,
            })
        }
        None => None,
    };
    tasks.spawn(services::run(
        client.clone(),
        config.clone(),
        Arc::clone(&stores),
        outside,
    ));
    let (names, dns_stores) = (config.clone(), Arc::clone(&stores));
    tasks.spawn(async move {
        if let Err(error) = dns::run(names, dns_stores).await {
            tracing::error!(%error, "no name server for pods");
        }
    });
    tasks.spawn(object::heartbeat(client.clone(), config.clone()));
    let node = Arc::new(Node {
        recorder: Recorder::start(client.clone(), config.name.clone()),
        place: worker::machine(&config),
        client,
        stores,
        registry: Registry::default(),
        addresses: Mutex::default(),
        config,
    });
    let streams = Streams::new(Arc::clone(&node));
    let registry = Arc::clone(&node.registry);
    tasks.spawn(pods(node));
    Ok(RunningNode {
        tasks,
        streams,
        registry,
    })
}

/// Starts a worker for every pod of the node, and tells it of changes.
async fn pods(node: Arc<Node>) {
    let api: Api<Pod> = Api::all(node.client.clone());
    let fields = format!("spec.nodeName={}", node.config.name);
    let events = watcher(api, watcher::Config::default().fields(&fields)).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut known: HashMap<String, watch::Sender<Option<Arc<Pod>>>> = HashMap::new();
    let mut listed: Option<BTreeSet<String>> = None;
    let mut workers = JoinSet::new();
    let mut first = true;
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "watching pods failed, trying again");
                continue;
            }
        };
        while workers.try_join_next().is_some() {}
        match event {
            watcher::Event::Init => listed = Some(BTreeSet::new()),
            watcher::Event::InitDone => {
                let seen = listed.take().unwrap_or_default();
                for (uid, pod) in &known {
                    if !seen.contains(uid) {
                        pod.send_replace(None);
                    }
                }
                known.retain(|uid, _| seen.contains(uid));
                if std::mem::take(&mut first) {
                    remove_left_over(&node.config.state, &seen);
                }
            }
            watcher::Event::Delete(pod) => {
                if let Some(worker) = pod.uid().and_then(|uid| known.remove(&uid)) {
                    worker.send_replace(None);
                }
            }
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                let (uid, pod) = (pod.uid().unwrap_or_default(), Arc::new(pod));
                if let Some(listed) = &mut listed {
                    listed.insert(uid.clone());
                }
                if let Some(worker) = known.get(&uid) {
                    worker.send_replace(Some(pod));
                } else {
                    let (tx, rx) = watch::channel(Some(Arc::clone(&pod)));
                    known.insert(uid, tx);
                    workers.spawn(worker::run(Arc::clone(&node), pod, rx));
                }
            }
        }
    }
}

/// Folders of pods that are no more.
fn remove_left_over(state: &Path, pods: &BTreeSet<String>) {
    for entry in std::fs::read_dir(state.join("pods")).into_iter().flatten().flatten() {
        if !pods.contains(&*entry.file_name().to_string_lossy()) {
            remove_pod_folder(&entry.path());
        }
    }
}

/// Removes a pod's folder, first what is mounted in it.
pub(crate) fn remove_pod_folder(folder: &Path) {
    for entry in std::fs::read_dir(folder.join("volumes"))
        .into_iter()
        .flatten()
        .flatten()
    {
        // Most are no mounts; the kernel says so.
        _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
    }
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, folder = %folder.display(), "folder of a pod not removed");
    }
}

/// Takes connections that go outside and hands them over.
async fn leave(listener: TcpListener, outside: Arc<dyn Outside>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await;
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let outside = Arc::clone(&outside);
        tokio::spawn(async move {
            let Some(to) = original(&stream) else { return };
            match outside.dial(to).await {
                Ok(mut other) => {
                    _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
                }
                // The other side sees a reset, as it would from a host that refuses.
                Err(_) => _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
            }
            drop(permit);
        });
    }
}

fn original(stream: &TcpStream) -> Option<SocketAddr> {
    socket2::SockRef::from(stream).original_dst_v4().ok()?.as_socket()
}
