use super::*;
use mizzen_proxy_config::{BreakerLimits, Discovery, Health, Locality, TransportSocket, UpstreamProtocol};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

fn cluster(lb: LbPolicy) -> Cluster {
    Cluster {
        name: "outbound|80||a".into(),
        discovery: Discovery::Eds("outbound|80||a".into()),
        lb,
        connect_timeout: Duration::from_secs(1),
        breaker: BreakerLimits::default(),
        breaker_high: BreakerLimits::default(),
        outlier: None,
        panic_percent: 0,
        locality_weighted: false,
        protocol: UpstreamProtocol::Http1,
        sni_from_authority: false,
        san_from_authority: false,
        max_requests_per_connection: None,
        idle_timeout: None,
        tcp_keepalive: None,
        sockets: Box::default(),
        socket: TransportSocket::Raw,
        bind: None,
        service: None,
        subset: "".into(),
    }
}

const OUTLIER: Outlier = Outlier {
    consecutive_5xx: Some(2),
    consecutive_gateway: None,
    split_local_origin: false,
    consecutive_local_origin: None,
    interval: Duration::from_secs(10),
    base_ejection_time: Duration::from_secs(30),
    max_ejection_time: Duration::from_secs(300),
    max_ejection_percent: 100,
    always_eject_one: false,
};

fn endpoint(last: u8) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Ip(([10, 0, 0, last], 80).into()),
        weight: 1,
        health: Health::Healthy,
        locality: 0,
        priority: 0,
        socket_labels: [].into(),
        hostname: "".into(),
        workload: None,
    }
}

fn set(endpoints: Vec<Endpoint>) -> Arc<EndpointSet> {
    Arc::new(EndpointSet {
        name: "outbound|80||a".into(),
        endpoints: endpoints.into(),
        localities: Box::new([Locality::default()]),
        overprovisioning: 140,
    })
}

fn last(balancer: &Balancer, id: HostId) -> u8 {
    match balancer.endpoint(id).unwrap().address {
        EndpointAddress::Ip(std::net::SocketAddr::V4(address)) => address.ip().octets()[3],
        _ => panic!("not IPv4"),
    }
}

fn picked(balancer: &mut Balancer, times: u64, hash: Option<u64>) -> BTreeMap<u8, u64> {
    let mut counts = BTreeMap::new();
    for random in 0..times {
        let random = crate::mix(random, 99);
        if let Some(id) = balancer.pick(&Pick {
            random,
            hash,
            ..Pick::default()
        }) {
            *counts.entry(last(balancer, id)).or_default() += 1;
        }
    }
    counts
}

// C6
#[test]
fn round_robin_takes_turns() {
    let mut balancer = Balancer::new(&cluster(LbPolicy::RoundRobin), set((1..=3).map(endpoint).collect()), 0);
    assert_eq!(
        picked(&mut balancer, 30, None),
        BTreeMap::from([(1, 10), (2, 10), (3, 10)])
    );
}

// C6
#[test]
fn round_robin_keeps_to_weights_at_every_moment() {
    let mut endpoints: Vec<_> = (1..=2).map(endpoint).collect();
    endpoints[0].weight = 3;
    let mut balancer = Balancer::new(&cluster(LbPolicy::RoundRobin), set(endpoints), 7);
    for _ in 0..20 {
        let counts = picked(&mut balancer, 8, None);
        assert!((5..=7).contains(&counts[&1]), "{counts:?}");
    }
}

// C6
#[test]
fn random_keeps_to_weights() {
    let mut endpoints: Vec<_> = (1..=2).map(endpoint).collect();
    endpoints[1].weight = 4;
    let mut balancer = Balancer::new(&cluster(LbPolicy::Random), set(endpoints), 0);
    let counts = picked(&mut balancer, 10_000, None);
    assert!((7_800..=8_200).contains(&counts[&2]), "{counts:?}");
}

// C6
#[test]
fn least_request_prefers_the_idle() {
    let mut balancer = Balancer::new(
        &cluster(LbPolicy::LeastRequest { choices: 2 }),
        set((1..=2).map(endpoint).collect()),
        0,
    );
    let first = balancer.find(&EndpointAddress::Ip(([10, 0, 0, 1], 80).into())).unwrap();
    (0..5).for_each(|_| balancer.start(first));
    let counts = picked(&mut balancer, 1000, None);
    // Both draws hit the busy one a quarter of the time.
    assert!((650..=850).contains(&counts[&2]), "{counts:?}");
    (0..5).for_each(|_| balancer.finish(first));
    assert_eq!(balancer.active(first), 0);
}

// C6
#[test]
fn a_key_stays_unless_its_endpoint_goes() {
    let maglev = cluster(LbPolicy::Maglev { table_size: 65_537 });
    let mut balancer = Balancer::new(&maglev, set((1..=5).map(endpoint).collect()), 0);
    let of = |balancer: &mut Balancer, key: u64| picked(balancer, 3, Some(key)).into_keys().collect::<Vec<_>>();
    let before: Vec<_> = (0..500).map(|key| of(&mut balancer, key * 7919)).collect();
    assert!(before.iter().all(|endpoints| endpoints.len() == 1));
    balancer.update(&maglev, set((1..=4).map(endpoint).collect()));
    for (key, old) in (0..500).zip(&before) {
        let new = of(&mut balancer, key * 7919);
        assert!(new == *old || *old == [5], "key {key} moved from {old:?} to {new:?}");
    }
    let share = before.iter().filter(|endpoints| **endpoints == [5]).count();
    assert!((60..=140).contains(&share), "{share}");
}

#[test]
fn only_healthy_endpoints_are_used_then_degraded_then_none() {
    let mut endpoints: Vec<_> = (1..=4).map(endpoint).collect();
    endpoints[1].health = Health::Degraded;
    endpoints[2].health = Health::Unhealthy;
    endpoints[3].health = Health::Draining;
    let random = cluster(LbPolicy::Random);
    let mut balancer = Balancer::new(&random, set(endpoints.clone()), 0);
    assert_eq!(picked(&mut balancer, 50, None), BTreeMap::from([(1, 50)]));
    balancer.update(&random, set(endpoints.split_off(1)));
    assert_eq!(picked(&mut balancer, 50, None), BTreeMap::from([(2, 50)]));
    let mut gone: Vec<_> = (1..=2).map(endpoint).collect();
    gone.iter_mut().for_each(|endpoint| endpoint.health = Health::Unhealthy);
    balancer.update(&random, set(gone.clone()));
    assert_eq!(picked(&mut balancer, 50, None), BTreeMap::new());
    let panicking = Cluster {
        panic_percent: 50,
        ..random
    };
    balancer.update(&panicking, set(gone));
    assert_eq!(picked(&mut balancer, 50, None).len(), 2);
}

#[test]
fn the_next_priority_takes_what_the_first_cannot_carry() {
    let mut endpoints: Vec<_> = (1..=4).map(endpoint).collect();
    endpoints[2].priority = 1;
    endpoints[3].priority = 1;
    let random = cluster(LbPolicy::Random);
    let mut balancer = Balancer::new(&random, set(endpoints.clone()), 0);
    assert!(picked(&mut balancer, 200, None).keys().all(|last| *last <= 2));
    endpoints[0].health = Health::Unhealthy;
    balancer.update(&random, set(endpoints));
    // One of two healthy, times 1.4: 70 % stay.
    let counts = picked(&mut balancer, 10_000, None);
    assert!((6_700..=7_300).contains(&counts[&2]), "{counts:?}");
}

#[test]
fn localities_get_their_weights() {
    let mut endpoints: Vec<_> = (1..=3).map(endpoint).collect();
    endpoints[2].locality = 1;
    let near = Locality {
        weight: Some(1),
        ..Locality::default()
    };
    let far = Locality {
        weight: Some(3),
        ..Locality::default()
    };
    let weighted = Arc::new(EndpointSet {
        localities: Box::new([near, far]),
        ..(*set(endpoints)).clone()
    });
    let cluster = Cluster {
        locality_weighted: true,
        ..cluster(LbPolicy::Random)
    };
    let counts = picked(&mut Balancer::new(&cluster, weighted, 0), 10_000, None);
    assert!((7_300..=7_700).contains(&counts[&3]), "{counts:?}");
}

// D2
#[test]
fn a_retry_goes_to_another_endpoint_when_there_is_one() {
    let mut balancer = Balancer::new(&cluster(LbPolicy::Random), set((1..=3).map(endpoint).collect()), 0);
    for random in 0..300 {
        let first = balancer
            .pick(&Pick {
                random,
                ..Pick::default()
            })
            .unwrap();
        let second = balancer
            .pick(&Pick {
                random,
                tried: &[first],
                draws: 1,
                ..Pick::default()
            })
            .unwrap();
        assert_ne!(first, second);
        let third = balancer
            .pick(&Pick {
                random,
                tried: &[first, second],
                draws: 1,
                ..Pick::default()
            })
            .unwrap();
        assert!(third != first && third != second);
        let all = [first, second, third];
        assert!(
            balancer
                .pick(&Pick {
                    random,
                    tried: &all,
                    draws: 1,
                    ..Pick::default()
                })
                .is_some()
        );
    }
}

// D4
#[test]
fn a_failing_endpoint_is_set_aside_and_comes_back() {
    let settings = Cluster {
        outlier: Some(OUTLIER),
        ..cluster(LbPolicy::RoundRobin)
    };
    let mut balancer = Balancer::new(&settings, set((1..=2).map(endpoint).collect()), 0);
    let bad = balancer.find(&EndpointAddress::Ip(([10, 0, 0, 1], 80).into())).unwrap();
    let start = Instant::now();
    assert!(!balancer.report(bad, Report::Status(500), start));
    assert!(!balancer.report(bad, Report::Status(200), start));
    assert!(!balancer.report(bad, Report::Status(503), start));
    assert!(balancer.report(bad, Report::LocalFailure, start));
    assert_eq!(balancer.ejected(), 1);
    assert_eq!(picked(&mut balancer, 10, None), BTreeMap::from([(2, 10)]));
    balancer.sweep(start + Duration::from_secs(10));
    assert_eq!(balancer.ejected(), 1);
    balancer.sweep(start + Duration::from_secs(31));
    assert_eq!(picked(&mut balancer, 10, None).len(), 2);
    // The second time lasts twice as long.
    let again = start + Duration::from_secs(32);
    balancer.report(bad, Report::Status(500), again);
    assert!(balancer.report(bad, Report::Status(500), again));
    balancer.sweep(again + Duration::from_secs(45));
    assert_eq!(balancer.ejected(), 1);
    balancer.sweep(again + Duration::from_secs(61));
    assert_eq!(balancer.ejected(), 0);
}

// D4
#[test]
fn no_more_than_the_allowed_share_is_set_aside() {
    let outlier = Some(Outlier {
        max_ejection_percent: 50,
        ..OUTLIER
    });
    let settings = Cluster {
        outlier,
        ..cluster(LbPolicy::Random)
    };
    let mut balancer = Balancer::new(&settings, set((1..=4).map(endpoint).collect()), 0);
    let now = Instant::now();
    for last in 1..=4 {
        let id = balancer
            .find(&EndpointAddress::Ip(([10, 0, 0, last], 80).into()))
            .unwrap();
        (0..5).for_each(|_| {
            balancer.report(id, Report::Status(500), now);
        });
    }
    assert_eq!(balancer.ejected(), 2);
}

#[test]
fn an_id_outlives_its_endpoint_only_while_requests_run() {
    let random = cluster(LbPolicy::Random);
    let mut balancer = Balancer::new(&random, set(vec![endpoint(1)]), 0);
    let old = balancer.pick(&Pick::default()).unwrap();
    balancer.start(old);
    balancer.update(&random, set(vec![endpoint(2)]));
    assert_eq!(balancer.endpoint(old), None);
    assert_eq!(balancer.active(old), 1);
    balancer.finish(old);
    balancer.update(&random, set(vec![endpoint(2), endpoint(3)]));
    assert_eq!(balancer.endpoint(old), None);
    let new = balancer.find(&EndpointAddress::Ip(([10, 0, 0, 3], 80).into())).unwrap();
    assert_ne!(new, old);
    balancer.finish(old);
    balancer.start(old);
    assert_eq!(balancer.active(new), 0);
}

fn policies() -> impl Strategy<Value = LbPolicy> {
    prop_oneof![
        Just(LbPolicy::RoundRobin),
        Just(LbPolicy::Random),
        Just(LbPolicy::LeastRequest { choices: 2 }),
        Just(LbPolicy::RingHash {
            min_size: 1024,
            max_size: 8192
        }),
    ]
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let one = (1..20_u8, 1..5_u32, 0..4_u8, 0..3_u8).prop_map(|(last, weight, health, priority)| Endpoint {
        weight,
        priority,
        health: [Health::Healthy, Health::Degraded, Health::Draining, Health::Unhealthy][usize::from(health)],
        ..endpoint(last)
    });
    proptest::collection::vec(one, 0..12).prop_map(|mut endpoints| {
        // Of an address that stands there twice only the first counts.
        let mut seen = Vec::new();
        endpoints.retain(|endpoint: &Endpoint| {
            let new = !seen.contains(&endpoint.address);
            seen.push(endpoint.address.clone());
            new
        });
        endpoints
    })
}

proptest! {
    // Through any changes: picks name endpoints of the current set, and there is one whenever one is healthy.
    #[test]
    fn a_pick_is_in_the_set(policy in policies(), sets in proptest::collection::vec(endpoints(), 1..4), draws in proptest::collection::vec((any::<u64>(), any::<Option<u64>>()), 1..20)) {
        let cluster = Cluster { outlier: Some(OUTLIER), ..cluster(policy) };
        let mut balancer = Balancer::new(&cluster, set(Vec::new()), 5);
        let now = Instant::now();
        let mut running = Vec::new();
        for endpoints in sets {
            let usable = endpoints.iter().any(|endpoint| endpoint.health == Health::Healthy);
            balancer.update(&cluster, set(endpoints));
            for (random, hash) in &draws {
                let tried: Vec<_> = running.iter().rev().take(2).copied().collect();
                let picked = balancer.pick(&Pick { random: *random, hash: *hash, tried: &tried, draws: 2 });
                prop_assert!(picked.is_some() || !usable || balancer.ejected() > 0);
                if let Some(id) = picked {
                    let endpoint = balancer.endpoint(id);
                    prop_assert!(endpoint.is_some_and(|endpoint| !matches!(endpoint.health, Health::Unhealthy | Health::Draining)));
                    balancer.start(id);
                    balancer.report(id, if random % 3 == 0 { Report::Status(200) } else { Report::Status(503) }, now);
                    running.push(id);
                }
            }
        }
        for id in running {
            balancer.finish(id);
            prop_assert!(balancer.endpoint(id).is_some() || balancer.active(id) < 20);
        }
    }
}
