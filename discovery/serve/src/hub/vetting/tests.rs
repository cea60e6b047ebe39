use envoy_types::pb::envoy::config::{core::v3::Metadata, route::v3 as pb};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind as ValueKind};
use mizzen_model::{Kind, Namespace, ObjectName};
use mizzen_xds::ResourceType;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

pub(in crate::hub) const TABLE: &str = "8080";

fn object(name: &str) -> ObjectKey {
    ObjectKey::new(
        Kind::VirtualService,
        Namespace::new("shop").unwrap(),
        ObjectName::new(name).unwrap(),
    )
}

/// The table of virtual services: the name of each and what its only route is called.
pub(in crate::hub) fn table(services: &[(String, String)]) -> Vec<u8> {
    let host = |(name, route): &(String, String)| {
        let config = format!("/apis/networking.istio.io/v1/namespaces/shop/virtual-service/{name}");
        let value = Value {
            kind: Some(ValueKind::StringValue(config)),
        };
        let about = Struct {
            fields: [("config".to_owned(), value)].into(),
        };
        pb::VirtualHost {
            name: name.clone(),
            domains: vec![name.clone()],
            routes: vec![pb::Route {
                name: route.clone(),
                metadata: Some(Metadata {
                    filter_metadata: [("istio".to_owned(), about)].into(),
                    ..Metadata::default()
                }),
                ..pb::Route::default()
            }],
            ..pb::VirtualHost::default()
        }
    };
    pb::RouteConfiguration {
        name: TABLE.into(),
        virtual_hosts: services.iter().map(host).collect(),
        ..pb::RouteConfiguration::default()
    }
    .encode_to_vec()
}

/// What the virtual services of a table route by, by name.
fn routes(body: &[u8]) -> BTreeMap<String, String> {
    let read = pb::RouteConfiguration::decode(body).unwrap();
    let hosts = read.virtual_hosts.into_iter();
    hosts
        .map(|host| {
            (
                host.name,
                host.routes.first().map(|route| route.name.clone()).unwrap_or_default(),
            )
        })
        .collect()
}

/// An Envoy that refuses a table with a bad route, and the vetting of what it is sent.
#[derive(Default)]
struct Play {
    vetting: Vetting,
    services: Vec<(String, String)>,
    has: Option<Resource>,
    last_sent: Option<Version>,
    guilty: BTreeMap<ObjectKey, String>,
    cleared: BTreeSet<ObjectKey>,
    sent: usize,
}

impl Play {
    fn set(&mut self, name: &str, route: &str) {
        self.services.retain(|(known, _)| known != name);
        self.services.push((name.to_owned(), route.to_owned()));
        self.services.sort();
    }

    /// Sends what is due until nothing more is.
    fn settle(&mut self) {
        let mut due = true;
        while std::mem::take(&mut due) {
            self.sent += 1;
            assert!(self.sent < 10_000, "does not come to rest");
            let body = table(&self.services);
            let body = self.vetting.vet(&body).unwrap_or(body);
            let resource = Resource::present(ResourceType::Route, TABLE, &[], &body);
            if self.last_sent.replace(resource.version()) == Some(resource.version()) {
                // The same is not sent twice in a row, and nothing is heard.
                return;
            }
            let bad = routes(&body).values().any(|route| route.starts_with("bad"));
            let verdict = if bad {
                let verdict = self
                    .vetting
                    .refused(1, &resource, "no", self.has.as_ref(), Instant::now());
                assert!(verdict.explained);
                verdict
            } else {
                let verdict = self.vetting.accepted(&resource);
                self.has = Some(resource);
                verdict
            };
            due = !verdict.tables.is_empty();
            self.guilty.extend(verdict.guilty);
            self.cleared.extend(verdict.cleared);
        }
    }

    fn in_force(&self) -> BTreeMap<String, String> {
        self.has.as_ref().map(|has| routes(&has.body())).unwrap_or_default()
    }
}

// G1
#[test]
fn the_one_that_changed_is_guilty_and_keeps_its_last_good_routes() {
    let mut play = Play::default();
    for name in ["a", "b", "c"] {
        play.set(name, "good");
    }
    play.settle();
    play.set("b", "bad");
    play.set("c", "better");
    play.vetting.accepted(&Resource::present(
        ResourceType::Route,
        TABLE,
        &[],
        &table(&[("c".into(), "better".into())]),
    ));
    play.settle();
    assert_eq!(play.guilty.keys().collect::<Vec<_>>(), [&object("b")]);
    assert!(play.guilty[&object("b")].contains("the routes that it had stay in force"));
    let expected = [("a", "good"), ("b", "good"), ("c", "better")];
    assert_eq!(
        play.in_force(),
        expected.map(|(name, route)| (name.to_owned(), route.to_owned())).into()
    );

    // Repaired, it is tried again.
    let verdict = play.vetting.changed(&BTreeSet::from([&object("b")]), false);
    assert_eq!(verdict.cleared, BTreeSet::from([object("b")]));
    play.set("b", "repaired");
    play.settle();
    assert_eq!(play.in_force()["b"], "repaired");
    assert_eq!(play.vetting.vet(&table(&play.services)), None);
}

// G1
#[test]
fn without_last_good_routes_the_guilty_answers_503() {
    let mut play = Play::default();
    play.set("a", "bad");
    play.set("b", "good");
    play.settle();
    assert!(play.guilty[&object("a")].contains("503"));
    assert_eq!(play.in_force()["a"], "refused");
    assert_eq!(play.in_force()["b"], "good");
}

// G1
#[test]
fn who_is_known_from_before_a_restart_is_suspected_alone() {
    let mut play = Play::default();
    for name in ["a", "b", "c", "d"] {
        play.set(name, if name == "c" { "bad" } else { "good" });
    }
    play.vetting.known.lock().insert(object("c"));
    play.settle();
    assert_eq!(play.guilty.keys().collect::<Vec<_>>(), [&object("c")]);
    assert_eq!(play.sent, 2, "refused, and accepted without it");
    play.vetting.changed(&BTreeSet::from([&object("c")]), false);
    assert!(play.vetting.known.lock().is_empty());
}

#[test]
fn a_trial_whose_stream_ends_lets_everybody_in() {
    let mut play = Play::default();
    let services: Vec<_> = ["a", "b", "c"].map(|name| (name.to_owned(), "bad".to_owned())).into();
    let body = table(&services);
    let resource = Resource::present(ResourceType::Route, TABLE, &[], &body);
    let verdict = play.vetting.refused(7, &resource, "no", None, Instant::now());
    assert!(verdict.guilty.is_empty() && verdict.explained);
    assert!(play.vetting.vet(&body).is_some());
    assert_eq!(play.vetting.ended(8), Verdict::default());
    assert_eq!(play.vetting.ended(7).tables, BTreeSet::from([Arc::from(TABLE)]));
    assert_eq!(play.vetting.vet(&body), None);
    let late = Instant::now() + PATIENCE * 2;
    assert_eq!(play.vetting.sweep(late), Verdict::default());
}

proptest! {
    // A case decodes a table many times.
    #![proptest_config(ProptestConfig::with_cases(32))]

    // G1
    #[test]
    fn exactly_the_bad_ones_are_left_out(bad in prop::collection::vec(prop::bool::weighted(0.1), 1..50), before in any::<bool>()) {
        let mut play = Play::default();
        if before {
            for n in 0..bad.len() {
                play.set(&format!("vs-{n}"), "older");
            }
            play.settle();
        }
        for (n, bad) in bad.iter().enumerate() {
            play.set(&format!("vs-{n}"), &format!("{}-{n}", if *bad { "bad" } else { "good" }));
        }
        play.sent = 0;
        play.settle();
        for (n, bad) in bad.iter().enumerate() {
            let (name, now) = (format!("vs-{n}"), play.in_force());
            prop_assert_eq!(play.guilty.contains_key(&object(&name)), *bad, "{}", name);
            let expected = match (*bad, before) {
                (false, _) => format!("good-{n}"),
                (true, true) => "older".to_owned(),
                (true, false) => "refused".to_owned(),
            };
            prop_assert_eq!(now.get(&name), Some(&expected));
        }
        let guilty = bad.iter().filter(|bad| **bad).count();
        let most = 4 + (guilty + 1) * 4 * (bad.len().ilog2() as usize + 1);
        prop_assert!(play.sent <= most, "{} tables for {} guilty of {}", play.sent, guilty, bad.len());
    }
}
