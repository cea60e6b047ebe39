//! Pauses between attempts to reach discovery.

use std::time::Duration;

/// Doubling pauses with full jitter, so that proxies that lost discovery together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Default for Backoff {
    /// 100 ms doubling to 10 s: a restart of discovery takes seconds, and a changed route should not wait longer.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(10))
    }
}

impl Backoff {
    /// Pauses from `first` up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// The next pause: between half and the whole of the current interval. `random` picks.
    pub fn next(&mut self, random: u64) -> Duration {
        let interval = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let half = interval / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(random % nanos)
    }

    /// It worked: the next failure starts from the first pause.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}
