//! Deciding the next response: what is due, in which order, in pieces of which size.

use std::{mem, sync::Arc, time::Instant};

use super::{InFlight, Known, Limits, Pending, Protocol, Response, Session, Subscription, TypeUrl};
use crate::resource::{Resource, ResourceSet, ResourceType, Version, View};

/// What one kind has to tell.
#[derive(Default)]
struct Batch {
    resources: Vec<Arc<Resource>>,
    removed: Vec<Arc<str>>,
    /// To be sent even if it says nothing.
    answer: bool,
}

impl Session {
    /// Whether [`Session::respond`] may have something to give.
    pub fn has_work(&self) -> bool {
        !self.outbox.is_empty() || self.kinds.values().any(|kind| self.is_open(kind) && kind.has_work())
    }

    /// The next response, if anything is due. Call it when there is room to send.
    pub fn respond(&mut self) -> Option<Response> {
        if let Some(response) = self.outbox.pop_front() {
            return Some(response);
        }
        for kind in ResourceType::ALL {
            self.again(kind);
            if let Some(response) = self.outbox.pop_front() {
                return Some(response);
            }
            self.additions(kind);
            if let Some(response) = self.outbox.pop_front() {
                return Some(response);
            }
        }
        for kind in ResourceType::REMOVAL {
            self.removals(kind);
            if let Some(response) = self.outbox.pop_front() {
                return Some(response);
            }
        }
        None
    }

    /// What the proxy turned out to have accepted on an earlier stream, by kind, since the last call.
    pub fn take_confirmed(&mut self) -> Vec<(ResourceType, Vec<Arc<Resource>>)> {
        let kinds = self.kinds.iter_mut();
        kinds
            .filter(|(_, subscription)| !subscription.confirmed.is_empty())
            .map(|(kind, subscription)| (*kind, mem::take(&mut subscription.confirmed)))
            .collect()
    }

    fn is_open(&self, subscription: &Subscription) -> bool {
        subscription.in_flight.len() < self.limits.window(self.protocol)
    }

    /// What a rejection of something else took with it.
    fn again(&mut self, kind: ResourceType) {
        let Some(mut subscription) = self.kinds.remove(&kind) else {
            return;
        };
        while self.is_open(&subscription)
            && let Some(names) = subscription.again.pop_front()
        {
            let resources: Vec<_> = names.iter().filter_map(|name| subscription.last_sent(name)).collect();
            if resources.is_empty() {
                continue;
            }
            if kind == ResourceType::Cluster {
                self.warm_endpoints(&resources);
            }
            let piece = Batch {
                resources,
                ..Batch::default()
            };
            self.send(kind, &mut subscription, piece, None);
        }
        self.kinds.insert(kind, subscription);
    }

    fn additions(&mut self, kind: ResourceType) {
        let Some(mut subscription) = self.kinds.remove(&kind) else {
            return;
        };
        if self.is_open(&subscription) && subscription.has_additions() {
            let batch = subscription.additions(kind, &*self.view, self.protocol);
            self.dispatch(kind, &mut subscription, batch);
        }
        self.kinds.insert(kind, subscription);
    }

    fn removals(&mut self, kind: ResourceType) {
        let Some(mut subscription) = self.kinds.remove(&kind) else {
            return;
        };
        if self.is_open(&subscription) && !subscription.gone.is_empty() {
            let gone = mem::take(&mut subscription.gone);
            for name in gone.keys() {
                if subscription.named.find(name).is_some() {
                    subscription.named.set(Arc::new(Resource::absent(name)));
                }
            }
            let batch = Batch {
                removed: gone.into_keys().collect(),
                ..Batch::default()
            };
            self.dispatch(kind, &mut subscription, batch);
        }
        self.kinds.insert(kind, subscription);
    }

    fn dispatch(&mut self, kind: ResourceType, subscription: &mut Subscription, mut batch: Batch) {
        if batch.resources.is_empty() && batch.removed.is_empty() && !batch.answer {
            subscription.changed_at = None;
            return;
        }
        if kind == ResourceType::Cluster {
            self.warm_endpoints(&batch.resources);
        }
        let changed_at = subscription.changed_at;
        if subscription.gone.is_empty() {
            subscription.changed_at = None;
        }
        let pieces = match self.protocol {
            Protocol::Delta => split(batch, self.limits.response_length),
            Protocol::StateOfTheWorld => {
                // Of listeners and clusters a response means "these and no others"; of the other kinds "these are so".
                if matches!(kind, ResourceType::Cluster | ResourceType::Listener) {
                    batch.resources = subscription.whole();
                } else if batch.resources.is_empty() && !batch.answer {
                    return;
                }
                batch.removed = Vec::new();
                vec![batch]
            }
        };
        for piece in pieces {
            self.send(kind, subscription, piece, changed_at);
        }
    }

    fn send(&mut self, kind: ResourceType, subscription: &mut Subscription, piece: Batch, changed_at: Option<Instant>) {
        let nonce = self.next_nonce();
        subscription.sent = Some(nonce);
        subscription.in_flight.push_back(InFlight {
            nonce,
            resources: piece.resources.clone(),
            removed: piece.removed.clone(),
            changed_at,
        });
        let version_info = match self.protocol {
            Protocol::Delta => String::new(),
            Protocol::StateOfTheWorld => version_of(&piece.resources).to_string(),
        };
        self.outbox.push_back(Response {
            protocol: self.protocol,
            type_url: TypeUrl::Known(kind),
            nonce,
            version_info,
            resources: piece.resources,
            removed: piece.removed,
            changed_at,
        });
    }

    /// Envoy warms a changed cluster anew and waits for its endpoints to be sent again, without asking if it has asked
    /// before (an endpoint set is named as its cluster).
    fn warm_endpoints(&mut self, clusters: &[Arc<Resource>]) {
        if let Some(endpoints) = self.kinds.get_mut(&ResourceType::Endpoint) {
            for cluster in clusters {
                if let Some(known) = endpoints.named.find(cluster.name()) {
                    let name = known.name().clone();
                    endpoints.pending.insert(name, Pending::Asked { has: None });
                }
            }
        }
    }
}

impl Limits {
    fn window(&self, protocol: Protocol) -> usize {
        match protocol {
            Protocol::Delta => self.unacknowledged.max(1),
            // A proxy answers with all its names; what it says of an older response is ignored. One at a time is simple and sure.
            Protocol::StateOfTheWorld => 1,
        }
    }
}

impl Subscription {
    pub(super) fn has_work(&self) -> bool {
        self.has_additions() || !self.gone.is_empty() || !self.again.is_empty()
    }

    fn has_additions(&self) -> bool {
        !self.pending.is_empty()
            || !self.released.is_empty()
            || self
                .wildcard
                .as_ref()
                .is_some_and(|wildcard| wildcard.dirty || wildcard.answer)
    }

    fn additions(&mut self, kind: ResourceType, view: &dyn View, protocol: Protocol) -> Batch {
        let mut batch = Batch::default();
        for (name, pending) in mem::take(&mut self.pending) {
            let resource = named(view, kind, &name);
            self.look_at(&name, resource, pending, protocol, &mut batch);
        }
        self.diff_wildcard(kind, view, &mut batch);
        for name in mem::take(&mut self.released) {
            match view.wildcard(kind).find(&name) {
                Some(resource) => {
                    self.gone.remove(&name);
                    if !batch.resources.iter().any(|r| r.name() == resource.name()) {
                        batch.resources.push(resource.clone());
                    }
                }
                None => {
                    self.gone.insert(name, None);
                }
            }
        }
        batch
    }

    fn look_at(
        &mut self,
        name: &Arc<str>,
        resource: Arc<Resource>,
        pending: Pending,
        protocol: Protocol,
        batch: &mut Batch,
    ) {
        let has = self.named.find(name).cloned();
        if resource.is_present() {
            self.gone.remove(name);
            let send = match pending {
                Pending::Asked { has: Some(version) } => version != resource.version(),
                Pending::Asked { has: None } => true,
                Pending::Changed => has.is_none_or(|has| !has.same_as(&resource)),
            };
            if send {
                batch.resources.push(resource.clone());
            } else if matches!(pending, Pending::Asked { .. }) {
                self.confirmed.push(resource.clone());
            }
            self.named.set(resource);
            return;
        }
        match pending {
            Pending::Asked { .. } => {
                // The proxy waits for this answer, unlike for a removal.
                self.gone.remove(name);
                batch.removed.push(name.clone());
                batch.answer |= protocol == Protocol::StateOfTheWorld;
                self.named.set(resource);
            }
            Pending::Changed => {
                // Kept as it is until the removals' turn.
                if let Some(has) = has.filter(|has| has.is_present()) {
                    self.gone.insert(name.clone(), Some(has));
                }
            }
        }
    }

    fn diff_wildcard(&mut self, kind: ResourceType, view: &dyn View, batch: &mut Batch) {
        let Some(wildcard) = self.wildcard.as_mut() else { return };
        batch.answer |= mem::take(&mut wildcard.answer);
        if !mem::take(&mut wildcard.dirty) {
            return;
        }
        let newest = view.wildcard(kind);
        let known = mem::replace(&mut wildcard.known, Known::Set(newest.clone()));
        match &known {
            Known::Set(set) if Arc::ptr_eq(set, &newest) => return,
            Known::Set(set) => {
                for old in set.iter() {
                    let here = newest.find(old.name()).is_some() || self.named.find(old.name()).is_some();
                    if !here {
                        self.gone.insert(old.name().clone(), Some(old.clone()));
                    }
                }
            }
            Known::Told(told) => {
                for name in told.keys() {
                    let here = newest.find(name).is_some() || self.named.find(name).is_some();
                    if !here {
                        self.gone.insert(Arc::from(name.as_str()), None);
                    }
                }
            }
        }
        for resource in newest.iter() {
            self.gone.remove(resource.name());
            if self.named.find(resource.name()).is_none() && !known.has(resource) {
                batch.resources.push(resource.clone());
            }
        }
    }

    /// Everything the proxy shall have of a kind for which a state-of-the-world response is exhaustive.
    fn whole(&self) -> Vec<Arc<Resource>> {
        let empty = ResourceSet::default();
        let wild: &ResourceSet = match self.wildcard.as_ref().map(|wildcard| &wildcard.known) {
            Some(Known::Set(set)) => set,
            _ => &empty,
        };
        let gone = self.gone.values().flatten();
        let named = self.named.iter();
        let all: ResourceSet = gone.chain(wild.iter()).chain(named).cloned().collect();
        all.iter().cloned().collect()
    }
}

impl Known {
    fn has(&self, resource: &Resource) -> bool {
        match self {
            Self::Set(set) => set.find(resource.name()).is_some_and(|known| known.same_as(resource)),
            Self::Told(told) => {
                told.get(&**resource.name()).and_then(|version| Version::parse(version)) == Some(resource.version())
            }
        }
    }
}

/// Looks a name up; a view that answers with another name than asked would make the session forget what it sent.
fn named(view: &dyn View, kind: ResourceType, name: &Arc<str>) -> Arc<Resource> {
    let resource = view.resource(kind, name);
    if resource.name() == name {
        resource
    } else {
        Arc::new(Resource::absent(name))
    }
}

fn split(batch: Batch, limit: usize) -> Vec<Batch> {
    let mut pieces = Vec::new();
    let mut piece = Batch {
        answer: batch.answer,
        ..Batch::default()
    };
    let mut length = 0;
    for resource in batch.resources {
        if length > 0 && length + resource.encoded_length() > limit {
            pieces.push(mem::take(&mut piece));
            length = 0;
        }
        length += resource.encoded_length();
        piece.resources.push(resource);
    }
    // A removed name is small: the names of one stream fit into its last piece.
    piece.removed = batch.removed;
    pieces.push(piece);
    pieces
}

/// The version of a state-of-the-world response: equal content, equal version.
fn version_of(resources: &[Arc<Resource>]) -> Version {
    let mut text = Vec::with_capacity(resources.len() * 24);
    for resource in resources {
        text.extend_from_slice(resource.name().as_bytes());
        text.extend_from_slice(&resource.version().number().to_be_bytes());
    }
    Version::of(&text)
}
