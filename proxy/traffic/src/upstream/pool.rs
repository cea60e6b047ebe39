//! Connections that carry one exchange at a time: idle ones, those who wait for one, and what is being dialled for them.
//!
//! In: exchanges that want a connection and connections that are free. Out: each connection to who has waited longest. A dial
//! belongs to the pool, not to the request that caused it: a request that meanwhile gets a connection from another
//! exchange, or gives up, leaves the dial to those behind it or to the idle list. So a burst costs few handshakes, and
//! none is thrown away.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use mizzen_proxy_config::TransportSocket;
use tokio::sync::oneshot;

use super::{ConnectError, Key, Speaks, Target, Upstream, dial};
use crate::worker::Worker;

/// Idle connections kept per endpoint and worker; last in, first out.
const IDLE_LIMIT: usize = 1024;
/// How often pools are swept while they hold anything.
const SWEEP: Duration = Duration::from_secs(20);
/// TLS handshakes in flight per endpoint and worker. A handshake costs a worker about as much as ten requests over a warm
/// connection. A thousand at once would keep it busy for the best part of a second, in which neither they nor warm connections get
/// on; sixteen keep it and the peer busy, end within some milliseconds, and still open hundreds of connections a second
/// to a peer 50 ms away.
const TLS_DIALS: usize = 16;
/// Plain connections being made per endpoint and worker: they cost next to nothing, but the peer's backlog is limited (128 is
/// a common one).
const PLAIN_DIALS: usize = 64;

/// Which connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Any.
    Any,
    /// One that was never used nor idle.
    New,
}

/// What there is for one key.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Vec<Upstream>,
    /// Oldest first; those that gave up are still in it.
    waiting: VecDeque<Turn>,
    /// Likewise, of those who need a new one.
    waiting_new: VecDeque<Turn>,
    dialling: usize,
}

#[derive(Debug)]
struct Turn {
    since: Instant,
    tx: oneshot::Sender<Result<Upstream, ConnectError>>,
}

impl Pool {
    fn is_unused(&self) -> bool {
        self.idle.is_empty() && self.waiting.is_empty() && self.waiting_new.is_empty() && self.dialling == 0
    }

    /// Hands it to who waits longest; gives it back when nobody does.
    fn hand(&mut self, mut upstream: Upstream) -> Option<Upstream> {
        let new = upstream.requests == 0 && !upstream.rested;
        loop {
            let turn = if new { self.waiting_new.pop_front() } else { None };
            let Some(turn) = turn.or_else(|| self.waiting.pop_front()) else {
                return Some(upstream);
            };
            match turn.tx.send(Ok(upstream)) {
                Ok(()) | Err(Err(_)) => return None,
                Err(Ok(back)) => upstream = back,
            }
        }
    }

    /// Tells one of those who wait since before `started` that the dial of that time failed.
    fn fail(&mut self, mut error: ConnectError, started: Instant) {
        for queue in [&mut self.waiting_new, &mut self.waiting] {
            while let Some(turn) = queue.pop_front_if(|turn| turn.since <= started) {
                match turn.tx.send(Err(error)) {
                    Ok(()) | Err(Ok(_)) => return,
                    Err(Err(back)) => error = back,
                }
            }
        }
    }

    /// How many more dials the waiting justify, now counted as begun.
    fn begin(&mut self, limit: Duration, most: usize) -> usize {
        for queue in [&mut self.waiting_new, &mut self.waiting] {
            // Whose time is over is about to find out by itself; nothing is dialled for it.
            while queue
                .pop_front_if(|turn| turn.tx.is_closed() || turn.since.elapsed() >= limit)
                .is_some()
            {}
        }
        let wanted = (self.waiting.len() + self.waiting_new.len()).min(most);
        let more = wanted.saturating_sub(self.dialling);
        self.dialling += more;
        more
    }
}

/// The idle connection that was used last, if there is a good one.
pub(super) fn pop(worker: &Worker, key: &Key) -> Option<Upstream> {
    let mut upstreams = worker.upstreams.borrow_mut();
    let idle = &mut upstreams.pools.get_mut(key)?.idle;
    while let Some(mut upstream) = idle.pop() {
        if upstream.conn.idle_ok() {
            return Some(upstream);
        }
    }
    None
}

/// Waits for a connection, at most as long as the cluster allows for making one.
pub(super) async fn wait(worker: &Rc<Worker>, target: &Target, wish: Wish) -> Result<Upstream, ConnectError> {
    let key = target.key();
    let (tx, rx) = oneshot::channel();
    let turn = Turn {
        since: Instant::now(),
        tx,
    };
    let mut place = Place { worker, rx };
    {
        let mut upstreams = worker.upstreams.borrow_mut();
        let pool = upstreams.pools.entry(key.clone()).or_default();
        match wish {
            Wish::Any => pool.waiting.push_back(turn),
            Wish::New => pool.waiting_new.push_back(turn),
        }
    }
    begin(worker, target, &key);
    sweep_later(worker);
    match tokio::time::timeout(target.cluster.connect_timeout, &mut place.rx).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(ConnectError::Timeout),
    }
}

/// A place in the queue. Who leaves it just when a connection was handed over passes that on.
struct Place<'a> {
    worker: &'a Rc<Worker>,
    rx: oneshot::Receiver<Result<Upstream, ConnectError>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.rx.close();
        if let Ok(Ok(upstream)) = self.rx.try_recv() {
            give(self.worker, upstream);
        }
    }
}

/// Begins the dials that are due.
fn begin(worker: &Rc<Worker>, target: &Target, key: &Key) {
    let most = match &target.socket {
        TransportSocket::Raw => PLAIN_DIALS,
        TransportSocket::Tls(_) => TLS_DIALS,
    };
    let due = worker
        .upstreams
        .borrow_mut()
        .pools
        .get_mut(key)
        .map_or(0, |pool| pool.begin(target.cluster.connect_timeout, most));
    for _ in 0..due {
        let (worker, target, key) = (worker.clone(), target.clone(), key.clone());
        tokio::task::spawn_local(async move {
            let started = Instant::now();
            let dialled = dial::dial(&worker, &target, key.clone()).await;
            if let Some(pool) = worker.upstreams.borrow_mut().pools.get_mut(&key) {
                pool.dialling = pool.dialling.saturating_sub(1);
            }
            match dialled {
                Ok(upstream) => give(&worker, upstream),
                Err(error) => {
                    if let Some(pool) = worker.upstreams.borrow_mut().pools.get_mut(&key) {
                        pool.fail(error, started);
                    }
                }
            }
            begin(&worker, &target, &key);
        });
    }
}

/// A connection is free: for who waits longest, else it is kept.
pub(super) fn give(worker: &Rc<Worker>, mut upstream: Upstream) {
    {
        let mut upstreams = worker.upstreams.borrow_mut();
        if !upstreams.pools.contains_key(&upstream.key) {
            upstreams.pools.insert(upstream.key.clone(), Pool::default());
        }
        let Some(pool) = upstreams.pools.get_mut(&upstream.key) else {
            return;
        };
        if !pool.waiting.is_empty() || !pool.waiting_new.is_empty() {
            if !upstream.conn.idle_ok() {
                return;
            }
            match pool.hand(upstream) {
                None => return,
                Some(back) => upstream = back,
            }
        }
        // A connection of bytes is one client's: none is kept for the next.
        if upstream.key.speaks == Speaks::Tcp || pool.idle.len() >= IDLE_LIMIT {
            return;
        }
        upstream.rested = true;
        upstream.idle_since = Instant::now();
        pool.idle.push(upstream);
    }
    sweep_later(worker);
}

fn sweep_later(worker: &Rc<Worker>) {
    let mut upstreams = worker.upstreams.borrow_mut();
    if !upstreams.sweeping {
        upstreams.sweeping = true;
        tokio::task::spawn_local(sweep(Rc::downgrade(worker)));
    }
}

/// Closes what is idle for too long or was closed by the peer; ends with the last pool.
async fn sweep(worker: Weak<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(worker) = worker.upgrade() else { return };
        let mut upstreams = worker.upstreams.borrow_mut();
        for pool in upstreams.pools.values_mut() {
            pool.idle
                .retain_mut(|upstream| upstream.idle_since.elapsed() < upstream.idle_time && upstream.conn.idle_ok());
            pool.waiting.retain(|turn| !turn.tx.is_closed());
            pool.waiting_new.retain(|turn| !turn.tx.is_closed());
        }
        upstreams.pools.retain(|_, pool| !pool.is_unused());
        if upstreams.pools.is_empty() {
            upstreams.sweeping = false;
            return;
        }
    }
}
