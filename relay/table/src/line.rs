//! A cache line of words.

use crate::sync::AtomicU64;

pub(crate) const WORDS: usize = 8;

/// 64 bytes: what the lines of all slabs are views of.
pub(crate) type Line = [AtomicU64; WORDS];

#[cfg(not(loom))]
const _: () = assert!(size_of::<Line>() == 64);
