//! What a shard counts: written by the shard alone, read by any thread without a lock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A counter with one writer. Adding is a load and a store, not a locked read-modify-write.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value now, or a moment ago if another thread is the writer.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Counts of sizes by power of two: bucket `i` holds sizes in `2^(i-1)+1 ..= 2^i`; the last holds
/// all that is larger, too.
#[derive(Debug, Default)]
pub struct Histogram([Counter; Self::BUCKETS]);

impl Histogram {
    /// Bucket bounds 1, 2, 4, … 1024, and one for what is larger.
    pub const BUCKETS: usize = 12;

    /// The buckets, smallest size first.
    pub fn buckets(&self) -> [u64; Self::BUCKETS] {
        std::array::from_fn(|bucket| self.0[bucket].get())
    }

    pub(crate) fn record(&self, size: usize) {
        let bucket = size.max(1).next_power_of_two().trailing_zeros() as usize;
        self.0[bucket.min(Self::BUCKETS - 1)].add(1);
    }
}

/// Counts of durations by power of two: bucket `i` holds those above `2^(i-1)` and up to `2^i`
/// microseconds; the first also what is shorter, the last what is longer.
#[derive(Debug, Default)]
pub struct Latencies {
    buckets: [Counter; Self::BUCKETS],
    sum_us: Counter,
}

impl Latencies {
    /// Bucket bounds 1, 2, 4, … 2²² µs (4.2 s), and one for what is longer.
    pub const BUCKETS: usize = 24;

    /// The buckets, shortest first.
    pub fn buckets(&self) -> [u64; Self::BUCKETS] {
        std::array::from_fn(|bucket| self.buckets[bucket].get())
    }

    /// All of them together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }

    fn all(&self) -> impl Iterator<Item = &Counter> {
        self.buckets.iter().chain([&self.sum_us])
    }

    pub(crate) fn record(&self, latency: Duration) {
        let us = latency.as_nanos().div_ceil(1000).clamp(1, 1 << 32) as u64;
        let bucket = us.next_power_of_two().trailing_zeros() as usize;
        self.buckets[bucket.min(Self::BUCKETS - 1)].add(1);
        self.sum_us.add(us);
    }
}

/// Why a datagram was not sent. Each is a counted drop; none ends a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFailure {
    /// EAGAIN: the socket's send buffer is full.
    WouldBlock,
    /// ENOBUFS, ENOMEM: the device queue or the kernel's memory is full.
    NoBuffers,
    /// EPERM, EACCES: a firewall rule, a prohibit route, or a broadcast address.
    NotPermitted,
    /// EMSGSIZE: larger than the device or the protocol carries.
    MessageSize,
    /// EIO: the device cannot checksum a segmented datagram.
    InputOutput,
    /// EINVAL, EAFNOSUPPORT, EDESTADDRREQ: an address this socket cannot send to.
    Invalid,
    /// ENETUNREACH, EHOSTUNREACH, ENETDOWN, EHOSTDOWN, EADDRNOTAVAIL: no way there.
    Unreachable,
    /// ECONNREFUSED: an ICMP error reported on the socket.
    Refused,
    /// The kernel took nothing from a full queue.
    Backlog,
    /// Any other errno.
    Other,
}

impl SendFailure {
    /// Every class, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::WouldBlock,
        Self::NoBuffers,
        Self::NotPermitted,
        Self::MessageSize,
        Self::InputOutput,
        Self::Invalid,
        Self::Unreachable,
        Self::Refused,
        Self::Backlog,
        Self::Other,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WouldBlock => "would_block",
            Self::NoBuffers => "no_buffers",
            Self::NotPermitted => "not_permitted",
            Self::MessageSize => "message_size",
            Self::InputOutput => "input_output",
            Self::Invalid => "invalid",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Backlog => "backlog",
            Self::Other => "other",
        }
    }

    pub(crate) fn from_errno(errno: i32) -> Self {
        match errno {
            libc::EAGAIN => Self::WouldBlock,
            libc::ENOBUFS | libc::ENOMEM => Self::NoBuffers,
            libc::EPERM | libc::EACCES => Self::NotPermitted,
            libc::EMSGSIZE => Self::MessageSize,
            libc::EIO => Self::InputOutput,
            libc::EINVAL | libc::EAFNOSUPPORT | libc::EDESTADDRREQ => Self::Invalid,
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::EADDRNOTAVAIL => Self::Unreachable,
            libc::ECONNREFUSED => Self::Refused,
            _ => Self::Other,
        }
    }
}

/// One shard's counters. Identities, exact between turns once what was queued has been submitted:
/// `tx_planned = tx_datagrams + Σ tx_failed`, and every datagram of `rx_segments` was shown to the
/// handler.
#[derive(Debug, Default)]
#[repr(align(128))] // Two cache lines: the adjacent-line prefetcher must not join two shards.
pub struct Counters {
    /// Receive completions shown to the handler: single datagrams and GRO trains.
    pub rx_arrivals: Counter,
    /// Datagrams in them: a train counts each of its segments.
    pub rx_segments: Counter,
    /// Payload bytes in them.
    pub rx_bytes: Counter,
    /// Arrivals dropped because they did not fit the receive buffer.
    pub rx_truncated: Counter,
    /// Arrivals dropped because the kernel's description of them did not parse.
    pub rx_malformed: Counter,
    /// Receive calls that failed with a socket error; receiving went on.
    pub rx_errors: Counter,
    /// Datagrams the kernel dropped because the socket's receive buffer was full (SO_RXQ_OVFL),
    /// known from the next datagram that arrives after them.
    pub rx_kernel_drops: Counter,
    /// Times a socket's receive buffer was shortened because a queue stood in it.
    pub queues_shortened: Counter,
    /// Turns that received something.
    pub batches: Counter,
    /// Arrivals in those turns.
    pub batch_sizes: Histogram,
    /// Segments an arrival.
    pub train_lengths: Histogram,
    /// Datagrams the handler asked to send: a train counts each of its segments.
    pub tx_planned: Counter,
    /// Datagrams that arrived, or were sent, by themselves and went into one train with others.
    pub tx_joined: Counter,
    /// Datagrams the kernel took.
    pub tx_datagrams: Counter,
    /// Payload bytes the kernel took.
    pub tx_bytes: Counter,
    /// Datagrams not sent, by [`SendFailure`]; read it with [`Counters::tx_failed`].
    pub(crate) tx_failures: [Counter; SendFailure::ALL.len()],
    /// Trains sent again as single datagrams after segmentation offload failed.
    pub gso_resent_trains: Counter,
    /// Sockets on which segmentation offload was turned off.
    pub gso_disabled_sockets: Counter,
    /// Times a destination was barred from segmentation offload.
    pub gso_barred_destinations: Counter,
    /// Receive buffers there are now.
    pub pool_buffers: Counter,
    /// Times the receive buffers were doubled, since a turn had found too few.
    pub pool_grown: Counter,
    /// Receives that ended because every buffer of the ring was in use. Nothing is lost by it: the
    /// datagrams wait in the socket.
    pub enobufs: Counter,
    /// Multishot receives armed again after the kernel ended them for another reason.
    pub rearms: Counter,
    /// How long the first arrival of a batch from each socket had waited in it when the shard saw it;
    /// one batch in [`SAMPLE_EVERY`](crate::SAMPLE_EVERY).
    pub queue_age: Latencies,
    /// From when the shard saw a batch to when all of it was submitted; of the same batches.
    pub forward_latency: Latencies,
    /// System calls made.
    pub syscalls: Counter,
    /// Wake-ups by a [`crate::Waker`].
    pub wakeups: Counter,
}

impl Counters {
    /// Every count in a fixed order, for the process that takes over.
    pub fn to_words(&self) -> Vec<u64> {
        self.all().map(Counter::get).collect()
    }

    /// Goes on from the counts of the process before, in its order. By the shard's own thread.
    pub(crate) fn resume(&self, words: &[u64]) {
        self.all().zip(words).for_each(|(counter, before)| counter.add(*before));
    }

    /// To be extended at the end with each new counter: that is the order of [`to_words`].
    ///
    /// [`to_words`]: Self::to_words
    fn all(&self) -> impl Iterator<Item = &Counter> {
        [
            &self.rx_arrivals,
            &self.rx_segments,
            &self.rx_bytes,
            &self.rx_truncated,
            &self.rx_malformed,
            &self.rx_errors,
            &self.rx_kernel_drops,
            &self.batches,
            &self.tx_planned,
            &self.tx_datagrams,
            &self.tx_bytes,
            &self.gso_resent_trains,
            &self.gso_disabled_sockets,
            &self.gso_barred_destinations,
            &self.enobufs,
            &self.rearms,
            &self.syscalls,
            &self.wakeups,
        ]
        .into_iter()
        .chain(&self.batch_sizes.0)
        .chain(&self.train_lengths.0)
        .chain(&self.tx_failures)
        .chain([&self.tx_joined, &self.pool_grown])
        .chain(self.queue_age.all())
        .chain(self.forward_latency.all())
        .chain([&self.queues_shortened])
    }

    /// Datagrams not sent for this reason.
    pub fn tx_failed(&self, failure: SendFailure) -> u64 {
        self.tx_failures[failure as usize].get()
    }

    /// Datagrams not sent, whatever the reason.
    pub fn tx_failed_total(&self) -> u64 {
        self.tx_failures.iter().map(Counter::get).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_carry_every_count() {
        let counters = Counters::default();
        let size = size_of::<Counters>() / size_of::<u64>() - counters.to_words().len();
        assert!(size < 128 / size_of::<u64>(), "{size} words beyond padding are in no order");
        let words: Vec<u64> = (1..=counters.to_words().len() as u64).collect();
        counters.resume(&words);
        assert_eq!(counters.to_words(), words);
        counters.resume(&words);
        assert_eq!(counters.rx_arrivals.get(), 2);
    }

    #[test]
    fn histogram_bounds_are_inclusive() {
        let histogram = Histogram::default();
        for size in [0, 1, 2, 3, 4, 5, 1024, 1025, 70_000] {
            histogram.record(size);
        }
        assert_eq!(histogram.buckets(), [2, 1, 2, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn latency_bounds_are_inclusive() {
        let latencies = Latencies::default();
        for ns in [0, 1, 1000, 1001, 2000, 4000, 4001, 5_000_000_000] {
            latencies.record(Duration::from_nanos(ns));
        }
        let buckets = latencies.buckets();
        assert_eq!((&buckets[..5], buckets[23]), (&[3, 2, 1, 1, 0][..], 1));
        assert_eq!(latencies.sum_us(), 1 + 1 + 1 + 2 + 2 + 4 + 5 + 5_000_000);
    }

    #[test]
    fn all_lists_every_failure_at_its_own_index() {
        for (index, failure) in SendFailure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, index, "{}", failure.as_str());
        }
        assert_eq!(SendFailure::ALL.len(), SendFailure::Other as usize + 1);
    }
}
