//! Who is believed by whom when Envoys refuse routes: proxies of one kind in one namespace, and nobody else.
//!
//! A proxy says itself what it accepts and refuses, so what it says changes only what its own like get: no workload takes the
//! routes of another namespace away, or those of gateways, by refusing them. Proxies of one namespace share route
//! configurations, those of different ones do not, so this costs no sharing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use mizzen_model::{Namespace, ObjectKey};
use mizzen_translate::{NodeKind, Scope};
use mizzen_xds::{Resource, StreamId};

use super::vetting::{Verdict, Vetting};
use crate::watch::Refused;

/// Proxies that believe each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Audience {
    gateway: bool,
    namespace: Namespace,
}

impl Audience {
    pub(crate) fn of(scope: &Scope) -> Self {
        Self {
            gateway: scope.kind() == NodeKind::Gateway,
            namespace: scope.workload().namespace.clone(),
        }
    }
}

/// What is left out, for each audience.
#[derive(Default)]
pub(crate) struct Vettings {
    of: BTreeMap<Audience, Vetting>,
    /// Of whom it is known already that proxies refuse them.
    pub(super) known: Refused,
}

impl Vettings {
    /// The table without what is left out for the audience; nothing if it has none of that.
    pub(crate) fn vet(&self, audience: &Audience, table: &[u8]) -> Option<Vec<u8>> {
        self.of.get(audience)?.vet(table)
    }

    /// An Envoy accepted a table.
    pub(crate) fn accepted(&mut self, audience: &Audience, table: &Resource) -> Verdict {
        self.vetting(audience).accepted(table)
    }

    /// An Envoy refused a table. `accepted` is what it accepted of it last.
    pub(crate) fn refused(
        &mut self,
        audience: &Audience,
        stream: StreamId,
        table: &Resource,
        message: &str,
        accepted: Option<&Resource>,
        now: Instant,
    ) -> Verdict {
        self.vetting(audience).refused(stream, table, message, accepted, now)
    }

    /// Virtual services changed; a delegate's change may repair whoever delegates to it.
    pub(crate) fn changed(&mut self, keys: &BTreeSet<&ObjectKey>, delegates: bool) -> Verdict {
        self.known.lock().retain(|object| !keys.contains(object));
        self.each(|vetting| vetting.changed(keys, delegates))
    }

    /// A stream ended: what was on trial there is let in, and whoever still refuses it says so.
    pub(crate) fn ended(&mut self, stream: StreamId) -> Verdict {
        self.each(|vetting| vetting.ended(stream))
    }

    /// Ends trials from which nothing more is heard.
    pub(crate) fn sweep(&mut self, now: Instant) -> Verdict {
        self.each(|vetting| vetting.sweep(now))
    }

    fn vetting(&mut self, audience: &Audience) -> &mut Vetting {
        let known = &self.known;
        self.of
            .entry(audience.clone())
            .or_insert_with(|| Vetting::knowing(known.clone()))
    }

    fn each(&mut self, mut act: impl FnMut(&mut Vetting) -> Verdict) -> Verdict {
        let mut all = Verdict::default();
        for vetting in self.of.values_mut() {
            let Verdict {
                mut tables,
                mut guilty,
                mut cleared,
                explained,
            } = act(vetting);
            all.tables.append(&mut tables);
            all.guilty.append(&mut guilty);
            all.cleared.append(&mut cleared);
            all.explained |= explained;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use mizzen_model::{Kind, ObjectName};

    use super::*;
    use crate::hub::vetting::tests::{TABLE, table};
    use mizzen_xds::ResourceType;

    fn audience(namespace: &str, gateway: bool) -> Audience {
        Audience {
            gateway,
            namespace: Namespace::new(namespace).unwrap(),
        }
    }

    // E7, F6
    #[test]
    fn nobody_takes_routes_from_other_namespaces_or_from_gateways_by_refusing_them() {
        let (shop, spare, gateway) = (
            audience("shop", false),
            audience("spare", false),
            audience("shop", true),
        );
        let mut vettings = Vettings::default();
        let body = table(&[("a".into(), "one".into())]);
        let resource = Resource::present(ResourceType::Route, TABLE, &[], &body);
        let verdict = vettings.refused(&spare, 7, &resource, "no", None, Instant::now());
        assert_eq!(verdict.guilty.len(), 1);
        assert!(vettings.vet(&spare, &body).is_some());
        assert_eq!(vettings.vet(&shop, &body), None);
        assert_eq!(vettings.vet(&gateway, &body), None);

        // Nor does anybody vouch for another.
        vettings.accepted(&spare, &resource);
        let verdict = vettings.refused(&shop, 8, &resource, "no", None, Instant::now());
        assert_eq!(verdict.guilty.len(), 1);

        let key = ObjectKey::new(
            Kind::VirtualService,
            Namespace::new("shop").unwrap(),
            ObjectName::new("a").unwrap(),
        );
        let verdict = vettings.changed(&BTreeSet::from([&key]), false);
        assert_eq!(verdict.cleared, BTreeSet::from([key]));
        assert_eq!(vettings.vet(&shop, &body), None);
        assert_eq!(vettings.vet(&spare, &body), None);
    }
}
