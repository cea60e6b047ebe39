//! Sockets that connections are accepted on, and the workers that serve them.
//!
//! In: addresses. Out: connections handed to the worker with the fewest. One thread accepts, so that connections of one
//! peer are spread whatever the kernel's hash would do; with one worker nothing is handed over at all.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mizzen_proxy_config::Listener;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::capture::{self, Entrance};
use crate::worker::{Phase, Worker};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;
/// Connections on their way to a worker.
const HANDOVER: usize = 1024;

/// Binds a listening socket, ready for tokio. IPv6 wildcard sockets take IPv4 too.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Handover {
    socket: std::net::TcpStream,
    remote: SocketAddr,
    entrance: Entrance,
}

/// How the accepting thread reaches the other workers.
#[derive(Debug, Default)]
pub struct Crew {
    others: Vec<(mpsc::Sender<Handover>, Arc<AtomicUsize>)>,
    own: Arc<AtomicUsize>,
}

/// What another worker receives from.
#[derive(Debug)]
pub struct Seat {
    connections: mpsc::Receiver<Handover>,
    load: Arc<AtomicUsize>,
}

impl Crew {
    /// Adds a worker; its thread runs [`work`] with the seat.
    pub fn seat(&mut self) -> Seat {
        let (sender, connections) = mpsc::channel(HANDOVER);
        let load = Arc::new(AtomicUsize::new(0));
        self.others.push((sender, load.clone()));
        Seat { connections, load }
    }

    fn place(&self, worker: &Rc<Worker>, socket: TcpStream, remote: SocketAddr, entrance: &Entrance) {
        let least = self.others.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed));
        if let Some((sender, load)) = least
            && load.load(Ordering::Relaxed) < self.own.load(Ordering::Relaxed)
        {
            let Ok(socket) = socket.into_std() else { return };
            load.fetch_add(1, Ordering::Relaxed);
            if sender
                .try_send(Handover {
                    socket,
                    remote,
                    entrance: entrance.clone(),
                })
                .is_err()
            {
                // That worker does not keep up; the connection is closed, as with a full backlog.
                load.fetch_sub(1, Ordering::Relaxed);
                worker.shard.overload.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        start(worker.clone(), self.own.clone(), socket, remote, entrance.clone());
    }
}

fn start(worker: Rc<Worker>, load: Arc<AtomicUsize>, socket: TcpStream, remote: SocketAddr, entrance: Entrance) {
    load.fetch_add(1, Ordering::Relaxed);
    tokio::task::spawn_local(async move {
        capture::serve(worker, socket, remote, entrance).await;
        load.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Serves what is handed over, until the accepting thread ends.
pub async fn work(worker: Rc<Worker>, mut seat: Seat) {
    while let Some(Handover {
        socket,
        remote,
        entrance,
    }) = seat.connections.recv().await
    {
        match TcpStream::from_std(socket) {
            Ok(socket) => {
                seat.load.fetch_sub(1, Ordering::Relaxed);
                start(worker.clone(), seat.load.clone(), socket, remote, entrance);
            }
            Err(_) => {
                seat.load.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Accepts on `socket` until the process ends or the returned task is aborted. `until`: the phase in which it stops.
pub fn accept(
    worker: &Rc<Worker>,
    crew: &Rc<Crew>,
    socket: std::net::TcpListener,
    entrance: Entrance,
    until: Phase,
) -> io::Result<JoinHandle<()>> {
    let listener = TcpListener::from_std(socket)?;
    let (worker, crew) = (worker.clone(), crew.clone());
    Ok(tokio::task::spawn_local(async move {
        let mut phases = worker.shared.phase.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = phases.wait_for(|phase| *phase >= until) => return,
            };
            match accepted {
                Ok((socket, remote)) => crew.place(&worker, socket, canonical(remote), &entrance),
                Err(error) => {
                    // Out of descriptors or memory: accepting at once again would only spin.
                    tracing::warn!(error = %error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }))
}

/// IPv4 clients of an IPv6 socket are IPv4 clients.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Keeps the sockets of a gateway as discovery says.
pub async fn follow(worker: Rc<Worker>, crew: Rc<Crew>) {
    let mut changes = worker.view.changes();
    let mut bound: Vec<(SocketAddr, Arc<Listener>, JoinHandle<()>)> = Vec::new();
    loop {
        changes.mark_unchanged();
        let wanted: Vec<Arc<Listener>> = worker.view.all::<Listener>().into_iter().filter(|l| l.bind).collect();
        bound.retain(|(address, listener, task)| {
            let same = wanted.iter().any(|l| l.address == *address && Arc::ptr_eq(l, listener));
            if !same {
                task.abort();
            }
            same
        });
        // An aborted task gives its socket back when it is next run.
        tokio::task::yield_now().await;
        for listener in wanted {
            if bound.iter().any(|(address, ..)| *address == listener.address) {
                continue;
            }
            let address = listener.address;
            let started = bind(address).and_then(|socket| {
                accept(
                    &worker,
                    &crew,
                    socket,
                    Entrance::Gateway(listener.clone()),
                    Phase::Ended,
                )
            });
            match started {
                Ok(task) => {
                    tracing::info!(%address, name = %listener.name, "listening");
                    bound.push((address, listener, task));
                }
                Err(error) => tracing::error!(%address, name = %listener.name, error = %error, "cannot listen"),
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
