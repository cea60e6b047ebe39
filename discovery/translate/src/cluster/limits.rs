//! How much an upstream gets, and which of its endpoints.

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::v3 as types;
use mizzen_model::{
    ConnectionPool, ConsistentHash, LoadBalancer, OutlierDetection, Policy, SimpleLb, TcpKeepalive, Warmup,
};

use crate::proto::{big, duration, number};

use cluster::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig,
    SlowStartConfig,
};

/// No limit unless somebody sets one: Envoy's own defaults (1024) would be a surprise.
pub(super) fn circuit_breakers(pool: Option<&ConnectionPool>) -> cluster::CircuitBreakers {
    let limit = |limit: Option<u32>| number(limit.unwrap_or(u32::MAX));
    let pool = pool.copied().unwrap_or_default();
    let thresholds = cluster::circuit_breakers::Thresholds {
        max_connections: limit(pool.tcp.max_connections),
        max_pending_requests: limit(pool.http.max_pending_requests),
        max_requests: limit(pool.http.max_requests),
        max_retries: limit(pool.http.max_retries),
        track_remaining: true,
        ..Default::default()
    };
    cluster::CircuitBreakers {
        thresholds: vec![thresholds],
        ..Default::default()
    }
}

pub(super) fn keepalive(keepalive: TcpKeepalive) -> cluster::UpstreamConnectionOptions {
    let seconds = |time: Option<std::time::Duration>| {
        time.and_then(|time| number(u32::try_from(time.as_secs()).unwrap_or(u32::MAX)))
    };
    cluster::UpstreamConnectionOptions {
        tcp_keepalive: Some(core::TcpKeepalive {
            keepalive_probes: keepalive.probes.and_then(number),
            keepalive_time: seconds(keepalive.time),
            keepalive_interval: seconds(keepalive.interval),
        }),
        ..Default::default()
    }
}

pub(super) fn outlier_detection(wanted: &OutlierDetection) -> cluster::OutlierDetection {
    // zero in a row means: do not eject for that
    let enforce = |in_a_row: Option<u32>| in_a_row.and_then(|count| number(if count > 0 { 100 } else { 0 }));
    let positive = |in_a_row: Option<u32>| in_a_row.filter(|count| *count > 0).and_then(number);
    cluster::OutlierDetection {
        consecutive_5xx: positive(wanted.consecutive_5xx),
        enforcing_consecutive_5xx: enforce(wanted.consecutive_5xx),
        consecutive_gateway_failure: positive(wanted.consecutive_gateway),
        enforcing_consecutive_gateway_failure: enforce(wanted.consecutive_gateway),
        split_external_local_origin_errors: wanted.split_local_errors,
        consecutive_local_origin_failure: positive(wanted.consecutive_local).filter(|_| wanted.split_local_errors),
        enforcing_consecutive_local_origin_failure: enforce(wanted.consecutive_local)
            .filter(|_| wanted.split_local_errors),
        // ejects by comparison with the others; nobody asks for it here
        enforcing_success_rate: number(0),
        interval: wanted.interval.and_then(duration),
        base_ejection_time: wanted.base_ejection_time.and_then(duration),
        max_ejection_percent: wanted
            .max_ejection_percent
            .map(|percent| percent.min(100))
            .and_then(number),
        ..Default::default()
    }
}

/// Below that share of healthy endpoints all get traffic again; never, unless asked for.
pub(super) fn panic_threshold(wanted: &OutlierDetection) -> CommonLbConfig {
    let percent = types::Percent {
        value: f64::from(wanted.min_health_percent.min(100)),
    };
    CommonLbConfig {
        healthy_panic_threshold: Some(percent),
        ..Default::default()
    }
}

pub(super) fn balance(built: &mut cluster::Cluster, wanted: Option<&LoadBalancer>) {
    let default = LoadBalancer::default();
    let wanted = wanted.unwrap_or(&default);
    let warmup = wanted.warmup.as_ref().map(slow_start);
    let (policy, config) = match &wanted.policy {
        // passthrough where no address was chosen: at gateways
        Policy::Simple(SimpleLb::LeastRequest | SimpleLb::Passthrough) => {
            let config = LeastRequestLbConfig {
                slow_start_config: warmup,
                ..Default::default()
            };
            (
                LbPolicy::LeastRequest,
                wanted.warmup.map(|_| LbConfig::LeastRequestLbConfig(config)),
            )
        }
        Policy::Simple(SimpleLb::RoundRobin) => {
            let config = RoundRobinLbConfig {
                slow_start_config: warmup,
            };
            (
                LbPolicy::RoundRobin,
                wanted.warmup.map(|_| LbConfig::RoundRobinLbConfig(config)),
            )
        }
        Policy::Simple(SimpleLb::Random) => (LbPolicy::Random, None),
        Policy::Hash {
            algorithm: ConsistentHash::Ring { minimum_size },
            ..
        } => {
            const LARGEST: u64 = 8 * 1024 * 1024; // Envoy's
            let config = RingHashLbConfig {
                minimum_ring_size: big((*minimum_size).min(LARGEST)),
                ..Default::default()
            };
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)))
        }
        Policy::Hash {
            algorithm: ConsistentHash::Maglev { table_size },
            ..
        } => {
            let config = MaglevLbConfig {
                table_size: table_size.and_then(big),
            };
            (LbPolicy::Maglev, table_size.map(|_| LbConfig::MaglevLbConfig(config)))
        }
    };
    built.lb_policy = policy.into();
    built.lb_config = config;
}

fn slow_start(warmup: &Warmup) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: duration(warmup.duration),
        aggression: Some(core::RuntimeDouble {
            default_value: warmup.aggression,
            runtime_key: "mizzen.warmup_aggression".to_owned(),
        }),
        min_weight_percent: Some(types::Percent {
            value: warmup.minimum_percent,
        }),
    }
}
