//! When to try (again). Pure: randomness is an argument between 0 and 1.

use std::time::Duration;

/// Nothing is tried more often, so that certificates that live seconds do not load the CA.
const LEAST: Duration = Duration::from_millis(100);
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MOST_BACKOFF: Duration = Duration::from_secs(30);

/// Half of what is left of a certificate's life, five percent earlier or later: pods that started together do not renew together.
/// What is left counts, not the whole life: certificates are dated back against clock skew.
pub(super) fn renewal(left: Duration, random: f64) -> Duration {
    left.mul_f64(0.45 + 0.1 * random.clamp(0.0, 1.0)).max(LEAST)
}

/// The pause after so many failures in a row: doubled each time, of which a random part between a half and the whole is waited.
pub(super) fn backoff(failures: u32, random: f64) -> Duration {
    let doubled = FIRST_BACKOFF
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(MOST_BACKOFF);
    doubled.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0)).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    // E1
    #[test]
    fn renewal_is_near_half_of_what_is_left() {
        let day = Duration::from_secs(86_400);
        assert_eq!(renewal(day, 0.5), day / 2);
        assert_eq!(renewal(day, 0.0), day.mul_f64(0.45));
        assert!(renewal(day, 1.0) <= day.mul_f64(0.55));
        assert_eq!(renewal(Duration::ZERO, 0.5), LEAST);
    }

    #[test]
    fn pauses_grow_to_a_limit_and_are_random() {
        assert_eq!(backoff(1, 1.0), Duration::from_millis(200));
        assert_eq!(backoff(3, 1.0), Duration::from_millis(800));
        assert_eq!(backoff(3, 0.0), Duration::from_millis(400));
        assert_eq!(backoff(u32::MAX, 1.0), MOST_BACKOFF);
    }
}
