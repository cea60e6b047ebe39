//! The cluster in our namespaces: API, controllers and node, wired to each other in this process.

use super::handover::HostNetwork;
use crate::failure::Failure;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use ipnet::Ipv4Net;
use kube::Client;
use mizzen_api::negotiate::Body;
use mizzen_api::user::User;
use mizzen_api::{NodeProxy, PodRequest};
use mizzen_node::{Images, NodeConfig, RunningNode, Streams};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The node's address. All of these are seen in our own network namespace only; pods reach what the machine has at other addresses.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 199, 0, 1);
const NODE_NAME: &str = "mizzen";
const PODS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);
const SERVICES: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 16);
const LOAD_BALANCERS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 97, 0, 0), 24);
/// Where pods reach the API, behind its Service.
const API_PORT: u16 = 6443;
/// Kubernetes' version of the API.
const VERSION: &str = "v1.33.0";
/// How long pods get to end when everything stops.
const GRACE: Duration = Duration::from_secs(5);

/// A cluster that runs.
pub(super) struct Inside {
    api: mizzen_api::Api,
    config: Option<NodeConfig>,
    node: Option<RunningNode>,
    streams: Arc<OnceLock<Streams>>,
    shutdown: CancellationToken,
    pub(super) client: Client,
    pub(super) tasks: JoinSet<()>,
}

impl Inside {
    /// Opens the API on what is in the state folder and serves it.
    pub(super) async fn start(
        state: &Path,
        listener: TcpListener,
        images: Images,
        host: HostNetwork,
    ) -> Result<Self, Failure> {
        let services = range(SERVICES)?;
        let streams = Arc::new(OnceLock::new());
        let folder = state.join("cluster");
        let options = mizzen_api::Options {
            state: Some(folder.clone()),
            service_range: services,
            advertise: Some(SocketAddr::from((NODE, API_PORT))),
            nodes: Some(Arc::new(Pods(Arc::clone(&streams)))),
            ..mizzen_api::Options::default()
        };
        let api = mizzen_api::Api::open(options).await.map_err(|error| {
            let what = format!("the state in {} cannot be used", folder.display());
            Failure::new(
                what,
                causes(&error),
                "start with --fresh, which forgets all objects, or mend what is named",
            )
        })?;
        let inner = TcpListener::bind((Ipv4Addr::UNSPECIFIED, API_PORT))
            .await
            .map_err(|error| {
                Failure::new(
                    "the API cannot be served to pods",
                    error.to_string(),
                    "report it as a bug",
                )
            })?;
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for listener in [listener, inner] {
            let (api, shutdown) = (api.clone(), shutdown.clone());
            tasks.spawn(async move {
                if let Err(error) = api.serve(listener, shutdown.cancelled_owned()).await {
                    tracing::error!(%error, "the API is not served");
                }
            });
        }
        let config = NodeConfig {
            name: NODE_NAME.to_owned(),
            version: VERSION.to_owned(),
            address: NODE,
            pods: range(PODS)?,
            services,
            load_balancers: range(LOAD_BALANCERS)?,
            domain: "cluster.local".to_owned(),
            bridge: "pods0".to_owned(),
            state: state.join("node"),
            helper: vec![super::images::own_program()?.into(), "container".into()],
            images,
            cgroup: None,
            kubelet_port: 0,
            outside: Some(Arc::new(host)),
        };
        let client = Client::new(api.service(User::admin()), "default");
        Ok(Self {
            api,
            config: Some(config),
            node: None,
            streams,
            shutdown,
            client,
            tasks,
        })
    }

    /// A kubeconfig of its administrator.
    pub(super) fn kubeconfig(&self, name: &str, server: &str) -> Result<String, Failure> {
        self.api.kubeconfig(name, server).map_err(|error| {
            Failure::new(
                "no kubeconfig can be made",
                causes(&error),
                "start with --fresh, which makes new keys",
            )
        })
    }

    /// Starts what makes objects happen: controllers and the node.
    pub(super) async fn run_pods(&mut self) -> Result<(), Failure> {
        let Some(config) = self.config.take() else {
            return Ok(());
        };
        let client = |name: &str| Client::new(self.api.service(User::system(name)), "default");
        let options = mizzen_controllers::Options {
            root_ca: self.api.ca().to_owned(),
            schedule: true,
        };
        let controllers = client("system:kube-controller-manager");
        self.tasks
            .spawn(mizzen_controllers::run(controllers, options, self.shutdown.clone()));
        let node = mizzen_node::start(client(&format!("system:node:{NODE_NAME}")), config).await;
        let node = node.map_err(|error| {
            let remedy = "run it where namespaces may be made; in a container that takes --privileged";
            Failure::new("the node does not start", causes(&error), remedy)
        })?;
        // The only one that sets it.
        let _ = self.streams.set(node.streams());
        self.node = Some(node);
        Ok(())
    }

    /// Waits until something that should run has ended.
    pub(super) async fn broken(&mut self) -> &'static str {
        match &mut self.node {
            Some(node) => node.failed().await,
            None => std::future::pending().await,
        }
        "the node has ended"
    }

    /// Ends in order: pods get their time, objects stay as they are.
    pub(super) async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(node) = self.node.take() {
            node.stop(GRACE).await;
        }
        self.tasks.shutdown().await;
    }
}

/// Logs, exec and port-forward, once there is a node.
struct Pods(Arc<OnceLock<Streams>>);

impl NodeProxy for Pods {
    fn serve(&self, pod: PodRequest, request: Request<Body>) -> BoxFuture<'static, Response<Body>> {
        let streams = self.0.get().cloned();
        Box::pin(async move {
            if let Some(streams) = streams {
                let answer = streams
                    .serve(&pod.namespace, &pod.name, &pod.subresource, request)
                    .await;
                return answer.map(|body| body.map_err(|never| match never {}).boxed_unsync());
            }
            let body = Full::from("the node does not run yet").map_err(|never| match never {});
            let mut response = Response::new(body.boxed_unsync());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        })
    }
}

fn range((address, length): (Ipv4Addr, u8)) -> Result<Ipv4Net, Failure> {
    Ipv4Net::new(address, length)
        .map_err(|error| Failure::new("an address range is wrong", error.to_string(), "report it as a bug"))
}

/// An error with all that it says came before it, each once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}
