//! HTTP/2 connections: one per key, shared by all exchanges.
//!
//! In: exchanges that want a stream. Out: a stream on the one connection that is up, or that is dialled once for all who wait for
//! it. A connection has a number, and whoever finds it ended removes that one and never its successor.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use tokio::sync::oneshot;

use super::{ConnectError, IDLE_TIME, Key, Target, Upstream, dial};
use crate::conn::Conn;
use crate::h2io::Stream;
use crate::worker::Worker;

/// Looks at a connection or waits for one so often: an old one found ended, a new one that ends at once, another. A peer that
/// takes connections only to end them is a failure to connect, not a reason to go on.
const ROUNDS: u32 = 4;
/// Window of a stream.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Window of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What there is for one key.
#[derive(Debug, Default)]
pub(super) struct Slot {
    live: Option<Live>,
    waiting: Vec<oneshot::Sender<Result<(), ConnectError>>>,
    dialling: bool,
}

/// A connection that is up.
#[derive(Debug, Clone)]
struct Live {
    number: u64,
    sender: SendRequest<Bytes>,
    about: Rc<About>,
}

#[derive(Debug)]
struct About {
    secure: bool,
    peer: crate::telemetry::PeerId,
    local: Option<SocketAddr>,
    streams: Cell<u32>,
}

/// A stream on the connection for this target.
pub(super) async fn acquire(worker: &Rc<Worker>, target: &Target) -> Result<Upstream, ConnectError> {
    let key = target.key();
    for _ in 0..ROUNDS {
        let known = worker
            .upstreams
            .borrow()
            .shared
            .get(&key)
            .and_then(|slot| slot.live.clone());
        let Some(Live { number, sender, about }) = known else {
            wait(worker, target, &key).await?;
            continue;
        };
        // A connection that is going away says so here; waiting for a free stream is the connection's back-pressure.
        match sender.ready().await {
            Ok(sender) => return Ok(stream(target, key, sender, &about)),
            Err(_) => forget(worker, &key, number),
        }
    }
    Err(ConnectError::Failed(io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the peer ends HTTP/2 connections at once",
    )))
}

fn stream(target: &Target, key: Key, sender: SendRequest<Bytes>, about: &About) -> Upstream {
    let before = about.streams.get();
    about.streams.set(before.saturating_add(1));
    Upstream {
        address: target.address,
        local: about.local,
        peer: about.peer,
        requests: before,
        mesh: target.is_mesh(),
        key,
        rested: false,
        idle_since: Instant::now(),
        idle_time: IDLE_TIME,
        conn: Conn::from(Stream::client(sender, about.secure)),
    }
}

/// Removes this connection, if it is still the one.
fn forget(worker: &Worker, key: &Key, number: u64) {
    let mut upstreams = worker.upstreams.borrow_mut();
    let Some(slot) = upstreams.shared.get_mut(key) else {
        return;
    };
    if slot.live.as_ref().is_some_and(|live| live.number == number) {
        slot.live = None;
        if !slot.dialling {
            upstreams.shared.remove(key);
        }
    }
}

/// Waits until the one dial for this key has ended, beginning it if nobody has.
async fn wait(worker: &Rc<Worker>, target: &Target, key: &Key) -> Result<(), ConnectError> {
    let (tx, rx) = oneshot::channel();
    let begin = {
        let mut upstreams = worker.upstreams.borrow_mut();
        let slot = upstreams.shared.entry(key.clone()).or_default();
        slot.waiting.push(tx);
        !std::mem::replace(&mut slot.dialling, true)
    };
    if begin {
        // Not part of this request: it may give up while others wait.
        tokio::task::spawn_local(run(worker.clone(), target.clone(), key.clone()));
    }
    match tokio::time::timeout(target.cluster.connect_timeout, rx).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(ConnectError::Timeout),
    }
}

/// Dials, tells who waits, and drives the connection to its end.
async fn run(worker: Rc<Worker>, target: Target, key: Key) {
    let dialled = tokio::time::timeout(target.cluster.connect_timeout, open(&worker, &target))
        .await
        .unwrap_or(Err(ConnectError::Timeout));
    let (result, driver) = match dialled {
        Ok((sender, driver, about)) => (Ok((sender, about)), Some(driver)),
        Err(error) => (Err(error), None),
    };
    let (waiting, error, number) = {
        let mut upstreams = worker.upstreams.borrow_mut();
        upstreams.last += 1;
        let number = upstreams.last;
        let slot = upstreams.shared.entry(key.clone()).or_default();
        slot.dialling = false;
        let waiting = std::mem::take(&mut slot.waiting);
        let error = match result {
            Ok((sender, about)) => {
                let about = Rc::new(about);
                slot.live = Some(Live { number, sender, about });
                None
            }
            Err(error) => {
                upstreams.shared.remove(&key);
                Some(error)
            }
        };
        (waiting, error, number)
    };
    for tx in waiting {
        // Who gave up meanwhile does not hear it.
        let _gone = tx.send(error.as_ref().map_or(Ok(()), |error| Err(error.copy())));
    }
    let Some(driver) = driver else { return };
    let worker = {
        let weak = Rc::downgrade(&worker);
        drop(worker);
        let _ended = driver.await;
        weak.upgrade()
    };
    if let Some(worker) = worker {
        forget(&worker, &key, number);
    }
}

type Opened = (SendRequest<Bytes>, Connection<Conn, Bytes>, About);

async fn open(worker: &Rc<Worker>, target: &Target) -> Result<Opened, ConnectError> {
    let conn = dial::connect(worker, target).await?;
    let about = About {
        secure: conn.is_tls(),
        peer: dial::peer_of(worker, target, &conn),
        local: conn.local_addr(),
        streams: Cell::new(0),
    };
    let (sender, driver) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake::<_, Bytes>(conn)
        .await
        .map_err(|error| ConnectError::Failed(io::Error::other(error)))?;
    Ok((sender, driver, about))
}
