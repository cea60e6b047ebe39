//! Outlier detection: endpoints that fail are set aside for a while. One small state machine per endpoint.
//!
//! Source: Envoy's "outlier detection", consecutive kinds. Success rates are not looked at.

use mizzen_proxy_config::Outlier;
use std::time::{Duration, Instant};

/// What a request or connection says about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A response with this status (a gRPC status counts by its HTTP equivalent).
    Status(u16),
    /// A connection was made.
    Connected,
    /// Failed here: no connection, reset, timeout.
    LocalFailure,
}

/// An endpoint's record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    fives: u32,
    gateway: u32,
    local: u32,
    /// Ejections so far, less one for every quiet interval: the next lasts this many times longer.
    multiplier: u32,
    ejected_until: Option<Instant>,
}

impl Record {
    /// Whether the endpoint is set aside.
    #[must_use]
    pub const fn is_ejected(&self) -> bool {
        self.ejected_until.is_some()
    }

    /// Notes what happened; `true` when the endpoint has now failed often enough to be ejected. The caller then checks
    /// how many may be ([`may_eject`]) and calls [`Self::eject`].
    pub fn note(&mut self, settings: &Outlier, report: Report) -> bool {
        match report {
            Report::Status(status) => {
                let five = (500..600).contains(&status);
                self.fives = if five { self.fives.saturating_add(1) } else { 0 };
                self.gateway = if (502..=504).contains(&status) {
                    self.gateway.saturating_add(1)
                } else {
                    0
                };
            }
            Report::Connected => self.local = 0,
            Report::LocalFailure if settings.split_local_origin => self.local = self.local.saturating_add(1),
            Report::LocalFailure => {
                self.fives = self.fives.saturating_add(1);
                self.gateway = self.gateway.saturating_add(1);
            }
        }
        let reached = |count: u32, limit: Option<u32>| limit.is_some_and(|limit| count >= limit);
        !self.is_ejected()
            && (reached(self.fives, settings.consecutive_5xx)
                || reached(self.gateway, settings.consecutive_gateway)
                || reached(self.local, settings.consecutive_local_origin))
    }

    /// Sets the endpoint aside.
    pub fn eject(&mut self, settings: &Outlier, now: Instant) {
        self.multiplier = self.multiplier.saturating_add(1);
        let time = settings
            .base_ejection_time
            .saturating_mul(self.multiplier)
            .min(settings.max_ejection_time);
        self.ejected_until = Some(now + time.max(Duration::from_millis(1)));
        (self.fives, self.gateway, self.local) = (0, 0, 0);
    }

    /// Once per interval: ends an ejection whose time is over, and forgives one for an interval without.
    /// `true` when the endpoint came back.
    pub fn sweep(&mut self, now: Instant) -> bool {
        match self.ejected_until {
            Some(until) if until <= now => {
                self.ejected_until = None;
                true
            }
            Some(_) => false,
            None => {
                self.multiplier = self.multiplier.saturating_sub(1);
                false
            }
        }
    }

    /// Ends an ejection at once (outlier detection was switched off).
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Whether one more endpoint may be ejected, of `total`, when `ejected` are.
#[must_use]
pub fn may_eject(settings: &Outlier, ejected: usize, total: usize) -> bool {
    if ejected == 0 && settings.always_eject_one {
        return true;
    }
    let percent = ejected * 100 / total.max(1);
    u32::try_from(percent).is_ok_and(|percent| percent < settings.max_ejection_percent)
}
