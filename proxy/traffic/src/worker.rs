//! One worker: a thread with a runtime of its own, its connections, pools and counters.
//!
//! In: [`Shared`] (what all workers have in common, read-only but for counters). Out: [`Worker`], which connection tasks
//! of this thread hold by `Rc`. Nothing in it is ever seen by another thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::balance::Clusters;
use crate::log_writer::LogWriter;
use crate::mesh::{Source, View};
use crate::settings::Settings;
use crate::svid::SvidStore;
use crate::telemetry::{Shard, Telemetry};
use crate::upstream::Upstreams;

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// No new inbound work on old connections: each is closed after its request.
    Draining,
    /// Everything ends now.
    Ended,
}

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// As read at start.
    pub settings: Settings,
    /// Our identity.
    pub svids: SvidStore,
    /// The configuration.
    pub source: Arc<dyn Source>,
    /// Counters of all workers.
    pub telemetry: Arc<Telemetry>,
    /// Access logs.
    pub log: LogWriter,
    /// Life of the process.
    pub phase: watch::Receiver<Phase>,
    /// Value of the peer metadata header: who we are.
    pub metadata: Arc<str>,
    /// Open downstream connections of all workers.
    pub connections: AtomicUsize,
    /// Most of them at once; more are closed at once.
    pub connection_limit: usize,
}

/// A worker's state.
#[derive(Debug)]
pub struct Worker {
    /// Common to all workers.
    pub shared: Arc<Shared>,
    /// The configuration as this worker sees it.
    pub view: View,
    /// This worker's counters.
    pub shard: Arc<Shard>,
    /// Connections to upstreams.
    pub upstreams: RefCell<Upstreams>,
    /// Endpoints and their load.
    pub clusters: Clusters,
    phase: Cell<Phase>,
    date: RefCell<Date>,
}

#[derive(Debug)]
struct Date {
    at: Option<Instant>,
    text: Arc<str>,
}

impl Worker {
    /// A worker on the current thread. Spawns its housekeeping, so it must be made inside the thread's local runtime.
    pub fn start(shared: Arc<Shared>) -> Rc<Self> {
        let view = View::new(shared.source.clone());
        let shard = shared.telemetry.shard();
        let phase = *shared.phase.borrow();
        let worker = Rc::new(Self {
            shared,
            view,
            shard,
            upstreams: RefCell::default(),
            clusters: Clusters::default(),
            phase: Cell::new(phase),
            date: RefCell::new(Date {
                at: None,
                text: Arc::from(""),
            }),
        });
        tokio::task::spawn_local(crate::timer::scan());
        let following = Rc::downgrade(&worker);
        let mut phases = worker.shared.phase.clone();
        tokio::task::spawn_local(async move {
            while phases.changed().await.is_ok() {
                let Some(worker) = following.upgrade() else { return };
                worker.phase.set(*phases.borrow_and_update());
                // Idle connections look at the phase when they wake.
                crate::timer::wake_all();
            }
        });
        worker
    }

    /// The phase of the process.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Takes a place for a downstream connection; `None` when there are too many.
    pub fn admit(self: &Rc<Self>) -> Option<Admission> {
        if self.shared.connections.fetch_add(1, Ordering::Relaxed) >= self.shared.connection_limit {
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
            self.shard.overload.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.shard.connections.fetch_add(1, Ordering::Relaxed);
        Some(Admission { worker: self.clone() })
    }

    /// The value of a `Date` header, made once per second.
    pub fn date(&self) -> Arc<str> {
        let mut date = self.date.borrow_mut();
        let now = Instant::now();
        if date.at.is_none_or(|at| now - at >= Duration::from_secs(1)) {
            date.at = Some(now);
            date.text = Arc::from(http_date(SystemTime::now()));
        }
        date.text.clone()
    }
}

/// A place taken by a downstream connection.
#[derive(Debug)]
pub struct Admission {
    worker: Rc<Worker>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.worker.shard.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn http_date(at: SystemTime) -> String {
    let at = time::OffsetDateTime::from(at);
    let weekday = at.weekday().to_string();
    let month = at.month().to_string();
    format!(
        "{}, {:02} {} {} {:02}:{:02}:{:02} GMT",
        weekday.get(..3).unwrap_or_default(),
        at.day(),
        month.get(..3).unwrap_or_default(),
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(http_date(at), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
