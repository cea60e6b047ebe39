//! The one task that changes the state of the mesh: events in, a new state out, at once.
//!
//! There is no debounce: an event that comes alone is served as soon as it is indexed. Events that came while the last state
//! was being published are taken together, so a burst costs as many states as there is time for.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use mizzen_index::{Event, Index};
use mizzen_model::{Changes, Kind};
use tokio::{
    sync::{mpsc, watch},
    time,
};
use tracing::{error, info};

use crate::{
    hub::Hub,
    metrics::Metrics,
    status::StatusEvent,
    watch::{Incoming, KINDS},
};

/// Events taken together at most.
const BATCH: usize = 1_024;
/// Looking for what is wrong with objects reads all of them: at most this often.
const DIAGNOSE: Duration = Duration::from_millis(250);

pub(crate) struct Core {
    pub(crate) index: Index,
    pub(crate) hub: Arc<Hub>,
    pub(crate) members_tx: watch::Sender<Option<BTreeSet<String>>>,
    pub(crate) status_tx: mpsc::Sender<StatusEvent>,
    pub(crate) metrics: Metrics,
    /// Told when the process must start anew: something changed that it was built upon.
    pub(crate) restart: tokio_util::sync::CancellationToken,
}

impl Core {
    /// Works until the watches end.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Incoming>) {
        let trust_domain = self.index.mesh().config().trust_domain.clone();
        let mut missing: BTreeSet<Kind> = KINDS.into_iter().collect();
        let mut batch = Vec::new();
        let mut diagnose_at: Option<time::Instant> = None;
        let mut first_seen = None;
        let mut gathered = Changes::default();
        loop {
            tokio::select! {
                count = events.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = time::sleep_until(diagnose_at.unwrap_or_else(time::Instant::now)), if diagnose_at.is_some() => {
                    diagnose_at = None;
                    let reports = self.index.diagnose();
                    if !reports.is_empty() && self.status_tx.send(StatusEvent::Reports(reports)).await.is_err() {
                        return;
                    }
                    continue;
                }
            }
            let seen = batch
                .iter()
                .map(|incoming| incoming.at)
                .min()
                .unwrap_or_else(Instant::now);
            for incoming in &batch {
                self.metrics.event(incoming.event_kind());
                if let Event::Replace(kind, objects) = &incoming.event
                    && missing.remove(kind)
                {
                    info!(
                        kind = kind.as_str(),
                        objects = objects.len(),
                        missing = missing.len(),
                        "kind listed"
                    );
                }
            }
            let changes = self.index.apply_all(batch.drain(..).map(|incoming| incoming.event));
            gathered.extend(changes);
            first_seen = first_seen.or(Some(seen));
            if !missing.is_empty() {
                continue;
            }
            // What is wrong with an object may change without the mesh changing.
            diagnose_at.get_or_insert_with(|| time::Instant::now() + DIAGNOSE);
            if gathered.is_empty() && self.hub.is_ready() {
                first_seen = None;
                continue;
            }
            let members: BTreeSet<_> = self.index.members().map(ToString::to_string).collect();
            self.members_tx.send_if_modified(|known| {
                let modified = known.as_ref() != Some(&members);
                *known = Some(members);
                modified
            });
            if self.index.mesh().config().trust_domain != trust_domain {
                error!("the trust domain has changed: starting anew with it");
                self.restart.cancel();
                return;
            }
            let changes = std::mem::take(&mut gathered);
            self.hub
                .publish(self.index.snapshot(), &changes, first_seen.take().unwrap_or(seen));
            self.metrics.published(self.index.mesh(), changes.len(), seen.elapsed());
        }
    }
}

impl Incoming {
    fn event_kind(&self) -> Kind {
        match &self.event {
            Event::Apply(object) => object.reference().kind,
            Event::Delete(reference) => reference.kind,
            Event::Replace(kind, _) => *kind,
        }
    }
}
