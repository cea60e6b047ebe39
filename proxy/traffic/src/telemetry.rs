//! Istio's standard metrics.
//!
//! In: one observation per request or TCP connection, from the worker that served it. Out: Prometheus text on scrape.
//! Each worker counts in a shard of its own behind a lock that nobody else takes but the scrape; series are found by a
//! key of small integers, label texts are put together on scrape only. The number of series is bounded: beyond the
//! budget, observations count under peers named `overflow`.
//!
//! Names, labels and buckets: Istio's metrics reference.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mizzen_proxy_config::ServiceRef;
use parking_lot::Mutex;

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

    /// Writes everything as Prometheus text, series sorted.
    pub fn render(&self, out: &mut String) {
        let own = self.own.lock().clone();
        let mut http: BTreeMap<String, HttpSeries> = BTreeMap::new();
        let mut tcp: BTreeMap<String, TcpSeries> = BTreeMap::new();
        let (mut connections, mut failures, mut overload) = (0, 0, 0);
        for shard in self.shards.lock().iter() {
            connections += shard.connections.load(Ordering::Relaxed);
            failures += shard.handshake_failures.load(Ordering::Relaxed);
            overload += shard.overload.load(Ordering::Relaxed);
            let counts = shard.counts.lock();
            for (key, series) in &counts.http {
                let Some(labels) = counts.labels.get(key.peer.0 as usize) else {
                    continue;
                };
                let text = http_labels(&own, labels, key);
                let all = http.entry(text).or_default();
                all.total += series.total;
                all.duration.merge(&series.duration);
                all.request.merge(&series.request);
                all.response.merge(&series.response);
            }
            for ((peer, flags), series) in &counts.tcp {
                let Some(labels) = counts.labels.get(peer.0 as usize) else {
                    continue;
                };
                let mut text = common_labels(&own, labels, "tcp");
                text.push_str(",response_flags=\"");
                let _infallible = flags.write(&mut text);
                text.push('"');
                let all = tcp.entry(text).or_default();
                all.opened += series.opened;
                all.closed += series.closed;
                all.sent += series.sent;
                all.received += series.received;
            }
        }
        if !http.is_empty() {
            counter(
                out,
                "istio_requests_total",
                "Requests handled.",
                http.iter().map(|(l, s)| (l, s.total)),
            );
            let durations = http.iter().map(|(l, s)| (l, &s.duration));
            histogram(
                out,
                "istio_request_duration_milliseconds",
                "Time from first byte in to last byte out.",
                durations,
            );
            let requests = http.iter().map(|(l, s)| (l, &s.request));
            histogram(out, "istio_request_bytes", "Size of requests in bytes.", requests);
            let responses = http.iter().map(|(l, s)| (l, &s.response));
            histogram(out, "istio_response_bytes", "Size of responses in bytes.", responses);
        }
        if !tcp.is_empty() {
            let opened = tcp.iter().map(|(l, s)| (l, s.opened));
            counter(
                out,
                "istio_tcp_connections_opened_total",
                "TCP connections opened.",
                opened,
            );
            let closed = tcp.iter().map(|(l, s)| (l, s.closed));
            counter(
                out,
                "istio_tcp_connections_closed_total",
                "TCP connections closed.",
                closed,
            );
            counter(
                out,
                "istio_tcp_sent_bytes_total",
                "Bytes sent to the client.",
                tcp.iter().map(|(l, s)| (l, s.sent)),
            );
            let received = tcp.iter().map(|(l, s)| (l, s.received));
            counter(
                out,
                "istio_tcp_received_bytes_total",
                "Bytes received from the client.",
                received,
            );
        }
        plain(
            out,
            "mizzen_proxy_downstream_connections",
            "gauge",
            "Open downstream connections.",
            connections,
        );
        plain(
            out,
            "mizzen_proxy_handshake_failures_total",
            "counter",
            "Failed TLS handshakes with clients.",
            failures,
        );
        plain(
            out,
            "mizzen_proxy_overload_total",
            "counter",
            "Connections refused over the limit.",
            overload,
        );
        let dropped = self.log_overflow.load(Ordering::Relaxed);
        plain(
            out,
            "mizzen_proxy_access_log_dropped_total",
            "counter",
            "Access log lines dropped.",
            dropped,
        );
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _infallible = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn plain(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    head(out, name, kind, help);
    let _infallible = writeln!(out, "{name} {value}");
}

fn counter<'a>(out: &mut String, name: &str, help: &str, series: impl Iterator<Item = (&'a String, u64)>) {
    head(out, name, "counter", help);
    for (labels, value) in series {
        let _infallible = writeln!(out, "{name}{{{labels}}} {value}");
    }
}

fn histogram<'a>(out: &mut String, name: &str, help: &str, series: impl Iterator<Item = (&'a String, &'a Histogram)>) {
    head(out, name, "histogram", help);
    for (labels, histogram) in series {
        let mut below = 0;
        for (bound, count) in BUCKETS.iter().zip(&histogram.counts) {
            below += count;
            let _infallible = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let all: u64 = histogram.counts.iter().sum();
        let _infallible = write!(
            out,
            "{name}_bucket{{{labels},le=\"+Inf\"}} {all}\n{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {all}\n",
            histogram.sum
        );
    }
}

fn http_labels(own: &Workload, labels: &PeerLabels, key: &HttpKey) -> String {
    let (protocol, grpc) = match key.protocol {
        Protocol::Http => ("http", None),
        Protocol::Grpc(status) => ("grpc", status),
    };
    let mut text = common_labels(own, labels, protocol);
    let _infallible = write!(text, ",response_code=\"{}\",grpc_response_status=\"", key.status);
    if let Some(status) = grpc {
        let _infallible = write!(text, "{status}");
    }
    text.push_str("\",response_flags=\"");
    let _infallible = key.flags.write(&mut text);
    text.push('"');
    text
}

fn common_labels(own: &Workload, labels: &PeerLabels, protocol: &str) -> String {
    let (reporter, source, destination) = match labels.reporter {
        Reporter::Source => ("source", own, &labels.peer),
        Reporter::Destination => ("destination", &labels.peer, own),
    };
    let security = match (labels.reporter, labels.mutual_tls) {
        (Reporter::Source, _) => "unknown",
        (Reporter::Destination, true) => "mutual_tls",
        (Reporter::Destination, false) => "none",
    };
    let mut text = String::with_capacity(640);
    let mut put = |name: &str, value: &str| {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        escape(&mut text, if value.is_empty() { "unknown" } else { value });
        text.push('"');
    };
    put("reporter", reporter);
    put("source_workload", &source.name);
    put("source_canonical_service", &source.canonical_service);
    put("source_canonical_revision", &source.canonical_revision);
    put("source_workload_namespace", &source.namespace);
    put("source_principal", &source.principal);
    put("source_app", &source.app);
    put("source_version", &source.version);
    put("source_cluster", &source.cluster);
    put("destination_workload", &destination.name);
    put("destination_workload_namespace", &destination.namespace);
    put("destination_principal", &destination.principal);
    put("destination_app", &destination.app);
    put("destination_version", &destination.version);
    put("destination_service", &labels.service.host);
    put("destination_canonical_service", &destination.canonical_service);
    put("destination_canonical_revision", &destination.canonical_revision);
    put("destination_service_name", &labels.service.name);
    put("destination_service_namespace", &labels.service.namespace);
    put("destination_cluster", &destination.cluster);
    put("request_protocol", protocol);
    put("connection_security_policy", security);
    text
}

fn escape(out: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
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
