//! Which endpoint of a cluster gets a request.
//!
//! A [`Balancer`] is one worker's view of one cluster: its endpoint set, how busy each endpoint is, which are set
//! aside. It is rebuilt when endpoints or their states change; a pick then only reads lists.
//!
//! Priorities and the panic rule are Envoy's (overprovisioning included). Weighted round robin walks the weights in
//! golden-ratio steps instead of Envoy's deadline heap: the same shares, spread as evenly, with a counter as the only
//! state. `RING_HASH` and `MAGLEV` are both served by weighted rendezvous hashing: the same promise (a key stays where
//! it was unless its endpoint goes), no table in memory, one pass over the endpoints per pick.

mod level;

use crate::outlier::{Record, Report, may_eject};
use level::{Level, Member, shares};
use mizzen_proxy_config::{Cluster, Endpoint, EndpointAddress, EndpointSet, LbPolicy, Outlier};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// An endpoint within a [`Balancer`]. Stays valid while the endpoint exists; afterwards it names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostId {
    slot: u32,
    generation: u32,
}

/// What a pick goes by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pick<'a> {
    /// A random number.
    pub random: u64,
    /// The request's hash, for consistent hashing.
    pub hash: Option<u64>,
    /// Endpoints that earlier tries have had and that are to be avoided.
    pub tried: &'a [HostId],
    /// How often another endpoint is drawn to avoid them.
    pub draws: u32,
}

#[derive(Debug)]
struct Host {
    generation: u32,
    /// Position in the set; `None`: gone from it, kept while requests run.
    endpoint: Option<u32>,
    address_hash: u64,
    active: u32,
    record: Record,
}

/// One worker's view of one cluster.
#[derive(Debug)]
pub struct Balancer {
    policy: LbPolicy,
    panic_percent: u32,
    locality_weighted: bool,
    outlier: Option<Outlier>,
    set: Arc<EndpointSet>,
    hosts: Vec<Host>,
    free: Vec<u32>,
    by_address: HashMap<EndpointAddress, u32>,
    /// One per priority that has endpoints; `shares` says what percentage each gets, adding up.
    levels: Vec<Level>,
    shares: Vec<u32>,
    turn: u64,
    ejected: usize,
    next_sweep: Option<Instant>,
}

impl Balancer {
    /// For a cluster with these endpoints. `seed` (random) keeps many proxies from starting with the same endpoint.
    #[must_use]
    pub fn new(cluster: &Cluster, set: Arc<EndpointSet>, seed: u64) -> Self {
        let mut balancer = Self {
            policy: cluster.lb,
            panic_percent: cluster.panic_percent,
            locality_weighted: cluster.locality_weighted,
            outlier: cluster.outlier,
            set,
            hosts: Vec::new(),
            free: Vec::new(),
            by_address: HashMap::new(),
            levels: Vec::new(),
            shares: Vec::new(),
            turn: seed >> 16,
            ejected: 0,
            next_sweep: None,
        };
        balancer.adopt();
        balancer
    }

    /// Takes new settings and endpoints. Endpoints that stay keep their load and record.
    pub fn update(&mut self, cluster: &Cluster, set: Arc<EndpointSet>) {
        self.policy = cluster.lb;
        self.panic_percent = cluster.panic_percent;
        self.locality_weighted = cluster.locality_weighted;
        if cluster.outlier.is_none() {
            for host in &mut self.hosts {
                host.record.reset();
            }
            self.next_sweep = None;
        }
        self.outlier = cluster.outlier;
        self.set = set;
        self.adopt();
    }

    /// The endpoint set in use.
    #[must_use]
    pub fn endpoints(&self) -> &Arc<EndpointSet> {
        &self.set
    }

    /// The endpoint, unless it is gone.
    #[must_use]
    pub fn endpoint(&self, id: HostId) -> Option<&Endpoint> {
        self.set.endpoints.get(usize::try_from(self.host(id)?.endpoint?).ok()?)
    }

    /// The endpoint with this address.
    #[must_use]
    pub fn find(&self, address: &EndpointAddress) -> Option<HostId> {
        let slot = *self.by_address.get(address)?;
        Some(HostId {
            slot,
            generation: self.slot(slot)?.generation,
        })
    }

    /// Chooses an endpoint; `None`: there is none that may be used (503 `no healthy upstream`, flag `UH`).
    pub fn pick(&mut self, pick: &Pick<'_>) -> Option<HostId> {
        let first = self.draw(pick, 0)?;
        if !pick.tried.contains(&first) {
            return Some(first);
        }
        // Another draw may land elsewhere; when it does not, any that was not tried is better than one that was.
        for draw in 1..=pick.draws.max(1) {
            if let Some(other) = self.draw(pick, draw).filter(|other| !pick.tried.contains(other)) {
                return Some(other);
            }
        }
        let untried = self
            .levels
            .iter()
            .flat_map(Level::members)
            .filter_map(|slot| self.id(slot))
            .find(|id| !pick.tried.contains(id));
        Some(untried.unwrap_or(first))
    }

    fn draw(&mut self, pick: &Pick<'_>, draw: u32) -> Option<HostId> {
        let random = crate::mix(pick.random, 11 + u64::from(draw));
        // A key must not wander between priorities or localities from one request to the next.
        let spread = match (self.policy, pick.hash) {
            (LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. }, Some(hash)) => crate::mix(hash, 12),
            _ => random,
        };
        let level = self.level(spread)?;
        let group = self.levels.get(level)?.group(crate::mix(spread, 13))?;
        let slot = match self.policy {
            LbPolicy::RoundRobin | LbPolicy::OriginalDst => {
                self.turn = self.turn.wrapping_add(1);
                group.in_turn(self.turn)
            }
            LbPolicy::Random => group.at_random(random),
            LbPolicy::LeastRequest { choices } => {
                // With very many choices every endpoint is looked at sooner or later anyway.
                let busy = |slot: u32| self.slot(slot).map_or(u32::MAX, |host| host.active);
                group.least(choices.min(16), random, busy)
            }
            LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => match pick.hash {
                Some(key) => {
                    let skip = |slot| draw > 0 && self.id(slot).is_some_and(|id| pick.tried.contains(&id));
                    group.rendezvous(key, |slot| self.slot(slot).map_or(0, |host| host.address_hash), skip)
                }
                None => group.at_random(random),
            },
        }?;
        self.id(slot)
    }

    /// The priority that a number falls to.
    fn level(&self, random: u64) -> Option<usize> {
        let total = u64::from(self.shares.iter().sum::<u32>());
        if total == 0 {
            return None;
        }
        let mut rest = random % total;
        self.shares.iter().position(|share| {
            let share = u64::from(*share);
            let chosen = rest < share;
            if !chosen {
                rest -= share;
            }
            chosen
        })
    }

    /// A request (or connection) to this endpoint begins. Each needs its [`Self::finish`].
    pub fn start(&mut self, id: HostId) {
        if let Some(host) = self.host_mut(id) {
            host.active = host.active.saturating_add(1);
        }
    }

    /// A request to this endpoint has ended.
    pub fn finish(&mut self, id: HostId) {
        let Some(host) = self.host_mut(id) else { return };
        host.active = host.active.saturating_sub(1);
        if host.active == 0 && host.endpoint.is_none() {
            self.release(id.slot);
        }
    }

    /// How many requests run there.
    #[must_use]
    pub fn active(&self, id: HostId) -> u32 {
        self.host(id).map_or(0, |host| host.active)
    }

    /// Notes how a request or connection went; `true`: the endpoint was ejected by it.
    pub fn report(&mut self, id: HostId, report: Report, now: Instant) -> bool {
        let Some(settings) = self.outlier else { return false };
        if self.next_sweep.is_none() {
            self.next_sweep = Some(now + settings.interval);
        }
        let total = self.by_address.len();
        let ejected = self.ejected;
        let Some(host) = self.host_mut(id) else { return false };
        if !host.record.note(&settings, report) || host.endpoint.is_none() || !may_eject(&settings, ejected, total) {
            return false;
        }
        host.record.eject(&settings, now);
        self.rebuild();
        true
    }

    /// When [`Self::sweep`] has something to do, at the latest.
    #[must_use]
    pub const fn next_sweep(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Ends ejections whose time is over. Cheap when it is not yet due.
    pub fn sweep(&mut self, now: Instant) {
        let Some(settings) = self.outlier else { return };
        if self.next_sweep.is_none_or(|due| now < due) {
            return;
        }
        self.next_sweep = Some(now + settings.interval);
        let back = self
            .hosts
            .iter_mut()
            .map(|host| host.record.sweep(now))
            .filter(|back| *back)
            .count();
        if back > 0 {
            self.rebuild();
        }
    }

    /// How many endpoints are set aside.
    #[must_use]
    pub const fn ejected(&self) -> usize {
        self.ejected
    }

    fn slot(&self, slot: u32) -> Option<&Host> {
        self.hosts.get(usize::try_from(slot).ok()?)
    }

    fn id(&self, slot: u32) -> Option<HostId> {
        Some(HostId {
            slot,
            generation: self.slot(slot)?.generation,
        })
    }

    fn host(&self, id: HostId) -> Option<&Host> {
        self.slot(id.slot).filter(|host| host.generation == id.generation)
    }

    fn host_mut(&mut self, id: HostId) -> Option<&mut Host> {
        self.hosts
            .get_mut(usize::try_from(id.slot).ok()?)
            .filter(|host| host.generation == id.generation)
    }

    /// Frees a slot; ids that still name it name nothing from now on.
    fn release(&mut self, slot: u32) {
        if let Some(host) = usize::try_from(slot).ok().and_then(|slot| self.hosts.get_mut(slot)) {
            host.generation = host.generation.wrapping_add(1);
            host.record.reset();
            self.free.push(slot);
        }
    }

    /// Gives every endpoint of the set a host, and lets those go that are no longer in it.
    fn adopt(&mut self) {
        let mut gone = std::mem::take(&mut self.by_address);
        let set = Arc::clone(&self.set);
        for (position, endpoint) in (0_u32..).zip(&set.endpoints) {
            if self.by_address.contains_key(&endpoint.address) {
                continue;
            }
            let slot = match gone.remove(&endpoint.address) {
                Some(slot) => {
                    if let Some(host) = usize::try_from(slot).ok().and_then(|slot| self.hosts.get_mut(slot)) {
                        host.endpoint = Some(position);
                    }
                    slot
                }
                None => self.add(position, &endpoint.address),
            };
            self.by_address.insert(endpoint.address.clone(), slot);
        }
        for slot in gone.into_values() {
            let idle = usize::try_from(slot)
                .ok()
                .and_then(|slot| self.hosts.get_mut(slot))
                .is_some_and(|host| {
                    host.endpoint = None;
                    host.record.reset();
                    host.active == 0
                });
            if idle {
                self.release(slot);
            }
        }
        self.rebuild();
    }

    fn add(&mut self, position: u32, address: &EndpointAddress) -> u32 {
        let address_hash = match address {
            EndpointAddress::Ip(address) => crate::hash::hash(address.to_string().as_bytes()),
            EndpointAddress::Name(name, port) => crate::hash::hash(format!("{name}:{port}").as_bytes()),
            EndpointAddress::Pipe(path) => crate::hash::hash(path.as_bytes()),
        };
        let fresh = |generation| Host {
            generation,
            endpoint: Some(position),
            address_hash,
            active: 0,
            record: Record::default(),
        };
        if let Some(slot) = self.free.pop()
            && let Some(host) = usize::try_from(slot).ok().and_then(|slot| self.hosts.get_mut(slot))
        {
            *host = fresh(host.generation);
            return slot;
        }
        let slot = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        self.hosts.push(fresh(0));
        slot
    }

    /// Recomputes the lists that picks read.
    fn rebuild(&mut self) {
        let ejected = |slot: u32| self.slot(slot).is_some_and(|host| host.record.is_ejected());
        // Of an address that stands in the set twice, the first entry counts.
        let members: Vec<Member> = (0_u32..)
            .zip(&self.set.endpoints)
            .filter_map(|(position, endpoint)| {
                let slot = *self.by_address.get(&endpoint.address)?;
                (self.slot(slot)?.endpoint == Some(position)).then(|| Member::new(slot, endpoint, ejected(slot)))
            })
            .collect();
        self.ejected = self
            .hosts
            .iter()
            .filter(|host| host.endpoint.is_some() && host.record.is_ejected())
            .count();
        let localities = self.locality_weighted.then_some(&*self.set.localities);
        (self.levels, self.shares) = shares(&members, localities, self.set.overprovisioning, self.panic_percent);
    }
}

#[cfg(test)]
mod tests;
