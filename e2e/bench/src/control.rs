//! A control plane for one sidecar: answers what is asked by name, signs what is asked, and keeps every complaint.

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, Result, bail};
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use parking_lot::Mutex;
use rcgen::SanType;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use discovery::aggregated_discovery_service_server as ads;
use discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};

use crate::authority::Authority;
use crate::net;
use crate::place::{CONTROL, Side};
use crate::world::World;

/// Serves until dropped with its runtime.
#[derive(Debug)]
pub(crate) struct Control {
    refused: Refused,
}

type Refused = Arc<Mutex<Vec<String>>>;

impl Control {
    /// Listens inside the side's namespace.
    pub(crate) fn start(runtime: &Runtime, side: Side, authority: Arc<Authority>) -> Result<Self> {
        let listener = net::inside(side.space(), || {
            let listener = TcpListener::bind(CONTROL).context(CONTROL)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        let own = authority.issue(vec![
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::DnsName("localhost".try_into()?),
        ])?;
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(own.certificate, own.key));
        let refused = Refused::default();
        let resources = Resources {
            world: Arc::new(World::of(side)),
            refused: refused.clone(),
        };
        let certificates = Certificates { authority, side };
        let router = Server::builder()
            .tls_config(tls)?
            .add_service(ads::AggregatedDiscoveryServiceServer::new(resources))
            .add_service(certificates);
        let _runs_on = runtime.enter();
        let connections = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
        runtime.spawn(async move {
            if let Err(error) = router.serve_with_incoming(connections).await {
                eprintln!("control plane: {error}");
            }
        });
        Ok(Self { refused })
    }

    /// Fails if the sidecar refused anything that it was sent: then something else would be measured than is meant.
    pub(crate) fn check(&self) -> Result<()> {
        match self.refused.lock().as_slice() {
            [] => Ok(()),
            refused => bail!("the sidecar refused its configuration: {}", refused.join("; ")),
        }
    }
}

#[derive(Debug)]
struct Resources {
    world: Arc<World>,
    refused: Refused,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ads::AggregatedDiscoveryService for Resources {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("only delta is served"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let mut requests = request.into_inner();
        let (world, refused) = (self.world.clone(), self.refused.clone());
        let (answer_tx, answer_rx) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut nonce = 0_u64;
            while let Some(Ok(request)) = requests.next().await {
                if let Some(error) = request.error_detail {
                    refused.lock().push(error.message);
                }
                if request.resource_names_subscribe.is_empty() {
                    continue;
                }
                nonce += 1;
                let answer = answer(&world, &request.type_url, &request.resource_names_subscribe, nonce);
                if answer_tx.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answer_rx))))
    }
}

fn answer(world: &World, type_url: &str, asked: &[String], nonce: u64) -> DeltaDiscoveryResponse {
    let mut answer = DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: nonce.to_string(),
        ..Default::default()
    };
    for name in asked {
        match world.find(type_url, name) {
            Some(found) => answer.resources.push(discovery::Resource {
                name: name.clone(),
                version: "1".to_owned(),
                resource: Some(found.clone()),
                ..Default::default()
            }),
            None => answer.removed_resources.push(name.clone()),
        }
    }
    answer
}

#[derive(Clone, PartialEq, prost::Message)]
struct CertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// `istio.v1.auth.IstioCertificateService`. Believes everybody to be the one side that can reach it.
#[derive(Debug, Clone)]
struct Certificates {
    authority: Arc<Authority>,
    side: Side,
}

impl NamedService for Certificates {
    const NAME: &'static str = "istio.v1.auth.IstioCertificateService";
}

impl UnaryService<CertificateRequest> for Certificates {
    type Response = CertificateResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let signed = self.authority.sign(&request.into_inner().csr, &self.side.identity());
        let answer = signed
            .map(|leaf| CertificateResponse {
                cert_chain: vec![leaf, self.authority.root().to_owned()],
            })
            .map(Response::new)
            .map_err(|error| Status::invalid_argument(format!("{error:#}")));
        Box::pin(async { answer })
    }
}

impl<B> Service<http::Request<B>> for Certificates
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        // The service has one method.
        let service = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(service, request).await) })
    }
}
