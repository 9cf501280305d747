//! The words that a table lives in: what it says of itself, and where each slab lies.
//!
//! ```text
//! line 0                  word 0 magic | word 1 layout version | word 2 leases u32 | session lines u32, low bits first |
//!                         words 3, 4 key of the directory
//! 1 ..                    a lease line a slot
//! 1 + L ..                an owner line a slot
//! 1 + 2 L ..              session lines + 1 chain lines; number 0 is never used
//! 1 + 2 L + C ..          session lines + 1 session lines
//! 1 + 2 L + 2 C ..        the directory: a bucket for every four session lines, rounded up to a power of two
//! ```
//!
//! Lines have eight words in the machine's byte order, zero is an empty line, and everything is addressed by index. Five
//! BPF array maps of 64-byte values with these indexes could mirror the slabs.

use std::hash::{BuildHasher as _, RandomState};

use crate::{
    directory::Directory,
    lease::LeaseLine,
    line::{Line, WORDS},
    slabs::{Capacity, CapacityError},
    sync::{AtomicU64, Ordering},
};

/// "lanrage\0" and a number that changes with any layout of a line.
const MAGIC: u64 = u64::from_le_bytes(*b"lanrage\0");

/// The layout of the slabs and of their lines.
pub const LAYOUT_VERSION: u64 = 1;

/// The memory holds no table that this program can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    #[error("the memory has {words} words and the lease table takes {needed}: give it all of it")]
    Size { words: usize, needed: usize },
    #[error("the memory is in use already: a new lease table takes fresh memory")]
    NotFresh,
    #[error("the memory holds no lease table: it was not written by a relay")]
    NoTable,
    #[error(
        "the lease table has layout {0}, and this program knows {LAYOUT_VERSION}: stop the relay and start this program"
    )]
    Layout(u64),
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    /// A line contradicts itself or another.
    #[error("the lease table is damaged ({0}): stop the relay and start it again")]
    Corrupt(&'static str),
}

impl Capacity {
    /// Words of memory that a table takes.
    #[must_use]
    pub const fn words(self) -> usize {
        let directory = Directory::lines(self.session_lines);
        WORDS * (1 + 2 * self.leases as usize + 2 * self.chain_lines() + directory)
    }

    pub(crate) const fn chain_lines(self) -> usize {
        self.session_lines as usize + 1
    }
}

/// The slabs that writer and readers share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slabs {
    pub(crate) leases: &'static [Line],
    pub(crate) owners: &'static [Line],
    pub(crate) chains: &'static [Line],
    /// By the number of the chain's head.
    pub(crate) sessions: &'static [Line],
    pub(crate) directory: Directory,
}

/// Begins a table in memory that is all zero.
pub(crate) fn begin(words: &'static [AtomicU64], capacity: Capacity) -> Result<Slabs, AttachError> {
    capacity.check()?;
    let random = RandomState::new();
    let key = [random.hash_one(0), random.hash_one(1)];
    let (head, slabs) = split(words, capacity, key)?;
    if head.iter().any(|word| word.load(Ordering::Relaxed) != 0) {
        return Err(AttachError::NotFresh);
    }
    let size = u64::from(capacity.leases) | u64::from(capacity.session_lines) << 32;
    for (word, value) in head.iter().zip([MAGIC, LAYOUT_VERSION, size, key[0], key[1]]) {
        word.store(value, Ordering::Relaxed);
    }
    Ok(slabs)
}

/// The table that another writer began.
pub(crate) fn attach(words: &'static [AtomicU64]) -> Result<(Capacity, Slabs), AttachError> {
    let [magic, layout, size, key @ ..] = words else { return Err(AttachError::NoTable) };
    if magic.load(Ordering::Relaxed) != MAGIC {
        return Err(AttachError::NoTable);
    }
    match layout.load(Ordering::Relaxed) {
        LAYOUT_VERSION => {}
        other => return Err(AttachError::Layout(other)),
    }
    let size = size.load(Ordering::Relaxed);
    let capacity = Capacity { leases: size as u32, session_lines: (size >> 32) as u32 };
    capacity.check()?;
    let [first, second, ..] = key else { return Err(AttachError::NoTable) };
    let key = [first, second].map(|word| word.load(Ordering::Relaxed));
    let (_, slabs) = split(words, capacity, key)?;
    Ok((capacity, slabs))
}

fn split(
    words: &'static [AtomicU64],
    capacity: Capacity,
    key: [u64; 2],
) -> Result<(&'static Line, Slabs), AttachError> {
    let needed = capacity.words();
    let size = AttachError::Size { words: words.len(), needed };
    let Some((lines, _)) = words.get(..needed).map(<[AtomicU64]>::as_chunks) else {
        return Err(size);
    };
    let (head, lines) = lines.split_first().ok_or(size)?;
    let (leases, lines) = lines.split_at(capacity.leases as usize);
    let (owners, lines) = lines.split_at(capacity.leases as usize);
    let (chains, lines) = lines.split_at(capacity.chain_lines());
    let (sessions, buckets) = lines.split_at(capacity.chain_lines());
    let directory = Directory::new(key, buckets);
    Ok((head, Slabs { leases, owners, chains, sessions, directory }))
}

impl Slabs {
    pub(crate) fn lease(&self, slot: u32) -> Option<LeaseLine<'static>> {
        self.leases.get(slot as usize).map(LeaseLine)
    }
}
