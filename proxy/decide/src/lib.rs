//! The decisions of the request path, as pure functions over `mizzen-proxy-config`.
//!
//! What comes in: checked configuration, facts of a connection or request ([`Request`], [`ConnectionFacts`]), a random
//! number, the time. What goes out: which filter chain, virtual host, route, cluster and endpoint; a rewritten path;
//! whether to try again and when; whether a peer is who it must be; whether an endpoint is set aside.
//!
//! Nothing here does I/O, reads a clock or draws a random number; on the path of a request nothing is allocated but
//! where a buffer is handed in. Behaviour follows Envoy's documents; where it differs, the item says so.

pub mod balance;
pub mod breaker;
pub mod chain;
pub mod fault;
pub mod hash;
pub mod matching;
pub mod naming;
pub mod outlier;
pub mod path;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod timeout;

pub use balance::{Balancer, HostId, Pick};
pub use breaker::{Breaker, Limit};
pub use chain::{ConnectionFacts, Needs};
pub use matching::Request;
pub use outlier::Report;
pub use retry::{RetryState, TryResult, Verdict};
pub use route::{find_route, find_virtual_host, pick_cluster, vhds_name};
pub use timeout::Timeouts;

/// Spreads a random number for another use (`salt`), so that one draw per request serves decisions that must not
/// depend on each other. SplitMix64's finaliser.
#[must_use]
pub const fn mix(random: u64, salt: u64) -> u64 {
    let mut z = random ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether a draw falls into a share.
#[must_use]
pub fn hits(fraction: mizzen_proxy_config::Fraction, random: u64) -> bool {
    random % u64::from(fraction.denominator.max(1)) < u64::from(fraction.numerator)
}

#[cfg(test)]
mod tests;
