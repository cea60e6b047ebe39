//! Medians, ratios, the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// What is measured, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// CPU seconds per 10,000 requests of both sidecars, 64 connections.
    Cpu,
    /// The client's part of it.
    CpuClient,
    /// The server's part of it.
    CpuServer,
    /// Requests per second, 64 connections.
    Rate,
    /// Median at 64 connections.
    P50,
    /// 99th percentile at 64 connections.
    P99,
    /// Median at 1 connection.
    OneP50,
    /// As [`Metric::Cpu`], 1 connection.
    OneCpu,
    /// Requests per second, 1,000 connections.
    ManyRate,
    /// As [`Metric::Cpu`], 1,000 connections.
    ManyCpu,
    /// Resident memory before any load, after one request: the larger sidecar's.
    Idle,
    /// The most during 64 connections.
    Loaded,
    /// The most during 1,000 connections.
    Many,
    /// Requests that failed, of all phases.
    Failed,
}

/// What must be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    /// At most this share of Envoy's.
    OfEnvoy(f64),
    /// At most this.
    AtMost(f64),
}

impl Metric {
    /// All, in order.
    pub(crate) const ALL: [Self; 14] = [
        Self::Cpu,
        Self::CpuClient,
        Self::CpuServer,
        Self::Rate,
        Self::P50,
        Self::P99,
        Self::OneP50,
        Self::OneCpu,
        Self::ManyRate,
        Self::ManyCpu,
        Self::Idle,
        Self::Loaded,
        Self::Many,
        Self::Failed,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU s per 10k requests, pair, 64 connections",
            Self::CpuClient => "  of which client's sidecar",
            Self::CpuServer => "  of which server's sidecar",
            Self::Rate => "requests/s, 64 connections",
            Self::P50 => "p50 ms, 64 connections",
            Self::P99 => "p99 ms, 64 connections",
            Self::OneP50 => "p50 ms, 1 connection",
            Self::OneCpu => "CPU s per 10k requests, pair, 1 connection",
            Self::ManyRate => "requests/s, 1,000 connections",
            Self::ManyCpu => "CPU s per 10k requests, pair, 1,000 connections",
            Self::Idle => "RSS MiB idle, larger sidecar",
            Self::Loaded => "RSS MiB at 64 connections, larger sidecar",
            Self::Many => "RSS MiB at 1,000 connections, larger sidecar",
            Self::Failed => "failed requests",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Cpu => "cpu_s_per_10k",
            Self::CpuClient => "cpu_s_per_10k_client",
            Self::CpuServer => "cpu_s_per_10k_server",
            Self::Rate => "requests_per_s",
            Self::P50 => "p50_ms",
            Self::P99 => "p99_ms",
            Self::OneP50 => "one_connection_p50_ms",
            Self::OneCpu => "one_connection_cpu_s_per_10k",
            Self::ManyRate => "thousand_connections_requests_per_s",
            Self::ManyCpu => "thousand_connections_cpu_s_per_10k",
            Self::Idle => "rss_mib_idle",
            Self::Loaded => "rss_mib_loaded",
            Self::Many => "rss_mib_thousand_connections",
            Self::Failed => "failed",
        }
    }

    /// What the project wants of its sidecar while its link between sidecars is HTTP/1.1.
    fn bar(self) -> Option<Bar> {
        match self {
            Self::Cpu => Some(Bar::OfEnvoy(0.55)),
            Self::Idle => Some(Bar::AtMost(7.0)),
            Self::Loaded => Some(Bar::AtMost(10.0)),
            Self::Failed => Some(Bar::AtMost(0.0)),
            _ => None,
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Rate | Self::ManyRate | Self::Failed => 0,
            Self::Idle | Self::Loaded | Self::Many => 1,
            _ => 3,
        }
    }
}

/// One round of one data plane.
pub(crate) type Sample = BTreeMap<Metric, f64>;

/// All rounds of all data planes.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Rounds by name of the data plane.
    pub(crate) samples: BTreeMap<&'static str, Vec<Sample>>,
    /// How busy others kept the machine, before each round, 0 to 1.
    pub(crate) elsewhere: Vec<f64>,
    /// Without sidecars.
    pub(crate) direct: Sample,
    /// Worker threads of each sidecar.
    pub(crate) workers: usize,
}

/// The smallest, the middle and the largest.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get(values.len().saturating_sub(1) / 2)?;
        Some(Self {
            low: *values.first()?,
            median: f64::midpoint(lower, upper),
            high: *values.last()?,
        })
    }
}

/// The name of our data plane.
pub(crate) const OURS: &str = "mizzen";
/// The name of the other.
pub(crate) const ENVOY: &str = "envoy";

impl Report {
    fn spread(&self, plane: &str, metric: Metric) -> Option<Spread> {
        let samples = self.samples.get(plane)?;
        Spread::of(
            samples
                .iter()
                .filter_map(|sample| sample.get(&metric).copied())
                .collect(),
        )
    }

    fn ratio(&self, metric: Metric) -> Option<f64> {
        let (ours, envoy) = (self.spread(OURS, metric)?, self.spread(ENVOY, metric)?);
        (envoy.median > 0.0).then(|| ours.median / envoy.median)
    }

    /// Whether the bar is reached; none if there is none, or nothing to compare with.
    fn reached(&self, metric: Metric) -> Option<(Bar, bool)> {
        let bar = metric.bar()?;
        let reached = match bar {
            Bar::OfEnvoy(most) => self.ratio(metric)? <= most,
            Bar::AtMost(most) => self.spread(OURS, metric)?.median <= most,
        };
        Some((bar, reached))
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let header = ["", "direct", OURS, ENVOY, "ratio", "bar"].map(str::to_owned);
        let mut rows = vec![header];
        for metric in Metric::ALL {
            let number = |value: f64| format!("{value:.*}", metric.digits());
            let spread = |plane| {
                self.spread(plane, metric)
                    .map_or_else(String::new, |Spread { low, median, high }| {
                        format!("{} ({}-{})", number(median), number(low), number(high))
                    })
            };
            let bar = match self.reached(metric) {
                None => String::new(),
                Some((bar, reached)) => {
                    let wanted = match bar {
                        Bar::OfEnvoy(most) => format!("<= {most} of Envoy"),
                        Bar::AtMost(most) => format!("<= {most}"),
                    };
                    format!("{wanted}: {}", if reached { "reached" } else { "MISSED" })
                }
            };
            rows.push([
                metric.title().to_owned(),
                self.direct.get(&metric).copied().map_or_else(String::new, number),
                spread(OURS),
                spread(ENVOY),
                self.ratio(metric)
                    .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
                bar,
            ]);
        }
        let mut text = String::new();
        let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
        for row in &rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = width(column).unwrap_or_default();
                let _infallible = write!(line, "{cell:width$}  ");
            }
            let _infallible = writeln!(text, "{}", line.trim_end());
        }
        let rounds = self.samples.values().map(Vec::len).max().unwrap_or_default();
        let busy = Spread::of(self.elsewhere.clone()).map_or(0.0, |spread| spread.high * 100.0);
        let _infallible = writeln!(
            text,
            "median (smallest-largest) of {rounds} rounds, {} workers per sidecar; others kept the machine busy up to {busy:.0} %",
            self.workers
        );
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let mut planes = Map::new();
        for (plane, samples) in &self.samples {
            let mut metrics = Map::new();
            for metric in Metric::ALL {
                if let Some(Spread { low, median, high }) = self.spread(plane, metric) {
                    let rounds: Vec<_> = samples.iter().map(|sample| sample.get(&metric)).collect();
                    let spread = json!({"median": median, "low": low, "high": high, "rounds": rounds});
                    metrics.insert(metric.key().to_owned(), spread);
                }
            }
            planes.insert((*plane).to_owned(), Value::Object(metrics));
        }
        let keyed = |values: Vec<(Metric, Value)>| {
            Value::Object(
                values
                    .into_iter()
                    .map(|(metric, value)| (metric.key().to_owned(), value))
                    .collect(),
            )
        };
        let ratios = Metric::ALL
            .into_iter()
            .filter_map(|metric| Some((metric, json!(self.ratio(metric)?))));
        let bars = Metric::ALL
            .into_iter()
            .filter_map(|metric| Some((metric, json!(self.reached(metric)?.1))));
        json!({
            "workers": self.workers,
            "direct": keyed(self.direct.iter().map(|(metric, value)| (*metric, json!(value))).collect()),
            "planes": planes,
            "ratio_to_envoy": keyed(ratios.collect()),
            "bars_reached": keyed(bars.collect()),
            "busy_elsewhere": self.elsewhere,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn report(ours: &[f64], envoy: &[f64]) -> Report {
        let samples = |values: &[f64]| {
            values
                .iter()
                .map(|value| Sample::from([(Metric::Cpu, *value)]))
                .collect()
        };
        Report {
            samples: BTreeMap::from([(OURS, samples(ours)), (ENVOY, samples(envoy))]),
            workers: 2,
            ..Report::default()
        }
    }

    #[test]
    fn ratio_is_of_medians_and_decides_the_bar() {
        let good = report(&[0.2, 0.9, 0.3], &[0.6, 0.5, 0.7]);
        assert_eq!(good.ratio(Metric::Cpu), Some(0.5));
        assert_eq!(good.reached(Metric::Cpu), Some((Bar::OfEnvoy(0.55), true)));
        let missed = report(&[0.4, 0.6], &[0.5]);
        assert_eq!(missed.ratio(Metric::Cpu), Some(1.0));
        assert!(
            missed.table().contains("<= 0.55 of Envoy: MISSED"),
            "{}",
            missed.table()
        );
        assert_eq!(
            missed.json()["planes"]["mizzen"]["cpu_s_per_10k"]["rounds"],
            json!([0.4, 0.6])
        );
    }

    #[test]
    fn without_envoy_there_is_no_ratio_and_no_verdict() {
        let alone = report(&[0.4], &[]);
        assert_eq!((alone.ratio(Metric::Cpu), alone.reached(Metric::Cpu)), (None, None));
        assert_eq!(alone.reached(Metric::Idle), None);
    }
}
