//! What a change of the mesh may touch, in the words of those who depend on it.

use std::collections::{BTreeSet, btree_set};
use std::net::IpAddr;

use mizzen_identity::Namespace;

use crate::host::Host;
use crate::name::ObjectKey;
use crate::route::GatewayRef;

/// One thing that changed. A change names what it was before as well as what it is now (the old and the new hosts of
/// a route), so that whatever depended on either is computed again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// The mesh's configuration: everything.
    Config,
    /// A namespace came, went or has other labels.
    Namespace(Namespace),
    /// The definition of a service, not its endpoints.
    Service {
        /// The service.
        host: Host,
        /// Its namespace.
        namespace: Namespace,
        /// Its addresses, before and after.
        addresses: BTreeSet<IpAddr>,
        /// Its port numbers, before and after.
        ports: BTreeSet<u16>,
    },
    /// The endpoints of a service.
    Endpoints(Host),
    /// A workload: labels, services that it is behind, existence.
    Workload(ObjectKey),
    /// A virtual service, for one of its hosts in one of its places.
    Route {
        /// Which object.
        key: ObjectKey,
        /// The host, perhaps a wildcard.
        host: Host,
        /// The place.
        at: GatewayRef,
    },
    /// A destination rule.
    Rule {
        /// Which object.
        key: ObjectKey,
        /// The host, perhaps a wildcard.
        host: Host,
    },
    /// A gateway.
    Gateway(ObjectKey),
    /// A peer authentication in this namespace.
    PeerAuthentication(Namespace),
}

/// All that changed in a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(BTreeSet<Change>);

impl Changes {
    /// Whether nothing did.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many things did.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// They, sorted.
    pub fn iter(&self) -> btree_set::Iter<'_, Change> {
        self.0.iter()
    }

    /// Adds one.
    pub fn insert(&mut self, change: Change) {
        self.0.insert(change);
    }
}

impl From<Change> for Changes {
    fn from(change: Change) -> Self {
        Self(BTreeSet::from([change]))
    }
}

impl FromIterator<Change> for Changes {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        Self(changes.into_iter().collect())
    }
}

impl Extend<Change> for Changes {
    fn extend<I: IntoIterator<Item = Change>>(&mut self, changes: I) {
        self.0.extend(changes);
    }
}

impl IntoIterator for Changes {
    type Item = Change;
    type IntoIter = btree_set::IntoIter<Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Changes {
    type Item = &'a Change;
    type IntoIter = btree_set::Iter<'a, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
