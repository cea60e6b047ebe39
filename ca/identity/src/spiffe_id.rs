//! The SPIFFE id of a workload.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{NameError, Namespace, ServiceAccount, TrustDomain, TrustDomainError};

/// The longest SPIFFE id that the standard obliges everyone to accept, in bytes.
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;

const SCHEME: &str = "spiffe://";

/// The identity of a workload: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
///
/// Parsing and printing round-trip exactly: there is one spelling per identity, so byte comparison of certificates'
/// names is comparison of identities. The order is by trust domain, namespace, service account.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Namespace,
    service_account: ServiceAccount,
}

/// Why a text is not the SPIFFE id of a workload; one variant per rule of the standard, and ours on the path's shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Nothing there.
    #[error("the SPIFFE id is empty")]
    Empty,
    /// Longer than [`MAX_SPIFFE_ID_BYTES`].
    #[error("the SPIFFE id has {length} bytes: at most {MAX_SPIFFE_ID_BYTES} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It does not begin with `spiffe://`, in lower case.
    #[error("the SPIFFE id does not begin with spiffe://")]
    Scheme,
    /// A `?`: queries are not allowed.
    #[error("the SPIFFE id holds '?': a query is not allowed")]
    Query,
    /// A `#`: fragments are not allowed.
    #[error("the SPIFFE id holds '#': a fragment is not allowed")]
    Fragment,
    /// The trust domain breaks a rule of its own.
    #[error("the SPIFFE id has a bad trust domain")]
    TrustDomain(#[from] TrustDomainError),
    /// There is no path: this is the id of a trust domain, not of a workload.
    #[error("the SPIFFE id names a trust domain and no workload: write /ns/<namespace>/sa/<service account> after it")]
    PathMissing,
    /// The path ends in `/`.
    #[error("the path of the SPIFFE id ends in '/'")]
    TrailingSlash,
    /// Two slashes in a row.
    #[error("the path of the SPIFFE id has an empty segment")]
    EmptySegment,
    /// A segment `.` or `..`.
    #[error("the path of the SPIFFE id has a relative segment ('.' or '..')")]
    DotSegment,
    /// A `%` in the path.
    #[error("the path of the SPIFFE id holds '%': percent-encoding is not allowed")]
    PercentEncoding,
    /// Any other character outside `a-z`, `A-Z`, `0-9`, `.`, `-`, `_` in the path.
    #[error("the path of the SPIFFE id holds {found:?}: only letters, digits, '.', '-' and '_' are allowed")]
    PathCharacter {
        /// The first offending character.
        found: char,
    },
    /// A sound SPIFFE id that is not the id of a Kubernetes service account.
    #[error("the path of the SPIFFE id is not /ns/<namespace>/sa/<service account>")]
    NotServiceAccount,
    /// The namespace is no Kubernetes name.
    #[error("the SPIFFE id has a bad namespace")]
    Namespace(#[source] NameError),
    /// The service account is no Kubernetes name.
    #[error("the SPIFFE id has a bad service account")]
    ServiceAccount(#[source] NameError),
}

impl SpiffeId {
    /// The id of a service account. Cannot fail: the parts are checked and together stay below the length limit.
    pub fn new(trust_domain: TrustDomain, namespace: Namespace, service_account: ServiceAccount) -> Self {
        Self {
            trust_domain,
            namespace,
            service_account,
        }
    }

    /// Parses `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() {
            return Err(SpiffeIdError::Empty);
        }
        if text.len() > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeIdError::TooLong { length: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        if rest.contains('?') {
            return Err(SpiffeIdError::Query);
        }
        if rest.contains('#') {
            return Err(SpiffeIdError::Fragment);
        }
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        let trust_domain = TrustDomain::new(authority)?;
        let path = path.ok_or(SpiffeIdError::PathMissing)?;
        check_path(path)?;

        let mut segments = path.split('/');
        match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) => Ok(Self {
                trust_domain,
                namespace: Namespace::new(namespace).map_err(SpiffeIdError::Namespace)?,
                service_account: ServiceAccount::new(service_account).map_err(SpiffeIdError::ServiceAccount)?,
            }),
            _ => Err(SpiffeIdError::NotServiceAccount),
        }
    }

    /// Who vouches for it.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace of the service account.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The service account's name.
    pub fn service_account(&self) -> &ServiceAccount {
        &self.service_account
    }

    /// What Istio's policies call a principal: the id without `spiffe://`.
    pub fn principal(&self) -> String {
        format!(
            "{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    if path.is_empty() || path.ends_with('/') {
        return Err(SpiffeIdError::TrailingSlash);
    }
    for segment in path.split('/') {
        match segment {
            "" => return Err(SpiffeIdError::EmptySegment),
            "." | ".." => return Err(SpiffeIdError::DotSegment),
            _ => match segment
                .chars()
                .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')))
            {
                None => {}
                Some('%') => return Err(SpiffeIdError::PercentEncoding),
                Some(found) => return Err(SpiffeIdError::PathCharacter { found }),
            },
        }
    }
    Ok(())
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SCHEME}{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> SpiffeIdError {
        SpiffeId::parse(text).unwrap_err()
    }

    // E1
    #[test]
    fn a_service_accounts_id_is_taken_apart() {
        let id = SpiffeId::parse("spiffe://mesh.example/ns/shop/sa/cart.v1").unwrap();
        assert_eq!(*id.trust_domain(), "mesh.example");
        assert_eq!(*id.namespace(), "shop");
        assert_eq!(*id.service_account(), "cart.v1");
        assert_eq!(id.principal(), "mesh.example/ns/shop/sa/cart.v1");
    }

    // E1
    #[test]
    fn each_rule_of_the_standard_has_its_error() {
        use SpiffeIdError as E;
        let long = format!("spiffe://td/ns/{}/sa/x", "n".repeat(MAX_SPIFFE_ID_BYTES));
        assert_eq!(error(""), E::Empty);
        assert_eq!(error(&long), E::TooLong { length: long.len() });
        for no_scheme in [
            "http://td/ns/a/sa/b",
            "SPIFFE://td/ns/a/sa/b",
            "spiffe:/td/ns/a/sa/b",
            "td/ns/a/sa/b",
        ] {
            assert_eq!(error(no_scheme), E::Scheme, "{no_scheme}");
        }
        assert_eq!(error("spiffe://td/ns/a/sa/b?x"), E::Query);
        assert_eq!(error("spiffe://td/ns/a/sa/b#x"), E::Fragment);
        assert_eq!(error("spiffe:///ns/a/sa/b"), E::TrustDomain(TrustDomainError::Empty));
        assert_eq!(
            error("spiffe://u@td/ns/a/sa/b"),
            E::TrustDomain(TrustDomainError::UserInfo)
        );
        assert_eq!(error("spiffe://td:1/ns/a/sa/b"), E::TrustDomain(TrustDomainError::Port));
        assert_eq!(
            error("spiffe://TD/ns/a/sa/b"),
            E::TrustDomain(TrustDomainError::Character { found: 'T' })
        );
        assert_eq!(error("spiffe://td"), E::PathMissing);
        assert_eq!(error("spiffe://td/"), E::TrailingSlash);
        assert_eq!(error("spiffe://td/ns/a/sa/b/"), E::TrailingSlash);
        assert_eq!(error("spiffe://td/ns//a/sa/b"), E::EmptySegment);
        assert_eq!(error("spiffe://td/ns/../sa/b"), E::DotSegment);
        assert_eq!(error("spiffe://td/ns/./sa/b"), E::DotSegment);
        assert_eq!(error("spiffe://td/ns/%61/sa/b"), E::PercentEncoding);
        assert_eq!(error("spiffe://td/ns/a/sa/ü"), E::PathCharacter { found: 'ü' });
        for other in [
            "spiffe://td/ns/a/sa",
            "spiffe://td/sa/a/ns/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/web",
        ] {
            assert_eq!(error(other), E::NotServiceAccount, "{other}");
        }
        assert_eq!(
            error("spiffe://td/ns/A/sa/b"),
            E::Namespace(NameError::Character { found: 'A' })
        );
        assert_eq!(
            error("spiffe://td/ns/a/sa/b_c"),
            E::ServiceAccount(NameError::Character { found: '_' })
        );
    }

    #[test]
    fn serde_checks_what_it_reads() {
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, StrDeserializer};
        let read = |text: &'static str| {
            let text: StrDeserializer<'_, Error> = text.into_deserializer();
            SpiffeId::deserialize(text).map(|id| id.to_string())
        };
        assert_eq!(read("spiffe://td/ns/a/sa/b").unwrap(), "spiffe://td/ns/a/sa/b");
        assert!(
            read("spiffe://td/ns/a")
                .unwrap_err()
                .to_string()
                .contains("/ns/<namespace>/sa/<service account>")
        );
    }

    proptest! {
        // E1
        #[test]
        fn parsing_undoes_printing(
            td in "[a-z0-9._-]{1,40}", ns in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", sa in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z0-9]{1,5})?"
        ) {
            let id = SpiffeId::new(td.parse().unwrap(), ns.parse().unwrap(), sa.parse().unwrap());
            prop_assert_eq!(SpiffeId::parse(&id.to_string()).unwrap(), id);
        }

        // E1
        #[test]
        fn printing_undoes_parsing(text in "(spiffe://)?[a-zA-Z0-9/.@:%?#-]{0,60}|spiffe://[a-z.]{1,9}/ns/[a-z-]{1,5}/sa/[a-z.-]{1,5}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
