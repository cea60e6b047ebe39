//! What holds for any order of events and any change.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mizzen_index::{Event, Index};
use mizzen_model::{Changes, Mesh};
use mizzen_translate::{NodeKind, Scope, TypeUrl, affected, names, names_affected, resource};
use proptest::prelude::*;
use serde_json::Value;

/// The objects of all cases that can be together: of those with one name the first.
fn everything() -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let objects = support::cases()
        .into_iter()
        .flat_map(|(_, text)| support::case(&text).1);
    objects
        .filter(|object| seen.insert(support::read(object.clone()).reference()))
        .collect()
}

fn proxies(mesh: &Mesh) -> Vec<Scope> {
    let scope = |pod, kind, on_demand| support::scope(mesh, pod, kind, on_demand);
    vec![
        scope("tutorial/customer-1", NodeKind::Sidecar, false),
        scope("tutorial/customer-1", NodeKind::Sidecar, true),
        scope("tutorial/recommendation-v1-1", NodeKind::Sidecar, false),
        scope("data/store-1", NodeKind::Sidecar, false),
        scope("data/legacy-1", NodeKind::Sidecar, true),
        scope("istio-system/istio-ingressgateway-1", NodeKind::Gateway, false),
        scope("istio-system/istio-ingressgateway-1", NodeKind::Gateway, false).for_native(),
    ]
}

type Seen = BTreeMap<(TypeUrl, String), Option<Vec<u8>>>;

/// All that a proxy could ask for.
fn seen(mesh: &Mesh, scope: &Scope, asked: &BTreeSet<(TypeUrl, String)>) -> Seen {
    let get = |(of, name): &(TypeUrl, String)| {
        let body = resource(mesh, scope, *of, name).map(|found| found.body.to_vec());
        ((*of, name.clone()), body)
    };
    asked.iter().map(get).collect()
}

/// Names of everything, for any proxy.
fn askable(mesh: &Mesh) -> BTreeSet<(TypeUrl, String)> {
    let mut asked = BTreeSet::new();
    for scope in proxies(mesh) {
        for name in names(mesh, &scope, TypeUrl::Cluster) {
            asked.insert((TypeUrl::Endpoints, name.clone()));
            asked.insert((TypeUrl::Cluster, name));
        }
        for name in names(mesh, &scope, TypeUrl::Listener) {
            let port = name.rsplit('_').next().unwrap_or_default().to_owned();
            asked.insert((TypeUrl::Route, format!("http.{port}")));
            for service in mesh.services() {
                let (short, space) = (&service.name, &service.namespace);
                let mut authorities = vec![service.host.to_string(), short.to_string(), format!("{short}.{space}")];
                authorities.extend(service.addresses.iter().map(ToString::to_string));
                authorities.extend(["www.example.com".to_owned(), format!("pod-0.{}", service.host)]);
                asked.extend(
                    authorities
                        .into_iter()
                        .map(|name| (TypeUrl::VirtualHost, format!("{port}/{name}"))),
                );
            }
            asked.insert((TypeUrl::Route, port));
            asked.insert((TypeUrl::Listener, name));
        }
    }
    asked
}

// G1
#[test]
fn what_is_listed_is_there() {
    let mesh = support::index(everything());
    for scope in proxies(&mesh) {
        for of in TypeUrl::ALL {
            let listed = names(&mesh, &scope, of);
            assert!(listed.is_sorted());
            for name in listed {
                assert!(resource(&mesh, &scope, of, &name).is_some(), "{scope:?} {of} {name}");
            }
        }
    }
}

// G2
#[test]
fn proxies_with_one_key_get_the_same_bytes() {
    let mesh = support::index(everything());
    let asked = askable(&mesh);
    let mut shared: BTreeMap<(TypeUrl, String, Arc<str>), Option<Vec<u8>>> = BTreeMap::new();
    for scope in proxies(&mesh) {
        let keys = scope.shared_keys(&mesh);
        for ((of, name), body) in seen(&mesh, &scope, &asked) {
            let key = (of, name.clone(), keys.of(&mesh, of, &name));
            let known = shared.entry(key.clone()).or_insert_with(|| body.clone());
            assert!(*known == body, "{key:?}");
        }
    }
}

fn differing(before: &Seen, after: &Seen) -> Vec<(TypeUrl, String)> {
    after
        .iter()
        .filter(|(key, body)| before.get(*key) != Some(*body))
        .map(|(key, _)| key.clone())
        .collect()
}

struct Step {
    mesh: Mesh,
    changes: Changes,
}

fn step(index: &mut Index, event: Event) -> Step {
    let changes = index.apply(event);
    Step {
        mesh: index.mesh().clone(),
        changes,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    // G1
    #[test]
    fn the_order_of_events_does_not_show(order in Just(everything()).prop_shuffle()) {
        let (one, other) = (support::index(everything()), support::index(order));
        let asked = askable(&one);
        prop_assert_eq!(&asked, &askable(&other));
        for scope in proxies(&one) {
            let differ = differing(&seen(&one, &scope, &asked), &seen(&other, &scope, &asked));
            prop_assert!(differ.is_empty(), "{scope:?} {differ:?}");
        }
    }

    // G2
    #[test]
    fn whatever_differs_was_said_to_be_affected(picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..4)) {
        let objects = everything();
        let mut index = support::empty();
        index.apply_all(objects.iter().map(|json| Event::Apply(support::read(json.clone()))));
        let whole = index.mesh().clone();
        let scopes = proxies(&whole);
        let asked = askable(&whole);
        for pick in picks {
            let object = support::read(pick.get(&objects).clone());
            for event in [Event::Delete(object.reference()), Event::Apply(object)] {
                let before = index.mesh().clone();
                let Step { mesh, changes } = step(&mut index, event);
                for scope in &scopes {
                    for (of, name) in differing(&seen(&before, scope, &asked), &seen(&mesh, scope, &asked)) {
                        prop_assert!(
                            affected(&mesh, &changes, scope, of, &name),
                            "{scope:?} {of} {name} differs after {changes:?}"
                        );
                    }
                    for of in [TypeUrl::Cluster, TypeUrl::Listener] {
                        if names(&before, scope, of) != names(&mesh, scope, of) {
                            prop_assert!(names_affected(&mesh, &changes, scope, of), "{scope:?} {of} after {changes:?}");
                        }
                    }
                }
            }
        }
    }
}
