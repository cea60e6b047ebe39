//! Istio's standard metrics.
//!
//! In: one observation per request or TCP connection, from the worker that served it. Out: Prometheus text on scrape.
//! Each worker counts in a shard of its own behind a lock that nobody else takes but the scrape; series are found by a
//! key of small integers, label texts are put together on scrape only. The number of series is bounded: beyond the
//! budget, observations count under peers named `overflow`.
//!
//! Names, labels and buckets: Istio's metrics reference.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use mizzen_proxy_config::ServiceRef;
use parking_lot::Mutex;

mod render;

/// Upper bounds of all histograms (milliseconds or bytes), those of Istio's proxies.
const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Series per worker beyond which peers are counted together: about 1 MiB.
const SERIES_BUDGET: usize = 2000;

/// Which side reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reporter {
    /// The client's proxy.
    Source,
    /// The server's proxy.
    Destination,
}

/// A workload as labels show it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Workload {
    /// Deployment or similar.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// SPIFFE id, without scheme omitted: as Istio writes it, `spiffe://…`.
    pub principal: Arc<str>,
    /// `app` label.
    pub app: Arc<str>,
    /// `version` label.
    pub version: Arc<str>,
    /// Cluster id.
    pub cluster: Arc<str>,
    /// Canonical service.
    pub canonical_service: Arc<str>,
    /// Canonical revision.
    pub canonical_revision: Arc<str>,
}

/// The other side of a connection: who, and which service is called. Found once per connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerLabels {
    /// Who reports.
    pub reporter: Reporter,
    /// The other workload.
    pub peer: Workload,
    /// The service that is called.
    pub service: ServiceLabels,
    /// Our end of it was mutually authenticated.
    pub mutual_tls: bool,
}

/// The called service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ServiceLabels {
    /// Host, `reviews.shop.svc.cluster.local`.
    pub host: Arc<str>,
    /// Short name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
}

impl From<&ServiceRef> for ServiceLabels {
    fn from(service: &ServiceRef) -> Self {
        Self {
            host: service.host.clone(),
            name: service.name.clone(),
            namespace: service.namespace.clone(),
        }
    }
}

/// A [`PeerLabels`] known to one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u32);

/// Protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// gRPC; with the status, if one was sent.
    Grpc(Option<u8>),
}

/// What is known when a request has ended.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// Whose.
    pub peer: PeerId,
    /// HTTP or gRPC.
    pub protocol: Protocol,
    /// Status; 0 when none was sent.
    pub status: u16,
    /// Why it is not simply the upstream's answer.
    pub flags: Flags,
    /// From the first byte of the request to the last of the response.
    pub micros: u64,
    /// Bytes of the request's body and head.
    pub request_bytes: u64,
    /// Bytes of the response's body and head.
    pub response_bytes: u64,
}

/// Envoy's response flags, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

flags! {
    /// No healthy upstream.
    NO_HEALTHY_UPSTREAM = 0, "UH";
    /// Upstream connection failure.
    UPSTREAM_FAILURE = 1, "UF";
    /// Upstream overflow (circuit breaker).
    OVERFLOW = 2, "UO";
    /// No route found.
    NO_ROUTE = 3, "NR";
    /// Retry limit exceeded.
    RETRY_LIMIT = 4, "URX";
    /// No cluster found.
    NO_CLUSTER = 5, "NC";
    /// Duration timeout of the whole request.
    DURATION_TIMEOUT = 6, "DT";
    /// Downstream connection terminated.
    DOWNSTREAM_GONE = 7, "DC";
    /// Upstream request timeout.
    UPSTREAM_TIMEOUT = 8, "UT";
    /// Local reset.
    LOCAL_RESET = 9, "LR";
    /// Upstream remote reset.
    UPSTREAM_RESET = 10, "UR";
    /// Upstream connection terminated.
    UPSTREAM_CLOSED = 11, "UC";
    /// Delay injected.
    DELAY_INJECTED = 12, "DI";
    /// Fault injected.
    FAULT_INJECTED = 13, "FI";
    /// Stream idle timeout.
    IDLE_TIMEOUT = 14, "SI";
    /// Downstream protocol error.
    DOWNSTREAM_PROTOCOL = 15, "DPE";
    /// Upstream protocol error.
    UPSTREAM_PROTOCOL = 16, "UPE";
    /// Unauthorized.
    UNAUTHORIZED = 17, "UAEX";
}

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// Adds flags.
    pub fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether all of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Short names, comma-separated; `-` for none.
    pub fn write(self, out: &mut impl std::fmt::Write) -> std::fmt::Result {
        if self.0 == 0 {
            return out.write_str("-");
        }
        let mut first = true;
        for (_, name) in Self::NAMES.iter().filter(|(flag, _)| self.has(*flag)) {
            if !first {
                out.write_str(",")?;
            }
            out.write_str(name)?;
            first = false;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct HttpKey {
    peer: PeerId,
    protocol: Protocol,
    status: u16,
    flags: Flags,
}

#[derive(Debug, Clone, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len() + 1],
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, value: f64) {
        let bucket = BUCKETS
            .iter()
            .position(|bound| value <= *bound)
            .unwrap_or(BUCKETS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }
}

#[derive(Debug, Clone, Default)]
struct HttpSeries {
    total: u64,
    duration: Histogram,
    request: Histogram,
    response: Histogram,
}

#[derive(Debug, Clone, Copy, Default)]
struct TcpSeries {
    opened: u64,
    closed: u64,
    sent: u64,
    received: u64,
}

#[derive(Debug, Default)]
struct Counts {
    ids: HashMap<Arc<PeerLabels>, PeerId>,
    labels: Vec<Arc<PeerLabels>>,
    http: HashMap<HttpKey, HttpSeries>,
    tcp: HashMap<(PeerId, Flags), TcpSeries>,
}

/// One worker's counters.
#[derive(Debug, Default)]
pub struct Shard {
    counts: Mutex<Counts>,
    /// Open downstream connections.
    pub connections: AtomicU64,
    /// TLS handshakes with downstreams that failed.
    pub handshake_failures: AtomicU64,
    /// Connections refused over the limit.
    pub overload: AtomicU64,
}

impl Shard {
    /// The id of these labels.
    pub fn peer(&self, labels: PeerLabels) -> PeerId {
        let mut counts = self.counts.lock();
        if let Some(id) = counts.ids.get(&labels) {
            return *id;
        }
        let labels = if counts.labels.len() >= SERIES_BUDGET {
            let overflow = Workload {
                name: Arc::from("overflow"),
                ..Workload::default()
            };
            let labels = PeerLabels {
                peer: overflow,
                service: ServiceLabels::default(),
                ..labels
            };
            if let Some(id) = counts.ids.get(&labels) {
                return *id;
            }
            labels
        } else {
            labels
        };
        let id = PeerId(u32::try_from(counts.labels.len()).unwrap_or(u32::MAX));
        let labels = Arc::new(labels);
        counts.labels.push(labels.clone());
        counts.ids.insert(labels, id);
        id
    }

    /// Counts a request.
    pub fn request(&self, seen: &Observation) {
        let key = HttpKey {
            peer: seen.peer,
            protocol: seen.protocol,
            status: seen.status,
            flags: seen.flags,
        };
        let mut counts = self.counts.lock();
        let series = counts.http.entry(key).or_default();
        series.total += 1;
        series.duration.observe(as_f64(seen.micros) / 1000.0);
        series.request.observe(as_f64(seen.request_bytes));
        series.response.observe(as_f64(seen.response_bytes));
    }

    /// Counts the beginning of a TCP connection.
    pub fn tcp_opened(&self, peer: PeerId) {
        self.counts.lock().tcp.entry((peer, Flags::NONE)).or_default().opened += 1;
    }

    /// Counts bytes of a TCP connection: `received` from the client, `sent` to it.
    pub fn tcp_bytes(&self, peer: PeerId, received: u64, sent: u64) {
        let mut counts = self.counts.lock();
        let series = counts.tcp.entry((peer, Flags::NONE)).or_default();
        series.received += received;
        series.sent += sent;
    }

    /// Counts the end of a TCP connection.
    pub fn tcp_closed(&self, peer: PeerId, flags: Flags) {
        self.counts.lock().tcp.entry((peer, flags)).or_default().closed += 1;
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics: above 2^53 precision does not matter"
)]
fn as_f64(value: u64) -> f64 {
    value as f64
}

/// All workers' counters and who we are.
#[derive(Debug)]
pub struct Telemetry {
    shards: Mutex<Vec<Arc<Shard>>>,
    /// This workload; its principal becomes known with the first certificate.
    own: Mutex<Workload>,
    /// Lines of the access log that were dropped because nobody took them fast enough.
    pub log_overflow: Arc<AtomicU64>,
}

impl Telemetry {
    /// Counters of this workload.
    pub fn new(own: Workload) -> Self {
        Self {
            shards: Mutex::default(),
            own: Mutex::new(own),
            log_overflow: Arc::default(),
        }
    }

    /// Sets our own SPIFFE id.
    pub fn set_principal(&self, principal: Arc<str>) {
        self.own.lock().principal = principal;
    }

    /// A new worker's counters.
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::default());
        self.shards.lock().push(shard.clone());
        shard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerLabels {
        PeerLabels {
            reporter: Reporter::Destination,
            peer: Workload {
                name: Arc::from(name),
                ..Workload::default()
            },
            service: ServiceLabels {
                host: Arc::from("b.ns.svc"),
                name: Arc::from("b"),
                namespace: Arc::from("ns"),
            },
            mutual_tls: true,
        }
    }

    fn seen(peer: PeerId, status: u16, micros: u64) -> Observation {
        Observation {
            peer,
            protocol: Protocol::Http,
            status,
            flags: Flags::NONE,
            micros,
            request_bytes: 0,
            response_bytes: 1024,
        }
    }

    // F1
    #[test]
    fn workers_are_merged_under_the_standard_names() {
        let telemetry = Telemetry::new(Workload {
            name: Arc::from("b-v1"),
            ..Workload::default()
        });
        for micros in [400, 7000] {
            let shard = telemetry.shard();
            let id = shard.peer(peer("a-v1"));
            shard.request(&seen(id, 200, micros));
        }
        let mut text = String::new();
        telemetry.render(&mut text);
        let line = text
            .lines()
            .find(|line| line.starts_with("istio_requests_total{"))
            .unwrap();
        assert!(line.ends_with(" 2"), "{line}");
        for label in [
            "reporter=\"destination\"",
            "source_workload=\"a-v1\"",
            "destination_workload=\"b-v1\"",
            "destination_service=\"b.ns.svc\"",
            "source_version=\"unknown\"",
            "response_code=\"200\"",
            "response_flags=\"-\"",
            "connection_security_policy=\"mutual_tls\"",
        ] {
            assert!(line.contains(label), "{label} in {line}");
        }
        let bucket = |bound: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with("istio_request_duration_milliseconds_bucket") && line.contains(bound))
                .unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(
            (
                bucket("le=\"0.5\"").as_str(),
                bucket("le=\"5\"").as_str(),
                bucket("le=\"10\"").as_str()
            ),
            ("1", "1", "2")
        );
    }

    #[test]
    fn peers_beyond_the_budget_are_counted_together() {
        let telemetry = Telemetry::new(Workload::default());
        let shard = telemetry.shard();
        let first = shard.peer(peer("p0"));
        for index in 1..SERIES_BUDGET {
            shard.peer(peer(&format!("p{index}")));
        }
        let (one, two) = (shard.peer(peer("late-1")), shard.peer(peer("late-2")));
        assert_eq!(one, two);
        assert_eq!(shard.peer(peer("p0")), first);
    }

    #[test]
    fn flags_have_envoys_names() {
        let mut flags = Flags::UPSTREAM_FAILURE;
        flags.add(Flags::RETRY_LIMIT);
        let mut text = String::new();
        flags.write(&mut text).unwrap();
        assert_eq!(text, "UF,URX");
    }
}
