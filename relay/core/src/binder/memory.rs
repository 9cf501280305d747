use std::sync::atomic::{AtomicU64, Ordering};

use lanrage_relay_table::Capacity;

use super::records::{RECORD_WORDS, Record};

/// "binder\0\0".
const MAGIC: u64 = u64::from_le_bytes(*b"binder\0\0");
/// Changes with the layout of records and ranks.
const VERSION: u64 = 1;
const HEAD_WORDS: usize = 8;

/// Words of a rank's slot.
pub(super) const RANK_WORDS: usize = 2;
/// Slots for ranks: four a lease, and never so few that they collide.
const RANKS_MIN: usize = 1 << 16;

/// A million leases in 250,000 parties, all that grows with them included: 104 of records and 67
/// of ranks here, 201 of slabs and 20 of indexes in the table, in MB. 450 less that leaves 58 for
/// rings, queues and the program.
const MILLION: Capacity = Capacity::for_leases(1_000_000);
const _: () = assert!(RECORD_WORDS * 8 == 104);
const _: () = assert!(binder_words(MILLION) * 8 + MILLION.words() * 8 < 380_000_000);

/// Words of memory that a binder over a table of this capacity takes, beside the table's.
pub const fn binder_words(capacity: Capacity) -> usize {
    HEAD_WORDS + capacity.leases as usize * RECORD_WORDS + rank_slots(capacity) * RANK_WORDS
}

const fn rank_slots(capacity: Capacity) -> usize {
    let wanted = 4 * capacity.leases as usize;
    if wanted > RANKS_MIN { wanted.next_power_of_two() } else { RANKS_MIN }
}

/// Why memory cannot be a binder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Too small for the table's capacity.
    #[error("the binder's memory has {words} words and takes {needed}: give it all of it")]
    Size {
        /// There are.
        words: usize,
        /// There should be.
        needed: usize,
    },
    /// Something is in it already.
    #[error("the binder's memory is in use already: give it fresh memory")]
    NotFresh,
    /// Another program wrote it.
    #[error("the binder's memory has another layout: stop the relay and start this program")]
    Layout,
}

/// What the binder keeps for each lease, and for each rank, by index:
///
/// ```text
/// word 0..8   magic | version | leases | 0...
/// 8 ..        a record a slot of the table, 12 words
/// 8 + 12 L .. ranks, 2 words each
/// ```
///
/// The binder is its only user; the words are atomics so that they can be shared memory, which the
/// next process goes on with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) records: &'static [[AtomicU64; RECORD_WORDS]],
    pub(super) ranks: &'static [[AtomicU64; RANK_WORDS]],
}

impl Memory {
    /// Memory of this process alone, for the rest of its life.
    pub(super) fn allocate(capacity: Capacity) -> &'static [AtomicU64] {
        let words: Vec<_> = (0..binder_words(capacity)).map(|_| AtomicU64::new(0)).collect();
        words.leak()
    }

    /// Begins in memory that is all zero.
    pub(super) fn begin(
        words: &'static [AtomicU64],
        capacity: Capacity,
    ) -> Result<Self, MemoryError> {
        let (head, memory) = split(words, capacity)?;
        if head.iter().any(|word| word.load(Ordering::Relaxed) != 0) {
            return Err(MemoryError::NotFresh);
        }
        for (word, value) in head.iter().zip([MAGIC, VERSION, u64::from(capacity.leases)]) {
            word.store(value, Ordering::Relaxed);
        }
        Ok(memory)
    }

    /// Goes on with what another binder has left.
    pub(super) fn attach(
        words: &'static [AtomicU64],
        capacity: Capacity,
    ) -> Result<Self, MemoryError> {
        let (head, memory) = split(words, capacity)?;
        let found = [0, 1, 2].map(|at: usize| head[at].load(Ordering::Relaxed));
        if found != [MAGIC, VERSION, u64::from(capacity.leases)] {
            return Err(MemoryError::Layout);
        }
        Ok(memory)
    }

    /// The record of a slot, of its former lease if it is free.
    pub(super) fn record(&self, slot: u32) -> Record {
        let words = &self.records[slot as usize];
        Record::unpack(std::array::from_fn(|at| words[at].load(Ordering::Relaxed)))
    }

    pub(super) fn set_record(&self, slot: u32, record: &Record) {
        for (shared, word) in self.records[slot as usize].iter().zip(record.pack()) {
            shared.store(word, Ordering::Relaxed);
        }
    }
}

fn split(
    words: &'static [AtomicU64],
    capacity: Capacity,
) -> Result<(&'static [AtomicU64], Memory), MemoryError> {
    let needed = binder_words(capacity);
    let size = MemoryError::Size { words: words.len(), needed };
    let (head, rest) = words.get(..needed).ok_or(size)?.split_at_checked(HEAD_WORDS).ok_or(size)?;
    let (records, ranks) = rest.split_at(capacity.leases as usize * RECORD_WORDS);
    Ok((head, Memory { records: records.as_chunks().0, ranks: ranks.as_chunks().0 }))
}
