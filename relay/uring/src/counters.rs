//! What a shard counts: written by the shard alone, read by any thread without a lock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer. Adding is a load and a store, not a locked read-modify-write.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value now, or a moment ago if another thread is the writer.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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
    /// Receives that ended because every buffer of the ring was in use. Nothing is lost by it: the
    /// datagrams wait in the socket.
    pub enobufs: Counter,
    /// Multishot receives armed again after the kernel ended them for another reason.
    pub rearms: Counter,
    /// System calls made.
    pub syscalls: Counter,
    /// Wake-ups by a [`crate::Waker`].
    pub wakeups: Counter,
}

impl Counters {
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
    fn histogram_bounds_are_inclusive() {
        let histogram = Histogram::default();
        for size in [0, 1, 2, 3, 4, 5, 1024, 1025, 70_000] {
            histogram.record(size);
        }
        assert_eq!(histogram.buckets(), [2, 1, 2, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn all_lists_every_failure_at_its_own_index() {
        for (index, failure) in SendFailure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, index, "{}", failure.as_str());
        }
        assert_eq!(SendFailure::ALL.len(), SendFailure::Other as usize + 1);
    }
}
