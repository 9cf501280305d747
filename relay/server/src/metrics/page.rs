//! Prometheus's text format, version 0.0.4.

use std::fmt::Write as _;

use super::Snapshot;

const PREFIX: &str = "lanrage_relay_";

/// One metric.
#[derive(Debug)]
pub(super) struct Metric {
    /// Without the prefix.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Counter(fn(&Snapshot<'_>, &mut Samples<'_>)),
    Gauge(fn(&Snapshot<'_>, &mut Samples<'_>)),
    Histogram(fn(&Snapshot<'_>) -> Distribution),
}

/// What a classic histogram says.
#[derive(Debug)]
pub(super) struct Distribution {
    /// Observations up to `first`, `2 × first`, `4 × first`, …, and above all of these.
    pub(super) buckets: Vec<u64>,
    /// The upper bound of the first bucket.
    pub(super) first: f64,
    /// Of all observations.
    pub(super) sum: f64,
}

/// Takes a metric's values.
#[derive(Debug)]
pub(super) struct Samples<'a> {
    name: &'static str,
    page: &'a mut String,
}

pub(super) const fn counter(
    name: &'static str,
    help: &'static str,
    samples: fn(&Snapshot<'_>, &mut Samples<'_>),
) -> Metric {
    Metric { name, help, kind: Kind::Counter(samples) }
}

pub(super) const fn gauge(
    name: &'static str,
    help: &'static str,
    samples: fn(&Snapshot<'_>, &mut Samples<'_>),
) -> Metric {
    Metric { name, help, kind: Kind::Gauge(samples) }
}

pub(super) const fn histogram(
    name: &'static str,
    help: &'static str,
    distribution: fn(&Snapshot<'_>) -> Distribution,
) -> Metric {
    Metric { name, help, kind: Kind::Histogram(distribution) }
}

impl Samples<'_> {
    /// The only value.
    pub(super) fn value(&mut self, value: u64) {
        self.labelled(&[], value);
    }

    /// One of several.
    pub(super) fn labelled(&mut self, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<_> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.page, "{PREFIX}{}{labels} {value}", self.name);
    }
}

impl Metric {
    pub(super) fn write(&self, snapshot: &Snapshot<'_>, page: &mut String) {
        let Self { name, help, kind } = self;
        let _ = writeln!(page, "# HELP {PREFIX}{name} {help}");
        let _ = writeln!(page, "# TYPE {PREFIX}{name} {}", self.kind());
        match kind {
            Kind::Counter(samples) | Kind::Gauge(samples) => {
                samples(snapshot, &mut Samples { name, page });
            }
            Kind::Histogram(distribution) => distribution(snapshot).write(name, page),
        }
    }

    /// As in the book.
    #[cfg(test)]
    pub(super) fn row(&self) -> String {
        format!("| `{PREFIX}{}` | {} | {} |\n", self.name, self.kind(), self.help)
    }

    #[cfg(test)]
    pub(super) const fn is_counter(&self) -> bool {
        matches!(self.kind, Kind::Counter(_))
    }

    const fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Counter(_) => "counter",
            Kind::Gauge(_) => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

impl Distribution {
    fn write(self, name: &str, page: &mut String) {
        let Self { buckets, first, sum } = self;
        let mut cumulative = 0;
        let mut bound = first;
        for count in &buckets[..buckets.len().saturating_sub(1)] {
            cumulative += count;
            let _ = writeln!(page, "{PREFIX}{name}_bucket{{le=\"{bound}\"}} {cumulative}");
            bound *= 2.0;
        }
        let count: u64 = buckets.iter().sum();
        let _ = writeln!(page, "{PREFIX}{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(page, "{PREFIX}{name}_sum {sum}\n{PREFIX}{name}_count {count}");
    }
}
