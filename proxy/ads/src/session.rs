//! The delta protocol as a state machine: events in, actions out; no I/O and no clock.
//!
//! Source: Envoy's "xDS protocol", incremental variant over one aggregated stream.
//!
//! Rules that hold whatever discovery does:
//! * every response is answered once: ACK, or NACK with the name and the problems of each bad resource;
//! * good resources of a response are applied even when others in it are bad;
//! * a bad resource leaves the last good one in place; when there is none, what it says is applied as far as it is
//!   understood, with the rest failing closed ([`mizzen_proxy_config::Outcome`]), or a value that refuses all;
//! * a name that discovery removes, or that it never had, is absent;
//! * after a reconnect all names are asked for again with the versions that are held, so that only changes are sent.

use mizzen_proxy_config::{Kind, Outcome, Resource};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name that stands for "all of this kind".
const WILDCARD: &str = "*";

/// Longest NACK text: it ends up in a status that people read.
const NACK_LENGTH: usize = 4096;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A stream is open.
    Connected,
    /// The stream ended.
    Disconnected,
    /// Names are wanted.
    Subscribe(Kind, Vec<Arc<str>>),
    /// Names are no longer wanted.
    Unsubscribe(Kind, Vec<Arc<str>>),
    /// All resources of a kind are wanted.
    SubscribeAll(Kind),
    /// Discovery answered.
    Response(DeltaResponse),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send this on the stream.
    Send(DeltaRequest),
    /// This is the resource of that name from now on.
    Apply(Arc<str>, Resource),
    /// There is no resource of that name, which goes on being wanted.
    Remove(Kind, Arc<str>),
    /// A resource has left a kind that is wanted as a whole.
    Forget(Kind, Arc<str>),
    /// A resource was refused, with this text; for logs and counters.
    Rejected(Kind, Arc<str>, String),
}

/// What is sent to discovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaRequest {
    /// The first of its stream: the node goes with it.
    pub first: bool,
    /// The kind, by type URL (an unknown one is refused under its own name).
    pub type_url: String,
    /// Names wanted from now on.
    pub subscribe: Vec<String>,
    /// Names no longer wanted.
    pub unsubscribe: Vec<String>,
    /// What is held, by name, in the first request of a kind on a stream.
    pub held: BTreeMap<String, String>,
    /// The response this answers.
    pub nonce: String,
    /// Why that response is refused.
    pub error: Option<String>,
}

/// What discovery sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaResponse {
    /// The kind.
    pub type_url: String,
    /// To be repeated in the answer.
    pub nonce: String,
    /// New and changed resources.
    pub resources: Vec<Received>,
    /// Names of which there is no resource.
    pub removed: Vec<String>,
}

/// A resource as it arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Its name.
    pub name: String,
    /// Other names it answers to (virtual hosts).
    pub aliases: Vec<String>,
    /// Its version.
    pub version: String,
    /// Its type, as far as it says so.
    pub type_url: String,
    /// The encoded message; `None` is a removal.
    pub body: Option<Vec<u8>>,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// No answer yet.
    Asked,
    /// A good version.
    Good(Box<str>),
    /// Only bad ones so far.
    Bad,
    /// Discovery has none.
    Absent,
}

#[derive(Clone, Debug, Default)]
struct Subscription {
    all: bool,
    names: BTreeMap<Arc<str>, Known>,
    /// A request of this kind went out on the current stream.
    opened: bool,
}

/// One proxy's session.
#[derive(Clone, Debug, Default)]
pub struct Session {
    connected: bool,
    greeted: bool,
    kinds: BTreeMap<Kind, Subscription>,
}

impl Session {
    /// Without subscriptions and not connected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many names are subscribed to (those of a wildcard included).
    #[must_use]
    pub fn names(&self) -> usize {
        self.kinds.values().map(|subscription| subscription.names.len()).sum()
    }

    /// Takes an event in; what is to be done comes back in order.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Connected => self.connect(),
            Event::Disconnected => {
                self.connected = false;
                self.greeted = false;
                for subscription in self.kinds.values_mut() {
                    subscription.opened = false;
                }
                Vec::new()
            }
            Event::Subscribe(kind, names) => self.subscribe(kind, names),
            Event::Unsubscribe(kind, names) => self.unsubscribe(kind, &names),
            Event::SubscribeAll(kind) => {
                let subscription = self.kinds.entry(kind).or_default();
                if std::mem::replace(&mut subscription.all, true) {
                    return Vec::new();
                }
                self.request(kind, vec![WILDCARD.to_owned()], Vec::new())
            }
            Event::Response(response) => self.respond(response),
        }
    }

    fn connect(&mut self) -> Vec<Action> {
        self.connected = true;
        self.greeted = false;
        let mut actions = Vec::new();
        for kind in Kind::ALL {
            let Some(subscription) = self.kinds.get_mut(&kind) else {
                continue;
            };
            subscription.opened = false;
            if subscription.all || !subscription.names.is_empty() {
                actions.extend(self.request(kind, Vec::new(), Vec::new()));
            }
        }
        actions
    }

    /// A request with changes of a subscription. The first of its kind on a stream says all there is.
    fn request(&mut self, kind: Kind, subscribe: Vec<String>, unsubscribe: Vec<String>) -> Vec<Action> {
        if !self.connected {
            return Vec::new();
        }
        let Some(subscription) = self.kinds.get_mut(&kind) else {
            return Vec::new();
        };
        let mut request = DeltaRequest {
            first: !std::mem::replace(&mut self.greeted, true),
            type_url: kind.type_url().to_owned(),
            ..DeltaRequest::default()
        };
        if std::mem::replace(&mut subscription.opened, true) {
            request.subscribe = subscribe;
            request.unsubscribe = unsubscribe;
        } else {
            if subscription.all {
                request.subscribe.push(WILDCARD.to_owned());
            }
            for (name, known) in &subscription.names {
                // Under a wildcard every name is covered by it.
                if !subscription.all {
                    request.subscribe.push(name.to_string());
                }
                if let Known::Good(version) = known {
                    request.held.insert(name.to_string(), version.to_string());
                }
            }
        }
        vec![Action::Send(request)]
    }

    fn subscribe(&mut self, kind: Kind, names: Vec<Arc<str>>) -> Vec<Action> {
        let subscription = self.kinds.entry(kind).or_default();
        let mut new = Vec::new();
        for name in names {
            if &*name != WILDCARD && !subscription.names.contains_key(&name) {
                new.push(name.to_string());
                subscription.names.insert(name, Known::Asked);
            }
        }
        if new.is_empty() {
            Vec::new()
        } else {
            self.request(kind, new, Vec::new())
        }
    }

    fn unsubscribe(&mut self, kind: Kind, names: &[Arc<str>]) -> Vec<Action> {
        let Some(subscription) = self.kinds.get_mut(&kind).filter(|subscription| !subscription.all) else {
            return Vec::new();
        };
        let gone: Vec<String> = names
            .iter()
            .filter(|name| subscription.names.remove(&***name).is_some())
            .map(|name| name.to_string())
            .collect();
        // A kind of which nothing was asked on this stream need not be told.
        if gone.is_empty() || !subscription.opened {
            Vec::new()
        } else {
            self.request(kind, Vec::new(), gone)
        }
    }

    fn respond(&mut self, response: DeltaResponse) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut problems = String::new();
        match Kind::from_type_url(&response.type_url) {
            None => problems = format!("type {:?} was not asked for", response.type_url),
            Some(kind) => {
                for received in response.resources {
                    self.receive(kind, received, &mut problems, &mut actions);
                }
                for name in response.removed {
                    self.remove(kind, &name, &mut actions);
                }
            }
        }
        if self.connected {
            actions.push(Action::Send(DeltaRequest {
                first: !std::mem::replace(&mut self.greeted, true),
                type_url: response.type_url,
                nonce: response.nonce,
                error: (!problems.is_empty()).then_some(problems),
                ..DeltaRequest::default()
            }));
        }
        actions
    }

    fn receive(&mut self, kind: Kind, received: Received, problems: &mut String, actions: &mut Vec<Action>) {
        let Some(subscription) = self.kinds.get_mut(&kind) else {
            return;
        };
        let names = subscription.wanted(&received);
        if names.is_empty() {
            // Given up while this was on its way.
            return;
        }
        let Some(body) = received.body else {
            for name in names {
                self.remove(kind, &name, actions);
            }
            return;
        };
        let outcome = if received.type_url.is_empty() || received.type_url == kind.type_url() {
            let Outcome { value, problems } = Resource::decode(kind, &body);
            (value, problems.to_string())
        } else {
            (
                None,
                format!("is a {:?}, not a {:?}", received.type_url, kind.type_url()),
            )
        };
        drop(body);
        match outcome {
            (Some(resource), text) if text.is_empty() => {
                for name in names {
                    subscription
                        .names
                        .insert(Arc::clone(&name), Known::Good(received.version.as_str().into()));
                    actions.push(Action::Apply(name, resource.clone()));
                }
            }
            (value, text) => {
                note(problems, &received.name, &text);
                for name in names {
                    actions.push(Action::Rejected(kind, Arc::clone(&name), text.clone()));
                    let known = subscription.names.entry(Arc::clone(&name)).or_insert(Known::Asked);
                    if matches!(known, Known::Good(_)) {
                        continue;
                    }
                    *known = Known::Bad;
                    actions.push(match value.clone().or_else(|| Resource::closed(kind, &name, &text)) {
                        Some(resource) => Action::Apply(name, resource),
                        None => Action::Remove(kind, name),
                    });
                }
            }
        }
    }

    fn remove(&mut self, kind: Kind, name: &str, actions: &mut Vec<Action>) {
        let Some(subscription) = self.kinds.get_mut(&kind) else {
            return;
        };
        let Some((shared, _)) = subscription.names.get_key_value(name) else {
            return;
        };
        let shared = Arc::clone(shared);
        if subscription.all {
            subscription.names.remove(&shared);
            actions.push(Action::Forget(kind, shared));
        } else {
            subscription.names.insert(Arc::clone(&shared), Known::Absent);
            actions.push(Action::Remove(kind, shared));
        }
    }
}

impl Subscription {
    /// The names under which a resource is wanted.
    fn wanted(&self, received: &Received) -> Vec<Arc<str>> {
        let mut wanted: Vec<Arc<str>> = std::iter::once(&received.name)
            .chain(&received.aliases)
            .filter_map(|name| self.names.get_key_value(name.as_str()))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        if wanted.is_empty() && self.all {
            wanted.push(received.name.as_str().into());
        }
        wanted.sort();
        wanted.dedup();
        wanted
    }
}

/// Adds one resource's problems to a NACK.
fn note(problems: &mut String, name: &str, text: &str) {
    if problems.len() >= NACK_LENGTH {
        return;
    }
    if !problems.is_empty() {
        problems.push('\n');
    }
    problems.push_str(name);
    problems.push_str(": ");
    problems.push_str(text);
    if let Some(cut) = (0..=NACK_LENGTH).rev().find(|at| problems.is_char_boundary(*at))
        && problems.len() > NACK_LENGTH
    {
        problems.truncate(cut);
        problems.push('…');
    }
}

#[cfg(test)]
mod tests;
