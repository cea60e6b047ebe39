//! A cluster's circuit breaker: counters against limits.
//!
//! Counters are atomic so that workers can share one breaker per cluster; with one worker they cost the same as plain
//! integers. Limits come with each call, since a cluster may change while requests run.

use mizzen_proxy_config::BreakerLimits;
use std::sync::atomic::{AtomicU32, Ordering};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A connection to an endpoint.
    Connection,
    /// A request that waits for a connection.
    Pending,
    /// A request that runs.
    Request,
    /// A retry that runs or waits for its pause.
    Retry,
}

/// How many of each there are.
#[derive(Debug, Default)]
pub struct Breaker {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
}

impl Breaker {
    fn counter(&self, limit: Limit) -> &AtomicU32 {
        match limit {
            Limit::Connection => &self.connections,
            Limit::Pending => &self.pending,
            Limit::Request => &self.requests,
            Limit::Retry => &self.retries,
        }
    }

    /// Takes one, unless the limit is reached (503, flag `UO`). Give it back with [`Self::release`].
    #[must_use = "one that was taken must be released"]
    pub fn try_acquire(&self, limits: &BreakerLimits, limit: Limit) -> bool {
        let most = match limit {
            Limit::Connection => limits.connections,
            Limit::Pending => limits.pending,
            Limit::Request => limits.requests,
            Limit::Retry => self.most_retries(limits),
        };
        self.counter(limit)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now < most).then_some(now + 1)
            })
            .is_ok()
    }

    /// Gives one back.
    pub fn release(&self, limit: Limit) {
        // One that was never taken is a fault of the caller; the counter stays at zero rather than wrap and block all.
        let _ = self
            .counter(limit)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| now.checked_sub(1));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self, limit: Limit) -> u32 {
        self.counter(limit).load(Ordering::Relaxed)
    }

    fn most_retries(&self, limits: &BreakerLimits) -> u32 {
        let Some(budget) = limits.retry_budget else {
            return limits.retries;
        };
        let going_on = u64::from(self.count(Limit::Request)) + u64::from(self.count(Limit::Pending));
        let share = going_on * u64::from(budget.percent_hundredths) / 10_000;
        u32::try_from(share).unwrap_or(u32::MAX).max(budget.least)
    }
}
