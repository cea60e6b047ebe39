//! One stream's side of the protocol, without input, output or clock.
//!
//! Events go in by [`Session::step`]; what is to be reported comes back at once. Responses are asked for with
//! [`Session::respond`] whenever there is room for one, so that nothing queues: what a response holds is decided when it is
//! sent, from the newest view.
//!
//! Guarantees, given that the proxy applies what it acknowledges:
//! - when [`Session::respond`] gives nothing more and all is acknowledged, the proxy has exactly what the view holds of what
//!   it subscribed to, and knows of every name it asked for that does not exist (delta);
//! - additions and updates go in the order of [`ResourceType::ALL`], removals after all of them;
//! - a rejected version is not sent again until the content differs, and rejecting it removes nothing.
//!
//! Caveat: the order holds for what is sent, and a proxy applies one stream in order. A proxy with as many unacknowledged
//! responses of one kind as [`Limits::unacknowledged`] gets no more of that kind, but the other kinds go on: Envoy holds back
//! its acknowledgements of clusters until it has their endpoints, so waiting would deadlock.

mod names;
mod respond;
mod response;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;

pub use self::response::{Nonce, Response, TypeUrl};
pub use self::status::{SyncState, TypeStatus};
use crate::{
    mailbox::{Dirty, Marks},
    resource::{Resource, ResourceSet, ResourceType, Version, View},
    wire::{DeltaRequest, ErrorDetail, Request, StateRequest},
};
use names::Names;

/// The name that stands for "all of this kind".
const WILDCARD: &str = "*";
/// How many rejected names are remembered per kind for `/debug/syncz`.
const REJECTED_BOUND: usize = 64;
/// How much of a proxy's rejection message is kept.
const MESSAGE_BOUND: usize = 2_048;

/// Which of the two protocols a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `DeltaAggregatedResources`.
    Delta,
    /// `StreamAggregatedResources`.
    StateOfTheWorld,
}

/// What one stream may ask for and hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Names subscribed to, over all kinds.
    pub subscriptions: usize,
    /// Bytes of one name.
    pub name_length: usize,
    /// Bytes of resources in one delta response; a larger answer goes as several. State of the world cannot be split.
    pub response_length: usize,
    /// Responses of one kind sent and not yet answered (delta; one in state of the world).
    pub unacknowledged: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions: 50_000,
            name_length: 1_024,
            response_length: 256 * 1_024,
            unacknowledged: 16,
        }
    }
}

/// What happens to a session.
pub enum Event {
    /// The proxy sent a request.
    Request(Request),
    /// There is a newer view, and these are the marks of what may differ from the one before.
    Changed {
        /// The newer view.
        view: Arc<dyn View>,
        /// What may differ.
        dirty: Dirty,
        /// When the change was seen.
        since: Instant,
    },
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(request) => f.debug_tuple("Request").field(request).finish(),
            Self::Changed { dirty, .. } => f.debug_struct("Changed").field("dirty", dirty).finish_non_exhaustive(),
        }
    }
}

/// What the world outside must do or know after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The proxy applied a response.
    Acknowledged {
        /// Of which kind.
        kind: ResourceType,
        /// Time from the change that caused it, if one did.
        since_change: Option<Duration>,
        /// Names that had been rejected and are accepted now.
        recovered: Vec<Arc<str>>,
    },
    /// The proxy rejected a response. It keeps what it had.
    Rejected(Nack),
    /// The stream must end with this error.
    Refuse(Refusal),
}

/// A rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// The kind of resource.
    pub kind: ResourceType,
    /// The response that was rejected.
    pub nonce: Nonce,
    /// The resources at fault: those that the message names, or all of the response if it names none.
    pub resources: Vec<Arc<str>>,
    /// The proxy's words, cut to a bound.
    pub message: String,
}

/// Why a stream must end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// More names than allowed.
    #[error("subscribes to more than {limit} names: subscribe to fewer names or to '*', or raise the limit")]
    TooManySubscriptions {
        /// [`Limits::subscriptions`].
        limit: usize,
    },
    /// A name that is too long.
    #[error("a resource name of {length} bytes of type {kind}: at most {limit} are accepted")]
    NameTooLong {
        /// `cds`, `eds`, ….
        kind: &'static str,
        /// Its length.
        length: usize,
        /// [`Limits::name_length`].
        limit: usize,
    },
    /// A delta request on a state-of-the-world stream or the reverse.
    #[error("a request of the other protocol variant: open a stream of its own for it")]
    WrongProtocol,
}

/// The protocol state of one stream.
pub struct Session {
    protocol: Protocol,
    limits: Limits,
    view: Arc<dyn View>,
    kinds: BTreeMap<ResourceType, Subscription>,
    /// Responses that are decided and wait for room: the parts of one split answer.
    outbox: VecDeque<Response>,
    last_nonce: u64,
}

/// What a stream wants, has and was told of one kind.
#[derive(Default)]
pub(crate) struct Subscription {
    wildcard: Option<Wildcard>,
    /// What was last sent of each name asked for by name.
    named: Names,
    /// Names to look at before the next response.
    pending: BTreeMap<Arc<str>, Pending>,
    /// What the proxy has and must lose, with the resource where it is known; sent after all additions.
    gone: BTreeMap<Arc<str>, Option<Arc<Resource>>>,
    /// Names no longer asked for by name while the wildcard goes on: to be confirmed or removed.
    released: BTreeSet<Arc<str>>,
    in_flight: VecDeque<InFlight>,
    sent: Option<Nonce>,
    acknowledged: Option<Nonce>,
    rejected: BTreeMap<Arc<str>, (Version, String)>,
    /// The earliest change that is not sent yet.
    changed_at: Option<Instant>,
}

struct Wildcard {
    known: Known,
    /// The view's set may differ from what is known.
    dirty: bool,
    /// The proxy waits for an answer even if there is nothing to tell.
    answer: bool,
}

/// What a proxy has of a wildcard subscription.
enum Known {
    /// What it told when it came back.
    Told(BTreeMap<String, String>),
    /// What we sent.
    Set(Arc<ResourceSet>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    /// The proxy asked: it must be answered, unless it has this version already.
    Asked { has: Option<Version> },
    /// It may have changed.
    Changed,
}

struct InFlight {
    nonce: Nonce,
    resources: Vec<(Arc<str>, Version)>,
    removed: Vec<Arc<str>>,
    changed_at: Option<Instant>,
}

impl Session {
    /// A new stream that sees `view`.
    pub fn new(protocol: Protocol, view: Arc<dyn View>, limits: Limits) -> Self {
        Self {
            protocol,
            limits,
            view,
            kinds: BTreeMap::new(),
            outbox: VecDeque::new(),
            last_nonce: 0,
        }
    }

    /// Takes an event in. `now` only serves to tell how long things took.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Changed { view, dirty, since } => {
                self.view = view;
                self.mark(dirty, since);
                Vec::new()
            }
            Event::Request(Request::Delta(request)) if self.protocol == Protocol::Delta => self.delta(request, now),
            Event::Request(Request::State(request)) if self.protocol == Protocol::StateOfTheWorld => {
                self.state(request, now)
            }
            Event::Request(_) => vec![Action::Refuse(Refusal::WrongProtocol)],
        }
    }

    /// Which protocol the stream speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How many names are subscribed to, over all kinds.
    pub fn subscriptions(&self) -> usize {
        self.kinds.values().map(Subscription::names).sum()
    }

    fn mark(&mut self, dirty: Dirty, since: Instant) {
        for (kind, marks) in dirty.into_kinds() {
            let Some(subscription) = self.kinds.get_mut(&kind) else {
                continue;
            };
            if subscription.mark(marks) {
                subscription.changed_at.get_or_insert(since);
            }
        }
    }

    fn delta(&mut self, request: DeltaRequest, now: Instant) -> Vec<Action> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            return self.unknown_type(&request.type_url, request.subscribe);
        };
        let mut actions = Vec::new();
        let first = !self.kinds.contains_key(&kind);
        let subscription = self.kinds.entry(kind).or_default();
        if !request.response_nonce.is_empty() {
            actions.extend(subscription.settle(kind, &request.response_nonce, request.error_detail.as_ref(), now));
        }
        for name in request.unsubscribe {
            if name == WILDCARD {
                subscription.end_wildcard();
            } else {
                subscription.unsubscribe(&name);
            }
        }
        // Without any name the first request asks for everything, as proxies before the explicit '*' did.
        let implied = first && request.subscribe.is_empty() && implies_wildcard(kind);
        let mut initial = request.initial_versions;
        let (wild, names): (Vec<_>, Vec<_>) = request.subscribe.into_iter().partition(|name| name == WILDCARD);
        for name in names {
            if let Some(refusal) = self.limits.check_name(kind, &name) {
                actions.push(Action::Refuse(refusal));
                return actions;
            }
            let has = initial.remove(&name).and_then(|version| Version::parse(&version));
            subscription.subscribe(Arc::from(name), has);
        }
        if implied || !wild.is_empty() {
            subscription.start_wildcard(initial);
        }
        actions.extend(self.check_count());
        actions
    }

    fn state(&mut self, request: StateRequest, now: Instant) -> Vec<Action> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            return Vec::new();
        };
        let mut actions = Vec::new();
        let first = !self.kinds.contains_key(&kind);
        let subscription = self.kinds.entry(kind).or_default();
        if !first && !request.response_nonce.is_empty() {
            actions.extend(subscription.settle(kind, &request.response_nonce, request.error_detail.as_ref(), now));
            // The proxy has not seen the newest response yet; it will say all its names again when it has.
            if subscription.sent.is_some_and(|sent| !sent.is(&request.response_nonce)) {
                return actions;
            }
        }
        let wildcard = request.resource_names.iter().any(|name| name == WILDCARD)
            || (request.resource_names.is_empty()
                && (subscription.wildcard.is_some() || (first && implies_wildcard(kind))));
        let mut wanted = BTreeSet::new();
        for name in request.resource_names {
            if let Some(refusal) = self.limits.check_name(kind, &name) {
                actions.push(Action::Refuse(refusal));
                return actions;
            }
            if name != WILDCARD {
                wanted.insert(name);
            }
        }
        for name in subscription.subscribed_names() {
            if !wanted.contains(&*name) {
                subscription.unsubscribe(&name);
            }
        }
        for name in wanted {
            if !subscription.wants(&name) {
                subscription.subscribe(Arc::from(name), None);
            }
        }
        match (wildcard, subscription.wildcard.is_some()) {
            (true, false) => subscription.start_wildcard(BTreeMap::new()),
            (false, true) => subscription.end_wildcard(),
            _ => {}
        }
        actions.extend(self.check_count());
        actions
    }

    fn check_count(&self) -> Option<Action> {
        let limit = self.limits.subscriptions;
        (self.subscriptions() > limit).then_some(Action::Refuse(Refusal::TooManySubscriptions { limit }))
    }

    /// A kind that discovery does not serve: every name asked for is told to be absent, and nothing is remembered.
    fn unknown_type(&mut self, type_url: &str, names: Vec<String>) -> Vec<Action> {
        let removed: Vec<Arc<str>> = names
            .into_iter()
            .filter(|name| name != WILDCARD)
            .map(Arc::from)
            .collect();
        if removed.is_empty() || self.outbox.len() >= self.limits.unacknowledged {
            return Vec::new();
        }
        let nonce = self.next_nonce();
        self.outbox.push_back(Response::unknown(type_url, nonce, removed));
        Vec::new()
    }

    fn next_nonce(&mut self) -> Nonce {
        self.last_nonce += 1;
        Nonce::new(self.last_nonce)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("protocol", &self.protocol)
            .field("status", &self.status())
            .finish()
    }
}

/// Listeners and clusters are what a proxy starts from; the other kinds are found through them, by name.
fn implies_wildcard(kind: ResourceType) -> bool {
    matches!(kind, ResourceType::Cluster | ResourceType::Listener)
}

impl Limits {
    fn check_name(&self, kind: ResourceType, name: &str) -> Option<Refusal> {
        (name.len() > self.name_length).then(|| Refusal::NameTooLong {
            kind: kind.short(),
            length: name.len(),
            limit: self.name_length,
        })
    }
}

impl Subscription {
    fn names(&self) -> usize {
        let fresh = self
            .pending
            .keys()
            .filter(|name| self.named.find(name).is_none())
            .count();
        self.named.len() + fresh
    }

    fn wants(&self, name: &str) -> bool {
        self.named.find(name).is_some() || self.pending.contains_key(name)
    }

    fn subscribed_names(&self) -> BTreeSet<Arc<str>> {
        self.named
            .iter()
            .map(|resource| resource.name().clone())
            .chain(self.pending.keys().cloned())
            .collect()
    }

    fn subscribe(&mut self, name: Arc<str>, has: Option<Version>) {
        // Asked for again: the proxy may have dropped it in between, so it is answered even if nothing changed.
        self.released.remove(&name);
        self.pending.insert(name, Pending::Asked { has });
    }

    fn unsubscribe(&mut self, name: &str) {
        self.pending.remove(name);
        self.rejected.remove(name);
        let resource = self.named.remove(name);
        if self.wildcard.is_some() {
            let name = resource.map_or_else(|| Arc::from(name), |resource| resource.name().clone());
            self.released.insert(name);
        } else {
            self.gone.remove(name);
        }
    }

    fn start_wildcard(&mut self, mut told: BTreeMap<String, String>) {
        // Asked for again: all is sent again, and what it was sent and is no longer there is taken back. So is what is still on
        // its way from a subscription that it gave up in between: it will arrive under this one.
        let mut taken_back = |resource: &str| {
            told.entry(resource.to_owned()).or_default();
        };
        if let Some(Wildcard {
            known: Known::Set(set), ..
        }) = &self.wildcard
        {
            set.iter().for_each(|resource| taken_back(resource.name()));
        }
        for sent in &self.in_flight {
            sent.resources.iter().for_each(|(name, _)| taken_back(name));
        }
        self.wildcard = Some(Wildcard {
            known: Known::Told(told),
            dirty: true,
            answer: true,
        });
    }

    fn end_wildcard(&mut self) {
        self.wildcard = None;
        self.released.clear();
        self.gone.retain(|name, _| self.named.find(name).is_some());
    }

    /// Notes marks; tells whether any concerns this stream.
    fn mark(&mut self, marks: Marks) -> bool {
        let mut concerned = false;
        if let Some(wildcard) = self.wildcard.as_mut().filter(|_| marks.wildcard) {
            wildcard.dirty = true;
            concerned = true;
        }
        if marks.all_names {
            for resource in self.named.iter() {
                self.pending.entry(resource.name().clone()).or_insert(Pending::Changed);
                concerned = true;
            }
        }
        for name in marks.names {
            if self.named.find(&name).is_some() {
                self.pending.entry(name).or_insert(Pending::Changed);
                concerned = true;
            }
        }
        concerned
    }

    /// Takes an acknowledgement or rejection in. Unknown nonces (of an earlier stream, or twice) mean nothing.
    fn settle(&mut self, kind: ResourceType, nonce: &str, error: Option<&ErrorDetail>, now: Instant) -> Option<Action> {
        let at = self.in_flight.iter().position(|sent| sent.nonce.is(nonce))?;
        let sent = self.in_flight.remove(at)?;
        let Some(error) = error else {
            self.acknowledged = Some(sent.nonce);
            let mut recovered = Vec::new();
            for name in sent.resources.iter().map(|(name, _)| name).chain(&sent.removed) {
                if self.rejected.remove(name).is_some() {
                    recovered.push(name.clone());
                }
            }
            let since_change = sent.changed_at.map(|at| now.saturating_duration_since(at));
            return Some(Action::Acknowledged {
                kind,
                since_change,
                recovered,
            });
        };
        let message = bounded(&error.message);
        let mut at_fault: Vec<_> = sent
            .resources
            .iter()
            .filter(|(name, _)| mentions(&error.message, name))
            .cloned()
            .collect();
        if at_fault.is_empty() {
            at_fault = sent.resources;
        }
        for (name, version) in at_fault.iter().take(REJECTED_BOUND) {
            if self.rejected.len() < REJECTED_BOUND || self.rejected.contains_key(name) {
                self.rejected.insert(name.clone(), (*version, message.clone()));
            }
        }
        let resources = at_fault.into_iter().map(|(name, _)| name).collect();
        Some(Action::Rejected(Nack {
            kind,
            nonce: sent.nonce,
            resources,
            message,
        }))
    }
}

/// Whether a message speaks of this name, and not of a longer one that contains it.
fn mentions(message: &str, name: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '|' | '_' | '-' | '/'));
    message.match_indices(name).any(|(at, found)| {
        let before = message.get(..at).and_then(|text| text.chars().next_back());
        let after = message.get(at + found.len()..).and_then(|text| text.chars().next());
        !name.is_empty() && !part(before) && !part(after)
    })
}

fn bounded(message: &str) -> String {
    if message.len() <= MESSAGE_BOUND {
        return message.to_owned();
    }
    let end = (0..=MESSAGE_BOUND)
        .rev()
        .find(|at| message.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}…", message.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests;
