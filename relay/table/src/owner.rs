//! What the shards write: one line a lease, one a session.
//!
//! All loads and stores are relaxed and nothing is a read-modify-write. When a flow moves to another shard two shards
//! write for a moment: a count or a charge may be lost, nothing else depends on it.

use crate::{
    ids::Handle,
    line::Line,
    sync::{AtomicU64, Ordering},
};

/// What a token bucket is charged in. The words are the caller's; a new lease or session starts with zero in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    Packets = 0,
    Bytes = 1,
    /// Datagrams sent for broadcasts.
    Copies = 2,
}

const LAST_SEEN: usize = 3;
const RX_PACKETS: usize = 4;
const RX_BYTES: usize = 5;
const ACTIVATION: usize = 6;
const EGRESS: usize = 7;

/// Set beside the handle, so that handle 0 differs from a fresh line.
const REPORTED: u64 = 1 << 32;
/// Above the report in its word: frames of the lease that went nowhere.
const DROPPED_SHIFT: u32 = 33;
const DROPPED_MAX: u64 = u64::MAX >> DROPPED_SHIFT;

/// The line of a lease that its receiving shard writes and the binder reads.
#[derive(Debug, Clone, Copy)]
pub struct OwnerLine<'a>(pub(crate) &'a Line);

/// Frames received from a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub packets: u64,
    pub bytes: u64,
}

impl<'a> OwnerLine<'a> {
    /// Milliseconds since the relay's start.
    #[must_use]
    pub fn last_seen_ms(self) -> u64 {
        self.word(LAST_SEEN).load(Ordering::Relaxed)
    }

    pub fn set_last_seen_ms(self, now_ms: u64) {
        self.word(LAST_SEEN).store(now_ms, Ordering::Relaxed);
    }

    #[must_use]
    pub fn bucket(self, budget: Budget) -> u64 {
        self.word(budget as usize).load(Ordering::Relaxed)
    }

    pub fn set_bucket(self, budget: Budget, value: u64) {
        self.word(budget as usize).store(value, Ordering::Relaxed);
    }

    /// Nothing was charged.
    pub(crate) fn empty_buckets(self) {
        for budget in [Budget::Packets, Budget::Bytes, Budget::Copies] {
            self.set_bucket(budget, 0);
        }
    }

    /// A bucket more, of what is sent for the lease. The word is the caller's.
    #[must_use]
    pub fn egress(&self) -> u64 {
        self.word(EGRESS).load(Ordering::Relaxed)
    }

    pub fn set_egress(&self, value: u64) {
        self.word(EGRESS).store(value, Ordering::Relaxed);
    }

    #[must_use]
    pub fn received(self) -> Received {
        Received {
            packets: self.word(RX_PACKETS).load(Ordering::Relaxed),
            bytes: self.word(RX_BYTES).load(Ordering::Relaxed),
        }
    }

    pub fn count_received(self, packets: u64, bytes: u64) {
        for (at, more) in [(RX_PACKETS, packets), (RX_BYTES, bytes)] {
            let word = self.word(at);
            word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        }
    }

    /// Frames of the lease that went nowhere; stays at 2^31 - 1.
    #[must_use]
    pub fn dropped(self) -> u64 {
        self.word(ACTIVATION).load(Ordering::Relaxed) >> DROPPED_SHIFT
    }

    pub fn count_dropped(self, packets: u64) {
        let word = self.word(ACTIVATION);
        let before = word.load(Ordering::Relaxed);
        let dropped = (before >> DROPPED_SHIFT).saturating_add(packets).min(DROPPED_MAX);
        word.store(
            dropped << DROPPED_SHIFT | before & !(DROPPED_MAX << DROPPED_SHIFT),
            Ordering::Relaxed,
        );
    }

    /// Whether the binder has been told that this pending lease was used. It is kept by handle: a shard that is late
    /// with the mark of a slot's former lease cannot silence the report of its next one.
    #[must_use]
    pub fn is_activation_reported(self, handle: Handle) -> bool {
        let report =
            self.word(ACTIVATION).load(Ordering::Relaxed) & !(DROPPED_MAX << DROPPED_SHIFT);
        report == REPORTED | u64::from(handle.to_bits())
    }

    /// To be called once the report is in the binder's queue.
    pub fn mark_activation_reported(self, handle: Handle) {
        let word = self.word(ACTIVATION);
        let dropped = word.load(Ordering::Relaxed) & DROPPED_MAX << DROPPED_SHIFT;
        word.store(dropped | REPORTED | u64::from(handle.to_bits()), Ordering::Relaxed);
    }

    pub(crate) fn reset(self, now_ms: u64) {
        for (at, word) in self.0.iter().enumerate() {
            word.store(if at == LAST_SEEN { now_ms } else { 0 }, Ordering::Relaxed);
        }
    }

    /// A load for its cache effect.
    #[inline]
    pub(crate) fn touch(self) -> u64 {
        self.last_seen_ms()
    }

    fn word(self, at: usize) -> &'a AtomicU64 {
        &self.0[at]
    }
}

/// The buckets that the members of a session share. Members may be received by different shards: a charge can be lost
/// when two meet, so a session may exceed its budget by what the shards handle within a few nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct SessionLine<'a>(pub(crate) &'a Line);

impl SessionLine<'_> {
    #[must_use]
    pub fn bucket(self, budget: Budget) -> u64 {
        self.0[budget as usize].load(Ordering::Relaxed)
    }

    pub fn set_bucket(self, budget: Budget, value: u64) {
        self.0[budget as usize].store(value, Ordering::Relaxed);
    }

    pub(crate) fn reset(self) {
        for word in self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// A load for its cache effect.
    #[inline]
    pub(crate) fn touch(self) -> u64 {
        self.bucket(Budget::Packets)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn drops_and_the_report_share_a_word() {
        let words = Line::default();
        let line = OwnerLine(&words);
        let handle = Handle::from_bits(u32::MAX);
        line.count_dropped(3);
        assert!(!line.is_activation_reported(handle));
        line.mark_activation_reported(handle);
        line.count_dropped(4);
        assert!(line.is_activation_reported(handle));
        assert!(!line.is_activation_reported(Handle::from_bits(0)));
        assert_eq!(line.dropped(), 7);
        line.count_dropped(u64::MAX);
        assert_eq!(line.dropped(), DROPPED_MAX);
        assert!(line.is_activation_reported(handle));
        line.reset(5);
        assert_eq!((line.dropped(), line.last_seen_ms()), (0, 5));
    }
}
