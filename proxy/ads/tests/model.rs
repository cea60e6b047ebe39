//! The client's session and cache against discovery's own session, with messages held back, links cut and content
//! changing in between: in the end the cache says what discovery has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly; the configured exception does not cover helpers of integration tests"
)]

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3 as cluster_pb;
use envoy_types::pb::envoy::service::discovery::v3 as pb;
use envoy_types::pb::google::protobuf::Duration as PbDuration;
use mizzen_ads::{Answer, Cache, DeltaRequest, DeltaResponse, Link, Received, cache::Limits};
use mizzen_proxy_config::{Kind, Resource as Checked};
use mizzen_xds::wire::{DeltaRequest as Asked, ErrorDetail, Request};
use mizzen_xds::{Dirty, Event, Protocol, Resource, ResourceSet, ResourceType, Session, View};
use proptest::prelude::*;
use prost::Message;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// What discovery has under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Nothing,
    Good(u8),
    /// A resource that the proxy must refuse.
    Bad(u8),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone)]
struct World(BTreeMap<&'static str, Content>);

impl World {
    fn encoded(name: &str, content: Content) -> Resource {
        let seconds = match content {
            Content::Nothing => return Resource::absent(name),
            Content::Good(version) => i64::from(version),
            Content::Bad(version) => -1 - i64::from(version),
        };
        let cluster = cluster_pb::Cluster {
            name: name.to_owned(),
            connect_timeout: Some(PbDuration { seconds, nanos: 0 }),
            ..Default::default()
        };
        Resource::present(ResourceType::Cluster, name, &[], &cluster.encode_to_vec())
    }
}

impl View for World {
    fn resource(&self, kind: ResourceType, name: &str) -> Arc<Resource> {
        let content = self
            .0
            .get(name)
            .copied()
            .filter(|_| kind == ResourceType::Cluster)
            .unwrap_or(Content::Nothing);
        Arc::new(Self::encoded(name, content))
    }

    fn wildcard(&self, kind: ResourceType) -> Arc<ResourceSet> {
        let present = NAMES
            .iter()
            .map(|name| self.resource(kind, name))
            .filter(|resource| resource.is_present());
        Arc::new(present.collect())
    }
}

/// One stream: discovery's session and what is on its way in both directions.
struct Stream {
    server: Session,
    to_server: VecDeque<DeltaRequest>,
    to_client: VecDeque<Bytes>,
}

struct Pair {
    world: World,
    link: Link,
    stream: Option<Stream>,
    now: Instant,
}

impl Pair {
    fn new(idle_sweeps: u8) -> Self {
        let cache = Arc::new(Cache::new(Limits {
            names: 100,
            idle_sweeps,
        }));
        Self {
            world: World(BTreeMap::new()),
            link: Link::new(cache),
            stream: None,
            now: Instant::now(),
        }
    }

    fn connect(&mut self) {
        if self.stream.is_none() {
            let server = Session::new(
                Protocol::Delta,
                Arc::new(self.world.clone()),
                mizzen_xds::Limits::default(),
            );
            let to_server = self.link.connected().into();
            self.stream = Some(Stream {
                server,
                to_server,
                to_client: VecDeque::new(),
            });
        }
    }

    fn cut(&mut self) {
        if self.stream.take().is_some() {
            self.link.disconnected();
        }
    }

    fn send(&mut self, requests: Vec<DeltaRequest>) {
        if let Some(stream) = &mut self.stream {
            stream.to_server.extend(requests);
        } else {
            assert!(requests.is_empty(), "something was sent without a stream");
        }
    }

    fn change(&mut self, name: &'static str, content: Content) {
        self.world.0.insert(name, content);
        if let Some(stream) = &mut self.stream {
            let mut dirty = Dirty::new();
            dirty.mark(ResourceType::Cluster, Arc::from(name));
            dirty.mark_wildcard(ResourceType::Cluster);
            let view: Arc<dyn View> = Arc::new(self.world.clone());
            stream.server.step(
                Event::Changed {
                    view,
                    dirty,
                    since: self.now,
                },
                self.now,
            );
        }
    }

    /// One message arrives at discovery. `false`: there was none.
    fn deliver_up(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let Some(request) = stream.to_server.pop_front() else {
            return false;
        };
        let asked = Asked {
            node: None,
            type_url: request.type_url,
            subscribe: request.subscribe,
            unsubscribe: request.unsubscribe,
            initial_versions: request.held,
            response_nonce: request.nonce,
            error_detail: request.error.map(|message| ErrorDetail { code: 3, message }),
        };
        stream.server.step(Event::Request(Request::Delta(asked)), self.now);
        true
    }

    /// Discovery says one thing. `false`: it had nothing to say.
    fn answer(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        match stream.server.respond() {
            Some(response) => {
                stream.to_client.push_back(response.to_bytes());
                true
            }
            None => false,
        }
    }

    /// One message arrives at the proxy. `false`: there was none.
    fn deliver_down(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let Some(bytes) = stream.to_client.pop_front() else {
            return false;
        };
        let message = pb::DeltaDiscoveryResponse::decode(bytes).unwrap();
        let resources = message
            .resources
            .into_iter()
            .map(|resource| {
                let any = resource.resource.unwrap_or_default();
                Received {
                    name: resource.name,
                    aliases: resource.aliases,
                    version: resource.version,
                    type_url: any.type_url,
                    body: Some(any.value),
                }
            })
            .collect();
        let response = DeltaResponse {
            type_url: message.type_url,
            nonce: message.nonce,
            resources,
            removed: message.removed_resources,
        };
        let (requests, _) = self.link.received(response);
        self.send(requests);
        true
    }

    fn settle(&mut self) {
        self.connect();
        let wishes = self.link.wishes();
        self.send(wishes);
        while self.deliver_up() || self.answer() || self.deliver_down() {}
    }

    fn known(&self, name: &str) -> Option<Content> {
        match self.link.cache().peek(Kind::Cluster, name)? {
            Answer::Absent => Some(Content::Nothing),
            Answer::Present(Checked::Cluster(cluster)) => {
                Some(Content::Good(u8::try_from(cluster.connect_timeout.as_secs()).unwrap()))
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask(usize),
    AskAll,
    TakeWishes,
    Change(usize, Content),
    Up,
    Answer,
    Down,
    Connect,
    Cut,
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // A timeout of zero would mean the default.
    let content = prop_oneof![
        1 => Just(Content::Nothing),
        3 => (1..4_u8).prop_map(Content::Good),
        1 => (0..3_u8).prop_map(Content::Bad),
    ];
    let step = prop_oneof![
        4 => (0..NAMES.len()).prop_map(Step::Ask),
        1 => Just(Step::AskAll),
        4 => Just(Step::TakeWishes),
        4 => ((0..NAMES.len()), content).prop_map(|(name, content)| Step::Change(name, content)),
        6 => Just(Step::Up),
        6 => Just(Step::Answer),
        6 => Just(Step::Down),
        2 => Just(Step::Connect),
        1 => Just(Step::Cut),
        1 => Just(Step::Sweep),
    ];
    proptest::collection::vec(step, 0..60)
}

fn run(steps: Vec<Step>, wildcard: bool) -> Pair {
    let mut pair = Pair::new(1);
    for step in steps {
        match step {
            Step::Ask(name) => {
                pair.link.cache().ask(Kind::Cluster, NAMES[name]);
            }
            Step::AskAll if wildcard => pair.link.cache().want_all(Kind::Cluster),
            Step::AskAll => {}
            Step::TakeWishes => {
                let wishes = pair.link.wishes();
                pair.send(wishes);
            }
            Step::Change(name, content) => pair.change(NAMES[name], content),
            Step::Up => {
                pair.deliver_up();
            }
            Step::Answer => {
                pair.answer();
            }
            Step::Down => {
                pair.deliver_down();
            }
            Step::Connect => pair.connect(),
            Step::Cut => pair.cut(),
            Step::Sweep => {
                pair.link.cache().sweep();
            }
        }
    }
    pair
}

// G1
#[test]
fn a_late_answer_for_a_name_that_was_given_up_does_not_stay() {
    use Step::{Answer, Ask, Change, Connect, Down, Sweep, TakeWishes, Up};
    let (name, good) = (3, Content::Good(1));
    let given_up = vec![
        Connect,
        Ask(name),
        TakeWishes,
        Up,
        Sweep,
        Sweep,
        Change(name, good),
        Answer,
        Down,
    ];
    let mut pair = run(given_up, false);
    pair.change(NAMES[name], Content::Nothing);
    pair.link.cache().ask(Kind::Cluster, NAMES[name]);
    pair.settle();
    assert_eq!(pair.known(NAMES[name]), Some(Content::Nothing));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    // G1
    #[test]
    fn the_cache_ends_with_what_discovery_has(steps in steps()) {
        let mut pair = run(steps, false);
        // Each name is asked for at the end, whatever was forgotten on the way.
        for name in NAMES {
            pair.link.cache().ask(Kind::Cluster, name);
        }
        pair.settle();
        for name in NAMES {
            let known = pair.known(name);
            match pair.world.0.get(name).copied().unwrap_or(Content::Nothing) {
                // What was good before stays; else there is none.
                Content::Bad(_) => prop_assert!(matches!(known, Some(Content::Good(_) | Content::Nothing))),
                content => prop_assert_eq!(known, Some(content), "{}", name),
            }
        }
    }

    #[test]
    fn a_wildcard_ends_with_what_discovery_has(steps in steps()) {
        // Names and a wildcard are not mixed for one kind: gateways want all listeners, sidecars ask by name.
        let steps: Vec<Step> = steps.into_iter().filter(|step| !matches!(step, Step::Ask(_) | Step::Sweep)).collect();
        let mut pair = run(steps, true);
        pair.link.cache().want_all(Kind::Cluster);
        pair.settle();
        for name in NAMES {
            match pair.world.0.get(name).copied().unwrap_or(Content::Nothing) {
                Content::Bad(_) => {}
                Content::Nothing => prop_assert_eq!(pair.known(name), None, "{}", name),
                content => prop_assert_eq!(pair.known(name), Some(content), "{}", name),
            }
        }
    }
}

// G1
#[test]
fn a_refused_update_keeps_the_good_one_through_a_reconnect_until_it_is_mended() {
    let mut pair = Pair::new(3);
    pair.change("a", Content::Good(1));
    pair.link.cache().ask(Kind::Cluster, "a");
    pair.settle();
    pair.change("a", Content::Bad(2));
    pair.settle();
    assert_eq!(pair.known("a"), Some(Content::Good(1)));
    pair.cut();
    pair.settle();
    assert_eq!(pair.known("a"), Some(Content::Good(1)));
    pair.change("a", Content::Good(3));
    pair.settle();
    assert_eq!(pair.known("a"), Some(Content::Good(3)));
}
