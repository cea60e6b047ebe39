//! The service over a real connection, with the generated client as the other side.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering as Atomic},
};

use envoy_types::pb::envoy::{
    config::core::v3::Node as PbNode,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

use super::*;
use crate::{
    mailbox::Dirty,
    resource::{Resource, ResourceSet},
};

/// One cluster "c" with this content.
struct One(String);

impl View for One {
    fn resource(&self, kind: ResourceType, name: &str) -> Arc<Resource> {
        Arc::new(if kind == ResourceType::Cluster && name == "c" {
            Resource::present(kind, name, &[], self.0.as_bytes())
        } else {
            Resource::absent(name)
        })
    }

    fn wildcard(&self, kind: ResourceType) -> Arc<ResourceSet> {
        Arc::new(std::iter::once(self.resource(kind, "c")).collect())
    }
}

/// More than what is sent without a share of the budget.
fn large(content: &str) -> String {
    content.repeat(1 << 20)
}

#[derive(Default)]
struct TestSource {
    mailboxes: Mutex<Vec<Arc<Mailbox>>>,
    open: Arc<AtomicUsize>,
    states: watch::Sender<u64>,
}

struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Atomic::SeqCst);
    }
}

impl Source for TestSource {
    fn gate(&self) -> Arc<RwLock<()>> {
        Arc::default()
    }

    fn states(&self) -> watch::Receiver<u64> {
        self.states.subscribe()
    }

    fn open(&self, _: StreamId, _: &tonic::Extensions, node: &Node, mailbox: &Arc<Mailbox>) -> Result<Opened, Refused> {
        if node.id == "stranger" {
            return Err(Refused::Forbidden("stranger".into()));
        }
        if node.id == "early" && *self.states.borrow() == 0 {
            return Err(Refused::NotReady("early".into()));
        }
        self.mailboxes.lock().push(mailbox.clone());
        self.open.fetch_add(1, Atomic::SeqCst);
        Ok(Opened {
            view: Arc::new(One(if node.id == "large" { large("1") } else { "1".into() })),
            proxy: node.id.clone(),
            guard: Box::new(Guard(self.open.clone())),
        })
    }

    fn accepted(&self, _: StreamId, _: ResourceType, _: &[Arc<Resource>]) {}

    fn rejected(&self, _: StreamId, _: &Nack) {}

    fn recovered(&self, _: StreamId, _: ResourceType, _: &[Arc<str>]) {}
}

async fn serve(settings: Settings) -> (Arc<TestSource>, Ads, SocketAddr) {
    let source = Arc::new(TestSource::default());
    let ads = Ads::new(source.clone(), settings, Metrics::register(&mut Registry::default()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(ads.clone());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (source, ads, address)
}

async fn connect(
    address: SocketAddr,
    node: &str,
) -> (
    mpsc::Sender<DeltaDiscoveryRequest>,
    Result<tonic::Streaming<DeltaDiscoveryResponse>, Status>,
) {
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{address}"))
        .await
        .unwrap();
    let (requests_tx, requests) = mpsc::channel(4);
    let first = DeltaDiscoveryRequest {
        node: Some(PbNode {
            id: node.into(),
            ..Default::default()
        }),
        type_url: ResourceType::Cluster.type_url().into(),
        ..Default::default()
    };
    requests_tx.send(first).await.unwrap();
    let responses = client.delta_aggregated_resources(ReceiverStream::new(requests)).await;
    (requests_tx, responses.map(tonic::Response::into_inner))
}

fn content(response: &DeltaDiscoveryResponse) -> Vec<u8> {
    response.resources[0].resource.as_ref().unwrap().value.clone()
}

#[tokio::test]
async fn change_reaches_the_proxy_and_the_stream_ends_with_its_client() {
    let (source, ads, address) = serve(Settings::default()).await;
    let (requests_tx, responses) = connect(address, "n1").await;
    let mut responses = responses.unwrap();
    let first = responses.message().await.unwrap().unwrap();
    assert_eq!(content(&first), b"1");
    let mut dirty = Dirty::new();
    dirty.mark_wildcard(ResourceType::Cluster);
    let mailbox = source.mailboxes.lock()[0].clone();
    mailbox.publish(Arc::new(One("2".into())), &dirty, Instant::now());
    let second = responses.message().await.unwrap().unwrap();
    assert_eq!(content(&second), b"2");
    let status = ads.status(Instant::now());
    assert_eq!(
        (status.len(), status[0].proxy.as_str(), status[0].types.len()),
        (1, "n1", 1)
    );
    drop((requests_tx, responses));
    while source.open.load(Atomic::SeqCst) > 0 || ads.streams() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn stranger_is_refused_with_the_reason() {
    let (_, _, address) = serve(Settings::default()).await;
    let (_requests_tx, responses) = connect(address, "stranger").await;
    let error = match responses {
        Err(error) => error,
        Ok(mut responses) => responses.message().await.unwrap_err(),
    };
    assert_eq!(
        (error.code(), error.message()),
        (tonic::Code::PermissionDenied, "not allowed: stranger")
    );
}

#[tokio::test]
async fn draining_ends_streams_and_refuses_new_ones() {
    let (_, ads, address) = serve(Settings::default()).await;
    let (_requests_tx, responses) = connect(address, "n1").await;
    let mut responses = responses.unwrap();
    responses.message().await.unwrap().unwrap();
    ads.drain();
    let error = responses.message().await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    let (_requests_tx, responses) = connect(address, "n2").await;
    assert_eq!(responses.unwrap_err().code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused() {
    let (_, _, address) = serve(Settings {
        streams: 1,
        ..Settings::default()
    })
    .await;
    let (_first_tx, responses) = connect(address, "n1").await;
    let mut responses = responses.unwrap();
    responses.message().await.unwrap().unwrap();
    let (_second_tx, responses) = connect(address, "n2").await;
    assert_eq!(responses.unwrap_err().code(), tonic::Code::ResourceExhausted);
}

#[tokio::test]
async fn early_proxy_waits_until_it_is_known() {
    let (source, _, address) = serve(Settings::default()).await;
    let (_requests_tx, responses) = connect(address, "early").await;
    let mut responses = responses.unwrap();
    assert!(source.mailboxes.lock().is_empty());
    source.states.send_replace(1);
    assert_eq!(content(&responses.message().await.unwrap().unwrap()), b"1");
}

// E7
#[tokio::test]
async fn old_stream_ends_and_its_proxy_may_come_again() {
    let (_, _, address) = serve(Settings {
        age: Duration::from_millis(300),
        ..Settings::default()
    })
    .await;
    for _ in 0..2 {
        let (_requests_tx, responses) = connect(address, "n1").await;
        let mut responses = responses.unwrap();
        assert_eq!(content(&responses.message().await.unwrap().unwrap()), b"1");
        let error = responses.message().await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unavailable);
        assert!(error.message().contains("old"), "{error}");
    }
}

#[tokio::test]
async fn large_response_waits_for_its_share_but_not_for_ever() {
    let (_, ads, address) = serve(Settings {
        stuck: Duration::from_millis(200),
        ..Settings::default()
    })
    .await;
    let budget = ads.shared.budget.clone();
    let all = u32::try_from(budget.available_permits()).unwrap();
    let _others = budget.acquire_many_owned(all).await.unwrap();
    let begun = Instant::now();
    let (_requests_tx, responses) = connect(address, "large").await;
    let first = tokio::time::timeout(Duration::from_secs(9), responses.unwrap().message()).await;
    assert_eq!(content(&first.unwrap().unwrap().unwrap()).len(), 1 << 20);
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[test]
fn shares_have_the_deadline_that_they_were_given_with() {
    let budget = Arc::new(Semaphore::new(8));
    let take = |kib| budget.clone().try_acquire_many_owned(kib).unwrap();
    let start = tokio::time::Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut shares = stream::Shares::default();
    let _unread = shares.give(take(5), at(1));
    let read = shares.give(take(2), at(2));
    assert_eq!((shares.deadline(), budget.available_permits()), (Some(at(1)), 1));
    shares.call_back();
    assert_eq!((shares.deadline(), budget.available_permits()), (Some(at(2)), 6));
    *read.lock() = None;
    let _next = shares.give(take(1), at(3));
    assert_eq!((shares.deadline(), budget.available_permits()), (Some(at(3)), 7));
    shares.call_back();
    assert_eq!((shares.deadline(), budget.available_permits()), (None, 8));
}
