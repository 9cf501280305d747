//! A cache line of words.

use std::array;

use crate::sync::AtomicU64;

pub(crate) const WORDS: usize = 8;

#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Line(pub(crate) [AtomicU64; WORDS]);

#[cfg(not(loom))]
const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

impl Default for Line {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}
