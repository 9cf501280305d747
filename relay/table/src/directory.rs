//! The shards' index from a session to the head of its chain, for frames that name no lease.
//!
//! Buckets of one cache line. Only the writer writes, so a reader never waits, and an entry is one word, so it is never
//! seen by half. It never moves while its session lasts:
//!
//! ```text
//! word 0..7  bits 63..25 of the session's keyed hash | number of the chain's first line, 25 bits; 0 = no entry
//! word 7     entries that found this bucket full and stand in one behind it
//! ```
//!
//! A search ends at the first bucket that no entry has passed by (as in Folly's F14), so ended sessions leave nothing
//! behind. What is found is a hint: two sessions of one bucket are alike to it once in 2^39. [`Reader::peer`] and
//! [`Reader::members`] compare the session itself.
//!
//! [`Reader::peer`]: crate::Reader::peer
//! [`Reader::members`]: crate::Reader::members

use siphasher::sip::SipHasher13;

use crate::{
    ids::{ChainHead, SessionId},
    line::{Line, WORDS},
    slabs::Capacity,
    sync::{AtomicU64, Ordering},
};

const LINE: u64 = (1 << 25) - 1;
const _: () = assert!(Capacity::MAX as u64 <= LINE);

/// Entries a bucket; with every line the head of a session, four of them are used on average.
const ENTRIES: usize = WORDS - 1;
const ENTRIES_MEAN_MAX: u32 = 4;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Directory {
    /// Keyed, so that session numbers cannot be chosen to collide.
    hasher: SipHasher13,
    /// A power of two.
    buckets: &'static [Line],
}

impl Directory {
    pub(crate) fn new(key: [u64; 2], buckets: &'static [Line]) -> Self {
        debug_assert!(buckets.len().is_power_of_two());
        Self { hasher: SipHasher13::new_with_keys(key[0], key[1]), buckets }
    }

    /// Lines that a directory takes.
    pub(crate) const fn lines(session_lines: u32) -> usize {
        session_lines.div_ceil(ENTRIES_MEAN_MAX).next_power_of_two() as usize
    }

    /// For any thread.
    #[inline]
    pub(crate) fn find(&self, session: SessionId) -> Option<ChainHead> {
        let hash = self.hasher.hash(&session.0.to_ne_bytes());
        for (entries, passed) in self.path(hash) {
            for entry in entries {
                let entry = entry.load(Ordering::Acquire);
                if entry & !LINE == hash & !LINE && entry & LINE != 0 {
                    return Some(ChainHead((entry & LINE) as u32));
                }
            }
            if passed.load(Ordering::Acquire) == 0 {
                return None;
            }
        }
        None
    }

    /// For the writer alone: the session must be new.
    pub(crate) fn insert(&self, session: SessionId, ChainHead(line): ChainHead) {
        let hash = self.hasher.hash(&session.0.to_ne_bytes());
        for (entries, passed) in self.path(hash) {
            if let Some(free) = entries.iter().find(|entry| load(entry) == 0) {
                return free.store(hash & !LINE | u64::from(line), Ordering::Release);
            }
            passed.store(load(passed) + 1, Ordering::Release);
        }
        unreachable!("there are more entries than lines");
    }

    /// For the writer alone: the session must have been inserted with this head.
    pub(crate) fn remove(&self, session: SessionId, ChainHead(line): ChainHead) {
        let hash = self.hasher.hash(&session.0.to_ne_bytes());
        let word = hash & !LINE | u64::from(line);
        for (entries, passed) in self.path(hash) {
            if let Some(entry) = entries.iter().find(|entry| load(entry) == word) {
                return entry.store(0, Ordering::Release);
            }
            passed.store(load(passed).saturating_sub(1), Ordering::Release);
        }
    }

    /// Every bucket, from the session's own on: its entries, and the count of those that passed by.
    #[inline]
    fn path(&self, hash: u64) -> impl Iterator<Item = (&'static [AtomicU64], &'static AtomicU64)> {
        let mask = self.buckets.len() - 1;
        let home = (hash & LINE) as usize;
        let buckets = self.buckets;
        (0..=mask).map(move |step| {
            let (entries, passed) = buckets[(home + step) & mask].split_at(ENTRIES);
            (entries, &passed[0])
        })
    }
}

fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn directory(session_lines: u32) -> Directory {
        let lines = (0..Directory::lines(session_lines)).map(|_| Line::default());
        Directory::new([1, 2], lines.collect::<Vec<_>>().leak())
    }

    proptest! {
        /// As many lines as there can be for so few buckets, hence sessions that pass by.
        #[test]
        fn agrees_with_a_map(toggles in prop::collection::vec((0..60u64, 1..=32u32), 0..400)) {
            let directory = directory(32);
            let mut model: HashMap<SessionId, u32> = HashMap::new();
            for (session, line) in toggles {
                let session = SessionId(session);
                if let Some(line) = model.remove(&session) {
                    directory.remove(session, ChainHead(line));
                } else if !model.values().any(|used| *used == line) {
                    model.insert(session, line);
                    directory.insert(session, ChainHead(line));
                }
                for session in (0..60).map(SessionId) {
                    prop_assert_eq!(directory.find(session), model.get(&session).copied().map(ChainHead));
                }
            }
            for (session, line) in model {
                directory.remove(session, ChainHead(line));
            }
            prop_assert!(directory.buckets.iter().flatten().all(|word| load(word) == 0));
        }
    }

    /// A search stays short, however often sessions come and go.
    #[test]
    fn searches_stay_short_while_sessions_come_and_go() {
        const LINES: u64 = 1 << 12;
        let directory = directory(LINES as u32);
        let head = |number: u64| ChainHead((number % LINES + 1) as u32);
        for number in 0..64 * LINES {
            if let Some(ended) = number.checked_sub(LINES) {
                directory.remove(SessionId(ended), head(ended));
            }
            directory.insert(SessionId(number), head(number));
        }
        let buckets = |session: u64| {
            let hash = directory.hasher.hash(&session.to_ne_bytes());
            1 + directory.path(hash).take_while(|(_, passed)| load(passed) > 0).count()
        };
        let searched: usize = (0..LINES).map(|at| buckets(1 << 40 | at)).sum();
        let mean = searched as f64 / LINES as f64;
        println!("{mean} buckets looked at for a session that is not there");
        assert!(mean < 2.0, "{mean}");
    }
}
