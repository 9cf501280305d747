//! What writer and readers share, and how much of it there is.

use std::{collections::TryReserveError, sync::Arc};

use crate::{
    chain::ChainLine,
    directory::Directory,
    ids::Handle,
    index::SessionIndex,
    lease::LeaseLine,
    owner::{OwnerLine, SessionLine},
    reader::Reader,
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

    /// Bytes the table allocates, all of them in [`new`].
    #[must_use]
    pub fn footprint(self) -> Footprint {
        let leases = self.leases as usize;
        let lines = self.session_lines as usize + 1;
        Footprint {
            slabs: leases * (size_of::<LeaseLine>() + size_of::<OwnerLine>())
                + lines * (size_of::<ChainLine>() + size_of::<SessionLine>())
                + Directory::footprint(self.session_lines),
            writer: Writer::footprint(self) + SessionIndex::footprint(self.session_lines),
        }
    }

    fn check(self) -> Result<(), CapacityError> {
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

/// Allocates a table and touches all of its memory.
///
/// # Errors
/// A capacity outside `1..=2^24`; an allocation that the system refuses.
pub fn new(capacity: Capacity) -> Result<(Writer, Reader), CapacityError> {
    capacity.check()?;
    let slabs = Arc::new(Slabs::new(capacity)?);
    Ok((Writer::new(capacity, Arc::clone(&slabs))?, Reader::new(slabs)))
}

#[derive(Debug)]
pub(crate) struct Slabs {
    pub(crate) leases: Box<[LeaseLine]>,
    pub(crate) owners: Box<[OwnerLine]>,
    pub(crate) chains: Box<[ChainLine]>,
    /// By the number of the chain's head.
    pub(crate) sessions: Box<[SessionLine]>,
    pub(crate) directory: Directory,
}

impl Slabs {
    fn new(capacity: Capacity) -> Result<Self, TryReserveError> {
        let leases = capacity.leases as usize;
        let lines = capacity.session_lines as usize + 1;
        Ok(Self {
            leases: allocate(leases, LeaseLine::default)?,
            owners: allocate(leases, OwnerLine::default)?,
            chains: allocate(lines, ChainLine::default)?,
            sessions: allocate(lines, SessionLine::default)?,
            directory: Directory::new(capacity.session_lines)?,
        })
    }
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
