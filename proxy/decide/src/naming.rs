//! Whether a peer is who it must be (secure naming): its certificate has one of the names that are allowed.
//!
//! The chain to the roots is the TLS library's business; this comes after it.

use crate::matching;
use mizzen_proxy_config::{SanMatch, StringMatch, StringTest};

/// The names in a peer's certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerNames<'a> {
    /// URI names; a SPIFFE id is the only one of its certificate.
    pub uris: &'a [&'a str],
    /// DNS names.
    pub dns: &'a [&'a str],
    /// IP addresses as text.
    pub ips: &'a [&'a str],
}

/// Whether the peer has one of the allowed names; no allowed names means any peer that the roots vouch for.
#[must_use]
pub fn allowed(sans: &[SanMatch], peer: &PeerNames<'_>) -> bool {
    sans.is_empty()
        || sans.iter().any(|san| match san {
            SanMatch::Uri(test) => peer.uris.iter().any(|name| matching::string(test, name.as_bytes())),
            SanMatch::Ip(test) => peer.ips.iter().any(|name| matching::string(test, name.as_bytes())),
            SanMatch::Dns(test) => peer.dns.iter().any(|name| dns(test, name)),
        })
}

/// A certificate's `*.example.com` answers an exact test for one label in front of `example.com` (RFC 6125 6.4.3).
fn dns(test: &StringMatch, name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    match (&test.test, lower.strip_prefix("*.")) {
        (StringTest::Exact(wanted), Some(suffix)) => wanted
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(suffix)),
        (StringTest::Exact(wanted), None) => wanted.eq_ignore_ascii_case(&lower),
        _ => matching::string(test, lower.as_bytes()),
    }
}
