//! Any bytes as a resource of any kind: the conversion never panics, gives a value or a problem, and what it gives can
//! be decided upon.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mizzen_proxy_config::{Kind, Resource};

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
    let outcome = Resource::decode(kind, body);
    assert!(outcome.value.is_some() || !outcome.problems.is_empty());
    let _ = outcome.problems.to_string();
    match outcome.value {
        Some(Resource::RouteConfig(config)) => {
            let _ = mizzen_decide::find_virtual_host(&config, b"shop.example:80");
        }
        Some(Resource::Endpoints(set)) => {
            let cluster = Resource::decode(Kind::Cluster, b"\x0a\x01a").value;
            if let Some(Resource::Cluster(cluster)) = cluster {
                let mut balancer = mizzen_decide::Balancer::new(&cluster, set, 0);
                let _ = balancer.pick(&mizzen_decide::Pick::default());
            }
        }
        _ => {}
    }
});
