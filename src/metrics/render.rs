//! The text that `/metrics` answers with: OpenMetrics, written by
//! prometheus-client from the lanes' snapshots.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::process::Process;
use super::{Again, Holder, Reloads, Snapshot, Sum};
use crate::outcome::Outcome;
use crate::pacing::Gauge;

/// The media type of [`render`]'s text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Pairs<'a> = [(&'static str, &'a str)];

/// Writes the rows of one lane: labels besides the lane's name, and a value.
type Rows<'a> =
    &'a dyn Fn(&Snapshot, &mut dyn FnMut(&Pairs<'_>, u64) -> fmt::Result) -> fmt::Result;

/// All metrics as text.
pub(crate) fn render(lanes: Vec<Snapshot>, connections: u64, reloads: &Arc<Reloads>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(All {
        lanes,
        connections,
        reloads: Arc::clone(reloads),
        process: Process::read(),
    }));
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct All {
    lanes: Vec<Snapshot>,
    connections: u64,
    reloads: Arc<Reloads>,
    process: Option<Process>,
}

impl Collector for All {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        self.requests(&mut to)?;
        self.responses(&mut to)?;
        self.limits(&mut to)?;
        self.times(&mut to)?;
        self.reloads(&mut to)?;
        self.program(&mut to)
    }
}

impl All {
    fn requests(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests taken charge of, those refused at once included";
        self.counters(to, "pacegate_requests_admitted", help, &|lane, row| {
            row(&[], lane.admitted)
        })?;
        let help = "Requests by how they ended";
        self.counters(to, "pacegate_requests", help, &|lane, row| {
            Outcome::ALL
                .iter()
                .try_for_each(|end| row(&[("outcome", end.label())], lane.ended(*end)))
        })?;
        self.gauges(
            to,
            "pacegate_queue_requests",
            "Requests waiting",
            &|lane, row| row(&[], lane.waiting()),
        )?;
        let help = "Bytes of request heads and bodies waiting";
        self.gauges(to, "pacegate_queue_bytes", help, &|lane, row| {
            row(&[], u64::try_from(lane.queue_bytes).unwrap_or(0))
        })?;
        let help = "Requests sent and not yet ended";
        self.gauges(to, "pacegate_in_flight_requests", help, &|lane, row| {
            row(&[], lane.in_flight())
        })?;
        let help = "Connections to the upstream, in use or not";
        self.gauges(to, "pacegate_upstream_connections", help, &|lane, row| {
            row(&[], lane.connections())
        })
    }

    /// The lanes alone, without the requests that reach none.
    fn upstreams(&self) -> impl Iterator<Item = &Snapshot> {
        self.lanes.iter().filter(|lane| !lane.upstream.is_empty())
    }

    fn responses(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Responses of the upstream by class of status";
        self.counters(to, "pacegate_upstream_responses", help, &|lane, row| {
            let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
            classes
                .iter()
                .zip(lane.classes)
                .try_for_each(|(class, count)| row(&[("status", class)], count))
        })?;
        let help = "Requests that the upstream refused because of its limits";
        self.counters(to, "pacegate_upstream_throttled", help, &|lane, row| {
            row(&[], lane.throttled)
        })?;
        let help = "Requests that went for another turn, by why";
        self.counters(to, "pacegate_retries", help, &|lane, row| {
            let mut each = Again::ALL.iter().zip(lane.returned);
            each.try_for_each(|(why, count)| row(&[("reason", why.label())], count))
        })?;
        let (help, unit) = ("Time left of a cooldown", Some(&Unit::Seconds));
        let mut family =
            to.encode_descriptor("pacegate_cooldown", help, unit, MetricType::Gauge)?;
        for lane in self.upstreams() {
            let labels = [("upstream", lane.upstream.as_str())];
            let left = lane.cooldown.as_secs_f64();
            ConstGauge::new(left).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn limits(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut of_each = |name, help, value: fn(&Gauge) -> Option<u64>| {
            self.gauges(to, name, help, &|lane, row| {
                let values = lane
                    .limits
                    .iter()
                    .filter_map(|limit| Some((limit, value(limit)?)));
                let mut values = values.map(|(limit, value)| (limit.label.as_str(), value));
                values.try_for_each(|(label, value)| row(&[("limit", label)], value))
            })
        };
        let help = "Requests that the limit would let start now";
        of_each("pacegate_limit_available", help, |limit| Some(limit.left))?;
        let help = "Requests that the limit ever lets start at once";
        of_each("pacegate_limit_capacity", help, |limit| limit.capacity)?;
        let help = "1 for the limit that those who wait must wait for the longest";
        of_each("pacegate_limit_binding", help, |limit| {
            Some(u64::from(limit.binding))
        })?;
        let (help, unit) = (
            "Time for which the limit lets nothing start, if that is known",
            Some(&Unit::Seconds),
        );
        let kind = MetricType::Gauge;
        let mut family = to.encode_descriptor("pacegate_limit_wait", help, unit, kind)?;
        for lane in self.upstreams() {
            for limit in &lane.limits {
                let labels = [
                    ("upstream", lane.upstream.as_str()),
                    ("limit", limit.label.as_str()),
                ];
                let wait = limit.wait.as_secs_f64();
                ConstGauge::new(wait).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Keys that the limits tell apart at present";
        self.gauges(to, "pacegate_keys", help, &|lane, row| {
            row(&[], lane.keys as u64)
        })
    }

    fn times(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time from a request's arrival to its turn";
        self.histograms(to, "pacegate_queue_wait", help, |lane| &lane.wait)?;
        let help = "Time from a request's start to its response head";
        self.histograms(to, "pacegate_upstream_duration", help, |lane| {
            &lane.upstream_time
        })?;
        let help = "Time the head of the queue waited, by what held it";
        let kind = MetricType::Counter;
        let mut family = to.encode_descriptor("pacegate_held", help, Some(&Unit::Seconds), kind)?;
        for lane in self.upstreams() {
            for (by, nanos) in Holder::ALL.iter().zip(lane.held_nanos) {
                let labels = [("upstream", lane.upstream.as_str()), ("by", by.label())];
                let seconds = nanos as f64 / 1e9;
                ConstCounter::new(seconds).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn reloads(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let Reloads {
            applied,
            refused,
            last_applied,
        } = &*self.reloads;
        let (name, help) = ("pacegate_config_reloads", "Reloads of the settings");
        let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (result, count) in [("applied", applied), ("refused", refused)] {
            let labels = [("result", result)];
            ConstCounter::new(read(count)).encode(family.encode_family(&labels)?)?;
        }
        let name = "pacegate_config_last_applied_timestamp";
        let help = "When settings were reloaded last, since the Unix epoch; 0 if never";
        let unit = Some(&Unit::Seconds);
        let last = to.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(read(last_applied)).encode(last)
    }

    fn program(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let number =
            |to: &mut DescriptorEncoder<'_>, name, help, unit: Option<&Unit>, value: u64| {
                ConstGauge::new(value).encode(to.encode_descriptor(
                    name,
                    help,
                    unit,
                    MetricType::Gauge,
                )?)
            };
        number(
            to,
            "pacegate_client_connections",
            "Callers' connections",
            None,
            self.connections,
        )?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let help = "The program that runs";
        let mut info =
            to.encode_descriptor("pacegate_build_info", help, None, MetricType::Gauge)?;
        ConstGauge::new(1_u64).encode(info.encode_family(&version)?)?;
        let Some(process) = self.process else {
            return Ok(());
        };
        let bytes = Some(&Unit::Bytes);
        number(
            to,
            "process_resident_memory",
            "Resident memory",
            bytes,
            process.resident,
        )?;
        number(
            to,
            "process_open_fds",
            "Open file descriptors",
            None,
            process.open_fds,
        )?;
        number(to, "process_threads", "Threads", None, process.threads)?;
        let (help, unit) = ("User and system CPU time", Some(&Unit::Seconds));
        let cpu = to.encode_descriptor("process_cpu", help, unit, MetricType::Counter)?;
        ConstCounter::new(process.cpu).encode(cpu)
    }

    fn counters(
        &self,
        to: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        rows: Rows<'_>,
    ) -> fmt::Result {
        let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
        // The requests that reach no lane are counted as well.
        self.rows(self.lanes.iter(), rows, |labels, value| {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)
        })
    }

    fn gauges(
        &self,
        to: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        rows: Rows<'_>,
    ) -> fmt::Result {
        let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
        self.rows(self.upstreams(), rows, |labels, value| {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)
        })
    }

    fn rows<'a>(
        &self,
        lanes: impl Iterator<Item = &'a Snapshot>,
        rows: Rows<'_>,
        mut write: impl FnMut(&Pairs<'_>, u64) -> fmt::Result,
    ) -> fmt::Result {
        for lane in lanes {
            rows(lane, &mut |labels, value| {
                let mut all = vec![("upstream", lane.upstream.as_str())];
                all.extend_from_slice(labels);
                write(&all, value)
            })?;
        }
        Ok(())
    }

    fn histograms(
        &self,
        to: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        sum: impl Fn(&Snapshot) -> &Sum,
    ) -> fmt::Result {
        let kind = MetricType::Histogram;
        let mut family = to.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        for lane in self.upstreams() {
            let sum = sum(lane);
            let Some(bounds) = sum.bounds else { continue };
            let bounds = bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(sum.buckets).collect();
            let count = sum.buckets.iter().sum();
            let labels = [("upstream", lane.upstream.as_str())];
            let seconds = sum.nanos as f64 / 1e9;
            let mut encoder = family.encode_family(&labels)?;
            encoder.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
        }
        Ok(())
    }
}
