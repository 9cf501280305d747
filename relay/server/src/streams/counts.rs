use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::published::ShardView;

/// Why a connection did not become a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No place is left.
    Full,
    /// None of its network's is.
    PrefixFull,
    /// Handshakes come too fast.
    Rate,
    /// Those of its network do.
    PrefixRate,
    /// The kernel did not give us the connection: usually the limit of open files.
    Accept,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// By the peer, or its network.
    Ended,
    /// What came was not TLS 1.3, or not for a relay.
    Tls,
    /// The handshake took too long.
    Handshake,
    /// A length that no datagram has.
    Malformed,
    /// No datagram came for a while.
    Idle,
    /// The peer read nothing for a while.
    Stalled,
}

/// Why a datagram did not go out by its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The stream's queue was full of newer ones.
    Full,
    /// There is no such stream any more, or it ended with the datagram in its queue.
    Gone,
}

impl Refused {
    pub(crate) const ALL: [Self; 5] =
        [Self::Full, Self::PrefixFull, Self::Rate, Self::PrefixRate, Self::Accept];

    /// The metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::PrefixFull => "prefix_full",
            Self::Rate => "rate",
            Self::PrefixRate => "prefix_rate",
            Self::Accept => "accept",
        }
    }
}

impl Closed {
    pub(crate) const ALL: [Self; 6] =
        [Self::Ended, Self::Tls, Self::Handshake, Self::Malformed, Self::Idle, Self::Stalled];

    /// The metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Tls => "tls",
            Self::Handshake => "handshake",
            Self::Malformed => "malformed",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
        }
    }
}

impl Dropped {
    pub(crate) const ALL: [Self; 2] = [Self::Full, Self::Gone];

    /// The metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Gone => "gone",
        }
    }
}

/// What the streams' thread counts beside its shard's decisions. `to_streams` is what has gone out,
/// what was dropped and what waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) established: u64,
    pub(crate) open: u64,
    /// Datagrams for streams.
    pub(crate) to_streams: u64,
    /// Of these, those that came by streams, too: the others came by the outlet.
    pub(crate) stream_to_stream: u64,
    pub(crate) sent: u64,
    refused: [u64; Refused::ALL.len()],
    closed: [u64; Closed::ALL.len()],
    dropped: [u64; Dropped::ALL.len()],
}

const SINGLE: usize = 6;
const WORDS: usize = SINGLE + Refused::ALL.len() + Closed::ALL.len() + Dropped::ALL.len();

impl Counts {
    pub(super) const fn refuse(&mut self, reason: Refused) {
        self.refused[reason as usize] += 1;
    }

    pub(super) const fn close(&mut self, cause: Closed) {
        self.closed[cause as usize] += 1;
    }

    pub(super) const fn drop(&mut self, reason: Dropped, datagrams: u64) {
        self.dropped[reason as usize] += datagrams;
    }

    pub(crate) const fn refused(&self, reason: Refused) -> u64 {
        self.refused[reason as usize]
    }

    pub(crate) const fn closed(&self, cause: Closed) -> u64 {
        self.closed[cause as usize]
    }

    pub(crate) const fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize]
    }

    fn words(&mut self) -> [&mut u64; WORDS] {
        let Self { accepted, established, open, to_streams, stream_to_stream, sent, .. } = self;
        let mut words = [accepted, established, open, to_streams, stream_to_stream, sent]
            .into_iter()
            .chain(&mut self.refused)
            .chain(&mut self.closed)
            .chain(&mut self.dropped);
        std::array::from_fn(|_| words.next().expect("WORDS counts them"))
    }
}

/// What the streams' thread lets others see.
#[derive(Debug)]
pub(crate) struct StreamsView {
    /// Its decisions, and what it sends by UDP.
    pub(crate) shard: Arc<ShardView>,
    words: [AtomicU64; WORDS],
}

impl StreamsView {
    pub(crate) fn new(shard: Arc<ShardView>) -> Self {
        Self { shard, words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    pub(super) fn publish(&self, mut counts: Counts) {
        for (shared, word) in self.words.iter().zip(counts.words()) {
            shared.store(*word, Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (shared, word) in self.words.iter().zip(counts.words()) {
            *word = shared.load(Ordering::Relaxed);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_in_the_order_of_declaration() {
        assert!(Refused::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        assert!(Closed::ALL.iter().enumerate().all(|(at, cause)| *cause as usize == at));
        assert!(Dropped::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }
}
