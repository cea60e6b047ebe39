//! One stream: its task, and the body through which its responses leave.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::AbortHandle,
    time::{self, sleep_until},
};
use tonic::Status;
use tracing::{debug, info, warn};

use super::{Connected, Opened, Refused, Shared, StreamId};
use crate::{
    mailbox::Mailbox,
    resource::ResourceType,
    session::{Action, Event, Protocol, Refusal, Response, Session, TypeUrl},
    wire::{Node, Request},
};

/// Responses up to this size do not wait for the budget: an endpoint change is not held up by a storm.
const SMALL: usize = 16 * 1_024;

/// The share of the send budget that a response holds until the proxy has read it, or until it is called back.
pub(super) type Held = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

/// Shares that were given, and when each is called back at the latest: fixed when it is given, whatever happens on the stream
/// until then, and also while its response still waits to be taken by the transport.
#[derive(Default)]
pub(super) struct Shares(VecDeque<(Held, time::Instant)>);

impl Shares {
    /// Gives a share until `deadline`.
    pub(super) fn give(&mut self, permit: OwnedSemaphorePermit, deadline: time::Instant) -> Held {
        self.0.retain(|(held, _)| held.lock().is_some());
        let held = Arc::new(Mutex::new(Some(permit)));
        self.0.push_back((held.clone(), deadline));
        held
    }

    /// When the next share is to be called back.
    pub(super) fn deadline(&self) -> Option<time::Instant> {
        self.0.front().map(|(_, deadline)| *deadline)
    }

    /// Calls back the share that is due.
    pub(super) fn call_back(&mut self) {
        if let Some((held, _)) = self.0.pop_front() {
            *held.lock() = None;
        }
    }
}

/// The response body of a stream. Owns the stream's task.
pub(crate) struct Feed {
    responses: mpsc::Receiver<Result<(Response, Option<Held>), Status>>,
    held: Option<Held>,
    task: AbortHandle,
}

impl Stream for Feed {
    type Item = Result<Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Being polled again means that the transport has taken what was given before.
        self.give_back();
        self.responses.poll_recv(cx).map(|next| {
            next.map(|result| {
                result.map(|(response, held)| {
                    self.held = held;
                    response
                })
            })
        })
    }
}

impl Feed {
    fn give_back(&mut self) {
        if let Some(held) = self.held.take() {
            *held.lock() = None;
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.give_back();
        self.task.abort();
    }
}

pub(crate) fn start(
    shared: Arc<Shared>,
    id: StreamId,
    protocol: Protocol,
    extensions: tonic::Extensions,
    inbound: tonic::Streaming<Request>,
) -> Feed {
    let (responses_tx, responses) = mpsc::channel(1);
    let task = StreamTask {
        shared,
        id,
        protocol,
        responses_tx,
    };
    let task = tokio::spawn(task.run(extensions, inbound)).abort_handle();
    Feed {
        responses,
        held: None,
        task,
    }
}

struct StreamTask {
    shared: Arc<Shared>,
    id: StreamId,
    protocol: Protocol,
    responses_tx: mpsc::Sender<Result<(Response, Option<Held>), Status>>,
}

/// Takes the stream off the list however it ends.
struct Listed<'a> {
    shared: &'a Shared,
    id: StreamId,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.shared.streams.lock().remove(&self.id);
        self.shared.metrics.streams.dec();
    }
}

impl StreamTask {
    async fn run(self, extensions: tonic::Extensions, inbound: tonic::Streaming<Request>) {
        if let Err(status) = self.serve(extensions, inbound).await {
            debug!(stream = self.id, code = ?status.code(), error = status.message(), "xds stream ended");
            // The proxy may be gone already, then nobody needs the reason.
            let _ = self.responses_tx.send(Err(status)).await;
        }
    }

    async fn serve(&self, extensions: tonic::Extensions, mut inbound: tonic::Streaming<Request>) -> Result<(), Status> {
        let first = time::timeout(self.shared.settings.first_request, inbound.next())
            .await
            .map_err(|_| {
                Status::deadline_exceeded("no request came: a stream starts with one that carries the node")
            })?;
        let Some(first) = first.transpose()? else { return Ok(()) };
        let Some(node) = first.node() else {
            return Err(Status::invalid_argument(
                "the first request of a stream must carry the node",
            ));
        };
        let mailbox = Arc::new(Mailbox::new());
        let opened = self.open(&extensions, node, &mailbox).await?;
        drop(extensions);
        let session = Session::new(self.protocol, opened.view, self.shared.settings.limits);
        let session = Arc::new(Mutex::new(session));
        mailbox.attach(&session);
        let now = Instant::now();
        self.shared.streams.lock().insert(
            self.id,
            Connected {
                proxy: opened.proxy.clone(),
                since: now,
                session: session.clone(),
            },
        );
        self.shared.metrics.streams.inc();
        let _listed = Listed {
            shared: &self.shared,
            id: self.id,
        };
        info!(stream = self.id, proxy = opened.proxy, node = node.id, protocol = ?self.protocol, "proxy connected");
        let result = self.pump(&session, &mailbox, first, inbound).await;
        info!(stream = self.id, proxy = opened.proxy, "proxy disconnected");
        drop(opened.guard);
        result
    }

    /// A proxy may be faster than what the API server tells of its pod: it waits here instead of coming again.
    async fn open(
        &self,
        extensions: &tonic::Extensions,
        node: &Node,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Opened, Refused> {
        let deadline = time::Instant::now() + self.shared.settings.first_request;
        let mut states = self.shared.source.states();
        loop {
            states.mark_unchanged();
            let refused = match self.shared.source.open(self.id, extensions, node, mailbox) {
                Err(refused @ Refused::NotReady(_)) => refused,
                decided => return decided,
            };
            match time::timeout_at(deadline, states.changed()).await {
                Ok(Ok(())) => {}
                _ => return Err(refused),
            }
        }
    }

    async fn pump(
        &self,
        session: &Mutex<Session>,
        mailbox: &Mailbox,
        first: Request,
        mut inbound: tonic::Streaming<Request>,
    ) -> Result<(), Status> {
        let mut draining = self.shared.draining.subscribe();
        let mut shares = Shares::default();
        let end = time::Instant::now() + aged(self.shared.settings.age, random());
        self.step(session, Event::Request(first))?;
        loop {
            let work = session.lock().has_work();
            let release = shares.deadline();
            tokio::select! {
                request = inbound.next() => match request {
                    Some(request) => self.step(session, Event::Request(request?))?,
                    None => return Ok(()),
                },
                () = mailbox.arrival() => {
                    if let Some(why) = mailbox.ended() {
                        return Err(Status::unavailable(why));
                    }
                    if let Some(change) = mailbox.take() {
                        let event = Event::Changed { view: change.view, dirty: change.dirty, since: change.since };
                        self.step(session, event)?;
                    }
                }
                room = self.responses_tx.reserve(), if work => {
                    let Ok(room) = room else { return Ok(()) };
                    let response = self.respond(session, mailbox)?;
                    if let Some(response) = response {
                        let permit = self.afford(&response, &mut shares).await;
                        self.count(&response);
                        let deadline = time::Instant::now() + self.shared.settings.stuck;
                        room.send(Ok((response, permit.map(|permit| shares.give(permit, deadline)))));
                    }
                }
                () = async { sleep_until(release.unwrap_or_else(time::Instant::now)).await }, if release.is_some() => {
                    shares.call_back();
                }
                () = sleep_until(end) => {
                    return Err(Status::unavailable("the stream is old: connect again and prove anew who you are"));
                }
                changed = draining.changed() => {
                    if changed.is_err() || *draining.borrow() {
                        return Err(Status::unavailable("this instance is shutting down: connect to another one"));
                    }
                }
            }
        }
    }

    /// Decides the next response from one state of the mesh.
    fn respond(&self, session: &Mutex<Session>, mailbox: &Mailbox) -> Result<Option<Response>, Status> {
        let (response, confirmed) = {
            let _gate = self.shared.gate.read();
            if let Some(change) = mailbox.take() {
                self.step(
                    session,
                    Event::Changed {
                        view: change.view,
                        dirty: change.dirty,
                        since: change.since,
                    },
                )?;
            }
            let mut session = session.lock();
            (session.respond(), session.take_confirmed())
        };
        // Outside the gate: the source may want to close it.
        for (kind, resources) in confirmed {
            self.shared.source.accepted(self.id, kind, &resources);
        }
        Ok(response)
    }

    fn step(&self, session: &Mutex<Session>, event: Event) -> Result<(), Status> {
        let actions = session.lock().step(event, Instant::now());
        for action in actions {
            match action {
                Action::Acknowledged {
                    kind,
                    since_change,
                    recovered,
                    resources,
                } => {
                    self.shared.source.accepted(self.id, kind, &resources);
                    if let Some(took) = since_change {
                        self.shared.metrics.convergence.observe(took.as_secs_f64());
                    }
                    if !recovered.is_empty() {
                        self.shared.source.recovered(self.id, kind, &recovered);
                    }
                }
                Action::Rejected(nack) => {
                    self.shared.metrics.rejects.get_or_create(&Some(nack.kind).into()).inc();
                    warn!(
                        stream = self.id,
                        kind = nack.kind.short(),
                        resources = ?nack.resources.iter().map(|resource| resource.name()).collect::<Vec<_>>(),
                        error = nack.message,
                        "proxy rejected resources and keeps what it had"
                    );
                    self.shared.source.rejected(self.id, &nack);
                }
                Action::Refuse(refusal) => {
                    self.shared.metrics.refused.inc();
                    return Err(match refusal {
                        Refusal::TooManySubscriptions { .. } => Status::resource_exhausted(refusal.to_string()),
                        Refusal::NameTooLong { .. } | Refusal::WrongProtocol => {
                            Status::invalid_argument(refusal.to_string())
                        }
                    });
                }
            }
        }
        Ok(())
    }

    /// A large response waits until enough of those before it were read, but not for ever: beyond the budget is better than
    /// a proxy that hears nothing because of others.
    async fn afford(&self, response: &Response, shares: &mut Shares) -> Option<OwnedSemaphorePermit> {
        let length = response.encoded_length();
        if length <= SMALL {
            return None;
        }
        let budget = u32::try_from(self.shared.settings.send_budget / 1_024).unwrap_or(u32::MAX);
        let kib = u32::try_from(length / 1_024).unwrap_or(u32::MAX).min(budget);
        if let Ok(permit) = self.shared.budget.clone().try_acquire_many_owned(kib) {
            return Some(permit);
        }
        self.shared.metrics.waited.inc();
        let share = self.shared.budget.clone().acquire_many_owned(kib);
        tokio::pin!(share);
        let patience = time::Instant::now() + self.shared.settings.stuck;
        loop {
            // What is missing may be this stream's own: it is called back meanwhile.
            let next = shares.deadline();
            tokio::select! {
                share = &mut share => return share.ok(),
                () = sleep_until(next.unwrap_or(patience)), if next.is_some() => shares.call_back(),
                () = sleep_until(patience) => return None,
            }
        }
    }

    fn count(&self, response: &Response) {
        let kind: Option<ResourceType> = match response.type_url() {
            TypeUrl::Known(kind) => Some(*kind),
            TypeUrl::Unknown(_) => None,
        };
        let metrics = &self.shared.metrics;
        metrics.pushes.get_or_create(&kind.into()).inc();
        metrics
            .bytes
            .get_or_create(&kind.into())
            .inc_by(response.encoded_length() as u64);
        if let Some(age) = response.age(Instant::now()) {
            metrics.push_delay.observe(age.as_secs_f64());
        }
    }
}

/// An age between four and six fifths of `age`.
fn aged(age: Duration, random: u64) -> Duration {
    let span = u64::try_from(age.as_millis()).unwrap_or(u64::MAX) / 5 * 2;
    age / 5 * 4 + Duration::from_millis(random % span.max(1))
}

/// Spreading needs no better randomness than a fresh hash key.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
