//! The session and the cache joined: wishes become requests, responses become answers. Still no I/O.

use crate::cache::{Answer, Cache, Wishes};
use crate::session::{Action, DeltaRequest, DeltaResponse, Event, Session};
use mizzen_proxy_config::Kind;
use std::sync::Arc;

/// A cache that is kept up to date by whoever moves its messages.
#[derive(Debug)]
pub struct Link {
    session: Session,
    cache: Arc<Cache>,
}

impl Link {
    /// Not connected.
    #[must_use]
    pub fn new(cache: Arc<Cache>) -> Self {
        Self {
            session: Session::new(),
            cache,
        }
    }

    /// The cache.
    #[must_use]
    pub const fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// A stream is open: all that is wanted, to be sent on it.
    pub fn connected(&mut self) -> Vec<DeltaRequest> {
        self.wishes();
        sent(self.session.step(Event::Connected))
    }

    /// The stream ended; what is known stays.
    pub fn disconnected(&mut self) {
        self.session.step(Event::Disconnected);
    }

    /// What readers have wished for since the last call, to be sent. While there is no stream it is only noted.
    pub fn wishes(&mut self) -> Vec<DeltaRequest> {
        let Wishes {
            subscribe,
            unsubscribe,
            all,
        } = self.cache.take_wishes();
        let given_up = unsubscribe
            .into_iter()
            .map(|(kind, names)| Event::Unsubscribe(kind, names));
        let wanted = subscribe.into_iter().map(|(kind, names)| Event::Subscribe(kind, names));
        let events: Vec<Event> = all
            .into_iter()
            .map(Event::SubscribeAll)
            .chain(given_up)
            .chain(wanted)
            .collect();
        events
            .into_iter()
            .flat_map(|event| sent(self.session.step(event)))
            .collect()
    }

    /// A response: puts its answers into the cache; returns what is to be sent, and how many resources were refused.
    pub fn received(&mut self, response: DeltaResponse) -> (Vec<DeltaRequest>, u64) {
        let mut requests = Vec::new();
        let mut answers: Vec<(Kind, Arc<str>, Answer)> = Vec::new();
        let mut forgotten = Vec::new();
        let mut rejected = 0;
        for action in self.session.step(Event::Response(response)) {
            match action {
                Action::Send(request) => requests.push(request),
                Action::Apply(name, resource) => answers.push((resource.kind(), name, Answer::Present(resource))),
                Action::Remove(kind, name) => answers.push((kind, name, Answer::Absent)),
                Action::Forget(kind, name) => forgotten.push((kind, name)),
                Action::Rejected(kind, name, error) => {
                    rejected += 1;
                    tracing::warn!(kind = kind.as_str(), name = %name, error = %error, "resource refused");
                }
            }
        }
        self.cache.apply(answers);
        for (kind, name) in forgotten {
            self.cache.remove(kind, &name);
        }
        (requests, rejected)
    }
}

fn sent(actions: Vec<Action>) -> Vec<DeltaRequest> {
    actions
        .into_iter()
        .filter_map(|action| match action {
            Action::Send(request) => Some(request),
            _ => None,
        })
        .collect()
}
