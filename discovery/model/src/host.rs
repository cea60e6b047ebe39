//! Hosts, and what wildcards among them stand for.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use mizzen_identity::Namespace;
use serde::Serialize;

use crate::name::{NameError, ObjectName};

/// A host that can be asked for: a fully qualified name, an IP address, `*`, or a wildcard like `*.example.com`.
/// Lower-case always.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Host(Arc<str>);

impl Host {
    /// Checks and lower-cases a host.
    ///
    /// # Errors
    /// When it is neither a DNS name (labels of letters, digits, '-' and, as in service names seen in the wild, '_'),
    /// a wildcard whose first label is `*`, nor an IP address.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        const LIMIT: usize = 255; // RFC 1035
        let what = "host";
        let text = text.as_ref();
        if text.is_empty() {
            return Err(NameError::Empty { what });
        }
        if text.len() > LIMIT {
            return Err(NameError::TooLong {
                what,
                text: text.to_owned(),
                limit: LIMIT,
            });
        }
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Ok(Self(Arc::from(text.to_ascii_lowercase())));
        }
        let name = match text.strip_prefix("*.") {
            Some(rest) => rest,
            None if text == "*" => return Ok(Self(Arc::from("*"))),
            None => text,
        };
        if name.contains('*') {
            return Err(NameError::Wildcard { text: text.to_owned() });
        }
        if let Some(character) = name
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_'))
        {
            return Err(NameError::Character {
                what,
                text: text.to_owned(),
                character,
            });
        }
        let ends = |label: &str| label.starts_with('-') || label.ends_with('-');
        if let Some(label) = name
            .split('.')
            .find(|label| label.is_empty() || label.len() > 63 || ends(label))
        {
            return Err(NameError::HostLabel {
                text: text.to_owned(),
                label: label.to_owned(),
            });
        }
        Ok(Self(Arc::from(text.to_ascii_lowercase())))
    }

    /// The host that a rule in `namespace` means by `text`: a name without a dot is a service of that namespace.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn resolve(text: &str, namespace: &Namespace, cluster_domain: &str) -> Result<Self, NameError> {
        if text.contains('.') || text.contains(':') || text == "*" || text.is_empty() {
            Self::new(text)
        } else {
            Self::new(format!("{text}.{namespace}.svc.{cluster_domain}"))
        }
    }

    /// The host of a Kubernetes service.
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn of_service(name: &ObjectName, namespace: &Namespace, cluster_domain: &str) -> Result<Self, NameError> {
        Self::new(format!("{name}.{namespace}.svc.{cluster_domain}"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `*` or starts with `*.`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether every host that `other` stands for is one that `self` stands for.
    #[must_use]
    pub fn covers(&self, other: &Host) -> bool {
        match self.0.strip_prefix('*') {
            None => self == other,
            Some(suffix) => {
                let name = other.0.strip_prefix('*').unwrap_or(&other.0);
                name.ends_with(suffix) && (other.is_wildcard() || name.len() > suffix.len())
            }
        }
    }

    /// Whether some host is meant by both.
    #[must_use]
    pub fn overlaps(&self, other: &Host) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The host itself and every wildcard that covers it, most specific first: `a.b.c`, `*.b.c`, `*.c`, `*`.
    pub fn specific_first(&self) -> impl Iterator<Item = Host> + '_ {
        let own = std::iter::once(self.clone());
        let name = self.0.strip_prefix("*.").unwrap_or(&self.0);
        let wild = name
            .match_indices('.')
            .map(move |(at, _)| name.get(at..).unwrap_or_default());
        let above = wild.map(|suffix| Host(Arc::from(format!("*{suffix}"))));
        let any = (&*self.0 != "*").then(|| Host(Arc::from("*")));
        own.chain(above).chain(any)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Host {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
