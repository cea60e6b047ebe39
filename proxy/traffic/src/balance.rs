//! Endpoints of clusters as a worker uses them: load, ejection, circuit breakers, name lookups.
//!
//! In: a cluster and what is asked of it. Out: a [`Chosen`] endpoint, given back when the exchange has ended. State is kept
//! per cluster and worker, follows changes of the configuration, and goes with clusters that are no longer used.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mizzen_decide::{Balancer, Breaker, HostId, Limit, Pick, Report};
use mizzen_proxy_config::{
    Cluster, ClusterName, Discovery, EndpointAddress, EndpointSet, TransportSocket, WorkloadRef,
};

use crate::mesh::{Lookup, View};

/// How long a looked-up address is used.
const NAME_TTL: Duration = Duration::from_secs(5);
/// Clusters of which a worker keeps state; beyond it what is not in use is forgotten.
const KEEP: usize = 512;

/// State of one cluster.
#[derive(Debug)]
pub struct ClusterState {
    cluster: RefCell<Arc<Cluster>>,
    balancer: RefCell<Option<Balancer>>,
    breaker: Breaker,
    breaker_high: Breaker,
}

/// State of all clusters of a worker.
#[derive(Debug, Default)]
pub struct Clusters {
    states: RefCell<HashMap<ClusterName, Rc<ClusterState>>>,
    names: RefCell<HashMap<(Arc<str>, u16), Found>>,
}

/// Addresses of a host name, and when they were looked up.
type Found = (Instant, Vec<SocketAddr>);

/// An endpoint in use by one exchange.
#[derive(Debug)]
pub struct Chosen {
    state: Rc<ClusterState>,
    host: Option<HostId>,
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub socket: TransportSocket,
    /// Whose.
    pub workload: Option<Arc<WorkloadRef>>,
    /// Its host name, may be empty.
    pub hostname: Arc<str>,
}

impl Chosen {
    /// Its id, to avoid it in another try.
    pub fn id(&self) -> Option<HostId> {
        self.host
    }

    /// Notes how the exchange went.
    pub fn report(&self, report: Report) {
        if let (Some(host), Some(balancer)) = (self.host, self.state.balancer.borrow_mut().as_mut()) {
            balancer.report(host, report, Instant::now());
        }
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        if let (Some(host), Ok(mut balancer)) = (self.host, self.state.balancer.try_borrow_mut())
            && let Some(balancer) = balancer.as_mut()
        {
            balancer.finish(host);
        }
    }
}

/// A place within a circuit breaker's limit.
#[derive(Debug)]
pub struct Permit {
    state: Rc<ClusterState>,
    limit: Limit,
    high: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.breaker(self.high).release(self.limit);
    }
}

impl ClusterState {
    fn breaker(&self, high: bool) -> &Breaker {
        if high { &self.breaker_high } else { &self.breaker }
    }

    /// Takes a place; `None`: the limit is reached.
    pub fn permit(self: &Rc<Self>, limit: Limit, high: bool) -> Option<Permit> {
        let cluster = self.cluster.borrow();
        let limits = if high { &cluster.breaker_high } else { &cluster.breaker };
        self.breaker(high).try_acquire(limits, limit).then(|| Permit {
            state: self.clone(),
            limit,
            high,
        })
    }
}

/// What an endpoint is chosen by.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Random number, hash, endpoints already tried.
    pub pick: Pick<'a>,
    /// Where the client wanted to go, for clusters that go there.
    pub original: SocketAddr,
}

impl Clusters {
    /// The state of a cluster, made at first use.
    pub fn state(&self, cluster: &Arc<Cluster>) -> Rc<ClusterState> {
        let mut states = self.states.borrow_mut();
        if let Some(state) = states.get(&cluster.name) {
            return state.clone();
        }
        if states.len() >= KEEP {
            states.retain(|_, state| Rc::strong_count(state) > 1);
        }
        let state = Rc::new(ClusterState {
            cluster: RefCell::new(cluster.clone()),
            balancer: RefCell::default(),
            breaker: Breaker::default(),
            breaker_high: Breaker::default(),
        });
        states.insert(cluster.name.clone(), state.clone());
        state
    }

    /// Chooses an endpoint; `None`: there is none to be used.
    pub async fn choose(&self, view: &View, cluster: &Arc<Cluster>, wanted: &Wanted<'_>) -> Option<Chosen> {
        let state = self.state(cluster);
        let set: Arc<EndpointSet> = match &cluster.discovery {
            Discovery::OriginalDst { port } => {
                let mut address = wanted.original;
                if let Some(port) = port {
                    address.set_port(*port);
                }
                return Some(Chosen {
                    state,
                    host: None,
                    address,
                    socket: cluster.socket.clone(),
                    workload: None,
                    hostname: Arc::from(""),
                });
            }
            Discovery::Static(set) | Discovery::StrictDns(set) | Discovery::LogicalDns(set) => set.clone(),
            Discovery::Eds(name) => match view.resolve::<EndpointSet>(name).await {
                Lookup::Present(set) => set,
                Lookup::Absent | Lookup::Requested => return None,
            },
        };
        let (host, endpoint) = state.pick(cluster, set, &wanted.pick)?;
        let address = match &endpoint.address {
            EndpointAddress::Ip(address) => Ok(*address),
            EndpointAddress::Name(name, port) => self.resolve(name, *port).await,
            EndpointAddress::Pipe(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        let chosen = Chosen {
            state,
            host: Some(host),
            address: address.as_ref().ok().copied().unwrap_or(wanted.original),
            socket: cluster.socket_for(&endpoint).clone(),
            workload: endpoint.workload.clone(),
            hostname: endpoint.hostname.clone(),
        };
        if address.is_err() {
            chosen.report(Report::LocalFailure);
            return None;
        }
        Some(chosen)
    }

    async fn resolve(&self, name: &Arc<str>, port: u16) -> io::Result<SocketAddr> {
        let key = (name.clone(), port);
        let known = self
            .names
            .borrow()
            .get(&key)
            .filter(|(at, _)| at.elapsed() < NAME_TTL)
            .map(|(_, all)| all.clone());
        let all = match known {
            Some(all) => all,
            None => {
                let all: Vec<SocketAddr> = tokio::net::lookup_host((&**name, port)).await?.collect();
                let mut names = self.names.borrow_mut();
                if names.len() >= KEEP {
                    names.retain(|_, (at, _)| at.elapsed() < NAME_TTL);
                }
                names.insert(key, (Instant::now(), all.clone()));
                all
            }
        };
        let drawn = usize::try_from(rand::random::<u32>())
            .unwrap_or(0)
            .checked_rem(all.len())
            .unwrap_or(0);
        all.get(drawn).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl ClusterState {
    fn pick(
        &self,
        cluster: &Arc<Cluster>,
        set: Arc<EndpointSet>,
        pick: &Pick<'_>,
    ) -> Option<(HostId, mizzen_proxy_config::Endpoint)> {
        let mut balancer = self.balancer.borrow_mut();
        let changed = !Arc::ptr_eq(&self.cluster.borrow(), cluster);
        if changed {
            *self.cluster.borrow_mut() = cluster.clone();
        }
        let balancer = match &mut *balancer {
            Some(balancer) => {
                if changed || !Arc::ptr_eq(balancer.endpoints(), &set) {
                    balancer.update(cluster, set);
                }
                balancer
            }
            empty => empty.insert(Balancer::new(cluster, set, rand::random())),
        };
        if balancer.next_sweep().is_some() {
            balancer.sweep(Instant::now());
        }
        let host = balancer.pick(pick)?;
        let endpoint = balancer.endpoint(host)?.clone();
        balancer.start(host);
        Some((host, endpoint))
    }
}
