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
//! - a rejected version is not sent again until the content differs, and rejecting it removes nothing;
//! - what is rejected only for being in one response with something else is sent again without that (delta).
//!
//! Caveat: the order holds for what is sent, and a proxy applies one stream in order. A proxy with as many unacknowledged
//! responses of one kind as [`Limits::unacknowledged`] gets no more of that kind, but the other kinds go on: Envoy holds back
//! its acknowledgements of clusters until it has their endpoints, so waiting would deadlock.

mod names;
mod respond;
mod response;
mod status;
mod subscription;

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
    mailbox::Dirty,
    resource::{Resource, ResourceType, Version, View},
    wire::{DeltaRequest, Request, StateRequest},
};
use subscription::{InFlight, Known, Pending, Subscription};

/// The name that stands for "all of this kind".
const WILDCARD: &str = "*";
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
        /// What the response held.
        resources: Vec<Arc<Resource>>,
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
    /// The resources at fault: those that the message names, or the only one of the response. None as long as it is not known
    /// which: then they are sent again in halves, and what is rejected at last is.
    pub resources: Vec<Arc<Resource>>,
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

    /// Whether a change that marks this concerns the stream as it is now.
    pub fn is_concerned(&self, dirty: &Dirty) -> bool {
        let mut kinds = dirty.kinds();
        kinds.any(|(kind, marks)| self.kinds.get(&kind).is_some_and(|kind| kind.is_concerned(marks)))
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
            let error = request.error_detail.as_ref();
            actions.extend(subscription.settle(kind, true, &request.response_nonce, error, now));
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
            // A response says all that there is: there are no halves to send.
            let error = request.error_detail.as_ref();
            actions.extend(subscription.settle(kind, false, &request.response_nonce, error, now));
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

#[cfg(test)]
mod tests;
