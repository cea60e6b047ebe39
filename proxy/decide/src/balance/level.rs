//! Priorities and localities of a balancer: lists of usable endpoints, and how much each gets.

use mizzen_proxy_config::{Endpoint, Health, Locality};

/// An endpoint as far as choosing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its host.
    pub(super) slot: u32,
    pub(super) weight: u32,
    pub(super) priority: u8,
    pub(super) locality: u16,
    pub(super) state: State,
}

/// How usable an endpoint is; the order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Healthy,
    Degraded,
    /// Unhealthy, or ejected: only in a panic.
    Unhealthy,
    /// Only when a panic finds nothing else.
    Draining,
}

impl Member {
    pub(super) fn new(slot: u32, endpoint: &Endpoint, ejected: bool) -> Self {
        let state = match endpoint.health {
            Health::Draining => State::Draining,
            Health::Unhealthy => State::Unhealthy,
            _ if ejected => State::Unhealthy,
            Health::Degraded => State::Degraded,
            Health::Healthy => State::Healthy,
        };
        Self {
            slot,
            weight: endpoint.weight,
            priority: endpoint.priority,
            locality: endpoint.locality,
            state,
        }
    }
}

/// The usable endpoints of one priority.
#[derive(Debug)]
pub(super) struct Level {
    groups: Vec<Group>,
    /// Sum of the groups' weights.
    total: u64,
}

impl Level {
    /// The group that a number falls to.
    pub(super) fn group(&self, random: u64) -> Option<&Group> {
        if let [only] = &*self.groups {
            return Some(only);
        }
        let mut rest = random % self.total.max(1);
        self.groups.iter().find(|group| {
            let chosen = rest < group.weight;
            if !chosen {
                rest -= group.weight;
            }
            chosen
        })
    }

    pub(super) fn members(&self) -> impl Iterator<Item = u32> {
        self.groups.iter().flat_map(|group| group.slots.iter().copied())
    }
}

/// Endpoints among which the policy chooses: a locality, or a whole priority.
#[derive(Debug)]
pub(super) struct Group {
    weight: u64,
    slots: Vec<u32>,
    /// Sums of weights up to and including each; empty when all weights are equal.
    sums: Vec<u64>,
}

/// 2⁶⁴ divided by the golden ratio: multiples of it spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Group {
    fn new(weight: u64, members: &[&Member]) -> Self {
        let even = members
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.weight == b.weight));
        let mut sum = 0;
        let sums = if even {
            Vec::new()
        } else {
            members
                .iter()
                .map(|member| {
                    sum += u64::from(member.weight);
                    sum
                })
                .collect()
        };
        Self {
            weight,
            slots: members.iter().map(|member| member.slot).collect(),
            sums,
        }
    }

    fn weight_at(&self, position: usize) -> u64 {
        match (
            self.sums.get(position),
            position.checked_sub(1).and_then(|before| self.sums.get(before)),
        ) {
            (Some(sum), Some(before)) => sum - before,
            (Some(sum), None) => *sum,
            (None, _) => 1,
        }
    }

    /// The position that a number between 0 and 2⁶⁴ falls to, by weight.
    fn position(&self, number: u64) -> Option<usize> {
        let scaled = |total: u64| u64::try_from((u128::from(number) * u128::from(total)) >> 64).unwrap_or(0);
        match self.sums.last() {
            Some(total) => {
                let point = scaled(*total);
                Some(self.sums.partition_point(|sum| *sum <= point))
            }
            None if self.slots.is_empty() => None,
            None => usize::try_from(scaled(u64::try_from(self.slots.len()).ok()?)).ok(),
        }
    }

    pub(super) fn at_random(&self, random: u64) -> Option<u32> {
        self.slots.get(self.position(random)?).copied()
    }

    pub(super) fn in_turn(&self, turn: u64) -> Option<u32> {
        if self.sums.is_empty() {
            let length = u64::try_from(self.slots.len()).ok()?;
            return self
                .slots
                .get(usize::try_from(turn.checked_rem(length)?).ok()?)
                .copied();
        }
        self.at_random(turn.wrapping_mul(GOLDEN))
    }

    /// The least busy, for its weight, of some that are drawn; the first of equals.
    pub(super) fn least(&self, choices: u32, random: u64, busy: impl Fn(u32) -> u32) -> Option<u32> {
        let mut best: Option<(u32, u64, u64)> = None;
        for choice in 0..choices.max(1) {
            let position = self.position(crate::mix(random, 21 + u64::from(choice)))?;
            let slot = *self.slots.get(position)?;
            let (load, weight) = (u64::from(busy(slot)), self.weight_at(position));
            if best.is_none_or(|(_, best_load, best_weight)| {
                u128::from(load) * u128::from(best_weight) < u128::from(best_load) * u128::from(weight)
            }) {
                best = Some((slot, load, weight));
            }
        }
        best.map(|(slot, _, _)| slot)
    }

    /// Weighted rendezvous hashing: each endpoint draws a number from the key and its address, scaled by its weight,
    /// and the highest wins. `skip` leaves endpoints out, unless that leaves none.
    pub(super) fn rendezvous(
        &self,
        key: u64,
        address_hash: impl Fn(u32) -> u64,
        skip: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let score = |position: usize, slot: u32| {
            // Uniform in (0, 1]; -weight / ln(u) orders endpoints with odds in proportion to their weights.
            let bits = crate::mix(key, address_hash(slot)) >> 11;
            #[expect(
                clippy::cast_precision_loss,
                reason = "53 bits fit a double exactly; weights may round"
            )]
            let (unit, weight) = (
                (bits + 1) as f64 / (1_u64 << 53) as f64,
                self.weight_at(position) as f64,
            );
            -weight / unit.ln().min(-f64::MIN_POSITIVE)
        };
        let best = |all: bool| {
            self.slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| all || !skip(**slot))
                .map(|(position, slot)| (score(position, *slot), *slot))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, slot)| slot)
        };
        best(false).or_else(|| best(true))
    }
}

/// The levels of all priorities and the share of each, in hundredths (their sum is 100, or 0 when nothing is usable).
pub(super) fn shares(
    members: &[Member],
    localities: Option<&[Locality]>,
    overprovisioning: u32,
    panic_percent: u32,
) -> (Vec<Level>, Vec<u32>) {
    let mut priorities: Vec<u8> = members.iter().map(|member| member.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let of = |priority: u8| members.iter().filter(move |member| member.priority == priority);
    let healthy_percent = |priority: u8, factor: u32| {
        let all = of(priority).count();
        let good = of(priority).filter(|member| member.state <= State::Degraded).count();
        let percent = good.saturating_mul(usize::try_from(factor).unwrap_or(100)) / all.max(1);
        u32::try_from(percent).unwrap_or(u32::MAX)
    };
    let health: Vec<u32> = priorities
        .iter()
        .map(|priority| healthy_percent(*priority, overprovisioning.max(100)).min(100))
        .collect();
    let total = health.iter().sum::<u32>().min(100);
    let mut left = 100;
    let mut shares: Vec<u32> = health
        .iter()
        .map(|health| {
            let share = (health * 100).checked_div(total).unwrap_or(0).min(left);
            left -= share;
            share
        })
        .collect();
    // What rounding has left goes to the first priority that takes part.
    if let Some(first) = shares.iter_mut().find(|share| **share > 0) {
        *first += left;
    } else if panic_percent > 0
        && let Some(first) = shares.first_mut()
    {
        // Nothing is healthy: panic sends requests to endpoints all the same.
        *first = 100;
    }
    let levels = priorities
        .iter()
        .map(|priority| {
            let panic = total < 100 && healthy_percent(*priority, 100) < panic_percent;
            level(&usable(of(*priority), panic), localities)
        })
        .collect();
    (levels, shares)
}

/// The best endpoints there are: healthy ones, else degraded ones; in a panic all that are not draining, else all.
fn usable<'m>(members: impl Iterator<Item = &'m Member> + Clone, panic: bool) -> Vec<&'m Member> {
    let with = |worst: State| -> Vec<&Member> { members.clone().filter(|member| member.state <= worst).collect() };
    let wanted = if panic { State::Unhealthy } else { State::Healthy };
    let next = if panic { State::Draining } else { State::Degraded };
    let first = with(wanted);
    if first.is_empty() { with(next) } else { first }
}

fn level(members: &[&Member], localities: Option<&[Locality]>) -> Level {
    let Some(localities) = localities else {
        return Level {
            groups: vec![Group::new(1, members)],
            total: 1,
        };
    };
    let mut groups = Vec::new();
    for (position, locality) in (0_u16..).zip(localities) {
        let own: Vec<&Member> = members
            .iter()
            .copied()
            .filter(|member| member.locality == position)
            .collect();
        // A locality without a weight gets nothing (Envoy's rule for locality-weighted balancing).
        let weight = u64::from(locality.weight.unwrap_or(0));
        if weight > 0 && !own.is_empty() {
            groups.push(Group::new(weight, &own));
        }
    }
    if groups.is_empty() {
        // No locality is weighted at all: better all alike than none.
        return Level {
            groups: vec![Group::new(1, members)],
            total: 1,
        };
    }
    let total = groups.iter().map(|group| group.weight).sum();
    Level { groups, total }
}
