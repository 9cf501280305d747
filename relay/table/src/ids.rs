//! The numbers that name things, each with a type of its own.

use std::fmt;

/// A lease's slot and the slot's generation: what a client sends in every frame.
///
/// ```text
/// bits 31..24  generation: advances by one, modulo 256, each time the slot is freed
/// bits 23..0   index of the slot
/// ```
///
/// A stale handle matches again after 256 reuses of its slot. That is why a frame's tag, address and member are checked
/// as well, and why a target's session and member are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(u32);

impl Handle {
    /// Bits of the index.
    pub const INDEX_BITS: u32 = 24;

    pub(crate) fn new(index: u32, generation: u8) -> Self {
        debug_assert!(index >> Self::INDEX_BITS == 0);
        Self(u32::from(generation) << Self::INDEX_BITS | index)
    }

    /// The handle as received; any value is a handle, if not one of a lease.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The handle as sent.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The slot, `0..2^24`.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 & ((1 << Self::INDEX_BITS) - 1)
    }

    /// The slot's generation.
    #[must_use]
    pub const fn generation(self) -> u8 {
        (self.0 >> Self::INDEX_BITS) as u8
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

/// A random number that a client proves its handle with. Not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub u32);

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tag(..)")
    }
}

/// A session, as control numbers it: one party in one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A member number, `1..=250`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member(u8);

impl Member {
    /// The largest member number.
    pub const MAX: u8 = 250;

    /// `None` unless `1..=250`.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number == 0 || number > Self::MAX { None } else { Some(Self(number)) }
    }

    /// `1..=250`.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Which of the relay's own addresses (or its stream listener) a lease is reached from. The table only stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalId(pub u16);

/// The first line of a session's chain. Fixed while the session has a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead(pub(crate) u32);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn handle_splits_into_index_and_generation() {
        let handle = Handle::new(0x00ab_cdef, 0x12);
        assert_eq!(handle.to_bits(), 0x12ab_cdef);
        assert_eq!((handle.index(), handle.generation()), (0x00ab_cdef, 0x12));
        assert_eq!(Handle::from_bits(u32::MAX).index(), (1 << 24) - 1);
    }

    #[test]
    fn members_are_1_to_250() {
        let valid: Vec<u8> = (0..=255).filter(|n| Member::new(*n).is_some()).collect();
        assert_eq!(valid, (1..=250).collect::<Vec<u8>>());
    }

    #[test]
    fn tag_is_not_printed() {
        assert_eq!(format!("{:?}", Tag(0x1234_5678)), "Tag(..)");
    }
}
