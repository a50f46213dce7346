//! What a node counts, as OpenMetrics text.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use strait::{DriverCounters, Node};
use strait_core::limits::LimitValue;
use strait_core::{BOUNDS_US, Carrier, Counters, Histogram, Latency, Limits, Now, PerProtocol};

use crate::catalog::{Metric, Shape, catalog};

/// The media type of what [`Snapshot::encode`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Protocols that have series of their own, the first by name; the rest is told as one, [`OTHERS`]. With this many there are at most 5,000 series.
pub const PROTOCOLS_MAX: usize = 80;
/// The label of the protocols beyond [`PROTOCOLS_MAX`].
pub const OTHERS: &str = "others";

/// What is exported, taken at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What the core has counted.
    pub counters: Counters,
    /// What the driver has.
    pub driver: DriverCounters,
    /// What there is.
    pub now: Now,
    /// What may be.
    pub limits: Limits,
    /// How long the node has been there.
    pub uptime: std::time::Duration,
}

impl Snapshot {
    /// Takes it. The time is in proportion to the connections.
    pub fn of(node: &Node, uptime: std::time::Duration) -> Snapshot {
        Snapshot { counters: node.counters(), driver: node.driver_counters(), now: node.now(), limits: node.limits(), uptime }
    }

    /// As OpenMetrics text.
    pub fn encode(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        // Writing to a string fails only where a collector does, and this one does not.
        let _ = text::encode(&mut out, &registry);
        out
    }
}

fn protocols(counters: &Counters) -> BTreeMap<&'static str, (PerProtocol, Latency)> {
    let mut all: BTreeMap<&'static str, (PerProtocol, Latency)> = BTreeMap::new();
    let names = counters.protocols.keys().chain(counters.latencies.keys());
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        let label = if all.len() < PROTOCOLS_MAX { name } else { OTHERS };
        let (protocol, latency) = all.entry(label).or_default();
        protocol.absorb(&counters.protocols.get(name).cloned().unwrap_or_default());
        latency.absorb(&counters.latencies.get(name).copied().unwrap_or_default());
    }
    all
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let protocols = protocols(&self.counters);
        for metric in catalog() {
            let kind = match metric.shape {
                Shape::Counter => MetricType::Counter,
                Shape::Gauge => MetricType::Gauge,
                Shape::Histogram => MetricType::Histogram,
            };
            let encoder = encoder.encode_descriptor(&metric.name, metric.words, None, kind)?;
            match metric.shape {
                Shape::Counter => self.counter(encoder, &metric, &protocols)?,
                Shape::Gauge => self.gauge(encoder, &metric)?,
                Shape::Histogram => self.histogram(encoder, &metric, &protocols)?,
            }
        }
        Ok(())
    }
}

type Protocols = BTreeMap<&'static str, (PerProtocol, Latency)>;

fn value(list: &[(&'static str, u64)], name: &str) -> u64 {
    list.iter().find(|(of, _)| *of == name).map_or(0, |(_, value)| *value)
}

fn count(encoder: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

fn times(encoder: &mut MetricEncoder<'_>, histogram: &Histogram) -> fmt::Result {
    let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts().iter().copied()).collect();
    encoder.encode_histogram::<NoLabelSet>(histogram.sum().as_secs_f64(), histogram.total(), &buckets, None)
}

impl Snapshot {
    fn counter(&self, mut encoder: MetricEncoder<'_>, metric: &Metric, protocols: &Protocols) -> fmt::Result {
        let name = metric.name.trim_start_matches("strait_");
        if let Some(name) = name.strip_prefix("protocol_") {
            for (protocol, (counters, _)) in protocols {
                count(&mut encoder.encode_family(&[("protocol", *protocol)])?, value(&counters.list(), name))?;
            }
            return Ok(());
        }
        if let Some(name) = name.strip_prefix("transport_") {
            for (carrier, counters) in Carrier::ALL.iter().zip(&self.counters.carriers) {
                count(&mut encoder.encode_family(&[("transport", carrier.name())])?, value(&counters.list(), name))?;
            }
            return Ok(());
        }
        if metric.labels == ["limit"] {
            for (limit, times) in self.counters.limits_reached() {
                count(&mut encoder.encode_family(&[("limit", limit)])?, times)?;
            }
            return Ok(());
        }
        match name.strip_prefix("driver_") {
            Some(name) => count(&mut encoder, driver(&self.driver, name)),
            None => count(&mut encoder, value(&self.counters.totals.list(), name)),
        }
    }

    fn gauge(&self, mut encoder: MetricEncoder<'_>, metric: &Metric) -> fmt::Result {
        let now = &self.now;
        let value = match metric.name.trim_start_matches("strait_") {
            "connections" => {
                for (carrier, count) in Carrier::ALL.iter().zip(now.connections) {
                    encoder.encode_family(&[("transport", carrier.name())])?.encode_gauge(&count)?;
                }
                return Ok(());
            }
            "limit" => {
                for (name, _, value) in self.limits.list() {
                    let number = match value {
                        LimitValue::Number(number) => number as f64,
                        LimitValue::Time(time) => time.as_secs_f64(),
                    };
                    encoder.encode_family(&[("name", name)])?.encode_gauge(&number)?;
                }
                return Ok(());
            }
            "build" => return encoder.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1u64),
            "uptime_seconds" => return encoder.encode_gauge(&self.uptime.as_secs_f64()),
            "peers" => now.peers,
            "handshakes" => now.handshakes,
            "slots" => now.slots,
            "streams" => now.streams,
            "memory_promised_bytes" => now.memory,
            "memory_held_bytes" => now.memory_held,
            "memory_waiting_connections" => now.starved,
            "book_bytes" => now.book,
            "subscribers" => now.subscriptions,
            "ready" => u64::from(!now.closing),
            // A test goes through all that there are.
            _ => return Ok(()),
        };
        encoder.encode_gauge(&value)
    }

    fn histogram(&self, mut encoder: MetricEncoder<'_>, metric: &Metric, protocols: &Protocols) -> fmt::Result {
        match metric.name.trim_start_matches("strait_") {
            "ping_seconds" => times(&mut encoder, &self.counters.pings),
            "queue_delay_seconds" => times(&mut encoder, &self.counters.delays),
            "handshake_seconds" => {
                for (carrier, histogram) in Carrier::ALL.iter().zip(&self.counters.handshakes) {
                    times(&mut encoder.encode_family(&[("transport", carrier.name())])?, histogram)?;
                }
                Ok(())
            }
            name => {
                for (protocol, (_, latency)) in protocols {
                    let histogram = if name == "request_seconds" { &latency.asked } else { &latency.served };
                    if histogram.total() > 0 {
                        times(&mut encoder.encode_family(&[("protocol", *protocol)])?, histogram)?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn driver(counters: &DriverCounters, name: &str) -> u64 {
    match name {
        "receive_calls" => counters.receive_calls,
        "send_calls" => counters.send_calls,
        "send_blocked" => counters.send_blocked,
        "send_errors" => counters.send_errors,
        "wakeups" => counters.wakeups,
        "accept_rests" => counters.accept_rests,
        "bytes_copied" => counters.bytes_copied,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn snapshot(counters: Counters) -> Snapshot {
        let (driver, now, limits) = (DriverCounters::default(), Now::default(), Limits::default());
        Snapshot { counters, driver, now, limits, uptime: Duration::from_millis(1_500) }
    }

    fn lines(text: &str) -> impl Iterator<Item = &str> {
        text.lines().filter(|line| !line.starts_with('#'))
    }

    #[test]
    fn every_metric_of_the_catalog_is_there_with_its_values() {
        let mut counters = Counters::default();
        counters.totals.dropped_late = 7;
        counters.protocols.entry("/a/1").or_default().sent = 3;
        counters.latencies.entry("/a/1").or_default().asked =
            Histogram::of(&[Duration::from_micros(99), Duration::from_secs(60)]);
        counters.latencies.entry("/a/1").or_default().served = Histogram::of(&[Duration::ZERO]);
        let text = snapshot(counters).encode();
        for metric in catalog() {
            let end = if metric.shape == Shape::Counter { "_total" } else { "" };
            let found = lines(&text).any(|line| line.starts_with(&format!("{}{end}", metric.name)));
            assert!(found, "{} is not there:\n{text}", metric.name);
        }
        for line in [
            "strait_dropped_late_total 7",
            "strait_limit_reached_total{limit=\"delay_max\"} 7",
            "strait_protocol_sent_total{protocol=\"/a/1\"} 3",
            "strait_request_seconds_bucket{le=\"0.0001\",protocol=\"/a/1\"} 1",
            "strait_request_seconds_bucket{le=\"30.0\",protocol=\"/a/1\"} 1",
            "strait_request_seconds_bucket{le=\"+Inf\",protocol=\"/a/1\"} 2",
            "strait_request_seconds_count{protocol=\"/a/1\"} 2",
            "strait_limit{name=\"idle_timeout\"} 30.0",
            "strait_uptime_seconds 1.5",
        ] {
            assert!(lines(&text).any(|other| other == line), "{line} is not in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn there_are_at_most_5000_series_however_many_protocols_a_program_has() {
        let mut counters = Counters::default();
        for index in 0..1_000 {
            let name: &'static str = Box::leak(format!("/p/{index:04}").into_boxed_str());
            counters.protocols.entry(name).or_default().sent = 1;
            let latency = counters.latencies.entry(name).or_default();
            (latency.asked, latency.served) = (Histogram::of(&[Duration::ZERO]), Histogram::of(&[Duration::ZERO]));
        }
        let text = snapshot(counters).encode();
        let series = lines(&text).count();
        assert!((4_000..=5_000).contains(&series), "{series} series");
        let others = format!("strait_protocol_sent_total{{protocol=\"{OTHERS}\"}} {}", 1_000 - PROTOCOLS_MAX);
        assert!(lines(&text).any(|line| line == others), "nothing is lost: {others}");
    }
}
