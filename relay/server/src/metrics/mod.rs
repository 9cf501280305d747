//! `/metrics`: every series is there from the first scrape, and none names a member, a party or an
//! address.
//!
//! A metric is one row of a table: name, kind, help, and where its value comes from.

use std::net::SocketAddr;
use std::sync::Arc;

use lanrage_relay_core::Counters;
use lanrage_relay_uring as uring;

use crate::clock::unix_s;
use crate::published::{BinderView, Published, ShardView};
use crate::queues::Queues;
use crate::role::Role;
use crate::streams::Counts;

mod page;
use page::{Distribution, Metric};

mod binder;
mod relay;
mod shards;
mod streams;

/// What does not change while the relay runs.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) backend: &'static str,
    pub(crate) steering: &'static str,
    pub(crate) gso: &'static str,
    pub(crate) gso_switch: uring::GsoSwitch,
    pub(crate) capacity: u32,
    /// By local id.
    pub(crate) listen: Vec<SocketAddr>,
    /// Seconds since 1970.
    pub(crate) started_at: u64,
}

/// What a page is made of.
#[derive(Debug)]
struct Snapshot<'a> {
    published: &'a Published,
    facts: &'a Facts,
    is_ready: bool,
    /// Those of data, of control frames and of streams.
    shards: Vec<Arc<ShardView>>,
    streams: Counts,
    cores: Vec<Counters>,
    binder: Option<BinderView>,
    queues: Option<Arc<Queues>>,
    unix_s: u64,
}

impl Snapshot<'_> {
    /// Of all shards' decisions.
    fn core(&self, of: fn(&Counters) -> u64) -> u64 {
        self.cores.iter().map(of).sum()
    }

    /// Of all shards' dealings with the kernel.
    fn kernel(&self, of: fn(&uring::Counters) -> &uring::Counter) -> u64 {
        self.shards.iter().map(|shard| of(&shard.kernel).get()).sum()
    }

    fn shards(&self, of: fn(&ShardView) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(shard)).sum()
    }

    fn histogram(&self, of: fn(&uring::Counters) -> &uring::Histogram) -> Vec<u64> {
        sum(self.shards.iter().map(|shard| of(&shard.kernel).buckets()))
    }

    fn latencies(&self, of: fn(&uring::Counters) -> &uring::Latencies) -> Distribution {
        let all = || self.shards.iter().map(|shard| of(&shard.kernel));
        let sum_us: u64 = all().map(uring::Latencies::sum_us).sum();
        let buckets = sum(all().map(uring::Latencies::buckets));
        Distribution { buckets, first: 1e-6, sum: sum_us as f64 / 1e6 }
    }

    fn data_shards(&self) -> usize {
        self.shards.iter().filter(|shard| matches!(shard.role, Role::Shard(_))).count()
    }

    /// Of the binder; 0 before it runs.
    fn binder(&self, of: impl Fn(&BinderView) -> u64) -> u64 {
        self.binder.as_ref().map_or(0, of)
    }
}

fn sum<const N: usize>(parts: impl Iterator<Item = [u64; N]>) -> Vec<u64> {
    parts.fold([0; N], |sum, part| std::array::from_fn(|at| sum[at] + part[at])).to_vec()
}

fn table() -> impl Iterator<Item = &'static Metric> {
    let rows = shards::METRICS.iter().chain(streams::METRICS);
    rows.chain(binder::METRICS).chain(relay::METRICS)
}

/// The page.
pub(crate) fn render(published: &Published, facts: &Facts, is_ready: bool) -> String {
    let shards = published.all_shards();
    let snapshot = Snapshot {
        published,
        facts,
        is_ready,
        cores: shards.iter().map(|shard| shard.counters()).collect(),
        shards,
        streams: published.streams().map(|view| view.counts()).unwrap_or_default(),
        binder: published.binder(),
        queues: published.queues(),
        unix_s: unix_s(),
    };
    let mut page = String::with_capacity(16 << 10);
    table().for_each(|metric| metric.write(&snapshot, &mut page));
    page
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/relay-metrics.md");

    #[test]
    fn names_are_what_prometheus_expects_and_stand_once() {
        let mut names = HashSet::new();
        for metric in table() {
            assert!(names.insert(metric.name), "{} stands twice", metric.name);
            assert_eq!(metric.is_counter(), metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    /// `LANRAGE_UPDATE=1` writes the table into the book.
    #[test]
    fn the_book_has_the_table() {
        let rows: String = table().map(Metric::row).collect();
        let text = std::fs::read_to_string(DOCS).unwrap();
        let (head, _) = text.split_once("|---|---|---|\n").unwrap();
        let expected = format!("{head}|---|---|---|\n{rows}");
        if std::env::var_os("LANRAGE_UPDATE").is_some() {
            std::fs::write(DOCS, &expected).unwrap();
        } else {
            assert!(text == expected, "run this test with LANRAGE_UPDATE=1 to write {DOCS}");
        }
    }
}
