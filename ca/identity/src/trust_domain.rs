//! Trust domains: who vouches for an identity.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text_newtype;

/// The longest trust domain name that the standard obliges everyone to accept, in bytes.
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// A trust domain name such as `cluster.local`, per SPIFFE ID section 2.1.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

/// Why a text is not a trust domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustDomainError {
    /// Nothing there.
    #[error("the trust domain is empty: write one such as cluster.local")]
    Empty,
    /// Longer than [`MAX_TRUST_DOMAIN_BYTES`].
    #[error("the trust domain has {length} bytes: at most {MAX_TRUST_DOMAIN_BYTES} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// An `@`: SPIFFE ids carry no user information.
    #[error("the trust domain holds '@': user information is not allowed in a SPIFFE id")]
    UserInfo,
    /// A `:`: SPIFFE ids carry no port.
    #[error("the trust domain holds ':': a port is not allowed in a SPIFFE id")]
    Port,
    /// A `%`: percent-encoding is not allowed.
    #[error("the trust domain holds '%': percent-encoding is not allowed in a SPIFFE id")]
    PercentEncoding,
    /// Any other character outside `a-z`, `0-9`, `.`, `-`, `_`.
    #[error("the trust domain holds {found:?}: only a-z, 0-9, '.', '-' and '_' are allowed")]
    Character {
        /// The first offending character.
        found: char,
    },
}

impl TrustDomain {
    /// The name that a mesh has unless its owner chose another.
    pub const DEFAULT: &'static str = "cluster.local";

    /// Checks a trust domain name (without `spiffe://`).
    pub fn new(text: &str) -> Result<Self, TrustDomainError> {
        if text.is_empty() {
            return Err(TrustDomainError::Empty);
        }
        if text.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(TrustDomainError::TooLong { length: text.len() });
        }
        match text
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_'))
        {
            None => Ok(Self(text.into())),
            Some('@') => Err(TrustDomainError::UserInfo),
            Some(':') => Err(TrustDomainError::Port),
            Some('%') => Err(TrustDomainError::PercentEncoding),
            Some(found) => Err(TrustDomainError::Character { found }),
        }
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

text_newtype!(TrustDomain, TrustDomainError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_error() {
        assert_eq!(TrustDomain::new(""), Err(TrustDomainError::Empty));
        assert_eq!(
            TrustDomain::new(&"t".repeat(256)),
            Err(TrustDomainError::TooLong { length: 256 })
        );
        assert_eq!(TrustDomain::new("user@td"), Err(TrustDomainError::UserInfo));
        assert_eq!(TrustDomain::new("td:443"), Err(TrustDomainError::Port));
        assert_eq!(TrustDomain::new("td%2e"), Err(TrustDomainError::PercentEncoding));
        assert_eq!(TrustDomain::new("Td"), Err(TrustDomainError::Character { found: 'T' }));
        assert_eq!(
            TrustDomain::new("td/x"),
            Err(TrustDomainError::Character { found: '/' })
        );
        assert!(TrustDomain::new("my_mesh-1.example").is_ok());
        assert_eq!(TrustDomain::default(), TrustDomain::new(TrustDomain::DEFAULT).unwrap());
    }
}
