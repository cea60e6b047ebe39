//! One kind of one stream: what the proxy wants, what it has, and what it said to what it was sent.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{Action, Nack, Nonce, names::Names};
use crate::{
    mailbox::Marks,
    resource::{Resource, ResourceSet, ResourceType, Version},
    wire::ErrorDetail,
};

/// How many rejected names are remembered per kind for `/debug/syncz`.
const REJECTED_BOUND: usize = 64;
/// How Envoy begins when it takes clusters or listeners one by one: those it does not name are in force.
const PARTLY: &str = "Error adding/updating ";
/// How much of a proxy's rejection message is kept.
const MESSAGE_BOUND: usize = 2_048;

/// What a stream wants, has and was told of one kind.
#[derive(Default)]
pub(crate) struct Subscription {
    pub(crate) wildcard: Option<Wildcard>,
    /// What was last sent of each name asked for by name.
    pub(crate) named: Names,
    /// Names to look at before the next response.
    pub(crate) pending: BTreeMap<Arc<str>, Pending>,
    /// What the proxy has and must lose, with the resource where it is known; sent after all additions.
    pub(crate) gone: BTreeMap<Arc<str>, Option<Arc<Resource>>>,
    /// Names no longer asked for by name while the wildcard goes on: to be confirmed or removed.
    pub(crate) released: BTreeSet<Arc<str>>,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) sent: Option<Nonce>,
    pub(crate) acknowledged: Option<Nonce>,
    pub(crate) rejected: BTreeMap<Arc<str>, (Version, String)>,
    /// What goes out again by itself, because it was in a response that was rejected for the sake of something in it.
    pub(crate) again: VecDeque<Vec<Arc<str>>>,
    /// What the proxy brought along from an earlier stream and is still so.
    pub(crate) confirmed: Vec<Arc<Resource>>,
    /// The earliest change that is not sent yet.
    pub(crate) changed_at: Option<Instant>,
}

pub(crate) struct Wildcard {
    pub(crate) known: Known,
    /// The view's set may differ from what is known.
    pub(crate) dirty: bool,
    /// The proxy waits for an answer even if there is nothing to tell.
    pub(crate) answer: bool,
}

/// What a proxy has of a wildcard subscription.
pub(crate) enum Known {
    /// What it told when it came back.
    Told(BTreeMap<String, String>),
    /// What we sent.
    Set(Arc<ResourceSet>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    /// The proxy asked: it must be answered, unless it has this version already.
    Asked { has: Option<Version> },
    /// It may have changed.
    Changed,
}

pub(crate) struct InFlight {
    pub(crate) nonce: Nonce,
    pub(crate) resources: Vec<Arc<Resource>>,
    pub(crate) removed: Vec<Arc<str>>,
    pub(crate) changed_at: Option<Instant>,
}

impl Subscription {
    pub(crate) fn names(&self) -> usize {
        let fresh = self
            .pending
            .keys()
            .filter(|name| self.named.find(name).is_none())
            .count();
        self.named.len() + fresh
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.named.find(name).is_some() || self.pending.contains_key(name)
    }

    pub(crate) fn subscribed_names(&self) -> BTreeSet<Arc<str>> {
        self.named
            .iter()
            .map(|resource| resource.name().clone())
            .chain(self.pending.keys().cloned())
            .collect()
    }

    pub(crate) fn subscribe(&mut self, name: Arc<str>, has: Option<Version>) {
        // Asked for again: the proxy may have dropped it in between, so it is answered even if nothing changed.
        self.released.remove(&name);
        self.pending.insert(name, Pending::Asked { has });
    }

    pub(crate) fn unsubscribe(&mut self, name: &str) {
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

    pub(crate) fn start_wildcard(&mut self, mut told: BTreeMap<String, String>) {
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
            sent.resources.iter().for_each(|resource| taken_back(resource.name()));
        }
        self.wildcard = Some(Wildcard {
            known: Known::Told(told),
            dirty: true,
            answer: true,
        });
    }

    pub(crate) fn end_wildcard(&mut self) {
        self.wildcard = None;
        self.released.clear();
        self.gone.retain(|name, _| self.named.find(name).is_some());
    }

    /// Notes marks; tells whether any concerns this stream.
    pub(crate) fn mark(&mut self, marks: Marks) -> bool {
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

    /// What the proxy was last sent under that name, if there is such a resource.
    pub(crate) fn last_sent(&self, name: &str) -> Option<Arc<Resource>> {
        let named = self.named.find(name);
        let known = named.or_else(|| match self.wildcard.as_ref().map(|wildcard| &wildcard.known) {
            Some(Known::Set(set)) => set.find(name),
            _ => None,
        });
        known.filter(|resource| resource.is_present()).cloned()
    }

    /// Whether any of these marks concerns this stream.
    pub(crate) fn is_concerned(&self, marks: &Marks) -> bool {
        (marks.wildcard && self.wildcard.is_some())
            || (marks.all_names && self.named.len() > 0)
            || marks.names.iter().any(|name| self.named.find(name).is_some())
    }

    /// Takes an acknowledgement or rejection in. Unknown nonces (of an earlier stream, or twice) mean nothing. With `divide`,
    /// what was rejected only for being beside something else is sent again.
    pub(crate) fn settle(
        &mut self,
        kind: ResourceType,
        divide: bool,
        nonce: &str,
        error: Option<&ErrorDetail>,
        now: Instant,
    ) -> Option<Action> {
        let at = self.in_flight.iter().position(|sent| sent.nonce.is(nonce))?;
        let sent = self.in_flight.remove(at)?;
        let Some(error) = error else {
            self.acknowledged = Some(sent.nonce);
            let mut recovered = Vec::new();
            for name in sent
                .resources
                .iter()
                .map(|resource| resource.name())
                .chain(&sent.removed)
            {
                if self.rejected.remove(name).is_some() {
                    recovered.push(name.clone());
                }
            }
            let since_change = sent.changed_at.map(|at| now.saturating_duration_since(at));
            return Some(Action::Acknowledged {
                kind,
                since_change,
                recovered,
                resources: sent.resources,
            });
        };
        let message = bounded(&error.message);
        let (mut at_fault, beside): (Vec<_>, Vec<_>) = sent
            .resources
            .iter()
            .cloned()
            .partition(|resource| mentions(&error.message, resource.name()));
        let names = |resources: &[Arc<Resource>]| resources.iter().map(|resource| resource.name().clone()).collect();
        match (at_fault.as_slice(), beside.as_slice()) {
            // Which one it is, halves will tell.
            ([], [_, _, ..]) if divide => {
                let (first, second) = beside.split_at(beside.len() / 2);
                self.again.extend([names(first), names(second)]);
            }
            ([], _) => at_fault = beside,
            ([..], [_, ..]) if divide && !error.message.starts_with(PARTLY) => self.again.push_back(names(&beside)),
            _ => {}
        }
        if divide && !sent.resources.is_empty() && !error.message.starts_with(PARTLY) {
            // What it was to lose it still has.
            for name in sent.removed {
                if self.last_sent(&name).is_none() {
                    self.gone.insert(name, None);
                }
            }
        }
        for resource in at_fault.iter().take(REJECTED_BOUND) {
            if self.rejected.len() < REJECTED_BOUND || self.rejected.contains_key(resource.name()) {
                let rejected = (resource.version(), message.clone());
                self.rejected.insert(resource.name().clone(), rejected);
            }
        }
        Some(Action::Rejected(Nack {
            kind,
            nonce: sent.nonce,
            resources: at_fault,
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
