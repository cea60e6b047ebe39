//! The session against a proxy that keeps what it applied: single behaviours, then random histories with lost connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::{
    resource::{Resource, ResourceSet},
    wire::ErrorDetail,
};

/// All resources at one moment: (kind, name) to content.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct World(BTreeMap<(ResourceType, String), Arc<Resource>>);

impl World {
    fn put(&mut self, kind: ResourceType, name: &str, body: &str) {
        let resource = Resource::present(kind, name, &[], body.as_bytes());
        self.0.insert((kind, name.to_owned()), Arc::new(resource));
    }

    fn take(&mut self, kind: ResourceType, name: &str) {
        self.0.remove(&(kind, name.to_owned()));
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(self.clone())
    }
}

impl View for World {
    fn resource(&self, kind: ResourceType, name: &str) -> Arc<Resource> {
        self.0
            .get(&(kind, name.to_owned()))
            .cloned()
            .unwrap_or_else(|| Arc::new(Resource::absent(name)))
    }

    fn wildcard(&self, kind: ResourceType) -> Arc<ResourceSet> {
        Arc::new(
            self.0
                .iter()
                .filter(|((k, _), _)| *k == kind)
                .map(|(_, r)| r.clone())
                .collect(),
        )
    }
}

fn mark(dirty: &mut Dirty, kind: ResourceType, name: &str) {
    dirty.mark(kind, Arc::from(name));
    dirty.mark_wildcard(kind);
}

fn text(resource: &Resource) -> String {
    String::from_utf8(resource.body().to_vec()).unwrap()
}

/// What a response says, readable: `cds +a=1 -b`.
fn told(response: &Response) -> String {
    let kind = match response.type_url() {
        TypeUrl::Known(kind) => kind.short(),
        TypeUrl::Unknown(_) => "unknown",
    };
    let mut out = kind.to_owned();
    for resource in response.resources() {
        out += &format!(" +{}={}", resource.name(), text(resource));
    }
    for name in response.removed() {
        out += &format!(" -{name}");
    }
    out
}

fn drain(session: &mut Session) -> Vec<String> {
    std::iter::from_fn(|| session.respond())
        .map(|response| told(&response))
        .collect()
}

fn delta(kind: ResourceType, subscribe: &[&str]) -> DeltaRequest {
    DeltaRequest {
        type_url: kind.type_url().into(),
        subscribe: subscribe.iter().map(|s| (*s).to_owned()).collect(),
        ..Default::default()
    }
}

fn ask(session: &mut Session, request: DeltaRequest) -> Vec<Action> {
    session.step(Event::Request(Request::Delta(request)), Instant::now())
}

fn change(session: &mut Session, world: &World, marks: &[(ResourceType, &str)]) {
    let mut dirty = Dirty::new();
    for (kind, name) in marks {
        mark(&mut dirty, *kind, name);
    }
    session.step(
        Event::Changed {
            view: world.view(),
            dirty,
            since: Instant::now(),
        },
        Instant::now(),
    );
}

use ResourceType::{Cluster, Endpoint, Listener, Route, VirtualHost};

// J1
#[test]
fn name_that_never_existed_is_answered_as_removed_and_pushed_when_it_appears() {
    let mut world = World::default();
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    ask(&mut session, delta(VirtualHost, &["9080/reviews"]));
    assert_eq!(drain(&mut session), ["vhds -9080/reviews"]);
    world.put(VirtualHost, "9080/reviews", "v1");
    change(&mut session, &world, &[(VirtualHost, "9080/reviews")]);
    assert_eq!(drain(&mut session), ["vhds +9080/reviews=v1"]);
}

#[test]
fn only_what_differs_is_sent_again() {
    let mut world = World::default();
    world.put(Endpoint, "a", "1");
    world.put(Endpoint, "b", "1");
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    ask(&mut session, delta(Endpoint, &["a", "b"]));
    assert_eq!(drain(&mut session), ["eds +a=1 +b=1"]);
    world.put(Endpoint, "b", "2");
    change(
        &mut session,
        &world,
        &[(Endpoint, "a"), (Endpoint, "b"), (Endpoint, "c")],
    );
    assert_eq!(drain(&mut session), ["eds +b=2"]);
    assert!(!session.has_work());
}

#[test]
fn change_makes_before_it_breaks() {
    let mut world = World::default();
    for (kind, name) in [(Cluster, "old"), (Endpoint, "old"), (Listener, "l"), (Route, "r")] {
        world.put(kind, name, "1");
    }
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    ask(&mut session, delta(Cluster, &[]));
    ask(&mut session, delta(Listener, &[]));
    ask(&mut session, delta(Endpoint, &["old"]));
    ask(&mut session, delta(Route, &["r"]));
    drain(&mut session);
    world.take(Cluster, "old");
    world.take(Endpoint, "old");
    world.take(Listener, "l");
    world.put(Cluster, "new", "1");
    world.put(Listener, "m", "1");
    world.put(Route, "r", "2");
    let marks = [
        (Cluster, "old"),
        (Cluster, "new"),
        (Endpoint, "old"),
        (Listener, "l"),
        (Listener, "m"),
        (Route, "r"),
    ];
    change(&mut session, &world, &marks);
    assert_eq!(
        drain(&mut session),
        ["cds +new=1", "lds +m=1", "rds +r=2", "lds -l", "cds -old", "eds -old"]
    );
}

#[test]
fn rejection_is_reported_and_takes_nothing_away() {
    let mut world = World::default();
    world.put(Cluster, "outbound|80||a", "good");
    world.put(Cluster, "outbound|80||ab", "good");
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    ask(&mut session, delta(Cluster, &[]));
    let first = session.respond().unwrap();
    ask(
        &mut session,
        DeltaRequest {
            response_nonce: first.nonce().to_string(),
            ..delta(Cluster, &[])
        },
    );
    world.put(Cluster, "outbound|80||a", "bad");
    world.put(Cluster, "outbound|80||ab", "fine");
    change(&mut session, &world, &[(Cluster, "outbound|80||a")]);
    let second = session.respond().unwrap();
    let error = ErrorDetail {
        code: 3,
        message: "Error adding/updating cluster(s) outbound|80||a: no such thing".into(),
    };
    let actions = ask(
        &mut session,
        DeltaRequest {
            response_nonce: second.nonce().to_string(),
            error_detail: Some(error.clone()),
            ..delta(Cluster, &[])
        },
    );
    let expected = Nack {
        kind: Cluster,
        nonce: second.nonce(),
        resources: vec![world.resource(Cluster, "outbound|80||a")],
        message: error.message,
    };
    assert_eq!(actions, [Action::Rejected(expected)]);
    assert_eq!(session.status()[0].state, SyncState::Rejected);
    change(&mut session, &world, &[(Cluster, "outbound|80||a")]);
    assert_eq!(drain(&mut session), Vec::<String>::new());

    world.put(Cluster, "outbound|80||a", "repaired");
    change(&mut session, &world, &[(Cluster, "outbound|80||a")]);
    let third = session.respond().unwrap();
    let actions = ask(
        &mut session,
        DeltaRequest {
            response_nonce: third.nonce().to_string(),
            ..delta(Cluster, &[])
        },
    );
    let Action::Acknowledged { recovered, .. } = &actions[0] else {
        panic!("{actions:?}")
    };
    assert_eq!(recovered, &[Arc::from("outbound|80||a")]);
    assert_eq!(session.status()[0].state, SyncState::Synced);
}

// G1
#[test]
fn what_was_beside_something_rejected_is_sent_again_without_it() {
    let mut world = World::default();
    for name in ["a", "b", "c", "d", "e"] {
        world.put(Route, name, if name == "d" { "bad" } else { "good" });
    }
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    ask(&mut session, delta(Route, &["a", "b", "c", "d", "e"]));
    let mut sent = Vec::new();
    let mut at_fault = Vec::new();
    while let Some(response) = session.respond() {
        sent.push(told(&response));
        let bad = response.resources().iter().any(|resource| text(resource) == "bad");
        let error = ErrorDetail {
            code: 13,
            message: "something in it is wrong".into(),
        };
        let answer = DeltaRequest {
            response_nonce: response.nonce().to_string(),
            error_detail: bad.then_some(error),
            ..delta(Route, &[])
        };
        for action in ask(&mut session, answer) {
            if let Action::Rejected(nack) = action {
                at_fault.extend(nack.resources.iter().map(|resource| resource.name().to_string()));
            }
        }
    }
    assert_eq!(
        sent,
        [
            "rds +a=good +b=good +c=good +d=bad +e=good",
            "rds +a=good +b=good",
            "rds +c=good +d=bad +e=good",
            "rds +c=good",
            "rds +d=bad +e=good",
            "rds +d=bad",
            "rds +e=good",
        ]
    );
    assert_eq!(at_fault, ["d"]);
    assert_eq!(session.status()[0].rejected.len(), 1);
}

// G1
#[test]
fn what_a_proxy_brings_along_is_known_to_be_accepted() {
    let mut world = World::default();
    world.put(Route, "same", "1");
    world.put(Route, "changed", "2");
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    let has = |body: &str| Version::of(body.as_bytes()).to_string();
    let request = DeltaRequest {
        initial_versions: [("same".to_owned(), has("1")), ("changed".to_owned(), has("1"))].into(),
        ..delta(Route, &["same", "changed"])
    };
    ask(&mut session, request);
    assert_eq!(drain(&mut session), ["rds +changed=2"]);
    let confirmed = session.take_confirmed();
    assert_eq!(confirmed, [(Route, vec![world.resource(Route, "same")])]);
    assert!(session.take_confirmed().is_empty());
}

// G2
#[test]
fn only_what_a_stream_subscribed_to_concerns_it() {
    let mut world = World::default();
    world.put(Endpoint, "a", "1");
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    ask(&mut session, delta(Cluster, &[]));
    ask(&mut session, delta(Endpoint, &["a", "none"]));
    drain(&mut session);
    let concerned = |mark: &dyn Fn(&mut Dirty)| {
        let mut dirty = Dirty::new();
        mark(&mut dirty);
        session.is_concerned(&dirty)
    };
    assert!(concerned(&|dirty| dirty.mark(Endpoint, Arc::from("a"))));
    assert!(concerned(&|dirty| dirty.mark(Endpoint, Arc::from("none"))));
    assert!(concerned(&|dirty| dirty.mark_all_names(Endpoint)));
    assert!(concerned(&|dirty| dirty.mark_wildcard(Cluster)));
    assert!(!concerned(&|dirty| dirty.mark(Endpoint, Arc::from("b"))));
    assert!(!concerned(&|dirty| dirty.mark(Route, Arc::from("a"))));
    assert!(!concerned(&|dirty| dirty.mark_wildcard(Listener)));
    assert!(!concerned(&|_| {}));
}

#[test]
fn reconnected_proxy_gets_the_difference_only() {
    let mut world = World::default();
    for name in ["same", "changed", "new"] {
        world.put(Cluster, name, name);
        world.put(Endpoint, name, name);
    }
    let version = |body: &str| Version::of(body.as_bytes()).to_string();
    let has: BTreeMap<_, _> = [
        ("same".to_owned(), version("same")),
        ("changed".to_owned(), version("older")),
        ("gone".to_owned(), version("x")),
    ]
    .into();
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    ask(
        &mut session,
        DeltaRequest {
            initial_versions: has.clone(),
            ..delta(Cluster, &[])
        },
    );
    let names = ["same", "changed", "gone"];
    ask(
        &mut session,
        DeltaRequest {
            initial_versions: has,
            ..delta(Endpoint, &names)
        },
    );
    assert_eq!(
        drain(&mut session),
        [
            "cds +changed=changed +new=new",
            "eds +changed=changed -gone",
            "cds -gone"
        ]
        .map(str::to_owned)
    );
}

#[test]
fn changed_cluster_gets_its_endpoints_again() {
    let mut world = World::default();
    world.put(Cluster, "c", "1");
    world.put(Endpoint, "c", "e");
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    ask(&mut session, delta(Cluster, &["*"]));
    ask(&mut session, delta(Endpoint, &["c"]));
    drain(&mut session);
    world.put(Cluster, "c", "2");
    change(&mut session, &world, &[(Cluster, "c")]);
    assert_eq!(drain(&mut session), ["cds +c=2", "eds +c=e"]);
}

#[test]
fn name_asked_again_is_answered_again() {
    let mut world = World::default();
    world.put(Endpoint, "a", "1");
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    for _ in 0..2 {
        ask(&mut session, delta(Endpoint, &["a"]));
        assert_eq!(drain(&mut session), ["eds +a=1"]);
    }
}

#[test]
fn wildcard_without_resources_is_answered() {
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let mut session = Session::new(protocol, World::default().view(), Limits::default());
        let request = match protocol {
            Protocol::Delta => Request::Delta(delta(Cluster, &[])),
            Protocol::StateOfTheWorld => Request::State(StateRequest {
                type_url: Cluster.type_url().into(),
                ..Default::default()
            }),
        };
        session.step(Event::Request(request), Instant::now());
        assert_eq!(drain(&mut session), ["cds"]);
    }
}

#[test]
fn unknown_type_is_answered_as_absent() {
    let mut session = Session::new(Protocol::Delta, World::default().view(), Limits::default());
    let request = DeltaRequest {
        type_url: "type.googleapis.com/none".into(),
        subscribe: vec!["x".into()],
        ..Default::default()
    };
    ask(&mut session, request);
    assert_eq!(drain(&mut session), ["unknown -x"]);
}

#[test]
fn limits_end_the_stream() {
    let limits = Limits {
        subscriptions: 2,
        name_length: 8,
        ..Limits::default()
    };
    let mut session = Session::new(Protocol::Delta, World::default().view(), limits);
    assert_eq!(
        ask(&mut session, delta(Route, &["a", "b", "c"])),
        [Action::Refuse(Refusal::TooManySubscriptions { limit: 2 })]
    );
    let mut session = Session::new(Protocol::Delta, World::default().view(), limits);
    assert_eq!(
        ask(&mut session, delta(Route, &["123456789"])),
        [Action::Refuse(Refusal::NameTooLong {
            kind: "rds",
            length: 9,
            limit: 8
        })]
    );
    let state = StateRequest {
        type_url: Route.type_url().into(),
        ..Default::default()
    };
    assert_eq!(
        session.step(Event::Request(Request::State(state)), Instant::now()),
        [Action::Refuse(Refusal::WrongProtocol)]
    );
}

#[test]
fn large_answer_goes_in_pieces_and_a_silent_proxy_gets_no_more() {
    let mut world = World::default();
    for n in 0..100 {
        world.put(Cluster, &format!("c{n:03}"), &"x".repeat(100));
    }
    let limits = Limits {
        response_length: 2_000,
        unacknowledged: 2,
        ..Limits::default()
    };
    let mut session = Session::new(Protocol::Delta, world.view(), limits);
    ask(&mut session, delta(Cluster, &[]));
    let responses: Vec<_> = std::iter::from_fn(|| session.respond()).collect();
    assert!(responses.len() > 5 && responses.iter().all(|r| r.encoded_length() < 2_400));
    assert_eq!(responses.iter().map(|r| r.resources().len()).sum::<usize>(), 100);
    world.put(Cluster, "c001", "2");
    change(&mut session, &world, &[(Cluster, "c001")]);
    assert!(session.respond().is_none() && !session.has_work());
    for response in &responses {
        ask(
            &mut session,
            DeltaRequest {
                response_nonce: response.nonce().to_string(),
                ..delta(Cluster, &[])
            },
        );
    }
    assert_eq!(drain(&mut session), ["cds +c001=2"]);
}

#[test]
fn response_is_what_envoy_decodes() {
    use envoy_types::pb::envoy::service::discovery::v3 as pb;
    use prost::Message as _;
    let mut world = World::default();
    world.put(Cluster, "a", "1");
    let mut session = Session::new(Protocol::Delta, world.view(), Limits::default());
    ask(&mut session, delta(Cluster, &["a", "b"]));
    let response = session.respond().unwrap();
    let decoded = pb::DeltaDiscoveryResponse::decode(response.to_bytes()).unwrap();
    assert_eq!(response.to_bytes().len(), response.encoded_length());
    assert_eq!(decoded.type_url, Cluster.type_url());
    assert_eq!(
        (decoded.nonce.as_str(), decoded.removed_resources),
        ("1", vec!["b".to_owned()])
    );
    assert_eq!(decoded.resources[0].name, "a");
    assert_eq!(decoded.resources[0].resource.as_ref().unwrap().value, b"1");

    let mut session = Session::new(Protocol::StateOfTheWorld, world.view(), Limits::default());
    let request = StateRequest {
        type_url: Cluster.type_url().into(),
        ..Default::default()
    };
    session.step(Event::Request(Request::State(request)), Instant::now());
    let response = session.respond().unwrap();
    let decoded = pb::DiscoveryResponse::decode(response.to_bytes()).unwrap();
    assert_eq!(response.to_bytes().len(), response.encoded_length());
    assert_eq!(
        (decoded.type_url.as_str(), decoded.nonce.as_str()),
        (Cluster.type_url(), "1")
    );
    assert_eq!(decoded.version_info.len(), 16);
    assert_eq!(decoded.resources[0].value, b"1");
}

/// A proxy: applies what it gets in order, keeps what it has when it rejects, and comes back with it after a lost connection.
struct Proxy {
    protocol: Protocol,
    /// Subscribed names per kind; `*` among them is the wildcard.
    wants: BTreeMap<ResourceType, BTreeSet<String>>,
    has: BTreeMap<(ResourceType, String), (Version, String)>,
    absent: BTreeSet<(ResourceType, String)>,
    last: BTreeMap<ResourceType, (String, String)>,
    to_server: VecDeque<Request>,
    to_proxy: VecDeque<Response>,
}

impl Proxy {
    fn connect(&mut self) {
        self.to_server.clear();
        self.to_proxy.clear();
        self.last.clear();
        for (kind, names) in self.wants.clone() {
            match self.protocol {
                // Without a name it would ask for everything.
                Protocol::Delta if names.is_empty() => {}
                Protocol::Delta => {
                    let versions = self
                        .has
                        .iter()
                        .filter(|((k, _), _)| *k == kind)
                        .map(|((_, name), (version, _))| (name.clone(), version.to_string()))
                        .collect();
                    let subscribe = names.into_iter().collect();
                    self.to_server.push_back(Request::Delta(DeltaRequest {
                        type_url: kind.type_url().into(),
                        subscribe,
                        initial_versions: versions,
                        ..Default::default()
                    }));
                }
                Protocol::StateOfTheWorld => self.say_state(kind, None),
            }
        }
    }

    fn say_state(&mut self, kind: ResourceType, error: Option<ErrorDetail>) {
        let (version_info, response_nonce) = self.last.get(&kind).cloned().unwrap_or_default();
        let names = self.wants.get(&kind).cloned().unwrap_or_default();
        self.to_server.push_back(Request::State(StateRequest {
            type_url: kind.type_url().into(),
            resource_names: names.into_iter().collect(),
            version_info,
            response_nonce,
            error_detail: error,
            ..Default::default()
        }));
    }

    fn want(&mut self, kind: ResourceType, name: &str, wanted: bool) {
        let names = self.wants.entry(kind).or_default();
        if wanted == names.contains(name) || (self.protocol == Protocol::StateOfTheWorld && name == "*") {
            return;
        }
        if wanted {
            names.insert(name.to_owned())
        } else {
            names.remove(name)
        };
        let still: BTreeSet<_> = names.clone();
        let keep = |n: &str| still.contains(n) || still.contains("*");
        self.has.retain(|(k, n), _| *k != kind || keep(n));
        self.absent.retain(|(k, n)| *k != kind || still.contains(n));
        match self.protocol {
            Protocol::StateOfTheWorld => self.say_state(kind, None),
            Protocol::Delta => {
                let list = vec![name.to_owned()];
                let mut request = delta(kind, &[]);
                if wanted {
                    request.subscribe = list;
                } else {
                    request.unsubscribe = list;
                }
                self.to_server.push_back(Request::Delta(request));
            }
        }
    }

    /// Applies a response but for content that begins with "bad", which it rejects and tells, as Envoy does.
    fn apply(&mut self, response: &Response) {
        let TypeUrl::Known(kind) = *response.type_url() else {
            return;
        };
        let bad: Vec<_> = response
            .resources()
            .iter()
            .filter(|r| text(r).starts_with("bad"))
            .map(|r| r.name().to_string())
            .collect();
        // Some proxies take what is good beside what is not and name all of that, some take nothing and name the first, or none.
        let style = match self.protocol {
            Protocol::Delta => response.resources().len() % 3,
            Protocol::StateOfTheWorld => 0,
        };
        let message = match (style, bad.first()) {
            (_, None) => None,
            (0, _) => Some(format!("Error adding/updating thing(s) {}: bad", bad.join(": bad, "))),
            (1, Some(first)) => Some(format!("cannot use {first}: bad")),
            _ => Some("cannot use that".to_owned()),
        };
        let error = message.map(|message| ErrorDetail { code: 3, message });
        if error.is_none() || style == 0 {
            let wants = self.wants.get(&kind).cloned().unwrap_or_default();
            let wanted = |name: &str| wants.contains(name) || wants.contains("*");
            if self.protocol == Protocol::StateOfTheWorld && matches!(kind, Cluster | Listener) {
                self.has.retain(|(k, _), _| *k != kind);
            }
            for resource in response
                .resources()
                .iter()
                .filter(|r| wanted(r.name()) && !text(r).starts_with("bad"))
            {
                let key = (kind, resource.name().to_string());
                self.absent.remove(&key);
                self.has.insert(key, (resource.version(), text(resource)));
            }
            for name in response.removed() {
                let key = (kind, name.to_string());
                self.has.remove(&key);
                if wants.contains(&**name) {
                    self.absent.insert(key);
                }
            }
        }
        match self.protocol {
            Protocol::Delta => {
                let nonce = response.nonce().to_string();
                let request = DeltaRequest {
                    response_nonce: nonce,
                    error_detail: error,
                    ..delta(kind, &[])
                };
                self.to_server.push_back(Request::Delta(request));
            }
            Protocol::StateOfTheWorld => {
                let version = self
                    .last
                    .get(&kind)
                    .map(|(version, _)| version.clone())
                    .unwrap_or_default();
                let version = if error.is_none() {
                    response.version_info.clone()
                } else {
                    version
                };
                self.last.insert(kind, (version, response.nonce().to_string()));
                self.say_state(kind, error);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Move {
    Put(ResourceType, u8, u8),
    Bad(ResourceType, u8),
    Take(ResourceType, u8),
    Want(ResourceType, u8, bool),
    WantAll(ResourceType, bool),
    ServerReads,
    ProxyReads,
    ServerSends,
    Disconnect,
}

fn kinds() -> impl Strategy<Value = ResourceType> {
    prop::sample::select(vec![Cluster, Endpoint, Listener, Route])
}

fn moves(bad: bool) -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (kinds(), 0..4u8, 0..3u8).prop_map(|(k, n, b)| Move::Put(k, n, b)),
        (if bad { 1 } else { 0 }) => (kinds(), 0..4u8).prop_map(|(k, n)| Move::Bad(k, n)),
        2 => (kinds(), 0..4u8).prop_map(|(k, n)| Move::Take(k, n)),
        3 => (kinds(), 0..4u8, any::<bool>()).prop_map(|(k, n, w)| Move::Want(k, n, w)),
        1 => (kinds(), any::<bool>()).prop_map(|(k, w)| Move::WantAll(k, w)),
        6 => Just(Move::ServerReads),
        6 => Just(Move::ProxyReads),
        6 => Just(Move::ServerSends),
        1 => Just(Move::Disconnect),
    ];
    prop::collection::vec(one, 1..80)
}

struct Play {
    world: World,
    session: Session,
    proxy: Proxy,
    limits: Limits,
    rejected: usize,
}

impl Play {
    fn new(protocol: Protocol) -> Self {
        let limits = Limits {
            response_length: 120,
            unacknowledged: 2,
            ..Limits::default()
        };
        let world = World::default();
        let session = Session::new(protocol, world.view(), limits);
        let mut wants = BTreeMap::new();
        if protocol == Protocol::StateOfTheWorld {
            wants.insert(Cluster, BTreeSet::from(["*".to_owned()]));
            wants.insert(Listener, BTreeSet::from(["*".to_owned()]));
        }
        let mut proxy = Proxy {
            protocol,
            wants,
            has: BTreeMap::new(),
            absent: BTreeSet::new(),
            last: BTreeMap::new(),
            to_server: VecDeque::new(),
            to_proxy: VecDeque::new(),
        };
        proxy.connect();
        Self {
            world,
            session,
            proxy,
            limits,
            rejected: 0,
        }
    }

    fn publish(&mut self, kind: ResourceType, name: &str) {
        change(&mut self.session, &self.world, &[(kind, name)]);
    }

    fn step(&mut self, next: Move) {
        match next {
            Move::Put(kind, n, body) => {
                self.world.put(kind, &format!("n{n}"), &format!("{body}"));
                self.publish(kind, &format!("n{n}"));
            }
            Move::Bad(kind, n) => {
                self.world.put(kind, &format!("n{n}"), "bad");
                self.publish(kind, &format!("n{n}"));
            }
            Move::Take(kind, n) => {
                self.world.take(kind, &format!("n{n}"));
                self.publish(kind, &format!("n{n}"));
            }
            Move::Want(kind, n, wanted) => self.proxy.want(kind, &format!("n{n}"), wanted),
            Move::WantAll(kind, wanted) => self.proxy.want(kind, "*", wanted),
            Move::ServerReads => {
                if let Some(request) = self.proxy.to_server.pop_front() {
                    let actions = self.session.step(Event::Request(request), Instant::now());
                    self.rejected += actions.iter().filter(|a| matches!(a, Action::Rejected(_))).count();
                    assert!(!actions.iter().any(|a| matches!(a, Action::Refuse(_))), "{actions:?}");
                }
            }
            Move::ServerSends => {
                if let Some(response) = self.session.respond() {
                    self.proxy.to_proxy.push_back(response);
                }
            }
            Move::ProxyReads => {
                if let Some(response) = self.proxy.to_proxy.pop_front() {
                    self.proxy.apply(&response);
                }
            }
            Move::Disconnect => {
                self.session = Session::new(self.proxy.protocol, self.world.view(), self.limits);
                self.proxy.connect();
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let quiet = self.proxy.to_server.is_empty() && self.proxy.to_proxy.is_empty() && !self.session.has_work();
            if quiet {
                return;
            }
            self.step(Move::ServerSends);
            self.step(Move::ProxyReads);
            self.step(Move::ServerReads);
        }
        panic!("does not come to rest: {:?}", self.session);
    }
}

/// What the proxy should have, by its subscriptions.
fn due(
    world: &World,
    wants: &BTreeMap<ResourceType, BTreeSet<String>>,
) -> BTreeMap<(ResourceType, String), (Version, String)> {
    world
        .0
        .iter()
        .filter(|((kind, name), _)| wants.get(kind).is_some_and(|n| n.contains(name) || n.contains("*")))
        .map(|(key, resource)| (key.clone(), (resource.version(), text(resource))))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    // J1, J2
    #[test]
    fn proxy_ends_with_exactly_what_the_source_holds(moves in moves(false)) {
        let mut play = Play::new(Protocol::Delta);
        for next in moves {
            play.step(next);
        }
        play.settle();
        prop_assert_eq!(&play.proxy.has, &due(&play.world, &play.proxy.wants));
        for (kind, names) in &play.proxy.wants {
            for name in names.iter().filter(|name| *name != "*") {
                let key = (*kind, name.clone());
                prop_assert_eq!(play.proxy.absent.contains(&key), !play.world.0.contains_key(&key), "{}", name);
            }
        }
        for status in play.session.status() {
            prop_assert!(matches!(status.state, SyncState::Synced | SyncState::NotSent), "{:?}", status);
        }
    }

    #[test]
    fn rejected_content_never_costs_the_last_good_one(moves in moves(true)) {
        let mut play = Play::new(Protocol::Delta);
        for next in moves {
            play.step(next);
        }
        play.settle();
        let due = due(&play.world, &play.proxy.wants);
        for (key, now) in &due {
            let has = play.proxy.has.get(key);
            if now.1 == "bad" {
                prop_assert!(has.is_none_or(|(_, body)| body != "bad"));
            } else {
                prop_assert_eq!(has, Some(now));
            }
        }
        for key in play.proxy.has.keys() {
            prop_assert!(due.contains_key(key));
        }
        // With the bad content repaired all is as it should be.
        for (kind, name) in play.world.0.keys().cloned().collect::<Vec<_>>() {
            play.world.put(kind, &name, "repaired");
            play.publish(kind, &name);
        }
        play.settle();
        prop_assert_eq!(&play.proxy.has, &super::tests::due(&play.world, &play.proxy.wants));
    }

    #[test]
    fn state_of_the_world_ends_with_what_the_source_holds(moves in moves(false)) {
        let mut play = Play::new(Protocol::StateOfTheWorld);
        for next in moves {
            play.step(next);
        }
        play.settle();
        let due = due(&play.world, &play.proxy.wants);
        for (key, value) in &due {
            prop_assert_eq!(play.proxy.has.get(key), Some(value));
        }
        // Endpoints and routes cannot be taken away in this protocol: they end with the cluster or listener that names them.
        for key in play.proxy.has.keys().filter(|(kind, _)| matches!(kind, Cluster | Listener)) {
            prop_assert!(due.contains_key(key));
        }
    }
}
