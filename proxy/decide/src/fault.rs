//! Which faults a request gets.

use crate::matching::{self, Request};
use mizzen_proxy_config::{AbortWith, Fault, Route, VirtualHost};
use std::time::Duration;

/// What to do to a request before it is routed on: wait, then maybe answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Wait (flag `DI`).
    pub delay: Option<Duration>,
    /// Answer `fault filter abort` (flag `FI`).
    pub abort: Option<AbortWith>,
}

/// The fault policy of a request: the route's own, else the virtual host's.
#[must_use]
pub fn policy<'c>(route: &'c Route, host: &'c VirtualHost) -> Option<&'c Fault> {
    route.fault.as_deref().or(host.fault.as_deref())
}

/// Draws a request's faults; `active` is the number of faults going on.
pub fn plan(fault: &Fault, request: &(impl Request + ?Sized), active: u32, random: u64) -> FaultPlan {
    let enabled = fault.max_active.is_none_or(|most| active < most)
        && fault.headers.iter().all(|test| matching::header(test, request));
    if !enabled {
        return FaultPlan::default();
    }
    FaultPlan {
        delay: fault
            .delay
            .filter(|delay| crate::hits(delay.fraction, crate::mix(random, 101)))
            .map(|delay| delay.time)
            .filter(|time| !time.is_zero()),
        abort: fault
            .abort
            .filter(|abort| crate::hits(abort.fraction, crate::mix(random, 102)))
            .map(|abort| abort.with),
    }
}
