//! Prometheus text from the counters of all workers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::{BUCKETS, Histogram, HttpKey, HttpSeries, PeerLabels, Protocol, Reporter, TcpSeries, Telemetry, Workload};

impl Telemetry {
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
