//! Free slots, longest free first.

use std::collections::{TryReserveError, VecDeque};

#[derive(Debug)]
pub(crate) struct FreeList {
    queue: VecDeque<u32>,
}

impl FreeList {
    pub(crate) fn new(numbers: std::ops::Range<u32>) -> Result<Self, TryReserveError> {
        let mut queue = VecDeque::new();
        queue.try_reserve_exact(numbers.len())?;
        queue.extend(numbers);
        Ok(Self { queue })
    }

    /// An empty list with room for `len`.
    pub(crate) fn with_capacity(len: usize) -> Result<Self, TryReserveError> {
        let mut queue = VecDeque::new();
        queue.try_reserve_exact(len)?;
        Ok(Self { queue })
    }

    pub(crate) const fn footprint(len: u32) -> usize {
        len as usize * size_of::<u32>()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The longest free.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.queue.pop_front()
    }

    /// A random one of the longer free half. While takes and puts balance, a slot that joins `n` free ones rests for
    /// `n / 2` takes or more.
    pub(crate) fn take_random(&mut self, random: u64) -> Option<u32> {
        let half = self.queue.len().div_ceil(2);
        if half == 0 {
            return None;
        }
        // Maps the random word onto 0..half by its high bits, without division.
        let at = ((u128::from(random) * half as u128) >> 64) as usize;
        self.queue.swap(0, at);
        self.queue.pop_front()
    }

    pub(crate) fn put(&mut self, number: u32) {
        self.queue.push_back(number);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_freed_slot_rests(free in 1..100u32, words in prop::collection::vec(any::<u64>(), 100)) {
            const FREED: u32 = 1_000;
            let mut list = FreeList::new(0..free).unwrap();
            list.put(FREED);
            let mut rested = 0;
            for word in words {
                let slot = list.take_random(word).unwrap();
                if slot == FREED {
                    break;
                }
                rested += 1;
                list.put(slot);
            }
            prop_assert!(rested >= free / 2, "{rested} takes among {free}");
        }
    }

    #[test]
    fn random_words_reach_the_whole_older_half() {
        let mut seen = [false; 4];
        for word in (0..64).map(|i| i << 58) {
            let slot = FreeList::new(0..8).unwrap().take_random(word).unwrap();
            seen[slot as usize] = true;
        }
        assert_eq!(seen, [true; 4]);
    }

    #[test]
    fn every_slot_is_taken_once() {
        let mut list = FreeList::new(0..100).unwrap();
        let mut taken: Vec<u32> = (0..)
            .map_while(|i: u64| list.take_random(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..100).collect::<Vec<u32>>());
    }
}
