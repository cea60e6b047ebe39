//! What the service does to a request besides answering it: delay it, fail it, or neither.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The switchable part of a role. `/misbehave` and `/behave` flip it while the program runs.
pub(crate) struct Behaviour {
    misbehaving: AtomicBool,
    served: AtomicU64,
    delay: Duration,
    failure_percent: f64,
}

/// What happens to one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is answered; the number counts the answers of this process from 1.
    Answer(u64),
    /// It fails because `/misbehave` was called.
    Misbehave,
    /// It fails by the failure rate.
    Fail,
}

impl Behaviour {
    pub(crate) fn new(delay: Duration, failure_percent: f64) -> Self {
        Self {
            misbehaving: AtomicBool::new(false),
            served: AtomicU64::new(0),
            delay,
            failure_percent,
        }
    }

    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }

    pub(crate) fn set_misbehaving(&self, on: bool) {
        self.misbehaving.store(on, Ordering::Relaxed);
    }

    /// `dice` is uniform in 0..100.
    pub(crate) fn next(&self, dice: f64) -> Outcome {
        if self.misbehaving.load(Ordering::Relaxed) {
            Outcome::Misbehave
        } else if dice < self.failure_percent {
            Outcome::Fail
        } else {
            Outcome::Answer(self.served.fetch_add(1, Ordering::Relaxed) + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misbehaves_until_told_to_behave_and_counts_only_answers() {
        let behaviour = Behaviour::new(Duration::ZERO, 0.0);
        assert_eq!(behaviour.next(50.0), Outcome::Answer(1));
        behaviour.set_misbehaving(true);
        assert_eq!(behaviour.next(50.0), Outcome::Misbehave);
        behaviour.set_misbehaving(false);
        assert_eq!(behaviour.next(50.0), Outcome::Answer(2));
    }

    #[test]
    fn fails_the_given_share_of_requests() {
        let behaviour = Behaviour::new(Duration::ZERO, 30.0);
        assert_eq!(behaviour.next(29.9), Outcome::Fail);
        assert_eq!(behaviour.next(30.0), Outcome::Answer(1));
    }
}
