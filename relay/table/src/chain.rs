//! Session chains: which members have a lease here, and which.
//!
//! ```text
//! word 0     member numbers of entries 0..8, a byte each, 0 = no entry
//! word 1     member numbers of entries 8..12 | next line u32, 0 = last
//! word 2..8  handles of entries 0..12, two a word
//! ```
//!
//! An entry never moves, a new one takes the first hole, and lines leave a chain only from its end and only empty. So
//! the lines up to an entry stay the same as long as the entry stays, and a walk meets it exactly once, whatever is
//! edited meanwhile. A walk that stands on a line which has left may stray into another session's chain: it is bounded
//! by [`LINES_MAX`], and its reader checks every target's session.
//!
//! Stores that publish are releases and all loads acquire, so who sees an entry sees the lease it names at least as new.

use crate::{
    ids::{ChainHead, Handle, Member},
    line::Line,
    sync::Ordering,
};

/// Entries a line: 12 × (1 + 4) + 4 = 64 bytes.
pub(crate) const ENTRIES: usize = if cfg!(loom) { 2 } else { 12 };

/// Lines a chain, for a party with every member number in use.
pub(crate) const LINES_MAX: usize =
    if cfg!(loom) { 3 } else { (Member::MAX as usize).div_ceil(ENTRIES) };

#[cfg(not(loom))]
const _: () = assert!(LINES_MAX == 21);

/// The end of every chain: a line number that is never handed out.
pub(crate) const END: u32 = 0;

const HANDLES: usize = 2;
const MEMBERS_HIGH: u64 = u32::MAX as u64;

/// One entry's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) entry: usize,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ChainLine<'a>(pub(crate) &'a Line);

impl ChainLine<'_> {
    #[inline]
    pub(crate) fn members(self) -> [u8; ENTRIES] {
        let low = self.0[0].load(Ordering::Acquire);
        let high = self.0[1].load(Ordering::Acquire) & MEMBERS_HIGH;
        let bytes = (u128::from(low) | u128::from(high) << 64).to_le_bytes();
        std::array::from_fn(|at| bytes[at])
    }

    /// The member's first entry.
    #[inline]
    pub(crate) fn position(self, member: Member) -> Option<usize> {
        let at = |word: usize, ignored| {
            byte_position(self.0[word].load(Ordering::Acquire) | ignored, member.number())
        };
        // The number of the next line, made what no member has.
        at(0, 0).or_else(|| at(1, !MEMBERS_HIGH).map(|at| at + 8))
    }

    pub(crate) fn is_empty(self) -> bool {
        self.members() == [0; ENTRIES]
    }

    #[inline]
    pub(crate) fn next(self) -> u32 {
        (self.0[1].load(Ordering::Acquire) >> 32) as u32
    }

    pub(crate) fn set_next(self, next: u32) {
        let members = self.0[1].load(Ordering::Relaxed) & MEMBERS_HIGH;
        self.0[1].store(members | u64::from(next) << 32, Ordering::Release);
    }

    #[inline]
    pub(crate) fn entry(self, at: usize) -> Option<(Member, Handle)> {
        let member = (self.0[at / 8].load(Ordering::Acquire) >> (at % 8 * 8)) as u8;
        let handle = (self.0[HANDLES + at / 2].load(Ordering::Acquire) >> (at % 2 * 32)) as u32;
        Member::new(member).map(|member| (member, Handle::from_bits(handle)))
    }

    pub(crate) fn insert(self, at: usize, member: Member, handle: Handle) {
        self.set_handle(at, handle);
        self.set_member(at, member.number());
    }

    pub(crate) fn remove(self, at: usize) {
        self.set_member(at, 0);
    }

    pub(crate) fn set_handle(self, at: usize, handle: Handle) {
        let shift = at % 2 * 32;
        let word = &self.0[HANDLES + at / 2];
        let other = word.load(Ordering::Relaxed) & !(u64::from(u32::MAX) << shift);
        word.store(other | u64::from(handle.to_bits()) << shift, Ordering::Release);
    }

    fn set_member(self, at: usize, member: u8) {
        let shift = at % 8 * 8;
        let word = &self.0[at / 8];
        let others = word.load(Ordering::Relaxed) & !(0xff << shift);
        word.store(others | u64::from(member) << shift, Ordering::Release);
    }

    /// A load for its cache effect.
    #[inline]
    pub(crate) fn touch(self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }
}

/// The lines from `head` on, at most [`LINES_MAX`].
#[inline]
pub(crate) fn walk(lines: &[Line], head: ChainHead) -> impl Iterator<Item = (u32, ChainLine<'_>)> {
    let mut number = head.0;
    std::iter::from_fn(move || {
        let at = number;
        if at == END {
            return None;
        }
        let line = ChainLine(lines.get(at as usize)?);
        number = line.next();
        Some((at, line))
    })
    .take(LINES_MAX)
}

#[inline]
pub(crate) fn find(lines: &[Line], head: ChainHead, member: Member) -> Option<Place> {
    walk(lines, head).find_map(|(line, at)| Some(Place { line, entry: at.position(member)? }))
}

/// The lowest byte that is this one.
#[inline]
fn byte_position(word: u64, byte: u8) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    // The lowest zero byte is marked, and no byte below it (H. S. Warren, Hacker's Delight, 6-1).
    let zero = word ^ (ONES * byte as u64);
    let marks = zero.wrapping_sub(ONES) & !zero & ONES << 7;
    (marks != 0).then_some(marks.trailing_zeros() as usize / 8)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_wherever_it_stands() {
        for at in 0..ENTRIES {
            let words = Line::default();
            let line = ChainLine(&words);
            line.set_next(u32::from_le_bytes([7; 4]));
            let number = |entry: usize| Member::new(250 - entry as u8).unwrap();
            (0..=at).for_each(|entry| line.insert(entry, number(entry), Handle::from_bits(0)));
            for entry in 0..ENTRIES {
                assert_eq!(line.position(number(entry)), (entry <= at).then_some(entry));
            }
            assert_eq!(line.position(Member::new(7).unwrap()), None, "the next line's number");
            line.insert(at, Member::new(1).unwrap(), Handle::from_bits(0));
            assert_eq!(line.position(Member::new(1).unwrap()), Some(at));
        }
    }
}
