//! How much a table holds, and its three beginnings.

use std::collections::TryReserveError;

use crate::{
    ids::Handle,
    index::SessionIndex,
    line::WORDS,
    memory::{self, AttachError},
    reader::Reader,
    sync::AtomicU64,
    writer::Writer,
};

/// How much a table holds. Fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Leases, `1..=2^24`.
    pub leases: u32,
    /// Chain lines, `1..=2^24`: one for every twelve members of a session, at least one a session.
    pub session_lines: u32,
}

impl Capacity {
    /// Largest number of leases and of session lines.
    pub const MAX: u32 = 1 << Handle::INDEX_BITS;

    /// Room for sessions of two leases: a party has no use for a relay with fewer.
    #[must_use]
    pub const fn for_leases(leases: u32) -> Self {
        Self { leases, session_lines: leases.div_ceil(2) }
    }

    /// Bytes a table takes, all of them from the start.
    #[must_use]
    pub fn footprint(self) -> Footprint {
        Footprint {
            slabs: self.words() * size_of::<u64>(),
            writer: Writer::footprint(self) + SessionIndex::footprint(self.session_lines),
        }
    }

    pub(crate) fn check(self) -> Result<(), CapacityError> {
        let valid = 1..=Self::MAX;
        if !valid.contains(&self.leases) {
            return Err(CapacityError::Leases(self.leases));
        }
        if !valid.contains(&self.session_lines) {
            return Err(CapacityError::SessionLines(self.session_lines));
        }
        Ok(())
    }
}

/// Bytes of a table, by who uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// The slabs and the directory of sessions that shards and binder share.
    pub slabs: usize,
    /// The binder's own free lists and indexes.
    pub writer: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    #[error("a lease table holds 1 to {max} leases, not {0}: change the number of leases", max = Capacity::MAX)]
    Leases(u32),
    #[error("a lease table holds 1 to {max} session lines, not {0}: change the number of leases", max = Capacity::MAX)]
    SessionLines(u32),
    #[error(
        "not enough memory for the lease table: configure fewer leases or give the process more memory"
    )]
    Memory(#[from] TryReserveError),
}

/// A table in memory of its own, all of it touched, which is never given back: a relay has one table for its life.
///
/// # Errors
/// A capacity outside `1..=2^24`; an allocation that the system refuses.
pub fn new(capacity: Capacity) -> Result<(Writer, Reader), AttachError> {
    capacity.check()?;
    let spare = WORDS - 1;
    let words =
        allocate(capacity.words() + spare, || AtomicU64::new(0)).map_err(CapacityError::from)?;
    let words: &'static [AtomicU64] = Box::leak(words);
    // The model checker's words are larger, and their place does not matter.
    let unaligned = if cfg!(loom) { 0 } else { words.as_ptr().align_offset(64) };
    create(&words[unaligned.min(spare)..], capacity)
}

/// A table in memory that the caller provides: [`Capacity::words`] words or more, all zero, aligned to 64 bytes for
/// speed alone.
///
/// # Errors
/// A capacity outside `1..=2^24`; memory that is too small or not zero; an allocation that the system refuses.
pub fn create(
    words: &'static [AtomicU64],
    capacity: Capacity,
) -> Result<(Writer, Reader), AttachError> {
    let slabs = memory::begin(words, capacity)?;
    let writer = Writer::new(capacity, slabs).map_err(CapacityError::from)?;
    Ok((writer, Reader::new(slabs)))
}

/// The table that another writer has left in this memory, possibly of another process. From here on this writer is its
/// only one; readers of the other process may go on. Nothing is changed until the first edit.
///
/// # Errors
/// The memory holds no table, one of another layout, or one that is damaged; an allocation that the system refuses.
pub fn adopt(words: &'static [AtomicU64]) -> Result<(Writer, Reader), AttachError> {
    let (capacity, slabs) = memory::attach(words)?;
    Ok((Writer::adopt(capacity, slabs)?, Reader::new(slabs)))
}

/// A full slice of exactly this length.
pub(crate) fn allocate<T>(
    len: usize,
    fill: impl FnMut() -> T,
) -> Result<Box<[T]>, TryReserveError> {
    let mut items = Vec::new();
    items.try_reserve_exact(len)?;
    items.resize_with(len, fill);
    Ok(items.into_boxed_slice())
}
