use std::array;
use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use lanrage_proto::frame::mesh::{COUNTER_END, MeshEpoch};

/// Counters that one word remembers.
const BITS: u32 = 16;
const WORDS: usize = 256;

/// Epochs since the window was made: five years.
const EPOCHS: u32 = 1 << 18;
const _: () = assert!(EPOCHS as u64 * (COUNTER_END / BITS as u64) <= 1 << (64 - BITS));
const _: () = assert!(WORDS * BITS as usize == 4_096);

/// Which frames of one relay have been taken: by all shards together, so that it does not matter
/// which of them receives a frame.
#[derive(Debug)]
pub struct Windows {
    /// Nothing before it is taken.
    first: MeshEpoch,
    /// By the sender's shard; made at its first genuine frame, 2 KiB each.
    by_shard: [OnceLock<Box<Window>>; 256],
}

impl Windows {
    /// Windows that have seen nothing, from `first` on.
    pub fn new(first: MeshEpoch) -> Self {
        Self { first, by_shard: array::from_fn(|_| OnceLock::new()) }
    }

    /// Whether frames of an epoch, and of the one after the next, can be taken: not when a clock was
    /// set by more than an epoch since.
    pub(super) fn covers(&self, first: MeshEpoch) -> bool {
        first.0.checked_sub(self.first.0).is_some_and(|at| at < EPOCHS - 2)
    }

    /// Whether a frame, whose tag was right, is new; from then on it is not.
    pub fn take(&self, shard: u8, epoch: MeshEpoch, counter: u64) -> bool {
        let Some(epoch) = epoch.0.checked_sub(self.first.0).filter(|epoch| *epoch < EPOCHS) else {
            return false;
        };
        let window = self.by_shard[usize::from(shard)].get_or_init(Box::default);
        window.take(u64::from(epoch) * COUNTER_END + counter)
    }
}

/// A window over numbers that mostly grow, as in RFC 6479, without a lock and without a top: a word
/// says itself which [`BITS`] numbers it is about, and only ever goes on to higher ones. So a number
/// is taken once at most, whoever asks at the same time: every decision is one exchange of one word.
///
/// ```text
/// bits 63..16  number / 16
/// bits 15..0   which of those 16 were taken
/// ```
#[derive(Debug)]
struct Window([AtomicU64; WORDS]);

impl Default for Window {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Window {
    fn take(&self, number: u64) -> bool {
        let block = number / u64::from(BITS);
        let bit = 1 << (number % u64::from(BITS));
        let word = &self.0[block as usize % WORDS];
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let next = match (seen >> BITS).cmp(&block) {
                Less => block << BITS | bit,
                Equal if seen & bit == 0 => seen | bit,
                Equal | Greater => return false,
            };
            match word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const EPOCH: MeshEpoch = MeshEpoch(2_833_333);

    #[test]
    fn order_does_not_matter_within_the_window() {
        let window = Window::default();
        let at = |number: u64| 1_000_000 + number;
        assert!((0..4_096).rev().all(|number| window.take(at(number))));
        assert!((0..4_096).all(|number| !window.take(at(number))));
        assert!(window.take(at(4_096 + 15)));
        assert!(!window.take(at(15)), "what its word has gone on from");
    }

    #[test]
    fn epochs_follow_one_another_and_do_not_mix() {
        let windows = Windows::new(EPOCH);
        let next = MeshEpoch(EPOCH.0 + 1);
        assert!(windows.take(0, EPOCH, COUNTER_END - 1) && windows.take(0, next, 0));
        assert!(windows.take(0, EPOCH, COUNTER_END - 2), "late, from the epoch before");
        assert!(windows.take(1, EPOCH, COUNTER_END - 1), "another shard counts for itself");
        for (shard, epoch, counter) in
            [(0, EPOCH, COUNTER_END - 1), (0, next, 0), (1, EPOCH, COUNTER_END - 1)]
        {
            assert!(!windows.take(shard, epoch, counter));
        }
        assert!(!windows.take(0, MeshEpoch(EPOCH.0 - 1), 7));
        assert!(windows.take(0, MeshEpoch(EPOCH.0 + EPOCHS - 1), COUNTER_END - 1));
        assert!(!windows.take(0, MeshEpoch(EPOCH.0 + EPOCHS), 0));
    }

    #[test]
    fn windows_cover_the_epochs_from_their_first_on() {
        let windows = Windows::new(EPOCH);
        let covers = |at: u32| windows.covers(MeshEpoch(at));
        assert!(covers(EPOCH.0) && covers(EPOCH.0 + EPOCHS - 3));
        assert!(!covers(EPOCH.0 - 1) && !covers(EPOCH.0 + EPOCHS - 2) && !covers(0));
    }

    #[test]
    fn a_frame_that_several_threads_receive_is_taken_by_one() {
        const FRAMES: u64 = 200_000;
        let windows = Windows::new(EPOCH);
        let taken: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let receiver = || (0..FRAMES).filter(|at| windows.take(3, EPOCH, *at)).collect();
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(receiver)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let once: HashSet<_> = taken.iter().flatten().collect();
        assert_eq!(once.len(), taken.iter().map(Vec::len).sum::<usize>(), "none twice");
        assert_eq!(once.len() as u64, FRAMES, "each by the first who asks");
    }

    proptest! {
        /// Nothing is taken twice, and what is less than a window behind the newest is taken.
        #[test]
        fn agrees_with_a_set(steps in vec((0..9_000u64, any::<bool>()), 1..400)) {
            let window = Window::default();
            let mut seen = HashSet::new();
            let mut newest = 0u64;
            for (step, ahead) in steps {
                let number = if ahead { newest + step } else { newest.saturating_sub(step) };
                let is_new = !seen.contains(&number);
                let taken = window.take(number);
                prop_assert!(is_new || !taken, "{number} twice");
                if number / 16 + 256 > newest / 16 {
                    prop_assert_eq!(taken, is_new, "{} of {}", number, newest);
                }
                if taken {
                    seen.insert(number);
                    newest = newest.max(number);
                }
            }
        }
    }
}
