//! Load balancing of a DestinationRule.

use std::collections::BTreeMap;
use std::sync::Arc;

use mizzen_crds::networking::destination_rule as dr;
use mizzen_model::{ConsistentHash, HashKey, HeaderName, LoadBalancer, LocalityLb, Policy, SimpleLb, Warmup};

use crate::error::{Caution, Reason};
use crate::reader::{Reader, text};

pub(super) fn read(r: &mut Reader<'_>, raw: Option<&dr::LoadBalancerSettings>) -> Option<LoadBalancer> {
    let raw = raw?;
    r.inside("loadBalancer", |r| {
        r.not_acted_on("zoneAwareLbSetting", raw.zone_aware_lb_setting.is_some());
        let policy = match (raw.simple, &raw.consistent_hash) {
            (Some(_), Some(_)) => {
                r.refuse_at(
                    "consistentHash",
                    Reason::Excludes {
                        this: "consistentHash",
                        other: "simple",
                    },
                );
                Policy::default()
            }
            (Some(simple), None) => Policy::Simple(self::simple(r, simple)),
            (None, Some(hash)) => r
                .inside("consistentHash", |r| consistent_hash(r, hash))
                .unwrap_or_default(),
            (None, None) => Policy::default(),
        };
        let locality = raw
            .locality_lb_setting
            .as_ref()
            .map(|raw| r.inside("localityLbSetting", |r| locality(r, raw)));
        Some(LoadBalancer {
            policy,
            locality,
            warmup: warmup(r, raw),
        })
    })
}

fn simple(r: &mut Reader<'_>, raw: dr::SimpleLb) -> SimpleLb {
    match raw {
        dr::SimpleLb::Unspecified | dr::SimpleLb::LeastRequest => SimpleLb::LeastRequest,
        dr::SimpleLb::LeastConn => {
            r.caution(
                "simple",
                &Caution::Deprecated {
                    modern: "LEAST_REQUEST",
                },
            );
            SimpleLb::LeastRequest
        }
        dr::SimpleLb::Random => SimpleLb::Random,
        dr::SimpleLb::RoundRobin => SimpleLb::RoundRobin,
        dr::SimpleLb::Passthrough => SimpleLb::Passthrough,
    }
}

fn consistent_hash(r: &mut Reader<'_>, raw: &dr::ConsistentHashLb) -> Option<Policy> {
    let keys = [
        ("httpHeaderName", raw.http_header_name.is_some()),
        ("httpCookie", raw.http_cookie.is_some()),
        ("useSourceIp", raw.use_source_ip.is_some()),
        ("httpQueryParameterName", raw.http_query_parameter_name.is_some()),
    ];
    let mut given = keys.into_iter().filter_map(|(name, there)| there.then_some(name));
    if let (Some(other), Some(this)) = (given.next(), given.next()) {
        r.refuse_at(this, Reason::Excludes { this, other });
        return None;
    }
    let key = if let Some(name) = &raw.http_header_name {
        HashKey::Header(r.take("httpHeaderName", HeaderName::new(name))?)
    } else if let Some(cookie) = &raw.http_cookie {
        r.inside("httpCookie", |r| {
            if cookie.name.is_empty() {
                r.refuse_at(
                    "name",
                    Reason::Missing {
                        remedy: "write the cookie's name",
                    },
                );
            }
            r.printable("name", &cookie.name);
            r.not_acted_on("attributes", !cookie.attributes.is_empty());
            HashKey::Cookie {
                name: Arc::from(cookie.name.as_str()),
                path: r.printable_text("path", cookie.path.as_ref()),
                ttl: r.duration_or_zero("ttl", cookie.ttl.as_deref()),
            }
        })
    } else if let Some(name) = r.printable_text("httpQueryParameterName", raw.http_query_parameter_name.as_ref()) {
        HashKey::Query(name)
    } else if raw.use_source_ip == Some(true) {
        HashKey::SourceIp
    } else {
        r.refuse(Reason::Missing {
            remedy: "write httpHeaderName, httpCookie, httpQueryParameterName or useSourceIp: what to hash",
        });
        return None;
    };
    if raw.minimum_ring_size.is_some() {
        r.caution(
            "minimumRingSize",
            &Caution::Deprecated {
                modern: "ringHash.minimumRingSize",
            },
        );
    }
    // Istio's default, above Envoy's, so that the load is spread evenly over few endpoints too.
    const RING: u64 = 1024;
    let algorithm = match (&raw.ring_hash, &raw.maglev) {
        (Some(_), Some(_)) => {
            r.refuse_at(
                "maglev",
                Reason::Excludes {
                    this: "maglev",
                    other: "ringHash",
                },
            );
            return None;
        }
        (None, Some(maglev)) => {
            if let Some(size) = maglev.table_size.filter(|size| !is_prime(*size)) {
                let reason = Reason::Range {
                    number: size.to_string(),
                    range: "a prime number up to 5000011",
                };
                r.refuse_at("maglev.tableSize", reason);
            }
            ConsistentHash::Maglev {
                table_size: maglev.table_size,
            }
        }
        (Some(ring), None) => ConsistentHash::Ring {
            minimum_size: ring.minimum_ring_size.unwrap_or(RING),
        },
        (None, None) => ConsistentHash::Ring {
            minimum_size: raw.minimum_ring_size.unwrap_or(RING),
        },
    };
    Some(Policy::Hash { key, algorithm })
}

/// Whether that is a size that a Maglev table can have.
fn is_prime(size: u64) -> bool {
    const LARGEST: u64 = 5_000_011;
    (2..=LARGEST).contains(&size)
        && (2..)
            .take_while(|divisor| divisor * divisor <= size)
            .all(|divisor| !size.is_multiple_of(divisor))
}

fn locality(r: &mut Reader<'_>, raw: &dr::LocalityLbSetting) -> LocalityLb {
    let fails_over = !raw.failover.is_empty() || !raw.failover_priority.is_empty();
    if fails_over && !raw.distribute.is_empty() {
        r.refuse_at(
            "distribute",
            Reason::Excludes {
                this: "distribute",
                other: "failover",
            },
        );
    }
    let mut distribute = BTreeMap::new();
    r.each("distribute", &raw.distribute, |r, entry| {
        let sum: u64 = entry.to.values().map(|share| u64::from(*share)).sum();
        if sum != 100 {
            r.refuse_at("to", Reason::Shares { sum });
        }
        let Some(from) = text(entry.from.as_ref()) else {
            r.refuse_at(
                "from",
                Reason::Missing {
                    remedy: "write the caller's locality",
                },
            );
            return None;
        };
        let to = entry
            .to
            .iter()
            .map(|(locality, share)| (Arc::from(locality.as_str()), *share))
            .collect();
        distribute.insert(from, to);
        Some(())
    });
    let mut failover = BTreeMap::new();
    r.each("failover", &raw.failover, |r, entry| {
        let (Some(from), Some(to)) = (text(entry.from.as_ref()), text(entry.to.as_ref())) else {
            r.refuse(Reason::Missing {
                remedy: "write from and to, each a region",
            });
            return None;
        };
        failover.insert(from, to);
        Some(())
    });
    LocalityLb {
        enabled: raw.enabled,
        distribute,
        failover,
        failover_priority: raw
            .failover_priority
            .iter()
            .map(|label| Arc::from(label.as_str()))
            .collect(),
    }
}

fn warmup(r: &mut Reader<'_>, raw: &dr::LoadBalancerSettings) -> Option<Warmup> {
    // Istio's defaults.
    const MINIMUM_PERCENT: f64 = 10.0;
    const AGGRESSION: f64 = 1.0;
    if let Some(warmup) = &raw.warmup {
        return r.inside("warmup", |r| {
            let duration = r.duration("duration", Some(&warmup.duration))?;
            let minimum_percent = warmup.minimum_percent.unwrap_or(MINIMUM_PERCENT);
            if !(0.0..=100.0).contains(&minimum_percent) {
                let reason = Reason::Range {
                    number: minimum_percent.to_string(),
                    range: "0 to 100",
                };
                r.refuse_at("minimumPercent", reason);
            }
            let aggression = warmup.aggression.unwrap_or(AGGRESSION);
            if aggression.is_nan() || aggression < 1.0 {
                r.refuse_at(
                    "aggression",
                    Reason::Range {
                        number: aggression.to_string(),
                        range: "1 or more",
                    },
                );
            }
            Some(Warmup {
                duration,
                minimum_percent,
                aggression,
            })
        });
    }
    if raw.warmup_duration_secs.is_some() {
        r.caution(
            "warmupDurationSecs",
            &Caution::Deprecated {
                modern: "warmup.duration",
            },
        );
    }
    let duration = r.duration("warmupDurationSecs", raw.warmup_duration_secs.as_ref())?;
    Some(Warmup {
        duration,
        minimum_percent: MINIMUM_PERCENT,
        aggression: AGGRESSION,
    })
}
