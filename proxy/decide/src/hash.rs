//! A request's hash for consistent-hash balancing.

use crate::matching::{self, Request};
use mizzen_proxy_config::{HashOn, HashPolicy};
use std::net::IpAddr;

/// FNV-1a, finished by SplitMix64: stable over processes and versions, so that all proxies choose alike.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    crate::mix(fnv, 0)
}

/// The hash of a request by its route's policies: combined in order, up to the first terminal one that gives something.
/// `None`: no policy gave anything, and the balancer draws at random.
pub fn request_hash(policies: &[HashPolicy], request: &(impl Request + ?Sized), source: IpAddr) -> Option<u64> {
    let mut combined: Option<u64> = None;
    for policy in policies {
        let one = match &policy.on {
            HashOn::Header(name) => matching::header_value(request, name).map(|value| hash(&value)),
            HashOn::Cookie { name, .. } => cookie(request, name),
            HashOn::SourceIp => Some(match source {
                IpAddr::V4(address) => hash(&address.octets()),
                IpAddr::V6(address) => hash(&address.octets()),
            }),
            HashOn::Query(name) => matching::query_value(request.path(), name).map(hash),
        };
        if let Some(one) = one {
            // Envoy's way of joining: order counts.
            combined = Some(combined.map_or(one, |before| before.rotate_left(1) ^ one));
        }
        if policy.terminal && combined.is_some() {
            break;
        }
    }
    combined
}

fn cookie(request: &(impl Request + ?Sized), name: &str) -> Option<u64> {
    let cookies = request.header("cookie")?;
    cookies.split(|byte| matches!(byte, b';' | b',')).find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(hash(
            value
                .strip_prefix(b"\"")
                .and_then(|value| value.strip_suffix(b"\""))
                .unwrap_or(value),
        ))
    })
}
